//! The decisions of a plan, carried out and written down.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::adopt::{Repair, RepairResult};
use super::budget::Budget;
use super::halt::Halt;
use super::job::{Done, Job, Outcome};
use super::pin::{PinError, record_and_pin};
use super::together::Together;
use super::{Context, trees};
use crate::apt::marks;
use crate::host::clock::{Deadline, Stopwatch};
use crate::host::file::printable;
use crate::host::tree::{self, Parent};
use crate::host::{audit, parallel};
use crate::owner::RelinkedName;
use crate::plan::Until;
use crate::python::{Interpreters, Minor};
use crate::store::{
    Event, PendingRemoval, Pin, PreparedTree, PreviousTree, Registry, RegistryEntry, StoreError,
};
use crate::venv::{self, Venv};

/// Repairs the venvs, `at_once` at a time; each is told and written down as it ends. One
/// venv's failure, a panic included, stops no other.
pub(crate) fn execute(
    context: &Context,
    registry: &mut Registry,
    now: &Interpreters,
    jobs: Vec<Job>,
    at_once: usize,
) -> Vec<Outcome> {
    let together = Together::restart(context, &jobs);
    run_all(context, registry, now, jobs, at_once, |repair: &Repair| {
        match together.of(repair.job.id()) {
            Some(begun) => repair.restarted_together(begun),
            None => repair.run(),
        }
    })
}

/// Builds and checks the new environments that are decided, and lets them rest.
pub(crate) fn prepare_all(
    context: &Context,
    registry: &mut Registry,
    now: &Interpreters,
    jobs: Vec<Job>,
    at_once: usize,
) -> Vec<Outcome> {
    run_all(context, registry, now, jobs, at_once, |repair: &Repair| repair.prepare_only())
}

fn run_all(
    context: &Context,
    registry: &mut Registry,
    now: &Interpreters,
    jobs: Vec<Job>,
    at_once: usize,
    run: impl Fn(&Repair) -> RepairResult + Sync,
) -> Vec<Outcome> {
    let recorder = Recorder::new(context, registry);
    parallel::map(jobs, at_once, |job| recorder.run_and_record(now, &job, Halt::default(), &run))
}

/// How long one run may take to remove what nobody needs any more: on some disks each file waits
/// for the disk.
const SWEEP_LIMIT: Duration = Duration::from_secs(600);

/// What comes of each repair, written down as it ends: the registry, what `apt autoremove`
/// must not take, the history; and only then its journal is closed.
pub(super) struct Recorder<'a> {
    context: &'a Context<'a>,
    written: Mutex<Written<'a>>,
    budget: Budget,
}

struct Written<'a> {
    registry: &'a mut Registry,
    /// The minor versions that were marked as wanted already.
    wanted: BTreeSet<Minor>,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(context: &'a Context<'a>, registry: &'a mut Registry) -> Self {
        let seconds = |seconds| Duration::from_secs(seconds);
        let config = context.config;
        let budget = Budget::new(seconds(config.run_timeout), seconds(config.owner_timeout));
        let written = Mutex::new(Written { registry, wanted: BTreeSet::new() });
        Self { context, written, budget }
    }

    /// Lets `repair` run, tells what came of it, and enters it.
    pub(super) fn run_and_record(
        &self,
        now: &Interpreters,
        job: &Job,
        halt: Halt,
        repair: impl FnOnce(&Repair) -> RepairResult,
    ) -> Outcome {
        let progress = self.context.report.progress(&job.entry.name);
        let started = Stopwatch::start();
        let (context, progress) = (self.context, &progress);
        let (baseline, users, halt) = (OnceCell::new(), OnceCell::new(), RefCell::new(halt));
        let discarded = RefCell::default();
        let one = Repair {
            context,
            recorder: self,
            now,
            job,
            progress,
            baseline,
            users,
            halt,
            discarded,
        };
        let result = catch_unwind(AssertUnwindSafe(|| repair(&one))).unwrap_or_else(|_| {
            let because = "venvguard itself failed (this is a bug)".to_string();
            Done::Unfinished { because }.into()
        });
        let started_late = one.halt.borrow().start_what_is_left(context.root);
        progress.end();
        let notes = [result.notes, started_late].concat();
        let mut removals = one.discarded.take();
        removals.extend(result.pending_removal);
        let mut outcome = Outcome::new(job, result.done, result.restarted, notes);
        if let Err(error) = self.record_outcome(&outcome, job.venv.uid, removals, result.aside) {
            outcome.done = Done::Unfinished {
                because: format!("what was done cannot be written down: {error}"),
            };
        }
        self.budget.charge(job.venv.uid, started.elapsed());
        if let Some(words) = outcome.in_words() {
            self.context.report.outcome(&job.entry.name, words, &outcome.notes);
        }
        outcome
    }

    /// How long the next work on a venv of this owner may take, if any time is left for it.
    pub(super) fn time_left(&self, uid: u32) -> Option<Duration> {
        let left = self.budget.left(uid);
        let limit = Duration::from_secs(self.context.config.rebuild_timeout);
        (!left.is_zero()).then(|| left.min(limit))
    }

    /// Pins a venv; see [`record_and_pin`].
    pub(super) fn pin(
        &self,
        id: &str,
        venv: &Venv,
        until: Until,
        because: Option<&str>,
    ) -> Result<(), PinError> {
        record_and_pin(self.context, self.written().registry, id, venv, until, because)
    }

    /// Notes which links of a previous environment are changed, before they are.
    pub(super) fn note_links(
        &self,
        id: &str,
        tree: &Path,
        links: &[RelinkedName],
    ) -> Result<(), StoreError> {
        let mut written = self.written();
        written.registry.set_links(id, tree, links.to_vec());
        self.context.store.save_registry(written.registry)
    }

    /// Forgets a prepared tree that is worth nothing any more; the next sweep removes it.
    pub(super) fn discard_prepared(
        &self,
        id: &str,
        tree: PreparedTree,
    ) -> Result<PendingRemoval, StoreError> {
        let (removal, mut written) = (tree.into_removal(), self.written());
        written.registry.pending_removals.push(removal.clone());
        self.context.store.save_registry(written.registry)?;
        self.context.store.forget_prepared(id)?;
        Ok(removal)
    }

    /// Writes down what came of a repair. Other repairs go on meanwhile: what takes long is done
    /// while the registry is free.
    fn record_outcome(
        &self,
        outcome: &Outcome,
        uid: u32,
        removals: Vec<PendingRemoval>,
        aside: Option<PreviousTree>,
    ) -> Result<(), StoreError> {
        let Context { root, store, report, config } = *self.context;
        let mut written = self.written();
        let Written { registry, wanted } = &mut *written;
        let Some(entry) = registry.get_mut(&outcome.id) else { return Ok(()) };
        let before = entry.clone();
        if let Some(kept) = aside {
            entry.previous_trees.put_aside(kept);
        }
        let older = note_in_entry(entry, outcome, config.keep_trees.get());
        let after = entry.clone();
        let pending_removals: Vec<PendingRemoval> = removals.into_iter().chain(older).collect();
        if after != before || !pending_removals.is_empty() {
            let known = |one: &&PendingRemoval| registry.pending_removals.contains(one);
            let new: Vec<_> = pending_removals.iter().filter(|one| !known(one)).cloned().collect();
            registry.pending_removals.extend(new);
            store.save_registry(registry)?;
        }
        let pinned = match &outcome.done {
            Done::Pinned { minor, .. } | Done::Restored { minor, pinned: true, .. } => {
                wanted.insert(*minor).then_some(*minor)
            }
            _ => None,
        };
        if let Some((what, detail)) = outcome.in_words() {
            let event = Event::new(&after.name, after.path(), what, detail);
            if let Err(error) = store.record(&event.of(&outcome.decision)) {
                report.error(&format!("the history misses what was done: {error}"));
            }
        }
        drop(written);
        if let Some(Err((minor, error))) = pinned.map(|minor| marks::keep_installed(root, minor)) {
            report.error(&format!(
                "cannot mark {} as wanted, so that apt autoremove may take it: {error}",
                minor.program()
            ));
        }
        if matches!(outcome.done, Done::Rebuilt { .. } | Done::Restored { .. }) {
            let kept = venv::inspect(root, after.path())
                .map(|venv| super::keep_recipe(self.context, &after, &venv));
            if let Ok(Err(error)) = kept {
                report.error(&format!("{}: cannot keep its recipe: {error}", after.name));
            }
        }
        if matches!(outcome.done, Done::Unfinished { .. }) {
            return Ok(());
        }
        store.close_journal(&outcome.id)?;
        let limit = self.time_left(uid).unwrap_or_default().min(SWEEP_LIMIT);
        let gone = discard_all(self.context, &pending_removals, limit);
        forget(self.context, self.written().registry, &gone);
        Ok(())
    }

    fn written(&self) -> MutexGuard<'_, Written<'a>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an outcome changes about what is registered. Returns those of the trees that were put
/// aside which now are more than are previous.
fn note_in_entry(
    entry: &mut RegistryEntry,
    outcome: &Outcome,
    at_most: usize,
) -> Vec<PendingRemoval> {
    match &outcome.done {
        Done::Rebuilt { previous, .. } => {
            let links = entry.pin.take().map(|pinned| pinned.links);
            entry.previous_trees.put_aside(previous.clone().with_links(links.unwrap_or_default()));
            entry.previous_trees.forget_gone();
            return entry.previous_trees.take_surplus(at_most);
        }
        Done::Restored { minor, previous, pinned, .. } => {
            // The tree that came back was known by the path at which the other one is now.
            let known =
                entry.previous_trees.named(previous.path()).map(|known| known.links.clone());
            let pin = Pin::new(*minor, Until::Asked, None);
            let pin = Pin { links: known.unwrap_or_default(), ..pin };
            let before = std::mem::replace(&mut entry.pin, pinned.then_some(pin));
            let links = before.map(|pinned| pinned.links).unwrap_or_default();
            entry.previous_trees.put_aside(previous.clone().with_links(links));
        }
        Done::Pinned { minor, until, because, .. } => {
            let links = entry.pin.take().map(|pinned| pinned.links).unwrap_or_default();
            entry.pin = Some(Pin { links, ..Pin::new(*minor, *until, because.as_deref()) });
        }
        _ => {}
    }
    Vec::new()
}

/// Removes what nobody needs any more. What cannot be removed is reported, and tried again by the
/// next run.
pub(crate) fn sweep(context: &Context, registry: &mut Registry) {
    let gone = discard_all(context, &registry.pending_removals, SWEEP_LIMIT);
    forget(context, registry, &gone);
}

/// Returns those that are gone, or were replaced by somebody.
fn discard_all(
    context: &Context,
    pending_removals: &[PendingRemoval],
    limit: Duration,
) -> Vec<PendingRemoval> {
    let deadline = Deadline::after(limit);
    let is_gone = |one: &&PendingRemoval| {
        let path = printable(one.path());
        if is_another(one) {
            let note =
                format!("{path} is gone, or another directory than it was: leaving it alone");
            context.report.note(&note);
            return true;
        }
        match trees::discard(context.root, one.path(), one.identity, deadline) {
            Ok(()) => {
                let (action, place, message) = ("removed", Some(one.path()), &path);
                audit::Line { action, path: place, message, ..Default::default() }
                    .write(context.root);
                true
            }
            Err(error) => {
                context.report.note(&format!("cannot remove what nobody needs any more: {error}"));
                false
            }
        }
    };
    pending_removals.iter().filter(is_gone).cloned().collect()
}

fn forget(context: &Context, registry: &mut Registry, gone: &[PendingRemoval]) {
    let count = registry.pending_removals.len();
    registry.pending_removals.retain(|one| !gone.contains(one));
    if registry.pending_removals.len() < count {
        if let Err(error) = context.store.save_registry(registry) {
            context.report.error(&error.to_string());
        }
    }
}

/// Whether somebody has taken it away with the directory that it lay in, or put another one there.
fn is_another(one: &PendingRemoval) -> bool {
    match tree::identity(one.path()) {
        Some(_) => !tree::is_at(one.path(), one.identity),
        None => Parent::of(one.path()).is_err_and(|error| error.kind() == ErrorKind::NotFound),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Program, Root};
    use crate::plan::{Decision, Policy, Remedy, samples};
    use crate::report::Report;
    use crate::store::{Config, Store};
    use crate::venv::BaseLink;

    /// A machine whose systemd says the same of each unit.
    fn machine(shown: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path();
        for path in ["run/systemd/system", "usr/bin", "proc/1", "srv/shop/venv/lib/python3.11"] {
            std::fs::create_dir_all(base.join(path)).unwrap();
        }
        let script = format!(
            "#!/bin/sh\nshift 2\necho \"$@\" >>{}/calls\n\
             printf '{shown}'\n",
            base.display()
        );
        std::fs::write(base.join("script"), script).unwrap();
        let install = Program::new("/usr/bin/install").arg("-m755");
        install.args([base.join("script"), base.join("usr/bin/systemctl")]).run().unwrap();
        dir
    }

    #[test]
    fn a_service_that_was_left_alone_is_not_reported_as_restarted() {
        let ended = r"LoadState=loaded\nActiveState=inactive\nType=oneshot\nResult=success\n";
        let dir = machine(ended);
        let root = Root::new(dir.path().canonicalize().unwrap());
        let store = Store::new(&root);
        let mut registry = Registry::default();
        let venv = crate::plan::samples::subject(BaseLink::Pinned, Minor::new(3, 11)).venv;
        let entry = registry.add(&venv.path, None, Policy::Auto).unwrap().clone();
        let (config, report) = (Config::default(), Report::for_command());
        let context = Context { root: &root, store: &store, config: &config, report: &report };
        let services = vec!["systemd:backup.service".parse().unwrap()];
        let id = entry.id.clone();
        let decision = Decision { id, remedy: Remedy::Restart, services, ..samples::decision() };
        let job = Job { decision, entry, venv };
        let outcomes = execute(&context, &mut registry, &Interpreters::default(), vec![job], 1);
        let calls = std::fs::read_to_string(dir.path().join("calls")).unwrap();
        assert!(!calls.lines().any(|line| line.starts_with("restart")), "{calls}");
        assert_eq!(outcomes[0].restarted, []);
        assert!(outcomes[0].notes[0].contains("is left alone: "), "{outcomes:?}");
    }

    #[test]
    fn venvs_that_are_only_restarted_share_one_transaction() {
        let running = r"LoadState=loaded\nActiveState=active\nSubState=running\nType=simple\nResult=success\n";
        let dir = machine(running);
        let root = Root::new(dir.path().canonicalize().unwrap());
        let store = Store::new(&root);
        let mut registry = Registry::default();
        let (config, report) =
            (Config { stable_for: 0, ..Config::default() }, Report::for_command());
        let context = Context { root: &root, store: &store, config: &config, report: &report };
        let mut jobs = Vec::new();
        for (path, units) in [("/srv/a/venv", &["web", "db"][..]), ("/srv/b/venv", &["web"])] {
            let sample = samples::subject(BaseLink::Pinned, Minor::new(3, 11)).venv;
            let venv = Venv { path: path.into(), ..sample };
            let entry = registry.add(&venv.path, None, Policy::Auto).unwrap().clone();
            let services =
                units.iter().map(|unit| format!("systemd:{unit}").parse().unwrap()).collect();
            let (id, remedy) = (entry.id.clone(), Remedy::Restart);
            let decision = Decision { id, remedy, services, ..samples::decision() };
            jobs.push(Job { decision, entry, venv });
        }
        let outcomes = execute(&context, &mut registry, &Interpreters::default(), jobs, 2);
        let calls = std::fs::read_to_string(dir.path().join("calls")).unwrap();
        let restarts: Vec<&str> =
            calls.lines().filter(|line| line.starts_with("restart")).collect();
        assert_eq!(restarts, ["restart -- db.service web.service"], "{calls}");
        assert_eq!(outcomes.iter().map(|one| one.restarted.len()).collect::<Vec<_>>(), [2, 1]);
        assert!(store.open_journal().is_empty());
    }
}
