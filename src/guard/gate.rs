//! `DPkg::Pre-Install-Pkgs`: decides whether a transaction may go on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::consent::Wish;
use super::{Guard, GuardError};
use crate::apt::{RemovedLibraries, Transaction, predict};
use crate::host::clock::Deadline;
use crate::host::file::printable;
use crate::host::parallel;
use crate::inventory::Inventory;
use crate::plan::{
    Checked, Consent, Decision, Mode, Occasion, Phase, Plan, Reason, Until, Verdict,
};
use crate::python::Interpreters;
use crate::repair::{self, Done, Job};
use crate::report;
use crate::service::{self, Condition, Service};
use crate::store::{Event, Pending, Registry, StoreError, TransactionRecord};

/// An apt run that waits for an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AptRun<'a> {
    pub(crate) transaction: &'a Transaction,
    pub(crate) removed: &'a RemovedLibraries,
    /// What apt printed about it.
    pub(crate) list: &'a [u8],
}

/// How the gate ends.
enum Gate {
    Answer(Verdict),
    /// A rehearsal may change the plan.
    Rehearse,
    /// Somebody must agree with the plan first.
    Ask(Plan),
}

/// How long a rehearsal may take that somebody asks for.
const LONG: Duration = Duration::from_secs(3600);

impl Guard {
    /// Answers apt's list.
    ///
    /// Does two things while the old interpreter is still installed: moves venvs whose interpreter
    /// is removed to the one that stays, and pins venvs that follow the default one to their own
    /// minor version until [`Guard::settle`], so that programs that start in the middle of the
    /// upgrade run the right interpreter.
    ///
    /// Nobody has to wait while a person thinks: the question is asked without the lock. If the plan
    /// has changed meanwhile, it is asked again. The rehearsal, too, is a process with its own lock.
    pub(crate) fn gate(&self, run: AptRun) -> Result<Verdict, GuardError> {
        let occasion = self.occasion(run.transaction);
        let mut limit = self.rehearsal_limit(occasion);
        let mut agreed = None;
        loop {
            let rehearses = !limit.is_zero();
            match self.gate_unless_asked(run, occasion, rehearses, agreed.as_ref())? {
                Gate::Answer(verdict) => return Ok(verdict),
                Gate::Rehearse => {
                    let is_attended = occasion.is_attended;
                    self.rehearse_beforehand(run.list, false, limit, is_attended);
                    limit = Duration::ZERO;
                }
                Gate::Ask(plan) => match self.ask(&plan) {
                    Wish::Continue => agreed = Some(plan),
                    // Whatever it finds, the question is asked again.
                    Wish::Rehearse => {
                        self.rehearse_beforehand(run.list, true, LONG, true);
                    }
                    Wish::Stop(why) => {
                        self.record_refusal(&plan, why);
                        return Ok(Verdict::Block);
                    }
                },
            }
        }
    }

    /// Answers apt's list, or returns the plan that somebody must agree with first, unless it is the
    /// one that was `agreed`. `rehearses`: what is not known may be found out first.
    fn gate_unless_asked(
        &self,
        run: AptRun,
        occasion: Occasion,
        rehearses: bool,
        agreed: Option<&Plan>,
    ) -> Result<Gate, GuardError> {
        let AptRun { transaction, removed, .. } = run;
        let _lock = self.lock_before_dpkg()?;
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
        let inventory = self.inventory_of(registry);
        let plan = self.propose_before_dpkg(
            &inventory,
            (&now, &after),
            &transaction.actions,
            removed,
            known.as_ref(),
        );
        if plan.notable().next().is_none() {
            return Ok(Gate::Answer(Verdict::Allow));
        }
        if rehearses && !transaction.dry_run && self.is_to_be_rehearsed(&inventory, &now, &after) {
            return Ok(Gate::Rehearse);
        }
        let is_agreed = agreed == Some(&plan);
        let consent = if is_agreed { plan.in_spite_of_a_block() } else { plan.consent(occasion) };
        let Consent::Given { verdict, overrides } = consent else { return Ok(Gate::Ask(plan)) };
        if !is_agreed {
            self.report.plan_for_apt(&plan, verdict, overrides);
        }
        if transaction.dry_run {
            return Ok(Gate::Answer(verdict));
        }
        self.audit(&plan);
        match verdict {
            Verdict::Block if plan.verdict() == Verdict::Block => self.record_block(&plan),
            Verdict::Block => self.record_refusal(&plan, "the mode is \"block\""),
            Verdict::Allow | Verdict::Repair if overrides => self.record_overridden(&plan),
            _ => {}
        }
        Ok(Gate::Answer(match verdict {
            Verdict::Repair => {
                let verdict =
                    self.prepare_for_dpkg(inventory, &plan, known, &now, occasion.mode)?;
                if transaction.removed.contains("venvguard") {
                    self.report_pins_that_stay(&plan);
                }
                verdict
            }
            Verdict::Allow | Verdict::Block => verdict,
        }))
    }

    /// Carries out what must precede dpkg.
    fn prepare_for_dpkg(
        &self,
        mut inventory: Inventory,
        plan: &Plan,
        known: Option<TransactionRecord>,
        now: &Interpreters,
        mode: Mode,
    ) -> Result<Verdict, GuardError> {
        let acting = plan.decisions.iter().filter(|decision| decision.acts());
        let venvs = acting.filter_map(|decision| inventory.get(&decision.id));
        repair::refresh_recipes(&self.context(), venvs);
        let left = self.move_away(&mut inventory, plan, now);
        if !left.is_empty() {
            let blocks = mode != Mode::Allow;
            self.record_not_moved(plan, &left, blocks);
            if blocks {
                return Ok(Verdict::Block);
            }
        }
        self.pin_during_dpkg(&mut inventory, plan, known)?;
        Ok(Verdict::Repair)
    }

    /// Rebuilds the venvs whose interpreter is removed. Returns the ids of those that failed.
    fn move_away(&self, inventory: &mut Inventory, plan: &Plan, now: &Interpreters) -> Vec<String> {
        let before_dpkg = plan.decisions.iter().filter(|one| one.phase == Phase::BeforeDpkg);
        let jobs = Job::all(inventory.present(), before_dpkg);
        if jobs.is_empty() {
            return Vec::new();
        }
        let (context, at_once) = (self.context(), self.config.at_once(None));
        let outcomes = repair::execute(&context, &mut inventory.registry, now, &jobs, at_once);
        let failed = outcomes.into_iter().filter(|one| !matches!(one.done, Done::Rebuilt { .. }));
        failed.map(|outcome| outcome.id).collect()
    }

    /// Reports and records the venvs that cannot be moved to another interpreter.
    fn record_not_moved(&self, plan: &Plan, left: &[String], blocks: bool) {
        self.report.not_moved(plan, left, blocks);
        for decision in plan.decisions.iter().filter(|one| left.contains(&one.id)) {
            let detail = "cannot move it to the interpreter that stays";
            if blocks {
                self.record_blocked(decision, detail.into());
            } else {
                self.record_override(decision, detail);
            }
        }
    }

    /// Pins the venvs that the default interpreter will move away from. Writes the record first, so
    /// that `settle` can finish a run that is killed here.
    fn pin_during_dpkg(
        &self,
        inventory: &mut Inventory,
        plan: &Plan,
        known: Option<TransactionRecord>,
    ) -> Result<(), StoreError> {
        let (mut services, checks) =
            known.map(|record| (record.services, record.checks)).unwrap_or_default();
        let checks = self.checks(inventory, plan, checks);
        let later = plan.decisions.iter().filter(|one| one.phase == Phase::AfterDpkg);
        let later: Vec<&Decision> = later.filter(|one| one.acts()).collect();
        let up = self.that_are_up(later.iter().flat_map(|one| services_of(one)));
        for decision in later {
            let up = services_of(decision).filter(|service| up.contains(service)).cloned();
            // The hooks run twice under unattended-upgrades: keep what the first run recorded.
            let known = services.entry(decision.id.clone()).or_default();
            known.extend(up);
            known.sort();
            known.dedup();
        }
        let pinned: Vec<_> = plan
            .decisions
            .iter()
            .filter(|decision| decision.pin_during_dpkg)
            .filter_map(|one| Some((one.id.clone(), inventory.get(&one.id)?.1.clone())))
            .collect();
        self.store.mark_pending(&Pending::new("an apt run that changes Python"))?;
        self.store.save_transaction(&TransactionRecord::new(services, checks))?;
        let complain = |path: &str, error: &dyn std::fmt::Display| {
            self.report.error(&format!("cannot pin {path} for this upgrade, so programs that start before its end may fail: {error}"));
        };
        let registry: &mut Registry = &mut inventory.registry;
        let until = Until::Transaction;
        match repair::record_and_pin_all(&self.context(), registry, &pinned, until, None) {
            Ok(failed) => {
                for (number, error) in failed {
                    let path = pinned.get(number).map(|(_, venv)| printable(&venv.path));
                    complain(&path.unwrap_or_default(), &error);
                }
            }
            Err(error) => complain("the venvs", &error),
        }
        Ok(())
    }

    /// Reports the venvs that nobody unpins or rebuilds after this run, because it removes venvguard.
    fn report_pins_that_stay(&self, plan: &Plan) {
        let pinned = plan.decisions.iter().filter(|decision| decision.pin_during_dpkg);
        let names: Vec<&str> = pinned.map(|decision| decision.name.as_str()).collect();
        if !names.is_empty() {
            self.report.note(&format!(
                "this run removes venvguard, so these venvs stay pinned to the old Python: {}; keep that Python installed (`apt-mark manual`), or create the venvs again",
                names.join(", ")
            ));
        }
    }

    /// The results of the checks before dpkg runs, of the venvs whose checks are run after it. The
    /// hooks run twice under unattended-upgrades: what the first run recorded is kept.
    fn checks(
        &self,
        inventory: &Inventory,
        plan: &Plan,
        known: BTreeMap<String, Checked>,
    ) -> BTreeMap<String, Checked> {
        let acting = plan.decisions.iter().filter(|one| one.phase == Phase::AfterDpkg);
        let unknown = acting
            .filter(|one| one.acts() && !one.leaves_services_running())
            .filter(|one| !known.contains_key(&one.id))
            .filter_map(|one| inventory.get(&one.id))
            .filter(|(entry, _)| !entry.check.is_empty());
        let context = self.context();
        let found = parallel::map(unknown, self.config.at_once(None), |(entry, venv)| {
            let checked = repair::check_once(&context, entry, venv);
            (entry.id.clone(), checked.map_or_else(Checked::Failed, |()| Checked::Passed))
        });
        known.into_iter().chain(found).collect()
    }

    /// Those of some services that are up.
    fn that_are_up<'a>(&self, services: impl Iterator<Item = &'a Service>) -> BTreeSet<Service> {
        let services: Vec<Service> = services.cloned().collect();
        let found = service::conditions(&self.root, &services, Deadline::never());
        let is_up = |(service, found): (Service, Result<Condition, _>)| {
            found.is_ok_and(|found| found.up).then_some(service)
        };
        found.into_iter().filter_map(is_up).collect()
    }

    /// Audits the verdict on each affected venv. A venv that blocks goes to the history instead.
    fn audit(&self, plan: &Plan) {
        for decision in plan.notable().filter(|decision| !decision.blocks) {
            let detail = report::decision_in_words(decision);
            self.store.audit(&Event::new(&decision.name, &decision.path.0, "allowed", detail));
        }
    }

    fn record_block(&self, plan: &Plan) {
        for decision in plan.decisions.iter().filter(|decision| decision.blocks) {
            self.record_blocked(decision, report::reasons_in_words(decision).join("; "));
        }
    }

    /// Records that nobody agreed with the plan.
    fn record_refusal(&self, plan: &Plan, why: &str) {
        for decision in plan.notable() {
            self.record_blocked(decision, why.into());
        }
    }

    /// Records that the upgrade is allowed although venvs block it.
    fn record_overridden(&self, plan: &Plan) {
        for decision in plan.decisions.iter().filter(|decision| decision.blocks) {
            self.record_override(decision, &report::reasons_in_words(decision).join("; "));
        }
    }

    fn record_override(&self, decision: &Decision, because: &str) {
        let detail = format!("although this venv blocks it: {because}");
        let event = Event::new(&decision.name, &decision.path.0, "allowed", detail);
        if let Err(error) = self.store.record(&event.of(decision)) {
            self.report.error(&format!("cannot record this in the history: {error}"));
        }
    }

    /// Records a block. It remains a block if it cannot be recorded.
    fn record_blocked(&self, decision: &Decision, detail: String) {
        let event = Event::new(&decision.name, &decision.path.0, "blocked", detail);
        if let Err(error) = self.store.record(&event.of(decision)) {
            self.report.error(&format!("cannot record this block in the history: {error}"));
        }
    }
}

/// The services of a venv that are restarted, and those that are left running.
fn services_of(decision: &Decision) -> impl Iterator<Item = &Service> {
    let left_running = decision.reasons.iter().filter_map(|reason| match reason {
        Reason::NotUnasked { service, .. } => Some(service),
        _ => None,
    });
    decision.services.iter().chain(left_running)
}
