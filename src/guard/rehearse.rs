//! Finds out before an upgrade which venvs work after it: builds and checks their new trees with
//! the interpreters of the next system.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::SignedDuration;

use super::choose::chosen;
use super::foresee::ForeseeError;
use super::{AskError, Guard};
use crate::apt::{
    self, Change, Lists, RemovedLibraries, Transaction, changes, pending_upgrade, predict,
};
use crate::host::clock::{self, Deadline};
use crate::host::{lock, signal};
use crate::inventory::{Asked, Inventory, facts, subject};
use crate::plan::{self, Facts, Finding, Proof, Questions, Trial};
use crate::python::{Interpreters, Minor, Version};
use crate::repair;
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
pub(super) const TRY_AGAIN: SignedDuration = SignedDuration::from_hours(23);

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
                let (apt, incomplete) = apt::of_release(&self.root, release)?;
                if let Some(why) = incomplete {
                    self.report.note(&format!(
                        "some package lists of {release} are missing or old: {why}"
                    ));
                }
                (apt, Lists::Updated(None))
            }
            None => (apt::without_hold(&self.root)?, Lists::look(&self.root)),
        };
        let now = self.interpreters()?;
        let mut registry = self.registry()?;
        self.recover(&mut registry, &now);
        let upgrade = match lists {
            Lists::Empty => Transaction::default(),
            Lists::Updated(_) => pending_upgrade(&apt).map_err(ForeseeError::from)?,
        };
        let after = predict(&now, &upgrade.actions);
        let mut inventory = self.inventory_of(registry);
        self.prune(&mut inventory.registry, &[]);
        let trials = if wanted.is_forecast {
            self.due_trials(&inventory, &now, &after, TRY_AGAIN)?
        } else {
            self.trials(&inventory, wanted.venvs, &now, &after)?
        };
        let archives = |packages: &[String]| apt::fetch(&self.root, &apt, packages);
        let venvs = self.find_out(&mut inventory, trials, (&upgrade, &now, &after), archives)?;
        if wanted.is_forecast && lists != Lists::Empty {
            let none = RemovedLibraries::default();
            let plan =
                self.propose_before_dpkg(&inventory, (&now, &after), &upgrade.actions, &none, None);
            self.hold_by_forecast(&plan)?;
        }
        let mut prepared = Vec::new();
        if wanted.is_forecast {
            prepared = self.prepare_pinned(&mut inventory, &now);
        }
        Ok(Rehearsed { lists, changes: changes(&now, &after), venvs, prepared })
    }

    /// Ends this process when an apt run begins, until the result is dropped: apt waits for the
    /// lock. The apt run, or the next one of ours, removes the unfinished trees.
    fn give_way_to_apt(&self) -> Way {
        let is_over = Arc::new(AtomicBool::new(false));
        let (store, report, over) = (self.store.clone(), self.report.clone(), is_over.clone());
        let (before, is_system) = (store.last_call(), self.root.is_system());
        std::thread::spawn(move || {
            let is_wanted = || store.last_call() != before || is_system && lock::is_dpkg_running();
            let has_apt_started = clock::wait_until(Deadline::after(LONGEST), POLL, || {
                over.load(Ordering::Relaxed) || is_wanted()
            });
            if !over.load(Ordering::Relaxed) {
                report.note(if has_apt_started {
                    "apt has started, so the rehearsal stops; run it again afterwards"
                } else {
                    "the rehearsal has taken 12 hours, and stops; its results so far are kept"
                });
                signal::end_self();
            }
        });
        Way { is_over }
    }

    /// Whether the last rehearsal of a venv says nothing about this one, or may be out of date: a venv
    /// that was not ready is tried again after a pause.
    pub(super) fn is_due(
        &self,
        inventory: &Inventory,
        id: &str,
        trial: &Trial,
        after: &Interpreters,
        pause: SignedDuration,
    ) -> bool {
        let minor = match trial {
            Trial::Build(decision) => decision.target().map(|target| target.minor),
            Trial::Check(minor) => Some(*minor),
            Trial::Impossible(_) => return false,
        };
        let is_known = minor.is_some_and(|minor| after.get(minor).is_some());
        is_known
            && self.last_found(inventory, id, minor, after).is_none_or(|found| {
                !found.is_ready() && clock::now().duration_since(found.at) >= pause
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
        let (entry, venv) = inventory.get(id)?;
        let package = &after.get(minor?)?.package.name;
        // An unreadable record counts as none.
        let found = self.store.rehearsal(id, package).ok().flatten()?;
        let made_for = self.made_for(entry, venv, minor, after)?;
        let is_gone = found.proof == Proof::Rehearsed && !self.store.has_prepared_tree(id);
        (found.made_for == made_for && !is_gone).then_some(found)
    }

    /// What a rehearsal of a venv is made for, with the interpreter of a minor version.
    pub(super) fn made_for(
        &self,
        entry: &RegistryEntry,
        venv: &Venv,
        minor: Option<Minor>,
        after: &Interpreters,
    ) -> Option<MadeFor> {
        let interpreter = after.get(minor?)?.package.clone();
        let recipe = repair::recipe_digest(&self.context(), entry, venv);
        Some(MadeFor { interpreter, recipe })
    }

    /// What there is to find out about the venvs, and is not known yet.
    pub(super) fn due_trials(
        &self,
        inventory: &Inventory,
        now: &Interpreters,
        after: &Interpreters,
        pause: SignedDuration,
    ) -> Result<Vec<(String, Trial)>, AskError> {
        let mut trials = self.trials(inventory, &[], now, after)?;
        trials.retain(|(id, trial)| self.is_due(inventory, id, trial, after, pause));
        Ok(trials)
    }

    /// What there is to find out about the wanted venvs.
    pub(super) fn trials(
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
            let subject = subject(&self.config, entry, venv);
            let questions = Questions { services: false, ..plan::questions(&subject, now, after) };
            let target = plan::target(&subject, now, after);
            Asked { id: subject.id, questions, target, next: None }
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
}
