//! What was begun: one file a venv, on disk before each step, gone when all is done.
//!
//! `repair::recover` reads it after a crash. Each [`JournalState`] says what may have happened
//! already; it looks at the disk to see what did.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Event, PathText, PreviousTree, Store, StoreError, parse, registry};
use crate::host::file::printable;
use crate::host::path_text;
use crate::host::{clock, file, tree};
use crate::python::Minor;
use crate::service::Service;

const SCHEMA: u64 = 1;
const LIMIT: u64 = 4 << 20;

/// The repair of one venv, as far as it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JournalEntry {
    schema_version: u64,
    #[serde(deserialize_with = "registry::id")]
    pub(crate) id: String,
    #[serde(deserialize_with = "registry::name")]
    pub(crate) name: String,
    #[serde(deserialize_with = "path_text::absolute")]
    path: PathText,
    pub(crate) begun_at: Timestamp,
    pub(crate) progress: JournalState,
    /// The services that were up and have to be up again.
    pub(crate) services: Vec<Service>,
    /// Other units that were stopped with them, and have to be started again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) units: Vec<String>,
}

/// The step that is begun. Which tree stands at the venv's path is never written down: it
/// is asked by the trees' identities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum JournalState {
    /// The services are restarted; the venv is whole.
    Restarting,
    /// Interpreters in `bin` are being replaced one by one: doing it again is right.
    Refreshing,
    /// A successor is built aside; the venv itself is untouched. Its identity is known once
    /// its directory is made.
    Staging { aside: PathText, new: Option<tree::Identity> },
    /// The successor is built in the venv's place, because it cannot be laid over it.
    InPlace(Swap),
    /// The successor takes the venv's place, and its services have to prove it.
    Swapping(Swap),
    /// The previous environment takes the venv's place again because somebody wants it;
    /// `follows`, where it belongs on the default interpreter.
    RollingBack { swap: Swap, follows: bool },
}

impl JournalState {
    /// What is begun, by a word and a few more; nothing for what only gets ready.
    fn in_words(&self) -> Option<(&'static str, String)> {
        let trees = |swap: &Swap| {
            format!("the previous environment goes to {}", printable(swap.previous.path()))
        };
        Some(match self {
            Self::Staging { new: None, .. } => return None,
            Self::Staging { aside, .. } => {
                ("building", format!("its successor, at {}", printable(&aside.0)))
            }
            Self::InPlace(swap) => {
                ("building", format!("its successor in its place; {}", trees(swap)))
            }
            Self::Restarting => ("restarting", "its services".to_string()),
            Self::Refreshing => ("refreshing", "the interpreters that it holds".to_string()),
            Self::Swapping(swap) => ("exchanging", trees(swap)),
            Self::RollingBack { swap, .. } => ("rolling-back", trees(swap)),
        })
    }

    /// Whether the tree that stood at the venv's path is beside it.
    pub(crate) fn has_taken_the_venv_away(&self) -> bool {
        match self {
            Self::InPlace(swap) | Self::Swapping(swap) | Self::RollingBack { swap, .. } => {
                tree::identity(swap.previous.path()) == Some(swap.previous.identity)
            }
            Self::Restarting | Self::Refreshing | Self::Staging { .. } => false,
        }
    }
}

/// Two trees that change places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Swap {
    /// The one that stood at the venv's path, and where it will be kept.
    pub(crate) previous: PreviousTree,
    /// The one that stands there in the end.
    pub(crate) new: tree::Identity,
    /// The minor version that its packages are for. It may be half built when this is asked.
    pub(crate) minor: Minor,
}

impl JournalEntry {
    pub(crate) fn new(
        id: &str,
        name: &str,
        path: &Path,
        progress: JournalState,
        services: Vec<Service>,
    ) -> Self {
        Self {
            schema_version: SCHEMA,
            id: id.to_string(),
            name: name.to_string(),
            path: path.into(),
            begun_at: clock::now(),
            progress,
            services,
            units: Vec::new(),
        }
    }

    /// The same, with other units to be started.
    pub(crate) fn with_units(self, units: &[String]) -> Self {
        Self { units: units.to_vec(), ..self }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path.0
    }
}

impl Store {
    /// Records a step before it is begun.
    pub(crate) fn write_journal(&self, entry: &JournalEntry) -> Result<(), StoreError> {
        self.save(&format!("journal/{}.json", entry.id), entry)?;
        if let Some((action, detail)) = entry.progress.in_words() {
            self.audit(&Event::new(&entry.name, entry.path(), action, detail));
        }
        Ok(())
    }

    /// Whether a repair of this venv was begun and not ended.
    pub(crate) fn has_journal(&self, id: &str) -> bool {
        self.dir().join(format!("journal/{id}.json")).symlink_metadata().is_ok()
    }

    /// The repair is over, one way or the other.
    pub(crate) fn close_journal(&self, id: &str) -> Result<(), StoreError> {
        self.remove(&format!("journal/{id}.json"))?;
        let dir = self.dir().join("journal");
        match file::sync_dir(&dir) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::Io { path: dir, source })
            }
            _ => Ok(()),
        }
    }

    /// What a crash left. An entry that cannot be read is an error of its own and stands in
    /// no other's way.
    pub(crate) fn open_journal(&self) -> Vec<Result<JournalEntry, StoreError>> {
        let read = |path: &PathBuf| {
            let entry: JournalEntry = parse(path, &file::read_own(path, LIMIT)?, SCHEMA)?;
            if path.file_stem().is_some_and(|stem| stem == entry.id.as_str()) {
                return Ok(entry);
            }
            let reason =
                format!("it is about the venv {:?}, whose journal has another name", entry.id);
            Err(StoreError::Damaged { path: path.clone(), line: 1, reason })
        };
        self.journal_files().iter().map(read).collect()
    }

    /// The files of the journal, without what a crash left of one that was being written.
    pub(super) fn journal_files(&self) -> Vec<PathBuf> {
        let Ok(entries) = self.dir().join("journal").read_dir() else { return Vec::new() };
        let mut paths: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .collect();
        paths.sort();
        paths
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Root;

    #[test]
    fn an_open_entry_is_found_until_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(&Root::new(dir.path()));
        let path = Path::new("/srv/shop/venv");
        let aside = PathText("/srv/shop/.venv.aside".into());
        let mut entry = JournalEntry::new(
            "1",
            "shop",
            path,
            JournalState::Staging { aside, new: None },
            Vec::new(),
        );
        store.write_journal(&entry).unwrap();
        entry.progress = JournalState::Restarting;
        store.write_journal(&entry).unwrap();
        let open: Vec<_> = store.open_journal().into_iter().map(Result::unwrap).collect();
        assert_eq!(open, [entry]);
        assert!(store.has_work() && store.has_journal("1"));
        store.close_journal("1").unwrap();
        assert!(store.open_journal().is_empty() && !store.has_work());
    }
}
