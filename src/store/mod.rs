//! venvguard's state below `/var/lib/venvguard`, and its configuration in `/etc/venvguard`.
//! The state of an ordinary user is in their own `$XDG_STATE_HOME/venvguard`.
//!
//! Every file has a `schema_version`, and so does each line of the history, because lines of
//! several versions share a file. Unknown fields and newer schemas are refused with the file's
//! name, so that a downgrade cannot misread what a newer version wrote. Take the lock first, then
//! read.

mod advice;
mod archives;
mod config;
mod declared;
#[cfg(test)]
mod fixtures;
mod history;
#[cfg(test)]
mod input;
mod journal;
mod pause;
mod place;
mod prepared;
mod previous;
mod registry;
mod rehearsal;
mod summary;
mod transaction;
mod waiting;

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use crate::host::path_text::PathText;
pub(crate) use archives::{LIMIT as ARCHIVE_LIMIT, QUOTA as ARCHIVE_QUOTA};
pub(crate) use config::{Config, EngineChoice};
pub(crate) use declared::Declaration;
pub(crate) use history::{Event, History, StepTime};
pub(crate) use journal::{JournalEntry, JournalState, Swap};
pub(crate) use pause::Pause;
pub(crate) use prepared::{BuiltFor, PreparedTree};
pub(crate) use previous::{PendingRemoval, PreviousTree};
pub(crate) use registry::{CheckFailure, NameError, Pin, Registry, RegistryEntry};
pub(crate) use rehearsal::{MadeFor, Rehearsal, Stay};
pub(crate) use summary::{HeldSince, LastRun, Rehearsed, Summary, VenvSummary};
pub(crate) use transaction::{Pending, TransactionRecord};

use crate::host::file::printable;
use crate::host::lock::LockError;
use crate::host::{Root, file};
use crate::python::Interpreters;
use crate::venv::{Recipe, RecipeError};

/// The registered venvs, and the version before the last save.
const REGISTRY: &str = "registry.json";
const LAST_GOOD: &str = "registry.last-good.json";

/// Its modification time is the time of apt's last call.
const CALLED: &str = "/run/venvguard/called";

/// The registry of a hundred thousand venvs stays below this.
const LIMIT: u64 = 256 << 20;
/// The registry of one user's venvs stays below this.
const USERS_LIMIT: u64 = 8 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("{path}: {source}", path = printable(.path))]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}, line {line}: {reason}", path = printable(.path), reason = printable(.reason))]
    Damaged { path: PathBuf, line: usize, reason: String },
    #[error(
        "{path} was written by a newer venvguard (schema {found}; this one knows {known})",
        path = printable(.path)
    )]
    Newer { path: PathBuf, found: u64, known: u64 },
    #[error(transparent)]
    Read(#[from] file::ReadError),
    #[error(transparent)]
    LockFile(#[from] LockError),
}

/// The directories of the state and the configuration.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    root: Root,
    state: PathBuf,
}

impl Store {
    pub(crate) fn root(&self) -> &Root {
        &self.root
    }

    /// The directory of the state, for messages.
    pub(crate) fn dir(&self) -> &Path {
        &self.state
    }

    pub(crate) fn config(&self) -> Result<Config, StoreError> {
        Config::load(&self.root)
    }

    pub(crate) fn registry(&self) -> Result<Registry, StoreError> {
        Ok(self.load(REGISTRY, registry::SCHEMA)?.unwrap_or_default())
    }

    /// Saves the registry and keeps the one before it. That one is good, because it was read under
    /// the same lock.
    pub(crate) fn save_registry(&self, registry: &Registry) -> Result<(), StoreError> {
        // It is only needed after another failure, so failing to keep it is not an error.
        let _ = file::keep(&self.state.join(REGISTRY), &self.state.join(LAST_GOOD));
        self.save(REGISTRY, registry)
    }

    /// The interpreters for which the venvs were last repaired. A damaged file counts as missing: it
    /// is rewritten from what is installed.
    pub(crate) fn interpreters(&self) -> Result<Option<Interpreters>, StoreError> {
        match self.load::<transaction::Snapshot>("interpreters.json", transaction::SCHEMA) {
            Ok(snapshot) => Ok(snapshot.map(|snapshot| snapshot.interpreters)),
            Err(StoreError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn save_interpreters(&self, interpreters: &Interpreters) -> Result<(), StoreError> {
        let snapshot = transaction::Snapshot {
            schema_version: transaction::SCHEMA,
            interpreters: interpreters.clone(),
        };
        self.save("interpreters.json", &snapshot)
    }

    /// The findings of the gate of the current transaction.
    pub(crate) fn transaction(&self) -> Result<Option<TransactionRecord>, StoreError> {
        self.load("transaction.json", transaction::SCHEMA)
    }

    pub(crate) fn save_transaction(&self, record: &TransactionRecord) -> Result<(), StoreError> {
        self.save("transaction.json", record)
    }

    pub(crate) fn end_transaction(&self) -> Result<(), StoreError> {
        self.remove("transaction.json")
    }

    /// The recipe of a venv, for when the venv itself can no longer be read.
    pub(crate) fn recipe(&self, id: &str) -> Result<Option<Recipe>, StoreError> {
        let path = self.recipe_path(id);
        match file::read_own(&path, LIMIT) {
            Ok(bytes) => Recipe::of_pylock(&bytes).map(Some).map_err(|error| match error {
                RecipeError::Newer { found, known } => {
                    StoreError::Newer { path, found: found.into(), known: known.into() }
                }
                error => StoreError::Damaged { path, line: 1, reason: error.to_string() },
            }),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A URL may contain credentials, so only root can read the file.
    pub(crate) fn save_recipe(&self, id: &str, recipe: &Recipe) -> Result<(), StoreError> {
        self.write(&self.recipe_path(id), recipe.to_pylock().as_bytes(), 0o600)
    }

    pub(crate) fn recipe_written(&self, id: &str) -> Option<SystemTime> {
        std::fs::metadata(self.recipe_path(id)).and_then(|metadata| metadata.modified()).ok()
    }

    fn recipe_path(&self, id: &str) -> PathBuf {
        self.state.join(format!("recipes/pylock.{id}.toml"))
    }

    /// Records that apt has called. Nothing depends on it.
    pub(crate) fn note_call(&self) {
        let _ = file::touch(&self.root.at(CALLED));
    }

    /// The time of apt's last call.
    pub(crate) fn last_call(&self) -> Option<Timestamp> {
        let time = std::fs::metadata(self.root.at(CALLED)).ok()?.modified().ok()?;
        Timestamp::try_from(time).ok()
    }

    /// Whether there is work for `resume`. It takes only a few `stat` calls.
    pub(crate) fn has_work(&self) -> bool {
        ["pending", "transaction.json"].iter().any(|name| self.state.join(name).exists())
            || !self.journal_files().is_empty()
    }

    pub(crate) fn mark_pending(&self, pending: &Pending) -> Result<(), StoreError> {
        self.save("pending", pending)
    }

    pub(crate) fn clear_pending(&self) -> Result<(), StoreError> {
        self.remove("pending")
    }

    fn load<T: DeserializeOwned>(&self, name: &str, known: u64) -> Result<Option<T>, StoreError> {
        let path = self.state.join(name);
        let limit = if self.root.user().is_none() { LIMIT } else { USERS_LIMIT };
        let bytes = match file::read_own(&path, limit) {
            Err(error) if error.is_not_found() => return Ok(None),
            other => other?,
        };
        parse(&path, &bytes, known).map(Some)
    }

    fn save(&self, name: &str, value: &impl Serialize) -> Result<(), StoreError> {
        let path = self.state.join(name);
        let mut bytes = serde_json::to_vec_pretty(value)
            .map_err(|error| StoreError::Io { path: path.clone(), source: error.into() })?;
        bytes.push(b'\n');
        self.write(&path, &bytes, 0o644)
    }

    fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
        let io = |source| StoreError::Io { path: path.to_path_buf(), source };
        std::fs::create_dir_all(path.parent().unwrap_or(&self.state)).map_err(io)?;
        file::write_atomically(path, bytes, mode).map_err(io)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.state.join(name);
        file::remove_if_there(&path)
            .map_err(|source| StoreError::Io { path: path.clone(), source })?;
        match file::sync_dir(path.parent().unwrap_or(&self.state)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::Io { path, source: error })
            }
            _ => Ok(()),
        }
    }
}

/// Reads a document, its schema first, so that a newer one is reported as newer, not as damaged.
fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8], known: u64) -> Result<T, StoreError> {
    #[derive(serde::Deserialize)]
    struct Head {
        schema_version: u64,
    }
    let damaged = |error: &serde_json::Error| StoreError::Damaged {
        path: path.to_path_buf(),
        line: error.line().max(1),
        reason: damage(bytes, error),
    };
    let head: Head = serde_json::from_slice(bytes).map_err(|error| damaged(&error))?;
    if head.schema_version > known {
        return Err(StoreError::Newer {
            path: path.to_path_buf(),
            found: head.schema_version,
            known,
        });
    }
    // Formats from before the first release have no readers.
    if head.schema_version < known {
        return Err(StoreError::Damaged {
            path: path.to_path_buf(),
            line: 1,
            reason: format!("schema {} is not supported (only {known})", head.schema_version),
        });
    }
    serde_json::from_slice(bytes).map_err(|error| damaged(&error))
}

/// Describes the damage, with plain words for the usual kinds.
fn damage(bytes: &[u8], error: &serde_json::Error) -> String {
    if bytes.trim_ascii().is_empty() {
        "it is empty".to_string()
    } else if bytes.iter().all(|byte| *byte == 0) {
        "it contains nothing but zeros, as after a power loss".to_string()
    } else if error.is_eof() {
        "it is truncated".to_string()
    } else {
        let text = error.to_string();
        // The error already names the line.
        text.rsplit_once(" at line ").map_or(text.clone(), |(reason, _)| reason.to_string())
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test gives a file away")]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(&Root::new(dir.path()));
        (dir, store)
    }

    #[test]
    fn saved_data_is_read_back() {
        let (_dir, store) = store();
        assert_eq!(store.registry().unwrap(), Registry::default());
        let mut registry = Registry::default();
        registry.add(Path::new("/srv/shop/venv"), Some("shop"), crate::plan::Policy::Auto).unwrap();
        store.save_registry(&registry).unwrap();
        assert_eq!(store.registry().unwrap(), registry);
    }

    #[test]
    fn a_damaged_registry_names_file_and_line() {
        let (_dir, store) = store();
        std::fs::create_dir_all(store.dir()).unwrap();
        std::fs::write(store.dir().join("registry.json"), "{\n\"schema_version\": 1,\n oops")
            .unwrap();
        let error = store.registry().unwrap_err();
        assert!(matches!(error, StoreError::Damaged { line: 3, .. }), "{error}");
        assert!(error.to_string().contains("registry.json"), "{error}");
    }

    #[test]
    fn a_newer_schema_and_an_unknown_field_are_refused() {
        let (_dir, store) = store();
        std::fs::create_dir_all(store.dir()).unwrap();
        let path = store.dir().join("registry.json");
        std::fs::write(&path, r#"{"schema_version": 99, "venvs": [], "what": 1}"#).unwrap();
        assert!(matches!(store.registry(), Err(StoreError::Newer { found: 99, .. })));
        std::fs::write(&path, r#"{"schema_version": 1, "venvs": [], "what": 1}"#).unwrap();
        assert!(matches!(store.registry(), Err(StoreError::Damaged { .. })));
    }

    #[test]
    fn the_registry_before_the_last_one_is_kept_and_offered() {
        let (_dir, store) = store();
        let mut registry = Registry::default();
        registry.add(Path::new("/srv/a"), None, crate::plan::Policy::Auto).unwrap();
        store.save_registry(&registry).unwrap();
        let path = store.dir().join(REGISTRY);
        std::fs::write(&path, "").unwrap();
        let advice = store.advice(&store.registry().unwrap_err()).unwrap();
        assert!(advice.contains("scan --register"), "{advice}");
        store.save_registry(&registry).unwrap();
        store.save_registry(&Registry::default()).unwrap();
        std::fs::write(&path, [0; 100]).unwrap();
        let error = store.registry().unwrap_err();
        assert!(error.to_string().contains("nothing but zeros"), "{error}");
        let advice = store.advice(&error).unwrap();
        assert!(advice.contains("with 1 venv") && advice.contains(LAST_GOOD), "{advice}");
        std::fs::copy(store.dir().join(LAST_GOOD), &path).unwrap();
        assert_eq!(store.registry().unwrap(), registry);
    }

    #[test]
    fn files_that_others_can_write_are_not_trusted() {
        use std::os::unix::fs::PermissionsExt;
        let (_dir, store) = store();
        store.save_registry(&Registry::default()).unwrap();
        let path = store.dir().join(REGISTRY);
        for (path, mode) in
            [(path.as_path(), 0o664), (path.as_path(), 0o646), (store.dir(), 0o1777)]
        {
            let good = std::fs::metadata(path).unwrap().permissions();
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
            let error = store.registry().unwrap_err();
            assert!(matches!(error, StoreError::Read(file::ReadError::NotOurs { .. })), "{error}");
            assert!(store.advice(&error).unwrap().contains("chmod"), "{error}");
            std::fs::set_permissions(path, good).unwrap();
            assert!(store.registry().is_ok());
        }
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
            let error = store.registry().unwrap_err().to_string();
            assert!(error.contains("belongs to user 65534"), "{error}");
        }
    }

    #[test]
    fn pending_work_is_seen_until_it_is_done() {
        let (_dir, store) = store();
        assert!(!store.has_work());
        store.mark_pending(&Pending::new("a trigger")).unwrap();
        assert!(store.has_work());
        store.clear_pending().unwrap();
        assert!(!store.has_work());
    }

    #[test]
    fn the_output_of_two_builds_leaves_the_registry_readable() {
        let (_dir, store) = store();
        let flood = "head -c 33554432 /dev/zero | tr '\\0' '\\033' >&2; exit 1";
        let run = crate::host::Program::new("/bin/sh").args(["-c", flood]).run();
        let because = run.unwrap_err().to_string();
        let mut registry = Registry::default();
        for path in ["/home/eve/a", "/home/eve/b", "/srv/shop/venv"] {
            registry.add(Path::new(path), None, crate::plan::Policy::Auto).unwrap();
        }
        for entry in registry.venvs.iter_mut().take(2) {
            entry.pin = Some(Pin::new(
                crate::python::Minor::new(3, 11),
                crate::plan::Until::Rebuilt,
                Some(&because),
            ));
        }
        store.save_registry(&registry).unwrap();
        let size = std::fs::metadata(store.dir().join(REGISTRY)).unwrap().len();
        assert!(size < 64 << 10, "{} KiB", size >> 10);
        assert_eq!(store.registry().unwrap(), registry);
    }
}
