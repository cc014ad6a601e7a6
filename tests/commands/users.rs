//! What ordinary users may have guarded, and what venvguard refuses them. These tests run on the
//! machine itself, in temporary directories: on a directory that stands in for a system, nobody is
//! an ordinary user.

#![allow(clippy::disallowed_methods, reason = "a test gives directories away")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::system::Said;

/// The user who runs the test; in place of root, a uid that nobody has.
pub(crate) struct Person {
    dir: tempfile::TempDir,
    program: PathBuf,
    pub(crate) uid: u32,
}

impl Person {
    pub(crate) fn new() -> Self {
        let me = rustix::process::geteuid();
        let uid = if me.is_root() { 54_321 } else { me.as_raw() };
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let program = dir.path().join("venvguard");
        // The build directory may be closed to an ordinary user.
        let built = env!("CARGO_BIN_EXE_venvguard");
        fs::hard_link(built, &program).or_else(|_| fs::copy(built, &program).map(drop)).unwrap();
        let person = Self { dir, program, uid };
        person.make_dir("home");
        person
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(path)
    }

    pub(crate) fn make_dir(&self, path: &str) {
        let mut dir = self.dir.path().to_path_buf();
        for name in Path::new(path) {
            dir.push(name);
            if fs::create_dir(&dir).is_ok() && rustix::process::geteuid().is_root() {
                chown(&dir, Some(self.uid), Some(self.uid)).unwrap();
            }
        }
    }

    /// A venv of theirs, as `python3 -m venv` leaves it.
    fn make_venv(&self, path: &str) -> PathBuf {
        self.make_dir(&format!("{path}/bin"));
        self.make_dir(&format!("{path}/lib/python3.11/site-packages"));
        let venv = self.at(path);
        fs::write(venv.join("pyvenv.cfg"), "home = /usr/bin\n").unwrap();
        symlink("/usr/bin/python3", venv.join("bin/python3")).unwrap();
        venv
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        self.run_with(arguments, &[])
    }

    fn run_with(&self, arguments: &[&str], environment: &[(&str, PathBuf)]) -> Said {
        let mut command = self.command(&self.program);
        command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
        Said::of(&command.output().unwrap())
    }

    /// Runs a shell command, and returns whether it succeeds.
    pub(crate) fn shell(&self, script: &str) -> bool {
        self.command(Path::new("/bin/sh")).args(["-c", script]).status().unwrap().success()
    }

    /// The output of a shell command, which must succeed.
    #[track_caller]
    pub(crate) fn output(&self, script: &str) -> String {
        let output = self.command(Path::new("/bin/sh")).args(["-c", script]).output().unwrap();
        Said::of(&output).expect(0).stdout
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("HOME", self.at("home")).current_dir("/");
        if rustix::process::geteuid().is_root() {
            command.uid(self.uid).gid(self.uid);
        }
        command
    }

    fn registry(&self) -> PathBuf {
        self.at("home/.local/state/venvguard/registry.json")
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn ordinary_users_have_registries_of_their_own() {
    let person = Person::new();
    let venv = person.make_venv("home/shop/venv");
    let said = person.run(&["register", text(&venv), "--service", "user:shop"]).expect(0);
    // Nobody has this uid, so apt's hook does not look for its registry.
    let is_told = said.stderr.contains("names you in `users.allow`");
    assert!(is_told || !rustix::process::geteuid().is_root(), "{}", said.stderr);
    let list = person.run(&["list", "--json"]).expect(0).json();
    assert_eq!(list["venvs"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(list["venvs"][0]["services"][0]["manager"], "user", "{list}");
    let state = fs::metadata(person.registry().parent().unwrap()).unwrap();
    assert_eq!((state.uid(), state.mode() & 0o777), (person.uid, 0o700));
    person.run(&["unregister", "shop"]).expect(0);
    assert!(!fs::read_to_string(person.registry()).unwrap().contains("shop"));
    let refused = person.run(&["--system", "register", text(&venv)]).expect(1);
    assert!(refused.stderr.contains("only root can do this"), "{}", refused.stderr);
}

#[test]
fn a_registry_elsewhere_is_found_from_the_usual_place() {
    let person = Person::new();
    let venv = person.make_venv("home/shop/venv");
    person.make_dir("elsewhere");
    let state = [("XDG_STATE_HOME", person.at("elsewhere"))];
    person.run_with(&["register", text(&venv)], &state).expect(0);
    assert!(person.at("elsewhere/venvguard/registry.json").is_file());
    assert!(person.run(&["list"]).expect(0).stdout.contains("shop"));
}

#[test]
fn venvs_and_units_of_others_are_refused_by_name_and_nothing_is_registered() {
    let person = Person::new();
    let venv = person.make_venv("home/shop/venv");
    let theirs = person.make_venv("theirs/venv");
    let mut attempts = vec![
        (&venv, "systemd:ssh", "systemd:ssh.service is not a unit of your own service manager"),
        (&venv, "supervisord:web", "supervisord:web is not a unit of your own service manager"),
    ];
    if rustix::process::geteuid().is_root() {
        chown(&theirs, Some(0), Some(0)).unwrap();
        attempts.push((&theirs, "user:web", "it belongs to root"));
    }
    for (path, service, why) in attempts {
        let said = person.run(&["register", text(path), "--service", service]).expect(1);
        assert!(said.stderr.contains(why), "{}", said.stderr);
        assert!(!person.registry().exists());
    }
}

#[test]
fn a_forged_entry_is_refused_and_the_others_remain_valid() {
    let person = Person::new();
    let (good, theirs) = (person.make_venv("home/good/venv"), person.make_venv("home/theirs/venv"));
    let units = person.make_venv("home/units/venv");
    for venv in [&good, &theirs, &units] {
        person.run(&["register", text(venv), "--service", "user:web"]).expect(0);
    }
    let registry = fs::read_to_string(person.registry()).unwrap();
    let mut registry: serde_json::Value = serde_json::from_str(&registry).unwrap();
    registry["venvs"][2]["services"][0]["manager"] = "systemd".into();
    fs::write(person.registry(), registry.to_string()).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        chown(&theirs, Some(0), Some(0)).unwrap();
    }
    let status = person.run(&["status", "--json"]).expect(3).json();
    let reason = |index: usize| status["venvs"][index]["reasons"][0].as_str().unwrap_or_default();
    assert!(!reason(0).contains("refused"), "{status}");
    assert!(!is_root || reason(1).contains("venvguard refuses it: it belongs to root"), "{status}");
    assert!(reason(2).contains("venvguard refuses it: systemd:web.service is not"), "{status}");
    let said = person.run(&["rebuild", "units"]).expect(1);
    assert!(said.stderr.contains("cannot rebuild units: venvguard refuses it"), "{}", said.stderr);
}

#[test]
fn a_bogus_registry_is_reported_and_never_waited_for() {
    for (trick, told) in [
        ("mkfifo registry.json", "registry.json is not a regular file"),
        ("ln -s /etc/shadow registry.json", "registry.json is not a regular file"),
        ("truncate -s 1G registry.json", "registry.json is larger than 8388608 bytes"),
        ("mkdir registry.json", "registry.json is not a regular file"),
        ("echo '{' >registry.json", "registry.json, line"),
    ] {
        let person = Person::new();
        person.make_dir("home/.local/state/venvguard");
        let dir = person.registry().parent().unwrap().to_path_buf();
        let script = format!("cd {}; {trick}; chown -h {} *", text(&dir), person.uid);
        super::system::System::shell(&script);
        let said = person.run(&["settle-own"]).expect(1);
        assert!(said.stderr.contains(told), "{trick}: {}", said.stderr);
    }
    let person = Person::new();
    assert_eq!(
        person.run(&["settle-own"]).expect(0).stderr,
        "",
        "a user without a registry sees nothing"
    );
    assert_eq!(fs::read_dir(person.at("home")).unwrap().count(), 0);
}
