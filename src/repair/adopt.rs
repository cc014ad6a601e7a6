//! The repair of one venv: from its decision, or from the state in which a crash left it.
//!
//! ```text
//! restart   restarting ─ restart
//! refresh   refreshing ─ copy ─ restart
//! rebuild   preparing ─ build ─ stop ─ last copy ─ swapping ─ swap ─ start ─┬─ proved: previous kept
//!                └─ failed ── returning ─ stop ─ copy back ─ swap ──────────┴─ previous made to work
//! pin       the registry says so ─ pin
//! restore   restoring ─ stop ─ copy back ─ swap ─ start
//! ```
//!
//! The journal is written before a step. The [`Recorder`] closes it once the registry holds the
//! result. In between, only the disk says which tree is where, and [`states`] names the next step.
//! No tree is removed before the new one runs.

use std::cell::{Cell, OnceCell, RefCell};
use std::sync::{Mutex, PoisonError};

use super::account::owner;
use super::halt::Halt;
use super::job::{Done, Job};
use super::not_rebuilt::NotRebuilt;
use super::pin::PinError;
use super::prepare::{Build, Prepared};
use super::record::Recorder;
use super::restart::{Baseline, Proof, Restarted, check_of, tell, users_of};
use super::states::{self, Step};
use super::swap::{Rebuilt, SwapIn};
use super::trees::{LOOK_LIMIT, put_back, standing};
use super::turns::{self, Turns};
use super::{Context, pin, readiness};
use crate::host::file::printable;
use crate::plan::{
    self, Fallback, Finding, Phase, Reason, Remedy, Restraint, State, Target, Until,
};
use crate::python::{Interpreters, Minor};
use crate::report::{self, Progress};
use crate::service::{self, Service, VenvUsage};
use crate::store::{CheckFailure, JournalState, PendingRemoval, PreviousTree};
use crate::venv::{self, BaseLink, Venv};

/// One venv's repair.
pub(super) struct Repair<'a, 'recorder> {
    pub(super) context: &'a Context<'a>,
    pub(super) recorder: &'a Recorder<'recorder>,
    pub(super) now: &'a Interpreters,
    pub(super) job: &'a Job,
    pub(super) progress: Progress,
    /// Taken before the repair begins.
    pub(super) baseline: OnceCell<Baseline>,
    /// What runs out of the venv, taken before the trees are swapped.
    pub(super) users: OnceCell<VenvUsage>,
    pub(super) halt: RefCell<Halt>,
    /// The services restart in turns, and those whose turn has not come run on.
    pub(super) in_turns: Cell<bool>,
    /// The services that were told to stop or restart, or will be at the next step.
    pub(super) reached: Mutex<Vec<Service>>,
    /// The result of the venv's check, whenever it was run last.
    pub(super) checked: Mutex<Option<Result<(), CheckFailure>>>,
    /// Prepared trees that were no longer valid.
    pub(super) discarded: RefCell<Vec<PendingRemoval>>,
}

/// How a repair ended, what else a person should know, and what to remove.
pub(super) struct RepairResult {
    pub(super) done: Done,
    pub(super) notes: Vec<String>,
    pub(super) restarted: Vec<Service>,
    pub(super) pending_removal: Option<PendingRemoval>,
    /// A new tree that failed, and is kept nevertheless.
    pub(super) aside: Option<PreviousTree>,
    /// Why there is no prepared tree.
    pub(super) findings: Vec<Finding>,
}

impl From<Done> for RepairResult {
    fn from(done: Done) -> Self {
        let (notes, restarted, findings) = (Vec::new(), Vec::new(), Vec::new());
        Self { done, notes, restarted, pending_removal: None, aside: None, findings }
    }
}

/// A repair whose next step is the swap or the restart.
pub(super) enum Ready {
    Ended(RepairResult),
    /// The venv is whole.
    Restart,
    /// Its copies of the interpreter are the new ones.
    Refreshed,
    /// The new tree is ready beside the venv.
    Swap {
        prepared: Prepared,
        notes: Vec<String>,
    },
    /// There is no new tree.
    NotBuilt(NotRebuilt),
    /// It is not rebuilt, for this reason.
    FallBack(String),
    /// Its links are changed, if that was possible.
    Pinned(Pinned),
}

/// A pin whose services are not restarted yet.
pub(super) struct Pinned {
    pub(super) minor: Minor,
    pub(super) until: Until,
    pub(super) because: Option<String>,
    pub(super) scope: RestartScope,
    /// Whether the links could be changed.
    pub(super) result: Result<(), PinError>,
}

impl RepairResult {
    pub(super) fn with(done: Done, restarted: Restarted) -> Self {
        Self { notes: restarted.notes, restarted: restarted.services, ..done.into() }
    }
}

/// Which services are restarted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RestartScope {
    /// Those that are down: the others run the right code.
    Stopped,
    All,
}

impl<'a, 'recorder> Repair<'a, 'recorder> {
    pub(super) fn new(
        recorder: &'a Recorder<'recorder>,
        now: &'a Interpreters,
        job: &'a Job,
        halt: Halt,
    ) -> Self {
        let context = recorder.context;
        let progress = context.report.progress(&job.entry.name);
        let (baseline, users, halt) = (OnceCell::new(), OnceCell::new(), RefCell::new(halt));
        Self {
            context,
            recorder,
            now,
            job,
            progress,
            baseline,
            users,
            halt,
            in_turns: Cell::new(false),
            reached: Mutex::new(job.services().to_vec()),
            checked: Mutex::default(),
            discarded: RefCell::default(),
        }
    }
}

impl Repair<'_, '_> {
    /// Why no repair begins: an interrupted one must be finished first.
    pub(super) fn interrupted(&self) -> Option<RepairResult> {
        self.context.store.has_journal(self.job.id()).then(|| {
            let because = "an interrupted repair of it is not finished yet".to_string();
            Done::Unfinished { because }.into()
        })
    }

    /// Writes the journal, then does the work.
    fn begun(&self, state: JournalState, work: impl FnOnce() -> Ready) -> Ready {
        match self.job.begin(self.context, state, &self.units()) {
            Ok(()) => work(),
            Err(error) => Ready::Ended(Done::unchanged(error.to_string()).into()),
        }
    }

    /// Carries the decision out, up to the point at which the services of the venv are stopped,
    /// started or restarted: `together::finish` does that for all venvs that share them.
    pub(super) fn get_ready(&self) -> Ready {
        let job = self.job;
        if let Some(unfinished) = self.interrupted() {
            return Ready::Ended(unfinished);
        }
        if let Some(withheld) = self.withheld() {
            return withheld;
        }
        if job.decision.target().is_none() {
            let works = job.decision.phase == Phase::Now;
            let _ = self.baseline.set(Baseline::take(self.context, job, works));
        }
        if matches!(job.decision.remedy, Remedy::Restart | Remedy::Refresh) {
            self.in_turns.set(turns::pause(self.context, job).is_some());
        }
        match &job.decision.remedy {
            Remedy::None | Remedy::Impossible => Ready::Ended(Done::Nothing.into()),
            Remedy::Restart if !self.has_to_prove() => Ready::Ended(Done::Nothing.into()),
            Remedy::Restart => self.begun(JournalState::Restarting, || Ready::Restart),
            Remedy::Refresh => {
                self.begun(JournalState::Refreshing, || match self.refresh(&job.venv) {
                    Ok(()) => Ready::Refreshed,
                    Err(done) => Ready::Ended(done.into()),
                })
            }
            Remedy::Pin { until, outdated, .. } => {
                let scope = if *outdated { RestartScope::All } else { RestartScope::Stopped };
                let reasons = || report::reasons_in_words(&job.decision).join("; ");
                let because = (*until == Until::Rebuilt).then(reasons);
                Ready::Pinned(self.pin_links(&job.venv, *until, because, scope))
            }
            Remedy::Rebuild { target, .. } => self.rebuild(*target),
            Remedy::Restore { tree, identity, minor, adjust } => {
                Ready::Ended(self.roll_back(&tree.0, *identity, *minor, *adjust))
            }
        }
    }

    /// Whether there is anything to restart, or to check: a check needs no service.
    fn has_to_prove(&self) -> bool {
        !self.job.services().is_empty() || check_of(self.context, self.job).is_some()
    }

    /// Names what the decision leaves as it is.
    pub(super) fn with_left_alone(&self, result: RepairResult) -> RepairResult {
        let decision = &self.job.decision;
        let is_reported = |reason: &&Reason| match reason {
            Reason::NotUnasked { restraint, .. } => *restraint != Restraint::Never,
            // Other results say it where it matters.
            Reason::EmbeddedIn(_) => matches!(decision.remedy, Remedy::Restore { .. }),
            other => matches!(other, Reason::LeftAlone { .. }),
        };
        let told = decision.reasons.iter().filter(is_reported).map(report::reason_in_words);
        RepairResult { notes: told.chain(result.notes).collect(), ..result }
    }

    /// Takes the next step of the table, after an interruption or a failure.
    pub(super) fn go_on(&self, step: Step, state: &JournalState, because: &str) -> RepairResult {
        let Some(swap) = state.swap() else {
            return match (step, state) {
                (Step::Restart, _) => self.restart_unchanged(),
                (Step::Refresh, _) => self.refresh_and_restart(&self.job.venv),
                (_, JournalState::Preparing { aside, new: Some(new), .. }) => {
                    let result = match step {
                        Step::Discard => {
                            self.fall_back(because.into(), Until::Rebuilt, RestartScope::Stopped)
                        }
                        _ => Done::Nothing.into(),
                    };
                    let unfinished = PendingRemoval::new(&aside.0, *new);
                    RepairResult { pending_removal: Some(unfinished), ..result }
                }
                _ => Done::Nothing.into(),
            };
        };
        match step {
            Step::Prove => {
                let mut swap = swap.clone();
                let notes = self.note_late_writes(&mut swap).into_iter().collect();
                self.prove(swap, notes, self.restart())
            }
            Step::Restored => self.restored(swap.previous.clone(), swap.minor),
            Step::NotRestored => match self.restart_down() {
                Ok(restarted) => RepairResult { notes: restarted.notes, ..Done::Nothing.into() },
                Err(because) => Done::unchanged(because).into(),
            },
            Step::SwapBack => self.swap_back(swap, state, because.into()),
            Step::PutBack => match put_back(self.job.entry.path(), swap) {
                Ok(()) => self.keep_previous(swap, state, because),
                Err(error) => Done::not_put_back(because, &error).into(),
            },
            Step::KeepPrevious => self.keep_previous(swap, state, because),
            _ => {
                let venv = printable(self.job.entry.path());
                let because = format!("{because}\nthe directory at {venv} is neither of its trees");
                Done::Unfinished { because }.into()
            }
        }
    }

    /// Continues after a failure: the state in the journal and the disk determine the next step.
    pub(super) fn recover(
        &self,
        state: &JournalState,
        because: &str,
        notes: Vec<String>,
    ) -> RepairResult {
        let step = states::next(state, standing(self.job.entry.path(), state));
        let result = match step {
            Step::Abandon => self.fall_back(because.into(), Until::Rebuilt, RestartScope::Stopped),
            step => self.go_on(step, state, because),
        };
        RepairResult { notes: [notes, result.notes.clone()].concat(), ..result }
    }

    /// Restarts the services of a venv that is whole.
    fn restart_unchanged(&self) -> RepairResult {
        Self::restarted(self.restart())
    }

    pub(super) fn restarted(restarted: Result<Restarted, String>) -> RepairResult {
        match restarted {
            // A service that began a oneshot's work in the meantime, for example.
            Ok(restarted) if restarted.services.is_empty() => {
                RepairResult::with(Done::Nothing, restarted)
            }
            Ok(restarted) => RepairResult::with(Done::Restarted, restarted),
            Err(because) => {
                let state = "the venv is unchanged".into();
                Done::Failed { because, state }.into()
            }
        }
    }

    pub(super) fn refresh_and_restart(&self, venv: &Venv) -> RepairResult {
        match self.refresh(venv) {
            Ok(()) => Self::refreshed(self.restart()),
            Err(done) => done.into(),
        }
    }

    /// Copies the interpreter and its version again. May be repeated.
    fn refresh(&self, venv: &Venv) -> Result<(), Done> {
        let Some(interpreter) = venv.base.minor.and_then(|minor| self.now.get(minor)) else {
            let because = format!("{} is not installed", printable(&venv.base.path));
            return Err(Done::unchanged(because));
        };
        self.progress.step("refreshing its interpreter");
        let owner = owner(self.context, venv);
        // Without it the venv is broken, so some time is always left for it.
        let left = self.recorder.time_left(venv.uid).unwrap_or_default();
        let limit = left.clamp(pin::LEAST, pin::LIMIT);
        pin::refresh(self.context.root, &owner, venv, interpreter, limit).map_err(|error| {
            let because = format!("cannot refresh its interpreter: {error}");
            Done::Unfinished { because }
        })
    }

    pub(super) fn refreshed(restarted: Result<Restarted, String>) -> RepairResult {
        match restarted {
            Ok(restarted) => RepairResult::with(Done::Refreshed, restarted),
            Err(because) => {
                let state =
                    "its interpreter is the new one; its services do not come up with it".into();
                Done::Failed { because, state }.into()
            }
        }
    }

    fn rebuild(&self, target: Target) -> Ready {
        let job = self.job;
        let runs_another = job.venv.base.link == BaseLink::Followed
            && plan::fallback(&job.venv, job.decision.follows, self.now) == Some(Fallback::Pin);
        if runs_another {
            // The venv works from now on, even if the rebuild fails; and its check and imports
            // can be tried before the rebuild.
            if let Err(error) = self.recorder.pin(job.id(), &job.venv, Until::Rebuilt, None) {
                self.context.report.note(&format!("{}: cannot pin it: {error}", job.entry.name));
            }
        }
        let works = venv::inspect(self.context.root, job.entry.path())
            .is_ok_and(|venv| plan::health(&venv, self.now, &[]).state == State::Healthy);
        self.progress.step("checking what works now");
        if works {
            let _ = self.baseline.set(Baseline::take(self.context, job, true));
        }
        self.baseline();
        let Some(limit) = self.recorder.time_left(job.venv.uid) else {
            let because = "this run has no time left for venvs of its owner (`owner-timeout` and `run-timeout` in the configuration); run `venvguard rebuild`, which has its own time limit";
            return Ready::FallBack(because.into());
        };
        self.users();
        match self.build(target, limit) {
            Ok((Build::Beside(prepared), notes)) => {
                self.swap_in_turns();
                Ready::Swap { prepared: *prepared, notes }
            }
            Ok((Build::InPlace(work), notes)) => {
                // Another venv that restarts the same service would start it on a half-built tree.
                let _alone = self.recorder.one_in_place();
                Ready::Ended(match work.in_place(&self.halt) {
                    Ok(Rebuilt { swap, notes: own }) => {
                        self.prove(swap, [notes, own].concat(), self.restart())
                    }
                    Err(error) => self.not_rebuilt(error),
                })
            }
            Err(error) => Ready::NotBuilt(error),
        }
    }

    /// The swap of a prepared tree. A finished build is not thrown away because the builds of other
    /// venvs have used up the time.
    pub(super) fn swap_in(&self, prepared: Prepared) -> SwapIn<'_> {
        self.progress.step("swapping the new environment in");
        let left = self.recorder.time_left(self.job.venv.uid).unwrap_or_default();
        let (limit, services) = (left.max(LOOK_LIMIT), self.reached());
        SwapIn { job: self.job, prepared, services, limit, halt: &self.halt }
    }

    /// Lets all services but those of the first turn run through the swap, if they restart in
    /// turns. They must not write into the venv meanwhile, so it must hold no user files.
    fn swap_in_turns(&self) {
        if turns::pause(self.context, self.job).is_none() {
            return;
        }
        let additions = readiness::additions(self.context, &self.job.venv);
        if additions.is_ok_and(|found| found.foreign.is_empty() && found.omitted == 0) {
            self.in_turns.set(true);
            let first = self.turns(self.job.services()).first;
            *self.reached.lock().unwrap_or_else(PoisonError::into_inner) = first;
        }
    }

    /// The services that were told to stop or restart, or will be at the next step.
    pub(super) fn reached(&self) -> Vec<Service> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The turns in which some services restart.
    fn turns(&self, services: &[Service]) -> Turns {
        let pause = turns::pause(self.context, self.job).filter(|_| self.in_turns.get());
        pause.map_or_else(|| Turns::at_once(services), |pause| Turns::of(services, pause))
    }

    /// Tests the services of a venv that works as before, and corrects what its result says of
    /// them: others that share them have changed since.
    pub(super) fn test_again(&self, result: RepairResult) -> RepairResult {
        let works = || self.restart_down().is_ok();
        let done = match result.done {
            Done::Pinned { minor, until, because, services: Some(_) } if works() => {
                Done::Pinned { minor, until, because, services: None }
            }
            Done::Failed { because, .. } if works() => Done::RolledBack { because },
            other => other,
        };
        RepairResult { done, ..result }
    }

    /// Restarts all services.
    pub(super) fn restart(&self) -> Result<Restarted, String> {
        self.restart_some(self.turns(self.job.services()))
    }

    pub(super) fn restart_down(&self) -> Result<Restarted, String> {
        self.restart_which(RestartScope::Stopped)
    }

    pub(super) fn restart_which(&self, scope: RestartScope) -> Result<Restarted, String> {
        if scope == RestartScope::All {
            return self.restart_some(self.turns(&self.reached()));
        }
        let is_down = |service: &&Service| {
            !service::condition(self.context.root, service).is_ok_and(|condition| condition.up)
        };
        let down: Vec<Service> = self.job.services().iter().filter(is_down).cloned().collect();
        if down.is_empty() && self.units().is_empty() {
            return Ok(Restarted::default());
        }
        self.restart_some(Turns::at_once(&down))
    }

    fn restart_some(&self, turns: Turns) -> Result<Restarted, String> {
        let first = turns.first.clone();
        // What runs before the restart is looked up first.
        let proof = self.proof(turns);
        proof.prove(self.context, tell(self.context, &first))
    }

    /// What must be true after all services were told to restart, in their turns.
    pub(super) fn proof_of_all(&self) -> Proof<'_> {
        self.proof(self.turns(self.job.services()))
    }

    /// What must be true after the services were told to restart.
    fn proof(&self, turns: Turns) -> Proof<'_> {
        let names: Vec<String> = self.job.services().iter().map(ToString::to_string).collect();
        if !names.is_empty() {
            self.progress.step(&format!("restarting {}", names.join(", ")));
        }
        let (baseline, before) = (self.baseline(), self.users());
        let (units, reached) = (self.units(), &self.reached);
        Proof { job: self.job, turns, units, baseline, before, reached, checked: &self.checked }
    }

    /// The units that were stopped with the services.
    pub(super) fn units(&self) -> Vec<String> {
        self.halt.borrow().units().to_vec()
    }

    pub(super) fn users(&self) -> &VenvUsage {
        self.users.get_or_init(|| users_of(self.context, self.job))
    }

    fn baseline(&self) -> &Baseline {
        self.baseline.get_or_init(|| Baseline::take(self.context, self.job, false))
    }
}
