//! Collects everything that is known about a venv.

use std::io;

use super::status::Looked;
use super::{AskError, Guard};
use crate::host::tree;
use crate::repair;
use crate::store::{PreviousTree, RegistryEntry, Rehearsal, StoreError};
use crate::venv::{self, Additions, NotAVenv, Venv};

/// A registered venv, and everything that is known about it.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) looked: Looked,
    /// What is in it, if it is a venv.
    pub(crate) contents: Option<Contents>,
    /// The latest first.
    pub(crate) previous: Vec<(PreviousTree, PreviousState)>,
    /// What the last rehearsals found, the latest first.
    pub(crate) rehearsals: Result<Vec<Rehearsal>, StoreError>,
}

/// What is in a venv.
#[derive(Debug)]
pub(crate) struct Contents {
    /// How many distributions are installed, if they can be read.
    pub(crate) distributions: Option<usize>,
    /// Why a rebuild may not install some of them exactly as they are.
    pub(crate) not_exact: Vec<String>,
    pub(crate) additions: io::Result<Additions>,
}

/// What is at the path of a previous environment.
#[derive(Debug)]
pub(crate) enum PreviousState {
    Kept(Result<Venv, NotAVenv>),
    /// It was removed or replaced.
    Gone,
}

impl Guard {
    /// Everything that is known about some venvs.
    pub(crate) fn show(&self, wanted: &[String]) -> Result<Vec<Shown>, AskError> {
        let looked = self.looked(self.inventory()?, Some(wanted))?;
        let shown = |one: Looked| {
            let entry = &one.entry;
            Shown {
                contents: one.venv.as_ref().ok().map(|venv| self.contents(entry, venv)),
                previous: entry
                    .previous_trees
                    .latest_first()
                    .map(|kept| (kept.clone(), self.state_of(kept)))
                    .collect(),
                rehearsals: self.store.rehearsals(&entry.id),
                looked: one,
            }
        };
        Ok(looked.into_iter().map(shown).collect())
    }

    fn contents(&self, entry: &RegistryEntry, venv: &Venv) -> Contents {
        let distributions = venv::distributions(&self.root.at(venv.site_packages()));
        Contents {
            distributions: distributions.ok().map(|found| found.len()),
            not_exact: repair::not_exact(&self.context(), entry, venv),
            additions: repair::additions(&self.context(), venv),
        }
    }

    fn state_of(&self, kept: &PreviousTree) -> PreviousState {
        if tree::identity(&self.root.at(kept.path())) == Some(kept.identity) {
            PreviousState::Kept(venv::inspect(&self.root, kept.path()))
        } else {
            PreviousState::Gone
        }
    }
}
