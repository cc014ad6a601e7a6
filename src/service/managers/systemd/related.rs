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

/// Those of them by which a unit also restarts with another one.
const RESTART_WITH: [&str; 4] = ["RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf"];

/// No chain of dependencies is longer than this.
const CHAIN: usize = 16;

/// The active units that stop with each of these services, directly or through others.
pub(super) fn stop_with(
    root: &Root,
    services: &[&str],
) -> Result<BTreeMap<String, BTreeSet<String>>, SystemdError> {
    let found = Dependents::look(root, services, &STOP_WITH)?;
    let all = |service: &&str| {
        let all = found.all(service).into_iter().map(str::to_string).collect();
        ((*service).to_string(), all)
    };
    Ok(services.iter().map(all).collect())
}

/// Those of some services that do not restart with another one of them.
pub(super) fn independent<'a>(
    root: &Root,
    services: &[&'a str],
) -> Result<Vec<&'a str>, SystemdError> {
    // One alone restarts with no other.
    match services {
        [] | [_] => Ok(services.to_vec()),
        several => Ok(Dependents::look(root, several, &RESTART_WITH)?.independent(several)),
    }
}

/// The active units that stop, or restart, with each unit.
struct Dependents(BTreeMap<String, BTreeSet<String>>);

impl Dependents {
    /// Those of some services, and of the units that depend on them in turn.
    fn look(root: &Root, services: &[&str], by: &[&str]) -> Result<Self, SystemdError> {
        let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut next: BTreeSet<String> = services.iter().map(ToString::to_string).collect();
        for _ in 0..CHAIN {
            let asked = ask(root, &next, by)?;
            let active = active(root, &asked.values().flatten().cloned().collect())?;
            let is_active = |unit: &String| active.contains(unit);
            found.extend(
                asked
                    .into_iter()
                    .map(|(unit, with)| (unit, with.into_iter().filter(is_active).collect())),
            );
            next = active.iter().filter(|unit| !found.contains_key(*unit)).cloned().collect();
            if next.is_empty() {
                break;
            }
        }
        Ok(Self(found))
    }

    /// Of services that restart with each other, one is left.
    fn independent<'a>(&self, services: &[&'a str]) -> Vec<&'a str> {
        let mut left = services.to_vec();
        for service in services {
            if left.iter().any(|other| other != service && self.all(other).contains(service)) {
                left.retain(|one| one != service);
            }
        }
        left
    }

    /// Everything that depends on a unit.
    fn all<'a>(&'a self, unit: &'a str) -> BTreeSet<&'a str> {
        let (mut all, mut next) = (BTreeSet::new(), vec![unit]);
        while let Some(unit) = next.pop() {
            let with = self.0.get(unit).into_iter().flatten().map(String::as_str);
            next.extend(with.filter(|one| all.insert(*one)));
        }
        all
    }
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
    fn a_service_that_restarts_with_another_one_is_left_out() {
        let stop_with: [(&str, &[&str]); 5] = [
            ("db.service", &["site.target"]),
            ("site.target", &["web.service"]),
            ("web.service", &["worker.service"]),
            ("one.service", &["other.service"]),
            ("other.service", &["one.service"]),
        ];
        let found = stop_with
            .map(|(unit, with)| (unit.to_string(), with.iter().map(ToString::to_string).collect()));
        let found = Dependents(found.into());
        let services =
            ["alone", "worker", "db", "web", "one", "other"].map(|one| format!("{one}.service"));
        let services: Vec<&str> = services.iter().map(String::as_str).collect();
        assert_eq!(found.independent(&services), ["alone.service", "db.service", "other.service"]);
        let without = ["worker.service", "one.service"];
        assert_eq!(found.independent(&without), without);
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
