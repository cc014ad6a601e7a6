//! Keeps the services of a venv down while its trees are swapped.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::Context;
use super::job::Job;
use crate::host::Root;
use crate::service::{self, Outcome, Service};
use crate::store::{JournalEntry, JournalState};

/// How often to stop services that something starts again.
const ATTEMPTS: usize = 3;

/// What was stopped, and must be started again.
#[derive(Debug, Default)]
pub(super) struct Halt {
    /// The services that were told to stop.
    stopped: Vec<Service>,
    /// Units that go down with the services, or would start them in between.
    units: Vec<String>,
}

impl Halt {
    /// The same after a crash, from the journal.
    pub(super) fn of(journal: &JournalEntry) -> Self {
        // A tree that is prepared to rest stops nothing.
        if matches!(journal.state, JournalState::Preparing { to_rest: true, .. }) {
            return Self::default();
        }
        Self { stopped: journal.decision.services.clone(), units: journal.units.clone() }
    }

    /// Starts the services that were stopped and are still down, and the units. A service that was
    /// started and failed is left to its manager.
    pub(super) fn start_what_is_left(&self, root: &Root) -> Vec<String> {
        let is_left = |service: &&Service| {
            service::condition(root, service).is_ok_and(|found| {
                found.left_alone.is_none() && !found.is_at_work() && !found.failed
            })
        };
        let left: Vec<Service> = self.stopped.iter().filter(is_left).cloned().collect();
        let mut notes: Vec<String> = service::start_all(root, &left)
            .into_iter()
            .filter_map(|(service, told)| match told {
                Ok(Outcome::Done) => Some(format!("{service} was started again")),
                Ok(Outcome::LeftAlone(_)) => None,
                Err(error) => Some(format!("cannot start {service} again: {error}")),
            })
            .collect();
        if let Err(error) = service::start_units(root, &self.units) {
            notes.push(format!("cannot start {} again: {error}", self.units.join(", ")));
        }
        notes
    }

    pub(super) fn units(&self) -> &[String] {
        &self.units
    }

    fn add(&mut self, units: &[String]) {
        self.units.extend_from_slice(units);
        self.units.sort();
        self.units.dedup();
    }
}

/// A venv whose services are stopped.
pub(super) struct Stopping<'a> {
    pub(super) job: &'a Job,
    /// Its services that stop.
    pub(super) services: Vec<Service>,
    /// The state that the journal holds until the swap.
    pub(super) state: &'a JournalState,
    pub(super) halt: &'a RefCell<Halt>,
}

/// Stops the services of some venvs, then does `work` while none of them runs. If a socket or a
/// timer starts one in between, that unit is stopped as well and the work is repeated. The journal
/// of each venv names what is about to be stopped.
pub(super) fn while_stopped<E>(
    context: &Context,
    venvs: &[Stopping],
    first: Triggers,
    mut work: impl FnMut() -> Result<(), E>,
) -> Result<(), Halted<E>> {
    let root = context.root;
    let services = each_once(venvs.iter().flat_map(|one| &one.services));
    let failed = |error: &dyn std::fmt::Display| Halted::Stop(error.to_string());
    let units = service::dependents(root, &services).map_err(|error| failed(&error))?;
    let add = |units: &[String]| {
        for one in venvs {
            one.halt.borrow_mut().add(units);
        }
    };
    add(&units);
    for attempt in 0..ATTEMPTS {
        let mut triggers = service::triggers(root, &services).map_err(|error| failed(&error))?;
        if attempt == 0 && first == Triggers::GoOn {
            triggers.retain(|unit| starts_at_once(unit));
        }
        add(&triggers);
        stop(context, venvs, &services, &triggers).map_err(Halted::Stop)?;
        work().map_err(Halted::Work)?;
        if service::came_up_again(root, &services).is_none() {
            return Ok(());
        }
    }
    let restless = service::came_up_again(root, &services);
    let name = restless.as_ref().map(Service::to_string).unwrap_or_default();
    Err(Halted::Stop(format!("something starts {name} again whenever it is stopped")))
}

fn stop(
    context: &Context,
    venvs: &[Stopping],
    services: &[Service],
    triggers: &[String],
) -> Result<(), String> {
    if services.is_empty() {
        return Ok(());
    }
    for Stopping { job, state, halt, .. } in venvs {
        let begun = job.begin(context, (*state).clone(), halt.borrow().units());
        begun.map_err(|error| error.to_string())?;
    }
    service::stop_units(context.root, triggers).map_err(|error| error.to_string())?;
    for Stopping { services, halt, .. } in venvs {
        halt.borrow_mut().stopped.clone_from(services);
    }
    for (service, told) in service::stop_all(context.root, services) {
        told.map_err(|error| format!("cannot stop {service}: {error}"))?;
    }
    Ok(())
}

/// A path unit checks its path whenever its service stops, and starts it again if the path exists.
fn starts_at_once(unit: &str) -> bool {
    unit.rsplit_once('.').is_some_and(|(_, kind)| kind == "path")
}

/// Some services, each once.
pub(super) fn each_once<'a>(services: impl Iterator<Item = &'a Service>) -> Vec<Service> {
    let services: BTreeSet<&Service> = services.collect();
    services.into_iter().cloned().collect()
}

/// Whether the sockets and timers that may start a service in between are stopped. Path units always
/// are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Triggers {
    /// Only once they have started one: a stopped socket refuses its clients, an active one lets
    /// them wait for a moment.
    GoOn,
    /// From the beginning.
    Stopped,
}

/// Why the work was not done while everything was stopped.
#[derive(Debug)]
pub(super) enum Halted<E> {
    Stop(String),
    Work(E),
}
