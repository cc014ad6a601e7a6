//! After a crash: the journal says what was begun, the disk says what was done.

use super::execute::{Done, Job, Outcome, execute, note_in_entry};
use super::{Context, stage};
use crate::host::tree;
use crate::plan::Remedy;
use crate::python::Interpreters;
use crate::store::{
    Event, JournalEntry, Kept, Operation, PathText, Progress as Step, Registry, StoreError,
};
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
            if journal.operation == Operation::Rollback {
                // What would have come back is a kept tree, and stays one.
                told("the venv was not rolled back, it is untouched");
            } else {
                told("the unfinished successor is removed, the venv is untouched");
                stage::put_back(path, &stage.0, *old)?;
            }
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

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::host::Root;
    use crate::host::tree::identity;
    use crate::report::Report;
    use crate::store::{Config, Store};

    /// A venv at `venv`, another tree beside it, and a journal that was left open.
    struct Crash {
        _folder: tempfile::TempDir,
        venv: PathBuf,
        other: PathBuf,
        store: Store,
        root: Root,
    }

    impl Crash {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let base = folder.path().canonicalize().unwrap();
            let (venv, other) = (base.join("venv"), base.join(".venv.other"));
            for path in [&venv, &other] {
                std::fs::create_dir(path).unwrap();
            }
            let root = Root::new(base.join("system"));
            Self { _folder: folder, venv, other, store: Store::new(&root), root }
        }

        /// Leaves the journal at a step, recovers, and tells whether all went well.
        fn recover(&self, operation: Operation, step: Step) -> bool {
            let entry = JournalEntry::new("1", "shop", &self.venv, operation, step, Vec::new());
            self.store.write_journal(&entry).unwrap();
            let (config, report) = (Config::default(), Report::for_command());
            let context =
                Context { root: &self.root, store: &self.store, config: &config, report: &report };
            let well =
                recover(&context, &mut Registry::default(), &Interpreters::default()).unwrap();
            assert_eq!(self.store.open_journal().is_empty(), well);
            well
        }

        fn identities(&self) -> [tree::Identity; 2] {
            [&self.venv, &self.other].map(|path| identity(path).unwrap())
        }

        fn stage(&self) -> PathText {
            PathText(self.other.clone())
        }
    }

    fn exists(path: &Path) -> bool {
        path.symlink_metadata().is_ok()
    }

    #[test]
    fn an_unfinished_successor_is_removed_and_the_venv_is_untouched() {
        let crash = Crash::new();
        let [venv, other] = crash.identities();
        for step in [
            Step::Staging { stage: crash.stage() },
            Step::Exchanging { stage: crash.stage(), old: venv, new: other },
        ] {
            let _ = std::fs::create_dir(&crash.other);
            assert!(crash.recover(Operation::Rebuild, step));
            assert_eq!(identity(&crash.venv), Some(venv));
            assert!(!exists(&crash.other));
        }
    }

    #[test]
    fn a_successor_that_took_the_place_keeps_it_and_the_old_tree_stays_beside_it() {
        let crash = Crash::new();
        let [new, old] = crash.identities();
        let step = Step::Exchanging { stage: crash.stage(), old, new };
        assert!(crash.recover(Operation::Rebuild, step));
        assert_eq!(identity(&crash.venv), Some(new));
        let beside = crash.venv.parent().unwrap().read_dir().unwrap();
        let kept = beside.filter(|entry| identity(&entry.as_ref().unwrap().path()) == Some(old));
        assert_eq!(kept.count(), 1);
    }

    #[test]
    fn a_rollback_that_did_not_begin_loses_no_kept_tree() {
        let crash = Crash::new();
        let [current, kept] = crash.identities();
        let step = Step::Exchanging { stage: crash.stage(), old: current, new: kept };
        assert!(crash.recover(Operation::Rollback, step));
        assert_eq!(crash.identities(), [current, kept]);
    }

    #[test]
    fn a_venv_whose_old_tree_is_nowhere_is_reported_and_stays_in_the_journal() {
        let crash = Crash::new();
        let identities = crash.identities();
        let step = Step::PuttingBack { aside: crash.stage(), old: (0, 0) };
        assert!(!crash.recover(Operation::Rebuild, step));
        assert_eq!(crash.identities(), identities);
    }
}
