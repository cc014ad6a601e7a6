//! `rebuild` and `rollback`: repairs that somebody asks for.

use std::path::Path;

use anyhow::bail;

use super::arguments::Rebuild;
use super::list::healths;
use super::{Exit, chosen, need_root, no_venv};
use crate::guard::{Guard, Survey};
use crate::host::file::printable;
use crate::host::lock::LockFile;
use crate::plan::{Policy, Readiness, Remedy, State};
use crate::python::{Interpreters, Minor};
use crate::repair::{self, Job, Target};
use crate::report::JobsJson;
use crate::store::RegistryEntry;
use crate::venv::{NotAVenv, Venv};

pub(super) fn rebuild(guard: &Guard, wanted: &Rebuild) -> anyhow::Result<Exit> {
    let _lock = if wanted.dry_run { None } else { Some(alone(guard)?) };
    let now = guard.interpreters()?;
    if let Some(minor) = wanted.python.filter(|minor| now.get(*minor).is_none()) {
        bail!("Python {minor} is not installed by Debian here; nothing was changed");
    }
    let mut registry = guard.registry()?;
    // What cannot be ended is said, and refused below.
    let mut attention = !wanted.dry_run && !guard.recover(&mut registry, &now);
    let mut survey = guard.survey(registry);
    for (entry, venv) in
        survey.entries().filter(|(one, _)| wanted.all && one.policy != Policy::Ignore)
    {
        if let Err(error) = venv {
            guard.report.error(&not_a_venv(guard, entry, error));
            attention = true;
        }
    }
    let mut jobs = Vec::new();
    for (entry, venv, remedy) in asked_for(guard, &survey, wanted)? {
        let mut job = job(entry, venv, remedy, &now, wanted.python);
        job.entry.relax = wanted.relax.or(entry.relax);
        if remedy == Remedy::Rebuild {
            let minor = job.target.map(|target| target.minor);
            let looked = repair::look_at(&guard.root, venv);
            if let Readiness::NotReady(reasons) =
                repair::readiness(&guard.context(), entry, venv, minor, looked)
            {
                let reasons = reasons.join("; ");
                guard.report.error(&format!("cannot rebuild {}: {reasons}", entry.name));
                guard.report.note("the venv was not changed");
                attention = true;
                continue;
            }
        }
        jobs.push(job);
    }
    if wanted.json {
        guard.report.json(&JobsJson::new(&jobs));
    } else if wanted.dry_run {
        for job in &jobs {
            guard.report.data(job.in_words());
        }
    }
    if jobs.is_empty() && !attention && !wanted.json {
        if survey.entries().next().is_none() {
            no_venv(guard);
        } else {
            guard.report.note("nothing to do: every venv is healthy");
        }
    }
    if wanted.dry_run || jobs.is_empty() {
        return Ok(if attention { Exit::Attention } else { Exit::Done });
    }
    let ids: Vec<String> = jobs.iter().map(|job| job.entry.id.clone()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut running = guard.running_services(&survey, &ids);
    for job in &mut jobs {
        job.services = running.remove(&job.entry.id).unwrap_or_default();
    }
    let (context, at_once) = (guard.context(), guard.jobs(wanted.jobs));
    guard.prune(&mut survey.registry, &[]);
    let outcomes = repair::execute(&context, &mut survey.registry, &now, jobs, at_once);
    let good = outcomes.iter().all(|outcome| outcome.done.is_good());
    let survey = guard.survey(survey.registry);
    attention |= guard.tell_of_processes_left(&survey, &ids, &now) > 0;
    Ok(match (good, attention) {
        (true, false) => Exit::Done,
        (true, true) => Exit::Attention,
        (false, _) => Exit::Failed,
    })
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

fn job(
    entry: &RegistryEntry,
    venv: &Venv,
    remedy: Remedy,
    now: &Interpreters,
    wanted: Option<Minor>,
) -> Job {
    let job = Job::new(entry, venv, remedy);
    Job { target: Target::asked_for(venv, job.follows, now, wanted), ..job }
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

/// What is to be done: a rebuild for venvs that are named, what mends it for each that is
/// not healthy with `--all`.
fn asked_for<'a>(
    guard: &Guard,
    survey: &'a Survey,
    wanted: &Rebuild,
) -> anyhow::Result<Vec<(&'a RegistryEntry, &'a Venv, Remedy)>> {
    if !wanted.all {
        return chosen(&survey.registry, &wanted.venvs)?
            .into_iter()
            .map(|entry| match survey.entries().find(|(one, _)| one.id == entry.id) {
                Some((entry, Ok(venv))) if !venv.base.is_debian => bail!(
                    "cannot rebuild {}: its interpreter {} is not Debian's, venvguard leaves it alone; nothing was changed",
                    entry.name,
                    printable(&venv.base.path)
                ),
                Some((entry, Ok(venv))) => Ok((entry, venv, Remedy::Rebuild)),
                Some((entry, Err(error))) => bail!(not_a_venv(guard, entry, error)),
                None => bail!("{} vanished from the registry", entry.name),
            })
            .collect();
    }
    Ok(healths(guard, survey)?
        .into_iter()
        .filter_map(|((entry, venv), health)| {
            let venv = venv.as_ref().ok().filter(|venv| venv.base.is_debian)?;
            let stays = entry.policy == Policy::Pin;
            let remedy = match health.state {
                _ if entry.policy == Policy::Ignore => return None,
                State::Healthy if entry.pin.is_some() && !stays => Remedy::Rebuild,
                State::Healthy | State::Missing | State::Broken => return None,
                State::RestartNeeded => Remedy::Restart,
                State::Stale => Remedy::Refresh,
                State::Orphaned if stays => Remedy::Pin,
                State::Orphaned | State::Stranded => Remedy::Rebuild,
            };
            Some((entry, venv, remedy))
        })
        .collect())
}

pub(super) fn rollback(guard: &Guard, wanted: &str, to: Option<&Path>) -> anyhow::Result<Exit> {
    let _lock = alone(guard)?;
    let now = guard.interpreters()?;
    let mut registry = guard.registry()?;
    guard.recover(&mut registry, &now);
    let mut survey = guard.survey(registry);
    let found = chosen(&survey.registry, &[wanted.to_string()])?;
    let [entry] = found.as_slice() else {
        bail!("{wanted:?} stands for {} venvs; one at a time is rolled back", found.len());
    };
    let entry = (*entry).clone();
    // What stands there may be no venv any more: that is a reason to go back. Then only
    // what was declared is known to run out of it.
    let services = guard
        .running_services(&survey, &[&entry.id])
        .remove(&entry.id)
        .unwrap_or_else(|| entry.services.clone());
    match repair::rollback(&guard.context(), &mut survey.registry, &now, &entry, to, services) {
        Ok(outcome) if outcome.done.is_good() => Ok(Exit::Done),
        Ok(_) => Ok(Exit::Failed),
        Err(error) => {
            let name = &entry.name;
            guard.report.error(&format!("cannot roll {name} back: {error}; nothing was changed"));
            Ok(Exit::Failed)
        }
    }
}

/// Removes the trees that are too many or too old, or all that is kept of some venvs.
pub(super) fn prune(guard: &Guard, wanted: &[String]) -> anyhow::Result<Exit> {
    let _lock = alone(guard)?;
    let mut registry = guard.registry()?;
    guard.recover(&mut registry, &guard.interpreters()?);
    let ids: Vec<String> = chosen(&registry, wanted)?.iter().map(|one| one.id.clone()).collect();
    guard.prune(&mut registry, &ids);
    Ok(if registry.pending_removals.is_empty() { Exit::Done } else { Exit::Failed })
}
