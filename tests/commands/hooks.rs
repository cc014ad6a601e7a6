//! The administrator's programs before and after repairs.

use super::processes::{restarts, served};
use super::system::System;

const BEFORE: &str = "/etc/venvguard/hooks.d/before/10-drain";
const AFTER: &str = "/etc/venvguard/hooks.d/after/10-fill";

/// A service whose restarts are recorded, and a program after them that records what it is given.
fn hooked() -> System {
    let system = served();
    restarts(&system, "70", "restart");
    system.script(AFTER, &note(&system));
    system
}

/// Writes down the variables, in their order.
fn note(system: &System) -> String {
    let calls = system.path("/calls");
    format!("echo $(env | grep ^VENVGUARD_ | cut -c11- | sort) >>{calls}")
}

const FACTS: &str = "PATH=/srv/shop/venv PYTHON_FROM=3.11 PYTHON_TO=3.11";

#[test]
fn programs_run_before_and_after_a_restart() {
    let system = hooked();
    system.script(BEFORE, &note(&system));
    system.run(&["restart", "shop", "--dry-run"]).expect(0);
    assert!(!system.exists("/calls"), "nothing was done");
    system.run(&["restart", "shop"]).expect(0);
    let expected = [
        format!("ACTION=restart {FACTS} VENV=shop"),
        "restart".into(),
        format!("ACTION=restart {FACTS} RESULT=restarted VENV=shop"),
    ];
    assert_eq!(system.read("/calls").lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_program_that_fails_before_a_repair_keeps_it_from_beginning() {
    let system = hooked();
    system.script(BEFORE, "echo 'the balancer is away' >&2; exit 4");
    system.script("/etc/venvguard/hooks.d/before/20-next", &note(&system));
    let said = system.run(&["restart", "shop"]).expect(1);
    for told in [
        "a program in /etc/venvguard/hooks.d/before failed: 10-drain exited 4",
        "the balancer is away",
        "the venv is unchanged",
    ] {
        assert!(said.stderr.contains(told), "{told}: {}", said.stderr);
    }
    let failed = format!("ACTION=restart {FACTS} RESULT=failed VENV=shop\n");
    assert_eq!(system.read("/calls"), failed, "only the program after it runs");
}

#[test]
fn a_program_that_fails_after_a_repair_is_reported() {
    let system = hooked();
    system.script(AFTER, "exit 1");
    let said = system.run(&["restart", "shop"]).expect(0);
    let told = "shop: note: a program in /etc/venvguard/hooks.d/after failed: 10-fill exited 1";
    assert!(said.stderr.contains(told), "{}", said.stderr);
}

#[test]
fn a_program_that_others_can_change_is_not_run() {
    let system = hooked();
    system.script(BEFORE, &note(&system));
    system.set_mode(BEFORE, 0o777);
    let said = system.run(&["restart", "shop"]).expect(1);
    assert!(said.stderr.contains("10-drain cannot be trusted"), "{}", said.stderr);
    assert!(!system.read("/calls").contains("\nrestart"), "{}", system.read("/calls"));
}

#[test]
fn no_program_runs_after_an_interrupted_rehearsal() {
    for (to_rest, runs) in [(true, false), (false, true)] {
        let system = hooked();
        let venvs = system.run(&["list", "--json"]).expect(0).json();
        let id = venvs["venvs"][0]["id"].as_str().unwrap();
        let fixture = include_str!("../../src/store/fixtures/journal.schema-1.json");
        let mut journal: serde_json::Value = serde_json::from_str(fixture).unwrap();
        journal["decision"]["id"] = id.into();
        journal["state"] = serde_json::json!({"preparing": {
            "aside": "/srv/shop/.venv.venvguard-1", "new": [1, 3], "to_rest": to_rest,
        }});
        system.write(&format!("/var/lib/venvguard/journal/{id}.json"), &journal.to_string());
        let said = system.run(&["rebuild", "--all"]);
        let calls = if system.exists("/calls") { system.read("/calls") } else { String::new() };
        assert_eq!(calls.contains("RESULT="), runs, "{calls}\n{}", said.stderr);
    }
}
