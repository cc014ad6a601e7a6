//! The course of one venv's repair: from its first step, or from where a crash left it.
//!
//! ```text
//! Restart   Restarting ─ restart
//! Refresh   Refreshing ─ copy ─ restart
//! Rebuild   Staging ─ build ─ Swapping ─ exchange ─ restart ─┬─ proved: the old tree is kept
//!                └─ failed ────────────────────────────────┴─ the old tree stands ─ made to work
//! Anchor    the registry says so ─ pin
//! Rollback  RollingBack ─ exchange ─ restart
//! ```
//!
//! The journal is written before a step and closed by the [`Ledger`] once the registry knows
//! what came of it. In between, the disk alone says which tree stands. No tree is removed
//! before its successor runs.

use std::cell::OnceCell;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::carry::{Seen, last_written_in, late, only_in};
use super::execute::Ledger;
use super::job::{Done, Job};
use super::rebuild::{NotRebuilt, Rebuilt, rebuild};
use super::restart::{Baseline, restart};
use super::{Context, refresh, stage};
use crate::host::file::printable;
use crate::plan::{self, Remedy, State};
use crate::python::{DEFAULT, Interpreters, Minor, path_of};
use crate::report::Progress;
use crate::service::{self, Service};
use crate::store::{Kept, Leftover, Progress as Step, Swap};
use crate::venv::{self, Link, Venv};

/// When a folder was renamed last, or its rights were changed.
fn changed_at(folder: &Path) -> Option<SystemTime> {
    let metadata = folder.symlink_metadata().ok()?;
    let nanoseconds = metadata.ctime_nsec().try_into().ok()?;
    let since = Duration::new(metadata.ctime().try_into().ok()?, nanoseconds);
    Some(SystemTime::UNIX_EPOCH + since)
}

/// One venv's repair.
pub(super) struct Course<'a, 'ledger> {
    pub(super) context: &'a Context<'a>,
    pub(super) ledger: &'a Ledger<'ledger>,
    pub(super) now: &'a Interpreters,
    pub(super) job: &'a Job,
    pub(super) progress: &'a Progress,
    /// Looked at before anything is done.
    pub(super) baseline: OnceCell<Baseline>,
}

/// How it ended, what a person should know besides, and what is to be removed.
pub(super) struct Ended {
    pub(super) done: Done,
    pub(super) notes: Vec<String>,
    pub(super) leftover: Option<Leftover>,
    /// A tree that is kept although it does not hold.
    pub(super) aside: Option<Kept>,
}

impl From<Done> for Ended {
    fn from(done: Done) -> Self {
        Self { done, notes: Vec::new(), leftover: None, aside: None }
    }
}

/// Which services are restarted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// Those that died meanwhile: the others run what they should.
    Down,
    All,
}

impl Course<'_, '_> {
    /// Carries out the job's remedy.
    pub(super) fn run(&self) -> Ended {
        if self.context.store.has_journal(&self.job.entry.id) {
            let because = "an interrupted repair of it is not ended yet".to_string();
            return Done::Unfinished { because }.into();
        }
        if self.job.remedy != Remedy::Rebuild {
            self.baseline();
        }
        let venv = &self.job.venv;
        match self.job.remedy {
            Remedy::None | Remedy::Impossible => Done::Nothing.into(),
            Remedy::Restart if self.job.services.is_empty() => Done::Nothing.into(),
            Remedy::Restart => match self.job.begin(self.context, Step::Restarting) {
                Ok(()) => self.restart_unchanged(),
                Err(error) => Done::unchanged(error.to_string()).into(),
            },
            Remedy::Refresh => match self.job.begin(self.context, Step::Refreshing) {
                Ok(()) => self.refresh(venv),
                Err(error) => Done::unchanged(error.to_string()).into(),
            },
            Remedy::Anchor => {
                // Its own minor version may have changed in the same run.
                let which = if self.job.is_outdated { Which::All } else { Which::Down };
                self.anchor(venv, self.job.because.clone(), which)
            }
            Remedy::Rebuild => self.rebuild(),
        }
    }

    /// Restarts the services of a venv that is whole.
    pub(super) fn restart_unchanged(&self) -> Ended {
        match self.restart() {
            Ok(notes) => Ended { notes, ..Done::Restarted.into() },
            Err(because) => {
                let state = "the venv itself is unchanged".into();
                Done::Failed { because, state }.into()
            }
        }
    }

    /// Copies the interpreter and its version anew; right however often it is done.
    pub(super) fn refresh(&self, venv: &Venv) -> Ended {
        let Some(interpreter) = venv.base.minor.and_then(|minor| self.now.get(minor)) else {
            let because = format!("{} is not installed", printable(&venv.base.path));
            return Done::unchanged(because).into();
        };
        self.progress.step("refreshing its interpreter");
        if let Err(error) = refresh::refresh(self.context.root, venv, interpreter) {
            let because = format!("cannot refresh its interpreter: {error}");
            return Done::Unfinished { because }.into();
        }
        match self.restart() {
            Ok(notes) => Ended { notes, ..Done::Refreshed.into() },
            Err(because) => {
                let state =
                    "its interpreter is the new one; what it runs does not come up with it".into();
                Done::Failed { because, state }.into()
            }
        }
    }

    /// Pins the venv to its own minor version.
    fn anchor(&self, venv: &Venv, because: Option<String>, which: Which) -> Ended {
        let minor = venv.site;
        let reason = because.clone().unwrap_or_else(|| "its policy is to stay".into());
        let pinned = self.ledger.anchor(&self.job.entry.id, venv, &reason);
        let restarted = self.restart_which(which);
        match (pinned, restarted) {
            (Ok(()), Ok(notes)) => {
                Ended { notes, ..Done::Anchored { minor, because, services: None }.into() }
            }
            (Ok(()), Err(services)) => {
                Done::Anchored { minor, because, services: Some(services) }.into()
            }
            (Err(error), _) => {
                let error = format!("cannot pin it to {}: {error}", path_of(minor).display());
                let because = because.into_iter().chain([error]).collect::<Vec<_>>().join("\n");
                Done::Failed { because, state: format!("it runs {DEFAULT}") }.into()
            }
        }
    }

    fn rebuild(&self) -> Ended {
        let job = self.job;
        let Some(target) = job.target else {
            return Done::unchanged(format!("{DEFAULT} is not installed")).into();
        };
        let runs_another = job.venv.base.link == Link::Followed
            && plan::fallback(&job.venv, job.follows, self.now) == Some(Remedy::Anchor);
        if runs_another {
            // It works from now on, whatever comes of the rebuild; and it can be asked what
            // works in it.
            let reason = "until it is rebuilt";
            if let Err(error) = self.ledger.anchor(&job.entry.id, &job.venv, reason) {
                self.context.report.note(&format!("{}: cannot pin it: {error}", job.entry.name));
            }
        }
        let works = venv::inspect(self.context.root, job.entry.path())
            .is_ok_and(|venv| plan::health(&venv, self.now, &[]).state == State::Healthy);
        if works {
            let _ = self.baseline.set(Baseline::with_check(self.context, job));
        }
        self.baseline();
        self.progress.step(&format!("building for {}", target.minor));
        match rebuild(self.context, job, target) {
            Ok(Rebuilt { swap, seen, notes }) => {
                let mut ended = self.prove(swap, target.minor, notes);
                self.tell_of_late_changes(&seen, &mut ended);
                ended
            }
            Err(NotRebuilt { because, unfinished: true, .. }) => {
                Done::Unfinished { because }.into()
            }
            Err(NotRebuilt { because, leftover, stood, .. }) => {
                let which = if stood { Which::All } else { Which::Down };
                Ended { leftover, ..self.fall_back(because, which) }
            }
        }
    }

    /// The new tree stands; whether it may stay is told by what runs out of it.
    pub(super) fn prove(&self, swap: Swap, minor: Minor, mut notes: Vec<String>) -> Ended {
        let because = match self.restart() {
            Ok(more) => {
                notes.extend(more);
                let done = Done::Rebuilt { minor, kept: swap.kept };
                return Ended { notes, ..done.into() };
            }
            Err(because) => because,
        };
        // Both trees' own folders were renamed then.
        let exchanged = changed_at(&self.context.root.at(swap.kept.path()));
        self.progress.step("putting the old environment back");
        if let Err(error) = stage::put_back(&self.job.venv.path, &swap) {
            let because =
                format!("{because}\nand the old environment could not be put back: {error}");
            return Ended { notes, ..Done::Unfinished { because }.into() };
        }
        let ended = self.fall_back(because, Which::All);
        let notes = [notes, ended.notes].concat();
        self.what_becomes_of(&swap, exchanged, Ended { notes, ..ended })
    }

    /// A successor that stood for a while and did not hold goes, unless something was written
    /// into it since the trees were `exchanged`.
    fn what_becomes_of(&self, swap: &Swap, exchanged: Option<SystemTime>, ended: Ended) -> Ended {
        let root = self.context.root;
        let (aside, venv) = (swap.kept.path(), &self.job.venv);
        let mut written = last_written_in(root, aside, &venv.path, venv.site).unwrap_or_default();
        written.retain(|(_, at)| exchanged.is_none_or(|exchanged| *at >= exchanged));
        let Some(note) = only_in(aside, &written) else {
            return Ended { leftover: Some(Leftover::new(aside, swap.new)), ..ended };
        };
        let kept = Kept::new(aside, swap.new, self.job.follows).that_holds_files(true);
        let notes = [ended.notes, vec![note]].concat();
        Ended { notes, aside: Some(kept), ..ended }
    }

    /// What ran until it was restarted may have written into the old tree at the last moment.
    fn tell_of_late_changes(&self, seen: &Seen, ended: &mut Ended) {
        let Done::Rebuilt { kept, minor } = &mut ended.done else { return };
        let venv = &self.job.venv;
        let old = Venv { path: kept.path().to_path_buf(), ..venv.clone() };
        let changed = late(self.context.root, seen, &old, &venv.path, *minor);
        kept.holds_files |= changed.as_ref().map_or(true, |changed| !changed.is_empty());
        let changed = changed.unwrap_or_default();
        ended.notes.extend(changed.iter().map(|path| {
            let path = printable(path);
            format!("{path} was changed while its service was restarted: the old tree has the last of it")
        }));
    }

    /// After a crash nobody saw what was written into the old tree until it was put aside, or
    /// by what went on running out of it.
    pub(super) fn what_the_old_tree_has(&self, swap: &mut Swap) -> Vec<String> {
        let (root, venv) = (self.context.root, &self.job.venv);
        let written = last_written_in(root, swap.kept.path(), &venv.path, venv.site);
        swap.kept.holds_files |= written.as_ref().is_none_or(|written| !written.is_empty());
        only_in(swap.kept.path(), &written.unwrap_or_default()).into_iter().collect()
    }

    /// The old tree stands after a crash. Where another one did, whatever runs may run out of
    /// that one.
    pub(super) fn after_crash(&self, another_stood: bool) -> Ended {
        let which = if another_stood { Which::All } else { Which::Down };
        self.fall_back("it was interrupted".into(), which)
    }

    /// What is left when the new tree is not to be had: the old one, which stands, made to
    /// work.
    fn fall_back(&self, because: String, which: Which) -> Ended {
        let venv = match venv::inspect(self.context.root, self.job.entry.path()) {
            Ok(venv) => venv,
            Err(error) => {
                let state = format!("the venv is as it was: {error}");
                return Done::Failed { because, state }.into();
            }
        };
        match plan::fallback(&venv, self.job.follows, self.now) {
            Some(Remedy::Anchor) => return self.anchor(&venv, Some(because), which),
            Some(Remedy::Refresh) => {
                // Should this fail, it is ended as what it is. A full disk is no reason not to.
                let _ = self.job.begin(self.context, Step::Refreshing);
                let ended = self.refresh(&venv);
                return Ended { done: ended.done.instead_of_a_rebuild(because), ..ended };
            }
            _ => {}
        }
        let works = self.now.get(venv.site).is_some();
        match self.restart_which(which) {
            Ok(notes) if works => Ended { notes, ..Done::RolledBack { because }.into() },
            Ok(_) => {
                let state = "the venv is as it was; its interpreter is gone".into();
                Done::Failed { because, state }.into()
            }
            Err(error) => Done::Failed {
                because: format!("{because}\n{error}"),
                state: "the venv is as it was".into(),
            }
            .into(),
        }
    }

    /// Restarts all services.
    pub(super) fn restart(&self) -> Result<Vec<String>, String> {
        let names: Vec<String> = self.job.services.iter().map(ToString::to_string).collect();
        if !names.is_empty() {
            self.progress.step(&format!("restarting {}", names.join(", ")));
        }
        restart(self.context, self.job, &self.job.services, self.baseline())
    }

    fn restart_which(&self, which: Which) -> Result<Vec<String>, String> {
        if which == Which::All {
            return self.restart();
        }
        let is_down = |service: &&Service| {
            !service::condition(self.context.root, service).is_ok_and(|condition| condition.up)
        };
        let down: Vec<Service> = self.job.services.iter().filter(is_down).cloned().collect();
        if down.is_empty() {
            return Ok(Vec::new());
        }
        restart(self.context, self.job, &down, self.baseline())
    }

    fn baseline(&self) -> &Baseline {
        self.baseline.get_or_init(|| Baseline::of_services(self.context, self.job))
    }
}
