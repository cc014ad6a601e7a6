//! Back to the tree of before the last rebuild.

use std::io;

use super::rebuild::kept_tree;
use super::restart::restart;
use super::stage::{beside, name_of};
use super::{Context, anchor};
use crate::host::clock;
use crate::host::tree::Parent;
use crate::python::{Interpreters, Minor};
use crate::service::Service;
use crate::store::{Anchored, Entry, JournalEntry, Kept, Operation, Progress as Step, StoreError};
use crate::venv::{self, Link, NotAVenv, Venv};

#[derive(Debug, thiserror::Error)]
pub(crate) enum RollbackError {
    #[error("no tree of before a rebuild is kept")]
    NothingKept,
    #[error("the kept tree {path} needs Python {minor}, which is not installed (try `apt install {}`)", .minor.program())]
    InterpreterGone { path: String, minor: Minor },
    #[error("the kept tree is no venv: {0}")]
    NotAVenv(#[from] NotAVenv),
    #[error("{0}")]
    Service(String),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Exchanges the venv with its kept tree, pins it to its minor version where that is no
/// longer the default, and restarts. What stood there becomes the kept tree: a rollback can
/// be rolled back.
pub(crate) fn rollback(
    context: &Context,
    entry: &mut Entry,
    now: &Interpreters,
    services: &[Service],
) -> Result<Venv, RollbackError> {
    let path = entry.path().to_path_buf();
    let (kept, old) = kept_tree(entry).ok_or(RollbackError::NothingKept)?;
    let kept = kept.path().to_path_buf();
    let before = venv::inspect(context.root, &kept)?;
    if now.get(before.site).is_none() {
        return Err(RollbackError::InterpreterGone {
            path: crate::host::file::printable(&kept),
            minor: before.site,
        });
    }
    let parent = Parent::of(&path)?;
    let new = parent.identity(name_of(&path)).ok_or(RollbackError::NothingKept)?;
    let mut journal = JournalEntry::new(
        &entry.id,
        &entry.name,
        &path,
        Operation::Rollback,
        Step::Exchanging { stage: kept.as_path().into(), old: new, new: old },
        services.to_vec(),
    );
    if before.base.link == Link::Followed && now.default != Some(before.site) {
        // While it still is aside: at its place it must never run the wrong interpreter.
        anchor::pin(context.root, &before, before.site)?;
    }
    context.store.write_journal(&journal)?;
    parent.exchange(name_of(&kept), name_of(&path))?;
    let aside = beside(&path, "old");
    let aside = if aside == kept {
        aside
    } else {
        parent.rename(name_of(&kept), name_of(&aside))?;
        aside
    };
    journal.progress = Step::Restarting { kept: Some(aside.as_path().into()) };
    context.store.write_journal(&journal)?;
    entry.kept = Some(Kept::new(&aside));
    let venv = venv::inspect(context.root, &path)?;
    entry.anchored = (before.base.link == Link::Followed && now.default != Some(before.site))
        .then(|| Anchored { at: clock::now(), to: before.site, reason: "rolled back".into() });
    let restarted = restart(context, entry, &venv, services);
    context.store.close_journal(&entry.id)?;
    restarted.map_err(RollbackError::Service)?;
    Ok(venv)
}
