//! What waits for a window, and is done once it opens.

use std::collections::BTreeSet;

use super::rebuild::Rebuilt;
use super::{AskError, Guard};
use crate::host::clock;
use crate::inventory::{Inventory, has_window, window_of};
use crate::plan::{Decision, Remedy, RepairFor, Wish};
use crate::store::RegistryEntry;

impl Guard {
    /// Records that services wait for a window, if one of the decisions says so.
    pub(super) fn note_waiting(&self, decisions: &[Decision]) {
        if !decisions.iter().any(Decision::waits) {
            return;
        }
        if let Err(error) = self.store.wait_for_windows() {
            self.report.error(&format!("cannot record which services wait for a window, so no window restarts them: {error}"));
        }
    }

    /// Repairs the venvs whose services wait for a window that is open, as `rebuild --all` does,
    /// once in each window.
    pub(crate) fn restart_due(&self, dry_run: bool) -> Result<Rebuilt, AskError> {
        self.or_later(self.try_restart_due(dry_run))
    }

    fn try_restart_due(&self, dry_run: bool) -> Result<Rebuilt, AskError> {
        let _lock = (!dry_run).then(|| self.alone()).transpose()?;
        let mut result = Rebuilt { is_any_registered: true, ..Rebuilt::default() };
        let Some(since) = self.store.waiting_since()? else { return Ok(result) };
        let now = self.interpreters()?;
        let mut registry = self.registry()?;
        result.needs_attention = !dry_run && !self.recover(&mut registry, &now);
        let inventory = self.inventory_of(registry);
        let waiting = ids(&inventory, |entry| has_window(&self.config, entry));
        let decisions = self.propose_repair(&inventory, &now, Wish::default(), RepairFor::Person);
        // No window restarts a process that belongs to no service.
        let restarts = |one: &Decision| one.remedy != Remedy::Restart || !one.services.is_empty();
        let is_left = |one: &Decision| one.acts() && restarts(one) && waiting.contains(&one.id);
        let mut decisions: Vec<Decision> = decisions.into_iter().filter(is_left).collect();
        if decisions.is_empty() && !dry_run {
            self.store.end_waiting()?;
        }
        let time = clock::local_now();
        let due = ids(&inventory, |entry| {
            let window = window_of(&self.config, entry);
            window.is_some_and(|window| window.is_due(since, &time))
        });
        decisions.retain(|one| due.contains(&one.id));
        if !dry_run && !decisions.is_empty() {
            // What fails is tried again in the next window, not in this one.
            self.store.windows_tried_at(time.timestamp())?;
            let carried = self.carry_out(inventory, &decisions, &now, None, false);
            result.needs_attention |= carried.left > 0;
            result.has_failed = !carried.good;
        }
        Ok(Rebuilt { decisions, ..result })
    }
}

fn ids(inventory: &Inventory, is_meant: impl Fn(&RegistryEntry) -> bool) -> BTreeSet<String> {
    let meant = inventory.present().filter(|(entry, _)| is_meant(entry));
    meant.map(|(entry, _)| entry.id.clone()).collect()
}
