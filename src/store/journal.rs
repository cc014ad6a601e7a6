//! The journal of unfinished work: one file per venv, written before each step and removed at
//! the end.
//!
//! `repair::recover` reads it after a crash. Each [`JournalState`] says what may have happened
//! already; recovery looks at the disk to see what did.

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

/// The repair of one venv, at its current step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JournalEntry {
    schema_version: u64,
    pub(crate) begun_at: Timestamp,
    pub(crate) state: JournalState,
    /// The decision being carried out. Its services were up and must be up again.
    #[serde(deserialize_with = "decision")]
    pub(crate) decision: Decision,
    /// Other units that were stopped along with them and must be started again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) units: Vec<String>,
}

/// The step that was begun. Which tree is at the venv's path is never stored: the trees'
/// identities tell. `repair::states` says what follows each state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum JournalState {
    /// The services are being restarted; the venv is complete.
    Restarting,
    /// Interpreters in `bin` are being replaced one by one, which may safely be repeated.
    Refreshing,
    /// A new tree is being built beside the venv, which is untouched. Its identity is known once its
    /// directory exists. One that is `to_rest` is not swapped in by this repair.
    Preparing {
        aside: PathText,
        new: Option<tree::Identity>,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        to_rest: bool,
    },
    /// The new tree is being built at the venv's path, because it cannot be bind-mounted over it.
    BuildingInPlace(Swap),
    /// The new tree is being swapped in, and its services must prove that it works.
    Swapping(Swap),
    /// The new tree failed its services: the previous environment is being swapped back in.
    Returning(Swap),
    /// A previous environment is being swapped in on request.
    Restoring(Swap),
}

impl JournalState {
    /// The trees being swapped, if any.
    pub(crate) fn swap(&self) -> Option<&Swap> {
        match self {
            Self::BuildingInPlace(swap)
            | Self::Swapping(swap)
            | Self::Returning(swap)
            | Self::Restoring(swap) => Some(swap),
            Self::Restarting | Self::Refreshing | Self::Preparing { .. } => None,
        }
    }

    /// The step in words for the system's journal; `None` for a step that only prepares.
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

/// Two trees that are swapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Swap {
    /// The tree that was at the venv's path, and where it will be kept.
    pub(crate) previous: PreviousTree,
    /// The tree that will be at the venv's path.
    pub(crate) new: tree::Identity,
    /// The minor version of the new tree's packages; stored because the tree may be half built when
    /// this is needed.
    pub(crate) minor: Minor,
}

/// Reads a decision and checks that its venv could be registered.
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
    /// Records a step before it begins.
    pub(crate) fn write_journal(&self, entry: &JournalEntry) -> Result<(), StoreError> {
        self.save(&format!("journal/{}.json", entry.id()), entry)?;
        if let Some((action, detail)) = entry.state.in_words() {
            self.audit(&Event::new(entry.name(), entry.path(), action, detail));
        }
        Ok(())
    }

    /// Whether a repair of this venv has begun and not ended.
    pub(crate) fn has_journal(&self, id: &str) -> bool {
        self.dir().join(format!("journal/{id}.json")).symlink_metadata().is_ok()
    }

    /// Ends the entry of a repair, whatever its outcome.
    pub(crate) fn close_journal(&self, id: &str) -> Result<(), StoreError> {
        self.remove(&format!("journal/{id}.json"))
    }

    /// The entries that a crash left. An unreadable entry is an error of its own and does not
    /// affect the others.
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

    /// The files of the journal, without half-written ones that a crash left.
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
