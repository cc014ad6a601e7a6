//! Queries and controls services through their managers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Service;
use super::condition::{self, Condition, NotUp, Watched};
use super::error::ServiceError;
use super::managers::{MANAGERS, Manager, Outcome};
use crate::host::Root;
use crate::host::clock::Deadline;

/// The outcomes of an order, one for each service.
pub(crate) type Outcomes = Vec<(Service, Result<Outcome, ServiceError>)>;

/// Checks that a service belongs to the user we work for: their own units for an ordinary user,
/// the system's for root.
pub(crate) fn require_trusted(root: &Root, service: &Service) -> Result<(), ServiceError> {
    match (root.user().is_some(), service.manager().is_users_own()) {
        (true, true) | (false, false) => Ok(()),
        (true, false) => Err(ServiceError::NotOwn(service.to_string())),
        (false, true) => Err(ServiceError::NotTheSystems(service.to_string())),
    }
}

/// The condition of a service, according to its manager.
pub(crate) fn condition(root: &Root, service: &Service) -> Result<Condition, ServiceError> {
    require_trusted(root, service)?;
    service.manager().condition(root, service.name())
}

/// The conditions of services. Each manager is asked about all of its services at once, if it can
/// be. What is not known when the deadline has passed is missing.
pub(crate) fn conditions(
    root: &Root,
    services: &[Service],
    deadline: Deadline,
) -> BTreeMap<Service, Result<Condition, ServiceError>> {
    let ask = |manager: &dyn Manager, names: &[&str]| manager.conditions(root, names, deadline);
    through_managers(root, services, MANAGERS.iter().copied(), ask).into_iter().collect()
}

/// Stops services, except those that are left alone and oneshots, which run to their end.
pub(crate) fn stop_all(root: &Root, services: &[Service]) -> Outcomes {
    through_managers(root, services, MANAGERS.iter().copied().rev(), |manager, names| {
        manager.stop(root, names)
    })
}

/// Starts those of the services that are down.
pub(crate) fn start_all(root: &Root, services: &[Service]) -> Outcomes {
    through_managers(root, services, MANAGERS.iter().copied(), |manager, names| {
        manager.start(root, names)
    })
}

/// Restarts services, or starts those that are down. `Done` means that a service was ordered to
/// start, not that it did; see [`await_up`]. Do not wait for services that are left alone.
pub(crate) fn restart_all(root: &Root, services: &[Service]) -> Outcomes {
    through_managers(root, services, MANAGERS.iter().copied(), |manager, names| {
        manager.restart(root, names)
    })
}

/// Gives each manager one order, or asks it one question, for all its services, each listed once.
fn through_managers<T>(
    root: &Root,
    services: &[Service],
    managers: impl Iterator<Item = &'static dyn Manager>,
    order: impl Fn(&dyn Manager, &[&str]) -> Vec<Result<T, ServiceError>>,
) -> Vec<(Service, Result<T, ServiceError>)> {
    let mut results = BTreeMap::new();
    let (trusted, refused): (Vec<&Service>, Vec<&Service>) =
        services.iter().partition(|service| require_trusted(root, service).is_ok());
    for service in refused {
        results.extend(require_trusted(root, service).err().map(|error| (service, Err(error))));
    }
    for manager in managers {
        let is_own = |service: &&Service| service.manager_key() == manager.key();
        let own: BTreeSet<&Service> = trusted.iter().copied().filter(is_own).collect();
        if own.is_empty() {
            continue;
        }
        let names: Vec<&str> = own.iter().map(|service| service.name()).collect();
        results.extend(own.into_iter().zip(order(manager, &names)));
    }
    let answered = services.iter().filter_map(|service| results.remove_entry(service));
    answered.map(|(service, result)| (service.clone(), result)).collect()
}

/// Waits until a service is up and stays up with the same main process for `stable_for`;
/// the error contains its state and its last lines of output.
pub(crate) fn await_up(
    root: &Root,
    service: &Service,
    patience: Duration,
    stable_for: Duration,
) -> Result<(), NotUp> {
    let manager = service.manager();
    let patience = patience.saturating_add(manager.start_time(root, service.name()));
    let (state, restarts) =
        match condition::watch(|| condition(root, service), patience, stable_for) {
            Watched::Up => return Ok(()),
            Watched::Unknown(error) => return Err(error.into()),
            Watched::NotUp(condition, restarts) => (condition.state, restarts),
        };
    let words = manager.last_words(root, service.name());
    let service = service.to_string();
    Err(match restarts {
        0 => NotUp::Down { service, state, words },
        _ => NotUp::Unsteady { service, state, restarts, words },
    })
}

/// The end of what a service and its manager wrote since its last start.
pub(crate) fn log(root: &Root, service: &Service) -> String {
    service.manager().log(root, service.name())
}

/// The first of these services that runs although it was stopped.
pub(crate) fn came_up_again(root: &Root, services: &[Service]) -> Option<Service> {
    let is_up = |service: &&Service| service.manager().came_up_again(root, service.name());
    services.iter().find(is_up).cloned()
}

/// The active units that stop with these services, other than the services themselves.
pub(crate) fn dependents(root: &Root, services: &[Service]) -> Result<Vec<String>, ServiceError> {
    related(services, |manager, names| {
        let found = manager.stop_with(root, names)?.into_values().flatten();
        let others: BTreeSet<String> = found.filter(|unit| !names.contains(&&**unit)).collect();
        Ok(others.into_iter().collect())
    })
}

/// The names of the active units that stop with each of these services.
pub(crate) fn stop_with(
    root: &Root,
    services: &[Service],
) -> Result<BTreeMap<String, BTreeSet<String>>, ServiceError> {
    let found = related(services, |manager, names| {
        Ok(manager.stop_with(root, names)?.into_iter().collect())
    })?;
    Ok(found.into_iter().collect())
}

/// The active sockets, timers and paths that may start one of these services.
pub(crate) fn triggers(root: &Root, services: &[Service]) -> Result<Vec<String>, ServiceError> {
    related(services, |manager, names| manager.triggers(root, names))
}

fn related<T>(
    services: &[Service],
    ask: impl Fn(&dyn Manager, &[&str]) -> Result<Vec<T>, ServiceError>,
) -> Result<Vec<T>, ServiceError> {
    let mut units = Vec::new();
    for manager in MANAGERS.iter().copied() {
        let is_own = |service: &&Service| service.manager_key() == manager.key();
        let names: Vec<&str> = services.iter().filter(is_own).map(Service::name).collect();
        units.extend(ask(manager, &names)?);
    }
    Ok(units)
}

#[cfg(test)]
mod tests {
    use super::super::managers::FakeSupervisord;
    use super::*;

    #[test]
    fn each_service_gets_one_order_and_has_its_own_result() {
        let fake = FakeSupervisord::start(&[("pair", "dj", "RUNNING"), ("old", "old", "EXITED")]);
        let names = ["supervisord:pair:dj", "user:own", "supervisord:pair:dj", "supervisord:old"];
        let services: Vec<Service> = names.iter().map(|name| name.parse().unwrap()).collect();
        let shown = |outcomes: Outcomes| -> Vec<String> {
            let one = |(service, told): (Service, Result<Outcome, ServiceError>)| match told {
                Ok(Outcome::Done) => format!("{service}: done"),
                Ok(Outcome::LeftAlone(why)) => format!("{service}: {why}"),
                Err(error) => error.to_string(),
            };
            outcomes.into_iter().map(one).collect()
        };
        let refused = "user:own.service is a unit of a user's own service manager: \
                       that user must register the venv";
        let expected = ["supervisord:pair:dj: done", refused, "supervisord:old: it has ended"];
        assert_eq!(shown(restart_all(&fake.root(), &services)), expected);
        assert_eq!(fake.told(), ["stopProcess pair:dj", "startProcess pair:dj"]);
        let stopped = shown(stop_all(&fake.root(), &services[..1]));
        assert_eq!(stopped, ["supervisord:pair:dj: done"]);
        assert_eq!(shown(start_all(&fake.root(), &services)), expected);
        let all = ["stopProcess pair:dj", "startProcess pair:dj"].repeat(2);
        assert_eq!(fake.told(), all);
    }
}
