//! systemd, controlled by `systemctl`: the system's, and for an ordinary user their own.

#[cfg(test)]
mod input;
mod related;
mod systemctl;
mod unit;

pub(crate) use related::{start_units, stop_units};

use std::collections::{BTreeMap, BTreeSet, HashMap};

use self::systemctl::{ORDER_LIMIT, QUESTION_LIMIT, SystemdError, systemctl};
use self::unit::Unit;
use super::{Discovered, Manager, Order, Outcome, last_lines};
use crate::host::clock::Deadline;
use crate::host::{Program, Root};
use crate::service::condition::Condition;
use crate::service::discover::cgroup::CgroupOwner;
use crate::service::discover::process::{Process, Processes};
use crate::service::discover::unit_file::{self, UnitFile};
use crate::service::discover::unit_name::{service_unit, starts_others};
use crate::service::error::{NameError, ServiceError};

/// Whose systemd it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::service) enum Systemd {
    System,
    /// That of the user who registered the venv.
    User,
}

impl Manager for Systemd {
    fn key(&self) -> &'static str {
        match self {
            Self::System => "systemd",
            Self::User => "user",
        }
    }

    fn placeholder(&self) -> &'static str {
        "UNIT"
    }

    fn is_users_own(&self) -> bool {
        *self == Self::User
    }

    fn parse(&self, name: &str) -> Result<String, NameError> {
        service_unit(name)
    }

    fn family(&self, name: &str) -> Option<String> {
        name.split_once('@').map(|(template, _)| template.to_string())
    }

    /// A unit's processes are those in its cgroup, regardless of what started them. The unit that runs
    /// venvguard and apt is no venv's: a restart would kill both.
    fn discover(&self, root: &Root, processes: &Processes) -> Discovered {
        let own = processes.get(std::process::id()).map(|process| &process.place);
        let unit_of = |process: &Process| match (self, &process.place) {
            (_, place) if own == Some(place) => None,
            (Self::System, CgroupOwner::Unit(unit)) if !starts_others(unit) => Some(unit.clone()),
            (Self::User, CgroupOwner::UserUnit { uid, unit }) if root.user() == Some(*uid) => {
                service_unit(unit).ok()
            }
            _ => None,
        };
        let members = processes.iter().filter_map(|one| Some((one.id.pid, unit_of(one)?)));
        let members: HashMap<u32, String> = members.collect();
        let running = members.values().cloned().collect();
        let units = unit_file::units(root, &running);
        let gap =
            |unit: &UnitFile| Some(format!("{} uses a disk image ({}=)", unit.name, unit.image?));
        Discovered {
            gaps: units.iter().filter_map(gap).collect(),
            configured: units.into_iter().map(|unit| (unit.name, unit.paths)).collect(),
            members,
            ..Discovered::default()
        }
    }

    fn condition(&self, root: &Root, name: &str) -> Result<Condition, ServiceError> {
        Ok(Unit::ask(root, name)?.condition())
    }

    fn conditions(
        &self,
        root: &Root,
        names: &[&str],
        deadline: Deadline,
    ) -> Vec<Result<Condition, ServiceError>> {
        let chunks = names.chunks(AT_ONCE).take_while(|_| !deadline.has_passed());
        let found = chunks.flat_map(|names| Unit::ask_all(root, names, deadline));
        found.map(|unit| Ok(unit?.condition())).collect()
    }

    fn stop(&self, root: &Root, names: &[&str]) -> Vec<Result<Outcome, ServiceError>> {
        give(Order::Stop, root, names)
    }

    fn start(&self, root: &Root, names: &[&str]) -> Vec<Result<Outcome, ServiceError>> {
        give(Order::Start, root, names)
    }

    fn restart(&self, root: &Root, names: &[&str]) -> Vec<Result<Outcome, ServiceError>> {
        give(Order::Restart, root, names)
    }

    /// What the unit's processes and the manager wrote to the journal.
    fn log(&self, root: &Root, name: &str) -> String {
        let unit = Unit::ask(root, name).ok();
        if let Some([own, about]) = unit.and_then(|unit| self.of_run(&unit)) {
            let log = journal(root, LOG_LINES, &[&own, "+", &about]);
            if !log.trim().is_empty() {
                return log;
            }
        }
        journal(root, LOG_LINES, &[&format!("{}={name}", self.option())])
    }

    /// The last lines that the unit's own processes wrote to the journal since its last start; if
    /// there are none, those of the manager about the unit.
    fn last_words(&self, root: &Root, name: &str) -> Vec<String> {
        let field = match self {
            Self::System => "_SYSTEMD_UNIT",
            Self::User => "_SYSTEMD_USER_UNIT",
        };
        let unit = Unit::ask(root, name).ok();
        // The start before may be of another day, unless systemd itself has repeated it.
        let most =
            if unit.as_ref().is_some_and(|unit| unit.condition().restarts > 0) { 1 } else { 2 };
        let of_run = unit.and_then(|unit| self.of_run(&unit)).into_iter().flatten().take(most);
        let of_unit = [format!("{field}={name}"), format!("{}={name}", self.option())];
        let mut words =
            of_run.chain(of_unit).map(|one| last_lines(&journal(root, WORDS_LINES, &[&one])));
        words.find(|words| !words.is_empty()).unwrap_or_default()
    }

    fn came_up_again(&self, root: &Root, name: &str) -> bool {
        Unit::ask(root, name).is_ok_and(|unit| {
            let condition = unit.condition();
            unit.runs_on().is_none() && (condition.up || condition.main_pid.is_some())
        })
    }

    fn stop_with(
        &self,
        root: &Root,
        names: &[&str],
    ) -> Result<BTreeMap<String, BTreeSet<String>>, ServiceError> {
        Ok(related::stop_with(root, names)?)
    }

    fn triggers(&self, root: &Root, names: &[&str]) -> Result<Vec<String>, ServiceError> {
        Ok(related::triggers(root, names)?)
    }
}

/// How many units systemd is asked about at once.
const AT_ONCE: usize = 64;

/// How many lines of the journal are read for an error message, and to find a cause.
const WORDS_LINES: usize = 200;
const LOG_LINES: usize = 2000;

/// The last lines of the journal that match, without their prefixes.
fn journal(root: &Root, lines: usize, selection: &[&str]) -> String {
    Program::named(root, "journalctl")
        .read_only()
        .limit(QUESTION_LIMIT)
        .args(["--no-pager", "--quiet", "--output=cat"])
        .arg(format!("--lines={lines}"))
        .args(selection)
        .run()
        .map(|finished| finished.text())
        .unwrap_or_default()
}

impl Systemd {
    /// The option of journalctl for a unit and what the manager writes about it.
    fn option(self) -> &'static str {
        match self {
            Self::System => "--unit",
            Self::User => "--user-unit",
        }
    }

    /// Selects from the journal what the processes of the unit's last run wrote, and what the
    /// manager wrote about that run. Only the system's manager marks each line with its run.
    fn of_run(self, unit: &Unit) -> Option<[String; 2]> {
        let run = unit.get("InvocationID");
        let is_marked = self == Self::System && !run.is_empty();
        is_marked.then(|| {
            ["_SYSTEMD_INVOCATION_ID", "INVOCATION_ID"].map(|field| format!("{field}={run}"))
        })
    }
}

/// Gives the order to several units in one call: their jobs then are in systemd's queue together,
/// in the order of the units' dependencies.
fn give(order: Order, root: &Root, names: &[&str]) -> Vec<Result<Outcome, ServiceError>> {
    let found = names.iter().zip(Unit::ask_all(root, names, Deadline::never()));
    let before: Vec<Result<Admitted, ServiceError>> =
        found.map(|(name, unit)| Ok(admit(order, name, unit?)?)).collect();
    let meant = names.iter().zip(&before).filter_map(|(name, admitted)| match admitted {
        Ok(Admitted::Meant(unit)) => Some((*name, unit)),
        _ => None,
    });
    let complaint = tell(order, root, &meant.collect::<Vec<_>>()).err().map(ServiceError::from);
    let outcome = |name: &str, admitted| match (admitted, &complaint) {
        (Admitted::LeftAlone(why), _) => Ok(Outcome::LeftAlone(why)),
        (Admitted::Meant(_), None) => Ok(Outcome::Done),
        // systemctl reports that something failed; each unit's state shows whether it did.
        (Admitted::Meant(before), Some(_))
            if was_followed(order, &before, &Unit::ask(root, name)?) =>
        {
            Ok(Outcome::Done)
        }
        (Admitted::Meant(_), Some(error)) => Err(error.clone()),
    };
    let told = names.iter().zip(before);
    told.map(|(name, admitted)| outcome(name, admitted?)).collect()
}

/// Whether the unit can execute the order and venvguard may give it.
fn admit(order: Order, name: &str, unit: Unit) -> Result<Admitted, SystemdError> {
    let refusal = if order == Order::Stop { unit.runs_on() } else { unit.left_alone() };
    if let Some(why) = refusal {
        return Ok(Admitted::LeftAlone(why));
    }
    let load = unit.get("LoadState");
    if order != Order::Stop && load != "loaded" {
        let (unit, state) = (name.to_string(), load.to_string());
        return Err(SystemdError::NotLoaded { verb: order.verb(), unit, state });
    }
    Ok(Admitted::Meant(unit))
}

fn tell(order: Order, root: &Root, units: &[(&str, &Unit)]) -> Result<(), SystemdError> {
    if units.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
    if order != Order::Stop {
        if units.iter().any(|(_, unit)| unit.is("NeedDaemonReload")) {
            systemctl(root)?.arg("daemon-reload").run()?;
        }
        // systemd refuses to start a unit that failed too often until its counter is reset. The
        // counter includes our own restarts, so it is reset for running units too.
        systemctl(root)?.args(["reset-failed", "--"]).args(&names).finish()?;
    }
    if order != Order::Restart {
        return call(order, root, &names);
    }
    // systemctl orders one unit after the other. A unit that restarts with another one, or has just
    // been started for another one, would restart twice.
    let is_down =
        |name: &&str| units.iter().any(|(one, unit)| one == name && unit.condition().at_rest);
    let (down, running): (Vec<&str>, Vec<&str>) = names.into_iter().partition(is_down);
    let restarted = call(order, root, &related::independent(root, &running)?);
    call(Order::Start, root, &down).and(restarted)
}

fn call(order: Order, root: &Root, names: &[&str]) -> Result<(), SystemdError> {
    if !names.is_empty() {
        systemctl(root)?.limit(ORDER_LIMIT).args([order.verb(), "--"]).args(names).run()?;
    }
    Ok(())
}

/// Whether a unit followed an order. A unit that was started and failed did; the caller queries
/// its condition and its last lines of output.
fn was_followed(order: Order, before: &Unit, after: &Unit) -> bool {
    match order {
        Order::Stop => after.condition().at_rest,
        Order::Start => after.condition().up || after.is_another_run(before),
        Order::Restart => after.is_another_run(before),
    }
}

/// A unit before an order.
enum Admitted {
    Meant(Unit),
    LeftAlone(String),
}

#[cfg(test)]
mod tests;
