//! Moves pinned venvs to the default interpreter once they are ready for it: the forecast prepares
//! their new trees, and a unit of its own, with the priority of an ordinary service, swaps them in.

use super::rebuild::Rebuilt;
use super::rehearse::TRY_AGAIN;
use super::{AskError, Guard};
use crate::host::Program;
use crate::inventory::{Inventory, Unmanaged, report_unmanaged};
use crate::plan::{Decision, Proof, RepairFor, Trial, Until, Wish};
use crate::python::Interpreters;
use crate::repair::{self, Job, System};
use crate::store::RegistryEntry;

/// Runs `venvguard rebuild --ready`.
const UNIT: &str = "venvguard-rebuild.service";

impl Guard {
    /// Builds and checks new trees for the venvs that are pinned because they were not ready. Returns
    /// the names of those that can be rebuilt now; the others wait for a window, or are tried again
    /// tomorrow.
    pub(super) fn prepare_pinned(
        &self,
        inventory: &mut Inventory,
        now: &Interpreters,
    ) -> Vec<String> {
        let is_meant = |entry: &RegistryEntry| {
            entry.pin.as_ref().is_some_and(|pin| pin.until == Until::Rebuilt)
        };
        if !inventory.present().any(|(entry, _)| is_meant(entry)) {
            return Vec::new();
        }
        let decisions = self.propose_for_pinned(inventory, now);
        let is_due = |one: &&Decision| {
            self.is_due(inventory, &one.id, &Trial::Build((*one).clone()), now, TRY_AGAIN)
        };
        let due: Vec<Decision> = decisions.iter().filter(is_due).cloned().collect();
        self.build_all(inventory, &due, &System::installed(now), now);
        let (waiting, ready): (Vec<Decision>, Vec<Decision>) = decisions
            .into_iter()
            .filter(|one| self.is_prepared(inventory, one, now))
            .partition(Decision::waits);
        self.note_waiting(&waiting);
        ready.into_iter().map(|decision| decision.name).collect()
    }

    /// Starts the unit that swaps in what the forecast has prepared. Where systemd does not run, the
    /// trees wait for the next `venvguard rebuild`.
    pub(crate) fn start_rebuild_of_ready(&self) {
        if !self.root.runs_systemd() {
            return;
        }
        let start = Program::named(&self.root, "systemctl").args(["start", "--no-block", UNIT]);
        if let Err(error) = start.run() {
            self.report.error(&format!("cannot start {UNIT}: {error}"));
        }
    }

    /// Rebuilds the pinned venvs whose prepared trees wait, unless they wait for a window.
    pub(crate) fn rebuild_ready(&self, dry_run: bool) -> Result<Rebuilt, AskError> {
        self.or_later(self.try_rebuild_ready(dry_run))
    }

    fn try_rebuild_ready(&self, dry_run: bool) -> Result<Rebuilt, AskError> {
        let _lock = (!dry_run).then(|| self.alone()).transpose()?;
        let mut result = Rebuilt { is_any_registered: true, ..Rebuilt::default() };
        let now = self.interpreters()?;
        let mut registry = self.registry()?;
        result.needs_attention = !dry_run && !self.recover(&mut registry, &now);
        let mut inventory = self.inventory_of(registry);
        let mut decisions = self.propose_for_pinned(&inventory, &now);
        decisions.retain(|one| !one.waits() && self.is_prepared(&inventory, one, &now));
        if !dry_run && !decisions.is_empty() {
            let jobs = Job::all(inventory.present(), &decisions);
            let (context, at_once) = (self.context(), self.config.at_once(None));
            let outcomes = repair::execute(&context, &mut inventory.registry, &now, &jobs, at_once);
            result.has_failed = !self.judge(&outcomes);
            let mut inventory = self.inventory_of(inventory.registry);
            self.restart_units_of_users_unasked(&mut inventory, &now);
            let ids: Vec<&str> = decisions.iter().map(|decision| decision.id.as_str()).collect();
            let left =
                report_unmanaged(&context, &inventory, &ids, &now, Unmanaged::OutsideOfUnits);
            result.needs_attention |= left > 0;
        }
        Ok(Rebuilt { decisions, ..result })
    }

    /// The rebuilds of pinned venvs that only their distributions still keep from the default
    /// interpreter.
    fn propose_for_pinned(&self, inventory: &Inventory, now: &Interpreters) -> Vec<Decision> {
        let mut decisions =
            self.propose_repair(inventory, now, Wish::default(), RepairFor::Forecast);
        decisions.retain(|one| one.target().is_some() && !self.store.has_journal(&one.id));
        decisions
    }

    /// Whether the new tree for a decision waits.
    fn is_prepared(&self, inventory: &Inventory, decision: &Decision, now: &Interpreters) -> bool {
        let minor = decision.target().map(|target| target.minor);
        let found = self.last_found(inventory, &decision.id, minor, now);
        found.is_some_and(|found| found.is_ready() && found.proof == Proof::Rehearsed)
    }
}
