//! The processes that run code that was replaced. `status`, `processes` and the hook ask here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::Inventory;
use crate::host::{clock, user};
use crate::python::{self, Interpreters};
use crate::repair::Context;
use crate::service::{CgroupOwner, Current, Service, VenvProcess};
use crate::store::RegistryEntry;
use crate::venv::Venv;

/// A process that runs code that was replaced. Its fields are those of `processes --json`.
#[derive(Debug, Serialize)]
pub(crate) struct StaleProcess {
    pub(crate) pid: u32,
    /// The name of its user.
    pub(crate) user: String,
    /// The names of the registered venvs that it uses.
    pub(crate) venvs: Vec<String>,
    /// The service to restart, if the process belongs to one.
    pub(crate) service: Option<Service>,
    /// The unit of systemd in which it runs.
    pub(crate) unit: Option<String>,
    pub(crate) since: Timestamp,
    pub(crate) command: String,
    pub(crate) reason: String,
}

/// All of them, and how many processes could not be looked at.
#[derive(Debug)]
pub(crate) struct StaleProcesses {
    pub(crate) found: Vec<StaleProcess>,
    pub(crate) skipped: usize,
}

/// What the processes of a venv would run if they were started now.
pub(crate) fn current(entry: &RegistryEntry, venv: &Venv, now: &Interpreters) -> Current {
    let latest = entry.previous_trees.latest_first().next();
    let swapped = latest.and_then(|tree| clock::now().duration_since(tree.at).try_into().ok());
    Current { interpreter: venv.runs(now).map(python::path_of), swapped }
}

/// Every process that runs code that was replaced, of venvs and otherwise; for an ordinary user
/// their own.
pub(crate) fn stale_processes(
    context: &Context,
    inventory: &Inventory,
    now: &Interpreters,
) -> StaleProcesses {
    let map = inventory.users(context.root);
    let mut found: BTreeMap<u32, StaleProcess> = BTreeMap::new();
    let mut add = |user: &VenvProcess, venv: Option<&str>, current: &Current| {
        let uid = user.process.uid;
        if context.root.user().is_some_and(|own| own != uid) {
            return;
        }
        let Some(reason) = user.stale(current) else { return };
        let known = found.entry(user.process.id.pid);
        let one = known.or_insert_with(|| described(context, user, reason));
        one.venvs.extend(venv.map(str::to_string));
    };
    for (entry, venv) in inventory.present() {
        let current = current(entry, venv, now);
        for user in &map.of(&venv.path).processes {
            add(user, Some(&entry.name), &current);
        }
    }
    let default = now.default.map(python::path_of);
    // A removed venv still has the processes that it had.
    let gone = inventory.entries().filter(|(_, venv)| venv.is_err());
    let gone = gone.flat_map(|(entry, _)| &map.of(entry.path()).processes);
    for user in map.others.iter().chain(gone) {
        let runs_default = user.process.embeds_python().is_some()
            || user.process.arguments.first().is_some_and(|called| called == python::DEFAULT);
        let interpreter = default.clone().filter(|_| runs_default);
        add(user, None, &Current { interpreter, swapped: None });
    }
    StaleProcesses { found: found.into_values().collect(), skipped: map.skipped }
}

fn described(context: &Context, user: &VenvProcess, reason: String) -> StaleProcess {
    let process = &user.process;
    let unit = match &process.place {
        CgroupOwner::Unit(unit) | CgroupOwner::UserUnit { unit, .. } => Some(unit.clone()),
        CgroupOwner::Elsewhere => None,
    };
    StaleProcess {
        pid: process.id.pid,
        user: user::name(context.root, process.uid),
        venvs: Vec::new(),
        service: user.service.clone(),
        unit,
        since: begun(user.age),
        command: process.command(),
        reason,
    }
}

/// When something began that is so old.
fn begun(age: Duration) -> Timestamp {
    let age = SignedDuration::try_from(age).unwrap_or(SignedDuration::ZERO);
    clock::now().checked_sub(age).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Which processes are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unmanaged {
    /// Those that run in units of users' own managers.
    UnitsOfUsers,
    /// The others.
    OutsideOfUnits,
}

/// Reports the processes of some venvs that still run old code and that no service manager can
/// restart, and returns their number.
pub(crate) fn report_unmanaged(
    context: &Context,
    inventory: &Inventory,
    ids: &[&str],
    now: &Interpreters,
    which: Unmanaged,
) -> usize {
    let mut count = 0;
    for (entry, user, reason) in unmanaged(context, inventory, ids, now) {
        let is_unit = matches!(user.process.place, CgroupOwner::UserUnit { .. });
        if is_unit == (which == Unmanaged::UnitsOfUsers) {
            let (name, process) = (&entry.name, user.process.describe());
            context
                .report
                .note(&format!("{name}: restart this process yourself: {process}: {reason}"));
            count += 1;
        }
    }
    count
}

/// The units of users' own managers that still run old code of some venvs, by user.
pub(crate) fn stale_units_of_users(
    context: &Context,
    inventory: &Inventory,
    ids: &[&str],
    now: &Interpreters,
) -> BTreeMap<u32, BTreeSet<String>> {
    let mut units: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for (_, user, _) in unmanaged(context, inventory, ids, now) {
        if let CgroupOwner::UserUnit { uid, unit } = user.process.place {
            units.entry(uid).or_default().insert(unit);
        }
    }
    units
}

/// The processes of some venvs that run old code and belong to no service that we restart.
fn unmanaged<'a>(
    context: &Context,
    inventory: &'a Inventory,
    ids: &[&str],
    now: &Interpreters,
) -> Vec<(&'a RegistryEntry, VenvProcess, String)> {
    let chosen: Vec<(&RegistryEntry, &Venv)> =
        ids.iter().filter_map(|id| inventory.get(id)).collect();
    let map = inventory.users(context.root);
    let stale = chosen.iter().flat_map(|(entry, venv)| {
        let current = current(entry, venv, now);
        let users = map.of(&venv.path).processes.iter().filter(|user| user.service.is_none());
        users.filter_map(move |user| Some((*entry, user.clone(), user.stale(&current)?)))
    });
    stale.collect()
}
