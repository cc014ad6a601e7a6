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

/// The active units that stop with these services, other than the services themselves.
pub(super) fn dependents(root: &Root, services: &[&str]) -> Result<Vec<String>, SystemdError> {
    let own: BTreeSet<String> = services.iter().map(ToString::to_string).collect();
    let mut found: BTreeSet<String> = BTreeSet::new();
    let mut next = own.clone();
    for _ in 0..CHAIN {
        let asked = ask(root, &next, &STOP_WITH)?;
        let named: BTreeSet<String> = asked.values().flatten().cloned().collect();
        next = active(root, &named)?
            .into_iter()
            .filter(|unit| !own.contains(unit) && !found.contains(unit))
            .collect();
        if next.is_empty() {
            break;
        }
        found.extend(next.iter().cloned());
    }
    Ok(found.into_iter().collect())
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
    fn the_units_that_systemctl_names_are_read_by_block() {
        let found = named(
            "Id=web.service\nRequiredBy=worker.service site.target\nBoundBy=\n\n\
             Id=db.service\nRequiredBy=-x.service web.service\n",
        );
        assert_eq!(found["web.service"], ["worker.service", "site.target"]);
        assert_eq!(found["db.service"], ["web.service"]);
    }
}
