//! Back to the tree of before a rebuild, because somebody wants it.

use std::io;
use std::path::Path;

use super::carry::{last_written_in, only_in};
use super::course::{Course, Ended};
use super::execute::Ledger;
use super::job::{Done, Job, Outcome};
use super::stage::{from_beside, name_of};
use super::{Context, anchor, refresh};
use crate::host::file::printable;
use crate::host::tree::Parent;
use crate::plan::{self, Remedy};
use crate::python::{Interpreters, Minor};
use crate::service::Service;
use crate::store::{Entry, Kept, Progress as Step, Registry, StoreError, Swap};
use crate::venv::{self, NotAVenv, Venv};

/// Why nothing was rolled back. But where it is half done, the venv is as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RollbackError {
    #[error("no tree of before a rebuild is kept")]
    NothingKept,
    #[error("no tree that is called {wanted} is kept (`venvguard show` names them)")]
    NoSuchTree { wanted: String },
    #[error(
        "the kept tree {path} is not there any more, or something else has its place (`venvguard show` names the others, `--to` takes one)"
    )]
    Gone { path: String },
    #[error("nothing stands at {venv}; the kept tree is put there by `mv {kept} {venv}`")]
    NothingStands { venv: String, kept: String },
    #[error("an interrupted repair of it is not ended yet (see `venvguard resume`)")]
    Unfinished,
    #[error("the kept tree {path} needs Python {minor}, which is not installed (try `apt install {}`)", .minor.program())]
    InterpreterGone { path: String, minor: Minor },
    #[error(
        "the trees were exchanged, which could not be brought to the disk nor taken back: {error}"
    )]
    HalfDone { error: io::Error },
    #[error("the kept tree is no venv: {0}")]
    NotAVenv(#[from] NotAVenv),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Exchanges the venv with a kept tree, the latest or the one that is `wanted`, and restarts. What stood there becomes the kept
/// tree, working or not: a rollback can be rolled back.
pub(crate) fn rollback(
    context: &Context,
    registry: &mut Registry,
    now: &Interpreters,
    entry: &Entry,
    wanted: Option<&Path>,
    services: Vec<Service>,
) -> Result<Outcome, RollbackError> {
    let before = match wanted {
        None => entry.kept.latest_first().next().ok_or(RollbackError::NothingKept)?,
        Some(wanted) => entry
            .kept
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
    // While it still is aside: at its place it must never run the wrong interpreter.
    match plan::fallback(&tree, before.followed, now) {
        Some(Remedy::Anchor) => anchor::pin(context.root, &tree, tree.site)?,
        Some(Remedy::Refresh) => refresh::refresh(context.root, &tree, interpreter)?,
        _ if before.followed => anchor::follow(context.root, &tree, tree.site)?,
        _ => {}
    }
    let standing = venv::inspect(context.root, path);
    let follows = entry.anchored.is_some() || standing.is_ok_and(|venv| venv.follows());
    // What was written since the rebuild does not go unasked. Of what is no venv nothing is known.
    let written = last_written_in(context.root, path, before.path(), tree.site);
    let holds_files = written.as_ref().is_none_or(|written| !written.is_empty());
    let kept = Kept::new(before.path(), current, follows).that_holds_files(holds_files);
    let wanted = Venv { path: path.to_path_buf(), ..tree.clone() };
    let follows = before.followed;
    let job = Job { follows, services, ..Job::new(entry, &wanted, Remedy::None) };
    let swap = Swap { kept: kept.clone(), new: before.identity };
    job.begin(context, Step::RollingBack { swap, follows: before.followed })?;
    if let Err(error) = parent.exchange(aside, name) {
        // Not exchanged, or not yet on the disk: then it can be taken back.
        if parent.identity(name) != Some(current) {
            parent.exchange(aside, name).map_err(|error| RollbackError::HalfDone { error })?;
        }
        context.store.close_journal(&entry.id)?;
        return Err(error.into());
    }
    let ledger = Ledger::new(context, registry);
    Ok(ledger.carry_out(now, &job, |course| {
        let mut ended = course.restore(kept.clone(), tree.site);
        ended.notes.extend(only_in(kept.path(), &written.unwrap_or_default()));
        ended
    }))
}

impl Course<'_, '_> {
    /// The tree that was wanted back stands: its services are restarted. It stays, whatever
    /// they say: it is what somebody asked for.
    pub(super) fn restore(&self, kept: Kept, minor: Minor) -> Ended {
        let (because, notes) = match self.restart() {
            Ok(notes) => (None, notes),
            Err(because) => (Some(because), Vec::new()),
        };
        let anchored = self.job.follows && self.now.default != Some(minor);
        Ended { notes, ..Done::Restored { minor, kept, anchored, because }.into() }
    }
}
