//! Restores a previous environment on request.

use std::io;
use std::path::Path;

use super::account::owner;
use super::adopt::{Repair, RepairResult};
use super::halt::{Halted, Stopping, Triggers, while_stopped};
use super::job::Done;
use super::names::{from_beside, name_of};
use super::restart::Restarted;
use super::trees::{LOOK_LIMIT, Pair, drop_repeats, left_behind};
use super::{Context, pin};
use crate::host::file::printable;
use crate::host::tree::{Identity, Parent};
use crate::owner::{Carried, Pass, RelinkedName};
use crate::plan::Adjust;
use crate::python::{Interpreters, Minor};
use crate::store::{JournalState, PreviousTree, RegistryEntry, StoreError, Swap};
use crate::venv::{self, NotAVenv, Venv};

/// Why nothing was rolled back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RollbackError {
    #[error("no previous environment is kept")]
    NoPreviousTree,
    #[error("no previous environment is named {wanted} (run `venvguard show` to list them)")]
    NoSuchTree { wanted: String },
    #[error(
        "the previous environment {path} no longer exists or was replaced (run `venvguard show` to list the others, and choose one with `--to`)"
    )]
    Gone { path: String },
    #[error("{venv} does not exist; run `mv {kept} {venv}` to put the previous environment there")]
    NothingStands { venv: String, kept: String },
    #[error(
        "an interrupted repair of it is not finished yet (run `venvguard resume` to finish it)"
    )]
    Unfinished,
    #[error("the previous environment {path} needs Python {minor}, which is not installed (try `apt install {}`)", .minor.program())]
    InterpreterGone { path: String, minor: Minor },
    #[error("the previous environment is not a venv: {0}")]
    NotAVenv(#[from] NotAVenv),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The previous environment to restore, the latest or the one that is `wanted`, if that is
/// possible.
pub(crate) fn previous_environment(
    context: &Context,
    now: &Interpreters,
    entry: &RegistryEntry,
    wanted: Option<&Path>,
) -> Result<(PreviousTree, Venv), RollbackError> {
    let previous = match wanted {
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
    let (name, aside) = (name_of(path), &from_beside(path, previous.path()));
    if parent.identity(aside) != Some(previous.identity) {
        return Err(RollbackError::Gone { path: printable(previous.path()) });
    }
    if parent.identity(name).is_none() {
        return Err(RollbackError::NothingStands {
            venv: printable(path),
            kept: printable(previous.path()),
        });
    }
    let tree = venv::inspect(context.root, previous.path())?;
    if now.get(tree.site).is_none() {
        let path = printable(previous.path());
        return Err(RollbackError::InterpreterGone { path, minor: tree.site });
    }
    Ok((previous.clone(), tree))
}

impl Repair<'_, '_> {
    /// Swaps the venv with a previous environment and restarts its services. The environment that
    /// was in place becomes the previous one, working or not: a rollback can be rolled back.
    pub(super) fn roll_back(
        &self,
        tree: &Path,
        identity: Identity,
        minor: Minor,
        adjust: Adjust,
    ) -> RepairResult {
        let (context, entry) = (self.context, &self.job.entry);
        let path = entry.path();
        let begun = Parent::of(path).map_err(RollbackError::Io).and_then(|parent| {
            let known = entry.previous_trees.named(tree).filter(|one| one.identity == identity);
            let known = known.ok_or_else(|| RollbackError::Gone { path: printable(tree) })?;
            let found = venv::inspect(context.root, tree)?;
            self.adjust(&found, &known.links, adjust)?;
            let current = parent
                .identity(name_of(path))
                .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            let standing = venv::inspect(context.root, path).ok();
            let follows = entry.pin.is_some() || standing.as_ref().is_some_and(Venv::follows);
            let previous = PreviousTree::new(tree, current, follows);
            // If it is not a venv, user files cannot be told from others.
            let previous = previous.that_holds_files(standing.is_none());
            let swap = Swap { previous, new: identity, minor };
            self.job.begin(context, JournalState::Restoring(swap.clone()), &[])?;
            Ok((parent, swap, standing.map(|venv| venv.site)))
        });
        match begun {
            Ok((parent, swap, site)) => self.swap_for_previous(&parent, swap, site),
            Err(error) => Done::unchanged(error.to_string()).into(),
        }
    }

    /// Adjusts the tree while it is still aside: once in place, it must never run an interpreter
    /// that its packages are not for.
    fn adjust(
        &self,
        tree: &Venv,
        links: &[RelinkedName],
        adjust: Adjust,
    ) -> Result<(), RollbackError> {
        let context = self.context;
        let owner = owner(context, tree);
        match adjust {
            Adjust::Nothing => {}
            Adjust::Pin => {
                let links = pin::links_that_pin(context.root, tree)?;
                if !links.is_empty() {
                    self.recorder.note_links(self.job.id(), &tree.path, &links)?;
                }
                pin::pin(context.root, &owner, tree, links)?;
            }
            Adjust::Unpin => pin::unpin(context.root, &owner, tree, links)?,
            Adjust::Refresh => {
                let interpreter = self
                    .now
                    .get(tree.site)
                    .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
                pin::refresh(context.root, &owner, tree, interpreter, pin::LIMIT)?;
            }
        }
        Ok(())
    }

    /// Swaps the trees while the services are stopped. Carries over the user files of the tree that
    /// is in place, whose packages are for `site`.
    fn swap_for_previous(
        &self,
        parent: &Parent,
        mut swap: Swap,
        site: Option<Minor>,
    ) -> RepairResult {
        let (context, job) = (self.context, self.job);
        let path = job.entry.path();
        let owner = owner(context, &job.venv);
        let place = swap.previous.path().to_path_buf();
        let (name, aside) = (name_of(path), from_beside(path, &place));
        let step = JournalState::Restoring(swap.clone());
        self.users();
        let mut carried = Carried::default();
        let pass = Pass::Back { partial: false };
        let pair = Pair::new(&job.venv, &owner, &place, swap.minor);
        let pair = site.map(|site| Pair { in_place: site, ..pair });
        let services = job.services().to_vec();
        let stopping = [Stopping { job, services, state: &step, halt: &self.halt }];
        let stopped = while_stopped(context, &stopping, Triggers::GoOn, || {
            if let Some(pair) = &pair {
                carried = pair.carry(context.root, pass.clone(), LOOK_LIMIT)?;
            }
            Ok::<_, io::Error>(())
        });
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
            // The swap did not happen, or it is not on the disk yet and can be undone.
            if parent.identity(name) == Some(swap.new) {
                if let Err(again) = parent.exchange(&aside, name) {
                    let because = format!("the swap could be neither synced nor undone: {again}");
                    return Done::Unfinished { because }.into();
                }
            }
            return self.not_rolled_back(error.to_string());
        }
        if let Some(pair) = pair.map(Pair::swapped) {
            // Programs outside services may have written until now.
            let late = Pass::Late { partial: false };
            match pair.carry_from_aside(context.root, late, LOOK_LIMIT) {
                Ok(carried) => {
                    swap.previous.holds_files |= !carried.left.is_empty();
                    notes.extend(left_behind(carried.left));
                }
                Err(error) => {
                    swap.previous.holds_files = true;
                    notes.push(format!("cannot carry the latest changes over: {error}"));
                }
            }
            drop_repeats(&mut notes);
        }
        let mut result = self.restored(swap.previous, swap.minor);
        result.notes.splice(0..0, notes);
        result
    }

    fn not_rolled_back(&self, because: String) -> RepairResult {
        let notes =
            self.restart_down().map_or_else(|error| vec![error], |restarted| restarted.notes);
        RepairResult { notes, ..Done::unchanged(because).into() }
    }

    /// The requested tree is in place: starts its services. The tree stays even if they fail,
    /// because somebody asked for it.
    pub(super) fn restored(&self, mut previous: PreviousTree, minor: Minor) -> RepairResult {
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
        let pinned = self.job.decision.follows && self.now.default != Some(minor);
        let done = Done::Restored { minor, previous, pinned, because };
        RepairResult { notes, restarted: restarted.services, ..done.into() }
    }
}
