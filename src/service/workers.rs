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
    let mut workers = Workers::default();
    wait_until(Deadline::after(lasting.saturating_mul(2)), POLL, || {
        let Some(main) = condition(root, service).ok().and_then(|found| found.main_pid) else {
            return false;
        };
        let processes = Processes::look(root);
        let now = processes.iter().filter(|one| descends(one, main, &processes));
        workers.see(now.map(|one| (one.id, processes.age(one))), lasting)
    });
    workers.come_and_go()
}

/// The workers that were seen.
#[derive(Default)]
struct Workers {
    seen: BTreeSet<ProcessId>,
    one_lasts: bool,
}

impl Workers {
    /// Sees the workers of one moment, with their ages. Returns whether one has lasted.
    fn see(&mut self, now: impl Iterator<Item = (ProcessId, Duration)>, lasting: Duration) -> bool {
        for (id, age) in now {
            self.seen.insert(id);
            self.one_lasts |= age >= lasting;
        }
        self.one_lasts
    }

    /// How many came, if none stayed.
    fn come_and_go(self) -> Option<usize> {
        (!self.one_lasts && self.seen.len() >= GENERATIONS).then_some(self.seen.len())
    }
}

/// Whether a Python process descends from the main process of a service.
fn descends(process: &Process, main: u32, processes: &Processes) -> bool {
    process.runs_python() && processes.lineage(process).skip(1).any(|one| one.id.pid == main)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found after these moments, each with the pids and the ages in seconds of the workers.
    fn found(moments: &[&[(u32, u64)]]) -> Option<usize> {
        let mut workers = Workers::default();
        for moment in moments {
            let id = |pid| ProcessId { pid, started: u64::from(pid) };
            let now = moment.iter().map(|(pid, age)| (id(*pid), Duration::from_secs(*age)));
            if workers.see(now, Duration::from_secs(3)) {
                break;
            }
        }
        workers.come_and_go()
    }

    #[test]
    fn workers_that_die_in_a_loop_come_and_go() {
        assert_eq!(found(&[&[(10, 0)], &[(11, 0)], &[(12, 1)], &[(13, 0)]]), Some(4));
        assert_eq!(found(&[&[(10, 0), (11, 0)], &[(12, 0), (13, 0)]]), Some(4));
    }

    #[test]
    fn a_worker_that_lasts_or_is_still_young_is_well() {
        assert_eq!(found(&[&[(10, 0)], &[(11, 0)], &[(12, 0)], &[(10, 3)]]), None);
        assert_eq!(found(&[&[(10, 1), (11, 1)], &[(10, 2), (11, 2)]]), None, "two are no loop");
        assert_eq!(found(&[&[], &[]]), None);
    }
}
