//! The second half of a rebuild, up to the swap: stops the services, carries over what was written
//! and deleted since, and swaps the two trees in one system call.

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Duration;

use super::Context;
use super::account::owner;
use super::halt::{Halt, Halted, Stopping, Triggers, while_stopped};
use super::install_spec::Installed;
use super::job::Job;
use super::names::{self, name_of};
use super::not_rebuilt::{NotRebuilt, RebuildError};
use super::prepare::{Prepared, Work, swap_of};
use super::trees::{Pair, left_behind};
use crate::host::Root;
use crate::host::tree::Parent;
use crate::host::user::User;
use crate::owner::{Carried, Pass};
use crate::python::Minor;
use crate::service::{self, Service};
use crate::store::{JournalState, Swap};

/// A venv whose new tree is in place, its services not yet started.
#[derive(Debug)]
pub(super) struct Rebuilt {
    pub(super) swap: Swap,
    /// What a person should know.
    pub(super) notes: Vec<String>,
}

/// How long the services may be down for one last copy, however much time is left.
const LAST_COPY: Duration = Duration::from_secs(600);

/// A prepared tree that is to be swapped in.
pub(super) struct SwapIn<'a> {
    pub(super) job: &'a Job,
    pub(super) prepared: Prepared,
    /// The services that stop for it.
    pub(super) services: Vec<Service>,
    /// How long each copy of its user files may take.
    pub(super) limit: Duration,
    pub(super) halt: &'a RefCell<Halt>,
}

/// Swaps prepared trees in. Services that venvs share are stopped once. Starts nothing.
pub(super) fn swap_in(context: &Context, waiting: Vec<SwapIn>) -> Vec<Result<Rebuilt, NotRebuilt>> {
    let mut swaps: Vec<_> = waiting.into_iter().map(|one| PendingSwap::new(context, one)).collect();
    let mut open: Vec<&mut PendingSwap> = swaps.iter_mut().flatten().collect();
    let stopped = stop_and_copy(context, &mut open);
    if stopped.is_err() && open.len() > 1 {
        // One service that cannot be stopped does not keep back venvs that do not need it.
        for one in open {
            one.stopped = stop_and_copy(context, &mut [&mut *one]);
        }
    } else {
        for one in open {
            one.stopped.clone_from(&stopped);
        }
    }
    swaps.into_iter().map(|one| one?.finish(context)).collect()
}

/// Stops the services of some venvs, and copies what has changed in each. The error says what
/// could not be stopped.
fn stop_and_copy(context: &Context, swaps: &mut [&mut PendingSwap]) -> Result<(), String> {
    if swaps.is_empty() {
        return Ok(());
    }
    let (stopping, mut copies): (Vec<Stopping>, Vec<&mut LastCopy>) = swaps
        .iter_mut()
        .map(|PendingSwap { job, services, halt, preparing, copy, .. }| {
            (Stopping { job, services: services.clone(), state: preparing, halt }, copy)
        })
        .unzip();
    let stopped = while_stopped(context, &stopping, Triggers::GoOn, || {
        for copy in &mut copies {
            copy.run(context.root);
        }
        let is_any_good = copies.iter().any(|copy| copy.carried.is_ok());
        if is_any_good { Ok(()) } else { Err(()) }
    });
    match stopped {
        Err(Halted::Stop(because)) => Err(because),
        Err(Halted::Work(())) | Ok(()) => Ok(()),
    }
}

/// A swap up to the last copy.
struct PendingSwap<'a> {
    job: &'a Job,
    services: Vec<Service>,
    halt: &'a RefCell<Halt>,
    parent: Parent,
    swap: Swap,
    preparing: JournalState,
    notes: Vec<String>,
    stopped: Result<(), String>,
    copy: LastCopy<'a>,
}

/// What is copied while the services are stopped.
struct LastCopy<'a> {
    job: &'a Job,
    owner: User,
    aside: PathBuf,
    minor: Minor,
    installed: Installed,
    limit: Duration,
    carried: Result<Carried, RebuildError>,
}

impl<'a> PendingSwap<'a> {
    fn new(context: &Context, one: SwapIn<'a>) -> Result<Self, NotRebuilt> {
        let SwapIn { job, prepared, services, limit, halt } = one;
        let Prepared { tree, installed, .. } = prepared;
        let preparing = tree.preparing();
        let failed = |error: RebuildError| NotRebuilt::at(&preparing, error);
        let parent = Parent::of(&job.venv.path).map_err(|error| failed(error.into()))?;
        let (owner, aside) = (owner(context, &job.venv), tree.path().to_path_buf());
        let swap = swap_of(job, &tree);
        let (minor, carried) = (swap.minor, Ok(Carried::default()));
        let copy = LastCopy { job, owner, aside, minor, installed, limit, carried };
        let (notes, stopped) = (tree.notes, Ok(()));
        Ok(Self { job, services, halt, parent, swap, preparing, notes, stopped, copy })
    }

    fn finish(self, context: &Context) -> Result<Rebuilt, NotRebuilt> {
        let Self { job, halt, parent, mut swap, preparing, mut notes, stopped, copy, .. } = self;
        let failed = |error: RebuildError| NotRebuilt::at(&preparing, error);
        stopped.map_err(|because| failed(RebuildError::Halt(because)))?;
        let carried = copy.carried.map_err(failed)?;
        if parent.identity(name_of(&job.venv.path)) != Some(swap.previous.identity) {
            return Err(failed(RebuildError::Changed));
        }
        swap.previous.holds_files |= !carried.left.is_empty();
        notes.extend(carried.notes.into_lines());
        notes.extend(left_behind(carried.left));
        let halt = halt.borrow();
        let swapping = JournalState::Swapping(swap.clone());
        job.begin(context, swapping, halt.units()).map_err(|error| failed(error.into()))?;
        exchange(&parent, job, &swap).map_err(|error| {
            // The swap may have happened without reaching the disk. Do not test the new tree then,
            // swap back.
            let returning = JournalState::Returning(swap.clone());
            let _ = job.begin(context, returning.clone(), halt.units());
            NotRebuilt::at(&returning, error)
        })?;
        Ok(Rebuilt { swap, notes })
    }
}

impl Prepared {
    /// Carries over what was written into the venv since an earlier run built the tree. The services
    /// still run, because this and the sync take long.
    pub(super) fn catch_up(
        &self,
        context: &Context,
        job: &Job,
        limit: Duration,
    ) -> Result<(), RebuildError> {
        let (tree, owner) = (&self.tree, owner(context, &job.venv));
        let pair = Pair::new(&job.venv, &owner, tree.path(), tree.built_for.target.minor);
        pair.carry(context.root, Pass::All, limit).map_err(RebuildError::Carry)?;
        Ok(Parent::of(&job.venv.path)?.sync_all()?)
    }
}

impl LastCopy<'_> {
    fn pair(&self) -> Pair<'_> {
        Pair::new(&self.job.venv, &self.owner, &self.aside, self.minor)
    }

    /// Carries over what was written and deleted since, unless an earlier copy failed.
    fn run(&mut self, root: &Root) {
        if self.carried.is_err() {
            return;
        }
        let carried = self.pair().carry(root, Pass::Last, self.limit.min(LAST_COPY));
        self.carried = carried.map_err(RebuildError::Carry).and_then(|carried| {
            let is_same = Installed::of(root, &self.job.venv) == self.installed;
            is_same.then_some(carried).ok_or(RebuildError::Changed)
        });
    }
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
    /// Builds in place if mount namespaces are unavailable: the venv is missing during the build,
    /// and its services are down.
    pub(super) fn in_place(mut self, halt: &RefCell<Halt>) -> Result<Rebuilt, NotRebuilt> {
        let mut state = self.tree.preparing();
        match self.swap_and_build(halt, &mut state) {
            Ok(()) => Ok(Rebuilt { swap: self.swap(), notes: self.tree.notes }),
            Err(error) => Err(NotRebuilt::at(&state, error)),
        }
    }

    fn swap_and_build(
        &mut self,
        halt: &RefCell<Halt>,
        state: &mut JournalState,
    ) -> Result<(), RebuildError> {
        let before = self.smoke_installed(&[]);
        let in_place = JournalState::BuildingInPlace(self.swap());
        let (context, job) = (self.context, self.job);
        let services = job.services().to_vec();
        let stopping = [Stopping { job, services, state: &in_place, halt }];
        while_stopped(context, &stopping, Triggers::Stopped, || Ok(()))
            .map_err(RebuildError::from)?;
        job.begin(context, in_place.clone(), halt.borrow().units())?;
        *state = in_place;
        exchange(&self.parent, job, &self.swap())?;
        let (owner, aside) = (self.owner.clone(), self.tree.path().to_path_buf());
        let pair = Pair::new(&job.venv, &owner, &aside, self.target.minor).swapped();
        self.build(pair, &[])?;
        let notes = self.compare(|| before, &[])?;
        self.tree.notes.extend(notes);
        if let Some(service) = service::came_up_again(context.root, job.services()) {
            // It may have created new data in the half-built tree.
            return Err(RebuildError::Halt(format!("{service} was started during the build")));
        }
        // Programs outside services may have written into either tree.
        let carried = pair.carry_from_aside(context.root, Pass::Last, self.deadline.left());
        self.note(carried.map_err(RebuildError::Carry)?);
        self.parent.sync_all()?;
        let swapping = JournalState::Swapping(self.swap());
        job.begin(context, swapping.clone(), halt.borrow().units())?;
        *state = swapping;
        Ok(())
    }
}
