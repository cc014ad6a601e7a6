//! What was begun: one file a venv, on disk before each step, gone when all is done.
//!
//! `repair::recover` reads it after a crash. Each [`JournalState`] says what may have happened
//! already; it looks at the disk to see what did.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Event, PathText, PreviousTree, Store, StoreError, parse, registry};
use crate::host::file::printable;
use crate::host::{clock, file, tree};
use crate::plan::Decision;
use crate::python::Minor;

const SCHEMA: u64 = 1;
const LIMIT: u64 = 4 << 20;

/// The repair of one venv, as far as it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JournalEntry {
    schema_version: u64,
    pub(crate) begun_at: Timestamp,
    pub(crate) state: JournalState,
    /// What is carried out. Its services were up and have to be up again.
    #[serde(deserialize_with = "decision")]
    pub(crate) decision: Decision,
    /// Other units that were stopped with them, and have to be started again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) units: Vec<String>,
}

/// What was begun. Which tree is at the venv's path is never written down: the trees' identities
/// tell. `repair::states` says what is done next in each state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum JournalState {
    /// The services are restarted; the venv is whole.
    Restarting,
    /// Interpreters in `bin` are being replaced one by one: doing it again is right.
    Refreshing,
    /// A new tree is built beside the venv, which is untouched. Its identity is known once its
    /// directory exists. One that is `to_rest` is not swapped in by this repair.
    Preparing {
        aside: PathText,
        new: Option<tree::Identity>,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        to_rest: bool,
    },
    /// The new tree is built at the venv's path, because it cannot be bound over it.
    BuildingInPlace(Swap),
    /// The new tree is swapped in, and its services have to prove it.
    Swapping(Swap),
    /// The new tree did not prove itself: the previous environment is swapped back in.
    Returning(Swap),
    /// A previous environment is swapped in because somebody asks for it.
    Restoring(Swap),
}

impl JournalState {
    /// The trees that change places.
    pub(crate) fn swap(&self) -> Option<&Swap> {
        match self {
            Self::BuildingInPlace(swap)
            | Self::Swapping(swap)
            | Self::Returning(swap)
            | Self::Restoring(swap) => Some(swap),
            Self::Restarting | Self::Refreshing | Self::Preparing { .. } => None,
        }
    }

    /// What is begun, for the system's journal; nothing for what only gets ready.
    fn in_words(&self) -> Option<(&'static str, String)> {
        let trees = |swap: &Swap| {
            format!("the current environment moves to {}", printable(swap.previous.path()))
        };
        Some(match self {
            Self::Preparing { new: None, .. } => return None,
            Self::Preparing { aside, .. } => {
                ("building", format!("a new environment at {}", printable(&aside.0)))
            }
            Self::BuildingInPlace(swap) => {
                ("building", format!("a new environment in place; {}", trees(swap)))
            }
            Self::Restarting => ("restarting", "its services".to_string()),
            Self::Refreshing => ("refreshing", "its copied interpreters".to_string()),
            Self::Swapping(swap) => ("swapping", trees(swap)),
            Self::Returning(swap) => ("swapping-back", trees(swap)),
            Self::Restoring(swap) => ("rolling-back", trees(swap)),
        })
    }

    /// Whether the previous environment is beside the venv's path.
    pub(crate) fn has_taken_the_venv_away(&self) -> bool {
        self.swap().is_some_and(|swap| {
            tree::identity(swap.previous.path()) == Some(swap.previous.identity)
        })
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

/// A decision about a venv that can be registered.
fn decision<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decision, D::Error> {
    let decision = Decision::deserialize(deserializer)?;
    registry::check(&decision.id, &decision.name).map_err(serde::de::Error::custom)?;
    Ok(decision)
}

impl JournalEntry {
    pub(crate) fn new(decision: &Decision, state: JournalState, units: &[String]) -> Self {
        Self {
            schema_version: SCHEMA,
            begun_at: clock::now(),
            state,
            decision: decision.clone(),
            units: units.to_vec(),
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.decision.id
    }

    pub(crate) fn name(&self) -> &str {
        &self.decision.name
    }

    pub(crate) fn path(&self) -> &Path {
        &self.decision.path.0
    }
}

impl Store {
    /// Records a step before it is begun.
    pub(crate) fn write_journal(&self, entry: &JournalEntry) -> Result<(), StoreError> {
        self.save(&format!("journal/{}.json", entry.id()), entry)?;
        if let Some((action, detail)) = entry.state.in_words() {
            self.audit(&Event::new(entry.name(), entry.path(), action, detail));
        }
        Ok(())
    }

    /// Whether a repair of this venv was begun and not ended.
    pub(crate) fn has_journal(&self, id: &str) -> bool {
        self.dir().join(format!("journal/{id}.json")).symlink_metadata().is_ok()
    }

    /// The repair is over, one way or the other.
    pub(crate) fn close_journal(&self, id: &str) -> Result<(), StoreError> {
        self.remove(&format!("journal/{id}.json"))
    }

    /// What a crash left. An entry that cannot be read is an error of its own and stands in
    /// no other's way.
    pub(crate) fn open_journal(&self) -> Vec<Result<JournalEntry, StoreError>> {
        let read = |path: &PathBuf| {
            let entry: JournalEntry = parse(path, &file::read_own(path, LIMIT)?, SCHEMA)?;
            if path.file_stem().is_some_and(|stem| stem == entry.id()) {
                return Ok(entry);
            }
            let reason =
                format!("it describes the venv {:?}, whose journal has another name", entry.id());
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
        let aside = PathText("/srv/shop/.venv.aside".into());
        let state = JournalState::Preparing { aside, new: None, to_rest: false };
        let mut entry = JournalEntry::new(&crate::plan::samples::decision(), state, &[]);
        store.write_journal(&entry).unwrap();
        entry.state = JournalState::Restarting;
        store.write_journal(&entry).unwrap();
        let open: Vec<_> = store.open_journal().into_iter().map(Result::unwrap).collect();
        assert_eq!(open, [entry]);
        assert!(store.has_work() && store.has_journal("1"));
        store.close_journal("1").unwrap();
        assert!(store.open_journal().is_empty() && !store.has_work());
    }
}
