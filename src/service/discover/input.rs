//! Properties of the readers of processes, units and uWSGI. See `crate::input`.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::cgroup::{CgroupOwner, place, prefix};
use super::command_line::paths;
use super::process::{Stat, mapped, uid, words};
use super::unit_dir::Whose;
use super::unit_file::{Settings, unescape};
use super::uwsgi;
use crate::input::{bulky, few, is_harmless, lossy, near, near_text};

const CGROUP: &[&str] = &[
    "0::/system.slice/system-web.slice/web@blue\\x2d1.service/worker\n",
    "0::/user.slice/user-1000.slice/user@1000.service/app.slice/app.service\n",
    "9:name=systemd:/system.slice/web.service\n8:pids:/x\n0::/\n",
];

const CGROUP_WORDS: &[&str] = &[
    "0::",
    "9:name=systemd:",
    "/",
    "/system.slice",
    "/user.slice",
    "/user-1000.slice",
    "web",
    ".slice",
    "/user@1000.service",
    "/user@0.service",
    ".service",
    ".scope",
    "_",
    "@",
    "\\x2d",
    "\n",
    "..",
    "-",
];

const PROC: &[&str] = &[
    "363 (python (x) y) S 1 363 363 0 -1 4194560 100 0 0 0 1 1 0 0 20 0 1 0 5000 1 1\n",
    "Name:\tpython\nUid:\t1000\t1000\t1000\t1000\nGid:\t1\t1\t1\t1\n",
    "7f00-7f01 r-xp 00000000 fe:00 123    /opt/v/lib/python3.11/site-packages/a.so\n\
     7f00-7f01 r-xp 00000000 fe:00 124    /usr/bin/python3.11 (deleted)\n",
    "/opt/v/bin/python\0-m\0app\0",
];

const PROC_WORDS: &[&str] = &[
    "363",
    " (",
    ") ",
    "S",
    "Z",
    " ",
    "1",
    "-1",
    "\n",
    "\0",
    "Uid:",
    "\t",
    "1000",
    " (deleted)",
    "/usr/",
    "/opt/v",
    "/bin/python",
    "/site-packages/",
    "4294967296",
    "r-xp 00000000 fe:00 123 ",
];

const INI: &[&str] = &[
    "[uwsgi]\nbase = /srv/apps\napp = %(base)/%n\nhome = %(app)/venv\nvenv = %d../v\n# home = /not\n",
    "uwsgi:\n  - for: a b\n  - home: \"/srv/%(_)\" # x\n  - endfor:\n  - set-ph: a=b\n",
    "<uwsgi><home>/srv/v</home><ini>x.ini</ini></uwsgi>",
    "{\"uwsgi\": {\"home\": [\"/srv/v\", 1], \"include\": \"x.ini\"}}",
];

const INI_WORDS: &[&str] = &[
    "[uwsgi]\n",
    "home",
    "virtualenv",
    "H",
    " = ",
    "=",
    "a",
    "%(a)",
    "%(",
    ")",
    "%d",
    "%n",
    "/srv",
    "\n",
    "#",
];

const UNIT: &[&str] = &[
    "[Unit]\nDescription=/opt/not\n[Service]\n# x\nExecStartPre=-/opt/pre/bin/migrate\n\
     ExecStart=/opt/%i/bin/app \\\n  --home=/opt/more \"/opt/my venv/bin/x\"\nEnvironment=\"A=/opt/v\" B=c\n",
];

const UNIT_WORDS: &[&str] = &[
    "[Service]\n",
    "[Unit]\n",
    "ExecStart",
    "Environment",
    "RootDirectory",
    "=",
    "\n",
    "\\\n",
    "\\x2d",
    "\\s",
    "\"",
    "'",
    "/opt/v",
    "/bin/app",
    "%i",
    "%I",
    "%n",
    "%",
    "%%",
    ";",
    "#",
    " ",
    ":",
    "-",
    "../",
];

/// An absolute path without `..`.
fn is_normal(path: &Path) -> bool {
    path.is_absolute() && !path.components().any(|part| part.as_os_str() == "..")
}

proptest! {
    #[test]
    fn cgroups(bytes in near(CGROUP, CGROUP_WORDS), init in near(CGROUP, CGROUP_WORDS)) {
        for prefix in [Vec::new(), prefix(&init)] {
            match place(&bytes, &prefix) {
                CgroupOwner::Unit(unit) => {
                    prop_assert!(lossy(&bytes).contains(unit.trim_start_matches('_')));
                    prop_assert!(!unit.starts_with("user@"));
                }
                CgroupOwner::UserUnit { uid, unit } => {
                    prop_assert!(is_harmless(&unit));
                    let manager = format!("/user.slice/user-{uid}.slice/user@{uid}.service/");
                    prop_assert!(lossy(&bytes).contains(&manager), "users have their own units only");
                }
                CgroupOwner::Elsewhere => {}
            }
        }
    }

    #[test]
    fn files_of_proc(bytes in near(PROC, PROC_WORDS)) {
        let _ = (Stat::read(&bytes), uid(&bytes));
        let arguments: usize = words(&bytes).iter().map(|word| word.len() + 1).sum();
        prop_assert!(arguments <= bytes.len() + 1);
        for image in mapped(&bytes) {
            prop_assert!(image.path.as_os_str().as_bytes().starts_with(b"/"));
        }
    }

    #[test]
    fn settings_of_uwsgi(text in near_text(INI, INI_WORDS)) {
        for ending in ["ini", "yaml", "xml", "json"] {
            let path = format!("/etc/uwsgi/apps-enabled/shop.{ending}");
            for venv in uwsgi::in_text(&text, Path::new(&path)) {
                prop_assert!(venv.as_os_str().len() <= 4096);
            }
        }
    }

    #[test]
    fn unit_files(text in near_text(UNIT, UNIT_WORDS), line in near_text(UNIT, UNIT_WORDS)) {
        let mut settings = Settings::default();
        settings.read(&text);
        settings.read(&line);
        for path in settings.paths(&Whose::System, "web@my\\x2dapp.service").iter().chain(&paths(&line)) {
            prop_assert!(is_normal(path), "{}", path.display());
        }
        prop_assert!(unescape(&text).len() <= 3 * text.len());
    }

    #[test]
    fn a_path_survives_the_way_through_a_command_line(path in "/[a-z_é]([a-z _é]{0,8}[a-z])?(/[a-z]{1,5}){0,3}") {
        let quoted = format!("/usr/bin/env \"{path}\" x");
        prop_assert!(paths(&quoted).contains(&PathBuf::from(&path)));
        let escaped = format!("ExecStart=-{} x", path.replace(' ', "\\x20"));
        prop_assert!(paths(escaped.split_once('=').unwrap().1).contains(&PathBuf::from(&path)));
    }
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn long_answers(
        cgroup in bulky(CGROUP_WORDS),
        proc in bulky(PROC_WORDS),
        ini in bulky(INI_WORDS),
        unit in bulky(UNIT_WORDS),
    ) {
        let _ = (place(&cgroup, b""), Stat::read(&proc), mapped(&proc), words(&proc).len());
        // The longest path that a user can create.
        let deep = PathBuf::from(format!("/{}/x.ini", "d/".repeat(2000)));
        let named: usize = uwsgi::in_text(&lossy(ini), &deep).iter().map(|venv| venv.as_os_str().len()).sum();
        prop_assert!(named <= 1 << 20, "{named}");
        let mut settings = Settings::default();
        settings.read(&lossy(&unit));
        settings.paths(&Whose::System, "web@blue.service");
    }
}
