//! The services of venvs that failed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Inventory, services_of};
use crate::host::clock::Deadline;
use crate::repair::Context;
use crate::service::{self, Service};

/// How long the managers are asked: apt may be waiting, and one that does not answer takes a minute.
const PATIENCE: Duration = Duration::from_secs(10);

/// The services that should run and do not, by the venvs' ids. Each service is asked about once. A
/// service whose manager does not answer in time is not known to have failed.
pub(crate) fn failed_services(
    context: &Context,
    inventory: &Inventory,
) -> BTreeMap<String, Vec<Service>> {
    let map = inventory.users(context.root);
    let all = inventory.present();
    let all = all.flat_map(|(entry, venv)| services_of(entry, map.of(&venv.path))).cloned();
    let all: Vec<Service> = all.collect();
    let found = service::conditions(context.root, &all, Deadline::after(PATIENCE));
    let has_failed = |one: &&Service| {
        found.get(one).is_some_and(|found| found.as_ref().is_ok_and(|condition| condition.failed))
    };
    let mut failed = BTreeMap::new();
    for (entry, venv) in inventory.present() {
        let its = services_of(entry, map.of(&venv.path)).into_iter().filter(has_failed);
        let its: Vec<Service> = its.cloned().collect();
        if !its.is_empty() {
            failed.insert(entry.id.clone(), its);
        }
    }
    failed
}
