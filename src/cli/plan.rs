//! `plan`: the decision, before anything happens.

use std::path::Path;

use anyhow::Context as _;

use super::Exit;
use crate::apt::{Transaction, pending_upgrade, predict};
use crate::guard::Guard;
use crate::host::file::{open_untrusted, printable};
use crate::plan::{Phase, Verdict};
use crate::repair;
use crate::report::PlanJson;

pub(super) fn plan(guard: &Guard, from: Option<&Path>, json: bool) -> anyhow::Result<Exit> {
    let actions = if let Some(path) = from {
        let list = open_untrusted(path)?;
        Transaction::read(list).with_context(|| format!("cannot read {}", printable(path)))?.actions
    } else {
        pending_upgrade().context("cannot simulate the pending upgrade")?
    };
    let now = guard.interpreters()?;
    let after = predict(&now, &actions);
    let inventory = guard.inventory()?;
    let known = guard.store.transaction()?;
    let plan = guard.propose_upgrade(&inventory, &now, &after, Phase::BeforeDpkg, known.as_ref());
    if json {
        guard.report.json(&PlanJson::from(&plan));
    } else {
        guard.report.plan(&plan, |decision| {
            let (_, venv) = inventory.get(&decision.id)?;
            decision.target()?;
            repair::additions(&guard.context(), venv).ok()
        });
    }
    Ok(if plan.verdict() == Verdict::Block { Exit::Attention } else { Exit::Done })
}
