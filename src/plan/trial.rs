//! Decides how to find out before an upgrade whether a venv works after it.

use super::upgrade::not_ready;
use super::{
    Assessment, Decision, Effect, Facts, Policy, Readiness, Reason, Remedy, Subject, Target, assess,
};
use crate::apt::ChangeKind;
use crate::python::{Interpreters, Minor};

/// What a rehearsal does about one venv.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trial {
    /// Builds and checks a new tree, as this decision says.
    Build(Decision),
    /// Checks the venv as it is in the next system, with the interpreter of its own minor version.
    Check(Minor),
    /// Nothing: it cannot be rebuilt, for the reasons of this decision.
    Impossible(Decision),
}

/// How to rehearse an upgrade from `before` to `after` for a venv; `None` if there is nothing to find
/// out.
pub(crate) fn trial(
    subject: &Subject,
    facts: &Facts,
    before: &Interpreters,
    after: &Interpreters,
) -> Option<Trial> {
    let Assessment { effect, change, reasons } = assess(subject, before, after);
    if subject.policy == Policy::Ignore {
        return None;
    }
    match effect {
        // A refresh makes a copied interpreter what the check of a linked one would see.
        Effect::None | Effect::Stale | Effect::Unlinked => None,
        // The venv runs the new interpreter after a restart. A revision brings no new behaviour.
        Effect::RestartOnly => change
            .is_some_and(|change| change.kind == ChangeKind::Patch)
            .then_some(Trial::Check(subject.venv.site)),
        Effect::Orphaned | Effect::Stranded if subject.policy == Policy::Pin => {
            let site = subject.venv.site;
            after.get(site).is_some().then_some(Trial::Check(site))
        }
        Effect::Orphaned | Effect::Stranded => {
            let decision = Decision { effect, change, ..subject.undecided() };
            let impossible = |reasons| {
                let remedy = Remedy::Impossible;
                Trial::Impossible(Decision { remedy, reasons, ..decision.clone() })
            };
            let target = Target::of_default(&subject.venv, subject.follows(), after);
            Some(match (target, &facts.readiness) {
                (None, _) => impossible(vec![Reason::NoOtherInterpreter]),
                (_, Some(Readiness::NotReady(why))) => impossible(not_ready(why).collect()),
                (Some(target), _) => {
                    let remedy = Remedy::Rebuild { target, relax: None };
                    Trial::Build(Decision { remedy, reasons, ..decision })
                }
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::subject;
    use super::super::{Finding, FindingKind};

    use super::*;
    use crate::apt::samples::system;
    use crate::venv::BaseLink;

    const OLD: Minor = Minor { major: 3, minor: 11 };

    fn tried(link: BaseLink, policy: Policy, facts: &Facts, after: &[&str]) -> Option<Trial> {
        let subject = Subject { policy, ..subject(link, OLD) };
        trial(&subject, facts, &system(&["3.11.2-6"]), &system(after))
    }

    #[test]
    fn a_venv_that_an_upgrade_orphans_or_strands_is_built_for_the_next_default() {
        let facts = Facts::default();
        for after in [&["3.13.5-2", "3.11.2-6"][..], &["3.13.5-2"]] {
            let Some(Trial::Build(decision)) =
                tried(BaseLink::Followed, Policy::Auto, &facts, after)
            else {
                panic!("{after:?}")
            };
            let target = Target { minor: Minor::new(3, 13), follows: true, copies: false };
            assert_eq!(decision.remedy, Remedy::Rebuild { target, relax: None });
        }
        let pinned = |policy| tried(BaseLink::Followed, policy, &facts, &["3.13.5-2", "3.11.2-6"]);
        assert_eq!(pinned(Policy::Pin), Some(Trial::Check(OLD)), "others take its modules away");
        let removed = &["3.13.5-2"];
        assert_eq!(tried(BaseLink::Followed, Policy::Pin, &facts, removed), None);
        assert_eq!(pinned(Policy::Ignore), None);
    }

    #[test]
    fn a_venv_that_cannot_be_rebuilt_is_not_tried() {
        let finding = Finding::of_venv(FindingKind::Obstacle, "no engine");
        let readiness = Some(Readiness::NotReady(vec![finding.clone()]));
        let facts = Facts { readiness, ..Facts::default() };
        let found = tried(BaseLink::Followed, Policy::Auto, &facts, &["3.13.5-2"]);
        let Some(Trial::Impossible(decision)) = found else { panic!("{found:?}") };
        assert_eq!(decision.reasons, [Reason::NotReady(finding)]);
    }

    #[test]
    fn a_patch_version_is_checked_and_a_revision_is_not() {
        let check = |after| tried(BaseLink::Pinned, Policy::Auto, &Facts::default(), after);
        assert_eq!(check(&["3.11.9-1"]), Some(Trial::Check(OLD)));
        assert_eq!(check(&["3.11.2-7"]), None);
        assert_eq!(check(&["3.11.2-6"]), None);
    }
}
