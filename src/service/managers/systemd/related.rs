//! The units that systemd stops or starts along with others.
//!
//! systemd stops more than ordered: units that require a unit, or are part of it, stop with it,
//! and are not started again with it. And a socket or a timer may start a unit in between.

use std::collections::{BTreeMap, BTreeSet};

use super::systemctl::{ORDER_LIMIT, SystemdError, systemctl};
use crate::host::Root;
use crate::host::file::printable;
use crate::service::error::ServiceError;

/// The dependencies by which a unit stops together with another one.
const STOP_WITH: [&str; 5] =
    ["RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf", "PropagatesStopTo"];

/// No chain of dependencies is longer than this.
const CHAIN: usize = 16;

/// The active units that stop with each of these services, directly or through others.
pub(super) fn stop_with(
    root: &Root,
    services: &[&str],
) -> Result<BTreeMap<String, BTreeSet<String>>, SystemdError> {
    let mut direct: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut next: BTreeSet<String> = services.iter().map(ToString::to_string).collect();
    for _ in 0..CHAIN {
        let asked = ask(root, &next, &STOP_WITH)?;
        let active = active(root, &asked.values().flatten().cloned().collect())?;
        direct.extend(asked.into_iter().map(|(unit, mut named)| {
            named.retain(|other| active.contains(other));
            (unit, named)
        }));
        next = active.into_iter().filter(|unit| !direct.contains_key(unit)).collect();
        if next.is_empty() {
            break;
        }
    }
    let all = |service: &&str| ((*service).to_string(), reached(&direct, service));
    Ok(services.iter().map(all).collect())
}

/// The units that are reached from a unit, and not the unit itself.
fn reached(direct: &BTreeMap<String, Vec<String>>, from: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut next = vec![from];
    while let Some(unit) = next.pop() {
        for other in direct.get(unit).into_iter().flatten() {
            if other != from && found.insert(other.clone()) {
                next.push(other);
            }
        }
    }
    found
}

/// The active sockets, timers and paths that may start one of these services.
pub(super) fn triggers(root: &Root, services: &[&str]) -> Result<Vec<String>, SystemdError> {
    let own = services.iter().map(ToString::to_string).collect();
    let asked = ask(root, &own, &["TriggeredBy"])?;
    Ok(active(root, &asked.values().flatten().cloned().collect())?.into_iter().collect())
}

/// Stops units of any kind in one transaction.
pub(crate) fn stop_units(root: &Root, units: &[String]) -> Result<(), ServiceError> {
    Ok(tell(root, "stop", units)?)
}

/// Starts units of any kind in one transaction, so that systemd observes the order of their
/// dependencies.
pub(crate) fn start_units(root: &Root, units: &[String]) -> Result<(), ServiceError> {
    Ok(tell(root, "start", units)?)
}

fn tell(root: &Root, verb: &str, units: &[String]) -> Result<(), SystemdError> {
    if !units.is_empty() {
        systemctl(root)?.limit(ORDER_LIMIT).args([verb, "--"]).args(units).run()?;
    }
    Ok(())
}

/// The units named in some properties of other units.
fn ask(
    root: &Root,
    units: &BTreeSet<String>,
    properties: &[&str],
) -> Result<BTreeMap<String, Vec<String>>, SystemdError> {
    if units.is_empty() {
        return Ok(BTreeMap::new());
    }
    let answer = systemctl(root)?
        .read_only()
        .args(["show", "--property=Id"])
        .args(properties.iter().map(|property| format!("--property={property}")))
        .arg("--")
        .args(units)
        .run()?;
    Ok(named(&answer.text()))
}

/// The output of `systemctl show`: a block of `KEY=UNIT UNIT…` for each unit.
fn named(answer: &str) -> BTreeMap<String, Vec<String>> {
    let blocks = answer.split("\n\n").map(|block| {
        let pairs = || block.lines().filter_map(|line| line.split_once('='));
        let id = pairs().find_map(|(key, value)| (key == "Id").then(|| value.to_string()));
        let others = pairs().filter(|(key, _)| *key != "Id");
        // Names of units contain no blanks. A word that could be an option is not a unit's name.
        let names = others.flat_map(|(_, value)| value.split_whitespace());
        let names = names.filter(|name| !name.starts_with('-') && printable(name) == **name);
        (id.unwrap_or_default(), names.map(str::to_string).collect())
    });
    blocks.collect()
}

fn active(root: &Root, units: &BTreeSet<String>) -> Result<BTreeSet<String>, SystemdError> {
    let states = ask(root, units, &["ActiveState"])?;
    let is_active = |(unit, state): (String, Vec<String>)| {
        matches!(state.first()?.as_str(), "active" | "activating" | "reloading").then_some(unit)
    };
    Ok(states.into_iter().filter_map(is_active).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_that_stop_through_others_are_reached_and_a_circle_ends() {
        let direct: BTreeMap<String, Vec<String>> = [
            ("db", &["web", "cache"][..]),
            ("web", &["worker"]),
            ("worker", &["db", "mail"]),
            ("cache", &[]),
        ]
        .map(|(unit, others)| (unit.to_string(), others.iter().map(ToString::to_string).collect()))
        .into();
        let found = |from| reached(&direct, from).into_iter().collect::<Vec<_>>();
        assert_eq!(found("db"), ["cache", "mail", "web", "worker"]);
        assert_eq!(found("worker"), ["cache", "db", "mail", "web"]);
        assert_eq!(found("mail"), [""; 0]);
    }

    #[test]
    fn the_units_that_systemctl_names_are_read_by_block() {
        let found = named(
            "Id=web.service\nRequiredBy=worker.service site.target\nBoundBy=\n\n\
             Id=db.service\nRequiredBy=-x.service web.service\n",
        );
        assert_eq!(found["web.service"], ["worker.service", "site.target"]);
        assert_eq!(found["db.service"], ["web.service"]);
    }
}
