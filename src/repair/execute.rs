//! The decisions of a plan, carried out and written down.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use super::course::{Course, Ended};
use super::job::{Done, Job, Outcome};
use super::{Context, stage};
use crate::host::command::CommandError;
use crate::host::{Program, Root, clock};
use crate::python::{Interpreters, Minor};
use crate::report;
use crate::store::{Anchored, Entry, Event, Registry, StoreError};
use crate::venv;

/// Repairs the venvs, `at_once` at a time; each is told and written down as it ends. One
/// venv's failure, a panic included, stops no other.
pub(crate) fn execute(
    context: &Context,
    registry: &mut Registry,
    now: &Interpreters,
    jobs: Vec<Job>,
    at_once: usize,
) -> Vec<Outcome> {
    let count = jobs.len();
    let ledger = Ledger::new(context, registry);
    let queue = Mutex::new(jobs.into_iter().enumerate());
    let outcomes = Mutex::new(Vec::with_capacity(count));
    std::thread::scope(|scope| {
        for _ in 0..at_once.clamp(1, count.max(1)) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((index, job)) = next else { return };
                    #[expect(
                        clippy::redundant_closure_for_method_calls,
                        reason = "the method alone is of one lifetime"
                    )]
                    let outcome = ledger.carry_out(now, &job, |course| course.run());
                    outcomes.lock().unwrap_or_else(PoisonError::into_inner).push((index, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcomes.sort_by_key(|(index, _)| *index);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// What comes of each repair, written down as it ends: the registry, what `apt autoremove`
/// must not take, the history; and only then its journal is closed.
pub(super) struct Ledger<'a> {
    context: &'a Context<'a>,
    books: Mutex<Books<'a>>,
}

struct Books<'a> {
    registry: &'a mut Registry,
    /// The minor versions that were marked as wanted already.
    wanted: BTreeSet<Minor>,
}

impl<'a> Ledger<'a> {
    pub(super) fn new(context: &'a Context<'a>, registry: &'a mut Registry) -> Self {
        Self { context, books: Mutex::new(Books { registry, wanted: BTreeSet::new() }) }
    }

    /// Lets `course` run, tells what came of it, and enters it.
    pub(super) fn carry_out(
        &self,
        now: &Interpreters,
        job: &Job,
        course: impl FnOnce(&Course) -> Ended,
    ) -> Outcome {
        let progress = self.context.report.progress(&job.entry.name);
        let one = Course { context: self.context, now, job, progress: &progress };
        let (done, notes) = catch_unwind(AssertUnwindSafe(|| course(&one))).unwrap_or_else(|_| {
            let because = "venvguard itself failed (this is a bug)".to_string();
            (Done::Unfinished { because }, Vec::new())
        });
        progress.end();
        let mut outcome = Outcome::new(job, done, notes);
        if let Err(error) = self.enter(&outcome) {
            outcome.done = Done::Unfinished {
                because: format!("what was done cannot be written down: {error}"),
            };
        }
        self.context.report.outcome(&job.entry.name, &outcome);
        outcome
    }

    fn enter(&self, outcome: &Outcome) -> Result<(), StoreError> {
        let Context { store, report, .. } = self.context;
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let Books { registry, wanted } = &mut *books;
        let Some(entry) = registry.get_mut(&outcome.id) else { return Ok(()) };
        let (name, path) = (entry.name.clone(), entry.path().to_path_buf());
        if let Done::Rebuilt { kept, .. } = &outcome.done {
            self.forget_older(entry, kept.path());
        }
        let before = entry.clone();
        note_in_entry(entry, &outcome.done);
        if *entry != before {
            store.save_registry(registry)?;
        }
        match &outcome.done {
            Done::Anchored { minor, .. } | Done::Restored { minor, anchored: true, .. }
                if wanted.insert(*minor) =>
            {
                if let Err(error) = keep_installed(self.context.root, *minor) {
                    report.error(&format!(
                        "cannot mark {} as wanted, so that apt autoremove may take it: {error}",
                        minor.program()
                    ));
                }
            }
            Done::Rebuilt { .. } => {
                if let Ok(venv) = venv::inspect(self.context.root, &path) {
                    super::keep_recipe(self.context, &outcome.id, &venv)?;
                }
            }
            _ => {}
        }
        if let Some((what, detail)) = report::outcome_in_words(outcome) {
            store.record(&Event::new(&name, &path, what, detail))?;
        }
        match outcome.done {
            Done::Unfinished { .. } => Ok(()),
            _ => store.close_journal(&outcome.id),
        }
    }

    /// The tree that the rebuild before this one had put aside has served its time.
    fn forget_older(&self, entry: &Entry, kept: &std::path::Path) {
        let Some(older) = entry.kept.as_ref().filter(|older| older.path() != kept) else { return };
        if let Err(error) = stage::discard(older.path(), Some(older.identity)) {
            let name = &entry.name;
            self.context
                .report
                .note(&format!("{name}: cannot remove an older tree, remove it yourself: {error}"));
        }
    }
}

/// What an outcome changes about what is registered.
fn note_in_entry(entry: &mut Entry, done: &Done) {
    let anchored = |to, reason| Some(Anchored { at: clock::now(), to, reason });
    match done {
        Done::Rebuilt { kept, .. } => {
            entry.anchored = None;
            entry.kept = Some(kept.clone());
        }
        Done::Restored { minor, kept, anchored: is_anchored, .. } => {
            entry.anchored =
                if *is_anchored { anchored(*minor, "it was rolled back".into()) } else { None };
            entry.kept = Some(kept.clone());
        }
        Done::Anchored { minor, because } => {
            let reason = because.clone().unwrap_or_else(|| "its policy is to stay".into());
            entry.anchored = anchored(*minor, reason);
        }
        _ => {}
    }
}

/// Keeps `apt autoremove` from taking an interpreter that an anchored venv needs.
fn keep_installed(root: &Root, minor: Minor) -> Result<(), CommandError> {
    let name = minor.program();
    let packages: Vec<String> = [format!("{name}-minimal"), name]
        .into_iter()
        .filter(|name| root.at(format!("/var/lib/dpkg/info/{name}.list")).exists())
        .collect();
    // A folder that stands for a system has no apt of its own to tell.
    if packages.is_empty() || !root.is_system() {
        return Ok(());
    }
    Program::new("/usr/bin/apt-mark").args(["manual", "-qq"]).args(packages).run().map(drop)
}
