use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;
use crate::host::Root;
use crate::plan::Policy;
use crate::python::sample::binary;
use crate::store::{Event, History, Registry};

/// A directory that stands in for a machine, and what venvguard knows there.
struct Box {
    dir: tempfile::TempDir,
    registry: Registry,
    history: History,
}

const VENV: &str = "/srv/app/venv";

impl Box {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, registry: Registry::default(), history: History::default() }
    }

    /// With these versions of Python from Debian's packages; the first is the default.
    fn with(pythons: &[&str]) -> Self {
        let machine = Self::new();
        let minor = |version: &str| version.rsplit_once('.').unwrap().0.to_string();
        let mut status = String::new();
        for version in pythons {
            let program = format!("python{}", minor(version));
            let [_, small, patch] =
                [0, 1, 2].map(|at| version.split('.').nth(at).unwrap().parse::<u64>().unwrap());
            let number = 0x0300_00f0 | (small << 16) | (patch << 8);
            machine.write(
                &format!("usr/bin/{program}"),
                binary(Some(number), b"", version.as_bytes()),
            );
            let list = format!("var/lib/dpkg/info/{program}-minimal.list");
            machine.write(&list, format!("/.\n/usr/bin/{program}\n"));
            status.extend([format!(
                "Package: {program}-minimal\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}-1\n\n"
            )]);
            machine.write(&format!("usr/lib/{program}/encodings/__init__.py"), "");
        }
        machine.write("var/lib/dpkg/status", status);
        if let Some(first) = pythons.first() {
            machine.link("usr/bin/python3", &format!("python{}", minor(first)));
        }
        machine
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.dir.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.dir.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    /// A venv for a minor version; `python` is what its interpreter links to, or a copy.
    fn venv(&mut self, minor: &str, python: Result<&str, Vec<u8>>) {
        self.write(&format!("{VENV}/pyvenv.cfg"), "home = /usr/bin\n");
        self.write(&format!("{VENV}/lib/python{minor}/site-packages/app.py"), "");
        let program = format!("{VENV}/bin/python3");
        match python {
            Ok(target) => self.link(&program, target),
            Err(bytes) => self.write(&program, bytes),
        }
        self.link(&format!("{VENV}/bin/python"), "python3");
        self.registry.add(Path::new(VENV), Some("shop"), Policy::Auto).unwrap();
    }

    fn install(&self, minor: &str, name: &str, version: &str) {
        let site = format!("{VENV}/lib/python{minor}/site-packages");
        let text = format!("Name: {name}\nVersion: {version}\n");
        self.write(&format!("{site}/{name}-{version}.dist-info/METADATA"), text);
        self.write(&format!("{site}/{name}/__init__.py"), "");
    }

    fn causes(&self, text: &str) -> Vec<Cause> {
        let root = Root::new(self.dir.path());
        let text = FailureText::read(text.as_bytes());
        causes_of(&text, &Machine::look(&root, &text.venvs(), &self.registry, &self.history))
    }

    /// The only cause of a text.
    #[track_caller]
    fn cause(&self, text: &str) -> Cause {
        let mut causes = self.causes(text);
        assert_eq!(causes.len(), 1, "{causes:#?}");
        causes.remove(0)
    }

    fn causes_of_venv(&self) -> Vec<Cause> {
        let root = Root::new(self.dir.path());
        let machine = Machine::look(&root, &[VENV.into()], &self.registry, &self.history);
        machine.venvs().iter().flat_map(|venv| causes_in(venv, &machine)).collect()
    }
}

/// The texts in a directory of samples: name, the lines about it, the text.
fn samples(kind: &str) -> Vec<(String, String, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/diagnose/failure/samples").join(kind);
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path).unwrap();
        let is_head = |line: &&str| line.starts_with("# ");
        let head: Vec<&str> = text.lines().take_while(is_head).collect();
        let body: Vec<&str> = text.lines().skip(head.len()).collect();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        (name, head.join("\n"), body.join("\n"))
    };
    let entries = std::fs::read_dir(dir).unwrap();
    let mut all: Vec<_> = entries.map(|entry| read(&entry.unwrap().path())).collect();
    all.sort();
    all
}

fn known(name: &str) -> String {
    samples("known").into_iter().find(|(found, ..)| found == name).unwrap().2
}

#[test]
fn each_known_failure_is_recognised_by_its_text_and_by_no_other_signature() {
    let machine = Box::new();
    let mut seen = BTreeSet::new();
    for (name, head, text) in samples("known") {
        let expected = head.lines().next().unwrap().strip_prefix("# expect: ").unwrap();
        let ids: Vec<&str> = machine.causes(&text).iter().map(|cause| cause.id).collect();
        assert_eq!(ids, [expected], "{name}");
        seen.insert(expected.to_string());
    }
    let all: BTreeSet<String> = SIGNATURES.iter().map(|one| one.id.to_string()).collect();
    assert_eq!(seen, all, "each signature has a sample");
}

#[test]
fn an_ordinary_failure_of_an_application_is_not_recognised() {
    let (elsewhere, mut here) = (Box::new(), Box::with(&["3.11.2"]));
    here.venv("3.11", Ok("/usr/bin/python3"));
    for name in ["gunicorn", "flask", "gevent", "apscheduler", "urllib3"] {
        here.install("3.11", name, "1.0");
    }
    let samples = samples("ordinary");
    assert!(samples.len() >= 30, "{}", samples.len());
    for (name, _, text) in samples {
        for machine in [&elsewhere, &here] {
            assert_eq!(machine.causes(&text), [], "{name}");
        }
    }
}

#[test]
fn a_venv_whose_default_interpreter_moved_is_orphaned_whatever_the_text() {
    let mut machine = Box::with(&["3.13.5", "3.11.2"]);
    machine.venv("3.11", Ok("/usr/bin/python3"));
    let told = |cause: &Cause| {
        assert_eq!((cause.id, cause.certainty), ("orphaned", Certainty::Verified));
        assert_eq!(cause.caused_by_upgrade, Some(true));
        assert_eq!(cause.remedy, "`venvguard rebuild shop`");
        assert!(cause.evidence.iter().any(|line| line.contains("runs 3.13")), "{cause:?}");
    };
    told(&machine.cause(&known("orphaned-script")));
    told(&machine.cause(&known("orphaned-module")));
    told(&machine.cause("/srv/app/venv/bin/python3: No module named gunicorn"));
    let [cause] = &machine.causes_of_venv()[..] else { panic!() };
    told(cause);
    machine.registry = Registry::default();
    let remedy = machine.cause(&known("orphaned-script")).remedy;
    assert_eq!(remedy, "`venvguard register /srv/app/venv && venvguard rebuild /srv/app/venv`");
}

#[test]
fn a_module_that_was_never_installed_in_a_healthy_venv_has_no_cause_here() {
    let mut machine = Box::with(&["3.11.2"]);
    machine.venv("3.11", Ok("/usr/bin/python3"));
    assert_eq!(machine.causes(&known("orphaned-script")), []);
    assert_eq!(machine.causes_of_venv(), []);
}

#[test]
fn a_removed_interpreter_strands_its_venv() {
    let mut machine = Box::with(&["3.13.5"]);
    machine.venv("3.11", Ok("/usr/bin/python3.11"));
    for name in
        ["stranded-bash", "stranded-python", "stranded-zsh", "stranded-sh", "stranded-systemd"]
    {
        let cause = machine.cause(&known(name).replace("/srv/orphan/", "/srv/app/"));
        assert_eq!((cause.id, cause.certainty), ("stranded", Certainty::Verified), "{name}");
    }
    let weak = "dash: 1: /srv/app/venv/bin/gunicorn: not found";
    assert_eq!(machine.cause(weak).id, "stranded");
    assert_eq!(Box::new().causes(weak), [], "the program may just not exist");
}

#[test]
fn a_copy_of_another_build_explains_names_that_are_missing_and_crashes() {
    let mut machine = Box::with(&["3.13.6"]);
    machine.venv("3.13", Err(binary(Some(0x030d_05f0), b"", b"old")));
    for text in [
        known("socket-tlsv1-3").replace("/usr/lib/python3.13/ssl.py\", line 118", "/srv/app/venv/bin/app\", line 3")
            + "\n" + &known("socket-tlsv1-3"),
        "shop.service: Main process exited, code=killed, status=11/SEGV\n/srv/app/venv/bin/python3 -m x".into(),
        "shop: FATAL Exited too quickly (process log may have details)\n/srv/app/venv/bin/python3 -m x".into(),
    ] {
        let cause = machine.cause(&text);
        assert_eq!((cause.id, cause.certainty), ("copied-interpreter", Certainty::Verified), "{text}");
        assert_eq!(cause.remedy, "`venvguard rebuild --all`");
        assert!(cause.evidence.iter().any(|line| line.contains("of a different build")), "{cause:?}");
        assert_eq!(Box::new().causes("status=11/SEGV"), [], "anything may crash");
    }
}

#[test]
fn the_file_on_disk_shows_that_a_process_had_an_older_one() {
    let machine = Box::new();
    assert_eq!(machine.cause(&known("header-write-error")).certainty, Certainty::Likely);
    machine.write(
        "usr/lib/python3.11/email/errors.py",
        "class HeaderWriteError(MessageError): pass\n",
    );
    let cause = machine.cause(&known("header-write-error"));
    assert_eq!((cause.id, cause.certainty), ("process-outdated", Certainty::Verified));
    machine.write("lib/x86_64-linux-gnu/libc.so.6", "\0GLIBC_2.41\0");
    assert_eq!(machine.cause(&known("glibc")).certainty, Certainty::Likely);
    assert_eq!(machine.cause(&known("glibc-wheel")).id, "built-elsewhere");
    machine.write("lib/x86_64-linux-gnu/libc.so.6", "\0GLIBC_2.42\0");
    assert_eq!(machine.cause(&known("glibc")).certainty, Certainty::Verified);
    assert_eq!(machine.causes(&known("glibc-wheel")), [], "libc has it: something else is wrong");
}

#[test]
fn gevents_importers_are_quoted_if_the_venv_has_them_and_no_upgrade_is_blamed() {
    let mut machine = Box::with(&["3.11.2"]);
    machine.venv("3.11", Ok("/usr/bin/python3"));
    machine.install("3.11", "gevent", "26.9.0");
    machine.install("3.11", "urllib3", "2.8.0");
    machine.write(&format!("{VENV}/lib/python3.11/site-packages/urllib3/util/ssl_.py"), "");
    let cause = machine.cause(&known("gevent-preload"));
    assert_eq!((cause.id, cause.certainty), ("gevent-patched-late", Certainty::Verified));
    assert_eq!(cause.caused_by_upgrade, Some(false));
    assert!(cause.evidence[1].contains("urllib3.util.ssl_ (/srv/app/venv/lib/"), "{cause:?}");
    assert_eq!(cause.evidence[3], "the venv has urllib3.util.ssl_", "the other file is not there");
    assert!(cause.remedy.contains("monkey.patch_ssl()"), "{}", cause.remedy);
}

#[test]
fn a_job_that_runs_in_each_worker_and_the_master_is_counted() {
    let cause = Box::new().cause(&known("scheduler-forked"));
    assert!(cause.evidence[0].ends_with("took place 4 times"), "{cause:?}");
    let mut machine = Box::with(&["3.11.2"]);
    machine.venv("3.11", Ok("/usr/bin/python3"));
    machine.install("3.11", "apscheduler", "3.11.3");
    let text = known("scheduler-forked") + "\n/srv/app/venv/bin/gunicorn --preload\n";
    let cause = machine.cause(&text);
    assert_eq!(cause.certainty, Certainty::Verified);
    let workers = "gunicorn started 3 workers: workers + 1 runs, as the master runs it too";
    assert!(cause.evidence.iter().any(|line| line == workers), "{cause:?}");
    // The master ran it only when it ended.
    let (running, _) = text.split_once("Handling signal: term").unwrap();
    let cause = machine.cause(&format!("{running}\n/srv/app/venv/bin/gunicorn --preload\n"));
    assert!(cause.evidence[0].ends_with("took place 3 times"), "{cause:?}");
    let workers = "gunicorn started 3 workers: each of them ran it";
    assert!(cause.evidence.iter().any(|line| line == workers), "{cause:?}");
}

#[test]
fn the_baseline_says_whether_an_upgrade_is_to_blame() {
    let mut machine = Box::with(&["3.13.5"]);
    machine.venv("3.13", Ok("/usr/bin/python3"));
    let text = known("telnetlib-313") + "\n/srv/app/venv/bin/python app.py\n";
    let cause = machine.cause(&text);
    assert_eq!((cause.certainty, cause.caused_by_upgrade), (Certainty::Verified, None));
    assert_eq!(cause.remedy, "`/srv/app/venv/bin/python -m pip install standard-telnetlib`");
    let event = |detail: &str| Event::new("shop", Path::new(VENV), "rebuilt", detail);
    machine.history.events.push(event("for Python 3.13"));
    assert_eq!(machine.cause(&text).caused_by_upgrade, Some(true));
    machine.history.events.push(event("for Python 3.13\nit failed before, and still does: x"));
    let cause = machine.cause(&text);
    assert_eq!(cause.caused_by_upgrade, Some(false));
    let baseline = cause.evidence.last().unwrap();
    assert!(baseline.starts_with("it failed before the upgrade: baseline of "), "{baseline}");
}

#[test]
fn a_module_of_debians_python_whose_package_was_removed_is_told_from_a_removed_module() {
    let mut machine = Box::with(&["3.13.5", "3.11.2"]);
    machine.venv("3.11", Ok("/usr/bin/python3.11"));
    machine.write("usr/lib/python3.11/distutils/__init__.py", "");
    let text = known("distutils-kept") + "\n/srv/app/venv/bin/python d.py\n";
    let cause = machine.cause(&text);
    assert_eq!(cause.certainty, Certainty::Verified);
    assert!(cause.evidence[1].contains("/usr/lib/python3.11 has no distutils.util"), "{cause:?}");
    machine.write("usr/lib/python3.11/distutils/util.py", "");
    assert_eq!(machine.causes(&text), []);
}

#[test]
fn a_library_that_is_there_again_was_missing_for_a_moment() {
    let machine = Box::with(&["3.12.3"]);
    let cause = machine.cause(&known("loader"));
    assert_eq!(cause.certainty, Certainty::Verified);
    assert_eq!(cause.remedy, "`apt-get install libpython3.12`");
    machine.write("usr/lib/x86_64-linux-gnu/libpython3.12.so.1.0", "");
    let cause = machine.cause(&known("loader"));
    assert_eq!(cause.certainty, Certainty::Likely);
    assert!(cause.remedy.contains("exists now"), "{}", cause.remedy);
}

#[test]
fn a_link_out_of_a_venv_is_not_followed() {
    let mut machine = Box::with(&["3.11.2"]);
    machine.venv("3.11", Ok("/usr/bin/python3"));
    machine.write("/secret/urllib3/util/ssl_.py", "");
    let outside = machine.dir.path().join("secret/urllib3");
    machine.install("3.11", "gevent", "26.9.0");
    machine
        .link(&format!("{VENV}/lib/python3.11/site-packages/urllib3"), outside.to_str().unwrap());
    let cause = machine.cause(&known("gevent-preload"));
    assert!(!cause.evidence.iter().any(|line| line.contains("the venv has")), "{cause:?}");
}

#[test]
fn a_hostile_text_is_printed_escaped_and_cut() {
    let hostile = format!(
        "  File \"/srv/app/venv/bin/x\u{1b}[2J\", line 3, in <module>\nModuleNotFoundError: No module named '{}\u{202e}'\n",
        "a".repeat(5000)
    );
    let cause = Box::new().cause(&hostile);
    for line in cause.evidence.iter().chain([&cause.remedy]) {
        assert!(crate::input::is_harmless(line) && line.len() < 1100, "{line}");
    }
}
