//! The course of one venv's repair: from its first step, or from where a crash left it.
//!
//! ```text
//! Restart   Restarting ─ restart
//! Refresh   Refreshing ─ copy ─ restart
//! Rebuild   Staging ─ build ─ Swapping ─ exchange ─ restart ─┬─ proved: the old tree is kept
//!                └─ failed ────────────────────────────────┴─ the old tree stands ─ made to work
//! Anchor    pin                                    (one link; the next `settle` does it again)
//! Rollback  RollingBack ─ exchange ─ restart
//! ```
//!
//! The journal is written before a step and closed by the [`Ledger`](super::execute::Ledger)
//! once the registry knows what came of it. In between, the disk alone says which tree
//! stands.

use super::job::{Done, Job};
use super::rebuild::{RebuildError, Rebuilt, rebuild};
use super::restart::restart;
use super::{Context, anchor, refresh, stage};
use crate::plan::{self, Remedy};
use crate::python::{DEFAULT, Interpreters, Minor, path_of};
use crate::report::Progress;
use crate::service::{self, Service};
use crate::store::{Progress as Step, Swap};
use crate::venv::{self, Venv};

/// One venv's repair.
pub(super) struct Course<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) now: &'a Interpreters,
    pub(super) job: &'a Job,
    pub(super) progress: &'a Progress,
}

/// How it ended, and what a person should know besides.
pub(super) type Ended = (Done, Vec<String>);

impl Course<'_> {
    /// Carries out the job's remedy.
    pub(super) fn run(&self) -> Ended {
        if self.context.store.has_journal(&self.job.entry.id) {
            let because = "an interrupted repair of it is not ended yet".to_string();
            return (Done::Unfinished { because }, Vec::new());
        }
        let venv = &self.job.venv;
        match self.job.remedy {
            Remedy::None | Remedy::Impossible => (Done::Nothing, Vec::new()),
            Remedy::Restart => self.restart_only(),
            Remedy::Refresh => match self.job.begin(self.context, Step::Refreshing) {
                Ok(()) => (self.refresh(venv), Vec::new()),
                Err(error) => (Done::unchanged(error.to_string()), Vec::new()),
            },
            Remedy::Anchor => (self.anchor(venv, self.job.because.clone(), false), Vec::new()),
            Remedy::Rebuild => self.rebuild(),
        }
    }

    fn restart_only(&self) -> Ended {
        if self.job.services.is_empty() {
            return (Done::Nothing, Vec::new());
        }
        let done = match self.job.begin(self.context, Step::Restarting) {
            Ok(()) => self.restart_unchanged(),
            Err(error) => Done::unchanged(error.to_string()),
        };
        (done, Vec::new())
    }

    /// Restarts the services of a venv that is whole.
    pub(super) fn restart_unchanged(&self) -> Done {
        match self.restart() {
            Ok(()) => Done::Restarted,
            Err(because) => Done::Failed { because, state: "the venv itself is unchanged".into() },
        }
    }

    /// Copies the interpreter anew; right however often it is done.
    pub(super) fn refresh(&self, venv: &Venv) -> Done {
        let Some(interpreter) = venv.base.minor.and_then(|minor| self.now.get(minor)) else {
            return Done::unchanged(format!("{} is not installed", venv.base.path.display()));
        };
        self.progress.step("copying the new interpreter");
        if let Err(error) = refresh::refresh(self.context.root, venv, interpreter) {
            let because = format!("cannot copy the new interpreter: {error}");
            return Done::Unfinished { because };
        }
        match self.restart() {
            Ok(()) => Done::Refreshed,
            Err(because) => Done::Failed {
                because,
                state: "its interpreter is the new one; what it runs does not come up with it"
                    .into(),
            },
        }
    }

    /// Pins the venv to its own minor version. What runs out of it goes on with the same
    /// interpreter, unless it runs out of a tree that was `swapped` away; only what died
    /// meanwhile is started again.
    fn anchor(&self, venv: &Venv, because: Option<String>, swapped: bool) -> Done {
        let minor = venv.site;
        if let Err(error) = anchor::pin(self.context.root, venv, minor) {
            let because = because.map_or_else(String::new, |because| because + "\n");
            let because =
                format!("{because}cannot pin it to {}: {error}", path_of(minor).display());
            return Done::Failed { because, state: format!("it runs {DEFAULT}") };
        }
        match self.restart_after(swapped) {
            Ok(()) => Done::Anchored { minor, because },
            Err(because) => {
                let state = format!("it is pinned to {}", path_of(minor).display());
                Done::Failed { because, state }
            }
        }
    }

    fn rebuild(&self) -> Ended {
        let job = self.job;
        let Some(target) = job.target else {
            return (Done::unchanged(format!("{DEFAULT} is not installed")), Vec::new());
        };
        self.progress.step(&format!("building for {}", target.minor));
        match rebuild(self.context, job, target) {
            Ok(Rebuilt { swap, notes }) => self.prove(swap, target.minor, notes),
            Err(error @ RebuildError::Unfinished { .. }) => {
                (Done::Unfinished { because: error.to_string() }, Vec::new())
            }
            Err(error) => (self.fall_back(error.to_string(), false), Vec::new()),
        }
    }

    /// The new tree stands; whether it may stay is told by what runs out of it.
    pub(super) fn prove(&self, swap: Swap, minor: Minor, notes: Vec<String>) -> Ended {
        let Err(because) = self.restart() else {
            return (Done::Rebuilt { minor, kept: swap.kept }, notes);
        };
        self.progress.step("putting the old environment back");
        if let Err(error) = stage::put_back(&self.job.venv.path, &swap) {
            let because =
                format!("{because}\nand the old environment could not be put back: {error}");
            return (Done::Unfinished { because }, notes);
        }
        self.discard(&swap);
        (self.fall_back(because, true), notes)
    }

    /// What is left when the new tree is not to be had: the old one, which stands, made to
    /// work. `swapped`, if it was away: then services may run out of what stood there.
    pub(super) fn fall_back(&self, because: String, swapped: bool) -> Done {
        let venv = match venv::inspect(self.context.root, self.job.entry.path()) {
            Ok(venv) => venv,
            Err(error) => {
                let state = format!("the venv is as it was: {error}");
                return Done::Failed { because, state };
            }
        };
        match plan::fallback(&venv, self.job.follows, self.now) {
            Some(Remedy::Anchor) => return self.anchor(&venv, Some(because), swapped),
            Some(Remedy::Refresh) => {
                return match self.refresh(&venv) {
                    Done::Refreshed => Done::RolledBack { because },
                    failed => failed,
                };
            }
            _ => {}
        }
        let works = self.now.get(venv.site).is_some();
        match self.restart_after(swapped) {
            Ok(()) if works => Done::RolledBack { because },
            Ok(()) => Done::Failed {
                because,
                state: "the venv is as it was; its interpreter is gone".into(),
            },
            Err(error) => Done::Failed {
                because: format!("{because}\n{error}"),
                state: "the venv is as it was".into(),
            },
        }
    }

    pub(super) fn restart(&self) -> Result<(), String> {
        let names: Vec<String> = self.job.services.iter().map(ToString::to_string).collect();
        if !names.is_empty() {
            self.progress.step(&format!("restarting {}", names.join(", ")));
        }
        restart(self.context, &self.job.entry, &self.job.venv, &self.job.services)
    }

    fn restart_after(&self, swapped: bool) -> Result<(), String> {
        if swapped {
            return self.restart();
        }
        let is_down = |service: &&Service| {
            !service::condition(self.context.root, service).is_ok_and(|condition| condition.up)
        };
        let down: Vec<Service> = self.job.services.iter().filter(is_down).cloned().collect();
        if down.is_empty() {
            return Ok(());
        }
        restart(self.context, &self.job.entry, &self.job.venv, &down)
    }

    /// Removes what nobody needs any more. That it cannot be removed harms no venv.
    fn discard(&self, swap: &Swap) {
        if let Err(error) = stage::discard(swap.kept.path(), Some(swap.new)) {
            self.context.report.note(&format!(
                "{}: cannot remove what was built, remove it yourself: {error}",
                self.job.entry.name
            ));
        }
    }
}
