//! Carries out what a rehearsal tries, and records what it finds about each venv.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use super::rehearse::VenvRehearsal;
use super::{AskError, Guard};
use crate::apt::{self, FetchError, Transaction, packages_of};
use crate::host::parallel;
use crate::inventory::Inventory;
use crate::plan::{Decision, Finding, FindingKind, Proof, Trial};
use crate::python::{Interpreters, Minor};
use crate::rehearse::{self, NextError, NextSystem};
use crate::repair::{self, Done, Job, Outcome, System};
use crate::report::reasons_in_words;
use crate::store::{RegistryEntry, Rehearsal, Stay};
use crate::venv::Venv;

/// What was found about a venv.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// The minor version that it was tried for.
    minor: Option<Minor>,
    proof: Proof,
    /// Why it is not ready.
    findings: Vec<Finding>,
    /// What breaks in it if it stays on its own interpreter, if that was tried.
    stay: Option<Stay>,
}

impl Found {
    fn new(minor: Option<Minor>, proof: Proof, findings: Vec<Finding>) -> Self {
        Self { minor, proof, findings, stay: None }
    }
}

impl Guard {
    /// Carries out the trials for an upgrade, and records what each finds.
    /// `archives` knows where the archives of some packages are, and of all that these need.
    pub(super) fn find_out(
        &self,
        inventory: &mut Inventory,
        trials: Vec<(String, Trial)>,
        (upgrade, now, after): (&Transaction, &Interpreters, &Interpreters),
        archives: impl FnOnce(&[String]) -> Result<Vec<PathBuf>, FetchError>,
    ) -> Result<Vec<VenvRehearsal>, AskError> {
        let is_tried = |(_, trial): &(String, Trial)| !matches!(trial, Trial::Impossible(_));
        let next = if trials.iter().any(is_tried) {
            self.next_system(upgrade, now, after, archives)?
        } else {
            None
        };
        let mut found = self.carry_out_trials(inventory, trials, next.as_ref(), after);
        let mut venvs = Vec::new();
        for (entry, _) in inventory.present() {
            let Some(Found { minor, proof, mut findings, stay }) = found.remove(&entry.id) else {
                continue;
            };
            findings.extend(stay.into_iter().flat_map(|stay| stay.findings));
            let version = minor.and_then(|minor| after.get(minor)).map(|one| one.version.clone());
            venvs.push(VenvRehearsal { entry: entry.clone(), version, proof, findings });
        }
        Ok(venvs)
    }

    /// Unpacks the next system; `None` if the kernel does not let programs see it.
    fn next_system(
        &self,
        upgrade: &Transaction,
        now: &Interpreters,
        after: &Interpreters,
        archives: impl FnOnce(&[String]) -> Result<Vec<PathBuf>, FetchError>,
    ) -> Result<Option<NextSystem>, AskError> {
        let progress = self.report.progress("rehearsal");
        progress.step("fetching the packages of the next Python");
        let is_new = |minor: &&Minor| now.get(**minor) != after.get(**minor);
        let minors: Vec<Minor> = after.installed.keys().filter(is_new).copied().collect();
        let archives = archives(&packages_of(&upgrade.actions, &minors))?;
        progress.step("unpacking the packages of the next Python");
        let next = NextSystem::unpack(&self.root, &archives, &upgrade.removed, after);
        progress.end();
        match next {
            Ok(next) => Ok(Some(next)),
            Err(NextError::NotShown(because)) => {
                self.report.note(&format!(
                    "this kernel or container forbids the mounts that a rehearsal needs ({because}); venvguard only asks the index for wheels, and builds nothing"
                ));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What was found about the venvs, by their ids.
    fn carry_out_trials(
        &self,
        inventory: &mut Inventory,
        trials: Vec<(String, Trial)>,
        next: Option<&NextSystem>,
        after: &Interpreters,
    ) -> BTreeMap<String, Found> {
        let mut found = BTreeMap::new();
        let (mut builds, mut checks) = (Vec::new(), Vec::new());
        for (id, trial) in trials {
            match trial {
                Trial::Build(decision) => builds.push(decision),
                Trial::Check(minor) => checks.push((id, minor)),
                Trial::Impossible(decision) => drop(found.insert(id, impossible(&decision))),
            }
        }
        found.extend(self.check(inventory, checks, next, after));
        found.extend(match next {
            Some(next) => self.build_all(inventory, &builds, next.system(), after),
            None => self.resolve(inventory, &builds, after),
        });
        found
    }

    /// Checks venvs as they are with the next version of their interpreter.
    fn check(
        &self,
        inventory: &Inventory,
        checks: Vec<(String, Minor)>,
        next: Option<&NextSystem>,
        after: &Interpreters,
    ) -> Vec<(String, Found)> {
        let context = self.context();
        let checked = parallel::map(checks, self.config.at_once(None), |(id, minor)| {
            let (entry, venv) = inventory.get(&id)?;
            let (proof, findings) = match next {
                Some(next) => {
                    (Proof::Smoke, repair::check_in(&context, entry, venv, next.system()))
                }
                None => (Proof::None, Vec::new()),
            };
            let found = Found::new(Some(minor), proof, findings);
            self.record_found(entry, venv, after, &found);
            Some((id, found))
        });
        checked.into_iter().flatten().collect()
    }

    /// Builds new trees for venvs, and checks them. A venv that cannot be rebuilt is checked as it is:
    /// it would have to stay on its own interpreter.
    pub(super) fn build_all(
        &self,
        inventory: &mut Inventory,
        builds: &[Decision],
        system: &System,
        after: &Interpreters,
    ) -> Vec<(String, Found)> {
        let (context, at_once) = (self.context(), self.config.at_once(None));
        let jobs = Job::all(inventory.present(), builds);
        let found = Mutex::new(Vec::new());
        let each = |Job { entry, venv, .. }: &Job, outcome: &Outcome| {
            let mut one = prepared(outcome);
            let stays = !one.findings.is_empty() && system.unpacked.is_some();
            one.stay = after.get(venv.site).filter(|_| stays).map(|own| Stay {
                interpreter: own.package.clone(),
                findings: repair::check_in(&context, entry, venv, system),
            });
            self.record_found(entry, venv, after, &one);
            found.lock().unwrap_or_else(PoisonError::into_inner).push((entry.id.clone(), one));
        };
        let registry = &mut inventory.registry;
        repair::prepare_all(&context, registry, system, &jobs, at_once, each);
        found.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the index about venvs that would be rebuilt.
    fn resolve(
        &self,
        inventory: &Inventory,
        builds: &[Decision],
        after: &Interpreters,
    ) -> Vec<(String, Found)> {
        let resolved = |decision: &Decision| {
            let (entry, venv) = inventory.get(&decision.id)?;
            let minor = decision.target()?.minor;
            let findings = repair::resolve(&self.context(), entry, venv, minor);
            let proof = if findings.is_empty() { Proof::Resolved } else { Proof::None };
            let found = Found::new(Some(minor), proof, findings);
            self.record_found(entry, venv, after, &found);
            Some((decision.id.clone(), found))
        };
        builds.iter().filter_map(resolved).collect()
    }

    /// Removes what rehearsals have left below `/var/cache/venvguard`. The caller holds the lock, so
    /// that none is in progress.
    pub(super) fn prune_cache(&self, oldest: Timestamp) {
        if self.root.user().is_some() {
            return;
        }
        let next = rehearse::sweep(&self.root);
        let fetched = apt::remove_unused(&self.root, oldest);
        for error in [next.err(), fetched.err()].into_iter().flatten() {
            self.report.error(&format!("cannot tidy /var/cache/venvguard: {error}"));
        }
    }

    /// Records what was found about a venv, as soon as it is known: the process may be ended at any
    /// moment. A trial that did not come about found nothing.
    fn record_found(
        &self,
        entry: &RegistryEntry,
        venv: &Venv,
        after: &Interpreters,
        found: &Found,
    ) {
        if found.findings.iter().any(|one| one.kind == FindingKind::Untried) {
            return;
        }
        let Some(made_for) = self.made_for(entry, venv, found.minor, after) else { return };
        let mut record = Rehearsal::new(made_for, found.proof, found.findings.clone());
        record.stay.clone_from(&found.stay);
        if let Err(error) = self.store.save_rehearsal(&entry.id, &record) {
            let name = &entry.name;
            self.report.error(&format!("cannot record what was found about {name}: {error}"));
        }
    }
}

/// What a decision says that makes a trial impossible.
fn impossible(decision: &Decision) -> Found {
    let obstacle = |why| Finding::of_venv(FindingKind::Obstacle, why);
    let findings = reasons_in_words(decision).into_iter().map(obstacle).collect();
    Found::new(None, Proof::None, findings)
}

/// What the attempt to prepare a new tree proves.
fn prepared(outcome: &Outcome) -> Found {
    let minor = outcome.decision.target().map(|target| target.minor);
    let (proof, findings) = match &outcome.done {
        Done::Prepared { .. } => (Proof::Rehearsed, Vec::new()),
        Done::Failed { because, .. } | Done::Unfinished { because }
            if outcome.findings.is_empty() =>
        {
            (Proof::None, vec![Finding::of_venv(FindingKind::Untried, because.clone())])
        }
        _ => (Proof::None, outcome.findings.clone()),
    };
    Found::new(minor, proof, findings)
}
