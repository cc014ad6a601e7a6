//! Keeping the services of a venv down while its trees change places.

use super::Context;
use super::job::Job;
use crate::host::Root;
use crate::service::{self, Outcome, Service};
use crate::store::{JournalEntry, JournalState};

/// How often services are stopped that come up again by themselves.
const ATTEMPTS: usize = 3;

/// What was stopped, and has to be started again.
#[derive(Debug, Default)]
pub(super) struct Halt {
    /// The services that were told to stop.
    stopped: Vec<Service>,
    /// Units that go down with the services, or would start them in between.
    units: Vec<String>,
}

impl Halt {
    /// The same after a crash, of which the journal tells.
    pub(super) fn of(journal: &JournalEntry) -> Self {
        Self { stopped: journal.decision.services.clone(), units: journal.units.clone() }
    }

    /// Starts what was stopped and is still down, whatever kept it from being started before. What
    /// was started and failed is its manager's.
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

    /// Stops the services; then does `work` while none of them runs. Where a socket or a timer
    /// starts one in between, that is stopped as well and the work is done again. What was
    /// stopped is in the journal first, at `step`.
    pub(super) fn while_stopped<E>(
        &mut self,
        context: &Context,
        job: &Job,
        step: &JournalState,
        first: Triggers,
        mut work: impl FnMut() -> Result<(), E>,
    ) -> Result<(), Halted<E>> {
        let dependents = service::dependents(context.root, job.services());
        self.add(dependents.map_err(|error| Halted::Stop(error.to_string()))?);
        for attempt in 0..ATTEMPTS {
            if attempt > 0 || first == Triggers::Stopped {
                let triggers = service::triggers(context.root, job.services());
                let triggers = triggers.map_err(|error| Halted::Stop(error.to_string()))?;
                self.add(triggers.clone());
                self.stop(context, job, step, &triggers)?;
            } else {
                self.stop(context, job, step, &[])?;
            }
            work().map_err(Halted::Work)?;
            if service::came_up_again(context.root, job.services()).is_none() {
                return Ok(());
            }
        }
        let restless = service::came_up_again(context.root, job.services());
        let name = restless.as_ref().map(Service::to_string).unwrap_or_default();
        Err(Halted::Stop(format!("{name} is started again whenever it is stopped")))
    }

    fn stop<E>(
        &mut self,
        context: &Context,
        job: &Job,
        step: &JournalState,
        triggers: &[String],
    ) -> Result<(), Halted<E>> {
        if job.services().is_empty() {
            return Ok(());
        }
        let failed = |error: &dyn std::fmt::Display| Halted::Stop(error.to_string());
        job.begin(context, step.clone(), &self.units).map_err(|error| failed(&error))?;
        service::stop_units(context.root, triggers).map_err(|error| failed(&error))?;
        self.stopped = job.services().to_vec();
        for (service, told) in service::stop_all(context.root, job.services()) {
            told.map_err(|error| Halted::Stop(format!("cannot stop {service}: {error}")))?;
        }
        Ok(())
    }

    fn add(&mut self, units: Vec<String>) {
        self.units.extend(units);
        self.units.sort();
        self.units.dedup();
    }
}

/// What becomes of the sockets and timers that may start a service in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Triggers {
    /// They go on, unless they do so: a socket keeps its clients waiting for a moment.
    GoOn,
    Stopped,
}

/// Why the work was not done, or not while everything was stopped.
#[derive(Debug)]
pub(super) enum Halted<E> {
    Stop(String),
    Work(E),
}
