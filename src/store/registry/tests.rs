use std::ffi::OsStr;

use super::super::PreviousTree;
use super::*;

fn with(paths: &[&str]) -> Registry {
    let mut registry = Registry::default();
    for path in paths {
        registry.add(Path::new(path), None, Policy::Auto).unwrap();
    }
    registry
}

#[test]
fn a_registry_of_schema_version_1_is_read() {
    let link = |name: &str, from: &str, to: &str| RelinkedName {
        name: Path::new(name).into(),
        from: Path::new(from).into(),
        to: Path::new(to).into(),
    };
    let at: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let previous = |name: &str, identity, holds_files, links| {
        let mut tree = PreviousTree::new(&Path::new("/srv/shop").join(name), identity, true)
            .that_holds_files(holds_files)
            .with_links(links);
        tree.at = at;
        tree
    };
    let mut previous_trees = PreviousTrees::default();
    previous_trees.put_aside(previous(".venv.venvguard-1", (1, 2), false, Vec::new()));
    let links = vec![link("python3", "/usr/bin/python3", "/usr/bin/python3.11")];
    previous_trees.put_aside(previous(".venv.venvguard-2", (u64::MAX, 3), true, links));
    let full = RegistryEntry {
        id: "0a1b2c3d".into(),
        name: "shop".into(),
        path: Path::new("/srv/shop/venv").into(),
        policy: Policy::Block,
        services: vec!["systemd:web.service".parse().unwrap()],
        check: vec!["/bin/sh".into(), "-c".into(), "exit 0".into()],
        requirements: Some(Path::new("/srv/shop/requirements.txt").into()),
        lock: Some(Path::new("/srv/shop/uv.lock").into()),
        build_command: Vec::new(),
        relax: Some(Relax::Minor),
        check_failure: None,
        restart: None,
        window: None,
        rolling: None,
        probe: None,
        declared: Some(Path::new("/etc/venvguard/venvs.d/shop.toml").into()),
        registered_at: at,
        pin: Some(Pin {
            at,
            to: Minor::new(3, 11),
            until: Until::Rebuilt,
            because: Some("pip exited 1".into()),
            links: vec![link("python", "python3", "/usr/bin/python3.11")],
        }),
        previous_trees,
    };
    let bare = RegistryEntry {
        id: "1".into(),
        name: "blog".into(),
        path: Path::new(OsStr::from_bytes(b"/srv/\xff")).into(),
        policy: Policy::Auto,
        services: Vec::new(),
        check: Vec::new(),
        requirements: None,
        lock: None,
        build_command: Vec::new(),
        relax: None,
        check_failure: None,
        restart: None,
        window: None,
        rolling: None,
        probe: None,
        declared: None,
        registered_at: at,
        pin: None,
        previous_trees: PreviousTrees::default(),
    };
    let removal = PendingRemoval::new(Path::new("/srv/.venv.venvguard-3"), (3, 4));
    let registry =
        Registry { schema_version: 1, venvs: vec![full, bare], pending_removals: vec![removal] };
    let fixture = include_str!("../fixtures/registry.schema-1.json");
    super::super::fixtures::check("registry.json", fixture, SCHEMA, &registry);
}

#[test]
fn one_setting_says_what_to_install() {
    let mut registry = with(&["/srv/shop/venv"]);
    let entry = &mut registry.venvs[0];
    let set = |entry: &RegistryEntry| {
        (entry.requirements().is_some(), entry.lock().is_some(), !entry.build_command().is_empty())
    };
    entry.set_requirements(Path::new("/srv/shop/requirements.txt"));
    assert_eq!(set(entry), (true, false, false));
    entry.set_build_command(&["/srv/shop/build".to_string()]);
    assert_eq!(set(entry), (false, false, true));
    entry.set_lock(Path::new("/srv/shop/uv.lock"));
    assert_eq!(set(entry), (false, true, false));
}

#[test]
fn an_endless_reason_is_cut_short() {
    let flood = "\u{1b}é".repeat(1 << 20);
    let pin = Pin::new(Minor::new(3, 11), Until::Rebuilt, Some(&flood));
    let because = pin.because.unwrap();
    assert!(because.len() <= REASON && because.ends_with('…'));
}

/// Another id would orphan the recipe of a declared venv, whose id is not stored until
/// something else is.
#[test]
fn an_id_is_the_same_in_every_build() {
    let mut registry = with(&["/srv/shop/venv"]);
    assert_eq!(registry.venvs[0].id, EXPECTED);
    registry.venvs[0].path = Path::new("/srv/other").into();
    registry.add(Path::new("/srv/shop/venv"), None, Policy::Auto).unwrap();
    assert_ne!(registry.venvs[1].id, EXPECTED, "that id is taken");
    assert_eq!(registry.venvs[1].id.len(), 8);
}

/// `printf /srv/shop/venv | sha256sum | head -c 8`
const EXPECTED: &str = "0f8615da";

#[test]
fn registering_twice_is_harmless() {
    let mut registry = with(&["/srv/shop/venv"]);
    let once = registry.clone();
    registry.add(Path::new("/srv/shop/venv"), None, Policy::Auto).unwrap();
    assert_eq!(registry, once);
}

#[test]
fn names_come_from_the_path_and_are_unique() {
    let registry = with(&[
        "/srv/shop/venv",
        "/opt/shop",
        "/srv/a b/.venv",
        "/venv",
        "/srv/cap/releases/1/venv",
        "/srv/app/v1.20.3/env",
        "/srv/git/9fceb02d0ae598e95dc970b74767f19372d61af8/.venv",
        "/srv/deadbeef/venv",
        "/1/venv",
    ]);
    let names: Vec<_> = registry.venvs.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["shop", "shop-2", "a-b", "venv", "cap", "app", "git", "deadbeef", "venv-2"]);
}

#[test]
fn a_name_that_is_taken_or_malformed_is_refused() {
    let mut registry = with(&["/srv/shop/venv"]);
    let taken = registry.add(Path::new("/srv/other"), Some("shop"), Policy::Auto);
    assert!(matches!(taken, Err(NameError::Taken { .. })));
    for name in ["", "-x", "a b", "a/b", "a\n"] {
        let refused = registry.add(Path::new("/srv/other"), Some(name), Policy::Auto);
        assert!(matches!(refused, Err(NameError::Malformed { .. })), "{name:?}");
    }
    assert_eq!(registry.venvs.len(), 1, "a refused name registers nothing");
}

#[test]
fn a_venv_below_or_around_a_registered_one_is_refused() {
    let mut registry = with(&["/srv/shop/venv"]);
    let below = registry.add(Path::new("/srv/shop/venv/lib/x"), None, Policy::Auto);
    assert_eq!(below.unwrap_err(), NameError::Below { outer: "/srv/shop/venv".into() });
    assert!(registry.add(Path::new("/srv/shop/venv2"), None, Policy::Auto).is_ok());
    let around = registry.add(Path::new("/srv/shop"), None, Policy::Auto);
    assert_eq!(around.unwrap_err(), NameError::Around { inner: "/srv/shop/venv".into() });
}
