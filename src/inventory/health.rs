//! The state of every registered venv, and why.

use super::Inventory;
use super::processes::current;
use super::waiting;
use crate::host::clock;
use crate::host::file::printable;
use crate::plan::{Health, RestartMode, State, Until, health};
use crate::python::Interpreters;
use crate::repair::{self, Context};
use crate::report;
use crate::service::{VenvUsage, needs_restart};
use crate::store::{CheckFailure, RegistryEntry};
use crate::venv::{NotAVenv, Venv};

const RUNNING: &str = "a repair of it is running";
const UNFINISHED: &str = "its repair was interrupted; `venvguard resume` finishes it";

/// The state of every venv, in the order of the registry.
pub(crate) fn healths(context: &Context, inventory: &Inventory, now: &Interpreters) -> Vec<Health> {
    let users = inventory.users(context.root);
    let is_waiting = matches!(context.store.waiting_since(), Ok(Some(_)));
    inventory
        .entries()
        .map(|(entry, venv)| {
            let mut health = match venv {
                Ok(venv) => {
                    let current = current(entry, venv, now);
                    let its_users = users.of(&venv.path);
                    let outdated = needs_restart(its_users, &current);
                    let mut health = match entry.restart.unwrap_or(context.config.restart) {
                        RestartMode::Never => {
                            let mut health = health(venv, now, &[]);
                            health.reasons.extend(outdated);
                            health
                        }
                        _ => health(venv, now, &outdated),
                    };
                    if let Some(reason) = embedded_on_another(context, venv, its_users) {
                        health.state = health.state.max(State::Orphaned);
                        health.reasons.insert(0, reason);
                    }
                    health
                }
                Err(error @ NotAVenv::Missing(_)) => {
                    let way_back = repair::way_back(context, entry);
                    let reasons = [Some(error.to_string()), way_back].into_iter().flatten();
                    Health { state: State::Missing, reasons: reasons.collect() }
                }
                Err(error) => Health::new(State::Broken, error.to_string()),
            };
            let is_kept = entry.pin.as_ref().is_some_and(|pin| pin.until == Until::Rebuilt);
            if is_waiting && (is_kept || health.state == State::RestartNeeded) {
                let restarts = waiting::restarts(context.config, entry, &clock::local_now());
                health.reasons.splice(0..0, restarts);
            }
            if context.store.has_journal(&entry.id) {
                if context.store.is_locked() {
                    health.reasons.insert(0, RUNNING.to_string());
                } else {
                    health.state = health.state.max(State::Unfinished);
                    health.reasons.insert(0, UNFINISHED.to_string());
                }
            }
            if let Some(failure) = &entry.check_failure {
                let CheckFailure { at, because, failed_before } = failure;
                if *failed_before {
                    let told = format!(
                        "its check failed before and after the last upgrade or repair ({at}): {because}"
                    );
                    health.reasons.push(told);
                } else {
                    health.state = health.state.max(State::CheckFails);
                    health.reasons.push(format!("its check has failed since {at}: {because}"));
                }
            }
            health.reasons.extend(pinned(entry));
            health
        })
        .collect()
}

/// Whether a program of Debian runs the venv's code within itself, on another minor version.
fn embedded_on_another(context: &Context, venv: &Venv, users: &VenvUsage) -> Option<String> {
    let embedding = users.embedding(context.root)?;
    let module = embedding.module.filter(|module| *module != venv.site)?;
    Some(format!(
        "{} runs the venv's code with Python {module}, but its distributions are for {}",
        printable(&embedding.program),
        venv.site
    ))
}

fn pinned(entry: &RegistryEntry) -> Option<String> {
    let pin = entry.pin.as_ref()?;
    Some(format!(
        "pinned to Python {} since {}, {}; `venvguard rebuild {}` moves it to the default",
        pin.to,
        pin.at,
        report::pin_in_words(pin),
        entry.name
    ))
}
