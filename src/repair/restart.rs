//! Restarting what runs out of a venv, and proving that it came back.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::Context;
use super::rebuild::owner;
use crate::host::clock::{Deadline, wait_until};
use crate::host::{Program, confine};
use crate::service::{self, ProcessId, Processes, Restart, Service, ServiceMap};
use crate::store::Entry;
use crate::venv::Venv;

/// How often a check that fails is tried again.
const CHECK_AGAIN: Duration = Duration::from_millis(250);

/// How long one run of a check may take.
const CHECK_LIMIT: Duration = Duration::from_secs(20);

/// How long a process may take to go after its service was restarted.
const GOING: Duration = Duration::from_secs(5);

/// Restarts the services of a venv and waits until all are up, the check passes, and no
/// process of before is left. The error says which of these does not hold, and why.
pub(super) fn restart(
    context: &Context,
    entry: &Entry,
    venv: &Venv,
    services: &[Service],
) -> Result<(), String> {
    if services.is_empty() && entry.check.is_empty() {
        return Ok(());
    }
    let chosen: BTreeSet<Service> = services.iter().cloned().collect();
    let map = ServiceMap::build(context.root, [&venv.path], &Processes::look(context.root));
    let before: Vec<ProcessId> =
        map.of(&venv.path).processes_of(&chosen).map(|process| process.id).collect();
    // One that fails stops none of the others: the venv serves them all.
    let mut failures = Vec::new();
    let mut restarted = Vec::new();
    for service in services {
        match service::restart(context.root, service) {
            Ok(Restart::Done) => restarted.push(service),
            // A oneshot is neither started twice nor waited for.
            Ok(Restart::LeftAtWork) => {}
            Err(error) => failures.push(error.to_string()),
        }
    }
    let patience = Duration::from_secs(context.config.service_timeout);
    let stable = Duration::from_secs(context.config.stable_for);
    for service in restarted {
        if let Err(error) = service::await_up(context.root, service, patience, stable) {
            failures.push(error.to_string());
        }
    }
    if !failures.is_empty() {
        return Err(failures.join("\n"));
    }
    check(context, entry, venv)?;
    let left = service::await_gone(context.root, &before, GOING);
    if left.is_empty() {
        return Ok(());
    }
    let pids: Vec<String> = left.iter().map(|id| id.pid.to_string()).collect();
    Err(format!("processes of before the restart still run: {}", pids.join(", ")))
}

/// Runs the check as the venv's owner until it passes or time is up.
fn check(context: &Context, entry: &Entry, venv: &Venv) -> Result<(), String> {
    let Some((program, arguments)) = entry.check.split_first() else { return Ok(()) };
    let owner = owner(context, venv);
    let mut failure = String::new();
    let deadline = Deadline::after(Duration::from_secs(context.config.service_timeout));
    let passed = wait_until(deadline, CHECK_AGAIN, || {
        let program = Program::new(program).args(arguments).limit(CHECK_LIMIT);
        match confine::confined(context.root, program, &owner, None, Path::new("/")).run() {
            Ok(_) => true,
            Err(error) => {
                failure = error.to_string();
                false
            }
        }
    });
    if passed { Ok(()) } else { Err(format!("its check fails: {failure}")) }
}
