//! What was begun: one file a venv, on disk before each step, gone when all is done.
//!
//! `repair::recover` reads it after a crash. Each [`Progress`] says what may have happened
//! already; it looks at the disk to see what did.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{PathText, Store, StoreError, parse};
use crate::host::{clock, file, tree};
use crate::service::Service;

const SCHEMA: u64 = 1;
const LIMIT: u64 = 4 << 20;

/// The repair of one venv, as far as it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    schema_version: u64,
    pub(crate) id: String,
    pub(crate) name: String,
    path: PathText,
    pub(crate) begun_at: Timestamp,
    pub(crate) operation: Operation,
    pub(crate) progress: Progress,
    /// The services that were up and have to be up again.
    pub(crate) services: Vec<Service>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Operation {
    Restart,
    Refresh,
    Rebuild,
    Rollback,
}

/// The step that is begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Progress {
    /// Interpreters in `bin` are being replaced one by one: doing it again is right.
    Refreshing,
    /// A new tree is built beside the venv; the venv itself is untouched.
    Staging { stage: PathText },
    /// The stage takes the venv's place. Whose place it has is told by the folders' identities.
    Exchanging { stage: PathText, old: tree::Identity, new: tree::Identity },
    /// The venv is built in place, because the stage cannot be laid over it; the old tree is aside.
    InPlace { aside: PathText, old: tree::Identity },
    /// The venv is the new one; the services are restarted and checked. `kept` is the old tree.
    Restarting { kept: Option<PathText> },
    /// The old tree, which lies at `aside` unless it is back already, takes its place again.
    PuttingBack { aside: PathText, old: tree::Identity },
}

impl Entry {
    pub(crate) fn new(
        id: &str,
        name: &str,
        path: &Path,
        operation: Operation,
        progress: Progress,
        services: Vec<Service>,
    ) -> Self {
        Self {
            schema_version: SCHEMA,
            id: id.to_string(),
            name: name.to_string(),
            path: path.into(),
            begun_at: clock::now(),
            operation,
            progress,
            services,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path.0
    }
}

impl Store {
    /// Records a step before it is begun.
    pub(crate) fn write_journal(&self, entry: &Entry) -> Result<(), StoreError> {
        self.save(&format!("journal/{}.json", entry.id), entry)
    }

    /// The repair is over, one way or the other.
    pub(crate) fn close_journal(&self, id: &str) -> Result<(), StoreError> {
        self.remove(&format!("journal/{id}.json"))?;
        let folder = self.folder().join("journal");
        match file::sync_folder(&folder) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::Io { path: folder, source })
            }
            _ => Ok(()),
        }
    }

    /// What a crash left. An entry that cannot be read is an error of its own and stands in
    /// no other's way.
    pub(crate) fn open_journal(&self) -> Vec<Result<Entry, StoreError>> {
        let Ok(entries) = self.folder().join("journal").read_dir() else { return Vec::new() };
        let mut paths: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .collect();
        paths.sort();
        paths.iter().map(|path| parse(path, &file::read_untrusted(path, LIMIT)?, SCHEMA)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Root;

    #[test]
    fn an_open_entry_is_found_until_it_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(&Root::new(folder.path()));
        let path = Path::new("/srv/shop/venv");
        let stage = PathText("/srv/shop/.venv.stage".into());
        let mut entry = Entry::new(
            "1",
            "shop",
            path,
            Operation::Rebuild,
            Progress::Staging { stage },
            Vec::new(),
        );
        store.write_journal(&entry).unwrap();
        entry.progress = Progress::Restarting { kept: None };
        store.write_journal(&entry).unwrap();
        let open: Vec<_> = store.open_journal().into_iter().map(Result::unwrap).collect();
        assert_eq!(open, [entry]);
        assert!(store.has_work());
        store.close_journal("1").unwrap();
        assert!(store.open_journal().is_empty() && !store.has_work());
    }
}
