//! The second half of a rebuild, as far as the swap: the services are stopped, what was written
//! and deleted meanwhile is carried over, and the two trees change places in one system call.

use super::Context;
use super::account::owner;
use super::halt::{Halt, Triggers};
use super::install_spec::Installed;
use super::job::Job;
use super::names::{self, name_of};
use super::prepare::{NotRebuilt, Prepared, RebuildError, Work, swap_of};
use super::trees::{Pair, left_behind};
use crate::host::clock::Deadline;
use crate::host::tree::Parent;
use crate::owner::{Carried, Pass};
use crate::service;
use crate::store::{JournalState, Swap};

/// A venv whose new tree is in place, its services not yet started.
#[derive(Debug)]
pub(super) struct Rebuilt {
    pub(super) swap: Swap,
    /// What a person should know.
    pub(super) notes: Vec<String>,
}

/// Swaps a prepared tree in.
pub(super) fn swap_in(
    context: &Context,
    job: &Job,
    prepared: Prepared,
    deadline: Deadline,
    halt: &mut Halt,
) -> Result<Rebuilt, NotRebuilt> {
    let Prepared { tree, installed, rested } = prepared;
    let (root, owner) = (context.root, owner(context, &job.venv));
    let parent = Parent::of(&job.venv.path)?;
    let mut swap = swap_of(job, &tree);
    let preparing = tree.preparing();
    let failed = |error: RebuildError| NotRebuilt::at(&preparing, &error);
    let pair = Pair::new(&job.venv, &owner, tree.path(), swap.minor);
    if rested {
        // What takes long is done while the services still run.
        let all = pair.carry(root, Pass::All, deadline.left());
        all.map_err(|error| failed(RebuildError::Carry(error)))?;
        parent.sync_all().map_err(|error| failed(error.into()))?;
    }
    let mut carried = Carried::default();
    let stopped = halt.while_stopped(context, job, &preparing, Triggers::GoOn, || {
        carried = pair.carry(root, Pass::Last, deadline.left()).map_err(RebuildError::Carry)?;
        let is_same = Installed::of(root, &job.venv) == installed;
        is_same.then_some(()).ok_or(RebuildError::Changed)
    });
    stopped.map_err(|halted| failed(halted.into()))?;
    if parent.identity(name_of(&job.venv.path)) != Some(swap.previous.identity) {
        return Err(failed(RebuildError::Changed));
    }
    let mut notes = tree.notes.clone();
    swap.previous.holds_files |= !carried.left.is_empty();
    notes.extend(carried.notes.into_lines());
    notes.extend(left_behind(carried.left));
    let swapping = JournalState::Swapping(swap.clone());
    job.begin(context, swapping, halt.units()).map_err(|error| failed(error.into()))?;
    exchange(&parent, job, &swap).map_err(|error| {
        // It may be done, and not on the disk: what failed is not to be proved.
        let returning = JournalState::Returning(swap.clone());
        let _ = job.begin(context, returning.clone(), halt.units());
        NotRebuilt::at(&returning, &error)
    })?;
    Ok(Rebuilt { swap, notes })
}

fn exchange(parent: &Parent, job: &Job, swap: &Swap) -> Result<(), RebuildError> {
    let path = name_of(&job.venv.path);
    if parent.identity(path) != Some(swap.previous.identity) {
        return Err(RebuildError::Changed);
    }
    let aside = names::from_beside(&job.venv.path, swap.previous.path());
    Ok(parent.exchange(&aside, path)?)
}

impl Work<'_> {
    /// Where no mount namespace can be had: the venv is away while it is built, and its services
    /// are down.
    pub(super) fn in_place(mut self, halt: &mut Halt) -> Result<Rebuilt, NotRebuilt> {
        let mut state = self.tree.preparing();
        match self.swap_and_build(halt, &mut state) {
            Ok(()) => Ok(Rebuilt { swap: self.swap(), notes: self.tree.notes }),
            Err(error) => Err(NotRebuilt::at(&state, &error)),
        }
    }

    fn swap_and_build(
        &mut self,
        halt: &mut Halt,
        state: &mut JournalState,
    ) -> Result<(), RebuildError> {
        let before = self.smoke(&[]);
        let in_place = JournalState::BuildingInPlace(self.swap());
        let (context, job) = (self.context, self.job);
        halt.while_stopped(context, job, &in_place, Triggers::Stopped, || Ok(()))
            .map_err(RebuildError::from)?;
        job.begin(context, in_place.clone(), halt.units())?;
        *state = in_place;
        exchange(&self.parent, job, &self.swap())?;
        let (owner, aside) = (self.owner.clone(), self.tree.path().to_path_buf());
        let pair = Pair::new(&job.venv, &owner, &aside, self.target.minor).swapped();
        self.build(pair, &[])?;
        let notes = self.compare(|| before, &[])?;
        self.tree.notes.extend(notes);
        if let Some(service) = service::came_up_again(context.root, job.services()) {
            // It may have begun its data anew in the half-built tree.
            return Err(RebuildError::Halt(format!("{service} was started meanwhile")));
        }
        // Programs that are no service's may have gone on writing into either tree.
        let carried = pair.carry_from_aside(context.root, Pass::Last, self.deadline.left());
        self.note(carried.map_err(RebuildError::Carry)?);
        self.parent.sync_all()?;
        let swapping = JournalState::Swapping(self.swap());
        job.begin(context, swapping.clone(), halt.units())?;
        *state = swapping;
        Ok(())
    }
}
