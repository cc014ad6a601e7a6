//! `hold` and `unhold`.

use std::fs;
use std::path::Path;

use super::system;

#[test]
fn a_hold_names_what_it_holds_until_it_ends() {
    let system = system();
    system.make_dir("/etc/apt/preferences.d");
    system.run(&["register", "/srv/shop/venv"]).expect(0);
    assert!(system.run(&["unhold"]).expect(0).stderr.contains("venvguard holds no package"));
    let said = system.run(&["hold", "--for", "14d", "--reason", "a\nb"]).expect(0);
    assert!(said.stdout.contains("a\\nb"), "{}", said.stdout);
    let file = system.path("/etc/apt/preferences.d/venvguard-hold.pref");
    let file = Path::new(&file);
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains("\nPackage: python3-minimal python3."), "{text}");
    assert!(text.contains("\nPin-Priority: -1\n") && text.contains("# Until: "), "{text}");
    assert!(system.run(&["status"]).stderr.contains("Python has been held since"));
    // Another one replaces it.
    system.run(&["hold"]).expect(0);
    assert!(!fs::read_to_string(file).unwrap().contains("# Until: "));
    system.run(&["hook", "pre-invoke"]).expect(0);
    assert!(file.exists(), "it ends on request only");
    system.run(&["unhold"]).expect(0);
    assert!(!file.exists());
}

#[test]
fn a_hold_that_is_over_is_removed_by_the_next_run() {
    let system = system();
    system.make_dir("/etc/apt/preferences.d");
    system.run(&["hold", "--for", "1h"]).expect(0);
    let file = system.path("/etc/apt/preferences.d/venvguard-hold.pref");
    let file = Path::new(&file);
    let text = fs::read_to_string(file).unwrap();
    let until = text.lines().find(|line| line.starts_with("# Until")).unwrap();
    fs::write(file, text.replace(until, "# Until: 2026-01-01T00:00:00Z")).unwrap();
    let said = system.run(&["hook", "pre-invoke"]).expect(0);
    assert!(said.stderr.contains("has ended"), "{}", said.stderr);
    assert!(!file.exists());
}

#[test]
fn a_time_that_is_none_is_refused() {
    for time in ["soon", "-3d", "0s", "3 lightyears"] {
        let said = system().run(&["hold", &format!("--for={time}")]).expect(2);
        assert!(said.stderr.contains("--for"), "{}", said.stderr);
    }
}

#[test]
fn an_ordinary_user_has_no_apt_to_ask() {
    let person = super::users::Person::new();
    for command in [&["hold"][..], &["unhold"], &["rehearse"]] {
        let said = person.run(command).expect(1);
        assert!(said.stderr.contains("only root can do this"), "{}", said.stderr);
    }
}

#[test]
fn a_dry_run_shows_the_hold_and_changes_nothing() {
    let system = system();
    system.make_dir("/etc/apt/preferences.d");
    let proposed = system.run(&["hold", "--for", "2h", "--reason", "a", "--dry-run", "--json"]);
    let proposed = proposed.expect(0).json();
    assert_eq!(proposed["schema_version"], 1);
    assert!(proposed["before"].is_null() && proposed["after"]["reason"] == "a", "{proposed}");
    assert_eq!(
        proposed["after"]["packages"],
        serde_json::json!(["python3-minimal", "python3.11-minimal"])
    );
    assert!(!Path::new(&system.path("/etc/apt/preferences.d/venvguard-hold.pref")).exists());
    system.run(&["hold", "--reason", "a"]).expect(0);
    let proposed = system.run(&["unhold", "--dry-run", "--json"]).expect(0).json();
    assert_eq!(proposed["before"]["until"], serde_json::Value::Null);
    assert!(proposed["before"]["reason"] == "a" && proposed["after"].is_null(), "{proposed}");
    let said = system.run(&["unhold", "--dry-run"]).expect(0).stdout;
    assert!(said.contains("now: Python has been held since"), "{said}");
    assert!(said.ends_with("then: Python is not held\n"), "{said}");
}
