//! Decides how to repair a venv that is not healthy, and what to do on request.

use super::upgrade::{fallback, named_in, not_ready};
use super::{
    Adjust, Decision, Effect, Facts, Fallback, Phase, Policy, Questions, Readiness, Reason, Remedy,
    State, Subject, Target, Until, services,
};
use crate::host::path_text::PathText;
use crate::host::tree::Identity;
use crate::python::{Interpreters, Minor};
use crate::venv::{Relax, Venv};

/// Who repairs venvs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RepairFor {
    /// A person who asks for it: services that failed are brought back, too.
    Person,
    /// The hook, after a transaction: only restarts services that still run old code.
    Hook,
    /// The forecast: only rebuilds venvs that are pinned because they were not ready, unless a
    /// service would keep running the old tree.
    Forecast,
}

/// How somebody wants venvs to be rebuilt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) python: Option<Minor>,
    pub(crate) relax: Option<Relax>,
}

/// The request of a person.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Request<'a> {
    Rebuild(Wish),
    /// Restart the services.
    Restart,
    /// Restore a previous environment, as it lies beside the venv.
    Restore {
        tree: &'a Venv,
        identity: Identity,
        followed: bool,
    },
}

/// The questions that a repair asks about a venv in this state.
pub(crate) fn questions_of_repair(subject: &Subject, state: State, whom: RepairFor) -> Questions {
    let kind = mends(subject, state, whom);
    Questions { readiness: kind == Some(Mends::Rebuild), services: kind.is_some() }
}

/// Decides how to repair a venv in this state; `None` if it is healthy, or must be left alone.
pub(crate) fn repair(
    subject: &Subject,
    state: State,
    facts: &Facts,
    now: &Interpreters,
    wish: Wish,
    whom: RepairFor,
) -> Option<Decision> {
    let kind = mends(subject, state, whom)?;
    let effect = match state {
        State::Healthy | State::CheckFails | State::Unfinished | State::Missing | State::Broken => {
            Effect::None
        }
        State::RestartNeeded => Effect::RestartOnly,
        State::Stale => Effect::Stale,
        State::Orphaned => Effect::Orphaned,
        State::Stranded => Effect::Stranded,
    };
    let mut decision = Decision { effect, ..subject.undecided() };
    match kind {
        Mends::Restart => decision.remedy = Remedy::Restart,
        Mends::Refresh => decision.remedy = Remedy::Refresh,
        Mends::Pin => {
            let (to, until) = (subject.venv.site, Until::Policy);
            decision.remedy = Remedy::Pin { to, until, outdated: false };
        }
        Mends::Rebuild => rebuild(&mut decision, subject, facts, now, wish),
    }
    match whom {
        RepairFor::Person => services::of_request(&mut decision, facts),
        RepairFor::Hook => services::at_work(&mut decision, subject, facts),
        RepairFor::Forecast => {
            services::at_work(&mut decision, subject, facts);
            let is_kept = services::keep_from_swapping(subject, facts) || facts.is_shutting_down;
            if is_kept && !decision.waits() {
                return None;
            }
        }
    }
    Some(decision)
}

/// Decides about a request.
pub(crate) fn request(
    subject: &Subject,
    request: Request,
    facts: &Facts,
    now: &Interpreters,
) -> Decision {
    let mut decision = subject.undecided();
    match request {
        Request::Rebuild(_) if !subject.venv.base.is_debian => {
            decision.remedy = Remedy::Impossible;
            decision.reasons.push(Reason::NotDebian(subject.venv.base.path.as_path().into()));
        }
        Request::Rebuild(wish) => rebuild(&mut decision, subject, facts, now, wish),
        Request::Restart => decision.remedy = Remedy::Restart,
        Request::Restore { tree, identity, followed } => {
            let adjust = match fallback(tree, followed, now) {
                Some(Fallback::Pin) => Adjust::Pin,
                Some(Fallback::Refresh) => Adjust::Refresh,
                None if followed => Adjust::Unpin,
                None => Adjust::Nothing,
            };
            let (minor, tree) = (tree.site, PathText(tree.path.clone()));
            decision.reasons.extend(embedded_in(facts, minor, now));
            decision.follows = followed;
            decision.remedy = Remedy::Restore { tree, identity, minor, adjust };
        }
    }
    services::of_request(&mut decision, facts);
    decision
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mends {
    Restart,
    Refresh,
    Pin,
    Rebuild,
}

fn mends(subject: &Subject, state: State, whom: RepairFor) -> Option<Mends> {
    let stays = subject.policy == Policy::Pin;
    if !subject.venv.base.is_debian || subject.policy == Policy::Ignore {
        return None;
    }
    match whom {
        RepairFor::Person => {}
        RepairFor::Hook => {
            let is_meant = state == State::RestartNeeded && subject.policy.acts();
            return is_meant.then_some(Mends::Restart);
        }
        RepairFor::Forecast => {
            let is_meant = state == State::Healthy
                && subject.pin == Some(Until::Rebuilt)
                && subject.policy.may_rebuild();
            return is_meant.then_some(Mends::Rebuild);
        }
    }
    match state {
        State::Healthy | State::CheckFails if subject.pin.is_some() && !stays => {
            Some(Mends::Rebuild)
        }
        State::Healthy | State::CheckFails | State::Unfinished | State::Missing | State::Broken => {
            None
        }
        State::RestartNeeded => Some(Mends::Restart),
        State::Stale => Some(Mends::Refresh),
        State::Orphaned if stays => Some(Mends::Pin),
        State::Orphaned | State::Stranded => Some(Mends::Rebuild),
    }
}

/// The program of Debian that runs the code of a tree for `site` on another minor version.
fn embedded_in(facts: &Facts, site: Minor, now: &Interpreters) -> Option<Reason> {
    let embedding = facts.embedded_in.as_ref()?;
    let runs = embedding.module.or(now.default);
    (runs != Some(site)).then(|| Reason::EmbeddedIn(embedding.program.as_path().into()))
}

/// The program of Debian whose module is for the minor version of a venv still: a tree for another
/// one would be of no use to it.
fn embedded_on(facts: &Facts, site: Minor, target: Target) -> Option<Reason> {
    let embedding = facts.embedded_in.as_ref()?;
    let program = embedding.program.as_path().into();
    let is_left = embedding.module == Some(site) && target.minor != site;
    is_left.then_some(Reason::EmbeddedOn { program, minor: site })
}

fn rebuild(
    decision: &mut Decision,
    subject: &Subject,
    facts: &Facts,
    now: &Interpreters,
    wish: Wish,
) {
    let venv = &subject.venv;
    let target = Target::asked_for(venv, decision.follows, now, wish.python);
    if let Some(reason) = target.and_then(|target| embedded_on(facts, venv.site, target)) {
        decision.reasons.push(reason);
        decision.remedy = Remedy::Impossible;
        return;
    }
    decision.remedy = match (target, &facts.readiness) {
        (
            Some(target),
            None | Some(Readiness::Ready | Readiness::Resolved | Readiness::Rehearsed),
        ) => {
            decision.reasons.extend(named_in(venv, target, facts));
            decision.reasons.extend(embedded_in(facts, venv.site, now));
            Remedy::Rebuild { target, relax: wish.relax }
        }
        (_, Some(Readiness::NotReady(findings))) => {
            decision.reasons.extend(not_ready(findings));
            Remedy::Impossible
        }
        (None, _) => {
            decision.reasons.push(Reason::NoOtherInterpreter);
            Remedy::Impossible
        }
    };
    debug_assert_eq!(decision.phase, Phase::Now);
}

#[cfg(test)]
mod tests {
    use super::super::RestartMode;
    use super::super::samples::subject;
    use super::*;
    use crate::apt::samples::system;
    use crate::service::{Condition, Embedding, Service};
    use crate::venv::BaseLink;

    const OLD: Minor = Minor::new(3, 11);
    const NEW: Minor = Minor::new(3, 13);

    /// The program of Debian, with a module for this minor version.
    fn apache(module: Option<Minor>) -> Facts {
        let embedding = Embedding { program: "/usr/sbin/apache2".into(), module };
        Facts { embedded_in: Some(embedding), ..Facts::default() }
    }

    fn embedded_in_apache() -> Reason {
        Reason::EmbeddedIn(PathText("/usr/sbin/apache2".into()))
    }

    #[test]
    fn a_rebuild_knows_that_the_old_tree_would_be_of_no_use_to_a_program_of_debian() {
        let decision = |site: Minor, module| {
            let (subject, wish) =
                (subject(BaseLink::Followed, site), Request::Rebuild(Wish::default()));
            request(&subject, wish, &apache(module), &system(&["3.13.5-2", "3.11.2-6"]))
        };
        for module in [None, Some(NEW)] {
            assert_eq!(decision(OLD, module).reasons, [embedded_in_apache()]);
            assert_eq!(decision(NEW, module).reasons, []);
        }
        let left = decision(OLD, Some(OLD));
        let program = PathText("/usr/sbin/apache2".into());
        assert_eq!(left.reasons, [Reason::EmbeddedOn { program, minor: OLD }]);
        assert_eq!(left.remedy, Remedy::Impossible);
    }

    #[test]
    fn a_forecast_moves_only_what_is_pinned_until_it_is_ready() {
        let now = system(&["3.13.5-2", "3.11.2-6"]);
        let decide = |change: &dyn Fn(&mut Subject), state, facts: &Facts| {
            let mut subject = subject(BaseLink::Pinned, OLD);
            subject.pin = Some(Until::Rebuilt);
            change(&mut subject);
            repair(&subject, state, facts, &now, Wish::default(), RepairFor::Forecast)
        };
        let decision = decide(&|_| {}, State::Healthy, &Facts::default()).unwrap();
        assert_eq!(decision.target().map(|target| target.minor), Some(NEW));
        let left = |change: &dyn Fn(&mut Subject)| {
            assert_eq!(decide(change, State::Healthy, &Facts::default()), None);
        };
        left(&|one| one.pin = None);
        left(&|one| one.policy = Policy::Pin);
        left(&|one| one.policy = Policy::Warn);
        for until in [Until::Transaction, Until::RebuiltByHand, Until::Policy, Until::Asked] {
            left(&|one| one.pin = Some(until));
        }
        assert_eq!(decide(&|_| {}, State::CheckFails, &Facts::default()), None);
    }

    #[test]
    fn a_forecast_swaps_nothing_under_a_service_that_is_not_restarted() {
        let now = system(&["3.13.5-2", "3.11.2-6"]);
        let service: Service = "systemd:shop.service".parse().unwrap();
        let running = Condition {
            up: true,
            done: false,
            at_rest: false,
            failed: false,
            left_alone: None,
            state: "active".into(),
            main_pid: None,
            restarts: 0,
        };
        let mut facts = Facts { services: vec![(service, running)], ..Facts::default() };
        let decide = |facts: &Facts, restart, waits_for: Option<&str>| {
            let waits_for = waits_for.map(Into::into);
            let pin = Some(Until::Rebuilt);
            let subject = Subject { restart, waits_for, pin, ..subject(BaseLink::Pinned, OLD) };
            let wish = Wish::default();
            repair(&subject, State::Healthy, facts, &now, wish, RepairFor::Forecast)
        };
        assert_eq!(decide(&facts, RestartMode::Now, None).unwrap().services.len(), 1);
        let waiting = decide(&facts, RestartMode::Window, Some("Sun 03:00..05:00")).unwrap();
        assert!(waiting.waits(), "its tree is prepared, and swapped in later");
        for mode in [RestartMode::List, RestartMode::Never] {
            assert_eq!(decide(&facts, mode, None), None);
        }
        facts.is_shutting_down = true;
        assert_eq!(decide(&facts, RestartMode::Now, None), None);
    }

    #[test]
    fn a_rollback_names_the_program_of_debian_that_runs_the_code_on_another_python() {
        let reasons = |site: Minor, facts: &Facts| {
            let now = subject(BaseLink::Followed, NEW);
            let tree = subject(BaseLink::Followed, site).venv;
            let restore = Request::Restore { tree: &tree, identity: (1, 2), followed: true };
            request(&now, restore, facts, &system(&["3.13.5-2", "3.11.2-6"])).reasons
        };
        assert_eq!(reasons(OLD, &apache(None)), [embedded_in_apache()]);
        assert_eq!(reasons(NEW, &apache(None)), [], "it runs that version");
        assert_eq!(reasons(OLD, &apache(Some(OLD))), [], "it runs that version still");
        assert_eq!(reasons(OLD, &Facts::default()), []);
    }
}
