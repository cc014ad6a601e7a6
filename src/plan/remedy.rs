//! From effects, readiness and policy to decisions.

use crate::python::Interpreters;

use super::{Assessment, Decision, Effect, Policy, Remedy, State, Subject, health};
use crate::apt::{Change, ChangeKind};
use crate::venv::{BaseLink, Flavour, Venv};

/// When the decision is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// dpkg has not run: `after` is a prediction, and the transaction can still be blocked.
    BeforeDpkg,
    /// dpkg has run: `after` is what is there.
    AfterDpkg,
}

/// Whether a venv could be rebuilt for the default interpreter of `after`: its recipe is
/// complete and there is an engine to install it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    /// Why not.
    NotReady(Vec<String>),
}

/// Decides about one venv.
pub(crate) fn decide(
    subject: &Subject,
    assessment: Assessment,
    readiness: &Readiness,
    before: &Interpreters,
    after: &Interpreters,
    phase: Phase,
) -> Decision {
    let Assessment { effect, change, reasons } = assessment;
    let mut decision = Decision {
        id: subject.id.clone(),
        name: subject.name.clone(),
        path: subject.venv.path.clone(),
        policy: subject.policy,
        effect,
        change,
        remedy: Remedy::None,
        before_dpkg: false,
        blocks: false,
        reasons,
    };
    if effect == Effect::None || matches!(subject.policy, Policy::Warn | Policy::Ignore) {
        return decision;
    }
    if subject.policy == Policy::Block && phase == Phase::BeforeDpkg {
        decision.blocks = true;
        decision.reasons.push("its policy is \"block\"".into());
        return decision;
    }
    match effect {
        Effect::None => {}
        Effect::RestartOnly if is_noted_by_uv(&subject.venv, decision.change.as_ref()) => {
            decision.remedy = Remedy::Refresh;
            decision.reasons.push(
                "uv makes a venv anew whose pyvenv.cfg names another version than its interpreter's"
                    .into(),
            );
        }
        Effect::RestartOnly => decision.remedy = Remedy::Restart,
        Effect::Stale if subject.policy == Policy::Rebuild && *readiness == Readiness::Ready => {
            decision.remedy = Remedy::Rebuild;
        }
        Effect::Stale => decision.remedy = Remedy::Refresh,
        Effect::Orphaned => orphaned(&mut decision, subject, readiness, after, phase),
        Effect::Stranded => stranded(&mut decision, readiness, before, after, phase),
    }
    decision
}

/// What makes a venv work that was not rebuilt. `follows`, if it belongs on the default
/// interpreter, though it may be pinned now.
pub(crate) fn fallback(venv: &Venv, follows: bool, now: &Interpreters) -> Option<Remedy> {
    let stays = now.get(venv.site).is_some();
    match venv.base.link {
        BaseLink::Followed | BaseLink::Pinned
            if follows && stays && now.default != Some(venv.site) =>
        {
            Some(Remedy::Pin)
        }
        BaseLink::Copied if health(venv, now, &[]).state == State::Stale => Some(Remedy::Refresh),
        _ => None,
    }
}

/// Whether uv would take the interpreter for another one than it made the venv for.
fn is_noted_by_uv(venv: &Venv, change: Option<&Change>) -> bool {
    venv.flavour == Flavour::Uv && change.is_some_and(|change| change.kind == ChangeKind::Patch)
}

/// The default minor version moves away from under a venv.
fn orphaned(
    decision: &mut Decision,
    subject: &Subject,
    readiness: &Readiness,
    after: &Interpreters,
    phase: Phase,
) {
    let can_pin = after.get(subject.venv.site).is_some();
    match readiness {
        _ if can_pin && subject.policy == Policy::Pin => decision.remedy = Remedy::Pin,
        Readiness::Ready if can_pin => {
            decision.remedy = Remedy::Rebuild;
        }
        Readiness::NotReady(reasons) if can_pin => {
            decision.remedy = Remedy::Pin;
            decision.reasons.extend_from_slice(reasons);
        }
        Readiness::Ready if phase == Phase::AfterDpkg => decision.remedy = Remedy::Rebuild,
        Readiness::Ready => impossible(
            decision,
            &["its old interpreter goes away in the same transaction, so that a failing rebuild would leave it dead".into()],
            phase,
        ),
        Readiness::NotReady(reasons) => impossible(decision, reasons, phase),
    }
}

/// A venv's interpreter goes away. Where the one that stays is installed already, the venv
/// is moved to it before dpkg runs: only if that fails, the removal is blocked.
fn stranded(
    decision: &mut Decision,
    readiness: &Readiness,
    before: &Interpreters,
    after: &Interpreters,
    phase: Phase,
) {
    let target_is_there = after
        .default
        .is_some_and(|minor| before.default == Some(minor) && before.get(minor).is_some());
    match readiness {
        Readiness::NotReady(reasons) => impossible(decision, reasons, phase),
        Readiness::Ready if phase == Phase::AfterDpkg && after.default.is_some() => {
            decision.remedy = Remedy::Rebuild;
        }
        Readiness::Ready if target_is_there => {
            decision.remedy = Remedy::Rebuild;
            decision.before_dpkg = true;
        }
        Readiness::Ready => impossible(
            decision,
            &["no other interpreter is installed that it could be rebuilt for beforehand".into()],
            phase,
        ),
    }
}

fn impossible(decision: &mut Decision, reasons: &[String], phase: Phase) {
    decision.remedy = Remedy::Impossible;
    decision.blocks = phase == Phase::BeforeDpkg;
    decision.reasons.extend_from_slice(reasons);
}

#[cfg(test)]
mod tests {
    use super::super::effect::{assess, samples::subject};
    use super::*;
    use crate::apt::samples::system;
    use crate::python::{BuildId, Minor};
    use crate::venv::CopiedInterpreter;

    const OLD: Minor = Minor::new(3, 11);

    struct Case {
        link: BaseLink,
        policy: Policy,
        readiness: Readiness,
        phase: Phase,
        before: &'static [&'static str],
        after: &'static [&'static str],
    }

    const MINOR: Case = Case {
        link: BaseLink::Followed,
        policy: Policy::Auto,
        readiness: Readiness::Ready,
        phase: Phase::BeforeDpkg,
        before: &["3.11.2-6"],
        after: &["3.13.5-2", "3.11.2-6"],
    };
    const AUTOREMOVE: Case = Case {
        link: BaseLink::Pinned,
        before: &["3.13.5-2", "3.11.2-6"],
        after: &["3.13.5-2"],
        ..MINOR
    };

    fn decided(case: &Case) -> Decision {
        let mut subject = subject(case.link, OLD);
        subject.policy = case.policy;
        let (before, after) = (system(case.before), system(case.after));
        let assessment = assess(&subject, &before, &after);
        decide(&subject, assessment, &case.readiness, &before, &after, case.phase)
    }

    /// Remedy, before dpkg, blocks.
    fn outcome(case: &Case) -> (Remedy, bool, bool) {
        let decision = decided(case);
        (decision.remedy, decision.before_dpkg, decision.blocks)
    }

    fn not_ready() -> Readiness {
        Readiness::NotReady(vec!["no wheel".into()])
    }

    #[test]
    fn a_minor_upgrade_rebuilds() {
        assert_eq!(outcome(&MINOR), (Remedy::Rebuild, false, false));
    }

    #[test]
    fn what_is_not_ready_is_pinned_and_says_why() {
        let decision = decided(&Case { readiness: not_ready(), ..MINOR });
        assert_eq!((decision.remedy, decision.blocks), (Remedy::Pin, false));
        assert!(decision.reasons.contains(&"no wheel".to_string()), "{decision:?}");
    }

    #[test]
    fn policy_pin_keeps_the_old_minor() {
        let case = Case { policy: Policy::Pin, ..MINOR };
        assert_eq!(outcome(&case), (Remedy::Pin, false, false));
    }

    #[test]
    fn policy_block_blocks_every_change_of_the_interpreter() {
        for after in [&["3.13.5-2", "3.11.2-6"][..], &["3.11.2-7"], &["3.11.9-1"]] {
            let case = Case { policy: Policy::Block, after, ..MINOR };
            assert_eq!(outcome(&case), (Remedy::None, false, true), "{after:?}");
        }
        let unaffected = Case { policy: Policy::Block, after: MINOR.before, ..MINOR };
        assert_eq!(outcome(&unaffected), (Remedy::None, false, false));
    }

    #[test]
    fn autoremove_moves_the_venv_before_its_interpreter_goes() {
        for link in [BaseLink::Pinned, BaseLink::Copied] {
            let case = Case { link, ..AUTOREMOVE };
            assert_eq!(outcome(&case), (Remedy::Rebuild, true, false));
        }
    }

    #[test]
    fn a_removal_that_would_leave_a_venv_dead_is_blocked() {
        let cases = [
            Case { readiness: not_ready(), ..AUTOREMOVE },
            Case { link: BaseLink::Pinned, after: &["3.13.5-2"], ..MINOR },
            Case { after: &["3.13.5-2"], ..MINOR },
            Case { after: &[], ..MINOR },
        ];
        for case in cases {
            assert_eq!(outcome(&case), (Remedy::Impossible, false, true), "{:?}", case.after);
        }
    }

    #[test]
    fn after_dpkg_nothing_blocks_and_a_dead_venv_is_rebuilt() {
        let case = Case { phase: Phase::AfterDpkg, after: &["3.13.5-2"], ..MINOR };
        assert_eq!(outcome(&case), (Remedy::Rebuild, false, false));
        let case = Case { phase: Phase::AfterDpkg, ..AUTOREMOVE };
        assert_eq!(outcome(&case), (Remedy::Rebuild, false, false));
        let case = Case { phase: Phase::AfterDpkg, readiness: not_ready(), ..AUTOREMOVE };
        assert_eq!(outcome(&case), (Remedy::Impossible, false, false));
    }

    #[test]
    fn a_copied_interpreter_is_refreshed_and_a_running_one_restarted() {
        let patch = Case { after: &["3.11.9-1"], ..MINOR };
        assert_eq!(outcome(&patch), (Remedy::Restart, false, false));
        let copied = Case { link: BaseLink::Copied, ..patch };
        assert_eq!(outcome(&copied), (Remedy::Refresh, false, false));
    }

    #[test]
    fn what_uv_noted_of_its_interpreter_stays_true() {
        let remedy = |after: &[&str]| {
            let mut subject = subject(BaseLink::Pinned, OLD);
            subject.venv.flavour = Flavour::Uv;
            let (before, after) = (system(MINOR.before), system(after));
            let assessment = assess(&subject, &before, &after);
            let ready = Readiness::Ready;
            decide(&subject, assessment, &ready, &before, &after, Phase::AfterDpkg).remedy
        };
        assert_eq!(remedy(&["3.11.9-1"]), Remedy::Refresh);
        assert_eq!(remedy(&["3.11.2-7"]), Remedy::Restart, "the version is the same");
    }

    #[test]
    fn what_was_not_rebuilt_is_pinned_or_refreshed_where_it_would_not_work() {
        let then = |link, follows, now: &[&str]| {
            let mut venv = subject(link, OLD).venv;
            venv.base.copies = vec![CopiedInterpreter {
                name: "python3".into(),
                version: None,
                build_id: Some(BuildId("3.11.2-6".into())),
            }];
            fallback(&venv, follows, &system(now))
        };
        let (same, moved) = (&["3.11.2-6"][..], &["3.13.5-2", "3.11.2-6"][..]);
        assert_eq!(then(BaseLink::Followed, true, moved), Some(Remedy::Pin));
        assert_eq!(then(BaseLink::Pinned, true, moved), Some(Remedy::Pin), "pinned by the gate");
        assert_eq!(then(BaseLink::Pinned, false, moved), None);
        assert_eq!(then(BaseLink::Followed, true, same), None);
        assert_eq!(
            then(BaseLink::Followed, true, &["3.13.5-2"]),
            None,
            "there is nothing to pin to"
        );
        assert_eq!(then(BaseLink::Copied, false, moved), None);
        assert_eq!(then(BaseLink::Copied, false, &["3.11.9-1"]), Some(Remedy::Refresh));
    }

    #[test]
    fn warn_and_ignore_do_nothing() {
        for policy in [Policy::Warn, Policy::Ignore] {
            assert_eq!(outcome(&Case { policy, ..AUTOREMOVE }), (Remedy::None, false, false));
        }
    }
}
