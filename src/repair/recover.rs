//! Recovery after a crash: the journal says what was begun, the disk says what was done.

use std::io;

use super::adopt::Repair;
use super::execute::{run_and_record, tell};
use super::halt::Halt;
use super::job::{Done, Job};
use super::record::{Recorder, sweep};
use super::states::{self, Step};
use super::trees::{put_back, standing};
use super::{Context, hooks, names};
use crate::host::file::printable;
use crate::host::tree::{self, Parent};
use crate::plan::Decision;
use crate::python::Interpreters;
use crate::store::{JournalEntry, JournalState, PendingRemoval, Registry};
use crate::venv::{self, NotAVenv, Venv};

/// Finishes or undoes every repair in the journal. Afterwards every path holds a whole venv and the
/// journal is empty, except for repairs that could not be finished: they are reported, stay in the
/// journal, and do not hinder the others. Returns whether all is well.
pub(crate) fn recover(context: &Context, registry: &mut Registry, now: &Interpreters) -> bool {
    let mut all_well = true;
    let open = context.store.open_journal();
    let was_interrupted = !open.is_empty();
    for entry in open {
        let result = match entry {
            Ok(journal) => recover_one(context, registry, now, &journal)
                .map_err(|error| format!("{}: {error}", journal.name())),
            Err(error) => Err(match context.store.advice(&error) {
                Some(advice) => format!("{error}\nhint: {advice}"),
                None => error.to_string(),
            }),
        };
        all_well &= result.unwrap_or_else(|error| {
            context.report.error(&format!("cannot finish an interrupted repair: {error}"));
            false
        });
    }
    if was_interrupted {
        // The interrupted run had no time to remove the trees that it no longer needed.
        sweep(context, registry);
    }
    all_well
}

/// The outcome for one entry of the journal.
enum Recovered {
    /// The repair was finished; whether it succeeded.
    Repaired(bool),
    /// There was nothing to repair; whether all is well.
    LeftAlone(bool),
}

/// Why an interrupted repair cannot be finished.
#[derive(Debug, thiserror::Error)]
enum RecoverError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error(transparent)]
    NotAVenv(#[from] NotAVenv),
}

fn recover_one(
    context: &Context,
    registry: &mut Registry,
    now: &Interpreters,
    journal: &JournalEntry,
) -> Result<bool, RecoverError> {
    let recovered = recover_venv(context, registry, now, journal);
    if let Ok(Recovered::Repaired(is_well)) = recovered {
        return Ok(is_well);
    }
    // Start the services that were stopped for the repair, even if the venv cannot be repaired.
    for note in Halt::of(journal).start_what_is_left(context.root) {
        context.report.note(&format!("{}: {note}", journal.name()));
    }
    recovered.map(|recovered| matches!(recovered, Recovered::LeftAlone(true)))
}

fn recover_venv(
    context: &Context,
    registry: &mut Registry,
    now: &Interpreters,
    journal: &JournalEntry,
) -> Result<Recovered, RecoverError> {
    let (store, report) = (context.store, context.report);
    // Fail now if the journal cannot be written: otherwise every attempt would restart the
    // services, and could not record it.
    store.write_journal(journal)?;
    let (name, path) = (journal.name(), journal.path());
    let mut step = states::next(&journal.state, standing(path, &journal.state));
    report.note(&format!("{name}: interrupted repair: {}", in_words(step)));
    let leave_alone = |is_well| {
        store.close_journal(journal.id())?;
        Ok(Recovered::LeftAlone(is_well))
    };
    if let (Step::Abandon, JournalState::Preparing { aside, .. }) = (step, &journal.state) {
        Parent::of(path)?.remove_if_empty(&names::from_beside(path, &aside.0))?;
        return leave_alone(true);
    }
    if step == Step::Stop {
        let nothing = format!("{} does not exist", printable(path));
        return Err(io::Error::other(nothing).into());
    }
    let venv = find_venv(context, journal, &mut step)?;
    let Some(entry) = registry.get_mut(journal.id()) else {
        if let (Step::SwapBack, Some(swap)) = (step, journal.state.swap()) {
            put_back(path, swap)?;
        }
        report.note(&format!(
            "{name}: it is no longer registered; the remains of its repair are beside {}, where you can remove them",
            printable(path)
        ));
        return leave_alone(true);
    };
    if let (Step::LeaveAlone, Some(swap)) = (step, journal.state.swap()) {
        let (previous, previous_path) = (swap.previous.clone(), swap.previous.path());
        if tree::identity(previous.path()) == Some(previous.identity) {
            let kept = printable(previous.path());
            report.note(&format!("{name}: the previous environment is kept at {kept}"));
            entry.previous_trees.put_aside(previous);
            store.save_registry(registry)?;
        }
        if tree::identity(previous_path) == Some(swap.new) {
            registry.pending_removals.push(PendingRemoval::new(previous_path, swap.new));
            store.save_registry(registry)?;
        }
        return leave_alone(false);
    }
    let venv = match venv {
        // There is nothing to do if it is no longer a venv.
        Err(error) if matches!(step, Step::Restart | Step::Refresh | Step::NotRestored) => {
            report.note(&format!("{name}: {error}"));
            return leave_alone(false);
        }
        other => other?,
    };
    let (entry, decision) = (entry.clone(), blaming(journal.decision.clone()));
    let job = Job { decision, entry, venv };
    let recorder = Recorder::new(context, registry);
    let outcome = run_and_record(&recorder, now, &job, Halt::of(journal), |repair: &Repair| {
        repair.go_on(step, &journal.state, "it was interrupted")
    });
    tell(context, &outcome);
    // Nothing runs before a tree is built for later.
    if !matches!(journal.state, JournalState::Preparing { to_rest: true, .. }) {
        hooks::after(context, &job, &outcome);
    }
    let is_well = !matches!(
        outcome.done,
        Done::Failed { .. } | Done::Unfinished { .. } | Done::Rebuilt { because: Some(_), .. }
    );
    Ok(Recovered::Repaired(is_well))
}

/// Blames the repair for every service that is down after an interruption.
fn blaming(decision: Decision) -> Decision {
    Decision { were_up: decision.services.clone(), ..decision }
}

/// The venv, for the next step. If its path is empty, or holds a half-built tree without a venv
/// beside it, the previous environment is put back first.
fn find_venv(
    context: &Context,
    journal: &JournalEntry,
    step: &mut Step,
) -> io::Result<Result<Venv, NotAVenv>> {
    let path = journal.path();
    let Some(swap) = journal.state.swap() else { return Ok(venv::inspect(context.root, path)) };
    if *step == Step::SwapBack {
        if let Ok(old) = venv::inspect(context.root, swap.previous.path()) {
            return Ok(Ok(Venv { path: path.to_path_buf(), ..old }));
        }
    }
    if matches!(step, Step::SwapBack | Step::PutBack) {
        put_back(path, swap)?;
        *step = Step::KeepPrevious;
    }
    Ok(venv::inspect(context.root, path))
}

fn in_words(step: Step) -> &'static str {
    match step {
        Step::Restart => "restarting its services",
        Step::Refresh => "copying its interpreters again",
        Step::Abandon => "it had not begun",
        Step::Discard | Step::Remove => "removing the unfinished new environment",
        Step::KeepPrevious => "the previous environment is in place",
        Step::PutBack | Step::SwapBack => "putting the previous environment back",
        Step::Prove => "the new environment is in place, restarting its services",
        Step::NotRestored => "the venv was not rolled back",
        Step::Restored => "the previous environment is in place, restarting its services",
        Step::LeaveAlone => "another directory has been placed there since; leaving it alone",
        Step::Stop => "the venv is gone",
    }
}

#[cfg(test)]
mod tests;
