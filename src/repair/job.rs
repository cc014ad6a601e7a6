//! The repair of one venv as it was decided, and how it ended.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::host::Program;
use crate::host::file::printable;
use crate::plan::{Decision, Finding, Remedy, Until};
use crate::python::Minor;
use crate::service::Service;
use crate::store::{JournalEntry, JournalState, PreviousTree, RegistryEntry, StoreError};
use crate::venv::Venv;

use super::Context;

/// A venv to repair, and the decision about it.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) decision: Decision,
    pub(crate) entry: RegistryEntry,
    pub(crate) venv: Venv,
}

impl Job {
    /// The jobs for these decisions, without those that do nothing.
    pub(crate) fn all<'a>(
        venvs: impl Iterator<Item = (&'a RegistryEntry, &'a Venv)>,
        decisions: impl IntoIterator<Item = &'a Decision>,
    ) -> Vec<Self> {
        let decisions: Vec<&Decision> = decisions.into_iter().filter(|one| one.acts()).collect();
        venvs
            .filter_map(|(entry, venv)| {
                let decision = decisions.iter().find(|decision| decision.id == entry.id)?;
                let mut entry = entry.clone();
                if let Remedy::Rebuild { relax, .. } = decision.remedy {
                    entry.relax = relax.or(entry.relax);
                }
                Some(Self { decision: (*decision).clone(), entry, venv: venv.clone() })
            })
            .collect()
    }

    pub(super) fn id(&self) -> &str {
        &self.entry.id
    }

    /// The services that run out of the venv and must come back.
    pub(super) fn services(&self) -> &[Service] {
        &self.decision.services
    }

    /// Tells a program of the repair, by variables.
    pub(super) fn inform(&self, program: Program, to: Minor) -> Program {
        program
            .env("VENVGUARD_VENV", &self.entry.name)
            .env("VENVGUARD_PATH", self.entry.path())
            .env("VENVGUARD_ACTION", self.decision.remedy.word())
            .env("VENVGUARD_PYTHON_FROM", self.venv.site.to_string())
            .env("VENVGUARD_PYTHON_TO", to.to_string())
    }

    /// Writes a step to the journal before it begins.
    pub(super) fn begin(
        &self,
        context: &Context,
        state: JournalState,
        units: &[String],
    ) -> Result<(), StoreError> {
        context.store.write_journal(&JournalEntry::new(&self.decision, state, units))
    }
}

/// How a repair ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) id: String,
    pub(crate) decision: Decision,
    pub(crate) done: Done,
    /// The services that were restarted, if the repair succeeded.
    pub(crate) restarted: Vec<Service>,
    pub(crate) notes: Vec<String>,
    /// Why there is no prepared tree.
    pub(crate) findings: Vec<Finding>,
    /// The steps of the repair, and how long each took.
    pub(crate) times: Vec<(String, Duration)>,
}

impl Outcome {
    pub(super) fn new(job: &Job, done: Done, restarted: Vec<Service>, notes: Vec<String>) -> Self {
        let (id, decision) = (job.entry.id.clone(), job.decision.clone());
        let (findings, times) = (Vec::new(), Vec::new());
        Self { id, decision, done, restarted, notes, findings, times }
    }

    /// The same as [`Outcome::in_words`], with the notes: what failed before the repair is the
    /// baseline of later failures.
    pub(super) fn for_history(&self) -> Option<(&'static str, String)> {
        let (what, mut detail) = self.in_words()?;
        for note in &self.notes {
            let _ = write!(detail, "\n{note}");
        }
        Some((what, detail))
    }

    /// What was done, as a word and a sentence; `None` if nothing was done.
    pub(crate) fn in_words(&self) -> Option<(&'static str, String)> {
        let (what, mut detail) = match &self.done {
            Done::Nothing => return None,
            Done::Restarted => ("restarted", "its services run the new interpreter".into()),
            Done::Refreshed => {
                ("refreshed", "its copies of the interpreter match the new one".into())
            }
            Done::Rebuilt { minor, previous, because } => {
                let mut text = format!(
                    "for Python {minor}; the previous environment is kept at {}",
                    printable(previous.path())
                );
                if let Some(because) = because {
                    let _ = write!(text, "\nbut {because}");
                }
                ("rebuilt", text)
            }
            Done::Prepared { minor, path } => (
                "prepared",
                format!(
                    "for Python {minor} at {}; the next rebuild for that version swaps it in",
                    printable(path)
                ),
            ),
            Done::Pinned { minor, because, services, .. } => {
                let mut text = match because {
                    None => format!("to Python {minor}"),
                    Some(why) => {
                        format!("it still works with Python {minor}, but was not rebuilt: {why}")
                    }
                };
                if let Some(services) = services {
                    let _ = write!(text, "\nbut {services}");
                }
                ("pinned", text)
            }
            Done::RolledBack { because } => {
                ("rolled-back", format!("it works as before, but was not rebuilt: {because}"))
            }
            Done::Restored { minor, previous, because, .. } => {
                let mut text = format!(
                    "to the previous environment, Python {minor}; the environment that it replaces is kept at {}",
                    printable(previous.path())
                );
                if let Some(because) = because {
                    let _ = write!(text, "\nbut {because}");
                }
                ("rolled-back", text)
            }
            Done::Failed { because, state } => ("failed", format!("{because}\n{state}")),
            Done::Unfinished { because } => {
                ("failed", format!("{because}\nrun `venvguard resume` to finish"))
            }
        };
        let names: Vec<String> = self.restarted.iter().map(ToString::to_string).collect();
        if !names.is_empty() {
            // One line for a venv, unless there is more to say about it.
            let between = if detail.contains('\n') { "\n" } else { "; " };
            let _ = write!(detail, "{between}restarted {}", names.join(", "));
        }
        Some((what, detail))
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
        /// Why its services do not come up with it, if the previous environment would not help.
        because: Option<String>,
    },
    /// A new tree is ready and kept at this path.
    Prepared {
        minor: Minor,
        path: PathBuf,
    },
    /// It works with the old interpreter; `because` says why not with the new one, if that was
    /// wanted.
    Pinned {
        minor: Minor,
        until: Until,
        because: Option<String>,
        /// Why its services do not come up with it.
        services: Option<String>,
    },
    /// A previous environment is in place again, because somebody asked for it.
    Restored {
        minor: Minor,
        previous: PreviousTree,
        /// It follows the default interpreter, which is another one now.
        pinned: bool,
        /// Why its services do not come up with it.
        because: Option<String>,
    },
    /// The new tree failed; the old one is back and works.
    RolledBack {
        because: String,
    },
    /// What does not work, and the state in which the venv was left.
    Failed {
        because: String,
        state: String,
    },
    /// The repair could not be finished; the journal records what is left to do.
    Unfinished {
        because: String,
    },
}

impl Done {
    /// What went wrong, if anything did.
    pub(crate) fn failure(&self) -> Option<&str> {
        match self {
            Self::Nothing | Self::Restarted | Self::Refreshed | Self::Prepared { .. } => None,
            Self::Pinned { because, services, .. } => because.as_deref().or(services.as_deref()),
            Self::Rebuilt { because, .. } | Self::Restored { because, .. } => because.as_deref(),
            Self::RolledBack { because }
            | Self::Failed { because, .. }
            | Self::Unfinished { because } => Some(because),
        }
    }

    /// The outcome of a refresh after a failed rebuild.
    pub(super) fn instead_of_a_rebuild(self, why: String) -> Self {
        let join = |because: String| format!("{why}\n{because}");
        match self {
            Self::Refreshed => Self::RolledBack { because: why },
            Self::Failed { because, state } => Self::Failed { because: join(because), state },
            Self::Unfinished { because } => Self::Unfinished { because: join(because) },
            other => other,
        }
    }

    /// The previous environment is not in place; the journal records where it is.
    pub(super) fn not_put_back(because: &str, error: &std::io::Error) -> Self {
        let because = format!("{because}\nthe previous environment could not be put back: {error}");
        Self::Unfinished { because }
    }

    /// A failure before anything was done.
    pub(super) fn unchanged(because: impl Into<String>) -> Self {
        Self::Failed { because: because.into(), state: "the venv is unchanged".into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::samples;

    fn outcome(done: Done) -> Outcome {
        let restarted = vec!["systemd:shop".parse().unwrap()];
        let (id, decision) = ("1".to_string(), samples::decision());
        Outcome {
            id,
            decision,
            done,
            restarted,
            notes: Vec::new(),
            findings: Vec::new(),
            times: Vec::new(),
        }
    }

    #[test]
    fn a_rebuild_reports_minor_version_previous_environment_and_services() {
        let previous = PreviousTree::new(std::path::Path::new("/srv/.venv.old"), (1, 2), true);
        let (what, detail) =
            outcome(Done::Rebuilt { minor: Minor::new(3, 13), previous, because: None })
                .in_words()
                .unwrap();
        assert_eq!(what, "rebuilt");
        assert_eq!(
            detail,
            "for Python 3.13; the previous environment is kept at /srv/.venv.old; \
             restarted systemd:shop.service"
        );
        assert_eq!(outcome(Done::Nothing).in_words(), None);
    }

    #[test]
    fn the_history_keeps_what_failed_before_a_repair() {
        let notes = vec!["it failed before, and still does: x".to_string()];
        let outcome = Outcome { notes, ..outcome(Done::Refreshed) };
        let (_, detail) = outcome.for_history().unwrap();
        assert!(detail.ends_with("\nit failed before, and still does: x"), "{detail}");
    }
}
