//! `rebuild`, `rollback` and `prune`: what somebody asks for.

use std::path::Path;

use anyhow::bail;

use super::arguments::{Rebuild, Rollback};
use super::{Exit, chosen, need_root, no_venv};
use crate::guard::Guard;
use crate::host::file::printable;
use crate::host::lock::LockFile;
use crate::inventory::{Inventory, report_unmanaged};
use crate::plan::{Decision, Policy, Remedy, RepairFor, Wish};
use crate::python::Interpreters;
use crate::repair::{self, Job};
use crate::report::{DecisionsJson, reasons_in_words};
use crate::store::RegistryEntry;
use crate::venv::NotAVenv;

pub(super) fn rebuild(guard: &Guard, wanted: &Rebuild) -> anyhow::Result<Exit> {
    let _lock = if wanted.dry_run { None } else { Some(alone(guard)?) };
    let now = guard.interpreters()?;
    if let Some(minor) = wanted.python.filter(|minor| now.get(*minor).is_none()) {
        bail!("Python {minor} is not installed by Debian here; nothing was changed");
    }
    let mut registry = guard.registry()?;
    // What cannot be finished is reported, and refused below.
    let recovered = wanted.dry_run || guard.recover(&mut registry, &now);
    let inventory = guard.inventory_of(registry);
    let mut attention = !recovered | report_no_venvs(guard, &inventory, wanted);
    let decisions = decide(guard, &inventory, &now, wanted)?;
    attention |= report_impossible(guard, &decisions);
    let acting: Vec<Decision> = decisions.into_iter().filter(Decision::acts).collect();
    report_decisions(guard, &acting, wanted.dry_run, wanted.json);
    if acting.is_empty() && !attention && !wanted.json {
        if inventory.entries().next().is_none() {
            no_venv(guard);
        } else {
            guard.report.note("nothing to do: every venv is healthy");
        }
    }
    if wanted.dry_run || acting.is_empty() {
        return Ok(if attention { Exit::Attention } else { Exit::Done });
    }
    let Carried { good, left } = carry_out(guard, inventory, &acting, &now, wanted);
    attention |= left > 0;
    Ok(match (good, attention) {
        (true, false) => Exit::Done,
        (true, true) => Exit::Attention,
        (false, _) => Exit::Failed,
    })
}

/// What came of the decisions.
struct Carried {
    good: bool,
    /// The processes that nobody but a person can restart.
    left: usize,
}

fn carry_out(
    guard: &Guard,
    mut inventory: Inventory,
    decisions: &[Decision],
    now: &Interpreters,
    wanted: &Rebuild,
) -> Carried {
    let jobs = Job::all(inventory.present(), decisions);
    let (context, at_once) = (guard.context(), guard.config.at_once(wanted.jobs));
    guard.prune(&mut inventory.registry, &[]);
    let registry = &mut inventory.registry;
    let outcomes = if wanted.prepare {
        repair::prepare_all(&context, registry, now, jobs, at_once)
    } else {
        repair::execute(&context, registry, now, jobs, at_once)
    };
    let good = outcomes.iter().all(|outcome| outcome.done.is_good());
    let inventory = guard.inventory_of(inventory.registry);
    let ids: Vec<&str> = decisions.iter().map(|decision| decision.id.as_str()).collect();
    Carried { good, left: report_unmanaged(&context, &inventory, &ids, now) }
}

/// Makes sure that nobody changes venvs or interpreters meanwhile: no other venvguard, and
/// no apt that is between its two hooks.
fn alone(guard: &Guard) -> anyhow::Result<LockFile> {
    need_root(guard)?;
    let lock = guard.lock()?;
    if guard.is_apt_at_work() {
        bail!("apt or dpkg is at work; nothing was changed (try again when it has ended)");
    }
    Ok(lock)
}

/// What is done for the venvs that are named, or with `--all` for each that is not healthy.
fn decide(
    guard: &Guard,
    inventory: &Inventory,
    now: &Interpreters,
    wanted: &Rebuild,
) -> anyhow::Result<Vec<Decision>> {
    let wish = Wish { python: wanted.python, relax: wanted.relax };
    if wanted.all {
        return Ok(guard.propose_repair(inventory, now, wish, RepairFor::Person));
    }
    let mut ids = Vec::new();
    for entry in chosen(&inventory.registry, &wanted.venvs)? {
        match inventory.entries().find(|(one, _)| one.id == entry.id) {
            Some((entry, Ok(venv))) if !venv.base.is_debian => bail!(
                "cannot rebuild {}: its interpreter {} is not Debian's, venvguard leaves it alone; nothing was changed",
                entry.name,
                printable(&venv.base.path)
            ),
            Some((entry, Ok(_))) => ids.push(entry.id.as_str()),
            Some((entry, Err(error))) => bail!(not_a_venv(guard, entry, error)),
            None => bail!("{} vanished from the registry", entry.name),
        }
    }
    Ok(guard.propose_rebuilds(inventory, &ids, now, wish))
}

/// With `--all`: names what is registered and no venv. Returns whether there is any.
fn report_no_venvs(guard: &Guard, inventory: &Inventory, wanted: &Rebuild) -> bool {
    let mut found = false;
    for (entry, venv) in
        inventory.entries().filter(|(one, _)| wanted.all && one.policy != Policy::Ignore)
    {
        if let Err(error) = venv {
            guard.report.error(&not_a_venv(guard, entry, error));
            found = true;
        }
    }
    found
}

/// Why nothing is rebuilt where there is no venv, and what to do.
fn not_a_venv(guard: &Guard, entry: &RegistryEntry, error: &NotAVenv) -> String {
    let name = &entry.name;
    let way_back = match error {
        NotAVenv::Missing(_) => repair::way_back(&guard.context(), entry),
        _ => None,
    };
    let way_back = way_back.map(|way| format!(" ({way})")).unwrap_or_default();
    format!("cannot rebuild {name}: {error}; nothing was changed{way_back}")
}

fn report_impossible(guard: &Guard, decisions: &[Decision]) -> bool {
    let mut found = false;
    for decision in decisions.iter().filter(|one| one.remedy == Remedy::Impossible) {
        let reasons = reasons_in_words(decision).join("; ");
        guard.report.error(&format!("cannot rebuild {}: {reasons}", decision.name));
        guard.report.note("the venv was not changed");
        found = true;
    }
    found
}

fn report_decisions(guard: &Guard, decisions: &[Decision], dry_run: bool, json: bool) {
    if json {
        guard.report.json(&DecisionsJson::new(decisions));
    } else if dry_run {
        for decision in decisions {
            guard.report.planned(decision);
        }
    }
}

pub(super) fn rollback(guard: &Guard, wanted: &Rollback) -> anyhow::Result<Exit> {
    let Rollback { venv, to, dry_run, json } = wanted;
    let _lock = if *dry_run { None } else { Some(alone(guard)?) };
    let now = guard.interpreters()?;
    let mut registry = guard.registry()?;
    if !dry_run {
        guard.recover(&mut registry, &now);
    }
    let mut inventory = guard.inventory_of(registry);
    let found = chosen(&inventory.registry, std::slice::from_ref(venv))?;
    let [entry] = found.as_slice() else {
        bail!("{venv:?} stands for {} venvs; one at a time is rolled back", found.len());
    };
    let entry = (*entry).clone();
    let job = match guard.propose_rollback(&inventory, &entry, &now, to.as_deref().map(Path::new)) {
        Ok(job) => job,
        Err(error) => {
            let name = &entry.name;
            guard.report.error(&format!("cannot roll {name} back: {error}; nothing was changed"));
            return Ok(Exit::Failed);
        }
    };
    report_decisions(guard, std::slice::from_ref(&job.decision), *dry_run, *json);
    if *dry_run {
        return Ok(Exit::Done);
    }
    let registry = &mut inventory.registry;
    let outcomes = repair::execute(&guard.context(), registry, &now, vec![job], 1);
    let good = outcomes.iter().all(|outcome| outcome.done.is_good());
    Ok(if good { Exit::Done } else { Exit::Failed })
}

/// Removes the trees that are too many or too old, or all previous environments of some venvs.
pub(super) fn prune(guard: &Guard, wanted: &[String]) -> anyhow::Result<Exit> {
    let _lock = alone(guard)?;
    let mut registry = guard.registry()?;
    guard.recover(&mut registry, &guard.interpreters()?);
    let ids: Vec<String> = chosen(&registry, wanted)?.iter().map(|one| one.id.clone()).collect();
    guard.prune(&mut registry, &ids);
    Ok(if registry.pending_removals.is_empty() { Exit::Done } else { Exit::Failed })
}
