//! Restarts that somebody asks for.

use super::choose::chosen;
use super::rebuild::Rebuilt;
use super::{AskError, Guard};
use crate::inventory::stale_processes;
use crate::plan::Decision;
use crate::store::RegistryEntry;

impl Guard {
    /// Restarts the services of the named venvs, or of all venvs with a process that runs code that
    /// was replaced. Reports failures.
    pub(crate) fn restart(
        &self,
        wanted: Option<&[String]>,
        dry_run: bool,
    ) -> Result<Rebuilt, AskError> {
        let _lock = if dry_run { None } else { Some(self.alone()?) };
        let now = self.interpreters()?;
        let mut registry = self.registry()?;
        let recovered = dry_run || self.recover(&mut registry, &now);
        let inventory = self.inventory_of(registry);
        let ids: Vec<String> = if let Some(words) = wanted {
            let chosen = chosen(&inventory.registry, words)?;
            chosen.iter().map(|entry| entry.id.clone()).collect()
        } else {
            let stale = stale_processes(&self.context(), &inventory, &now).found;
            let is_stale = |entry: &&RegistryEntry| {
                stale.iter().any(|process| process.venvs.contains(&entry.name))
            };
            let entries = inventory.registry.venvs.iter().filter(is_stale);
            entries.map(|entry| entry.id.clone()).collect()
        };
        let is_any_registered = inventory.entries().next().is_some();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let decisions: Vec<Decision> = self.propose_restarts(&inventory, &ids, &now);
        let (mut needs_attention, mut has_failed) = (!recovered, false);
        if !dry_run && !decisions.is_empty() {
            let carried = self.carry_out(inventory, &decisions, &now, None, false);
            needs_attention |= carried.left > 0;
            has_failed = !carried.good;
        }
        let times = Vec::new();
        Ok(Rebuilt { decisions, is_any_registered, needs_attention, has_failed, times })
    }
}
