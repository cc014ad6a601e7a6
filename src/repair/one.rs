//! The repair of one venv's repair: from its first step, or from where a crash left it.
//!
//! ```text
//! Restart   Restarting ─ restart
//! Refresh   Refreshing ─ copy ─ restart
//! Rebuild   Staging ─ build ─ stop ─ last copy ─ Swapping ─ exchange ─ start ─┬─ proved: old tree kept
//!                └─ failed ─── stop ─ copy back ─ exchange ───────────────────┴─ old tree made to work
//! Pin       the registry says so ─ pin
//! Rollback  RollingBack ─ stop ─ copy back ─ exchange ─ start
//! ```
//!
//! The journal is written before a step and closed by the [`Recorder`] once the registry knows
//! what came of it. In between, the disk alone says which tree stands. No tree is removed
//! before its successor runs.

use std::cell::{OnceCell, RefCell};

use super::execute::Recorder;
use super::halt::{Halt, Halted, Triggers};
use super::job::{Done, Job};
use super::rebuild::{NotRebuilt, Rebuilt, rebuild};
use super::restart::{Baseline, Restarted, restart, users_of};
use super::target::owner;
use super::trees::Pair;
use super::{Context, pin};
use crate::host::file::printable;
use crate::host::user::User;
use crate::plan::{self, Remedy, State};
use crate::python::{DEFAULT, Interpreters, path_of};
use crate::report::Progress;
use crate::service::{self, Service, VenvUsage};
use crate::store::{JournalState, PendingRemoval, PreviousTree, Swap};
use crate::venv::{self, BaseLink, Venv};

/// One venv's repair.
pub(super) struct Repair<'a, 'recorder> {
    pub(super) context: &'a Context<'a>,
    pub(super) recorder: &'a Recorder<'recorder>,
    pub(super) now: &'a Interpreters,
    pub(super) job: &'a Job,
    pub(super) progress: &'a Progress,
    /// Looked at before anything is done.
    pub(super) baseline: OnceCell<Baseline>,
    /// What runs out of the venv, looked at before the trees change places.
    pub(super) users: OnceCell<VenvUsage>,
    pub(super) halt: RefCell<Halt>,
}

/// How it ended, what a person should know besides, and what is to be removed.
pub(super) struct RepairResult {
    pub(super) done: Done,
    pub(super) notes: Vec<String>,
    pub(super) restarted: Vec<Service>,
    pub(super) pending_removal: Option<PendingRemoval>,
    /// A tree that is kept although it does not hold.
    pub(super) aside: Option<PreviousTree>,
}

impl From<Done> for RepairResult {
    fn from(done: Done) -> Self {
        Self { done, notes: Vec::new(), restarted: Vec::new(), pending_removal: None, aside: None }
    }
}

impl RepairResult {
    fn with(done: Done, restarted: Restarted) -> Self {
        Self { notes: restarted.notes, restarted: restarted.services, ..done.into() }
    }
}

/// Which services are restarted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RestartScope {
    /// Those that died meanwhile: the others run what they should.
    Stopped,
    All,
}

impl Repair<'_, '_> {
    /// Carries out the job's remedy.
    pub(super) fn run(&self) -> RepairResult {
        if self.context.store.has_journal(&self.job.entry.id) {
            let because = "an interrupted repair of it is not result yet".to_string();
            return Done::Unfinished { because }.into();
        }
        if self.job.remedy != Remedy::Rebuild {
            self.baseline();
        }
        let venv = &self.job.venv;
        match self.job.remedy {
            Remedy::None | Remedy::Impossible => Done::Nothing.into(),
            Remedy::Restart if self.job.services.is_empty() => Done::Nothing.into(),
            Remedy::Restart => match self.job.begin(self.context, JournalState::Restarting, &[]) {
                Ok(()) => self.restart_unchanged(),
                Err(error) => Done::unchanged(error.to_string()).into(),
            },
            Remedy::Refresh => {
                match self.job.begin(self.context, JournalState::Refreshing, &self.units()) {
                    Ok(()) => self.refresh(venv),
                    Err(error) => Done::unchanged(error.to_string()).into(),
                }
            }
            Remedy::Pin => {
                // Its own minor version may have changed in the same run.
                let scope =
                    if self.job.is_outdated { RestartScope::All } else { RestartScope::Stopped };
                self.pin(venv, self.job.because.clone(), scope)
            }
            Remedy::Rebuild => self.rebuild(),
        }
    }

    /// Restarts the services of a venv that is whole.
    pub(super) fn restart_unchanged(&self) -> RepairResult {
        match self.restart() {
            Ok(restarted) => RepairResult::with(Done::Restarted, restarted),
            Err(because) => {
                let state = "the venv itself is unchanged".into();
                Done::Failed { because, state }.into()
            }
        }
    }

    /// Copies the interpreter and its version anew; right however often it is done.
    pub(super) fn refresh(&self, venv: &Venv) -> RepairResult {
        let Some(interpreter) = venv.base.minor.and_then(|minor| self.now.get(minor)) else {
            let because = format!("{} is not installed", printable(&venv.base.path));
            return Done::unchanged(because).into();
        };
        self.progress.step("refreshing its interpreter");
        let owner = owner(self.context, venv);
        if let Err(error) = pin::refresh(self.context.root, &owner, venv, interpreter) {
            let because = format!("cannot refresh its interpreter: {error}");
            return Done::Unfinished { because }.into();
        }
        match self.restart() {
            Ok(restarted) => RepairResult::with(Done::Refreshed, restarted),
            Err(because) => {
                let state =
                    "its interpreter is the new one; what it runs does not come up with it".into();
                Done::Failed { because, state }.into()
            }
        }
    }

    /// Pins the venv to its own minor version.
    fn pin(&self, venv: &Venv, because: Option<String>, scope: RestartScope) -> RepairResult {
        let minor = venv.site;
        let reason = because.clone().unwrap_or_else(|| "its policy is to stay".into());
        let pinned = self.recorder.pin(&self.job.entry.id, venv, &reason);
        let restarted = self.restart_which(scope);
        match (pinned, restarted) {
            (Ok(()), Ok(restarted)) => {
                RepairResult::with(Done::Pinned { minor, because, services: None }, restarted)
            }
            (Ok(()), Err(services)) => {
                Done::Pinned { minor, because, services: Some(services) }.into()
            }
            (Err(error), _) => {
                let error = format!("cannot pin it to {}: {error}", path_of(minor).display());
                let because = because.into_iter().chain([error]).collect::<Vec<_>>().join("\n");
                Done::Failed { because, state: format!("it runs {DEFAULT}") }.into()
            }
        }
    }

    fn rebuild(&self) -> RepairResult {
        let job = self.job;
        let Some(target) = job.target else {
            return Done::unchanged(format!("{DEFAULT} is not installed")).into();
        };
        let runs_another = job.venv.base.link == BaseLink::Followed
            && plan::fallback(&job.venv, job.follows, self.now) == Some(Remedy::Pin);
        if runs_another {
            // It works from now on, whatever comes of the rebuild; and it can be asked what
            // works in it.
            let reason = "until it is rebuilt";
            if let Err(error) = self.recorder.pin(&job.entry.id, &job.venv, reason) {
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
        let Some(limit) = self.recorder.time_left(job.venv.uid) else {
            let because = "no time is left in this run for venvs of its owner (`owner-timeout` and `run-timeout` in the configuration); `venvguard rebuild` has its own";
            return self.fall_back(because.into(), RestartScope::Stopped);
        };
        self.users();
        let rebuilt = rebuild(self.context, job, target, limit, &mut self.halt.borrow_mut());
        match rebuilt {
            Ok(Rebuilt { swap, notes }) => self.prove(swap, notes),
            Err(NotRebuilt { because, unfinished: true, .. }) => {
                Done::Unfinished { because }.into()
            }
            Err(NotRebuilt { because, pending_removal, aside, notes, stood, .. }) => {
                let scope = if stood { RestartScope::All } else { RestartScope::Stopped };
                let result = self.fall_back(because, scope);
                let aside = aside.map(|kept| *kept);
                RepairResult {
                    pending_removal,
                    aside,
                    notes: [notes, result.notes].concat(),
                    ..result
                }
            }
        }
    }

    /// The new tree is in place; what runs out of it decides whether it stays.
    pub(super) fn prove(&self, mut swap: Swap, mut notes: Vec<String>) -> RepairResult {
        let minor = swap.minor;
        let because = match self.restart() {
            Ok(restarted) => {
                notes.extend(restarted.notes);
                notes.extend(self.note_late_writes(&mut swap));
                let (restarted, done) =
                    (restarted.services, Done::Rebuilt { minor, previous: swap.previous });
                return RepairResult { notes, restarted, ..done.into() };
            }
            Err(because) => because,
        };
        self.progress.step("putting the previous environment back");
        let step = JournalState::Swapping(swap.clone());
        let (mut halt, mut result) = (self.halt.borrow_mut(), None);
        let stopped = halt.while_stopped(self.context, self.job, &step, Triggers::GoOn, || {
            let done = result.is_some();
            // Once it is back, there is nothing more to be done in the right order.
            if !done {
                result = Some(self.bring_back(&swap));
            }
            Ok::<_, std::convert::Infallible>(())
        });
        if let Err(Halted::Stop(error)) = stopped {
            notes.push(format!("not everything was stopped meanwhile: {error}"));
        }
        drop(halt);
        match result.unwrap_or_else(|| self.bring_back(&swap)) {
            Ok((left, more)) => {
                let result = self.fall_back(because, RestartScope::All);
                let (pending_removal, aside) = left.of(&swap, self.job.follows);
                RepairResult {
                    pending_removal,
                    aside,
                    notes: [notes, more, result.notes].concat(),
                    ..result
                }
            }
            Err(error) => {
                let because = format!(
                    "{because}\nand the previous environment could not be put back: {error}"
                );
                RepairResult { notes, ..Done::Unfinished { because }.into() }
            }
        }
    }

    /// The new tree is in place, and the old one is to come back.
    fn bring_back(&self, swap: &Swap) -> std::io::Result<(super::trees::Left, Vec<String>)> {
        let owner = owner(self.context, &self.job.venv);
        self.pair(&owner, swap).bring_back(self.context, swap, false)
    }

    /// The venv after a swap: its new tree in place, the old one aside.
    pub(super) fn pair<'b>(&'b self, owner: &'b User, swap: &'b Swap) -> Pair<'b> {
        let old = venv::inspect(self.context.root, swap.previous.path());
        let old = old.map_or(self.job.venv.site, |old| old.site);
        let pair = Pair::new(&self.job.venv, owner, swap.previous.path(), old);
        Pair { in_place: swap.minor, ..pair }
    }

    /// A program that is no service's, or that was started in between, may have written into the
    /// old tree after the last copy; and after a crash nobody saw what did.
    pub(super) fn note_late_writes(&self, swap: &mut Swap) -> Option<String> {
        let owner = owner(self.context, &self.job.venv);
        let (left, note) = self.pair(&owner, swap).left_aside(self.context.root, false);
        swap.previous.holds_files |= matches!(left, super::trees::Left::HoldsFiles);
        note
    }

    /// The old tree is in place after a crash. Where another one was, whatever runs may run out of
    /// that one.
    pub(super) fn after_crash(&self, another_stood: bool) -> RepairResult {
        let scope = if another_stood { RestartScope::All } else { RestartScope::Stopped };
        self.fall_back("it was interrupted".into(), scope)
    }

    /// What is left when the new tree is not to be had: the old one, which stands, made to
    /// work.
    fn fall_back(&self, because: String, scope: RestartScope) -> RepairResult {
        let venv = match venv::inspect(self.context.root, self.job.entry.path()) {
            Ok(venv) => venv,
            Err(error) => {
                let state = format!("the venv is as it was: {error}");
                return Done::Failed { because, state }.into();
            }
        };
        match plan::fallback(&venv, self.job.follows, self.now) {
            Some(Remedy::Pin) => return self.pin(&venv, Some(because), scope),
            Some(Remedy::Refresh) => {
                // Should this fail, it is ended as what it is. A full disk is no reason not to.
                let _ = self.job.begin(self.context, JournalState::Refreshing, &self.units());
                let result = self.refresh(&venv);
                return RepairResult { done: result.done.instead_of_a_rebuild(because), ..result };
            }
            _ => {}
        }
        let works = self.now.get(venv.site).is_some();
        match self.restart_which(scope) {
            Ok(restarted) if works => RepairResult::with(Done::RolledBack { because }, restarted),
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
    pub(super) fn restart(&self) -> Result<Restarted, String> {
        let names: Vec<String> = self.job.services.iter().map(ToString::to_string).collect();
        if !names.is_empty() {
            self.progress.step(&format!("restarting {}", names.join(", ")));
        }
        self.restart_some(&self.job.services)
    }

    pub(super) fn restart_down(&self) -> Result<Restarted, String> {
        self.restart_which(RestartScope::Stopped)
    }

    fn restart_which(&self, scope: RestartScope) -> Result<Restarted, String> {
        if scope == RestartScope::All {
            return self.restart();
        }
        let is_down = |service: &&Service| {
            !service::condition(self.context.root, service).is_ok_and(|condition| condition.up)
        };
        let down: Vec<Service> = self.job.services.iter().filter(is_down).cloned().collect();
        if down.is_empty() && self.units().is_empty() {
            return Ok(Restarted::default());
        }
        self.restart_some(&down)
    }

    fn restart_some(&self, services: &[Service]) -> Result<Restarted, String> {
        let (context, job) = (self.context, self.job);
        restart(context, job, services, &self.units(), self.baseline(), self.users())
    }

    /// The units that were stopped with the services.
    fn units(&self) -> Vec<String> {
        self.halt.borrow().units().to_vec()
    }

    pub(super) fn users(&self) -> &VenvUsage {
        self.users.get_or_init(|| users_of(self.context, self.job))
    }

    fn baseline(&self) -> &Baseline {
        self.baseline.get_or_init(|| Baseline::of_services(self.context, self.job))
    }
}
