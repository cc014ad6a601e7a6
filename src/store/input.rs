//! Properties of venvguard's own files. Root wrote them, but a disk may have damaged them since.
//! See `crate::input`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::input::{bulky, few, is_harmless, near};
use crate::plan::Policy;

const REGISTRY: &[&str] = &[r#"{"schema_version": 1, "venvs": [
    {"id": "0a1b2c3d", "name": "shop", "path": "/srv/shop/venv", "policy": "auto",
     "services": [{"manager": "systemd", "name": "web.service"}], "check": ["/bin/true"],
     "registered_at": "2026-01-01T00:00:00Z", "pin": {"at": "2026-01-01T00:00:00Z", "to": "3.11", "until": "rebuilt", "because": "x"}},
    {"id": "1", "name": "blog", "path": {"bytes": "2f737276ff"}, "registered_at": "2026-01-01T00:00:00Z",
     "previous_trees": [{"at": "2026-01-01T00:00:00Z", "path": "/srv/.venv.venvguard-x", "identity": [1, 2], "followed": true}]}],
    "pending_removals": [{"path": "/srv/.venv.venvguard-y", "identity": [3, 4]}]}"#];

const JOURNAL: &[&str] = &[
    r#"{"schema_version":1,"id":"1","name":"shop","path":"/srv/shop/venv","begun_at":"2026-01-01T00:00:00Z",
    "progress":{"staging":{"aside":"/srv/shop/.venv.aside","new":null}},"services":[]}"#,
    r#"{"schema_version":1,"id":"1","name":"shop","path":"/srv/shop/venv","begun_at":"2026-01-01T00:00:00Z","progress":{"swapping":
    {"previous":{"at":"2026-01-01T00:00:00Z","path":"/srv/x","identity":[1,2],"followed":true},"new":[1,3]}},"services":[]}"#,
];

const TRANSACTION: &[&str] = &[
    r#"{"schema_version":1,"begun_at":"2026-01-01T00:00:00Z","services":{"1":[{"manager":"supervisord","name":"a:b"}]}}"#,
    r#"{"schema_version":1,"since":"2026-01-01T00:00:00Z","reason":"a trigger"}"#,
    r#"{"schema_version":1,"interpreters":{"default":"3.11","installed":{}}}"#,
];

const EVENTS: &[&str] = &[
    "{\"schema_version\":1,\"at\":\"2026-01-01T00:00:00Z\",\"venv\":\"shop\",\"path\":\"/srv/shop\",\"what\":\"rebuilt\",\"detail\":\"x\"}\n{\"at\":",
];

const JSON_WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "null",
    "1",
    "99",
    "-1",
    "\"schema_version\":1",
    "\"venvs\":",
    "\"id\":",
    "\"name\":\"-x\"",
    "\"path\":\"/a/../b\"",
    "\"path\":\"a\"",
    "\"../x\"",
    "\\u0000",
    "\"bytes\":",
    "\"zz\"",
    "\n",
];

const CONFIG: &[&str] = &[
    "policy = \"auto\"\nengine = \"uv\"\njobs = 3\nrebuild-timeout = 1800\nrun-timeout = 7200\nowner-timeout = 3600\nservice-timeout = 60\nkeep-days = 14\n",
];

const CONFIG_WORDS: &[&str] = &[
    "policy",
    "engine",
    "jobs",
    "keep-days",
    "stable-for",
    " = ",
    "\"auto\"",
    "\"blok\"",
    "0",
    "-1",
    "\n",
    "[a]\n",
    "'''",
    "18446744073709551615",
    "4294967296",
    "1e9",
    "true",
    "#",
];

/// A damaged file is reported as one, at an existing line, in printable words.
fn assert_told(error: &StoreError, bytes: &[u8]) {
    assert!(is_harmless(&error.to_string()), "{error:?}");
    if let StoreError::Damaged { line, .. } = error {
        assert!((1..=bytes.split(|byte| *byte == b'\n').count()).contains(line), "{error}");
    }
}

fn path() -> impl Strategy<Value = PathBuf> {
    vec(
        vec(prop_oneof![Just(b'a'), 1..=255_u8].prop_filter("a name", |byte| *byte != b'/'), 1..6),
        1..4,
    )
    .prop_map(|names| {
        let names: Vec<_> = names.into_iter().map(OsString::from_vec).collect();
        crate::host::root::normal(&Path::new("/srv").join(names.iter().collect::<PathBuf>()))
    })
}

proptest! {
    #[test]
    fn registries(bytes in near(REGISTRY, JSON_WORDS)) {
        match parse::<Registry>(Path::new("registry.json"), &bytes, 1) {
            Ok(registry) => {
                for entry in &registry.venvs {
                    prop_assert!(entry.path().is_absolute() && !entry.path().components().any(|c| c.as_os_str() == ".."));
                    prop_assert!(is_harmless(&entry.name) && !entry.name.is_empty() && !entry.name.starts_with('-'));
                    prop_assert!(!entry.id.is_empty() && entry.id.bytes().all(|byte| byte.is_ascii_alphanumeric()));
                }
                let json = serde_json::to_vec(&registry).unwrap();
                prop_assert_eq!(parse::<Registry>(Path::new("registry.json"), &json, 1).unwrap(), registry);
            }
            Err(error) => assert_told(&error, &bytes),
        }
    }

    #[test]
    fn registered_venvs_are_read_back(paths in vec(path(), 0..6)) {
        let mut registry = Registry::default();
        for path in &paths {
            let _ = registry.add(path, None, Policy::Auto);
        }
        let json = serde_json::to_vec(&registry).unwrap();
        prop_assert_eq!(parse::<Registry>(Path::new("registry.json"), &json, 1).unwrap(), registry);
    }

    #[test]
    fn journals(bytes in near(JOURNAL, JSON_WORDS)) {
        match parse::<JournalEntry>(Path::new("journal/1.json"), &bytes, 1) {
            Ok(entry) => {
                let json = serde_json::to_vec(&entry).unwrap();
                prop_assert_eq!(parse::<JournalEntry>(Path::new("1.json"), &json, 1).unwrap(), entry);
            }
            Err(error) => assert_told(&error, &bytes),
        }
    }

    #[test]
    fn records_of_a_transaction(bytes in near(TRANSACTION, JSON_WORDS)) {
        let path = Path::new("transaction.json");
        let told = [
            parse::<TransactionRecord>(path, &bytes, 1).err(),
            parse::<Pending>(path, &bytes, 1).err(),
            parse::<transaction::Snapshot>(path, &bytes, 1).err(),
        ];
        for error in told.iter().flatten() {
            assert_told(error, &bytes);
        }
    }

    #[test]
    fn histories(bytes in near(EVENTS, JSON_WORDS)) {
        match History::read(Path::new("history.jsonl"), &bytes) {
            Ok(History { events, damaged }) => {
                let lines = bytes.split(|byte| *byte == b'\n').count();
                prop_assert!(events.len() + damaged.len() <= lines);
            }
            Err(error) => assert_told(&error, &bytes),
        }
    }

    #[test]
    fn declarations(bytes in near(DECLARATION, DECLARATION_WORDS)) {
        match config::parse::<Declaration>(Path::new("shop.toml"), &bytes) {
            Ok(declaration) => prop_assert!(declaration.venvs(&Root::new("/nonexistent")).is_empty()),
            Err(error) => assert_told(&error, &bytes),
        }
    }

    #[test]
    fn configurations(bytes in near(CONFIG, CONFIG_WORDS)) {
        match config::parse::<Config>(Path::new("config.toml"), &bytes) {
            Ok(config) => {
                for seconds in [config.service_timeout, config.stable_for, config.rebuild_timeout] {
                    let _ = crate::host::clock::Deadline::after(Duration::from_secs(seconds));
                }
            }
            Err(error) => assert_told(&error, &bytes),
        }
    }
}

const DECLARATION: &[&str] = &[
    "path = \"/srv/*/venv\"\npolicy = \"auto\"\nservices = [\"systemd:web\"]\ncheck = [\"/bin/true\"]\n",
];

const DECLARATION_WORDS: &[&str] = &[
    "path", "=", "\"", "/", "*", "**", "[", "]", "..", "\n", "services", "check", "name", "\\u0000",
];

proptest! {
    #![proptest_config(few())]

    #[test]
    fn long_files(json in bulky(JSON_WORDS), toml in bulky(CONFIG_WORDS)) {
        let _ = parse::<Registry>(Path::new("registry.json"), &json, 1);
        let _ = History::read(Path::new("history.jsonl"), &json);
        let _ = config::parse::<Config>(Path::new("config.toml"), &toml);
    }
}
