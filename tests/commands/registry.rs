//! Venvs are registered, named, listed, shown and unregistered.

use std::os::unix::fs::MetadataExt;
use std::time::UNIX_EPOCH;

use super::system;

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
    system.write(&format!("/var/lib/venvguard/rehearsals/{id}/python3.13-minimal.json"), rehearsal);
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
