//! What monitoring reads: `metrics`, `status --nagios` and the message of the day.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::first_hour::with_systemd;
use super::system::{Said, System};
use super::users::Person;
use super::{REVISION, system};

const SUMMARY: &str = "/run/venvguard/summary.json";
const REGISTRY: &str = "/var/lib/venvguard/registry.json";
const DIR: &str = "/var/lib/prometheus/node-exporter";

fn prom() -> String {
    format!("{DIR}/venvguard.prom")
}

/// A system with a registered venv, `shop`.
fn guarded() -> System {
    let system = system();
    system.run(&["register", "/srv/shop/venv"]).expect(0);
    system
}

/// What Nagios learns after the timer has run.
#[track_caller]
fn checked(system: &System, code: i32) -> String {
    system.run(&["metrics", "--write"]).expect(0);
    asked(system, code)
}

#[track_caller]
fn asked(system: &System, code: i32) -> String {
    let said = system.run(&["status", "--nagios"]).expect(code);
    assert_eq!(said.stderr, "");
    assert_eq!(said.stdout.lines().count(), 1, "{}", said.stdout);
    said.stdout
}

/// Replaces a text in a file of the system.
#[track_caller]
fn replace(system: &System, path: &str, from: &str, to: &str) {
    let text = system.read(path);
    assert!(text.contains(from), "{text}");
    system.write(path, &text.replace(from, to));
}

fn id(system: &System) -> String {
    let registry: serde_json::Value = serde_json::from_str(&system.read(REGISTRY)).unwrap();
    registry["venvs"][0]["id"].as_str().unwrap().to_string()
}

/// Adds a field to the registered venv.
fn note(system: &System, field: &str) {
    replace(system, REGISTRY, "\"policy\": \"auto\",", &format!("\"policy\": \"auto\", {field},"));
}

#[test]
fn nagios_learns_the_state_of_the_venvs() {
    type Change<'a> = &'a dyn Fn(&System);
    let healthy = asked(&guarded(), 0);
    let expected = "VENVGUARD OK - 1 venv healthy|'age'=";
    assert!(healthy.starts_with(expected), "{healthy}");
    assert!(healthy.contains(" 'venvs'=1;;;0 'healthy'=1;;;0;1 "), "{healthy}");
    let states: [(&str, Change); 6] = [
        ("missing", &|system| system.remove("/srv/shop/venv")),
        ("broken", &|system| system.remove_file("/srv/shop/venv/pyvenv.cfg")),
        ("stranded", &|system| system.remove_python("3.11")),
        ("orphaned", &|system| {
            system.install_python("3.13.5-2");
            system.make_default("3.13");
        }),
        ("unfinished", &|system| {
            system.write(&format!("/var/lib/venvguard/journal/{}.json", id(system)), "{}");
        }),
        ("check-fails", &|system| {
            note(system, r#""check_failure": {"at": "2026-01-01T00:00:00Z", "because": "x|y"}"#);
        }),
    ];
    for (state, make) in states {
        let system = guarded();
        make(&system);
        let line = checked(&system, 2);
        let expected = format!("VENVGUARD CRITICAL - shop is {state}");
        assert!(line.starts_with(&expected), "{line}");
        assert!(line.contains(&format!("'{state}'=1;;;0;1")), "{line}");
        let said = system.run(&["status", "--nagios", "-v"]).expect(2);
        let detail = said.stdout.lines().nth(1).unwrap();
        assert!(detail.starts_with(&format!("shop: {state}: ")), "{detail}");
        assert!(!detail.contains('|'), "{detail}");
    }
}

#[test]
fn nagios_learns_that_a_service_failed() {
    let failed = "LoadState=loaded\\nActiveState=failed\\nSubState=failed\\n";
    let system = with_systemd(failed);
    system.run(&["register", "/srv/shop/venv", "--service", "systemd:web"]).expect(0);
    let line = asked(&system, 2);
    let expected = "VENVGUARD CRITICAL - systemd:web.service of shop failed|";
    assert!(line.starts_with(expected) && line.contains("'failed_services'=1;;;0"), "{line}");
    let metrics = system.run(&["metrics"]).expect(0).stdout;
    assert!(metrics.contains("\nvenvguard_services_failed 1\n"), "{metrics}");
    assert!(metrics.contains("\nvenvguard_venvs{state=\"healthy\"} 1\n"), "{metrics}");
}

#[test]
fn nagios_learns_what_lasts_too_long() {
    let system = guarded();
    system.make_dir("/etc/apt/preferences.d");
    system.run(&["hold"]).expect(0);
    let line = asked(&system, 0);
    assert!(line.contains("1 venv healthy; Python has been held since 20"), "{line}");
    let hold = "/etc/apt/preferences.d/venvguard-hold.pref";
    let since =
        system.read(hold).lines().find(|line| line.starts_with("# Since: ")).map(str::to_string);
    replace(&system, hold, &since.unwrap(), "# Since: 2026-01-01T00:00:00Z");
    let line = checked(&system, 1);
    assert!(
        line.starts_with("VENVGUARD WARNING - Python has been held since 2026-01-01|"),
        "{line}"
    );
    system.run(&["unhold"]).expect(0);
    asked(&system, 0);
    note(&system, r#""pin": {"at": "2026-01-01T00:00:00Z", "to": "3.11", "until": "rebuilt"}"#);
    let line = checked(&system, 1);
    assert!(
        line.starts_with("VENVGUARD WARNING - shop has been pinned since 2026-01-01|"),
        "{line}"
    );
    replace(&system, REGISTRY, "rebuilt", "policy");
    checked(&system, 0);
}

#[test]
fn nagios_learns_that_the_registry_or_the_configuration_is_damaged() {
    for (path, text) in [(REGISTRY, "{\n|"), ("/etc/venvguard/config.toml", "jobs =\n")] {
        let system = guarded();
        system.write(path, text);
        let line = checked(&system, 2);
        assert!(line.contains(path) && line.starts_with("VENVGUARD CRITICAL - "), "{line}");
        assert_eq!(line.matches('|').count(), 1, "{line}");
        let metrics = system.run(&["metrics"]).expect(0).stdout;
        assert!(metrics.contains("\nvenvguard_data_readable 0\n"), "{metrics}");
        assert!(!metrics.contains("venvguard_venvs"), "{metrics}");
    }
}

#[test]
fn nagios_learns_that_nothing_is_known() {
    let line = asked(&system(), 0);
    assert_eq!(line, "VENVGUARD OK - no venv is registered\n");
    let system = guarded();
    let json: serde_json::Value = serde_json::from_str(&system.read(SUMMARY)).unwrap();
    let at = json["at"].as_str().unwrap();
    replace(&system, SUMMARY, at, "2026-01-01T00:00:00Z");
    let line = asked(&system, 3);
    assert!(line.starts_with("VENVGUARD UNKNOWN - the last summary is "), "{line}");
    system.write(SUMMARY, "half");
    assert!(asked(&system, 3).contains("summary.json"));
    system.remove_file(SUMMARY);
    let line = asked(&system, 3);
    assert!(line.starts_with("VENVGUARD UNKNOWN - no summary has been written"), "{line}");
    for wrong in [&["--nagios", "--nonsense"][..], &["--nagios", "--json"], &["--nagios", "shop"]] {
        let said = system.run(&[&["status"], wrong].concat()).expect(3);
        assert!(said.stdout.starts_with("VENVGUARD UNKNOWN - error: "), "{}", said.stdout);
        assert_eq!(said.stderr, "");
    }
    system.run(&["status", "--verbose"]).expect(2);
}

#[test]
fn an_ordinary_user_may_ask_for_what_root_summarized() {
    let system = guarded();
    system.set_mode("/", 0o755);
    assert_eq!(fs::metadata(system.path(SUMMARY)).unwrap().permissions().mode() & 0o777, 0o644);
    let person = Person::new();
    let root = system.path("/");
    let ask = |arguments: &[&str]| person.run(&[&["--root", root.as_str()], arguments].concat());
    let line = ask(&["status", "--nagios"]).expect(0).stdout;
    assert!(line.starts_with("VENVGUARD OK - 1 venv healthy|"), "{line}");
    if rustix::process::geteuid().is_root() {
        ask(&["metrics", "--write"]).expect(1);
    }
}

#[test]
fn a_run_that_changes_something_writes_the_metrics_and_any_other_writes_nothing() {
    let system = guarded();
    system.make_dir(DIR);
    let moments = |actions: &[&str]| -> Said {
        system.hook("pre-invoke", actions).expect(0);
        system.hook("pre-install", actions).expect(0);
        system.hook("post-invoke", actions).expect(0)
    };
    moments(super::NO_PYTHON);
    assert!(!Path::new(&system.path(&prom())).exists());
    system.hook("pre-invoke", REVISION).expect(0);
    system.install_python("3.11.2-7");
    system.hook("post-invoke", REVISION).expect(0);
    let metrics = system.read(&prom());
    assert!(metrics.contains("\nvenvguard_venvs{state=\"healthy\"} 1\n"), "{metrics}");
    assert!(metrics.contains("\nvenvguard_venvs{state=\"missing\"} 0\n"), "{metrics}");
    assert!(metrics.contains("\nvenvguard_last_run_success 1\n"), "{metrics}");
    let file = fs::metadata(system.path(&prom())).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o644);
    assert_eq!(fs::read_dir(system.path(DIR)).unwrap().count(), 1, "no temporary file is left");
    let json = system.run(&["metrics", "--json"]).expect(0).json();
    assert_eq!(json["schema_version"], 1);
    assert_eq!(json["last_run"]["success"], true);
    moments(super::NO_PYTHON);
    assert_eq!(
        fs::metadata(system.path(&prom())).unwrap().ino(),
        file.ino(),
        "it was written again"
    );
}

#[test]
fn the_directory_of_the_metrics_is_neither_made_nor_reached_through_a_link() {
    let system = guarded();
    system.run(&["metrics", "--write"]).expect(0);
    assert!(!Path::new(&system.path("/var/lib/prometheus")).exists());
    system.make_dir("/srv/elsewhere");
    system.relink(DIR, &system.path("/srv/elsewhere"));
    let said = system.run(&["metrics", "--write"]).expect(1);
    assert!(said.stderr.contains("cannot write venvguard.prom in"), "{}", said.stderr);
    // The summary does not depend on it, and neither does apt.
    asked(&system, 0);
    system.hook("pre-invoke", REVISION).expect(0);
    system.install_python("3.11.2-7");
    let said = system.hook("post-invoke", REVISION).expect(0);
    assert!(
        said.stderr.contains("venvguard: error: cannot write venvguard.prom"),
        "{}",
        said.stderr
    );
    assert_eq!(fs::read_dir(system.path("/srv/elsewhere")).unwrap().count(), 0);
    // The configuration may name another directory.
    system.write("/etc/venvguard/config.toml", "metrics-dir = \"/srv/elsewhere\"\n");
    system.run(&["metrics", "--write"]).expect(0);
    assert_eq!(fs::read_dir(system.path("/srv/elsewhere")).unwrap().count(), 1);
}

#[test]
fn a_login_shows_two_lines_if_something_needs_attention() {
    let system = guarded();
    let motd = || system.run(&["status", "--motd"]).expect(0);
    assert_eq!(motd().stdout, "");
    system.remove("/srv/shop/venv");
    system.run(&["metrics", "--write"]).expect(0);
    assert_eq!(
        motd().stdout,
        "venvguard: shop is missing\nvenvguard: see `sudo venvguard status`\n"
    );
    system.write(SUMMARY, "half");
    let said = motd();
    assert_eq!((said.stdout, said.stderr), (String::new(), String::new()));
}
