//! The state of every registered venv, and why.

use super::Inventory;
use crate::plan::{Health, State, health};
use crate::python::{self, Interpreters};
use crate::repair::{self, Context};
use crate::report;
use crate::service::{Processes, ServiceMap, needs_restart};
use crate::store::RegistryEntry;
use crate::venv::{NotAVenv, Venv};

const RUNNING: &str = "a repair of it is running";
const UNFINISHED: &str = "its repair was interrupted; `venvguard resume` finishes it";

/// The state of every venv, in the order of the registry.
pub(crate) fn healths(context: &Context, inventory: &Inventory, now: &Interpreters) -> Vec<Health> {
    let processes = Processes::look(context.root);
    let paths = inventory.present().map(|(_, venv)| venv.path.clone());
    let map = ServiceMap::build(context.root, paths, &processes);
    inventory
        .entries()
        .map(|(entry, venv)| {
            let mut health = match venv {
                Ok(venv) => {
                    let interpreter = venv.runs(now).map(python::path_of);
                    let outdated = needs_restart(map.of(&venv.path), interpreter.as_deref());
                    health(venv, now, &outdated)
                }
                Err(error @ NotAVenv::Missing(_)) => {
                    let way_back = repair::way_back(context, entry);
                    let reasons = [Some(error.to_string()), way_back].into_iter().flatten();
                    Health { state: State::Missing, reasons: reasons.collect() }
                }
                Err(error) => Health::new(State::Broken, error.to_string()),
            };
            if context.store.has_journal(&entry.id) {
                if context.store.is_locked() {
                    health.reasons.insert(0, RUNNING.to_string());
                } else {
                    health.state = health.state.max(State::Unfinished);
                    health.reasons.insert(0, UNFINISHED.to_string());
                }
            }
            health.reasons.extend(pinned(entry));
            health
        })
        .collect()
}

fn pinned(entry: &RegistryEntry) -> Option<String> {
    let pin = entry.pin.as_ref()?;
    Some(format!(
        "pinned to Python {} since {} ({}); `venvguard rebuild {}` moves it to the default",
        pin.to,
        pin.at,
        report::pin_in_words(pin),
        entry.name
    ))
}

/// Reports the processes that still run old code and that no service manager can restart, and
/// returns their number.
pub(crate) fn report_unmanaged(
    context: &Context,
    inventory: &Inventory,
    ids: &[&str],
    now: &Interpreters,
) -> usize {
    let mut count = 0;
    let chosen: Vec<(&RegistryEntry, &Venv)> =
        ids.iter().filter_map(|id| inventory.get(id)).collect();
    let paths = chosen.iter().map(|(_, venv)| &venv.path);
    let map = ServiceMap::build(context.root, paths, &Processes::look(context.root));
    for (entry, venv) in chosen {
        let interpreter = venv.runs(now).map(python::path_of);
        for process in map.of(&venv.path).unmanaged(interpreter.as_deref()) {
            context
                .report
                .note(&format!("{}: restart this process yourself: {process}", entry.name));
            count += 1;
        }
    }
    count
}
