//! Finds out before an upgrade which venvs work after it: builds and checks their new trees with
//! the interpreters of the next system.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::SignedDuration;

use super::choose::chosen;
use super::foresee::ForeseeError;
use super::{AskError, Guard};
use crate::apt::{
    self, Action, Change, FetchError, Lists, RemovedLibraries, Transaction, changes, packages_of,
    pending_upgrade, predict,
};
use crate::host::clock::{self, Deadline};
use crate::host::{lock, signal};
use crate::inventory::{Asked, Inventory, facts, subject};
use crate::plan::{self, Decision, Facts, Finding, FindingKind, Proof, Questions, Trial};
use crate::python::{Interpreters, Minor, Version};
use crate::rehearse::{NextError, NextSystem};
use crate::repair::{self, Done, Job, Outcome, System};
use crate::report::reasons_in_words;
use crate::store::{MadeFor, RegistryEntry, Rehearsal};
use crate::venv::Venv;

/// A rehearsal that somebody asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RehearsalRequest<'a> {
    /// Names, paths, ids or globs; none for every venv.
    pub(crate) venvs: &'a [String],
    /// Another release, instead of the pending upgrade.
    pub(crate) release: Option<&'a str>,
    /// Only for the venvs about which the last rehearsal says nothing any more.
    pub(crate) is_forecast: bool,
}

/// What a rehearsal found.
#[derive(Debug)]
#[must_use]
pub(crate) struct Rehearsed {
    pub(crate) lists: Lists,
    pub(crate) changes: Vec<Change>,
    /// The venvs about which there was something to find out.
    pub(crate) venvs: Vec<VenvRehearsal>,
    /// The pinned venvs that [`Guard::rebuild_ready`] can rebuild now: the forecast has prepared
    /// their new trees.
    pub(crate) prepared: Vec<String>,
}

/// The minor version that a venv was tried for, how, and why it is not ready.
pub(super) type Found = (Option<Minor>, Proof, Vec<Finding>);

/// What a rehearsal found about one venv.
#[derive(Debug)]
pub(crate) struct VenvRehearsal {
    pub(crate) entry: RegistryEntry,
    /// The interpreter that the venv gets.
    pub(crate) version: Option<Version>,
    pub(crate) proof: Proof,
    /// Why the venv is not ready; none if it is.
    pub(crate) findings: Vec<Finding>,
}

/// How long a rehearsal may take; many times what hundreds of venvs need.
const LONGEST: Duration = Duration::from_secs(12 * 3600);

/// When a forecast tries a venv again that was not ready: an index may have got its wheels.
const TRY_AGAIN: SignedDuration = SignedDuration::from_hours(23);

/// How often a rehearsal looks whether apt has started.
const POLL: Duration = Duration::from_millis(250);

/// While it lives, the process gives way to apt.
struct Way {
    is_over: Arc<AtomicBool>,
}

impl Drop for Way {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Guard {
    /// Whether the administrator wants the pending upgrade to be rehearsed in the background.
    pub(crate) fn wants_forecast(&self) -> bool {
        self.config.forecast
    }

    /// Rehearses for some venvs, or for all, the pending upgrade or that to another release.
    pub(crate) fn rehearse(&self, wanted: &RehearsalRequest) -> Result<Rehearsed, AskError> {
        self.require_system()?;
        let _lock = self.alone()?;
        let _way = self.give_way_to_apt();
        self.end_hold();
        let (apt, lists) = match wanted.release {
            Some(release) => {
                let progress = self.report.progress("rehearsal");
                progress.step(&format!("reading the package lists of {release}"));
                (apt::of_release(&self.root, release)?, Lists::Updated(None))
            }
            None => (apt::without_hold(&self.root)?, Lists::look(&self.root)),
        };
        let now = self.interpreters()?;
        let mut registry = self.registry()?;
        self.recover(&mut registry, &now);
        let actions = match lists {
            Lists::Empty => Vec::new(),
            Lists::Updated(_) => pending_upgrade(&apt).map_err(ForeseeError::from)?.actions,
        };
        let after = predict(&now, &actions);
        let mut inventory = self.inventory_of(registry);
        self.prune(&mut inventory.registry, &[]);
        let mut trials = self.trials(&inventory, wanted.venvs, &now, &after)?;
        if wanted.is_forecast {
            trials.retain(|(id, trial)| self.is_due(&inventory, id, trial, &after));
        }
        let archives = |packages: &[String]| apt::fetch(&self.root, &apt, packages);
        let venvs = self.find_out(&mut inventory, trials, (&actions, &now, &after), archives)?;
        if wanted.is_forecast && lists != Lists::Empty {
            let none = RemovedLibraries::default();
            let plan = self.propose_before_dpkg(&inventory, (&now, &after), &none, None);
            self.hold_by_forecast(&plan)?;
        }
        let mut prepared = Vec::new();
        if wanted.is_forecast {
            prepared = self.prepare_pinned(&mut inventory, &now)?;
        }
        Ok(Rehearsed { lists, changes: changes(&now, &after), venvs, prepared })
    }

    /// Rehearses a transaction of apt's before dpkg runs, with the archives that apt has fetched.
    pub(super) fn rehearse_transaction(&self, transaction: &Transaction) -> Result<(), AskError> {
        let _lock = self.lock()?;
        let now = self.interpreters()?;
        let actions = &transaction.actions;
        let after = predict(&now, actions);
        let mut inventory = self.inventory()?;
        let mut trials = self.trials(&inventory, &[], &now, &after)?;
        trials.retain(|(id, trial)| self.is_due(&inventory, id, trial, &after));
        let archives = |packages: &[String]| apt::among(&self.root, packages, transaction);
        self.find_out(&mut inventory, trials, (actions, &now, &after), archives).map(drop)
    }

    /// Carries out the trials for an upgrade by these actions, and records what they find.
    /// `archives` knows where the archives of some packages are, and of all that these need.
    fn find_out(
        &self,
        inventory: &mut Inventory,
        trials: Vec<(String, Trial)>,
        (actions, now, after): (&[Action], &Interpreters, &Interpreters),
        archives: impl FnOnce(&[String]) -> Result<Vec<PathBuf>, FetchError>,
    ) -> Result<Vec<VenvRehearsal>, AskError> {
        let is_tried = |(_, trial): &(String, Trial)| !matches!(trial, Trial::Impossible(_));
        let next = if trials.iter().any(is_tried) {
            self.next_system(actions, now, after, archives)?
        } else {
            None
        };
        let found = self.carry_out_trials(inventory, trials, next.as_ref());
        self.record_found(inventory, found, after)
    }

    /// Records what trials for these interpreters have found.
    pub(super) fn record_found(
        &self,
        inventory: &Inventory,
        mut found: BTreeMap<String, Found>,
        after: &Interpreters,
    ) -> Result<Vec<VenvRehearsal>, AskError> {
        let mut venvs = Vec::new();
        for (entry, venv) in inventory.present() {
            let Some((minor, proof, findings)) = found.remove(&entry.id) else { continue };
            let interpreter = minor.and_then(|minor| after.get(minor));
            if let Some(interpreter) = interpreter {
                let recipe = repair::recipe_digest(&self.context(), entry, venv);
                let made_for = MadeFor { interpreter: interpreter.package.clone(), recipe };
                let record = Rehearsal::new(made_for, proof, findings.clone());
                self.store.save_rehearsal(&entry.id, &record)?;
            }
            let version = interpreter.map(|one| one.version.clone());
            venvs.push(VenvRehearsal { entry: entry.clone(), version, proof, findings });
        }
        Ok(venvs)
    }

    /// Ends this process when an apt run begins, until the result is dropped: apt waits for the lock
    /// only for a short time. The apt run, or the next one of ours, removes the unfinished trees.
    fn give_way_to_apt(&self) -> Way {
        let is_over = Arc::new(AtomicBool::new(false));
        let (store, report, over) = (self.store.clone(), self.report.clone(), is_over.clone());
        let (before, is_system) = (store.last_call(), self.root.is_system());
        std::thread::spawn(move || {
            let is_wanted = || store.last_call() != before || is_system && lock::is_dpkg_running();
            clock::wait_until(Deadline::after(LONGEST), POLL, || {
                over.load(Ordering::Relaxed) || is_wanted()
            });
            if !over.load(Ordering::Relaxed) {
                report.note("the rehearsal ends, because apt has started or it takes too long");
                signal::end_self();
            }
        });
        Way { is_over }
    }

    /// Whether the last rehearsal of a venv says nothing about this one, or may be out of date.
    pub(super) fn is_due(
        &self,
        inventory: &Inventory,
        id: &str,
        trial: &Trial,
        after: &Interpreters,
    ) -> bool {
        let minor = match trial {
            Trial::Build(decision) => decision.target().map(|target| target.minor),
            Trial::Check(minor) => Some(*minor),
            Trial::Impossible(_) => return false,
        };
        let is_known = minor.is_some_and(|minor| after.get(minor).is_some());
        is_known
            && self.last_found(inventory, id, minor, after).is_none_or(|found| {
                !found.is_ready() && clock::now().duration_since(found.at) > TRY_AGAIN
            })
    }

    /// What the last rehearsal of a venv found for the interpreter of a minor version, unless the
    /// interpreter or the venv has changed since, or the prepared tree is gone.
    pub(super) fn last_found(
        &self,
        inventory: &Inventory,
        id: &str,
        minor: Option<Minor>,
        after: &Interpreters,
    ) -> Option<Rehearsal> {
        let interpreter = after.get(minor?)?.package.clone();
        let (entry, venv) = inventory.get(id)?;
        // An unreadable record counts as none.
        let found = self.store.rehearsal(id).ok().flatten()?;
        let recipe = repair::recipe_digest(&self.context(), entry, venv);
        let is_gone = found.proof == Proof::Rehearsed && !self.store.has_prepared(id);
        (found.made_for == MadeFor { interpreter, recipe } && !is_gone).then_some(found)
    }

    /// What there is to find out about the wanted venvs.
    fn trials(
        &self,
        inventory: &Inventory,
        wanted: &[String],
        now: &Interpreters,
        after: &Interpreters,
    ) -> Result<Vec<(String, Trial)>, AskError> {
        let chosen = chosen(&inventory.registry, wanted)?;
        let is_wanted = |entry: &RegistryEntry| {
            wanted.is_empty() || chosen.iter().any(|one| one.id == entry.id)
        };
        let venvs: Vec<(&RegistryEntry, &Venv)> =
            inventory.present().filter(|(entry, _)| is_wanted(entry)).collect();
        let asked = |(entry, venv): &(&RegistryEntry, &Venv)| {
            let readiness =
                plan::questions(&subject(&self.config, entry, venv), now, after).readiness;
            let questions = Questions { readiness, services: false };
            Asked { id: entry.id.clone(), questions, target: after.default, next: None }
        };
        let asked: Vec<Asked> = venvs.iter().map(asked).collect();
        let facts = facts(&self.context(), inventory, &asked, None);
        let none = Facts::default();
        Ok(venvs
            .into_iter()
            .filter_map(|(entry, venv)| {
                let facts = facts.get(&entry.id).unwrap_or(&none);
                let trial = plan::trial(&subject(&self.config, entry, venv), facts, now, after)?;
                Some((entry.id.clone(), trial))
            })
            .collect())
    }

    /// Asks the index about venvs that would be rebuilt.
    fn resolve(&self, inventory: &Inventory, builds: &[Decision]) -> Vec<(String, Found)> {
        let resolved = |decision: &Decision| {
            let (entry, venv) = inventory.get(&decision.id)?;
            let minor = decision.target()?.minor;
            let findings = repair::resolve(&self.context(), entry, venv, minor);
            let proof = if findings.is_empty() { Proof::Resolved } else { Proof::None };
            Some((decision.id.clone(), (Some(minor), proof, findings)))
        };
        builds.iter().filter_map(resolved).collect()
    }

    /// Unpacks the next system; `None` if the kernel does not let programs see it.
    fn next_system(
        &self,
        actions: &[Action],
        now: &Interpreters,
        after: &Interpreters,
        archives: impl FnOnce(&[String]) -> Result<Vec<PathBuf>, FetchError>,
    ) -> Result<Option<NextSystem>, AskError> {
        let progress = self.report.progress("rehearsal");
        progress.step("fetching the packages of the next Python");
        let is_new = |minor: &&Minor| now.get(**minor) != after.get(**minor);
        let minors: Vec<Minor> = after.installed.keys().filter(is_new).copied().collect();
        let archives = archives(&packages_of(actions, &minors))?;
        progress.step("unpacking the packages of the next Python");
        let next = NextSystem::unpack(&self.root, &archives, after);
        progress.end();
        match next {
            Ok(next) => Ok(Some(next)),
            Err(NextError::NotShown(because)) => {
                self.report.note(&format!(
                    "no program here can see the next system ({because}); venvguard only asks the index for wheels"
                ));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// By the ids of the venvs: the minor version that a venv was tried for, and what was found.
    fn carry_out_trials(
        &self,
        inventory: &mut Inventory,
        trials: Vec<(String, Trial)>,
        next: Option<&NextSystem>,
    ) -> BTreeMap<String, Found> {
        let context = self.context();
        let mut found = BTreeMap::new();
        let mut builds: Vec<Decision> = Vec::new();
        for (id, trial) in trials {
            match (trial, next) {
                (Trial::Build(decision), _) => builds.push(decision),
                (Trial::Check(minor), Some(next)) => {
                    let Some((entry, venv)) = inventory.get(&id) else { continue };
                    let findings = repair::check_in(&context, entry, venv, next.system());
                    found.insert(id, (Some(minor), Proof::Smoke, findings));
                }
                (Trial::Check(minor), None) => {
                    found.insert(id, (Some(minor), Proof::None, Vec::new()));
                }
                (Trial::Impossible(decision), _) => {
                    let why = reasons_in_words(&decision).into_iter();
                    let obstacle = |why| Finding::of_venv(FindingKind::Obstacle, why);
                    found.insert(id, (None, Proof::None, why.map(obstacle).collect()));
                }
            }
        }
        let Some(next) = next else {
            found.extend(self.resolve(inventory, &builds));
            return found;
        };
        found.extend(self.build_all(inventory, &builds, next.system()));
        found
    }

    /// Builds and checks new trees, as these decisions say, with the interpreters of a system.
    pub(super) fn build_all(
        &self,
        inventory: &mut Inventory,
        builds: &[Decision],
        system: &System,
    ) -> Vec<(String, Found)> {
        let jobs = Job::all(inventory.present(), builds);
        let (registry, at_once) = (&mut inventory.registry, self.config.at_once(None));
        let outcomes = repair::prepare_all(&self.context(), registry, system, &jobs, at_once);
        let found = |outcome: Outcome| {
            let minor = outcome.decision.target().map(|target| target.minor);
            let (proof, findings) = match (outcome.done, outcome.findings) {
                (Done::Prepared { .. }, _) => (Proof::Rehearsed, Vec::new()),
                (Done::Failed { because, .. } | Done::Unfinished { because }, findings)
                    if findings.is_empty() =>
                {
                    (Proof::None, vec![Finding::of_venv(FindingKind::Obstacle, because)])
                }
                (_, findings) => (Proof::None, findings),
            };
            (outcome.id, (minor, proof, findings))
        };
        outcomes.into_iter().map(found).collect()
    }
}
