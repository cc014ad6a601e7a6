//! An example of each version of each stored format: a file in `fixtures`, which is never
//! changed again. A new version of a format gets a fixture and a test of its own, of one line:
//! `fixtures::check("NAME", include_str!("fixtures/NAME.schema-2.json"), SCHEMA, &value)`.

use std::fmt::Debug;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Store, StoreError, parse};
use crate::apt::{Build, Change, ChangeKind};
use crate::host::Root;
use crate::plan::{Decision, Effect, Phase, Policy, Reason, Remedy, Target};
use crate::python::{Minor, Version};
use crate::service::Service;
use crate::venv::Relax;

/// Asserts that a fixture is read as `value` and `value` is written as the fixture, and that the
/// file is refused with an unknown field anywhere in it and with a newer version.
pub(super) fn check<T>(name: &str, fixture: &str, version: u64, value: &T)
where
    T: DeserializeOwned + Serialize + PartialEq + Debug,
{
    let path = Path::new("/var/lib/venvguard").join(name);
    let read = |text: &str| parse::<T>(&path, text.as_bytes(), version);
    assert_eq!(&read(fixture).unwrap(), value, "{name}");
    assert_eq!(serde_json::to_string_pretty(value).unwrap() + "\n", fixture, "{name}");
    for changed in with_an_unknown_field(&serde_json::from_str(fixture).unwrap()) {
        let result = read(&changed.to_string());
        assert!(matches!(result, Err(StoreError::Damaged { .. })), "{result:?}: {changed}");
    }
    let with_version = |version: u64| {
        let mut document: Value = serde_json::from_str(fixture).unwrap();
        document["schema_version"] = version.into();
        read(&document.to_string()).unwrap_err()
    };
    assert_is_newer(&with_version(version + 1), name, version);
    let error = with_version(version - 1);
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

/// A decision for the formats that contain one.
pub(super) fn decision() -> Decision {
    let minor = |minor| Minor::new(3, minor);
    let build = |version: &str| Build {
        version: Version::of_package(version).unwrap(),
        package_version: version.into(),
    };
    let service = |name: &str| -> Service { name.parse().unwrap() };
    Decision {
        id: "0a1b2c3d".into(),
        name: "shop".into(),
        path: Path::new("/srv/shop/venv").into(),
        policy: Policy::Auto,
        effect: Effect::Orphaned,
        change: Some(Change {
            interpreter: "/usr/bin/python3".into(),
            kind: ChangeKind::Minor,
            from: Some(build("3.11.2-6")),
            to: Some(build("3.13.5-2")),
        }),
        remedy: Remedy::Rebuild {
            target: Target { minor: minor(13), follows: true, copies: false },
            relax: Some(Relax::Patch),
        },
        phase: Phase::AfterDpkg,
        follows: true,
        pin_during_dpkg: true,
        services: vec![service("systemd:web.service")],
        were_up: vec![service("systemd:web.service")],
        check_before: None,
        blocks: false,
        reasons: vec![
            Reason::DefaultMoves { to: minor(13), site: minor(11) },
            Reason::LeftAlone { service: service("user:own.service"), why: "it has ended".into() },
            Reason::OldInMemory,
        ],
    }
}

/// Asserts that an error names the file, both versions, and what to do.
pub(super) fn assert_is_newer(error: &StoreError, name: &str, known: u64) {
    let found = known + 1;
    assert_eq!(
        error.to_string(),
        format!(
            "/var/lib/venvguard/{name} was written by a newer venvguard (schema {found}; this one knows {known})"
        )
    );
    let advice = Store::new(&Root::new("/nonexistent")).advice(error).unwrap();
    assert_eq!(advice, "install the version of venvguard that wrote it, or a newer one");
}

/// Copies of the document with one more field, one copy for each object in it.
pub(super) fn with_an_unknown_field(document: &Value) -> Vec<Value> {
    let mut changed = Vec::new();
    for place in objects(document, String::new()) {
        let mut copy = document.clone();
        copy.pointer_mut(&place).unwrap()["unknown"] = json!(1);
        changed.push(copy);
    }
    changed
}

/// The places of all objects in a value, as JSON pointers.
fn objects(value: &Value, place: String) -> Vec<String> {
    let below = |(key, value): (String, &Value)| objects(value, format!("{place}/{key}"));
    match value {
        Value::Object(fields) => {
            let inner: Vec<_> =
                fields.iter().map(|(key, value)| (key.clone(), value)).flat_map(below).collect();
            std::iter::once(place).chain(inner).collect()
        }
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.map(|(index, value)| (index.to_string(), value)).flat_map(below).collect()
        }
        _ => Vec::new(),
    }
}

/// The journal's entries and states, by what they offer to `repair`.
mod journal {
    use super::*;
    use crate::host::path_text::PathText;
    use crate::store::{JournalEntry, JournalState, PreviousTree, Swap};

    fn swap() -> Swap {
        let mut previous =
            PreviousTree::new(Path::new("/srv/shop/.venv.venvguard-1"), (1, 2), true);
        previous.at = "2026-01-01T00:00:00Z".parse().unwrap();
        Swap { previous, new: (1, 3), minor: Minor::new(3, 13) }
    }

    #[test]
    fn an_entry_of_schema_version_1_is_read() {
        let state = JournalState::Swapping(swap());
        let mut entry = JournalEntry::new(&decision(), state, &["web.socket".to_string()]);
        entry.begun_at = "2026-01-01T00:00:00Z".parse().unwrap();
        let fixture = include_str!("fixtures/journal.schema-1.json");
        check("journal/0a1b2c3d.json", fixture, 1, &entry);
    }

    #[test]
    fn each_state_of_schema_version_1_is_read() {
        let aside: PathText = Path::new("/srv/shop/.venv.venvguard-1").into();
        let stored = serde_json::to_value(swap()).unwrap();
        let path = "/srv/shop/.venv.venvguard-1";
        for (state, json) in [
            (JournalState::Restarting, json!("restarting")),
            (JournalState::Refreshing, json!("refreshing")),
            (
                JournalState::Preparing { aside: aside.clone(), new: None, to_rest: false },
                json!({"preparing": {"aside": path, "new": null}}),
            ),
            (
                JournalState::Preparing { aside: aside.clone(), new: Some((1, 3)), to_rest: false },
                json!({"preparing": {"aside": path, "new": [1, 3]}}),
            ),
            (
                JournalState::Preparing { aside, new: Some((1, 3)), to_rest: true },
                json!({"preparing": {"aside": path, "new": [1, 3], "to_rest": true}}),
            ),
            (JournalState::BuildingInPlace(swap()), json!({"building-in-place": stored})),
            (JournalState::Swapping(swap()), json!({"swapping": stored})),
            (JournalState::Returning(swap()), json!({"returning": stored})),
            (JournalState::Restoring(swap()), json!({"restoring": stored})),
        ] {
            assert_eq!(serde_json::to_value(&state).unwrap(), json);
            assert_eq!(serde_json::from_value::<JournalState>(json).unwrap(), state);
        }
    }
}
