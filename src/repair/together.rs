//! Restarts that are planned for a whole run: the venvs that only need their services restarted
//! share one call for each manager, so that systemd makes one transaction of it, in its own
//! order, and restarts each unit once.

use std::collections::BTreeMap;

use super::Context;
use super::job::Job;
use super::restart::{Baseline, Told, tell};
use crate::plan::Remedy;
use crate::service::{Processes, Service, ServiceMap, VenvUsage};
use crate::store::JournalState;

/// What was restarted at once, by the venvs' ids.
#[derive(Debug, Default)]
pub(super) struct Together(BTreeMap<String, Begun>);

/// A venv whose services were told to restart, and how it was before.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) baseline: Baseline,
    pub(super) usage: VenvUsage,
    pub(super) told: Told,
}

impl Together {
    /// Restarts the services of those jobs that ask for nothing else. Each is in the journal
    /// first. A single one needs no plan.
    pub(super) fn restart(context: &Context, jobs: &[Job]) -> Self {
        let is_meant = |job: &&Job| {
            job.decision.remedy == Remedy::Restart
                && !job.services().is_empty()
                && !context.store.has_journal(job.id())
        };
        let jobs: Vec<&Job> = jobs.iter().filter(is_meant).collect();
        if jobs.len() < 2 {
            return Self::default();
        }
        let paths = jobs.iter().map(|job| job.entry.path());
        let map = ServiceMap::build(context.root, paths, &Processes::look(context.root));
        let mut begun = BTreeMap::new();
        let mut services: Vec<Service> = Vec::new();
        for job in jobs {
            let baseline = Baseline::of_services(context, job);
            // One that cannot be written down goes its own way, which reports that.
            if job.begin(context, JournalState::Restarting, &[]).is_ok() {
                let usage = map.of(job.entry.path()).clone();
                services.extend_from_slice(job.services());
                begun.insert(job.id().to_string(), (baseline, usage, job.services()));
            }
        }
        services.sort();
        services.dedup();
        let told = tell(context, &services);
        let of = |own: &[Service]| -> Told {
            told.iter().filter(|(service, _)| own.contains(service)).cloned().collect()
        };
        let begun = begun
            .into_iter()
            .map(|(id, (baseline, usage, own))| (id, Begun { baseline, usage, told: of(own) }));
        Self(begun.collect())
    }

    pub(super) fn of(&self, id: &str) -> Option<&Begun> {
        self.0.get(id)
    }
}
