//! The service managers, each in a file of its own, and the list of them.
//!
//! A manager is asked and told, never replaced: nothing here signals a process. Which
//! services there are to restart, and when, is decided elsewhere.

mod runit;
mod supervisord;
mod systemd;

#[cfg(test)]
pub(super) use supervisord::fake::FakeSupervisord;
pub(crate) use systemd::{start_units, stop_units};

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use super::condition::Condition;
use super::discover::process::Processes;
use super::error::{NameError, ServiceError};
use crate::host::{Root, file, redacted};

/// Every manager that venvguard knows, in the order in which services are started and restarted.
/// They are stopped in the reverse one.
pub(super) const MANAGERS: &[&dyn Manager] = &[
    &systemd::Systemd::System,
    &systemd::Systemd::User,
    // Whatever systemd may run itself follows.
    &supervisord::Supervisord,
    &runit::Runit,
];

/// The managers that are asked and told for whom we work: an ordinary user's own, or the system's.
pub(super) fn serving(root: &Root) -> impl Iterator<Item = &'static dyn Manager> + use<> {
    let is_user = root.user().is_some();
    MANAGERS.iter().copied().filter(move |manager| manager.is_users_own() == is_user)
}

/// How many lines of a service's log an error shows, and how many bytes of each.
const WORDS: usize = 5;
const WORD_LENGTH: usize = 400;

/// A service manager. Its services go by the names that it knows them by.
///
/// Each command is for several services at once, so that a manager that knows an order
/// among them keeps it. There is one result for each name, in the order of the names.
pub(crate) trait Manager: Sync {
    /// What stands in front of its services' names: `systemd` of `systemd:web.service`.
    fn key(&self) -> &'static str;

    /// What it calls a service, as usage messages write it: `UNIT`.
    fn placeholder(&self) -> &'static str;

    /// Whether it is an ordinary user's own: root neither asks nor tells it, and the user asks
    /// and tells no other.
    fn is_users_own(&self) -> bool {
        false
    }

    /// The whole name of a service, if it is one that the manager can bear and that no command
    /// line misreads.
    fn parse(&self, name: &str) -> Result<String, NameError>;

    /// The services that run or are configured, and which processes are theirs.
    fn discover(&self, root: &Root, processes: &Processes) -> Discovered;

    /// How a service is.
    fn condition(&self, root: &Root, name: &str) -> Result<Condition, ServiceError>;

    /// Stops services, but nothing that is left alone, and nothing that runs to its end by itself.
    fn stop(&self, root: &Root, names: &[&str]) -> Vec<Result<Outcome, ServiceError>>;

    /// Starts those services that are down.
    fn start(&self, root: &Root, names: &[&str]) -> Vec<Result<Outcome, ServiceError>>;

    /// Restarts services, or starts them where they are down. `Done` says that one was told to
    /// start, not that it did.
    fn restart(&self, root: &Root, names: &[&str]) -> Vec<Result<Outcome, ServiceError>>;

    /// The last lines that a service wrote.
    fn last_words(&self, root: &Root, name: &str) -> Vec<String>;

    /// How long a service has to run before its manager calls it up, however well it does.
    fn start_time(&self, _root: &Root, _name: &str) -> Duration {
        Duration::ZERO
    }

    /// Whether a service runs, though it was told to stop.
    fn came_up_again(&self, root: &Root, name: &str) -> bool {
        self.condition(root, name).is_ok_and(|found| found.up || found.main_pid.is_some())
    }

    /// The active units that go down with these services, other than the services themselves.
    fn dependents(&self, _root: &Root, _names: &[&str]) -> Result<Vec<String>, ServiceError> {
        Ok(Vec::new())
    }

    /// The active units that may start one of these services.
    fn triggers(&self, _root: &Root, _names: &[&str]) -> Result<Vec<String>, ServiceError> {
        Ok(Vec::new())
    }
}

/// What services are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Stop,
    Start,
    Restart,
}

impl Order {
    /// As the managers' own commands write it.
    fn verb(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Start => "start",
            Self::Restart => "restart",
        }
    }
}

/// What came of telling a service something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// It is not for us to do, for this reason.
    LeftAlone(String),
}

/// What a manager runs, and what it is configured to run.
#[derive(Debug, Default)]
pub(crate) struct Discovered {
    /// The processes that a service begins with: what descends from them is the service's too. None
    /// where it is a service that only somebody else can restart.
    pub(super) trees: HashMap<u32, Option<String>>,
    /// The processes that belong to a service, each named: what descends from them need not.
    pub(super) members: HashMap<u32, String>,
    /// The services that run or do not, with the paths that their configuration names.
    pub(super) configured: Vec<(String, Vec<PathBuf>)>,
    /// What could not be looked at, in words.
    pub(super) gaps: Vec<String>,
}

/// The last lines of a log, as they may be shown to a person.
pub(super) fn last_lines(log: &str) -> Vec<String> {
    let lines: Vec<_> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let kept = lines.len().saturating_sub(WORDS);
    let shown = |line: &&str| file::printable_within(&redacted(line), WORD_LENGTH);
    lines.iter().skip(kept).map(shown).collect()
}
