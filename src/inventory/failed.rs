//! The services of venvs that failed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Inventory;
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
    let deadline = Deadline::after(PATIENCE);
    let mut known: BTreeMap<Service, bool> = BTreeMap::new();
    let mut has_failed = |one: &Service| {
        *known.entry(one.clone()).or_insert_with(|| {
            !deadline.has_passed()
                && service::condition(context.root, one).is_ok_and(|condition| condition.failed)
        })
    };
    let mut failed = BTreeMap::new();
    for (entry, venv) in inventory.present() {
        // Declared services take precedence, as in a repair.
        let its: Vec<&Service> = match entry.services.as_slice() {
            [] => map.of(&venv.path).services.iter().collect(),
            declared => declared.iter().collect(),
        };
        let its: Vec<Service> = its.into_iter().filter(|one| has_failed(one)).cloned().collect();
        if !its.is_empty() {
            failed.insert(entry.id.clone(), its);
        }
    }
    failed
}
