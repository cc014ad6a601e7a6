//! The services of venvs that failed.

use std::collections::BTreeMap;

use super::Inventory;
use crate::repair::Context;
use crate::service::{self, Processes, Service, ServiceMap};

/// The services that should run and do not, by the venvs' ids. Each service is asked about once. A
/// service whose manager does not answer is not known to have failed.
pub(crate) fn failed_services(
    context: &Context,
    inventory: &Inventory,
) -> BTreeMap<String, Vec<Service>> {
    let processes = Processes::look(context.root);
    let paths = inventory.present().map(|(_, venv)| &venv.path);
    let map = ServiceMap::build(context.root, paths, &processes);
    let mut known: BTreeMap<Service, bool> = BTreeMap::new();
    let mut has_failed = |one: &Service| {
        *known.entry(one.clone()).or_insert_with(|| {
            service::condition(context.root, one).is_ok_and(|condition| condition.failed)
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
