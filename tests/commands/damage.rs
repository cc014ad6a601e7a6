//! Damaged files of venvguard's own: messages name the fault, the place and a remedy, and apt
//! continues.

use super::system::System;
use super::{MINOR_UPGRADE, system};

const REGISTRY: &str = "/var/lib/venvguard/registry.json";

/// A system whose registry was saved twice.
fn registered() -> System {
    let system = system();
    system.make_venv("/srv/blog/venv", "3.11", "/usr/bin/python3");
    system.run(&["register", "/srv/shop/venv", "--policy", "block"]).expect(0);
    system.run(&["register", "/srv/blog/venv"]).expect(0);
    system
}

#[test]
fn a_damaged_registry_is_reported_with_its_line_and_the_copy_to_restore() {
    let good = registered().read(REGISTRY);
    let cut = good[..good.len() / 2].to_string();
    for (content, why) in [
        ("", "line 1: it is empty"),
        ("\0\0\0\0\0\0\0\0", "line 1: it contains nothing but zeros, as after a power loss"),
        (cut.as_str(), "it is truncated"),
        ("{\n\"schema_version\": 1,\n \u{1b}oops", "line 3: "),
        ("{\"schema_version\": 1,\n\"venvs\": [], \"x\": 1}", "line 2: unknown field `x`"),
        (&good.replace("\"shop\"", "\"-x\""), "\"-x\" is not a valid name"),
        (&good.replace("/srv/shop/venv", "/srv/../etc"), "absolute and contain no `..`"),
    ] {
        let system = registered();
        system.write(REGISTRY, content);
        let said = system.run(&["status"]).expect(1);
        for word in [
            "registry.json, line ",
            why,
            "hint: restore the registry",
            "with 1 venv: `mv '",
            "&& cp '",
        ] {
            assert!(said.stderr.contains(word), "{word}: {}", said.stderr);
        }
        assert!(!said.stderr.contains('\u{1b}'), "{}", said.stderr);
        let said = system.hook("pre-install", MINOR_UPGRADE).expect(0);
        let told = said.stderr.lines().next().unwrap();
        assert!(told.starts_with("venvguard: error: apt continues without venvguard: "), "{told}");
        assert!(told.contains(why), "{told}");
        assert_eq!(system.read(REGISTRY), content, "the damaged file is left for inspection");
    }
}

#[test]
fn the_command_in_the_hint_restores_the_registry() {
    let system = registered();
    system.remove_file(REGISTRY);
    system.make_dir(REGISTRY);
    let said = system.run(&["list"]).expect(1);
    assert!(said.stderr.contains("is not a regular file"), "{}", said.stderr);
    let hint = said.stderr.lines().find(|line| line.starts_with("hint: ")).unwrap();
    let command = hint.split('`').nth(1).unwrap();
    System::shell(command);
    let list = system.run(&["list", "--json"]).expect(0).json();
    assert_eq!(list["venvs"][0]["name"], "shop");
}

#[test]
fn without_an_earlier_copy_the_hint_is_to_scan_again() {
    let system = system();
    system.run(&["register", "/srv/shop/venv"]).expect(0);
    system.write(REGISTRY, "");
    let said = system.run(&["status"]).expect(1);
    assert!(said.stderr.contains("venvguard scan --register`"), "{}", said.stderr);
}

#[test]
fn a_registry_of_a_newer_venvguard_is_not_called_damaged() {
    let system = registered();
    system.write(REGISTRY, "{\"schema_version\": 99, \"more\": []}");
    let said = system.run(&["status"]).expect(1);
    for word in ["was written by a newer venvguard (schema 99; this one knows 1)", "hint: install"]
    {
        assert!(said.stderr.contains(word), "{}", said.stderr);
    }
}

#[test]
fn doctor_names_each_file_of_a_newer_venvguard_and_what_to_do() {
    for name in ["registry.json", "interpreters.json", "transaction.json", "history.jsonl"] {
        let system = registered();
        let path = format!("/var/lib/venvguard/{name}");
        system.write(&path, "{\"schema_version\": 99, \"more\": []}\n");
        let said = system.run(&["doctor", "--json"]).expect(3).json();
        let findings = said["findings"].as_array().unwrap();
        let is_about = |one: &&serde_json::Value| one["what"].as_str().unwrap().contains(name);
        let found = findings.iter().find(is_about).unwrap_or_else(|| panic!("{name}: {said}"));
        assert_eq!(found["severity"], "fault", "{found}");
        let what = found["what"].as_str().unwrap();
        let newer = "was written by a newer venvguard (schema 99; this one knows 1)";
        assert!(what.contains(&path) && what.contains(newer), "{found}");
        assert_eq!(found["fix"], "install the version of venvguard that wrote it, or a newer one");
        let note = findings.iter().find(|one| one["severity"] == "note").unwrap();
        assert!(note.get("fix").is_none(), "{note}");
    }
}

#[test]
fn a_registry_or_a_configuration_that_others_can_write_is_refused() {
    let system = registered();
    system.write("/etc/venvguard/config.toml", "jobs = 1\n");
    for (path, bad, good) in [
        (REGISTRY, 0o666, 0o644),
        ("/var/lib/venvguard", 0o777, 0o755),
        ("/etc/venvguard/config.toml", 0o664, 0o644),
    ] {
        system.set_mode(path, bad);
        let said = system.run(&["status"]).expect(1);
        for word in [
            path,
            "cannot be trusted: users other than its owner can write to it",
            "hint: ",
            "chmod",
        ] {
            assert!(said.stderr.contains(word), "{word}: {}", said.stderr);
        }
        let said = system.hook("pre-install", MINOR_UPGRADE).expect(0);
        assert!(said.stderr.contains("without venvguard"), "{}", said.stderr);
        system.set_mode(path, good);
    }
    system.run(&["status"]).expect(0);
}

#[test]
fn a_damaged_journal_or_transaction_is_reported_and_can_be_moved_away() {
    for (path, content) in
        [("/var/lib/venvguard/journal/0.json", "{"), ("/var/lib/venvguard/transaction.json", "[]")]
    {
        let system = registered();
        system.write(path, content);
        let said = system.run(&["resume"]);
        let told = format!("{}, line 1: ", path.rsplit('/').next().unwrap());
        assert!(said.stderr.contains(&told), "{}", said.stderr);
        let hint = said.stderr.lines().find(|line| line.contains("hint: ")).unwrap();
        let command = hint.split('`').rfind(|part| part.contains("mv '")).unwrap();
        System::shell(command.split(" && venvguard").next().unwrap());
        let said = system.run(&["resume"]);
        assert!(!said.stderr.contains(&told), "{}", said.stderr);
    }
}

#[test]
fn a_damaged_history_line_does_not_hide_the_others() {
    let system = registered();
    system.hook("pre-install", super::REVISION).expect(10);
    let path = "/var/lib/venvguard/history.jsonl";
    system.write(path, &format!("\0\0\0\n{}", system.read(path)));
    let said = system.run(&["history"]).expect(0);
    assert!(said.stderr.contains("line 1 of the history cannot be read"), "{}", said.stderr);
    assert!(said.stdout.contains("blocked"), "{}", said.stdout);
}

#[test]
fn a_configuration_mistake_is_reported_with_a_suggestion() {
    for (content, words) in [
        (
            "jobs = 1\nenigne = \"uv\"\n",
            ["line 2: ", "unknown field `enigne`", "did you mean `engine`?"],
        ),
        ("policy = \"blok\"\n", ["line 1: policy: ", "`auto`, `block`", "did you mean `block`?"]),
        ("\nkeep-days = \"a week\"\n", ["line 2: keep-days: ", "\"a week\"", "u32"]),
        ("jobs = \n", ["config.toml", "line 1: ", "hint: "]),
    ] {
        let system = system();
        system.write("/etc/venvguard/config.toml", content);
        let said = system.run(&["status"]).expect(1);
        for word in words {
            assert!(said.stderr.contains(word), "{word}: {}", said.stderr);
        }
    }
}
