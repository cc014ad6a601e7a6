//! After a crash: the journal says what was begun, the disk says what was done.

use super::execute::{Done, Job, Outcome, execute, note_in_entry};
use super::{Context, stage};
use crate::host::tree;
use crate::plan::Remedy;
use crate::python::Interpreters;
use crate::store::{Event, JournalEntry, Kept, PathText, Progress as Step, Registry, StoreError};
use crate::venv;

/// Ends or undoes everything the journal holds. Afterwards every path holds a whole venv
/// and the journal is empty, but for what could not be put right: that is reported, stays
/// in the journal, and stands in no other's way.
pub(crate) fn recover(
    context: &Context,
    registry: &mut Registry,
    now: &Interpreters,
) -> Result<bool, StoreError> {
    let mut all_well = true;
    for entry in context.store.open_journal() {
        let result = match entry {
            Ok(journal) => recover_one(context, registry, now, &journal)
                .map_err(|error| format!("{}: {error}", journal.name)),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = result {
            all_well = false;
            context.report.error(&format!("cannot end an interrupted repair: {error}"));
        }
    }
    context.store.save_registry(registry)?;
    Ok(all_well)
}

fn recover_one(
    context: &Context,
    registry: &mut Registry,
    now: &Interpreters,
    journal: &JournalEntry,
) -> Result<(), Box<dyn std::error::Error>> {
    let path = journal.path();
    let told =
        |what: &str| context.report.note(&format!("{}: interrupted repair: {what}", journal.name));
    match &journal.progress {
        Step::Staging { stage } => {
            told("the unfinished successor is removed, the venv is untouched");
            tree::remove(&stage.0)?;
            context.store.close_journal(&journal.id)?;
        }
        Step::Exchanging { stage, old, new } => {
            if tree::identity(path) == Some(*new) {
                let kept = kept_path(path, &stage.0, *old)?;
                told("the successor is in place, its services are restarted");
                return restart(context, registry, now, journal, Some(Kept::new(&kept)));
            }
            told("the unfinished successor is removed, the venv is untouched");
            stage::put_back(path, &stage.0, *old)?;
            context.store.close_journal(&journal.id)?;
        }
        Step::InPlace { aside, old } | Step::PuttingBack { aside, old } => {
            told("the old environment is put back");
            stage::put_back(path, &aside.0, *old)?;
            return restart(context, registry, now, journal, None);
        }
        Step::Restarting { kept } => {
            told("its services are restarted");
            let kept = kept.as_ref().map(|PathText(path)| Kept::new(path));
            return restart(context, registry, now, journal, kept);
        }
        Step::Refreshing => {
            told("its interpreters are copied again");
            return again(context, registry, now, journal, Remedy::Refresh);
        }
    }
    Ok(())
}

/// Where the old tree is after an exchange: still at the stage's name, or at its last one.
fn kept_path(
    venv: &std::path::Path,
    stage: &std::path::Path,
    old: tree::Identity,
) -> std::io::Result<std::path::PathBuf> {
    if tree::identity(stage) == Some(old) {
        let kept = stage::beside(venv, "old");
        tree::Parent::of(venv)?.rename(stage::name_of(stage), stage::name_of(&kept))?;
        return Ok(kept);
    }
    let parent = venv.parent().unwrap_or(std::path::Path::new("/"));
    std::fs::read_dir(parent)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| tree::identity(path) == Some(old))
        .ok_or_else(|| std::io::Error::other("the old tree is not found beside the venv"))
}

/// Restarts what the journal names; the venv is whole already.
fn restart(
    context: &Context,
    registry: &mut Registry,
    now: &Interpreters,
    journal: &JournalEntry,
    kept: Option<Kept>,
) -> Result<(), Box<dyn std::error::Error>> {
    if let (Some(kept), Some(entry)) = (kept, registry.get_mut(&journal.id)) {
        entry.anchored = None;
        entry.kept = Some(kept);
    }
    again(context, registry, now, journal, Remedy::Restart)
}

fn again(
    context: &Context,
    registry: &mut Registry,
    now: &Interpreters,
    journal: &JournalEntry,
    remedy: Remedy,
) -> Result<(), Box<dyn std::error::Error>> {
    let Some(entry) = registry.get(&journal.id) else {
        context.store.close_journal(&journal.id)?;
        return Ok(());
    };
    let job = Job {
        entry: entry.clone(),
        venv: venv::inspect(context.root, journal.path())?,
        remedy,
        fallback: None,
        target: None,
        services: journal.services.clone(),
    };
    for Outcome { done, .. } in execute(context, now, vec![job], 1, |_| {}) {
        if let Some(entry) = registry.get_mut(&journal.id) {
            note_in_entry(entry, &done);
        }
        let what = if done.is_good() { "recovered" } else { "failed" };
        let detail = match &done {
            Done::Failed { because, .. } => because.clone(),
            _ => "an interrupted repair was ended".to_string(),
        };
        context.store.record(&Event::new(&journal.name, journal.path(), what, detail))?;
    }
    context.store.close_journal(&journal.id)?;
    Ok(())
}
