use std::fs;
use std::os::unix::fs::symlink;

use super::super::{BaseInterpreter, BaseLink};
use super::*;
use crate::python::BuildId;
use crate::python::sample::{binary, linked};

const HEX_3_11_2: u64 = 0x030b_02f0;

/// A system with Debian's Python 3.11, and a venv made by `python3 -m venv`.
struct System {
    dir: tempfile::TempDir,
    root: Root,
}

impl System {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let system = Self { root: Root::new(dir.path()), dir };
        system.write("usr/bin/python3.11", binary(Some(HEX_3_11_2), b"", &[0xab]));
        system.link("usr/bin/python3", "python3.11");
        system.link("bin", "usr/bin");
        system.write(
            "srv/app/pyvenv.cfg",
            "home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.11.2\n\
             executable = /usr/bin/python3.11\ncommand = /usr/bin/python3 -m venv /srv/app\n",
        );
        system.link("srv/app/bin/python", "python3");
        system.link("srv/app/bin/python3", "/usr/bin/python3");
        system.link("srv/app/bin/python3.11", "python3");
        system.link("srv/app/lib64", "lib");
        system.make("srv/app/lib/python3.11/site-packages");
        system
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn make(&self, path: &str) {
        fs::create_dir_all(self.at(path)).unwrap();
    }

    fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        let _ = fs::remove_file(self.at(path));
        fs::write(self.at(path), bytes).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        let _ = fs::remove_file(self.at(path));
        symlink(target, self.at(path)).unwrap();
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.at(path)).unwrap();
    }

    fn add_to_cfg(&self, text: &str) {
        let path = self.at("srv/app/pyvenv.cfg");
        fs::write(&path, fs::read_to_string(&path).unwrap() + text).unwrap();
    }

    fn copy_interpreter(&self, bytes: &[u8]) {
        for name in ["python", "python3", "python3.11"] {
            self.write(&format!("srv/app/bin/{name}"), bytes);
        }
    }

    fn inspect(&self) -> Venv {
        inspect(&self.root, Path::new("/srv/app")).unwrap()
    }

    fn refused(&self, path: &str) -> String {
        let error = inspect(&self.root, Path::new(path)).unwrap_err().to_string();
        error.replace(self.dir.path().to_str().unwrap(), "")
    }
}

fn hanging(base: &BaseInterpreter) -> (BaseLink, &str, String, bool) {
    let minor = base.minor.map(|minor| minor.to_string()).unwrap_or_default();
    (base.link, base.path.to_str().unwrap(), minor, base.is_debian)
}

#[test]
fn a_venv_on_the_default_interpreter_follows_it() {
    let system = System::new();
    let venv = system.inspect();
    assert_eq!(hanging(&venv.base), (BaseLink::Followed, "/usr/bin/python3", "3.11".into(), true));
    assert_eq!(venv.base.copies, []);
    assert_eq!((venv.flavour, venv.site), (Flavour::Venv, Minor::new(3, 11)));
    assert_eq!(venv.path, Path::new("/srv/app"));
    assert_eq!(venv.uid, rustix::process::getuid().as_raw());
    assert!(!venv.system_site_packages && venv.prompt.is_none());
    assert_eq!(inspect(&system.root, Path::new("/srv/x/../app/")).unwrap(), venv);
}

#[test]
fn the_merged_bin_is_the_same_directory() {
    let system = System::new();
    system.link("srv/app/bin/python3", "/bin/python3");
    assert_eq!(
        hanging(&system.inspect().base),
        (BaseLink::Followed, "/usr/bin/python3", "3.11".into(), true)
    );
    system.link("srv/app/bin/python3", "/bin/python3.11");
    assert_eq!(
        hanging(&system.inspect().base),
        (BaseLink::Pinned, "/usr/bin/python3.11", "3.11".into(), true)
    );
}

#[test]
fn a_venv_follows_the_default_by_other_names_too() {
    let system = System::new();
    system.link("usr/bin/python", "python3");
    system.link("srv/app/bin/python", "/usr/bin/python");
    assert_eq!(system.inspect().base.link, BaseLink::Followed);
    system.link("etc/alternatives/python3", "/usr/bin/python3.11");
    system.link("usr/bin/python3", "/etc/alternatives/python3");
    assert!(system.inspect().base.is_debian);
}

#[test]
fn after_a_change_of_the_default_the_site_packages_are_the_old_ones() {
    let system = System::new();
    system.write("usr/bin/python3.13", "");
    system.link("usr/bin/python3", "python3.13");
    let venv = system.inspect();
    assert_eq!(venv.base.minor, Some(Minor::new(3, 13)));
    assert_eq!(venv.site, Minor::new(3, 11));
}

#[test]
fn a_dangling_link_still_reveals_its_target() {
    let system = System::new();
    system.link("srv/app/bin/python3", "/usr/bin/python3.9");
    assert_eq!(
        hanging(&system.inspect().base),
        (BaseLink::Dangling, "/usr/bin/python3.9", "3.9".into(), true)
    );
    system.remove("usr/bin/python3");
    system.link("srv/app/bin/python3", "/usr/bin/python3");
    assert_eq!(
        hanging(&system.inspect().base),
        (BaseLink::Dangling, "/usr/bin/python3", String::new(), true)
    );
    system.link("srv/app/bin/python3", "python");
    let base = system.inspect().base;
    assert_eq!((base.link, base.minor, base.is_debian), (BaseLink::Dangling, None, true), "a loop");
    for name in ["python", "python3", "python3.11"] {
        system.remove(&format!("srv/app/bin/{name}"));
    }
    let venv = system.inspect();
    assert_eq!(
        hanging(&venv.base),
        (BaseLink::Dangling, "/srv/app/bin/python", String::new(), true)
    );
    assert_eq!(venv.site, Minor::new(3, 11));
}

#[test]
fn each_copied_interpreter_is_read() {
    let system = System::new();
    system.copy_interpreter(&binary(Some(HEX_3_11_2), b"", &[0xab]));
    system.write("srv/app/bin/python3", binary(Some(0x030b_01f0), b"", &[0xcd]));
    let base = system.inspect().base;
    assert_eq!(hanging(&base), (BaseLink::Copied, "/usr/bin/python3.11", "3.11".into(), true));
    assert_eq!(base.version.unwrap().to_string(), "3.11.2");
    let told: Vec<_> = base
        .copies
        .iter()
        .map(|copy| (copy.name.to_str().unwrap(), copy.build_id.clone().unwrap()))
        .collect();
    let build = |text: &str| BuildId(text.to_string());
    assert_eq!(
        told,
        [("python", build("ab")), ("python3", build("cd")), ("python3.11", build("ab"))]
    );
}

#[test]
fn a_copy_of_another_build_of_python_is_not_ours() {
    let system = System::new();
    system.copy_interpreter(&linked(None, b"", b"", b"libpython3.11.so.1.0"));
    assert!(!system.inspect().base.is_debian, "Debian's needs no libpython");
    system.copy_interpreter(b"#!/bin/sh\nexec /opt/python \"$@\"\n");
    assert!(!system.inspect().base.is_debian, "a script");
    system.copy_interpreter(&binary(Some(HEX_3_11_2), b"", b""));
    assert!(system.inspect().base.is_debian);
    system.add_to_cfg("base-executable = /home/u/.pyenv/versions/3.11.7/bin/python3.11\n");
    let base = system.inspect().base;
    assert_eq!(
        hanging(&base),
        (BaseLink::Copied, "/home/u/.pyenv/versions/3.11.7/bin/python3.11", "3.11".into(), false)
    );
}

#[test]
fn a_lost_or_damaged_copy_is_recognized_by_its_origin() {
    let system = System::new();
    let whole = binary(Some(HEX_3_11_2), b"", b"");
    for bytes in [&b""[..], &whole[..200]] {
        system.copy_interpreter(bytes);
        let base = system.inspect().base;
        assert_eq!(hanging(&base), (BaseLink::Copied, "/usr/bin/python3.11", "3.11".into(), true));
        assert_eq!((base.version, base.copies.len()), (None, 3));
    }
}

#[test]
fn an_old_virtualenv_without_a_configuration_is_recognised() {
    let system = System::new();
    system.remove("srv/app/pyvenv.cfg");
    system.copy_interpreter(&binary(Some(HEX_3_11_2), b"", b""));
    system.link("srv/app/bin/python", "python3");
    assert!(system.refused("/srv/app").contains("neither a pyvenv.cfg nor"));
    system.write("srv/app/lib/python3.11/orig-prefix.txt", "/usr");
    let venv = system.inspect();
    assert_eq!(venv.flavour, Flavour::LegacyVirtualenv);
    assert_eq!(hanging(&venv.base), (BaseLink::Copied, "/usr/bin/python3.11", "3.11".into(), true));
    assert_eq!(venv.base.copies.len(), 2);
    assert!(venv.system_site_packages);
    system.write("srv/app/lib/python3.11/no-global-site-packages.txt", "");
    assert!(!system.inspect().system_site_packages);
    system.write("srv/app/lib/python3.11/orig-prefix.txt", "/home/u/.pyenv/versions/3.11.7");
    assert!(!system.inspect().base.is_debian);
}

#[test]
fn interpreters_of_others_are_not_ours() {
    let system = System::new();
    for (path, ours) in [
        ("/home/u/.pyenv/versions/3.11.7/bin/python3.11", false),
        ("/usr/local/bin/python3.11", false),
        ("/home/u/.local/share/uv/python/cpython-3.11.9-linux-x86_64-gnu/bin/python3.11", false),
        ("/srv/tools/python3.11", false),
    ] {
        system.write(&path[1..], "");
        system.link("srv/app/bin/python3", path);
        assert_eq!(hanging(&system.inspect().base), (BaseLink::Pinned, path, "3.11".into(), ours));
        system.remove(&path[1..]);
        assert_eq!(
            hanging(&system.inspect().base),
            (BaseLink::Dangling, path, String::new(), ours)
        );
    }
    system.write("usr/local/bin/python3.12", "");
    system.link("usr/bin/python3", "/usr/local/bin/python3.12");
    system.link("srv/app/bin/python3", "/usr/bin/python3");
    assert!(!system.inspect().base.is_debian, "a link set by hand under Debian's name");
}

#[test]
fn the_directory_with_the_distributions_counts_rather_than_the_configuration() {
    let system = System::new();
    let path = system.at("srv/app/pyvenv.cfg");
    fs::write(&path, "home = /usr/bin\nversion = 3.13.5\n").unwrap();
    system.make("srv/app/lib/python3.13/site-packages/pip-25.1.dist-info");
    system.make("srv/app/lib/python3.11/site-packages/flask-3.0.dist-info");
    assert_eq!(system.inspect().site, Minor::new(3, 11));
    fs::remove_dir(system.at("srv/app/lib/python3.11/site-packages/flask-3.0.dist-info")).unwrap();
    fs::remove_dir(system.at("srv/app/lib/python3.13/site-packages/pip-25.1.dist-info")).unwrap();
    assert_eq!(system.inspect().site, Minor::new(3, 13), "both are empty: the claim decides");
}

#[test]
fn the_tool_and_the_manager_are_recognized_by_their_marks() {
    let system = System::new();
    let flavour = || system.inspect().flavour;
    system.add_to_cfg("virtualenv = 20.17.1\nprompt = 'app'\n");
    assert_eq!(flavour(), Flavour::Virtualenv);
    assert_eq!(system.inspect().prompt.as_deref(), Some("app"));
    system.add_to_cfg("uv = 0.9.1\n");
    assert_eq!(flavour(), Flavour::Uv);
    system.write("srv/.pdm-python", "/srv/other/bin/python");
    assert_eq!(flavour(), Flavour::Uv);
    system.write("srv/.pdm-python", "/srv/app/bin/python");
    assert_eq!(flavour(), Flavour::Pdm);
    system.write("srv/app/.project", "/srv");
    assert_eq!(flavour(), Flavour::Pipenv);
    system.write("srv/app/pipx_metadata.json", "{}");
    assert_eq!(flavour(), Flavour::Pipx);
}

#[test]
fn managers_are_recognized_by_their_location() {
    let system = System::new();
    for (path, flavour) in [
        ("home/u/.cache/pypoetry/virtualenvs/app-Xy_12-py3.11", Flavour::Poetry),
        ("home/u/.local/share/hatch/env/virtual/app/x9/app", Flavour::Hatch),
        ("home/u/.local/share/pdm/venvs/app-x9-3.11", Flavour::Pdm),
        ("home/u/app/.venv", Flavour::Poetry),
        ("home/u/other/.venv", Flavour::Virtualenv),
    ] {
        system.write(&format!("{path}/pyvenv.cfg"), "home = /usr/bin\nvirtualenv = 20.17.1\n");
        system.link(&format!("{path}/bin/python"), "/usr/bin/python3.11");
        system.make(&format!("{path}/lib/python3.11/site-packages"));
        system.write("home/u/app/poetry.lock", "");
        let venv = inspect(&system.root, &Path::new("/").join(path)).unwrap();
        assert_eq!((venv.flavour, venv.base.link), (flavour, BaseLink::Pinned), "{path}");
    }
}

#[test]
fn other_paths_are_refused_with_the_reason() {
    let system = System::new();
    assert_eq!(system.refused("/srv/none"), "/srv/none: no such directory");
    assert_eq!(system.refused("/srv/app/pyvenv.cfg"), "/srv/app/pyvenv.cfg is not a directory");
    assert!(system.refused("/usr").starts_with("/usr contains neither a pyvenv.cfg nor"));
    system.link("srv/link", "app");
    assert_eq!(
        system.refused("/srv/link"),
        "/srv/link is a link to app: name the directory itself"
    );
    system.make("opt/conda/conda-meta");
    assert!(system.refused("/opt/conda").contains("conda environment"));
    system.write("srv/half/pyvenv.cfg", "home = /usr/bin\n");
    assert!(system.refused("/srv/half").contains("neither an interpreter nor a library"));
}

#[test]
fn a_hostile_configuration_is_not_read() {
    let system = System::new();
    system.write("srv/app/pyvenv.cfg", vec![b'='; 70 << 10]);
    assert!(system.refused("/srv/app").contains("larger than"));
    system.link("srv/app/pyvenv.cfg", "/etc/shadow");
    assert!(system.refused("/srv/app").contains("not a regular file"));
    system.remove("srv/app/pyvenv.cfg");
    let fifo = system.at("srv/app/pyvenv.cfg");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(system.refused("/srv/app").contains("not a regular file"));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test prepares its own directories")]
fn links_in_place_of_its_directories_are_not_followed() {
    let system = System::new();
    fs::rename(system.at("srv/app/lib"), system.at("srv/elsewhere")).unwrap();
    system.link("srv/app/lib", "/srv/elsewhere");
    let venv = system.inspect();
    assert_eq!(venv.base.link, BaseLink::Followed);
    assert!(Dir::open(&system.at("srv/app")).unwrap().dir("lib").is_err());
}
