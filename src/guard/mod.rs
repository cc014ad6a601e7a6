//! What happens at each moment of an apt run, and on each request.
//!
//! [`Guard::snapshot`] runs first, [`Guard::gate`] with apt's list, [`Guard::settle`] after dpkg
//! and whenever work is left over. Each reads the current state, asks `plan` for decisions, and
//! has `repair` carry them out. Each may run twice, or not at all.
//!
//! Each kind of request has a file of its own. The answer is a value, which `cli` prints; progress
//! and errors are reported from here.

mod ask;
mod beforehand;
mod choose;
mod consent;
mod diagnose;
mod due;
mod foresee;
mod gate;
mod hold;
mod processes;
mod propose;
mod ready;
mod rebuild;
mod register;
mod rehearse;
mod restart;
mod scan;
mod settle;
mod show;
mod status;
mod summary;
mod trials;
mod users;

use std::time::Duration;

pub(crate) use ask::AskError;
pub(crate) use diagnose::FailureOf;
pub(crate) use gate::AptRun;
pub(crate) use rebuild::{Extent, RebuildRequest, Rebuilt};
pub(crate) use register::{Registered, Registration, Setting};
pub(crate) use rehearse::{RehearsalRequest, VenvRehearsal};
pub(crate) use scan::Found;
pub(crate) use settle::Settled;
pub(crate) use show::{Contents, PreviousState, Shown};
pub(crate) use status::{Details, Looked, Outlook};
pub(crate) use summary::{Known, known, may_summarize, publish, republish, summary};
pub(crate) use users::restart_own;

use crate::host::file::printable;
use crate::host::lock::{self, LockFile};
use crate::host::{ReadError, Root, clock, signal};
use crate::inventory::{self, Inventory};
use crate::python::{self, Interpreters, SnapshotError};
use crate::repair::{self, Context};
use crate::report::Report;
use crate::store::{Config, Registry, Store, StoreError};

/// How long to wait for another venvguard, which may be in a rebuild of several minutes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why a moment of an apt run failed. Never a verdict.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GuardError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot read the installed interpreters: {0}")]
    Snapshot(#[from] SnapshotError),
    #[error("cannot read dpkg's database: {0}")]
    Dpkg(#[from] ReadError),
    #[error(transparent)]
    Protocol(#[from] crate::apt::ProtocolError),
}

/// The program, at work on one system.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) root: Root,
    pub(crate) store: Store,
    config: Config,
    pub(crate) report: Report,
}

impl Guard {
    pub(crate) fn open(root: Root, report: Report) -> Result<Self, StoreError> {
        let store = Store::new(&root);
        let config = store.config()?;
        Ok(Self { root, store, config, report })
    }

    fn context(&self) -> Context<'_> {
        Context { root: &self.root, store: &self.store, config: &self.config, report: &self.report }
    }

    /// Keeps every other venvguard out. From now on, an interruption reports whether work is left.
    fn lock(&self) -> Result<LockFile, StoreError> {
        self.lock_within(PATIENCE)
    }

    /// The same before dpkg runs: without the lock, venvguard could neither block nor pin, so it waits
    /// for as long as another venvguard may work.
    fn lock_before_dpkg(&self) -> Result<LockFile, StoreError> {
        if self.store.is_locked() {
            self.report.note("waiting for another venvguard to finish its work");
        }
        self.lock_within(Duration::from_secs(self.config.run_timeout).max(PATIENCE))
    }

    fn lock_within(&self, patience: Duration) -> Result<LockFile, StoreError> {
        let lock = self.store.lock(patience)?;
        let (store, report) = (self.store.clone(), self.report.clone());
        let systemd_resumes = self.root.user().is_none() && self.root.runs_systemd();
        let tell = move || {
            report.clear_progress();
            report.note(match (store.has_work(), systemd_resumes) {
                (true, true) => "interrupted; run `venvguard resume` to finish the recorded work (systemd does so in a few minutes)",
                (true, false) => "interrupted; run `venvguard resume` to finish the recorded work",
                (false, _) => "interrupted; nothing is left half done",
            });
        };
        // Without the report, an interruption is just as safe.
        let _ = signal::tell_of_interruption(tell);
        Ok(lock)
    }

    /// Whether an apt run is in progress, perhaps between its two hooks.
    fn is_apt_at_work(&self) -> bool {
        self.root.is_system() && lock::is_dpkg_running()
    }

    /// The registry, with the venvs that are declared now.
    fn registry(&self) -> Result<Registry, StoreError> {
        inventory::registry(&self.context())
    }

    /// Every registered venv as it is now.
    pub(crate) fn inventory(&self) -> Result<Inventory, StoreError> {
        Inventory::read(&self.context())
    }

    fn inventory_of(&self, registry: Registry) -> Inventory {
        Inventory::of(&self.context(), registry)
    }

    fn interpreters(&self) -> Result<Interpreters, SnapshotError> {
        python::look(&self.root)
    }

    /// `DPkg::Pre-Invoke`: records the interpreters before dpkg touches them. An existing snapshot
    /// stays: if it differs from the system already, that is work left over from an earlier run.
    pub(crate) fn snapshot(&self) -> Result<(), GuardError> {
        if let Some(hold) = self.end_hold() {
            self.report_hold_by_forecast(&hold);
        }
        if self.store.interpreters()?.is_none() {
            let _lock = self.lock_before_dpkg()?;
            self.store.save_interpreters(&self.interpreters()?)?;
        }
        Ok(())
    }

    /// Finishes what an earlier run left unfinished. The caller holds the lock. Returns whether all
    /// is well.
    fn recover(&self, registry: &mut Registry, now: &Interpreters) -> bool {
        repair::recover(&self.context(), registry, now)
    }

    /// Removes previous environments that exceed the number to keep or are too old, all previous
    /// environments of the venvs that are `named`, and everything else that is no longer needed.
    /// Reports removals and errors. The caller holds the lock, and calls this before a run puts
    /// trees aside: otherwise a clock that is set during the run could make them too old. Returns
    /// whether there was anything to remove.
    fn prune(&self, registry: &mut Registry, named: &[String]) -> bool {
        let before = registry.clone();
        let limit = jiff::SignedDuration::from_hours(24 * i64::from(self.config.keep_days));
        let oldest = clock::now().checked_sub(limit).unwrap_or(jiff::Timestamp::MIN);
        let Registry { venvs, pending_removals, .. } = registry;
        for entry in venvs.iter_mut().filter(|entry| !self.store.has_journal(&entry.id)) {
            entry.previous_trees.forget_gone();
            let gone = if named.contains(&entry.id) {
                entry.previous_trees.take_all()
            } else {
                [
                    entry.previous_trees.take_surplus(self.config.keep_trees.get()),
                    entry.previous_trees.take_older(oldest),
                ]
                .concat()
            };
            for one in &gone {
                let path = printable(one.path());
                self.report.note(&format!("{}: removing previous environment {path}", entry.name));
            }
            pending_removals.extend(gone);
        }
        let ids: Vec<String> = registry.venvs.iter().map(|entry| entry.id.clone()).collect();
        for id in ids.iter().filter(|id| !self.store.has_journal(id)) {
            let discarded = match self.store.prepared(id) {
                Ok(Some(tree)) if tree.at < oldest || named.contains(id) => {
                    self.store.discard_prepared(registry, id, tree).map(drop)
                }
                other => other.map(drop),
            };
            let forgotten = self.store.forget_old_rehearsals(id, oldest);
            for error in [discarded.err(), forgotten.err()].into_iter().flatten() {
                self.report.error(&error.to_string());
            }
        }
        // Forget the trees first: a half-removed tree must not be restored.
        if *registry != before {
            if let Err(error) = self.store.save_registry(registry) {
                self.report.error(&error.to_string());
                *registry = before;
                return true;
            }
        }
        let was_needed = !registry.pending_removals.is_empty();
        repair::sweep(&self.context(), registry);
        repair::prune_archives(&self.context(), registry, oldest);
        self.prune_cache(oldest);
        was_needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tree::identity;
    use crate::plan::{Decision, Policy, samples};
    use crate::store::{JournalEntry, JournalState, PendingRemoval, PreviousTree, Swap};

    #[test]
    fn an_old_previous_environment_is_pruned_but_not_while_an_unfinished_repair_needs_it() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let (venv, aside) = (base.join("venv"), base.join(".venv.venvguard-x"));
        std::fs::create_dir(&venv).unwrap();
        std::fs::create_dir(&aside).unwrap();
        let guard = Guard::open(Root::new(base.join("system")), Report::for_command()).unwrap();
        let mut registry = Registry::default();
        let entry = registry.add(&venv, None, Policy::Auto).unwrap();
        let mut previous = PreviousTree::new(&aside, identity(&aside).unwrap(), true);
        previous.at = jiff::Timestamp::UNIX_EPOCH;
        entry.previous_trees.put_aside(previous.clone());
        let swap = Swap { previous, new: (0, 1), minor: crate::python::Minor::new(3, 11) };
        let (id, path) = (entry.id.clone(), venv.as_path().into());
        let decision = Decision { id, path, ..samples::decision() };
        let journal = JournalEntry::new(&decision, JournalState::Restoring(swap), &[]);
        guard.store.write_journal(&journal).unwrap();
        guard.prune(&mut registry, &[]);
        assert!(aside.exists() && !registry.venvs[0].previous_trees.is_empty());
        guard.store.close_journal(journal.id()).unwrap();
        guard.prune(&mut registry, &[]);
        assert!(!aside.exists());
        let gone = PreviousTree::new(&aside, (1, 1), true);
        registry.venvs[0].previous_trees.put_aside(gone);
        guard.prune(&mut registry, &[]);
        assert!(
            registry.venvs[0].previous_trees.is_empty(),
            "a tree that somebody removed is forgotten"
        );
        assert_eq!(registry.pending_removals.len(), 0);
        assert!(
            guard.store.registry().unwrap().venvs[0].previous_trees.is_empty(),
            "and that is saved"
        );
    }

    #[test]
    fn resume_removes_trees_that_a_killed_run_had_no_time_to_remove() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let aside = base.join(".venv.venvguard-x");
        std::fs::create_dir(&aside).unwrap();
        let guard = Guard::open(Root::new(base.join("system")), Report::for_command()).unwrap();
        let mut registry = Registry::default();
        registry.pending_removals.push(PendingRemoval::new(&aside, identity(&aside).unwrap()));
        guard.store.save_registry(&registry).unwrap();
        assert_eq!(guard.resume().unwrap(), Settled::Done);
        assert!(!aside.exists());
        assert_eq!(guard.resume().unwrap(), Settled::Nothing);
        // One tree was replaced by somebody else's directory, one was in a directory that is gone.
        std::fs::create_dir(&aside).unwrap();
        registry.pending_removals = vec![
            PendingRemoval::new(&aside, (1, 1)),
            PendingRemoval::new(&base.join("nowhere/.venv.venvguard-x"), (2, 2)),
        ];
        guard.store.save_registry(&registry).unwrap();
        assert_eq!(guard.resume().unwrap(), Settled::Done);
        assert!(aside.exists());
        assert_eq!(guard.resume().unwrap(), Settled::Nothing);
    }
}
