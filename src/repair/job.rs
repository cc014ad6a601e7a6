//! What is to be done for one venv, and how it ended.

use crate::plan::Remedy;
use crate::python::{Minor, path_of};
use crate::service::Service;
use crate::store::{JournalEntry, JournalState, PreviousTree, RegistryEntry, StoreError};
use crate::venv::Venv;

use super::Context;
use super::target::Target;

/// One venv to be repaired.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) entry: RegistryEntry,
    pub(crate) venv: Venv,
    pub(crate) remedy: Remedy,
    /// Why it is pinned and not rebuilt, where a rebuild was wanted.
    pub(crate) because: Option<String>,
    /// It belongs on the default interpreter, though it may be pinned now.
    pub(crate) follows: bool,
    /// What a rebuild has to end with; none where no interpreter is there for it.
    pub(crate) target: Option<Target>,
    /// The interpreter of its own minor version was changed: what runs has the old one.
    pub(crate) is_outdated: bool,
    /// What runs out of it, and is to be brought back.
    pub(crate) services: Vec<Service>,
    /// Those of them that were up before the transaction.
    pub(crate) were_up: Vec<Service>,
}

impl Job {
    /// A job of which nothing more is said.
    pub(crate) fn new(entry: &RegistryEntry, venv: &Venv, remedy: Remedy) -> Self {
        Self {
            entry: entry.clone(),
            venv: venv.clone(),
            remedy,
            because: None,
            follows: entry.pin.is_some() || venv.follows(),
            target: None,
            is_outdated: false,
            services: Vec::new(),
            were_up: Vec::new(),
        }
    }

    /// What is to be done, for a dry run.
    pub(crate) fn in_words(&self) -> String {
        let what = match (self.remedy, self.target) {
            (Remedy::None | Remedy::Impossible, _) => "nothing".to_string(),
            (Remedy::Restart, _) => "restart its services".to_string(),
            (Remedy::Refresh, _) => {
                "refresh its copies of the interpreter and its pyvenv.cfg, restart its services"
                    .to_string()
            }
            (Remedy::Pin, _) => format!("pin it to {}", path_of(self.venv.site).display()),
            (Remedy::Rebuild, Some(target)) => {
                format!("rebuild it for {}, restart its services", target.interpreter().display())
            }
            (Remedy::Rebuild, None) => "rebuild it, once an interpreter is installed".to_string(),
        };
        format!("{}: would {what}", self.entry.name)
    }

    /// Writes down what is begun, before it is begun.
    pub(super) fn begin(
        &self,
        context: &Context,
        step: JournalState,
        units: &[String],
    ) -> Result<(), StoreError> {
        let (id, name) = (&self.entry.id, &self.entry.name);
        let journal = JournalEntry::new(id, name, self.entry.path(), step, self.services.clone());
        context.store.write_journal(&journal.with_units(units))
    }
}

/// How a repair ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) id: String,
    pub(crate) done: Done,
    /// The services that were restarted, where the repair went well.
    pub(crate) restarted: Vec<Service>,
    pub(crate) notes: Vec<String>,
}

impl Outcome {
    pub(super) fn new(job: &Job, done: Done, restarted: Vec<Service>, notes: Vec<String>) -> Self {
        Self { id: job.entry.id.clone(), done, restarted, notes }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Done {
    Nothing,
    Restarted,
    Refreshed,
    Rebuilt {
        minor: Minor,
        previous: PreviousTree,
    },
    /// It works, with the old interpreter. Why it is not the new one, if that was wanted.
    Pinned {
        minor: Minor,
        because: Option<String>,
        /// What its services have against it.
        services: Option<String>,
    },
    /// The previous environment is in place again, because somebody wanted it.
    Restored {
        minor: Minor,
        previous: PreviousTree,
        /// It belongs on the default interpreter, which is another one.
        pinned: bool,
        /// What its services have against it.
        because: Option<String>,
    },
    /// The new tree did not hold; the old one is back and works.
    RolledBack {
        because: String,
    },
    /// What does not work, and in which state it was left.
    Failed {
        because: String,
        state: String,
    },
    /// It could not be brought to an end; the journal has what is left to do.
    Unfinished {
        because: String,
    },
}

impl Done {
    /// Whether all is as it should be.
    pub(crate) fn is_good(&self) -> bool {
        match self {
            Self::Nothing | Self::Restarted | Self::Refreshed | Self::Rebuilt { .. } => true,
            Self::Pinned { because, services, .. } => because.is_none() && services.is_none(),
            Self::Restored { because, .. } => because.is_none(),
            Self::RolledBack { .. } | Self::Failed { .. } | Self::Unfinished { .. } => false,
        }
    }

    /// A refresh, where a rebuild was wanted and failed.
    pub(super) fn instead_of_a_rebuild(self, why: String) -> Self {
        let join = |because: String| format!("{why}\n{because}");
        match self {
            Self::Refreshed => Self::RolledBack { because: why },
            Self::Failed { because, state } => Self::Failed { because: join(because), state },
            Self::Unfinished { because } => Self::Unfinished { because: join(because) },
            other => other,
        }
    }

    /// A failure before anything was done.
    pub(super) fn unchanged(because: impl Into<String>) -> Self {
        Self::Failed { because: because.into(), state: "the venv was not changed".into() }
    }
}
