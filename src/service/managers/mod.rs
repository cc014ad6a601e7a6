//! The service managers, each in its own file, and the list of them.
//!
//! A manager is queried and given orders, never bypassed: nothing here signals a process. Other
//! modules decide which services to restart, and when.

mod log;
mod runit;
mod s6;
mod supervised;
mod supervisord;
mod systemd;

#[cfg(test)]
pub(super) use supervisord::fake::FakeSupervisord;
pub(crate) use systemd::{start_units, stop_units};

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use self::log::last_lines;
use super::condition::Condition;
use super::discover::process::Processes;
use super::error::{NameError, ServiceError};
use crate::host::Root;
use crate::host::clock::Deadline;

/// Every manager that venvguard knows, in the order in which services are started and restarted.
/// They are stopped in reverse order.
pub(super) const MANAGERS: &[&dyn Manager] = &[
    &systemd::Systemd::System,
    &systemd::Systemd::User,
    // Managers that systemd may run itself follow.
    &supervisord::Supervisord,
    &runit::Runit,
    &s6::S6,
];

/// The managers of the user we work for: an ordinary user's own, or the system's.
pub(super) fn serving(root: &Root) -> impl Iterator<Item = &'static dyn Manager> + use<> {
    let is_user = root.user().is_some();
    MANAGERS.iter().copied().filter(move |manager| manager.is_users_own() == is_user)
}

/// A service manager. It uses its own names for its services.
///
/// Each order is for several services together, so that a manager that knows their dependencies
/// can observe them. There is one result for each name, in the order of the names.
pub(crate) trait Manager: Sync {
    /// The prefix of its services' names: `systemd` in `systemd:web.service`.
    fn key(&self) -> &'static str;

    /// The placeholder for a service in usage messages: `UNIT`.
    fn placeholder(&self) -> &'static str;

    /// Whether it is an ordinary user's own: root does not use it, and the user uses no other.
    fn is_users_own(&self) -> bool {
        false
    }

    /// The full name of a service, if the manager accepts it and no command line could misread it.
    fn parse(&self, name: &str) -> Result<String, NameError>;

    /// What a service has in common with others of its kind: instances of one template.
    fn family(&self, _name: &str) -> Option<String> {
        None
    }

    /// The services that run or are configured, and their processes.
    fn discover(&self, root: &Root, processes: &Processes) -> Discovered;

    /// The condition of a service.
    fn condition(&self, root: &Root, name: &str) -> Result<Condition, ServiceError>;

    /// The conditions of several services, in their order; fewer if the deadline passes before all
    /// were asked about.
    fn conditions(
        &self,
        root: &Root,
        names: &[&str],
        deadline: Deadline,
    ) -> Vec<Result<Condition, ServiceError>> {
        let names = names.iter().take_while(|_| !deadline.has_passed());
        names.map(|name| self.condition(root, name)).collect()
    }

    /// Stops services, except those that are left alone or run to their end.
    fn stop(&self, root: &Root, names: &[&str]) -> Vec<Result<Outcome, ServiceError>>;

    /// Starts the services that are down.
    fn start(&self, root: &Root, names: &[&str]) -> Vec<Result<Outcome, ServiceError>>;

    /// Restarts services, or starts those that are down. `Done` means that a service was ordered to
    /// start, not that it did.
    fn restart(&self, root: &Root, names: &[&str]) -> Vec<Result<Outcome, ServiceError>>;

    /// The end of what a service wrote, and of what the manager wrote about it: since its last start
    /// if the manager knows when that was.
    fn log(&self, root: &Root, name: &str) -> String;

    /// The telling lines of what a service wrote.
    fn last_words(&self, root: &Root, name: &str) -> Vec<String> {
        last_lines(&self.log(root, name))
    }

    /// How long a service must run before its manager reports it as up, however well it works.
    fn start_time(&self, _root: &Root, _name: &str) -> Duration {
        Duration::ZERO
    }

    /// Whether a service runs although it was ordered to stop.
    fn came_up_again(&self, root: &Root, name: &str) -> bool {
        self.condition(root, name).is_ok_and(|found| found.up || found.main_pid.is_some())
    }

    /// The active units that stop with each of these services, directly or through others.
    fn stop_with(
        &self,
        _root: &Root,
        _names: &[&str],
    ) -> Result<BTreeMap<String, BTreeSet<String>>, ServiceError> {
        Ok(BTreeMap::new())
    }

    /// The active units that may start one of these services.
    fn triggers(&self, _root: &Root, _names: &[&str]) -> Result<Vec<String>, ServiceError> {
        Ok(Vec::new())
    }
}

/// An order for services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Stop,
    Start,
    Restart,
}

impl Order {
    /// The word that the managers' own commands use.
    fn verb(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Start => "start",
            Self::Restart => "restart",
        }
    }
}

/// The outcome of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// venvguard must not do it, for this reason.
    LeftAlone(String),
}

/// The services that a manager runs or is configured to run.
#[derive(Debug, Default)]
pub(crate) struct Discovered {
    /// The first processes of services: their descendants belong to the service too. `None` is a
    /// service that venvguard cannot restart.
    pub(super) trees: HashMap<u32, Option<String>>,
    /// The processes that belong to a service, each listed: their descendants need not belong to
    /// it.
    pub(super) members: HashMap<u32, String>,
    /// The services, running or not, with the paths that their configuration names.
    pub(super) configured: Vec<(String, Vec<PathBuf>)>,
    /// Descriptions of what could not be inspected.
    pub(super) gaps: Vec<String>,
}
