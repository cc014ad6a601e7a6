//! `rebuild`, `rollback` and `prune`.

use super::arguments::{Rebuild, Rollback};
use super::{Exit, no_venv};
use crate::guard::{Extent, Guard, RebuildRequest, Rebuilt};
use crate::plan::{Decision, Wish};
use crate::report::DecisionsJson;

pub(super) fn rebuild(guard: &Guard, wanted: &Rebuild) -> anyhow::Result<Exit> {
    if wanted.ready {
        let rebuilt = guard.rebuild_ready(wanted.dry_run)?;
        let nothing = "nothing to do: no prepared tree waits for a pinned venv";
        return Ok(conclude(guard, &rebuilt, wanted.dry_run, wanted.json, nothing));
    }
    let extent = match (wanted.dry_run, wanted.prepare) {
        (true, _) => Extent::Decide,
        (false, true) => Extent::Prepare,
        (false, false) => Extent::SwapIn,
    };
    let rebuilt = guard.rebuild(&RebuildRequest {
        venvs: (!wanted.all).then_some(&wanted.venvs),
        wish: Wish { python: wanted.python, relax: wanted.relax },
        extent,
        at_once: wanted.jobs,
    })?;
    if wanted.timings && !rebuilt.times.is_empty() {
        guard.report.timings(&rebuilt.times);
    }
    let nothing = "nothing to do: no venv needs a rebuild, a refresh or a restart";
    Ok(conclude(guard, &rebuilt, wanted.dry_run, wanted.json, nothing))
}

pub(super) fn restart(
    guard: &Guard,
    wanted: Option<&Vec<String>>,
    dry_run: bool,
    json: bool,
) -> anyhow::Result<Exit> {
    let restarted = guard.restart(wanted.map(Vec::as_slice), dry_run)?;
    let nothing = "nothing to do: no process of a venv runs code that was replaced";
    Ok(conclude(guard, &restarted, dry_run, json, nothing))
}

pub(super) fn restart_due(guard: &Guard, dry_run: bool, json: bool) -> anyhow::Result<Exit> {
    let restarted = guard.restart_due(dry_run)?;
    let nothing = "nothing to do: nothing waits for a window that is open";
    Ok(conclude(guard, &restarted, dry_run, json, nothing))
}

fn conclude(guard: &Guard, done: &Rebuilt, dry_run: bool, json: bool, nothing: &str) -> Exit {
    if dry_run {
        print_decisions(guard, &done.decisions, json);
    }
    if done.decisions.is_empty() && !done.needs_attention && !json {
        if done.is_any_registered {
            guard.report.note(nothing);
        } else {
            no_venv(guard);
        }
    }
    match (done.has_failed, done.needs_attention) {
        (true, _) => Exit::Failed,
        (false, true) => Exit::Attention,
        (false, false) => Exit::Done,
    }
}

pub(super) fn rollback(guard: &Guard, wanted: &Rollback) -> anyhow::Result<Exit> {
    let Rollback { venv, to, dry_run, json } = wanted;
    let rolled_back = guard.rollback(venv, to.as_deref(), *dry_run)?;
    if *dry_run {
        print_decisions(guard, &[rolled_back.decision], *json);
    }
    Ok(if rolled_back.has_failed { Exit::Failed } else { Exit::Done })
}

fn print_decisions(guard: &Guard, decisions: &[Decision], json: bool) {
    if json {
        guard.report.json(&DecisionsJson::new(decisions));
    } else {
        for decision in decisions {
            guard.report.planned(decision);
        }
    }
}

pub(super) fn prune(guard: &Guard, wanted: &[String]) -> anyhow::Result<Exit> {
    Ok(if guard.prune_as_asked(wanted)? { Exit::Done } else { Exit::Failed })
}
