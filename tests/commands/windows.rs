//! Services that wait for a window.

use super::processes::{process, restarts, served};
use super::system::System;
use super::{MINOR_UPGRADE, REVISION, system};

const WAITING: &str = "/var/lib/venvguard/waiting.json";

/// A window that is over, and one that is always open.
const OVER: &str = "2000-01-01 03:00..05:00";
const OPEN: &str = "00:00..00:00";

fn in_window(system: &System, window: &str) {
    let settings = ["--restart=window", &format!("--window={window}")];
    system.run(&[&["register", "/srv/shop/venv"], &settings[..]].concat()).expect(0);
}

/// A process that runs replaced code, and a systemctl that ends it with a restart of its unit.
fn stale(system: &System) {
    let gone = "/usr/bin/python3.11 (deleted)";
    process(system, 71, "shop.service", gone, "/srv/shop/venv/bin/python3 x");
    restarts(system, "7?", "\"$*\"");
}

#[test]
fn a_service_that_waits_for_its_window_is_not_restarted_by_an_upgrade() {
    let system = served();
    // No installer can rebuild it.
    let plan = |list: &[&str]| {
        let code = if list == MINOR_UPGRADE { 3 } else { 0 };
        let list = system.list(list);
        system.run(&["plan", "--from", &list]).expect(code).stdout
    };
    let said = system.run(&["register", "/srv/shop/venv", "--restart=window"]).expect(1);
    assert!(said.stderr.contains("needs a window: --window"), "{}", said.stderr);
    let said = system.run(&["register", "/srv/shop/venv", "--window=Sat"]).expect(2);
    assert!(said.stderr.contains("\"Sat\" is not a window"), "{}", said.stderr);
    in_window(&system, OVER);
    let why =
        "systemd:shop.service is not restarted: it waits for its window (2000-01-01 03:00..05:00)";
    let text = plan(REVISION);
    assert!(text.contains("; restarts no service") && text.contains(why), "{text}");
    let text = plan(MINOR_UPGRADE);
    assert!(text.contains("is pinned to /usr/bin/python3.11") && text.contains(why), "{text}");
    let json = system.run(&["show", "shop", "--json"]).expect(0).json();
    assert_eq!(json["venvs"][0]["window"], OVER);
    in_window(&system, OPEN);
    let text = plan(REVISION);
    assert!(text.contains("; restarts systemd:shop.service"), "the window is open: {text}");
}

#[test]
fn an_upgrade_records_that_services_wait() {
    let system = served();
    in_window(&system, OVER);
    system.run(&["restart", "--due"]).expect(0);
    assert!(!system.exists(WAITING), "nothing waits");
    system.hook("pre-install", REVISION).expect(0);
    system.install_python("3.11.2-7");
    let said = system.hook("post-invoke", REVISION).expect(0);
    assert!(said.stderr.contains("it waits for its window"), "{}", said.stderr);
    assert!(system.exists(WAITING));
}

#[test]
fn what_waits_is_restarted_once_in_its_window() {
    let system = served();
    in_window(&system, OPEN);
    stale(&system);
    let long_ago = "{\"schema_version\": 1, \"since\": \"1970-01-01T00:00:00Z\"}\n";
    system.write(WAITING, long_ago);
    let status = system.run(&["status", "--json"]).expect(3).json();
    let reason = status["venvs"][0]["reasons"][0].as_str().unwrap();
    assert!(reason.starts_with("its services restart in the window of "), "{status}");
    let dry = system.run(&["restart", "--due", "--dry-run"]).expect(0);
    assert!(dry.stdout.contains("; restarts systemd:shop.service"), "{}", dry.stdout);
    assert!(!system.exists("/calls") && system.read(WAITING) == long_ago, "it changes nothing");
    let said = system.run(&["restart", "--due"]).expect(0);
    assert!(said.stderr.contains("restarted systemd:shop.service"), "{}", said.stderr);
    assert_eq!(system.read("/calls").lines().count(), 1);
    assert_ne!(system.read(WAITING), long_ago);
    // It runs old code again: that waits for the next window.
    stale(&system);
    let said = system.run(&["restart", "--due"]).expect(0);
    assert!(said.stderr.contains("nothing waits for a window that is open"), "{}", said.stderr);
    assert_eq!(system.read("/calls").lines().count(), 1);
    // Somebody restarts it by hand.
    system.remove("/proc/71");
    system.run(&["restart", "--due"]).expect(0);
    assert!(!system.exists(WAITING));
}

#[test]
fn a_process_that_belongs_to_no_service_waits_for_no_window() {
    let system = system();
    in_window(&system, OVER);
    let gone = "/usr/bin/python3.11 (deleted)";
    process(&system, 71, "cron.service", gone, "/srv/shop/venv/bin/python3 job.py");
    let status = system.run(&["status", "--json"]).expect(3).json();
    assert_eq!(status["venvs"][0]["state"], "restart-needed");
    assert!(system.exists(WAITING), "it was registered just now");
    system.run(&["restart", "--due"]).expect(0);
    assert!(!system.exists(WAITING));
}

#[test]
fn a_closed_window_restarts_nothing() {
    let system = served();
    in_window(&system, OVER);
    stale(&system);
    system.write(WAITING, "{\"schema_version\": 1, \"since\": \"1970-01-01T00:00:00Z\"}\n");
    let status = system.run(&["status", "--json"]).expect(3).json();
    let reason = &status["venvs"][0]["reasons"][0];
    assert_eq!(reason, &format!("its window never opens again ({OVER})"), "{status}");
    system.run(&["restart", "--due"]).expect(0);
    assert!(!system.exists("/calls") && system.exists(WAITING));
}

#[test]
fn a_mistake_in_the_window_names_the_file_and_the_key() {
    let system = served();
    for (text, told) in [
        ("window = \"Sat 3\"\n", "config.toml, line 1: window: \"Sat 3\" is not a window"),
        ("restart = \"window\"\n", "config.toml, line 1: restart: \"window\" needs a `window`"),
    ] {
        system.write("/etc/venvguard/config.toml", text);
        let said = system.run(&["status"]).expect(1);
        assert!(said.stderr.contains(told), "{}", said.stderr);
    }
}
