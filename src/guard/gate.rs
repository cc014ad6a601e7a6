//! `DPkg::Pre-Install-Pkgs`: may this transaction go on?

use std::collections::BTreeMap;

use super::{Guard, GuardError, Survey};
use crate::apt::{Transaction, predict};
use crate::host::file::printable;
use crate::plan::{Effect, Phase, Plan, Remedy, Verdict};
use crate::python::Interpreters;
use crate::repair::{self, Done};
use crate::report;
use crate::service::Service;
use crate::store::{Event, Pending, StoreError, TransactionRecord};
use crate::venv::BaseLink;

impl Guard {
    /// Answers apt's list.
    ///
    /// Two things are done here, while the old interpreter still is there: venvs whose
    /// interpreter goes away move to the one that stays, and those that follow the default
    /// one are pinned to their own minor version until [`Guard::settle`], so that what
    /// starts in the middle of the upgrade runs what it was made for.
    pub(crate) fn gate(&self, transaction: &Transaction) -> Result<Verdict, GuardError> {
        let _lock = self.lock()?;
        let now = self.interpreters()?;
        if self.store.interpreters()?.is_none() {
            self.store.save_interpreters(&now)?;
        }
        let after = predict(&now, &transaction.actions);
        let known = self.store.transaction()?;
        let mut registry = self.registry()?;
        if !transaction.dry_run {
            self.recover(&mut registry, &now);
        }
        let mut survey = self.survey(registry);
        let plan = self.plan(&survey, &now, &after, Phase::BeforeDpkg);
        if plan.changes.is_empty() || plan.notable().next().is_none() {
            return Ok(Verdict::Allow);
        }
        self.report.plan_for_apt(&plan);
        if !transaction.dry_run {
            self.audit(&plan);
        }
        if plan.verdict() == Verdict::Block {
            if !transaction.dry_run {
                self.record_block(&plan)?;
            }
            return Ok(Verdict::Block);
        }
        if transaction.dry_run || plan.verdict() == Verdict::Allow {
            return Ok(plan.verdict());
        }
        let affected: Vec<&str> = plan
            .decisions
            .iter()
            .filter(|decision| decision.remedy != Remedy::None)
            .map(|decision| decision.id.as_str())
            .collect();
        let venvs = affected.iter().filter_map(|id| survey.get(id));
        repair::refresh_recipes(&self.context(), venvs);
        let running = self.services_at_work(&survey, &affected);
        if !self.move_away(&mut survey, &plan, known.as_ref(), &running, &now) {
            return Ok(Verdict::Block);
        }
        self.hold(&mut survey, &plan, running, known)?;
        Ok(Verdict::Repair)
    }

    /// Rebuilds the venvs whose interpreter goes away. Where one fails, the removal is off.
    fn move_away(
        &self,
        survey: &mut Survey,
        plan: &Plan,
        known: Option<&TransactionRecord>,
        running: &BTreeMap<String, Vec<Service>>,
        now: &Interpreters,
    ) -> bool {
        let jobs: Vec<_> = plan
            .decisions
            .iter()
            .filter(|decision| decision.before_dpkg)
            .filter_map(|decision| survey.job(plan, decision, known, running, now))
            .collect();
        if jobs.is_empty() {
            return true;
        }
        let (context, at_once) = (self.context(), self.jobs(None));
        let outcomes = repair::execute(&context, &mut survey.registry, now, jobs, at_once);
        let failed: Vec<&str> = outcomes
            .iter()
            .filter(|outcome| !matches!(outcome.done, Done::Rebuilt { .. }))
            .filter_map(|outcome| Some(survey.registry.get(&outcome.id)?.name.as_str()))
            .collect();
        if !failed.is_empty() {
            self.report.blocked_by_failure(plan, &failed);
        }
        failed.is_empty()
    }

    /// Pins the venvs that the default interpreter will move away from. What is done is
    /// written down first: a run that ends here is put right by `settle`.
    fn hold(
        &self,
        survey: &mut Survey,
        plan: &Plan,
        mut running: BTreeMap<String, Vec<Service>>,
        known: Option<TransactionRecord>,
    ) -> Result<(), StoreError> {
        let mut services = known.map(|record| record.services).unwrap_or_default();
        let mut holds = Vec::new();
        for decision in
            plan.decisions.iter().filter(|one| one.remedy != Remedy::None && !one.before_dpkg)
        {
            let Some((_, venv)) = survey.get(&decision.id) else { continue };
            if decision.effect == Effect::Orphaned && venv.base.link == BaseLink::Followed {
                holds.push((decision.id.clone(), venv.clone()));
            }
            let found = running.remove(&decision.id).unwrap_or_default();
            // The hooks run twice under unattended-upgrades: what the first run knew stays.
            let known = services.entry(decision.id.clone()).or_default();
            known.extend(found.into_iter().filter(|service| self.is_up(service)));
            known.sort();
            known.dedup();
        }
        self.store.mark_pending(&Pending::new("an apt run that changes Python"))?;
        self.store.save_transaction(&TransactionRecord::new(services))?;
        let reason = "for the apt run that is going on";
        let result =
            repair::record_and_pin_all(&self.context(), &mut survey.registry, &holds, reason);
        let complain = |path: &str, error: &dyn std::fmt::Display| {
            self.report.error(&format!("cannot pin {path} for this upgrade: {error}"));
        };
        match result {
            Ok(failed) => {
                for (number, error) in failed {
                    let path = holds.get(number).map(|(_, venv)| printable(&venv.path));
                    complain(&path.unwrap_or_default(), &error);
                }
            }
            Err(error) => complain("the venvs", &error),
        }
        Ok(())
    }

    /// The verdict on each venv that is concerned. One that blocks is told with the history.
    fn audit(&self, plan: &Plan) {
        for decision in plan.notable().filter(|decision| !decision.blocks) {
            let detail = report::decision_in_words(decision);
            self.store.audit(&Event::new(&decision.name, &decision.path, "allowed", detail));
        }
    }

    fn record_block(&self, plan: &Plan) -> Result<(), StoreError> {
        for decision in plan.decisions.iter().filter(|decision| decision.blocks) {
            let detail = decision.reasons.join("; ");
            self.store.record(&Event::new(&decision.name, &decision.path, "blocked", detail))?;
        }
        Ok(())
    }
}
