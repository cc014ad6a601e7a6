//! Whether the workers of a service last.
//!
//! A master may live on while its workers die in a loop: its manager reports it as up.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Service;
use super::control::condition;
use super::discover::process::{Process, ProcessId, Processes};
use super::usage::VenvUsage;
use crate::host::Root;
use crate::host::clock::{Deadline, wait_until};

/// How often to look at the processes.
const POLL: Duration = Duration::from_millis(200);

/// How many workers must have come and gone.
const GENERATIONS: usize = 3;

impl VenvUsage {
    /// The services with a worker that has lasted: a process whose parent belongs to the service
    /// too.
    pub(crate) fn with_lasting_workers(&self, at_least: Duration) -> BTreeSet<Service> {
        let processes = self.processes.iter();
        let pids: BTreeSet<(&Service, u32)> = processes
            .clone()
            .filter_map(|user| Some((user.service.as_ref()?, user.process.id.pid)))
            .collect();
        let lasting = processes.filter(|user| user.age >= at_least).filter_map(|user| {
            let service = user.service.as_ref()?;
            pids.contains(&(service, user.process.parent)).then(|| service.clone())
        });
        lasting.collect()
    }
}

/// Watches the workers of a service that is up, until one has lasted for so long. Returns how many
/// came, if none stayed.
pub(crate) fn come_and_go(root: &Root, service: &Service, lasting: Duration) -> Option<usize> {
    let mut seen: BTreeSet<ProcessId> = BTreeSet::new();
    let mut lasts = false;
    wait_until(Deadline::after(lasting.saturating_mul(2)), POLL, || {
        let Some(main) = condition(root, service).ok().and_then(|found| found.main_pid) else {
            return false;
        };
        let processes = Processes::look(root);
        let workers = processes.iter().filter(|one| descends(one, main, &processes));
        for worker in workers {
            seen.insert(worker.id);
            lasts |= processes.age(worker) >= lasting;
        }
        lasts
    });
    (!lasts && seen.len() >= GENERATIONS).then_some(seen.len())
}

/// Whether a Python process descends from the main process of a service.
fn descends(process: &Process, main: u32, processes: &Processes) -> bool {
    process.runs_python() && processes.lineage(process).skip(1).any(|one| one.id.pid == main)
}
