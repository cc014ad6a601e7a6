//! Checks whether each registered venv works and could be rebuilt.

use super::Finding;
use crate::apt::marks;
use crate::host::command;
use crate::host::file::printable;
use crate::host::tree;
use crate::inventory::{Inventory, healths};
use crate::plan::{Policy, Readiness, State};
use crate::python;
use crate::repair::{self, Context};
use crate::service::Probe;
use crate::store::{PendingRemoval, RegistryEntry};

pub(super) fn findings(context: &Context) -> Vec<Finding> {
    // `state` reports faults of the stored state.
    let Ok(inventory) = Inventory::read(context) else { return Vec::new() };
    let Ok(now) = python::look(context.root) else { return Vec::new() };
    let healths = healths(context, &inventory, &now);
    let mut findings = vec![of_users(context)];
    let is_left = |one: &&PendingRemoval| tree::is_at(one.path(), one.identity);
    findings.extend(inventory.registry.pending_removals.iter().filter(is_left).map(|one| {
        let what =
            format!("{} is left over from a repair and no longer needed", printable(one.path()));
        Finding::fault(what, "`venvguard resume`")
    }));
    for ((entry, venv), health) in inventory.entries().zip(healths) {
        let name = &entry.name;
        let fix = match health.state {
            // An open journal is a finding of its own.
            State::Healthy | State::Unfinished => None,
            State::Missing => {
                Some(format!("create it again, or unregister it: `venvguard unregister {name}`"))
            }
            State::Broken => Some("create it again with the tool that created it".to_string()),
            State::CheckFails => Some(format!(
                "correct the application or the check: `venvguard diagnose {name}` names the cause"
            )),
            State::RestartNeeded => Some(format!("`venvguard restart {name}`")),
            State::Stale | State::Orphaned | State::Stranded => Some(match entry.policy {
                // `--all` passes over it.
                Policy::Ignore => format!("`venvguard rebuild {name}`"),
                _ => "`venvguard rebuild --all`".to_string(),
            }),
        };
        if let Some(fix) = fix {
            let what = format!("{name} is {}: {}", health.state, health.reasons.join("; "));
            findings.push(Finding::fault(what, fix));
        }
        findings.extend(of_entry(entry));
        findings.extend(of_pin(context, entry));
        let Ok(venv) = venv else { continue };
        if venv.base.is_debian && entry.policy.may_rebuild() {
            let ready = repair::readiness(
                context,
                entry,
                venv,
                (now.default, None),
                repair::look_at(context.root, venv),
            );
            if let Readiness::NotReady(found) = ready {
                let reasons: Vec<String> = found.iter().map(ToString::to_string).collect();
                findings.push(Finding::fault(
                    format!("{name} could not be rebuilt: {}", reasons.join("; ")),
                    format!(
                        "fix that, or pin it to its Python: `venvguard register {} --policy pin`",
                        printable(entry.path())
                    ),
                ));
            }
        }
    }
    findings
}

/// Whether ordinary users' own venvs are guarded. Users check the state of those themselves.
fn of_users(context: &Context) -> Finding {
    let users = &context.config.users;
    Finding::note(match &users.allow {
        _ if !users.enabled => "users' own venvs are not guarded (users.enabled)".to_string(),
        None => {
            format!(
                "users' own venvs are repaired as their users, within {} s each",
                users.time_limit
            )
        }
        Some(allow) => format!(
            "the venvs of {} are repaired as their users, within {} s each",
            printable(allow.join(", ")),
            users.time_limit
        ),
    })
}

/// Settings from the registration that are no longer valid.
fn of_entry(entry: &RegistryEntry) -> Vec<Finding> {
    let (name, path) = (&entry.name, printable(entry.path()));
    let mut findings = Vec::new();
    if let Some(program) = entry.check.first().filter(|word| !Probe::is_meant(word)) {
        if command::find(program).is_none() {
            findings.push(Finding::fault(
                format!("the program of the check of {name} is missing: {}", printable(program)),
                format!("clear it: `venvguard register {path} --check ''`, or set another one"),
            ));
        }
    }
    for (what, file) in [("requirements", entry.requirements()), ("lock", entry.lock())] {
        if let Some(file) = file.filter(|file| !file.is_file()) {
            findings.push(Finding::fault(
                format!("the {what} file of {name} is missing: {}", printable(file)),
                format!("set one that exists: `venvguard register {path} --{what} FILE`"),
            ));
        }
    }
    findings
}

/// An interpreter that a venv is pinned to must not be removed automatically.
fn of_pin(context: &Context, entry: &RegistryEntry) -> Option<Finding> {
    let minor = entry.pin.as_ref()?.to;
    if !context.root.is_system() {
        return None;
    }
    let packages = marks::packages_of(minor);
    let automatic = marks::automatic(&packages).ok()?;
    (!automatic.is_empty()).then(|| {
        let name = &entry.name;
        Finding::fault(
            format!("`apt autoremove` may remove {}, which {name} needs", minor.program()),
            format!("`apt-mark manual {}`", packages.join(" ")),
        )
    })
}
