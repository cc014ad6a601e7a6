//! Runs the program as apt and people do, on directories that stand in for systems.

#![allow(clippy::disallowed_types, reason = "a test starts the program itself")]

mod announcement;
mod build;
mod checks;
mod confinement;
mod damage;
mod declared;
mod diagnose;
mod first_hour;
mod hold;
mod hooks;
mod libraries;
mod metrics;
mod mode;
mod plan;
mod probe;
mod processes;
mod registry;
mod system;
mod users;
mod windows;

use system::System;

const MINOR_UPGRADE: &[&str] = &[
    "python3.13-minimal - - none < 3.13.5-2 amd64 allowed /x.deb",
    "python3-minimal 3.11.2-1+b1 amd64 allowed < 3.13.5-1 amd64 allowed /x.deb",
];
const REVISION: &[&str] =
    &["python3.11-minimal 3.11.2-6 amd64 allowed < 3.11.2-7 amd64 allowed /x.deb"];
const NO_PYTHON: &[&str] = &["hello 1.0 amd64 none < 1.1 amd64 none /x.deb"];

/// A system with Python 3.11 and a venv that follows it.
fn system() -> System {
    let system = System::with_python("3.11.2-6");
    system.make_venv("/srv/shop/venv", "3.11", "/usr/bin/python3");
    system
}

#[test]
fn a_registered_venv_is_listed_and_healthy() {
    let system = system();
    let said = system.run(&["register", "/srv/shop/venv"]).expect(0);
    assert_eq!(said.stdout, "shop: /srv/shop/venv, followed by venv, Python 3.11\n");
    system.run(&["register", "/srv/shop/venv"]).expect(0);
    let status = system.run(&["status", "--json"]).expect(0).json();
    assert_eq!(status["schema_version"], 1);
    let venvs = status["venvs"].as_array().unwrap();
    assert_eq!(venvs.len(), 1, "registering twice is harmless: {status}");
    assert_eq!(venvs[0]["state"], "healthy");
    assert_eq!(venvs[0]["interpreter"]["link"], "followed");
    assert_eq!(venvs[0]["interpreter"]["version"], "3.11.2");
}

#[test]
fn each_decision_is_a_line_in_the_journal() {
    let system = system();
    let journal = system.journal();
    let has = |lines: &[String], action: &str, told: &str| {
        let line = lines.iter().find(|line| line.contains(&format!("VENVGUARD_ACTION={action}\n")));
        let line = line.unwrap_or_else(|| panic!("no {action}: {lines:?}"));
        for field in ["SYSLOG_IDENTIFIER=venvguard\n", "VENVGUARD_VENV=shop\n", told] {
            assert!(line.contains(field), "{field}: {line}");
        }
    };
    system.run(&["register", "/srv/shop/venv", "--policy", "block"]).expect(0);
    system.hook("pre-install", MINOR_UPGRADE).expect(10);
    has(&journal.lines(), "blocked", "its distributions");
    system.run(&["register", "/srv/shop/venv", "--policy", "pin"]).expect(0);
    system.hook("pre-install", MINOR_UPGRADE).expect(0);
    let lines = journal.lines();
    has(&lines, "allowed", "is pinned to /usr/bin/python3.11");
    has(&lines, "pinning", "to Python 3.11, for the current apt run");
    system.hook("post-invoke", &[]).expect(0);
    has(&journal.lines(), "unpinned", "follows /usr/bin/python3 again");
}

#[test]
fn without_a_rebuild_there_is_nothing_to_prune() {
    let system = system();
    system.run(&["register", "/srv/shop/venv"]).expect(0);
    system.run(&["prune"]).expect(0);
    system.run(&["prune", "shop"]).expect(0);
    let said = system.run(&["prune", "other"]).expect(1);
    assert!(
        said.stderr.contains("no registered venv has the name or path \"other\""),
        "{}",
        said.stderr
    );
}

#[test]
fn the_plan_names_change_effect_and_remedy() {
    let system = system();
    system.run(&["register", "/srv/shop/venv", "--policy", "pin"]).expect(0);
    let list = system.list(MINOR_UPGRADE);
    let plan = system.run(&["plan", "--json", "--from", &list]).expect(0).json();
    assert_eq!(
        plan["changes"],
        serde_json::json!([
            {"interpreter": "/usr/bin/python3", "from": "3.11.2-6", "to": "3.13.5-2", "kind": "minor"},
            {"interpreter": "/usr/bin/python3.13", "from": null, "to": "3.13.5-2", "kind": "appeared"},
        ])
    );
    assert_eq!(plan["verdict"], "repair");
    assert_eq!(plan["venvs"][0]["effect"], "orphaned");
    assert_eq!(plan["venvs"][0]["remedy"], "pin");
    assert_eq!(plan["venvs"][0]["ready"], true);
    let words = system.run(&["plan", "--from", &list]).expect(0).stdout;
    assert!(words.contains("/usr/bin/python3 3.11.2 → 3.13.5"), "{words}");
}

#[test]
fn a_plan_for_a_venv_that_is_not_ready_names_what_is_in_the_way() {
    let system = system();
    let site = "/srv/shop/venv/lib/python3.11/site-packages";
    for (name, requires) in [("numpy-1.24.2", ">=3.8,<3.12"), ("flask-3.0.0", ">=3.8")] {
        let (title, version) = name.split_once('-').unwrap();
        let text = format!("Name: {title}\nVersion: {version}\nRequires-Python: {requires}\n");
        system.write(&format!("{site}/{name}.dist-info/METADATA"), &text);
    }
    system.run(&["register", "/srv/shop/venv"]).expect(0);
    let list = system.list(MINOR_UPGRADE);
    let plan = system.run(&["plan", "--json", "--from", &list]).expect(3).json();
    let venv = &plan["venvs"][0];
    assert!(venv["ready"] == false && venv["proof"] == "none", "{venv}");
    let [installer, old] = &venv["findings"].as_array().unwrap()[..] else { panic!("{venv}") };
    assert_eq!(installer["kind"], "obstacle");
    assert!(installer["detail"].as_str().unwrap().contains("neither uv nor pip"), "{installer}");
    assert_eq!(
        *old,
        serde_json::json!({
            "distribution": "numpy", "version": "1.24.2", "kind": "requires-python",
            "detail": "numpy 1.24.2 requires Python >=3.8,<3.12", "works_from": null,
        })
    );
}

#[test]
fn a_plan_knows_that_an_upgrade_without_pip_leaves_one_that_is_too_old() {
    let system = system();
    system.write("/usr/share/python-wheels/pip-23.0.1-py3-none-any.whl", "");
    system.run(&["register", "/srv/shop/venv"]).expect(0);
    let list = system.list(MINOR_UPGRADE);
    let words = system.run(&["plan", "--from", &list]).expect(3).stdout;
    assert!(words.contains("pip 23.0.1 does not run on Python 3.13"), "{words}");
    let pip = "python3-pip-whl 23.0.1+dfsg-1 all foreign < 25.1.1+dfsg-1 all foreign /x.deb";
    system.run(&["plan", "--from", &system.list(&[MINOR_UPGRADE, &[pip]].concat())]).expect(0);
}

#[test]
fn a_block_that_cannot_be_recorded_still_blocks() {
    let system = system();
    system.run(&["register", "/srv/shop/venv", "--policy", "block"]).expect(0);
    system.write("/var/lib/venvguard/history.jsonl/x", "");
    let said = system.hook("pre-install", MINOR_UPGRADE).expect(10);
    assert!(said.stderr.contains("cannot record this block in the history"), "{}", said.stderr);
}

#[test]
fn policy_block_stops_apt_with_status_10_and_says_why() {
    let system = system();
    system.run(&["register", "/srv/shop/venv", "--policy", "block"]).expect(0);
    let said = system.hook("pre-install", REVISION).expect(10);
    for word in
        ["blocked", "shop (/srv/shop/venv)", "/usr/bin/python3.11", "3.11.2-6 → 3.11.2-7", "hint:"]
    {
        assert!(said.stderr.contains(word), "{word}: {}", said.stderr);
    }
    assert!(
        said.stderr.lines().all(|line| line.starts_with("venvguard: ") || line.starts_with("    "))
    );
    let history = system.run(&["history", "--json"]).expect(0).json();
    assert_eq!(history["events"][0]["what"], "blocked");
}

#[test]
fn an_apt_run_without_python_prints_and_writes_nothing() {
    let system = system();
    system.run(&["register", "/srv/shop/venv", "--policy", "block"]).expect(0);
    let before = system.state();
    for moment in ["pre-invoke", "pre-install", "post-invoke"] {
        let said = system.hook(moment, NO_PYTHON).expect(0);
        assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("", ""), "{moment}");
    }
    assert_eq!(system.state(), before);
}

#[test]
fn doctor_reports_when_apt_last_called_venvguard() {
    let system = system();
    let said = || system.run(&["doctor"]).stdout;
    assert!(said().contains("apt has not called venvguard"), "{}", said());
    system.hook("pre-invoke", NO_PYTHON).expect(0);
    assert!(said().contains("apt last called venvguard at 20"), "{}", said());
}

#[test]
fn apts_own_dry_run_changes_nothing() {
    let system = system();
    system.run(&["register", "/srv/shop/venv", "--policy", "pin"]).expect(0);
    let before = system.state();
    let list = format!("VERSION 3\nDebug::pkgDPkgPM=1\n\n{}\n", MINOR_UPGRADE.join("\n"));
    let said = system.hook_with("pre-install", &list).expect(0);
    assert!(said.stderr.contains("shop (/srv/shop/venv) is pinned to"), "{}", said.stderr);
    system.hook_with("post-invoke", "").expect(0);
    assert_eq!(system.state(), before);
    assert_eq!(system.link("/srv/shop/venv/bin/python3"), "/usr/bin/python3");
}

#[test]
fn an_upgrade_that_moves_python_keeps_a_pinned_venv_on_its_minor_version() {
    let system = system();
    system.run(&["register", "/srv/shop/venv", "--policy", "pin"]).expect(0);
    for _ in 0..2 {
        system.hook("pre-invoke", MINOR_UPGRADE).expect(0);
        system.hook("pre-install", MINOR_UPGRADE).expect(0);
    }
    let python = "/srv/shop/venv/bin/python3";
    assert_eq!(system.link(python), "/usr/bin/python3.11", "pinned before dpkg moves the default");
    system.install_python("3.13.5-2");
    system.make_default("3.13");
    for _ in 0..2 {
        system.hook("post-invoke", MINOR_UPGRADE).expect(0);
    }
    assert_eq!(system.link(python), "/usr/bin/python3.11");
    let status = system.run(&["status", "--json"]).expect(0).json();
    assert_eq!(status["venvs"][0]["state"], "healthy");
    assert!(
        status["venvs"][0]["reasons"][0].as_str().unwrap().starts_with("pinned to Python 3.11")
    );
    let history = system.run(&["history", "--json"]).expect(0).json();
    assert_eq!(
        history["events"].as_array().unwrap().len(),
        1,
        "once, though the hooks ran twice: {history}"
    );
}

#[test]
fn a_pinned_venv_stays_pinned_when_an_upgrade_is_settled_again() {
    let system = system();
    system.run(&["register", "/srv/shop/venv", "--policy", "pin"]).expect(0);
    system.hook("pre-install", MINOR_UPGRADE).expect(0);
    system.install_python("3.13.5-2");
    system.make_default("3.13");
    let record = system.read("/var/lib/venvguard/transaction.json");
    system.hook("post-invoke", MINOR_UPGRADE).expect(0);
    // As if killed after saving the snapshot and before ending the transaction.
    system.write("/var/lib/venvguard/transaction.json", &record);
    system.run(&["resume"]).expect(0);
    assert_eq!(system.link("/srv/shop/venv/bin/python3"), "/usr/bin/python3.11");
    // Once the default is back, the venv may follow it again.
    system.make_default("3.11");
    system.run(&["resume"]).expect(0);
    assert_eq!(system.link("/srv/shop/venv/bin/python3"), "/usr/bin/python3");
    let status = system.run(&["status", "--json"]).expect(0).json();
    assert_eq!(status["venvs"][0]["reasons"].as_array().map(Vec::len), Some(0), "{status}");
}

#[test]
fn a_venv_that_lost_its_interpreter_without_a_gate_is_reported() {
    let system = system();
    system.install_python("3.13.5-2");
    system.make_venv("/srv/old/venv", "3.13", "/usr/bin/python3.13");
    system.run(&["register", "/srv/old/venv"]).expect(0);
    system.remove_python("3.13");
    let said = system.run(&["resume"]);
    assert!(said.stderr.contains("/usr/bin/python3.13 is removed"), "{}", said.stderr);
    assert!(said.stderr.contains("old (/srv/old/venv)"), "{}", said.stderr);
}

#[test]
fn a_venv_of_an_interpreter_outside_of_debian_is_not_rebuilt() {
    let system = system();
    system.write("/opt/python/bin/python3.11", "");
    system.make_venv("/srv/mine/venv", "3.11", "/opt/python/bin/python3.11");
    system.run(&["register", "/srv/mine/venv"]).expect(0);
    let said = system.run(&["rebuild", "mine"]).expect(1);
    assert!(said.stderr.contains("is not Debian's"), "{}", said.stderr);
}

#[test]
fn an_upgrade_that_did_not_happen_leaves_the_venv_as_it_was() {
    let system = system();
    system.run(&["register", "/srv/shop/venv", "--policy", "pin"]).expect(0);
    system.hook("pre-invoke", MINOR_UPGRADE).expect(0);
    system.hook("pre-install", MINOR_UPGRADE).expect(0);
    system.hook("post-invoke", MINOR_UPGRADE).expect(0);
    assert_eq!(system.link("/srv/shop/venv/bin/python3"), "/usr/bin/python3");
    let said = system.run(&["rebuild", "--all", "--dry-run"]).expect(0);
    assert!(said.stderr.contains("nothing to do"), "{}", said.stderr);
}

#[test]
fn a_transaction_that_failed_halfway_is_settled_when_it_is_finished() {
    let system = system();
    system.run(&["register", "/srv/shop/venv", "--policy", "pin"]).expect(0);
    system.hook("pre-install", MINOR_UPGRADE).expect(0);
    system.unpack_python("3.13.5-2");
    let said = system.hook("post-invoke", MINOR_UPGRADE).expect(0);
    assert!(
        said.stderr.contains("dpkg has not finished with python3.13-minimal"),
        "{}",
        said.stderr
    );
    assert_eq!(system.link("/srv/shop/venv/bin/python3"), "/usr/bin/python3.11");
    system.install_python("3.13.5-2");
    system.make_default("3.13");
    system.run(&["resume"]).expect(0);
    assert_eq!(system.link("/srv/shop/venv/bin/python3"), "/usr/bin/python3.11");
    let said = system.run(&["resume"]).expect(0);
    assert!(said.stderr.contains("nothing to do"), "{}", said.stderr);
}

#[test]
fn a_removal_that_would_break_a_venv_is_blocked() {
    let system = system();
    system.make_venv("/srv/old/venv", "3.11", "/usr/bin/python3.11");
    system.run(&["register", "/srv/old/venv"]).expect(0);
    let removal = ["python3.11-minimal 3.11.2-6 amd64 allowed > - - none **REMOVE**"];
    let said = system.hook("pre-install", &removal).expect(10);
    assert!(said.stderr.contains("/usr/bin/python3.11 is removed"), "{}", said.stderr);
}

#[test]
fn failures_inside_venvguard_never_stop_apt() {
    for (name, content) in [
        ("registry.json", "{ damaged"),
        ("registry.json", "{\"schema_version\": 99}"),
        ("transaction.json", "[]"),
    ] {
        let system = system();
        system.run(&["register", "/srv/shop/venv", "--policy", "pin"]).expect(0);
        system.write(&format!("/var/lib/venvguard/{name}"), content);
        let said = system.hook("pre-install", MINOR_UPGRADE).expect(0);
        assert!(
            said.stderr.contains(name) && said.stderr.contains("without venvguard"),
            "{name}: {}",
            said.stderr
        );
        system.install_python("3.13.5-2");
        system.make_default("3.13");
        let said = system.hook("post-invoke", MINOR_UPGRADE).expect(0);
        assert!(said.stderr.contains(name), "{name}: {}", said.stderr);
    }
    let system = system();
    system.write("/etc/venvguard/config.toml", "polcy = 1\n");
    let said = system.hook("pre-invoke", NO_PYTHON).expect(0);
    assert!(said.stderr.contains("config.toml, line 1"), "{}", said.stderr);
    let said = system.hook_with("pre-install", "VERSION 2\n\n").expect(0);
    assert!(said.stderr.contains("VERSION 3"), "{}", said.stderr);
}

#[test]
fn the_man_page_and_the_completions_name_every_command() {
    let system = system();
    let man = system.run(&["generate", "man"]).expect(0).stdout;
    let asked = system.run_with(&[("COMPLETE", "fish")], &["--", "venvguard", ""]);
    let completions = asked.expect(0).stdout;
    for command in
        ["register", "unregister", "scan", "status", "plan", "rebuild", "rollback", "resume"]
    {
        assert!(man.contains(command) && completions.contains(command), "{command}");
    }
}
