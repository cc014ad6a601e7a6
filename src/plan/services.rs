//! Selects the services that a remedy restarts.
//!
//! A service that was stopped, has ended, or failed long ago is left so. A service that is failed
//! now may have failed because of the upgrade, unless a record from before the upgrade says
//! otherwise.

use super::{Decision, Facts, Phase, Reason};
use crate::service::{Condition, Service};

/// In a transaction: the services that ran before it, as the gate recorded them, and those that run
/// now.
pub(super) fn of_transaction(decision: &mut Decision, facts: &Facts, made: Phase) {
    decision.were_up = facts.were_up.clone().unwrap_or_default();
    let is_recorded = facts.were_up.is_some() || made == Phase::BeforeDpkg;
    select(decision, facts, |condition| {
        condition.is_restarted() || (!is_recorded && condition.is_brought_back())
    });
}

/// On request: the services that run now, and those that failed.
pub(super) fn of_request(decision: &mut Decision, facts: &Facts) {
    select(decision, facts, Condition::is_brought_back);
}

/// For the hook, which only restarts services that still run old code: the services that run now.
pub(super) fn at_work(decision: &mut Decision, facts: &Facts) {
    select(decision, facts, Condition::is_restarted);
}

fn select(decision: &mut Decision, facts: &Facts, is_meant: impl Fn(&Condition) -> bool) {
    let found = facts.services.iter();
    let meant: Vec<Service> = found
        .clone()
        .filter(|(_, condition)| is_meant(condition))
        .map(|(service, _)| service.clone())
        .collect();
    decision.services = decision.were_up.iter().cloned().chain(meant).collect();
    decision.services.sort();
    decision.services.dedup();
    let left_alone = found.filter_map(|(service, condition)| {
        let why = condition.left_alone.clone().filter(|_| condition.is_at_work())?;
        Some(Reason::LeftAlone { service: service.clone(), why })
    });
    decision.reasons.extend(left_alone);
}
