//! The services that run out of venvs: found, restarted, waited for.
//!
//! A manager is asked and told, never replaced: nothing here signals a process. Which
//! services there are to restart, and when, is decided elsewhere.

mod condition;
mod discover;
mod find;
#[cfg(test)]
mod input;
mod managers;
mod name;
mod stop;

use std::time::Duration;

pub(crate) use condition::{Condition, NotUp};
pub(crate) use discover::process::{ProcessId, Processes, await_gone};
pub(crate) use find::{ServiceMap, VenvUsage, needs_restart};
pub(crate) use managers::supervisord::SupervisordError;
pub(crate) use name::{Manager, Service};
pub(crate) use stop::{came_up_again, dependents, start_units, stop, stop_units, triggers};

use self::managers::{supervisord, systemd};
use crate::host::command::CommandError;
use crate::host::{Root, file, redacted};

/// How many lines of a service's log an error shows, and how many bytes of each.
const WORDS: usize = 5;
const WORD_LENGTH: usize = 400;

/// Why a manager was not asked, or did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    #[error("systemd does not run this machine")]
    NoSystemd,
    #[error("systemd cannot restart {unit}: the unit is {state}")]
    NotLoaded { unit: String, state: String },
    #[error("{0} is not a unit of your own manager")]
    NotOwn(Service),
    #[error("{0} is a unit of some user's own manager: he registers the venv himself")]
    NotTheSystems(Service),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error(transparent)]
    Supervisord(#[from] SupervisordError),
}

/// What a restart came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restart {
    Done,
    /// A restart is not ours to make: [`Condition::left_alone`] says why.
    LeftAlone,
}

/// Whether a service is one of those that are asked and told for whom we work: the units of
/// his own for an ordinary user, the system's for root.
pub(crate) fn require_trusted(root: &Root, service: &Service) -> Result<(), ServiceError> {
    match (root.user(), service.manager()) {
        (Some(_), Manager::User) | (None, Manager::Systemd | Manager::Supervisord) => Ok(()),
        (Some(_), _) => Err(ServiceError::NotOwn(service.clone())),
        (None, _) => Err(ServiceError::NotTheSystems(service.clone())),
    }
}

/// How a service is, in its manager's eyes.
pub(crate) fn condition(root: &Root, service: &Service) -> Result<Condition, ServiceError> {
    require_trusted(root, service)?;
    match service.manager() {
        Manager::Systemd | Manager::User => systemd::condition(root, service.name()),
        Manager::Supervisord => supervisord::condition(root, service.name()),
    }
}

/// Restarts a service, or starts it where it is down. `Done` says that it was told to start,
/// not that it did: [`await_up`] tells. What is left alone is not to be waited for.
pub(crate) fn restart(root: &Root, service: &Service) -> Result<Restart, ServiceError> {
    require_trusted(root, service)?;
    match service.manager() {
        Manager::Systemd | Manager::User => systemd::restart(root, service.name()),
        Manager::Supervisord => supervisord::restart(root, service.name()),
    }
}

/// Waits until a service is up and stays so with the same main process for `stable_for`;
/// the error tells its state and its last words.
pub(crate) fn await_up(
    root: &Root,
    service: &Service,
    patience: Duration,
    stable_for: Duration,
) -> Result<(), NotUp> {
    let patience = match service.manager() {
        Manager::Systemd | Manager::User => patience,
        // It is not RUNNING before this time is over, however well it does.
        Manager::Supervisord => {
            patience.saturating_add(supervisord::start_time(root, service.name()))
        }
    };
    let (state, restarts) =
        match condition::watch(|| condition(root, service), patience, stable_for) {
            condition::Watched::Up => return Ok(()),
            condition::Watched::Unknown(error) => return Err(error.into()),
            condition::Watched::NotUp(condition, restarts) => (condition.state, restarts),
        };
    let words = match service.manager() {
        Manager::Systemd | Manager::User => systemd::last_words(root, service.name()),
        Manager::Supervisord => supervisord::last_words(root, service.name()),
    };
    let service = service.to_string();
    Err(match restarts {
        0 => NotUp::Down { service, state, words },
        _ => NotUp::Unsteady { service, state, restarts, words },
    })
}

/// The last lines of a log, as they may be shown to a person.
fn last_lines(log: &str) -> Vec<String> {
    let lines: Vec<_> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let kept = lines.len().saturating_sub(WORDS);
    let shown = |line: &&str| file::printable_within(&redacted(line), WORD_LENGTH);
    lines.iter().skip(kept).map(shown).collect()
}
