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

/// How many workers must have gone. One may be a program that runs at the start.
const GONE: usize = 2;

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
/// came, if several went and none stayed. Once one has come, it may take as long as `patience` until
/// one lasts; a service may also start its workers only when it needs them.
pub(crate) fn come_and_go(
    root: &Root,
    service: &Service,
    lasting: Duration,
    patience: Duration,
) -> Option<usize> {
    let mut workers = Workers::default();
    let look = |workers: &mut Workers| {
        let main = condition(root, service).ok().and_then(|found| found.main_pid);
        let Some(main) = main else { return };
        let processes = Processes::look(root);
        if let Some(main) = processes.get(main) {
            workers.see_ended(main.id, main.faults_of_ended);
        }
        let now = processes.iter().filter(|one| descends(one, main, &processes));
        workers.see(now.map(|one| (one.id, processes.age(one))), lasting);
    };
    wait_until(Deadline::after(lasting.saturating_mul(2)), POLL, || {
        look(&mut workers);
        workers.one_lasts
    });
    // Those that die soon are seen seldom.
    wait_until(Deadline::after(patience), POLL, || {
        let is_decided = !workers.may_last();
        if !is_decided {
            look(&mut workers);
        }
        is_decided
    });
    workers.come_and_go()
}

/// The workers that were seen.
#[derive(Default)]
struct Workers {
    /// The master, and the page faults of its children that had ended when it was seen last.
    master: Option<(ProcessId, u64)>,
    /// How many looks found that more children had ended than the look before.
    ends: usize,
    seen: BTreeSet<ProcessId>,
    /// Those that were seen last.
    now: BTreeSet<ProcessId>,
    one_lasts: bool,
}

impl Workers {
    /// Sees the workers of one moment, with their ages.
    fn see(&mut self, now: impl Iterator<Item = (ProcessId, Duration)>, lasting: Duration) {
        self.now.clear();
        for (id, age) in now {
            self.now.insert(id);
            self.one_lasts |= age >= lasting;
        }
        self.seen.extend(&self.now);
    }

    /// Sees what the kernel counts of the master's children that have ended: of most that die at once,
    /// nothing else is ever seen.
    fn see_ended(&mut self, master: ProcessId, faults: u64) {
        let before = self.master.replace((master, faults));
        let is_more = before.is_some_and(|(known, before)| known == master && faults > before);
        self.ends += usize::from(is_more);
    }

    /// How many went. Children that were never seen need not be workers: one more of them must end.
    fn gone(&self) -> usize {
        self.seen.difference(&self.now).count().max(self.ends.saturating_sub(1))
    }

    /// Whether there are workers of which one may still last.
    fn may_last(&self) -> bool {
        let has_any = !self.seen.is_empty() || self.ends > 0;
        !self.one_lasts && has_any && self.gone() < GONE
    }

    /// How many came, if several went and none stayed.
    fn come_and_go(&self) -> Option<usize> {
        (!self.one_lasts && self.gone() >= GONE).then_some(self.seen.len().max(self.ends))
    }
}

/// Whether a Python process descends from the main process of a service.
fn descends(process: &Process, main: u32, processes: &Processes) -> bool {
    process.runs_python() && processes.lineage(process).skip(1).any(|one| one.id.pid == main)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The workers after these moments, each with the pids and the ages in seconds.
    fn workers(moments: &[&[(u32, u64)]]) -> Workers {
        let mut workers = Workers::default();
        for moment in moments {
            let id = |pid| ProcessId { pid, started: u64::from(pid) };
            let now = moment.iter().map(|(pid, age)| (id(*pid), Duration::from_secs(*age)));
            workers.see(now, Duration::from_secs(3));
        }
        workers
    }

    #[test]
    fn workers_that_die_in_a_loop_come_and_go() {
        for moments in [
            &[&[(10, 0)][..], &[(11, 0)], &[(12, 1)], &[(13, 0)]][..],
            &[&[(10, 0), (11, 0)], &[(12, 0), (13, 0)]],
        ] {
            let found = workers(moments);
            assert_eq!((found.come_and_go(), found.may_last()), (Some(4), false));
        }
    }

    #[test]
    fn a_worker_that_dies_soon_is_seen_seldom() {
        let found = workers(&[&[], &[(10, 0)], &[], &[]]);
        assert_eq!((found.come_and_go(), found.may_last()), (None, true));
        let found = workers(&[&[], &[(10, 0)], &[], &[], &[(11, 0)], &[]]);
        assert_eq!((found.come_and_go(), found.may_last()), (Some(2), false));
    }

    #[test]
    fn workers_that_are_never_seen_are_counted_by_their_master() {
        let master = |pid| ProcessId { pid, started: 1 };
        let found = |moments: &[(u32, u64)]| {
            let mut workers = workers(&[&[]]);
            for (pid, faults) in moments {
                workers.see_ended(master(*pid), *faults);
            }
            (workers.come_and_go(), workers.may_last())
        };
        assert_eq!(found(&[(5, 100), (5, 250), (5, 250), (5, 400), (5, 550)]), (Some(3), false));
        assert_eq!(found(&[(5, 100), (5, 250), (5, 400)]), (None, true), "a program or two");
        assert_eq!(found(&[(5, 900), (5, 900)]), (None, false), "those ended long ago");
        assert_eq!(found(&[(5, 100), (6, 250), (7, 400), (8, 550)]), (None, false), "each is new");
        let mut lasting = workers(&[&[(10, 3)]]);
        for faults in [100, 250, 400, 550] {
            lasting.see_ended(master(5), faults);
        }
        assert_eq!((lasting.come_and_go(), lasting.may_last()), (None, false));
    }

    #[test]
    fn a_worker_that_lasts_or_is_still_young_is_well() {
        let found = workers(&[&[(10, 0)], &[(11, 0)], &[(12, 0)], &[(12, 3)]]);
        assert_eq!((found.come_and_go(), found.may_last()), (None, false));
        let found = workers(&[&[(10, 1), (11, 1), (12, 0)], &[(10, 2), (11, 2), (12, 1)]]);
        assert_eq!((found.come_and_go(), found.may_last()), (None, true), "a pool is no loop");
        let found = workers(&[&[], &[]]);
        assert_eq!((found.come_and_go(), found.may_last()), (None, false), "none is needed yet");
    }
}
