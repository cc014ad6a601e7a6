//! Selects the services that a remedy restarts.
//!
//! A service that was stopped, has ended, or failed long ago is left so. A service that is failed
//! now may have failed because of the upgrade, unless a record from before the upgrade says
//! otherwise.

use super::{Decision, Facts, Phase, Reason, Remedy, RestartMode, Restraint, Subject};
use crate::service::{Condition, Service};

/// How many services that do not run are named, and how many units of users.
const NAMED: usize = 5;

/// In a transaction: the services that ran before it, as the gate recorded them, and those that run
/// now.
pub(super) fn of_transaction(
    decision: &mut Decision,
    subject: &Subject,
    facts: &Facts,
    made: Phase,
) {
    decision.were_up = facts.were_up.clone().unwrap_or_default();
    decision.check_before.clone_from(&facts.check_before);
    let is_recorded = facts.were_up.is_some() || made == Phase::BeforeDpkg;
    select(decision, facts, |condition| {
        condition.is_restarted() || (!is_recorded && condition.is_brought_back())
    });
    restrain(decision, subject, facts);
    name_units_of_users(decision, facts, subject.restart == RestartMode::Now);
}

/// On request: the services that run now, and those that failed.
pub(super) fn of_request(decision: &mut Decision, facts: &Facts) {
    select(decision, facts, Condition::is_brought_back);
    name_units_of_users(decision, facts, true);
}

/// Units of users are restarted after the repair, if they run old code then.
fn name_units_of_users(decision: &mut Decision, facts: &Facts, unasked: bool) {
    let keeps =
        matches!(decision.remedy, Remedy::Pin { outdated: false, .. } | Remedy::Restore { .. });
    let restarts = unasked && !keeps && !facts.is_shutting_down;
    let named = facts.units_of_users.iter().take(NAMED).cloned();
    decision.reasons.extend(named.map(|(user, unit)| Reason::UnitOfUser { user, unit, restarts }));
}

/// For the hook, which only restarts services that still run old code: the services that run now.
pub(super) fn at_work(decision: &mut Decision, subject: &Subject, facts: &Facts) {
    select(decision, facts, Condition::is_restarted);
    restrain(decision, subject, facts);
}

/// Whether a running service is not restarted, so that a rebuild would swap the venv under it.
pub(super) fn keep_from_swapping(subject: &Subject, facts: &Facts) -> bool {
    let waits = |(_, restraint): (&Service, Restraint)| restraint != Restraint::ShuttingDown;
    // A oneshot that has ended runs nothing.
    let runs_on = |(_, condition): &(Service, Condition)| {
        condition.left_alone.is_some() && condition.is_at_work() && !condition.done
    };
    restrained(subject, facts).any(waits)
        || !facts.is_shutting_down && facts.services.iter().any(runs_on)
}

/// The running services that are not restarted unasked.
fn restrained<'a>(
    subject: &'a Subject,
    facts: &'a Facts,
) -> impl Iterator<Item = (&'a Service, Restraint)> {
    let running = facts.services.iter().filter(|(_, condition)| condition.is_restarted());
    running.filter_map(|(service, _)| {
        let of_machine = facts.restrained.get(service).cloned().map(Restraint::Machine);
        let restraint = match subject.restart {
            _ if facts.is_shutting_down => Restraint::ShuttingDown,
            RestartMode::List => Restraint::Listed,
            RestartMode::Never => Restraint::Never,
            RestartMode::Now | RestartMode::Window => match &subject.waits_for {
                Some(window) => Restraint::Window(window.clone()),
                None => of_machine?,
            },
        };
        Some((service, restraint))
    })
}

fn restrain(decision: &mut Decision, subject: &Subject, facts: &Facts) {
    for (service, restraint) in restrained(subject, facts) {
        decision.services.retain(|one| one != service);
        decision.were_up.retain(|one| one != service);
        let service = service.clone();
        decision.reasons.push(Reason::NotUnasked { service, restraint });
    }
    if facts.is_shutting_down {
        // The shutdown has stopped these already.
        decision.were_up.clear();
        let down = std::mem::take(&mut decision.services).into_iter();
        decision.reasons.extend(
            down.map(|service| Reason::NotUnasked { service, restraint: Restraint::ShuttingDown }),
        );
    }
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
    let left_alone = found.clone().filter_map(|(service, condition)| {
        let why = condition.left_alone.clone().filter(|_| condition.is_at_work())?;
        Some(Reason::LeftAlone { service: service.clone(), why })
    });
    decision.reasons.extend(left_alone);
    if decision.services.is_empty() {
        let at_rest = found.filter(|(_, condition)| !condition.is_at_work());
        let at_rest = at_rest.map(|(service, _)| Reason::AtRest(service.clone()));
        decision.reasons.extend(at_rest.take(NAMED));
    }
}
