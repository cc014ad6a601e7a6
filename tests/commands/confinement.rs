//! What a confined program can do: each test runs a program that tries to break a rule.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};

use landlock::{ABI, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};

/// Runs a shell command confined, as the user who runs the test.
fn confined(script: &str, writes: &serde_json::Value) -> Output {
    confined_with(&serde_json::json!([]), script, writes)
}

fn confined_with(overlays: &serde_json::Value, script: &str, writes: &serde_json::Value) -> Output {
    let [program, arguments @ ..] = &command(overlays, script, writes);
    Command::new(program).args(arguments).output().unwrap()
}

fn command(overlays: &serde_json::Value, script: &str, writes: &serde_json::Value) -> [String; 7] {
    let me = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    let specification = serde_json::json!({
        "uid": me, "gid": group, "groups": [], "overlays": overlays, "dir": "/", "writes": writes, "processes": 100_000, "memory": 64_u64 << 30,
    });
    let program = env!("CARGO_BIN_EXE_venvguard");
    [program, "confine", &specification.to_string(), "--", "/bin/sh", "-c", script]
        .map(str::to_string)
}

/// What tells a directory from another one that is put in its place.
fn identity(dir: &Path) -> (u64, u64) {
    let metadata = fs::metadata(dir).unwrap();
    let born = metadata.created().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    (metadata.ino(), u64::try_from(born.as_nanos()).unwrap())
}

#[test]
fn merged_directories_show_the_files_of_both_and_can_be_written_only_where_one_is_bound() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["next", "usr/venv", "stage"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    for (name, text) in [("next/python", "new"), ("usr/python", "old"), ("usr/tar", "tar")] {
        fs::write(at(name), text).unwrap();
    }
    let overlays = serde_json::json!([
        { "from": at("next"), "to": at("usr"), "from_identity": identity(&at("next")), "merges": true },
        { "from": at("stage"), "to": at("usr/venv"), "from_identity": identity(&at("stage")) },
    ]);
    let script = format!(
        "cd {}; cat python tar; touch venv/made; touch new 2>/dev/null || echo refused",
        at("usr").display()
    );
    let output = confined_with(&overlays, &script, &serde_json::Value::Null);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "newtarrefused\n", "{output:?}");
    assert!(at("stage/made").exists());
    assert_eq!(fs::read_to_string(at("usr/python")).unwrap(), "old");
}

/// An ordinary user can see one directory in the place of another, if the machine permits it.
#[test]
fn an_ordinary_user_overlays_one_directory_with_another() {
    let person = super::users::Person::new();
    for name in ["home/new", "home/old"] {
        person.make_dir(name);
    }
    fs::write(person.at("home/new/here"), "").unwrap();
    let identity = identity(&person.at("home/new"));
    let overlay = serde_json::json!({
        "from": person.at("home/new"), "to": person.at("home/old"), "from_identity": identity,
    });
    let specification = serde_json::json!({
        "uid": person.uid, "gid": person.uid, "groups": [], "overlays": [overlay], "dir": "/",
        "writes": null, "processes": 100_000, "memory": 64_u64 << 30,
    });
    let script =
        format!("ls {}; id -u; grep CapEff /proc/self/status", person.at("home/old").display());
    let said = person.run(&["confine", &specification.to_string(), "--", "/bin/sh", "-c", &script]);
    if said.stderr.contains("cannot make a private mount namespace") {
        println!("skipped: this machine gives ordinary users no mount namespaces");
        return;
    }
    let none = format!("here\n{}\nCapEff:\t0000000000000000\n", person.uid);
    assert_eq!(said.expect(0).stdout, none);
    assert!(!person.at("home/old/here").exists(), "visible outside of the namespace");
}

fn says(script: &str) -> String {
    let output = confined(script, &serde_json::Value::Null);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_string()
}

#[test]
fn a_confined_program_gains_no_privileges_and_has_limits() {
    assert_eq!(says("grep NoNewPrivs /proc/self/status | tr -d '\\t'"), "NoNewPrivs:1");
    assert_eq!(says("ulimit -c"), "0", "no core file");
    for limit in ["-f", "-v", "-p"] {
        assert_ne!(says(&format!("ulimit {limit}")), "unlimited", "ulimit {limit}");
    }
    assert_eq!(says("umask"), "0022");
    assert_eq!(says("pwd"), "/");
    assert_eq!(
        says("ls /proc/self/fd | wc -l"),
        "4",
        "its standard streams, and the directory it lists"
    );
}

/// A program that has root's terminal can type into it.
#[test]
fn a_confined_program_has_no_terminal() {
    let opens = "if true </dev/tty; then echo it has one; else echo it has none; fi 2>&1";
    let confined = command(&serde_json::json!([]), opens, &serde_json::Value::Null);
    let confined = shlex::try_join(confined.iter().map(String::as_str)).unwrap();
    for (line, expected) in [(opens, "it has one"), (&*confined, "it has none")] {
        // script(1) gives the shell a terminal.
        let line = format!("{line}; exit");
        let output = Command::new("script").args(["-qec", &line, "/dev/null"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn an_installer_writes_where_it_may_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["venv", "other"] {
        fs::create_dir(at(name)).unwrap();
    }
    fs::write(at("other/kept"), "kept").unwrap();
    let script = format!(
        "cd {}; echo 1 >venv/new
         echo 2 >other/new; rm other/kept; mv other/kept venv/kept; mkdir other/directory; ln other/kept venv/second
         exit 0",
        dir.path().display()
    );
    let output = confined(&script, &serde_json::json!([at("venv")]));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read_to_string(at("venv/new")).unwrap(), "1\n");
    // A kernel without Landlock forbids none of this.
    let known = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_write(ABI::V3))
        .and_then(Ruleset::create);
    if known.is_ok() {
        let names = |name| fs::read_dir(at(name)).unwrap().count();
        assert_eq!((names("other"), names("venv")), (1, 1), "{output:?}");
        assert_eq!(fs::read_to_string(at("other/kept")).unwrap(), "kept");
    } else {
        println!("skipped: this kernel has no Landlock");
    }
}
