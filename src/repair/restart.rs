//! Restarts what runs out of a venv, and checks that it came back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Context;
use super::account::owner;
use super::job::Job;
use super::place::owner_to_run;
use super::turns::Turns;
use crate::host::clock;
use crate::plan::Checked;
use crate::service::{
    self, Check, HttpAnswer, Outcome, ProcessId, Processes, Service, ServiceMap, VenvUsage,
};
use crate::store::{CheckFailure, Event, RegistryEntry};
use crate::venv::Venv;

/// How long a process may take to end after its service was restarted.
const GOING: Duration = Duration::from_secs(5);

/// What failed before the repair began. It is tried all the same, and a failure is reported but
/// not blamed on the repair.
#[derive(Debug, Default)]
pub(super) struct Baseline {
    failing: BTreeSet<Service>,
    check_fails: bool,
    /// How the services serve, if no check is declared.
    serving: BTreeMap<Service, Serving>,
}

/// How a service serves: where it listens, and what it answers if it is probed.
#[derive(Debug)]
struct Serving {
    addresses: BTreeSet<String>,
    answer: Option<HttpAnswer>,
}

impl Baseline {
    /// The services that fail now, except those that a transaction may have brought down; and the
    /// check, as the transaction recorded it or as it is now, if the venv `works`.
    pub(super) fn take(context: &Context, job: &Job, works: bool) -> Self {
        let fails = |service: &&Service| {
            !job.decision.were_up.contains(service)
                && service::condition(context.root, service).is_ok_and(|found| found.failed)
        };
        let failing = job.services().iter().filter(fails).cloned().collect();
        let fails_now =
            || check_of(context, job).is_some_and(|check| check.run(context.root).is_err());
        let check_fails = match &job.decision.check_before {
            Some(checked) => *checked != Checked::Passed,
            None => works && fails_now(),
        };
        let serving = match job.services() {
            // A check that somebody has declared says more.
            services if services.is_empty() || check_of(context, job).is_some() => BTreeMap::new(),
            services => {
                let (root, processes) = (context.root, Processes::look(context.root));
                let is_probed = job.entry.probe.unwrap_or(context.config.probe);
                let owner = owner(context, &job.venv);
                let serving = |one: &Service| {
                    let addresses = service::listening(root, one, &processes);
                    let ask = || HttpAnswer::first(root, &owner, &addresses);
                    let answer = is_probed.then(ask).flatten();
                    (one.clone(), Serving { addresses, answer })
                };
                services.iter().map(serving).collect()
            }
        };
        Self { failing, check_fails, serving }
    }

    /// Waits until a service listens somewhere and answers as well, if it did before. Its addresses
    /// may have changed: somebody may have edited its configuration.
    fn serves(&self, context: &Context, job: &Job, service: &Service) -> Result<(), String> {
        let before = self.serving.get(service).filter(|before| !before.addresses.is_empty());
        let Some(Serving { addresses, answer }) = before else { return Ok(()) };
        let patience = Duration::from_secs(context.config.service_timeout);
        if !service::await_listening(context.root, service, patience) {
            let before: Vec<&str> = addresses.iter().map(String::as_str).take(3).collect();
            return Err(format!(
                "{service}: it is up, but does not listen on any address; before, it listened on {}",
                before.join(", ")
            ));
        }
        let Some(answer) = answer else { return Ok(()) };
        let owner = owner(context, &job.venv);
        service::await_answer(context.root, service, &owner, answer, patience)
            .map_err(|error| format!("{service}: {error}"))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.failing.is_empty()
    }
}

/// The result of a restart.
#[derive(Debug, Default)]
pub(super) struct Restarted {
    pub(super) services: Vec<Service>,
    /// What a person should know.
    pub(super) notes: Vec<String>,
}

/// What runs out of a venv now. A process that has renamed itself is recognized by the files it
/// has mapped, and the kernel reports their current paths: ask before the trees are swapped.
/// Nobody asks about a venv without services.
pub(super) fn users_of(context: &Context, job: &Job) -> VenvUsage {
    if job.services().is_empty() {
        return VenvUsage::default();
    }
    let path = job.entry.path();
    ServiceMap::build(context.root, [path], &Processes::look(context.root)).of(path).clone()
}

/// For each service that was told to restart, the outcome, or why it could not be told.
pub(super) type Told = Vec<(Service, Result<Outcome, String>)>;

/// Tells services to restart, all services of one manager together.
pub(super) fn tell(context: &Context, services: &[Service]) -> Told {
    let results = service::restart_all(context.root, services).into_iter();
    results.map(|(service, told)| (service, told.map_err(|error| error.to_string()))).collect()
}

/// What must be true after the services of a venv were told to restart.
pub(super) struct Proof<'a> {
    pub(super) job: &'a Job,
    /// The turns in which the services restart.
    pub(super) turns: Turns,
    /// The units that were stopped with the services, and are started with them.
    pub(super) units: Vec<String>,
    pub(super) baseline: &'a Baseline,
    pub(super) before: &'a VenvUsage,
    /// Where the services are noted that were told to restart.
    pub(super) reached: &'a Mutex<Vec<Service>>,
    /// Where the result of the check is noted.
    pub(super) checked: &'a Mutex<Option<Result<(), CheckFailure>>>,
}

impl Proof<'_> {
    /// Proves the first turn, whose services were told to restart, then tells and proves each
    /// later one. After a failure, the services of later turns are left as they are.
    pub(super) fn prove(mut self, context: &Context, told: Told) -> Result<Restarted, String> {
        // Other venvs may share some of them.
        for turn in &mut self.turns.later {
            turn.retain(|service| !told.iter().any(|(one, _)| one == service));
        }
        let mut later = self.turns.later.iter().filter(|turn| !turn.is_empty());
        let mut result = self.prove_told(context, told);
        while let Ok(before) = &mut result {
            let Some(turn) = later.next() else { break };
            clock::pause(self.turns.pause);
            self.reached.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(turn);
            match self.prove_told(context, tell(context, turn)) {
                Ok(next) => {
                    before.services.extend(next.services);
                    before.notes.extend(next.notes);
                }
                Err(error) => result = Err(error),
            }
        }
        let left: Vec<String> = later.flatten().map(ToString::to_string).collect();
        result.map_err(|error| match left.as_slice() {
            [] => error,
            left => format!("{error}\nleft as they were: {}", left.join(", ")),
        })
    }

    /// Starts the units, and waits until all services that were told to restart are up, the check
    /// passes, and no process from before the restart is left. The error says which of these
    /// failed, and why; a failure that is older than the repair is a note.
    fn prove_told(&self, context: &Context, told: Told) -> Result<Restarted, String> {
        let Proof { job, units, baseline, before, .. } = self;
        let mut result = Restarted::default();
        if told.is_empty() && units.is_empty() && check_of(context, job).is_none() {
            return Ok(result);
        }
        let path = job.entry.path();
        // A service that fails does not stop the others: all of them depend on the venv.
        let mut failures = Vec::new();
        let mut as_before = Vec::new();
        let mut failed = |service: &Service, error: String| {
            if baseline.failing.contains(service) {
                as_before.push(format!("it failed before, and still does: {error}"));
            } else {
                failures.push(error);
            }
        };
        let mut restarted = BTreeSet::new();
        for (service, told) in told {
            let detail = match &told {
                Ok(Outcome::Done) => service.to_string(),
                Ok(Outcome::LeftAlone(why)) => format!("{service} is left alone: {why}"),
                Err(error) => format!("{service}: {error}"),
            };
            context.store.audit(&Event::new(&job.entry.name, path, "restart", detail.clone()));
            match told {
                Ok(Outcome::Done) => drop(restarted.insert(service)),
                // A oneshot is neither started twice nor waited for.
                Ok(Outcome::LeftAlone(_)) => result.notes.push(detail),
                Err(error) => failed(&service, error),
            }
        }
        if let Err(error) = service::start_units(context.root, units) {
            result.notes.push(format!("cannot start {} again: {error}", units.join(", ")));
        }
        let had_workers = before.with_lasting_workers(stable_for(context));
        for service in &restarted {
            let up = stays_up(context, service, had_workers.contains(service));
            if let Err(error) = up.and_then(|()| baseline.serves(context, job, service)) {
                failed(service, error);
            }
        }
        if !failures.is_empty() {
            return Err(failures.join("\n"));
        }
        result.notes.extend(as_before);
        result.notes.extend(self.check(context, &restarted)?);
        let before: Vec<ProcessId> =
            before.processes_of(&restarted).map(|process| process.id).collect();
        let left = service::await_gone(context.root, &before, GOING);
        if left.is_empty() {
            result.services = restarted.into_iter().collect();
            return Ok(result);
        }
        let pids: Vec<String> = left.iter().map(|id| id.pid.to_string()).collect();
        Err(format!("processes from before the restart still run: {}", pids.join(", ")))
    }

    /// Runs the check until it passes, or once if it failed before, and keeps its result. Returns a
    /// note about a check that failed before the repair.
    fn check(
        &self,
        context: &Context,
        restarted: &BTreeSet<Service>,
    ) -> Result<Option<String>, String> {
        let Some(check) = check_of(context, self.job) else { return Ok(None) };
        let failed_before = self.baseline.check_fails;
        let may_pass = || {
            let is_up = |found: service::Condition| found.up || found.done;
            let mut all = restarted.iter().map(|one| service::condition(context.root, one));
            let starts = !restarted.is_empty() || !self.units.is_empty();
            starts && all.all(|found| found.is_ok_and(is_up))
        };
        let patience = Duration::from_secs(context.config.service_timeout);
        let checked = if failed_before {
            check.run(context.root)
        } else {
            check.await_passing(context.root, patience, may_pass)
        };
        let (kept, answer) = match checked.map_err(|error| error.to_string()) {
            Ok(()) => {
                let mended = "its check failed before, and passes now";
                (Ok(()), Ok(failed_before.then(|| mended.to_string())))
            }
            Err(error) if failed_before => {
                let failed = match &self.job.decision.check_before {
                    Some(Checked::Failed(before)) if *before != error => {
                        format!("{error}; before: {before}")
                    }
                    _ => error,
                };
                let told = format!("its check failed before, and still does: {failed}");
                (Err(CheckFailure::new(&failed, true)), Ok(Some(told)))
            }
            Err(error) => {
                let passed = self.job.decision.check_before == Some(Checked::Passed);
                let since = if passed { ", and passed before the upgrade" } else { "" };
                let told = format!("its check fails{since}: {error}");
                (Err(CheckFailure::new(&error, false)), Err(told))
            }
        };
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        answer
    }
}

fn stable_for(context: &Context) -> Duration {
    Duration::from_secs(context.config.stable_for)
}

/// Waits until a service is up and stays up, and until its workers last if they did before.
fn stays_up(context: &Context, service: &Service, had_workers: bool) -> Result<(), String> {
    let patience = Duration::from_secs(context.config.service_timeout);
    let stable = stable_for(context);
    let up = service::await_up(context.root, service, patience, stable);
    up.map_err(|error| error.to_string())?;
    let watch = || service::come_and_go(context.root, service, stable, patience);
    let gone = had_workers.then(watch).flatten();
    gone.map_or(Ok(()), |count| {
        Err(format!(
            "{service}: its workers do not last ({count} came and went while venvguard watched)"
        ))
    })
}

/// Runs the check of a venv once, if it has one. The error says why it fails.
pub(crate) fn check_once(
    context: &Context,
    entry: &RegistryEntry,
    venv: &Venv,
) -> Result<(), String> {
    let check = check(context, entry, venv)?;
    check.map_or(Ok(()), |check| check.run(context.root)).map_err(|error| error.to_string())
}

/// The check of the venv, unless services that run on decide its result, or it must not be run.
pub(super) fn check_of<'a>(context: &Context, job: &'a Job) -> Option<Check<'a>> {
    if job.decision.leaves_services_running() {
        return None;
    }
    check(context, &job.entry, &job.venv).ok()?
}

/// The check of a venv, if it has one. The error says why it must not be run.
fn check<'a>(
    context: &Context,
    entry: &'a RegistryEntry,
    venv: &Venv,
) -> Result<Option<Check<'a>>, String> {
    if entry.check.is_empty() {
        return Ok(None);
    }
    Ok(Check::new(&entry.check, owner_to_run(context, venv)?))
}
