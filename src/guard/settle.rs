//! `DPkg::Post-Invoke` and `resume`: find out what actually changed, and repair the venvs.

use super::{Guard, GuardError};
use crate::host::confine;
use crate::host::file::printable;
use crate::inventory::{Inventory, Unmanaged, report_unmanaged};
use crate::plan::{Decision, Plan, Reason, Remedy};
use crate::python::{self, Interpreters};
use crate::repair::{self, Job};
use crate::store::{Event, Pending};
use crate::venv::{NotAVenv, Venv};

/// What [`Guard::settle`] left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// There was nothing to do.
    Nothing,
    /// Everything is as it should be.
    Done,
    /// Something needs attention, and was reported.
    Attention,
    /// dpkg or apt has not finished yet: try again later.
    Later,
}

impl Guard {
    /// Whether there is anything to settle. Costs a few `stat`s.
    pub(crate) fn is_settled(&self) -> Result<bool, GuardError> {
        if self.store.has_work() {
            return Ok(false);
        }
        Ok(self.store.interpreters()?.is_none_or(|known| python::unchanged(&self.root, &known)))
    }

    /// Repairs every venv for the interpreters that are installed now. Decides from the disk, not
    /// from apt's list: the run may have failed in the middle, or never have begun.
    pub(crate) fn settle(&self) -> Result<Settled, GuardError> {
        if self.is_settled()? {
            return Ok(Settled::Nothing);
        }
        let lock = self.lock()?;
        let settled = self.settle_locked();
        drop(lock);
        self.after(settled)
    }

    /// Finishes what a crash, a kill or a missing Post-Invoke left over.
    pub(crate) fn resume(&self) -> Result<Settled, GuardError> {
        if self.is_settled()? {
            return self.sweep();
        }
        let lock = self.lock()?;
        // Ask while holding the lock: an apt that starts now waits for it in its first hook.
        if self.is_apt_at_work() {
            self.report.note("apt or dpkg is at work, so nothing was repaired; run `venvguard resume` when it has finished");
            return Ok(Settled::Later);
        }
        let settled = self.settle_locked();
        drop(lock);
        self.after(settled)
    }

    /// Removes the trees that a repair had no time to remove because it was killed at its end.
    fn sweep(&self) -> Result<Settled, GuardError> {
        if self.store.registry()?.pending_removals.is_empty() {
            return Ok(Settled::Nothing);
        }
        let _lock = self.lock()?;
        let mut registry = self.store.registry()?;
        repair::sweep(&self.context(), &mut registry);
        Ok(if registry.pending_removals.is_empty() { Settled::Done } else { Settled::Attention })
    }

    /// Settles one user's own venvs, for the hook, which has found that there is work and kills this
    /// process after `users.time-limit` at the latest. No build begins in the last quarter of that
    /// time, which is for swaps and restarts.
    pub(crate) fn settle_own(mut self) -> Result<Settled, GuardError> {
        confine::step_back();
        let limit = self.config.users.time_limit.saturating_mul(3) / 4;
        self.config.run_timeout = self.config.run_timeout.min(limit);
        let _lock = self.lock()?;
        let settled = self.settle_locked()?;
        // Venvs that root has registered too: root has repaired them, but restarts no units of users.
        let is_well = settled == Settled::Later || self.restart_outdated(|_| true)?;
        Ok(if is_well { settled } else { Settled::Attention })
    }

    /// Settles the users' venvs, even if the system's venvs failed, unless dpkg has not finished
    /// with Python.
    fn after(&self, settled: Result<Settled, GuardError>) -> Result<Settled, GuardError> {
        if !matches!(settled, Ok(Settled::Later)) {
            self.settle_users();
            // Their own venvguard may have restarted some of them.
            if let (Ok(mut inventory), Ok(now)) = (self.inventory(), self.interpreters()) {
                self.restart_units_of_users_unasked(&mut inventory, &now);
            }
        }
        self.publish_run(settled.as_ref());
        settled
    }

    fn settle_locked(&self) -> Result<Settled, GuardError> {
        let unfinished = python::unsettled(&self.root)?;
        if !unfinished.is_empty() {
            let names: Vec<String> = unfinished.iter().map(ToString::to_string).collect();
            let reason = format!("dpkg has not finished with {}", names.join(", "));
            self.report.note(&format!(
                "{reason}, so the venvs are not repaired yet; run `dpkg --configure -a`, then `venvguard resume`"
            ));
            self.store.mark_pending(&Pending::new(reason))?;
            return Ok(Settled::Later);
        }
        let now = self.interpreters()?;
        let mut before = self.store.interpreters()?.unwrap_or_else(|| now.clone());
        if !self.store.has_work() {
            // No dpkg run is recorded: an interpreter in another file was restored from a backup.
            before.forget_files();
        }
        let mut registry = self.registry()?;
        let recovered = self.recover(&mut registry, &now);
        let transaction = self.store.transaction()?;
        let mut inventory = self.inventory_of(registry);
        for (entry, venv) in inventory.entries() {
            if let Err(NotAVenv::Refused(why)) = venv {
                self.report.error(&format!(
                    "venvguard refuses {} and does not repair it: {why}",
                    entry.name
                ));
                self.store.audit(&Event::new(&entry.name, entry.path(), "refused", why));
            }
        }
        let record = transaction.as_ref();
        let plan = self.propose_after_dpkg(&inventory, &before, &now, record);
        let unpinned = self.unpin_all(&mut inventory, &now);
        let repaired = self.repair_all(inventory, &plan, &now);
        let all_good = unpinned & repaired & self.restart_replaced(&plan)?;
        self.store.save_interpreters(&now)?;
        self.store.end_transaction()?;
        // If dpkg has changed an interpreter since, that is work for the next run.
        if python::unchanged(&self.root, &now) {
            self.store.clear_pending()?;
        }
        Ok(if all_good && recovered { Settled::Done } else { Settled::Attention })
    }

    /// Unpins the venvs whose minor version is the default one: the default did not move, or it
    /// came back. Returns whether all of them are.
    fn unpin_all(&self, inventory: &mut Inventory, now: &Interpreters) -> bool {
        let mut all_good = true;
        let pinned: Vec<(String, Venv)> = inventory
            .present()
            .filter(|(entry, venv)| entry.pin.is_some() && now.default == Some(venv.site))
            .map(|(entry, venv)| (entry.id.clone(), venv.clone()))
            .collect();
        for (id, venv) in pinned {
            let result =
                repair::record_and_unpin(&self.context(), &mut inventory.registry, &id, &venv);
            if let Err(error) = result {
                self.report.error(&format!("cannot unpin {}: {error}", printable(&venv.path)));
                all_good = false;
            }
        }
        all_good
    }

    /// Restarts the services of venvs that their packages have replaced during the run: as they are
    /// now, the venvs did not work before it, and their services run the trees that are gone.
    fn restart_replaced(&self, plan: &Plan) -> Result<bool, GuardError> {
        let works_now = |decision: &&Decision| {
            let is_it = |one: &Reason| matches!(one, Reason::Mended | Reason::BrokenBefore);
            decision.reasons.iter().any(is_it)
        };
        let replaced: Vec<&Decision> = plan.decisions.iter().filter(works_now).collect();
        let is_meant = |id: &str| replaced.iter().any(|decision| decision.id == id);
        if replaced.is_empty() { Ok(true) } else { self.restart_outdated(is_meant) }
    }

    fn repair_all(&self, mut inventory: Inventory, plan: &Plan, now: &Interpreters) -> bool {
        if plan.notable().next().is_none() {
            return true;
        }
        self.report.changes(&plan.changes);
        let mut all_good = true;
        for decision in plan.decisions.iter().filter(|one| one.remedy == Remedy::Impossible) {
            self.report.decision(decision);
            all_good = false;
        }
        let jobs = Job::all(inventory.present(), &plan.decisions);
        let (context, at_once) = (self.context(), self.config.at_once(None));
        self.prune(&mut inventory.registry, &[]);
        let outcomes = repair::execute(&context, &mut inventory.registry, now, &jobs, at_once);
        self.note_waiting(&plan.decisions);
        let inventory = self.inventory_of(inventory.registry);
        let affected = plan.decisions.iter().filter(|one| one.remedy != Remedy::None);
        let ids: Vec<&str> = affected.map(|decision| decision.id.as_str()).collect();
        report_unmanaged(&context, &inventory, &ids, now, Unmanaged::OutsideOfUnits);
        self.judge(&outcomes) && all_good
    }
}
