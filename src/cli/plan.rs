//! `plan`: the decisions about the pending upgrade.

use std::path::Path;

use super::Exit;
use crate::apt::Lists;
use crate::guard::Guard;
use crate::plan::{Decision, Verdict};
use crate::report::PlanJson;

pub(super) fn plan(guard: &Guard, from: Option<&Path>, json: bool) -> anyhow::Result<Exit> {
    let foreseen = guard.foresee(from)?;
    let plan = &foreseen.plan;
    if foreseen.lists == Some(Lists::Empty) {
        guard.report.error("apt has no package lists, so the pending upgrade is unknown");
        guard.report.hint("apt update && venvguard plan");
        if json {
            guard.report.json(&PlanJson::from(plan));
        }
        return Ok(Exit::Attention);
    }
    if json {
        guard.report.json(&PlanJson::from(plan));
    } else {
        guard.report.plan(plan, |decision| foreseen.additions(decision));
    }
    let days = foreseen.lists.and_then(Lists::days_too_old);
    if let Some(days) = days {
        guard.report.note(&format!(
            "apt's package lists are {days} days old: an upgrade may change more than this"
        ));
        guard.report.hint("apt update && venvguard plan");
    }
    let is_unknown = days.is_some() && plan.changes.is_empty();
    let is_ready = plan.decisions.iter().all(Decision::ready);
    let needs_attention = is_unknown || !is_ready || plan.verdict() == Verdict::Block;
    Ok(if needs_attention { Exit::Attention } else { Exit::Done })
}
