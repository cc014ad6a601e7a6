//! Rebuilds, rollbacks and removals that somebody asks for.

use std::path::Path;
use std::time::Duration;

use super::choose::chosen;
use super::{AskError, Guard};
use crate::inventory::{Inventory, Unmanaged, report_unmanaged};
use crate::plan::{Decision, Policy, Remedy, RepairFor, Wish};
use crate::python::Interpreters;
use crate::repair::{self, Job, Outcome, System};
use crate::report::reasons_in_words;
use crate::store::RegistryEntry;
use crate::venv::NotAVenv;

/// A rebuild that somebody asks for.
#[derive(Debug)]
pub(crate) struct RebuildRequest<'a> {
    /// Names, paths, ids or globs; `None` for every venv that is not healthy.
    pub(crate) venvs: Option<&'a [String]>,
    pub(crate) wish: Wish,
    pub(crate) extent: Extent,
    /// How many to build at the same time, if the caller says so.
    pub(crate) at_once: Option<usize>,
}

/// Where a rebuild stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Decide, and do nothing.
    Decide,
    /// Build and check the new trees.
    Prepare,
    SwapIn,
}

/// The result of a rebuild that somebody asked for.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Rebuilt {
    /// The decisions that do something.
    pub(crate) decisions: Vec<Decision>,
    /// Whether any venv is registered.
    pub(crate) is_any_registered: bool,
    /// Whether something is left for a person to do.
    pub(crate) needs_attention: bool,
    /// Whether one of them failed.
    pub(crate) has_failed: bool,
    /// The steps of each venv's repair, and how long they took.
    pub(crate) times: Vec<StepTimes>,
}

/// A venv, and how long the steps of its repair took.
pub(crate) type StepTimes = (String, Vec<(String, Duration)>);

/// The result of a rollback that somebody asked for.
#[derive(Debug)]
#[must_use]
pub(crate) struct RolledBack {
    pub(crate) decision: Decision,
    pub(crate) has_failed: bool,
}

impl Guard {
    /// Rebuilds the named venvs, or each that is not healthy. Reports failures.
    pub(crate) fn rebuild(&self, wanted: &RebuildRequest) -> Result<Rebuilt, AskError> {
        let decides_only = wanted.extent == Extent::Decide;
        let _lock = if decides_only { None } else { Some(self.alone()?) };
        let now = self.interpreters()?;
        if let Some(minor) = wanted.wish.python.filter(|minor| now.get(*minor).is_none()) {
            return Err(AskError::NotInstalled(minor));
        }
        let mut registry = self.registry()?;
        // Reports repairs that cannot be finished; their venvs are refused below.
        let recovered = decides_only || self.recover(&mut registry, &now);
        let inventory = self.inventory_of(registry);
        let is_any_registered = inventory.entries().next().is_some();
        let mut needs_attention = !recovered | self.report_no_venvs(&inventory, wanted);
        if decides_only && !self.store.is_locked() {
            needs_attention |= self.report_unfinished(&inventory);
        }
        let decisions = self.decide(&inventory, &now, wanted)?;
        needs_attention |= self.report_impossible(&decisions);
        let decisions: Vec<Decision> = decisions.into_iter().filter(Decision::acts).collect();
        let (mut has_failed, mut times) = (false, Vec::new());
        if !decides_only && !decisions.is_empty() {
            let prepares = wanted.extent == Extent::Prepare;
            let carried = self.carry_out(inventory, &decisions, &now, wanted.at_once, prepares);
            needs_attention |= carried.left > 0;
            has_failed = !carried.good;
            times = carried.times;
        }
        Ok(Rebuilt { decisions, is_any_registered, needs_attention, has_failed, times })
    }

    /// Restores the previous environment of a venv, the latest or the one that `to` names.
    pub(crate) fn rollback(
        &self,
        word: &String,
        to: Option<&Path>,
        dry_run: bool,
    ) -> Result<RolledBack, AskError> {
        let _lock = if dry_run { None } else { Some(self.alone()?) };
        let now = self.interpreters()?;
        let mut registry = self.registry()?;
        if !dry_run {
            self.recover(&mut registry, &now);
        }
        let mut inventory = self.inventory_of(registry);
        let found = chosen(&inventory.registry, std::slice::from_ref(word))?;
        let [entry] = found.as_slice() else {
            return Err(AskError::Several { word: word.clone(), count: found.len() });
        };
        let job = self
            .propose_rollback(&inventory, entry, &now, to)
            .map_err(|why| AskError::NotRolledBack { name: entry.name.clone(), why })?;
        let decision = job.decision.clone();
        if dry_run {
            return Ok(RolledBack { decision, has_failed: false });
        }
        let registry = &mut inventory.registry;
        let outcomes = repair::execute(&self.context(), registry, &now, &[job], 1);
        let has_failed = !self.judge(&outcomes);
        Ok(RolledBack { decision, has_failed })
    }

    /// Removes the trees that exceed the number to keep or are too old, and all previous
    /// environments of the `wanted` venvs. Returns whether all of them are removed.
    pub(crate) fn prune_as_asked(&self, wanted: &[String]) -> Result<bool, AskError> {
        let _lock = self.alone()?;
        let mut registry = self.registry()?;
        self.recover(&mut registry, &self.interpreters()?);
        let chosen = chosen(&registry, wanted)?;
        let ids: Vec<String> = chosen.iter().map(|entry| entry.id.clone()).collect();
        if !self.prune(&mut registry, &ids) {
            self.report.note("nothing to remove");
        }
        Ok(registry.pending_removals.is_empty())
    }

    /// Decides about the named venvs, or about each that is not healthy.
    fn decide(
        &self,
        inventory: &Inventory,
        now: &Interpreters,
        wanted: &RebuildRequest,
    ) -> Result<Vec<Decision>, AskError> {
        let Some(venvs) = wanted.venvs else {
            return Ok(self.propose_repair(inventory, now, wanted.wish, RepairFor::Person));
        };
        let mut ids = Vec::new();
        for entry in chosen(&inventory.registry, venvs)? {
            let name = entry.name.clone();
            match inventory.entries().find(|(one, _)| one.id == entry.id) {
                Some((_, Ok(venv))) if !venv.base.is_debian => {
                    return Err(AskError::NotDebian { name, interpreter: venv.base.path.clone() });
                }
                Some((entry, Ok(_))) => ids.push(entry.id.as_str()),
                Some((entry, Err(error))) => {
                    return Err(AskError::NotAVenv(self.not_a_venv(entry, error)));
                }
                None => return Err(AskError::Vanished(name)),
            }
        }
        Ok(self.propose_rebuilds(inventory, &ids, now, wanted.wish))
    }

    /// The result of what a unit of systemd does: if apt is at work, the unit tries again later.
    pub(super) fn or_later(&self, result: Result<Rebuilt, AskError>) -> Result<Rebuilt, AskError> {
        match result {
            Err(error @ AskError::AptAtWork) => {
                self.report.note(&error.to_string());
                let is_any_registered = true;
                Ok(Rebuilt { is_any_registered, needs_attention: true, ..Rebuilt::default() })
            }
            other => other,
        }
    }

    /// Carries decisions out, or only prepares the new trees: `at_once` are built at a time.
    pub(super) fn carry_out(
        &self,
        mut inventory: Inventory,
        decisions: &[Decision],
        now: &Interpreters,
        at_once: Option<usize>,
        prepares: bool,
    ) -> Carried {
        let jobs = Job::all(inventory.present(), decisions);
        let (context, at_once) = (self.context(), self.config.at_once(at_once));
        self.prune(&mut inventory.registry, &[]);
        let registry = &mut inventory.registry;
        let outcomes = if prepares {
            let tell = |_: &Job, outcome: &Outcome| repair::tell(&context, outcome);
            repair::prepare_all(&context, registry, &System::installed(now), &jobs, at_once, tell)
        } else {
            repair::execute(&context, registry, now, &jobs, at_once)
        };
        let good = self.judge(&outcomes);
        let times = outcomes.into_iter().map(|one| (one.decision.name, one.times)).collect();
        let mut inventory = self.inventory_of(inventory.registry);
        let ids: Vec<&str> = decisions.iter().map(|decision| decision.id.as_str()).collect();
        let units =
            if prepares { 0 } else { self.restart_units_of_users(&mut inventory, &ids, now) };
        let left =
            units + report_unmanaged(&context, &inventory, &ids, now, Unmanaged::OutsideOfUnits);
        Carried { good, left, times }
    }

    /// If no venvs are named, reports the registered paths that are not venvs. Returns whether
    /// there are any.
    fn report_no_venvs(&self, inventory: &Inventory, wanted: &RebuildRequest) -> bool {
        let mut found = false;
        for (entry, venv) in inventory
            .entries()
            .filter(|(one, _)| wanted.venvs.is_none() && one.policy != Policy::Ignore)
        {
            if let Err(error) = venv {
                self.report.error(&self.not_a_venv(entry, error));
                found = true;
            }
        }
        found
    }

    /// Reports the venvs whose repair must be finished first. Returns whether there are any.
    fn report_unfinished(&self, inventory: &Inventory) -> bool {
        let is_open = |entry: &&RegistryEntry| self.store.has_journal(&entry.id);
        let open = inventory.entries().map(|(entry, _)| entry).filter(is_open);
        open.map(|entry| {
            let name = &entry.name;
            self.report.note(&format!("{name}: the rebuild first finishes an interrupted repair"));
        })
        .count()
            > 0
    }

    /// Why a venv cannot be rebuilt that is not one, and what to do.
    fn not_a_venv(&self, entry: &RegistryEntry, error: &NotAVenv) -> String {
        let name = &entry.name;
        let way_back = match error {
            NotAVenv::Missing(_) => repair::way_back(&self.context(), entry),
            _ => None,
        };
        let way_back = way_back.map(|way| format!(" ({way})")).unwrap_or_default();
        format!("cannot rebuild {name}: {error}; nothing was changed{way_back}")
    }

    fn report_impossible(&self, decisions: &[Decision]) -> bool {
        let mut found = false;
        for decision in decisions.iter().filter(|one| one.remedy == Remedy::Impossible) {
            let reasons = reasons_in_words(decision).join("; ");
            self.report.error(&format!("cannot rebuild {}: {reasons}", decision.name));
            self.report.note("the venv is unchanged");
            found = true;
        }
        found
    }
}

/// The result of carrying the decisions out.
pub(super) struct Carried {
    pub(super) good: bool,
    /// The processes that only a person can restart.
    pub(super) left: usize,
    pub(super) times: Vec<StepTimes>,
}
