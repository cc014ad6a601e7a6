//! Mistakes that new users make in their first hour.

use std::fs::File;

use super::system;
use super::system::System;

#[test]
fn lost_output_is_a_failure() {
    let system = system();
    system.run(&["register", "/srv/shop/venv"]).expect(0);
    for command in [&["status"][..], &["status", "--json"], &["list"], &["history", "--json"]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let said = system.run_into(command, full.into()).expect(1);
        assert!(said.stderr.contains("cannot write to standard output"), "{}", said.stderr);
    }
}

#[test]
fn scanning_a_missing_directory_fails() {
    let said = system().run(&["scan", "/srv", "/nowhere"]).expect(1);
    assert!(said.stderr.contains("cannot scan /nowhere: No such file"), "{}", said.stderr);
}

#[test]
fn a_cause_is_named_once() {
    let system = system();
    for command in [&["plan", "--from", "/nowhere"][..], &["scan", "/nowhere"]] {
        let said = system.run(command).expect(1);
        assert_eq!(said.stderr.matches("os error 2").count(), 1, "{}", said.stderr);
    }
}

#[test]
fn a_mistyped_name_gets_a_suggestion() {
    let system = system();
    system.run(&["register", "/srv/shop/venv"]).expect(0);
    let said = system.run(&["show", "shopp"]).expect(1);
    assert!(said.stderr.contains("did you mean \"shop\"?"), "{}", said.stderr);
    let said = system.run(&["show", "/srv/other"]).expect(1);
    assert!(said.stderr.contains("see `venvguard list`"), "{}", said.stderr);
}

#[test]
fn command_names_of_other_programs_are_understood() {
    let system = system();
    system.run(&["register", "/srv/shop/venv"]).expect(0);
    system.run(&["upgrade", "--all", "--dry-run"]).expect(0);
    system.run(&["remove", "shop"]).expect(0);
    assert!(system.run(&["list"]).expect(0).stderr.contains("no venv is registered"));
}

#[test]
fn pruning_nothing_says_so() {
    let system = system();
    system.run(&["register", "/srv/shop/venv"]).expect(0);
    assert_eq!(system.run(&["prune", "shop"]).expect(0).stderr, "nothing to remove\n");
}

#[test]
fn a_number_that_is_too_small_is_reported_in_words() {
    let system = system();
    system.write("/etc/venvguard/config.toml", "keep-trees = 0\n");
    let said = system.run(&["status"]).expect(1);
    assert!(said.stderr.contains("line 1: keep-trees: it must be at least 1"), "{}", said.stderr);
}

#[test]
fn a_check_is_tried_when_it_is_registered() {
    let system = system();
    let said = system.run(&["register", "/srv/shop/venv", "--check", "false"]).expect(3);
    assert!(said.stderr.contains("shop: its check fails now"), "{}", said.stderr);
    let said = system.run(&["register", "/srv/shop/venv", "--check", "true"]).expect(0);
    assert_eq!(said.stderr, "");
}

#[test]
fn an_address_is_no_program_that_is_missing() {
    let system = system();
    system.run(&["register", "/srv/shop/venv", "--check", "unix:/run/shop.sock"]).expect(3);
    let said = system.run(&["doctor"]);
    assert!(!said.stdout.contains("the program of the check of"), "{}", said.stdout);
}

#[test]
fn an_empty_value_clears_a_setting() {
    let system = system();
    let requirements = system.list(&[]).replace("list", "requirements.txt");
    system.write("/requirements.txt", "flask==3.0\n");
    let register = |option: &str, value: &str| {
        system.run(&["register", "/srv/shop/venv", option, value]).expect(0);
        system.state().into_iter().find(|(path, _)| path.ends_with("registry.json")).unwrap().1
    };
    assert!(register("--check", "true").contains("bin/true"));
    assert!(!register("--check", "").contains("bin/true"));
    assert!(register("--requirements", &requirements).contains("requirements.txt"));
    assert!(!register("--requirements", "").contains("requirements.txt"));
    assert!(!register("--lock", "").contains("uv.lock"));
}

#[test]
fn a_file_that_holds_no_requirements_is_refused() {
    let system = system();
    let project = system.list(&[]).replace("list", "pyproject.toml");
    system.write("/pyproject.toml", "[project]\nname = \"shop\"\n");
    let said =
        system.run(&["register", "/srv/shop/venv", "--requirements", &project]).expect(1).stderr;
    assert!(said.contains("line 1 is \"[project]\""), "{said}");
    assert!(said.contains("nothing was registered"), "{said}");
    assert!(system.run(&["list"]).expect(0).stderr.contains("no venv is registered"));
}

#[test]
fn a_service_that_its_manager_does_not_know_is_refused() {
    let system = with_systemd("LoadState=not-found\\nActiveState=inactive\\nSubState=dead\\n");
    let said = system.run(&["register", "/srv/shop/venv", "--service", "systemd:nope"]).expect(1);
    assert!(said.stderr.contains("systemd:nope.service is unknown"), "{}", said.stderr);
    assert!(system.run(&["list"]).expect(0).stderr.contains("no venv is registered"));
    let system = with_systemd("LoadState=loaded\\nActiveState=inactive\\nSubState=dead\\n");
    let said = system.run(&["register", "/srv/shop/venv", "--service", "systemd:web"]).expect(0);
    assert_eq!(said.stderr, "");
}

/// A system whose systemd gives the same answer for every unit.
pub(crate) fn with_systemd(shown: &str) -> System {
    let system = system();
    system.make_dir("/run/systemd/system");
    system.write("/usr/bin/systemctl", &format!("#!/bin/sh\nprintf '{shown}'\n"));
    system.set_mode("/usr/bin/systemctl", 0o755);
    system
}

#[test]
fn an_interrupted_repair_is_part_of_the_status() {
    let system = system();
    system.run(&["register", "/srv/shop/venv"]).expect(0);
    let registry = system.run(&["list", "--json"]).expect(0).json();
    let id = registry["venvs"][0]["id"].as_str().unwrap().to_string();
    system.write(&format!("/var/lib/venvguard/journal/{id}.json"), "{}");
    let said = system.run(&["status"]).expect(3);
    assert!(said.stdout.contains("unfinished"), "{}", said.stdout);
    assert!(said.stdout.contains("venvguard resume"), "{}", said.stdout);
    let said = system.run(&["rebuild", "--all", "--dry-run"]).expect(3);
    assert!(
        said.stderr.contains("the rebuild first finishes an interrupted repair"),
        "{}",
        said.stderr
    );
}

#[test]
fn plan_fails_without_package_lists() {
    let system = system();
    system.make_dir("/var/lib/apt/lists/partial");
    for command in [&["plan"][..], &["plan", "--json"]] {
        let said = system.run(command).expect(3);
        assert!(said.stderr.contains("apt has no package lists"), "{}", said.stderr);
        assert!(said.stderr.contains("hint: apt update && venvguard plan"), "{}", said.stderr);
        assert_eq!(said.stdout.is_empty(), command.len() == 1, "{}", said.stdout);
    }
}

#[test]
fn a_reinstallation_is_planned_as_a_revision() {
    let system = system();
    system.run(&["register", "/srv/shop/venv"]).expect(0);
    let again = "python3.11-minimal 3.11.2-6 amd64 allowed = 3.11.2-6 amd64 allowed";
    let list = system.list(&[&format!("{again} /x.deb")]);
    let said = system.run(&["plan", "--from", &list]).expect(0);
    assert!(said.stdout.contains("python3.11 3.11.2-6 is reinstalled"), "{}", said.stdout);
    let list = system.list(&[&format!("{again} **CONFIGURE**")]);
    let said = system.run(&["plan", "--from", &list]).expect(0);
    assert!(said.stdout.contains("no interpreter changes"), "{}", said.stdout);
}

#[test]
fn status_lists_venvs_that_need_something_first_and_counts_all() {
    let system = system();
    system.make_venv("/srv/blog/venv", "3.11", "/usr/bin/python3");
    system.make_venv("/srv/old/venv", "3.9", "/usr/bin/python3.9");
    for venv in ["/srv/shop/venv", "/srv/old/venv", "/srv/blog/venv"] {
        system.run(&["register", venv]).expect(0);
    }
    let said = system.run(&["status"]).expect(3);
    let names: Vec<&str> =
        said.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["NAME", "old", "shop", "blog"], "{}", said.stdout);
    assert!(said.stderr.starts_with("3 venvs: 1 stranded, 2 healthy\n"), "{}", said.stderr);
    assert!(said.stderr.contains("`venvguard rebuild --all` repairs these"), "{}", said.stderr);
}

#[test]
fn completions_offer_commands_and_no_hidden_ones_and_hooks_never_complete() {
    let system = system();
    let offered = system.run_with(&[("COMPLETE", "fish")], &["--", "venvguard", ""]).expect(0);
    let names: Vec<&str> =
        offered.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.contains(&"register") && names.contains(&"status"), "{names:?}");
    for hidden in ["confine", "own", "settle-own", "generate"] {
        assert!(!names.contains(&hidden), "{hidden}");
    }
    system.run(&["register", "/srv/shop/venv"]).expect(0);
    let said = system.run_with(&[("COMPLETE", "bash")], &["status"]).expect(0);
    assert!(said.stdout.contains("healthy"), "{}", said.stdout);
    for shell in ["bash", "zsh", "fish"] {
        let script = system.run(&["generate", "completions", shell]).expect(0).stdout;
        assert!(script.contains("COMPLETE"), "{shell}: {script}");
    }
}

#[test]
fn show_prints_all_settings_as_json() {
    let system = system();
    system.run(&["register", "/srv/shop/venv", "--check", "true http://u:secret@x/"]).expect(0);
    let shown = system.run(&["show", "shop", "--json"]).expect(0).json();
    let venv = &shown["venvs"][0];
    assert!(venv["check"][0].as_str().unwrap().ends_with("/true"), "{venv}");
    assert!(!venv["check"][1].as_str().unwrap().contains("secret"), "{venv}");
    assert!(venv["requirements"].is_null() && venv["lock"].is_null() && venv["relax"].is_null());
    assert_eq!(venv["services_found"].as_array().unwrap().len(), 0);
    assert_eq!(venv["processes"].as_array().unwrap().len(), 0);
    let listed = system.run(&["list", "--json"]).expect(0).json();
    assert!(listed["venvs"][0].get("processes").is_none(), "list does not look for them");
}

#[test]
fn a_check_may_be_an_address() {
    let system = system();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp:{}", listener.local_addr().unwrap());
    system.run(&["register", "/srv/shop/venv", "--check", &address]).expect(0);
    let venv = &system.run(&["show", "shop", "--json"]).expect(0).json()["venvs"][0];
    assert_eq!(venv["check"], serde_json::json!([address]));
    drop(listener);
    let said = system.run(&["register", "/srv/shop/venv", "--check", &address]).expect(3);
    assert!(said.stderr.contains("does not answer"), "{}", said.stderr);
    let said = system.run(&["register", "/srv/shop/venv", "--check", "https://x/"]).expect(1);
    assert!(said.stderr.contains("is not an address"), "{}", said.stderr);
}
