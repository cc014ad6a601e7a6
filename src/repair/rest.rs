//! Prepared trees that are kept for later. A later rebuild uses such a tree if nothing that it was
//! built for has changed, and discards it otherwise.

use std::time::Duration;

use super::adopt::{Repair, RepairResult};
use super::builder::{Builder, System};
use super::findings::findings;
use super::job::Done;
use super::not_rebuilt::{NotRebuilt, RebuildError};
use super::prepare::{Build, Prepared, prepare, rested};
use super::stage;
use super::trees::LOOK_LIMIT;
use crate::plan::Target;
use crate::store::{JournalState, PendingRemoval, PreparedTree};
use crate::venv::Venv;

impl Repair<'_, '_> {
    /// Builds and checks a new tree for the interpreter of a system, and keeps it for later.
    pub(super) fn prepare_only(&self, system: &System) -> RepairResult {
        let (context, job) = (self.context, self.job);
        let Some(target) = job.decision.target() else { return Done::Nothing.into() };
        if let Some(unfinished) = self.interrupted() {
            return unfinished;
        }
        let builder = Builder::of(target, system);
        let built = self.resting(target, &builder, Ok).and_then(|(prepared, notes)| {
            let Some(limit) = self.recorder.time_left(job.venv.uid) else {
                return Err(RebuildError::OutOfTime.into());
            };
            let built = if let Some(prepared) = prepared {
                Build::Beside(Box::new(prepared))
            } else {
                prepare(context, job, target, builder, limit, true, &self.progress)?
            };
            match built {
                Build::InPlace(work) => Err(work.cannot_rest()),
                Build::Beside(prepared) => {
                    let Prepared { mut tree, .. } = *prepared;
                    tree.bytes = tree.bytes.or_else(|| self.size_of(&tree));
                    // A tree that cannot be recorded is removed: no later run would find it.
                    let saved = context.store.save_prepared(job.id(), &tree);
                    saved.map_err(|error| NotRebuilt::at(&tree.preparing(), error.into()))?;
                    Ok((tree, notes))
                }
            }
        });
        match built {
            Ok((tree, notes)) => {
                let (minor, path) = (target.minor, tree.path().to_path_buf());
                let notes = [notes, tree.notes].concat();
                RepairResult { notes, ..Done::Prepared { minor, path }.into() }
            }
            Err(NotRebuilt { why, unfinished: true, .. }) => {
                Done::Unfinished { because: why.to_string() }.into()
            }
            Err(NotRebuilt { why, state, .. }) => {
                let removal = match state.as_deref() {
                    Some(JournalState::Preparing { aside, new: Some(new), .. }) => {
                        Some(PendingRemoval::new(&aside.0, *new))
                    }
                    _ => None,
                };
                let findings = findings(context, &job.venv, target.minor, &why);
                let failed = Done::unchanged(why.to_string());
                RepairResult { pending_removal: removal, findings, ..failed.into() }
            }
        }
    }

    /// What a new tree occupies on the disk.
    fn size_of(&self, tree: &PreparedTree) -> Option<u64> {
        let (path, site) = (tree.path().to_path_buf(), tree.built_for.target.minor);
        let venv = Venv { path, site, ..self.job.venv.clone() };
        stage::look_at(self.context.root, &venv).ok().map(|measured| measured.bytes)
    }

    /// The prepared tree, if it is still what would be built and can be brought up to date; otherwise
    /// it is discarded.
    fn resting(
        &self,
        target: Target,
        builder: &Builder,
        update: impl FnOnce(Prepared) -> Result<Prepared, RebuildError>,
    ) -> Result<(Option<Prepared>, Vec<String>), NotRebuilt> {
        let (context, job) = (self.context, self.job);
        let tree = match context.store.prepared(job.id()) {
            Ok(Some(tree)) => tree,
            Ok(None) => return Ok((None, Vec::new())),
            // An unreadable record counts as none: the venv is rebuilt all the same.
            Err(error) => {
                return Ok((
                    None,
                    vec![format!("cannot read the record of the prepared tree: {error}")],
                ));
            }
        };
        let found = if self.recorder.is_to_be_removed(tree.identity) {
            Err("it awaits removal".into())
        } else {
            let prepared = rested(context, job, target, builder, tree.clone());
            prepared.and_then(|prepared| update(prepared).map_err(|error| error.to_string()))
        };
        match found {
            Ok(prepared) => Ok((Some(prepared), Vec::new())),
            Err(why) => {
                let removal = self.recorder.discard_prepared(job.id(), tree)?;
                self.discarded.borrow_mut().push(removal);
                Ok((None, vec![format!("the prepared tree was not used: {why}")]))
            }
        }
    }

    /// Takes the prepared tree if it is still valid; otherwise builds one.
    pub(super) fn build(
        &self,
        target: Target,
        limit: Duration,
    ) -> Result<(Build<'_>, Vec<String>), NotRebuilt> {
        let (context, job) = (self.context, self.job);
        let builder = Builder::installed(target, self.now);
        let (resting, notes) = self.resting(target, &builder, |prepared| {
            prepared.catch_up(context, job, limit.max(LOOK_LIMIT)).map(|()| prepared)
        })?;
        let Some(prepared) = resting else {
            return Ok((
                prepare(context, job, target, builder, limit, false, &self.progress)?,
                notes,
            ));
        };
        let preparing = prepared.tree.preparing();
        job.begin(context, preparing.clone(), &[])?;
        // From here on the journal records the tree.
        let forgotten = context.store.forget_prepared(job.id());
        forgotten.map_err(|error| NotRebuilt::at(&preparing, error.into()))?;
        Ok((Build::Beside(Box::new(prepared)), notes))
    }
}
