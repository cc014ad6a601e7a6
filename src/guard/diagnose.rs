//! The causes of a failure that somebody asks about.

use std::path::PathBuf;

use super::choose::{ChoiceError, chosen};
use super::{AskError, Guard};
use crate::diagnose::failure::{Cause, FailureText, Machine, cause_of_state, causes_in, causes_of};
use crate::host::root::normal;
use crate::inventory::Inventory;
use crate::plan::State;
use crate::repair::Outcome;
use crate::service::{self, Processes, Service, ServiceMap};
use crate::store::{History, Registry, RegistryEntry, Store};
use crate::venv;

/// What fails.
#[derive(Debug, Clone, Copy)]
pub(crate) enum FailureOf<'a> {
    /// A venv, by name, path or id.
    Venv(&'a String),
    /// A unit of the caller's systemd.
    Unit(&'a str),
    /// Something that left this text.
    Text(&'a [u8]),
}

impl Guard {
    /// The causes of a failure, the verified ones first; none if it has no known cause.
    pub(crate) fn diagnose(&self, failure: FailureOf) -> Result<Vec<Cause>, AskError> {
        match failure {
            FailureOf::Text(bytes) => {
                let text = FailureText::read(bytes);
                let (registry, history) = self.known_everywhere();
                let machine = Machine::look(&self.root, &text.venvs(), &registry, &history);
                Ok(causes_of(&text, &machine))
            }
            FailureOf::Unit(unit) => self.diagnose_unit(unit),
            FailureOf::Venv(word) => self.diagnose_venv(word),
        }
    }

    /// Names the cause of each failed repair, if it is known. Returns whether all repairs are good.
    pub(super) fn judge(&self, outcomes: &[Outcome]) -> bool {
        let mut all_good = true;
        for outcome in outcomes {
            let Some(failure) = outcome.done.failure() else { continue };
            all_good = false;
            if let Some(cause) = self.cause_in_a_line(failure) {
                self.report.note(&format!("{}: {cause}", outcome.decision.name));
            }
        }
        all_good
    }

    /// The cause of a failure and its fix, if they are known.
    pub(super) fn cause_in_a_line(&self, failure: &str) -> Option<String> {
        let causes = self.diagnose(FailureOf::Text(failure.as_bytes())).ok()?;
        let Cause { title, remedy, certainty, .. } = causes.first()?;
        Some(format!("{certainty} cause: {title}; fix: {remedy}"))
    }

    /// The causes in the log of a unit, and in the venvs that use it.
    fn diagnose_unit(&self, unit: &str) -> Result<Vec<Cause>, AskError> {
        let manager = if self.root.user().is_some() { "user" } else { "systemd" };
        let service: Service = format!("{manager}:{unit}").parse().map_err(AskError::Unit)?;
        let (registry, _) = self.known_everywhere();
        let paths = registry.venvs.iter().map(RegistryEntry::path);
        let map = ServiceMap::build(&self.root, paths, &Processes::look(&self.root));
        let runs = |entry: &&RegistryEntry| {
            let found = &map.of(entry.path()).services;
            entry.services.contains(&service) || found.contains(&service)
        };
        let venvs = registry.venvs.iter().filter(runs).map(|entry| entry.path().to_path_buf());
        Ok(self.diagnose_services(std::slice::from_ref(&service), &venvs.collect::<Vec<_>>()))
    }

    fn diagnose_venv(&self, word: &String) -> Result<Vec<Cause>, AskError> {
        let inventory = self.inventory()?;
        let found = match chosen(&inventory.registry, std::slice::from_ref(word)) {
            Err(ChoiceError::Nothing { .. }) if word.contains('/') => {
                let path = normal(&std::path::absolute(word).map_err(ChoiceError::from)?);
                let venv = venv::inspect(&self.root, &path);
                let venv = venv.map_err(|error| AskError::NotAVenv(error.to_string()))?;
                return Ok(self.diagnose_services(&self.services_of(&venv.path, &[]), &[venv.path]));
            }
            other => other?,
        };
        let [entry] = found.as_slice() else {
            return Err(AskError::Several { word: word.clone(), count: found.len() });
        };
        let (path, services) = (entry.path().to_path_buf(), entry.services.clone());
        if let Some(cause) = self.cause_without_venv(inventory, word)? {
            return Ok(vec![cause]);
        }
        Ok(self.diagnose_services(&self.services_of(&path, &services), &[path]))
    }

    /// The cause, if there is no venv to look at.
    fn cause_without_venv(
        &self,
        inventory: Inventory,
        word: &String,
    ) -> Result<Option<Cause>, AskError> {
        let looked = self.looked(inventory, Some(std::slice::from_ref(word)))?;
        let gone = looked.into_iter().find(|one| {
            matches!(one.health.state, State::Missing | State::Broken | State::Unfinished)
        });
        Ok(gone.map(|one| cause_of_state(&one.entry.name, &one.health)))
    }

    /// The services of a venv: those that were declared, or else those that were found.
    fn services_of(&self, path: &PathBuf, declared: &[Service]) -> Vec<Service> {
        if !declared.is_empty() {
            return declared.to_vec();
        }
        let map = ServiceMap::build(&self.root, [path], &Processes::look(&self.root));
        map.of(path).services.iter().cloned().collect()
    }

    /// The causes in the state of some venvs and in what services wrote.
    fn diagnose_services(&self, services: &[Service], venvs: &[PathBuf]) -> Vec<Cause> {
        let logs: Vec<String> =
            services.iter().map(|service| service::log(&self.root, service)).collect();
        let text = FailureText::read(logs.join("\n").as_bytes());
        let named = text.venvs().into_iter().filter(|path| !venvs.contains(path));
        let paths: Vec<PathBuf> = venvs.iter().cloned().chain(named).collect();
        let (registry, history) = self.known_everywhere();
        let machine = Machine::look(&self.root, &paths, &registry, &history);
        let its =
            machine.venvs().iter().filter(|venv| venvs.iter().any(|path| path == venv.path()));
        let mut causes: Vec<Cause> = its.flat_map(|venv| causes_in(venv, &machine)).collect();
        for cause in causes_of(&text, &machine) {
            if causes.iter().all(|known| known.id != cause.id) {
                causes.push(cause);
            }
        }
        causes.sort_by_key(|cause| cause.certainty);
        causes
    }

    /// The venvs that the caller and root have registered, and what was done to them; without
    /// what the caller may not read.
    fn known_everywhere(&self) -> (Registry, History) {
        let mut registry = self.registry().unwrap_or_default();
        let mut history = self.store.history().unwrap_or_default();
        if self.root.user().is_some() {
            let roots = Store::new(&self.root.of_root());
            registry.venvs.extend(roots.registry().unwrap_or_default().venvs);
            history.events.extend(roots.history().unwrap_or_default().events);
        }
        (registry, history)
    }
}
