//! `diagnose`: the cause of a failure, from a text and from the state of a venv.

use super::system::System;

const ORPHANED: &str = include_str!("../../src/diagnose/failure/samples/known/orphaned-script.txt");
const GEVENT: &str = include_str!("../../src/diagnose/failure/samples/known/gevent-preload.txt");
const ORDINARY: &str = include_str!("../../src/diagnose/failure/samples/ordinary/key-error.txt");

fn system() -> System {
    let system = System::with_python("3.11.2-6");
    system.make_venv("/srv/app/venv", "3.11", "/usr/bin/python3");
    system.run(&["register", "/srv/app/venv", "--name", "shop"]).expect(0);
    system
}

#[test]
fn a_traceback_is_explained_by_the_venv_that_it_names() {
    let system = system();
    let healthy = system.input("diagnose", ORPHANED, &["-"]).expect(0);
    assert_eq!(healthy.stdout, "no known cause\n");
    system.install_python("3.13.5-2");
    system.make_default("3.13");
    let said = system.input("diagnose", ORPHANED, &["-"]).expect(3);
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(lines[0], "verified: the packages of the venv are for another version of Python");
    assert_eq!(lines[1], "    ModuleNotFoundError: No module named 'gunicorn'");
    assert!(lines[2].contains("/srv/app/venv: bin/python runs 3.13"), "{}", said.stdout);
    assert_eq!(lines[3], "    an upgrade of Python caused it");
    assert_eq!(lines[4], "    fix: `venvguard rebuild shop`");
}

#[test]
fn a_venv_that_is_broken_has_a_cause_without_any_text() {
    let system = system();
    system.run(&["diagnose", "shop"]).expect(0);
    let none = system.run(&["diagnose", "/srv/app/venv", "--json"]).expect(0).json();
    assert_eq!(none, serde_json::json!({"schema_version": 1, "causes": []}));
    system.install_python("3.13.5-2");
    system.make_default("3.13");
    let told = system.run(&["diagnose", "shop", "--json"]).expect(3).json();
    let cause = &told["causes"][0];
    assert_eq!(cause["id"], "orphaned");
    assert_eq!(cause["certainty"], "verified");
    assert_eq!(cause["caused_by_upgrade"], true);
    assert_eq!(cause["remedy"], "`venvguard rebuild shop`");
    system.remove("/srv/app/venv");
    let told = system.run(&["diagnose", "shop", "--json"]).expect(3).json();
    assert_eq!(told["causes"][0]["id"], "missing");
}

#[test]
fn a_failure_that_no_upgrade_caused_is_not_blamed_on_one() {
    let system = system();
    system.write("/trace", GEVENT);
    let path = system.path("/trace");
    let said = system.run(&["diagnose", "--file", &path]).expect(3).stdout;
    assert!(said.starts_with("likely: gevent patched ssl after"), "{said}");
    assert!(said.contains("    no upgrade of Python caused it\n"), "{said}");
    assert!(said.contains("    fix: begin the configuration file of gunicorn with"), "{said}");
    assert_eq!(system.input("diagnose", ORDINARY, &["-"]).expect(0).stdout, "no known cause\n");
}

#[test]
fn what_to_diagnose_is_named_once() {
    let system = system();
    system.run(&["diagnose"]).expect(2);
    system.run(&["diagnose", "shop", "--file", "/x"]).expect(2);
    system.run(&["diagnose", "--unit", "x.service", "--file", "/x"]).expect(2);
    let missing = system.run(&["diagnose", "--file", "/no/such/file"]).expect(1);
    assert!(missing.stderr.contains("cannot read /no/such/file"), "{}", missing.stderr);
    let unknown = system.run(&["diagnose", "shpo"]).expect(1);
    assert!(unknown.stderr.contains("did you mean \"shop\""), "{}", unknown.stderr);
    let unit = system.run(&["diagnose", "--unit", "a b"]).expect(1);
    assert!(unit.stderr.contains("a b"), "{}", unit.stderr);
}

#[test]
fn the_journal_of_a_units_last_run_is_read() {
    let system = system();
    system.make_dir("/run/systemd/system");
    system.script("/usr/bin/systemctl", "echo InvocationID=4711");
    let journal =
        "case $* in *_SYSTEMD_INVOCATION_ID=4711*) cat \"$(dirname \"$0\")/journal\";; esac";
    system.script("/usr/bin/journalctl", journal);
    system.write("/usr/bin/journal", GEVENT);
    let told = system.run(&["diagnose", "--unit", "shop.service", "--json"]).expect(3).json();
    assert_eq!(told["causes"][0]["id"], "gevent-patched-late");
    system.run(&["register", "/srv/app/venv", "--service", "systemd:shop.service"]).expect(0);
    let told = system.run(&["diagnose", "shop", "--json"]).expect(3).json();
    assert_eq!(told["causes"][0]["id"], "gevent-patched-late");
}
