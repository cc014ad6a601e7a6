//! `rebuild` and `rollback`: repairs that somebody asks for.

use anyhow::bail;

use super::arguments::Rebuild;
use super::list::healths;
use super::{Exit, chosen, need_root};
use crate::guard::{Guard, Survey};
use crate::plan::{Readiness, Remedy, State};
use crate::python::Interpreters;
use crate::repair::{self, Job, Target};
use crate::report::JobsJson;
use crate::store::{Entry, Event};
use crate::venv::{Link, Venv};

pub(super) fn rebuild(guard: &Guard, wanted: &Rebuild) -> anyhow::Result<Exit> {
    if !wanted.dry_run {
        need_root(guard)?;
    }
    let _lock = (!wanted.dry_run).then(|| guard.lock()).transpose()?;
    let now = guard.interpreters()?;
    if let Some(minor) = wanted.python.filter(|minor| now.get(*minor).is_none()) {
        bail!("Python {minor} is not installed by Debian here; nothing was changed");
    }
    let survey = look(guard, &now, wanted.dry_run)?;
    let mut attention = false;
    let mut jobs = Vec::new();
    for (entry, venv, remedy) in asked_for(guard, &survey, wanted)? {
        let follows = entry.anchored.is_some() || venv.base.link == Link::Followed;
        let target = Target::asked_for(venv, follows, &now, wanted.python);
        if remedy == Remedy::Rebuild {
            let minor = target.map(|target| target.minor);
            if let Readiness::NotReady(reasons) =
                repair::readiness(&guard.context(), entry, venv, minor)
            {
                guard.report.error(&format!(
                    "cannot rebuild {}: {}",
                    entry.name,
                    reasons.join("; ")
                ));
                guard.report.note("the venv was not changed");
                attention = true;
                continue;
            }
        }
        jobs.push(Job {
            entry: entry.clone(),
            venv: venv.clone(),
            remedy,
            fallback: None,
            target,
            services: Vec::new(),
        });
    }
    if wanted.json {
        guard.report.json(&JobsJson::new(&jobs));
    } else if wanted.dry_run {
        for job in &jobs {
            guard.report.data(job.in_words());
        }
    }
    if jobs.is_empty() && !attention && !wanted.json {
        guard.report.note("nothing to do: every venv is healthy");
    }
    if wanted.dry_run || jobs.is_empty() {
        return Ok(if attention { Exit::Attention } else { Exit::Done });
    }
    let ids: Vec<&str> = jobs.iter().map(|job| job.entry.id.as_str()).collect();
    let mut running = guard.running_services(&survey, &ids);
    for job in &mut jobs {
        job.services = running.remove(&job.entry.id).unwrap_or_default();
    }
    let outcomes =
        repair::execute(&guard.context(), &now, jobs, guard.jobs(wanted.jobs), |outcome| {
            guard.report.outcome(&survey.registry, outcome);
        });
    let mut registry = survey.registry;
    guard.remember(&mut registry, &outcomes)?;
    let good = outcomes.iter().all(|outcome| outcome.done.is_good());
    Ok(match (good, attention) {
        (true, false) => Exit::Done,
        (true, true) => Exit::Attention,
        (false, _) => Exit::Failed,
    })
}

/// The venvs as they are, once what an earlier run left unfinished is ended.
fn look(guard: &Guard, now: &Interpreters, dry_run: bool) -> anyhow::Result<Survey> {
    let mut registry = guard.store.registry()?;
    if !dry_run {
        repair::recover(&guard.context(), &mut registry, now)?;
    }
    Ok(guard.survey(registry))
}

/// What is to be done: a rebuild for venvs that are named, what mends it for each that is
/// not healthy with `--all`.
fn asked_for<'a>(
    guard: &Guard,
    survey: &'a Survey,
    wanted: &Rebuild,
) -> anyhow::Result<Vec<(&'a Entry, &'a Venv, Remedy)>> {
    if !wanted.all {
        return chosen(&survey.registry, &wanted.venvs)?
            .into_iter()
            .map(|entry| match survey.entries().find(|(one, _)| one.id == entry.id) {
                Some((entry, Ok(venv))) => Ok((entry, venv, Remedy::Rebuild)),
                Some((entry, Err(error))) => {
                    bail!("cannot rebuild {}: {error}; nothing was changed", entry.name)
                }
                None => bail!("{} vanished from the registry", entry.name),
            })
            .collect();
    }
    Ok(healths(guard, survey)?
        .into_iter()
        .filter_map(|((entry, venv), health)| {
            let venv = venv.as_ref().ok().filter(|venv| venv.base.ours)?;
            let remedy = match health.state {
                State::Healthy if entry.anchored.is_some() => Remedy::Rebuild,
                State::Healthy | State::Missing | State::Broken => return None,
                State::RestartNeeded => Remedy::Restart,
                State::Stale => Remedy::Refresh,
                State::Orphaned | State::Stranded => Remedy::Rebuild,
            };
            Some((entry, venv, remedy))
        })
        .collect())
}

pub(super) fn rollback(guard: &Guard, wanted: &str) -> anyhow::Result<Exit> {
    need_root(guard)?;
    let _lock = guard.lock()?;
    let now: Interpreters = guard.interpreters()?;
    let survey = look(guard, &now, false)?;
    let found = chosen(&survey.registry, &[wanted.to_string()])?;
    let [entry] = found.as_slice() else {
        bail!("{wanted:?} stands for {} venvs; one at a time is rolled back", found.len());
    };
    let id = entry.id.clone();
    let services = guard.running_services(&survey, &[&id]).remove(&id).unwrap_or_default();
    let mut registry = survey.registry.clone();
    let Some(entry) = registry.get_mut(&id) else { bail!("{wanted} vanished from the registry") };
    let result = repair::rollback(&guard.context(), entry, &now, &services);
    let entry = entry.clone();
    guard.store.save_registry(&registry)?;
    match result {
        Ok(venv) => {
            let detail = format!("to the tree of before its last rebuild, Python {}", venv.site);
            guard.store.record(&Event::new(&entry.name, entry.path(), "rolled-back", &detail))?;
            guard.report.note(&format!("{}: rolled back {detail}", entry.name));
            if let Some(kept) = &entry.kept {
                guard.report.note(&format!(
                    "what stood there is kept at {}",
                    crate::host::file::printable(kept.path())
                ));
            }
            Ok(Exit::Done)
        }
        Err(error) => {
            guard.report.error(&format!("cannot roll {} back: {error}", entry.name));
            Ok(Exit::Failed)
        }
    }
}
