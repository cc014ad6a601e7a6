//! The state of the venvs that somebody asks for.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use super::choose::chosen;
use super::{AskError, Guard};
use crate::host::user;
use crate::inventory::{Inventory, healths};
use crate::plan::Health;
use crate::python::{Interpreters, Package, SnapshotError, Version};
use crate::repair;
use crate::service::{Service, VenvUsage};
use crate::store::{PreparedTree, RegistryEntry, StoreError};
use crate::venv::{BaseLink, NotAVenv, Venv};

/// A registered venv, and its state.
#[derive(Debug)]
pub(crate) struct Looked {
    pub(crate) entry: RegistryEntry,
    pub(crate) venv: Result<Venv, NotAVenv>,
    pub(crate) health: Health,
    /// What runs out of it, or is configured to.
    pub(crate) usage: VenvUsage,
    /// A prepared tree that waits for the next rebuild.
    pub(crate) prepared: Result<Option<PreparedTree>, StoreError>,
}

impl Looked {
    /// The services that use it and were not declared.
    pub(crate) fn services_found(&self) -> impl Iterator<Item = &Service> {
        self.usage.services.iter().filter(|service| !self.entry.services.contains(service))
    }
}

/// What the rehearsals found for an interpreter that is not installed yet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outlook {
    pub(crate) interpreter: Package,
    pub(crate) ready: usize,
    /// The names of the venvs that are not ready.
    pub(crate) not_ready: Vec<String>,
}

impl Guard {
    /// What the rehearsals of some venvs found, for each interpreter that is not installed yet.
    pub(crate) fn outlook(&self, looked: &[Looked]) -> Result<Vec<Outlook>, AskError> {
        let mut outlooks: Vec<Outlook> = Vec::new();
        if !self.store.has_rehearsals() {
            return Ok(outlooks);
        }
        let now = self.interpreters()?;
        let mut all = Vec::new();
        for entry in looked.iter().map(|one| &one.entry) {
            all.extend(self.store.rehearsals(&entry.id)?.into_iter().map(|found| (entry, found)));
        }
        for (entry, found) in all {
            let interpreter = &found.made_for.interpreter;
            if now.installed.values().any(|one| one.package == *interpreter) {
                continue;
            }
            let index = outlooks.iter().position(|one| one.interpreter == *interpreter);
            let index = index.unwrap_or_else(|| {
                let (interpreter, not_ready) = (interpreter.clone(), Vec::new());
                outlooks.push(Outlook { interpreter, ready: 0, not_ready });
                outlooks.len() - 1
            });
            if let Some(outlook) = outlooks.get_mut(index) {
                if found.is_ready() {
                    outlook.ready += 1;
                } else {
                    outlook.not_ready.push(entry.name.clone());
                }
            }
        }
        Ok(outlooks)
    }

    /// The state of some venvs, or of all.
    pub(crate) fn status(&self, wanted: &[String]) -> Result<Vec<Looked>, AskError> {
        let mut inventory = self.inventory()?;
        // Keep the recipes current, if the caller may change the state directory.
        if self.may_change() && self.store.is_used() {
            if let Ok(_lock) = self.store.lock(Duration::ZERO) {
                repair::refresh_recipes(&self.context(), inventory.present());
                self.check_again(&mut inventory)?;
            }
        }
        let mut looked =
            self.looked(inventory, Some(wanted).filter(|wanted| !wanted.is_empty()))?;
        for one in &mut looked {
            let failure = one.entry.check_failure.as_ref();
            let cause = failure.and_then(|failure| self.cause_in_a_line(&failure.because));
            one.health.reasons.extend(cause);
        }
        Ok(looked)
    }

    /// Runs the checks again that failed after an upgrade or a repair, and forgets those that pass.
    fn check_again(&self, inventory: &mut Inventory) -> Result<(), AskError> {
        let failing = inventory.present().filter(|(entry, _)| entry.check_failure.is_some());
        let passes = failing
            .filter(|(entry, venv)| repair::check_once(&self.context(), entry, venv).is_ok());
        let ids: Vec<String> = passes.map(|(entry, _)| entry.id.clone()).collect();
        for id in &ids {
            if let Some(entry) = inventory.registry.get_mut(id) {
                entry.check_failure = None;
            }
        }
        if !ids.is_empty() {
            self.store.save_registry(&inventory.registry)?;
        }
        Ok(())
    }

    /// The wanted venvs, in the order of the registry.
    pub(super) fn looked(
        &self,
        inventory: Inventory,
        wanted: Option<&[String]>,
    ) -> Result<Vec<Looked>, AskError> {
        let chosen = wanted.map(|wanted| chosen(&inventory.registry, wanted)).transpose()?;
        let is_wanted: Vec<bool> = inventory
            .registry
            .venvs
            .iter()
            .map(|entry| {
                chosen.as_ref().is_none_or(|some| some.iter().any(|one| one.id == entry.id))
            })
            .collect();
        let healths = healths(&self.context(), &inventory, &self.interpreters()?);
        let (users, entries) = (inventory.users(&self.root), inventory.registry.venvs.iter());
        let usage = |(entry, is_wanted): (&RegistryEntry, bool)| {
            is_wanted.then(|| users.of(entry.path()).clone())
        };
        let usages: Vec<Option<VenvUsage>> = entries.zip(is_wanted).map(usage).collect();
        let venvs = inventory.registry.venvs.into_iter().zip(inventory.venvs);
        Ok(venvs
            .zip(healths)
            .zip(usages)
            .filter_map(|(((entry, venv), health), usage)| {
                let (usage, prepared) = (usage?, self.store.prepared(&entry.id));
                Some(Looked { entry, venv, health, usage, prepared })
            })
            .collect())
    }

    /// Looks up the owners of venvs and the versions of their interpreters.
    pub(crate) fn details(&self) -> Result<Details<'_>, SnapshotError> {
        Ok(Details { guard: self, now: self.interpreters()?, owners: RefCell::default() })
    }
}

/// Details of venvs that are not in the venvs themselves.
#[derive(Debug)]
pub(crate) struct Details<'a> {
    guard: &'a Guard,
    now: Interpreters,
    /// Names of owners, each looked up once.
    owners: RefCell<HashMap<u32, String>>,
}

impl Details<'_> {
    /// A venv with its owner and the version of its interpreter, if it is one.
    pub(crate) fn of<'v>(
        &self,
        venv: &'v Result<Venv, NotAVenv>,
    ) -> Option<(&'v Venv, String, Option<Version>)> {
        let venv = venv.as_ref().ok()?;
        Some((venv, self.owner(venv), self.version(venv)))
    }

    pub(crate) fn owner(&self, venv: &Venv) -> String {
        let mut owners = self.owners.borrow_mut();
        owners.entry(venv.uid).or_insert_with(|| user::name(&self.guard.root, venv.uid)).clone()
    }

    /// The version of the interpreter that runs when the venv is used now.
    fn version(&self, venv: &Venv) -> Option<Version> {
        let linked = match venv.base.link {
            BaseLink::Followed => self.now.default,
            BaseLink::Pinned => venv.base.minor,
            BaseLink::Copied | BaseLink::Dangling => None,
        };
        let interpreter = linked.and_then(|minor| self.now.get(minor));
        interpreter.map(|one| one.version.clone()).or_else(|| venv.base.version.clone())
    }
}
