//! Back to the previous environment a rebuild, because somebody wants it.

use std::io;
use std::path::Path;

use super::execute::Recorder;
use super::halt::{Halt, Halted, Triggers};
use super::job::{Done, Job, Outcome};
use super::one::{Repair, RepairResult};
use super::restart::Restarted;
use super::stage::{from_beside, name_of};
use super::target::owner;
use super::trees::{LOOK_LIMIT, Pair, drop_repeats, left_behind};
use super::{Context, pin};
use crate::host::file::printable;
use crate::host::tree::Parent;
use crate::owner::{Carried, Pass};
use crate::plan::{self, Remedy};
use crate::python::{Interpreters, Minor};
use crate::service::Service;
use crate::store::{JournalState, PreviousTree, Registry, RegistryEntry, StoreError, Swap};
use crate::venv::{self, NotAVenv, Venv};

/// Why nothing was rolled back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RollbackError {
    #[error("no previous environment is kept")]
    NoPreviousTree,
    #[error("no tree that is called {wanted} is kept (`venvguard show` names them)")]
    NoSuchTree { wanted: String },
    #[error(
        "the previous environment {path} is not there any more, or something else has its place (`venvguard show` names the others, `--to` takes one)"
    )]
    Gone { path: String },
    #[error(
        "nothing stands at {venv}; the previous environment is put there by `mv {kept} {venv}`"
    )]
    NothingStands { venv: String, kept: String },
    #[error("an interrupted repair of it is not result yet (see `venvguard resume`)")]
    Unfinished,
    #[error("the previous environment {path} needs Python {minor}, which is not installed (try `apt install {}`)", .minor.program())]
    InterpreterGone { path: String, minor: Minor },
    #[error("the previous environment is no venv: {0}")]
    NotAVenv(#[from] NotAVenv),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Exchanges the venv with a previous environment, the latest or the one that is `wanted`, and restarts. What stood there becomes the kept
/// tree, working or not: a rollback can be rolled back.
pub(crate) fn rollback(
    context: &Context,
    registry: &mut Registry,
    now: &Interpreters,
    entry: &RegistryEntry,
    wanted: Option<&Path>,
    services: Vec<Service>,
) -> Result<Outcome, RollbackError> {
    let before = match wanted {
        None => entry.previous_trees.latest_first().next().ok_or(RollbackError::NoPreviousTree)?,
        Some(wanted) => entry
            .previous_trees
            .named(wanted)
            .ok_or_else(|| RollbackError::NoSuchTree { wanted: printable(wanted) })?,
    };
    if context.store.has_journal(&entry.id) {
        return Err(RollbackError::Unfinished);
    }
    let path = entry.path();
    let parent = Parent::of(path)?;
    let (name, aside) = (name_of(path), &from_beside(path, before.path()));
    if parent.identity(aside) != Some(before.identity) {
        return Err(RollbackError::Gone { path: printable(before.path()) });
    }
    let current = parent.identity(name).ok_or_else(|| RollbackError::NothingStands {
        venv: printable(path),
        kept: printable(before.path()),
    })?;
    let tree = venv::inspect(context.root, before.path())?;
    let Some(interpreter) = now.get(tree.site) else {
        let path = printable(before.path());
        return Err(RollbackError::InterpreterGone { path, minor: tree.site });
    };
    // While it still is aside: in its place it must never run the wrong interpreter.
    let owner = owner(context, &tree);
    match plan::fallback(&tree, before.followed, now) {
        Some(Remedy::Pin) => {
            let links = pin::links_that_pin(context.root, &tree)?;
            if !links.is_empty() {
                registry.set_links(&entry.id, before.path(), links.clone());
                context.store.save_registry(registry)?;
            }
            pin::pin(context.root, &owner, &tree, links)?;
        }
        Some(Remedy::Refresh) => pin::refresh(context.root, &owner, &tree, interpreter)?,
        _ if before.followed => pin::unpin(context.root, &owner, &tree, &before.links)?,
        _ => {}
    }
    let standing = venv::inspect(context.root, path).ok();
    let follows = entry.pin.is_some() || standing.as_ref().is_some_and(Venv::follows);
    let previous = PreviousTree::new(before.path(), current, follows);
    // Of what is no venv it is not known which files are the user's.
    let previous = previous.that_holds_files(standing.is_none());
    let restored = Venv { path: path.to_path_buf(), ..tree.clone() };
    let follows = before.followed;
    let job = Job { follows, services, ..Job::new(entry, &restored, Remedy::None) };
    let swap = Swap { previous, new: before.identity, minor: tree.site };
    let step = JournalState::RollingBack { swap: swap.clone(), follows };
    job.begin(context, step.clone(), &[])?;
    let recorder = Recorder::new(context, registry);
    let site = standing.map(|venv| venv.site);
    Ok(recorder
        .run_and_record(now, &job, Halt::default(), |repair| repair.roll_back(&parent, swap, site)))
}

impl Repair<'_, '_> {
    /// Lets the trees change places while the services are stopped. The user files of the one that
    /// is in place, whose packages are for `site`, go with the venv.
    fn roll_back(&self, parent: &Parent, mut swap: Swap, site: Option<Minor>) -> RepairResult {
        let (context, job) = (self.context, self.job);
        let path = job.entry.path();
        let owner = owner(context, &job.venv);
        let place = swap.previous.path().to_path_buf();
        let (name, aside) = (name_of(path), from_beside(path, &place));
        let step = JournalState::RollingBack { swap: swap.clone(), follows: job.follows };
        self.users();
        let mut carried = Carried::default();
        let pass = Pass::Back { partial: false };
        let pair = Pair::new(&job.venv, &owner, &place, swap.minor);
        let pair = site.map(|site| Pair { in_place: site, ..pair });
        let mut halt = self.halt.borrow_mut();
        let stopped = halt.while_stopped(context, job, &step, Triggers::GoOn, || {
            if let Some(pair) = &pair {
                carried = pair.carry(context.root, pass.clone(), LOOK_LIMIT)?;
            }
            Ok::<_, io::Error>(())
        });
        drop(halt);
        let mut notes: Vec<String> = carried.notes.into_lines();
        swap.previous.holds_files |= !carried.left.is_empty();
        notes.extend(left_behind(carried.left));
        if let Err(halted) = stopped {
            let because = match halted {
                Halted::Stop(because) => because,
                Halted::Work(error) => format!("cannot carry its user files over: {error}"),
            };
            return self.not_rolled_back(because);
        }
        if let Err(error) = parent.exchange(&aside, name) {
            // Not exchanged, or not yet on the disk: then it can be taken back.
            if parent.identity(name) == Some(swap.new) {
                if let Err(again) = parent.exchange(&aside, name) {
                    let because = format!("the swap could be neither synced nor undone: {again}");
                    return Done::Unfinished { because }.into();
                }
            }
            return self.not_rolled_back(error.to_string());
        }
        if let Some(pair) = pair.map(Pair::swapped) {
            // What is no service's may have written until now.
            let late = Pass::Late { partial: false };
            match pair.carry_from_aside(context.root, late, LOOK_LIMIT) {
                Ok(carried) => {
                    swap.previous.holds_files |= !carried.left.is_empty();
                    notes.extend(left_behind(carried.left));
                }
                Err(error) => {
                    swap.previous.holds_files = true;
                    notes.push(format!("cannot carry what was written last: {error}"));
                }
            }
            drop_repeats(&mut notes);
        }
        let mut result = self.restore(swap.previous, swap.minor);
        result.notes.splice(0..0, notes);
        result
    }

    fn not_rolled_back(&self, because: String) -> RepairResult {
        let notes =
            self.restart_down().map_or_else(|error| vec![error], |restarted| restarted.notes);
        RepairResult { notes, ..Done::unchanged(because).into() }
    }

    /// The tree that was wanted back is in place: its services are started. It stays, whatever
    /// they say: it is what somebody asked for.
    pub(super) fn restore(&self, mut previous: PreviousTree, minor: Minor) -> RepairResult {
        let (because, restarted) = match self.restart() {
            Ok(restarted) => (None, restarted),
            Err(because) => (Some(because), Restarted::default()),
        };
        let mut notes = restarted.notes;
        if !previous.holds_files {
            let mut swap = Swap { previous, new: (0, 0), minor };
            notes.extend(self.note_late_writes(&mut swap));
            previous = swap.previous;
        }
        let pinned = self.job.follows && self.now.default != Some(minor);
        let done = Done::Restored { minor, previous, pinned, because };
        RepairResult { notes, restarted: restarted.services, ..done.into() }
    }
}
