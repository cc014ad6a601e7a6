//! Runs the program as apt and people do, on directories that stand in for systems.

#![allow(clippy::disallowed_types, reason = "a test starts the program itself")]

mod build;
mod checks;
mod confinement;
mod damage;
mod declared;
mod diagnose;
mod first_hour;
mod hold;
mod hooks;
mod metrics;
mod mode;
mod plan;
mod probe;
mod processes;
mod system;
mod users;
mod windows;

use std::os::unix::fs::MetadataExt;
use std::time::UNIX_EPOCH;

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
fn an_invalid_registration_is_refused_by_name_and_registers_nothing() {
    let system = system();
    system.make_venv("/srv/other/venv", "3.11", "/usr/bin/python3");
    system.make_dir("/srv/empty");
    for (arguments, why) in [
        (&["/srv/shop/venv", "/srv/nowhere"][..], "there is no such directory"),
        (&["/srv/shop/venv", "/srv/empty"], "/srv/empty"),
        (&["/srv/shop/venv", "/srv/other/venv", "--name", "x"], "--name is for one venv"),
        (&["/srv/shop/venv", "--check", "curl x | grep y"], "without a shell"),
        (&["/srv/shop/venv", "--check", "no-such-program-here"], "is not found"),
        (&["/srv/shop/venv", "--name", "a/b"], "is not a valid name"),
    ] {
        let said = system.run(&[&["register"], arguments].concat()).expect(1);
        assert!(said.stderr.contains(why), "{arguments:?}: {}", said.stderr);
        let list = system.run(&["list", "--json"]).expect(0).json();
        assert_eq!(list["venvs"].as_array().unwrap().len(), 0, "{arguments:?}");
    }
    system.run(&["register", "/srv/shop/venv", "--service", "web"]).expect(2);
}

#[test]
fn distributions_that_a_rebuild_may_not_reproduce_are_reported() {
    let system = system();
    let site = "/srv/shop/venv/lib/python3.11/site-packages";
    let install = |name: &str, origin: &str| {
        let info = format!("{site}/{name}-1.0.dist-info");
        system.write(&format!("{info}/METADATA"), &format!("Name: {name}\nVersion: 1.0\n"));
        if !origin.is_empty() {
            system.write(&format!("{info}/direct_url.json"), origin);
        }
    };
    system.write("/srv/wheels/kept-1.0-py3-none-any.whl", "PK");
    install("flask", "");
    install("octo", r#"{"url": "http://u:secret@x.org/main.zip", "archive_info": {}}"#);
    install(
        "kept",
        r#"{"url": "file:///srv/wheels/kept-1.0-py3-none-any.whl", "archive_info": {}}"#,
    );
    let words = "octo was installed from http://u:****@x.org/main.zip, without a hash";
    let said = system.run(&["register", "/srv/shop/venv"]).expect(0);
    assert!(said.stderr.contains(&format!("shop: {words}")), "{}", said.stderr);
    assert!(!said.stderr.contains("kept") && !said.stderr.contains("flask"), "{}", said.stderr);
    let shown = system.run(&["show", "shop"]).expect(0).stdout;
    assert!(shown.contains(&format!("not exact: {words}")), "{shown}");
    let json = system.run(&["show", "--json", "shop"]).expect(0).json();
    let reasons = json["venvs"][0]["not_exact"].as_array().unwrap();
    assert!(reasons.len() == 1 && reasons[0].as_str().unwrap().starts_with(words), "{json}");
    install("lost", "{}");
    let said = system.run(&["register", "/srv/shop/venv"]).expect(0);
    assert!(said.stderr.contains("shop: lost cannot be installed again"), "{}", said.stderr);
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
    has(&journal.lines(), "blocked", "its packages");
    system.run(&["register", "/srv/shop/venv", "--policy", "pin"]).expect(0);
    system.hook("pre-install", MINOR_UPGRADE).expect(0);
    let lines = journal.lines();
    has(&lines, "allowed", "is pinned to /usr/bin/python3.11");
    has(&lines, "pinning", "to Python 3.11: for the current apt run");
    system.hook("post-invoke", &[]).expect(0);
    has(&journal.lines(), "unpinned", "follows /usr/bin/python3 again");
}

#[test]
fn an_empty_value_clears_a_setting() {
    let system = system();
    let settings = || system.run(&["show", "shop", "--json"]).expect(0).json()["venvs"][0].clone();
    let (service, never) = (["--service", "systemd:shop.service"], ["--restart", "never"]);
    let set = [&["register", "/srv/shop/venv"], &service[..], &never, &["--relax", "patch"]];
    system.run(&set.concat()).expect(0);
    let set = settings();
    assert_eq!(set["services"][0]["name"], "shop.service", "{set}");
    assert!(set["restart"] == "never" && set["relax"] == "patch", "{set}");
    let clear = ["--service", "", "--restart", "", "--relax", ""];
    system.run(&[&["register", "/srv/shop/venv"], &clear[..]].concat()).expect(0);
    let cleared = settings();
    assert_eq!(cleared["services"], serde_json::json!([]));
    assert!(cleared["restart"].is_null() && cleared["relax"].is_null(), "{cleared}");
    system.run(&["register", "/srv/shop/venv", "--restart", "soon"]).expect(2);
}

#[test]
fn show_reports_the_last_rehearsal_and_the_declaration_as_json() {
    let system = system();
    system.write("/etc/venvguard/venvs.d/shop.toml", "path = \"/srv/shop/venv\"\n");
    let shown = || system.run(&["show", "shop", "--json"]).expect(0).json()["venvs"][0].clone();
    let declared = shown();
    assert_eq!(declared["declared_in"], "/etc/venvguard/venvs.d/shop.toml");
    assert!(declared.get("rehearsal").is_none(), "{declared}");
    system.run(&["register", "/srv/shop/venv"]).expect(0);
    assert!(shown()["declared_in"].is_null());
    let id = shown()["id"].as_str().unwrap().to_string();
    let rehearsal = include_str!("../../src/store/fixtures/rehearsal.schema-1.json");
    system.write(&format!("/var/lib/venvguard/rehearsals/{id}.json"), rehearsal);
    let found = shown()["rehearsal"].clone();
    assert!(found["ready"] == false && found["package"] == "python3.13-minimal", "{found}");
    assert_eq!(found["findings"][0]["distribution"], "psycopg2-binary");
}

#[test]
fn a_taken_name_and_a_venv_below_a_venv_are_refused() {
    let system = system();
    system.make_venv("/srv/other/venv", "3.11", "/usr/bin/python3");
    system.make_venv("/srv/shop/venv/share/inner", "3.11", "/usr/bin/python3");
    system.run(&["register", "/srv/shop/venv"]).expect(0);
    let taken = system.run(&["register", "/srv/other/venv", "--name", "shop"]).expect(1);
    assert!(taken.stderr.contains("\"shop\" is taken by /srv/shop/venv"), "{}", taken.stderr);
    let below = system.run(&["register", "/srv/shop/venv/share/inner"]).expect(1);
    assert!(below.stderr.contains("is inside /srv/shop/venv"), "{}", below.stderr);
}

#[test]
fn a_venv_that_vanished_is_missing_and_can_be_unregistered() {
    let system = system();
    system.run(&["register", "/srv/shop/venv"]).expect(0);
    system.remove("/srv/shop/venv");
    let status = system.run(&["status", "--json"]).expect(3).json();
    assert_eq!(status["venvs"][0]["state"], "missing");
    let way_back = status["venvs"][0]["reasons"][1].as_str().unwrap();
    assert!(way_back.contains("venv --without-pip /srv/shop/venv`"), "{way_back}");
    let said = system.run(&["rebuild", "--all"]).expect(3);
    assert!(!said.stderr.contains("healthy") && said.stderr.contains(way_back), "{}", said.stderr);
    let said = system.run(&["rebuild", "shop"]).expect(1);
    assert!(said.stderr.contains(way_back), "{}", said.stderr);
    system.run(&["unregister", "shop"]).expect(0);
    let said = system.run(&["rebuild", "--all"]).expect(0);
    assert!(said.stderr.contains("no venv is registered"), "{}", said.stderr);
    let said = system.run(&["unregister", "shop"]).expect(1);
    assert!(
        said.stderr.contains("no registered venv has the name or path \"shop\""),
        "{}",
        said.stderr
    );
}

#[test]
fn a_venv_that_vanished_in_a_repair_can_be_unregistered_unless_its_tree_is_left() {
    let aside = tempfile::tempdir().unwrap();
    let metadata = aside.path().metadata().unwrap();
    let born = metadata.created().unwrap().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let swap = serde_json::json!({
        "previous": {
            "path": aside.path(), "identity": [metadata.ino(), u64::try_from(born).unwrap()],
            "at": "2026-01-01T00:00:00Z", "followed": true,
        },
        "new": [0, 0], "minor": "3.11",
    });
    let preparing = serde_json::json!({ "aside": "/srv/gone/.aside", "new": null });
    for (code, state) in [(0, ("preparing", preparing)), (1, ("building-in-place", swap))] {
        let system = system();
        system.run(&["register", "/srv/shop/venv"]).expect(0);
        let registry: serde_json::Value =
            serde_json::from_str(&system.read("/var/lib/venvguard/registry.json")).unwrap();
        let id = registry["venvs"][0]["id"].as_str().unwrap();
        let journal = serde_json::json!({
            "schema_version": 1, "begun_at": "2026-01-01T00:00:00Z", "state": { state.0: state.1 },
            "decision": {
                "id": id, "name": "shop", "path": "/srv/gone/venv", "policy": "auto",
                "effect": "none", "change": null, "remedy": "restart", "phase": "now",
                "follows": true, "pin_during_dpkg": false, "services": [], "were_up": [],
                "blocks": false, "reasons": [],
            },
        });
        system.write(&format!("/var/lib/venvguard/journal/{id}.json"), &journal.to_string());
        let said = system.run(&["unregister", "shop"]).expect(code);
        assert!(
            said.stderr.contains("cannot finish an interrupted repair: shop"),
            "{}",
            said.stderr
        );
        let is_registered = system.read("/var/lib/venvguard/registry.json").contains("shop");
        assert_eq!(is_registered, code == 1);
    }
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
fn a_glob_names_several_venvs() {
    let system = system();
    system.make_venv("/srv/blog/venv", "3.11", "/usr/bin/python3");
    system.make_venv("/opt/wiki", "3.11", "/usr/bin/python3");
    system.run(&["register", "/srv/shop/venv", "/srv/blog/venv", "/opt/wiki"]).expect(0);
    let shown = system.run(&["show", "/srv/*/venv", "--json"]).expect(0).json();
    let names: Vec<_> = shown["venvs"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["shop", "blog"]);
}

#[test]
fn show_names_ten_user_files_and_counts_the_rest() {
    let system = system();
    for number in 0..11 {
        system.write(&format!("/srv/shop/venv/data/{number:02}"), "");
    }
    system.run(&["register", "/srv/shop/venv"]).expect(0);
    let shown = system.run(&["show", "shop"]).expect(0).stdout;
    assert!(shown.contains("user file: data/09\n"), "{shown}");
    assert!(shown.contains("and 2 more") && !shown.contains("data/10"), "{shown}");
    let shown = system.run(&["show", "shop", "--json"]).expect(0).json();
    assert_eq!(
        shown["venvs"][0]["foreign_files"].as_array().unwrap().len(),
        12,
        "with app.py of its library"
    );
    assert_eq!(shown["venvs"][0]["modified_files"], serde_json::json!([]));
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
