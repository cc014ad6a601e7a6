//! `plan`: the decision, before anything happens.

use std::path::Path;

use super::Exit;
use crate::guard::Guard;
use crate::plan::Verdict;
use crate::report::PlanJson;

pub(super) fn plan(guard: &Guard, from: Option<&Path>, json: bool) -> anyhow::Result<Exit> {
    let foreseen = guard.foresee(from)?;
    let plan = &foreseen.plan;
    if json {
        guard.report.json(&PlanJson::from(plan));
    } else {
        guard.report.plan(plan, |decision| foreseen.additions(decision));
    }
    Ok(if plan.verdict() == Verdict::Block { Exit::Attention } else { Exit::Done })
}
