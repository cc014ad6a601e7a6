use std::path::Path;

use super::super::samples::subject;
use super::*;
use crate::apt::samples::system;
use crate::plan::{FindingKind, Loss, Mention, Proof, RestartMode};
use crate::python::{BuildId, Minor};
use crate::service::{Condition, Embedding};
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

fn decide(subject: Subject, case: &Case) -> Decision {
    let facts = Facts { readiness: Some(case.readiness.clone()), ..Facts::default() };
    let facts = BTreeMap::from([(subject.id.clone(), facts)]);
    let (before, after) = (system(case.before), system(case.after));
    upgrade(&[subject], &facts, &before, &after, case.phase).decisions.remove(0)
}

fn decided(case: &Case) -> Decision {
    decide(Subject { policy: case.policy, ..subject(case.link, OLD) }, case)
}

/// The remedy, whether it precedes dpkg, and whether it blocks.
fn outcome(case: &Case) -> (&'static str, bool, bool) {
    let decision = decided(case);
    (decision.remedy.word(), decision.phase == Phase::BeforeDpkg, decision.blocks)
}

fn no_wheel() -> Finding {
    Finding::of_venv(FindingKind::NoWheel, "no wheel")
}

fn not_ready() -> Readiness {
    Readiness::NotReady(vec![no_wheel()])
}

#[test]
fn a_minor_upgrade_rebuilds() {
    assert_eq!(outcome(&MINOR), ("rebuild", false, false));
}

#[test]
fn a_venv_whose_rebuild_is_not_ready_is_pinned_with_a_reason() {
    let decision = decided(&Case { readiness: not_ready(), ..MINOR });
    let pin = Remedy::Pin { to: OLD, until: Until::Rebuilt, outdated: false };
    assert_eq!((&decision.remedy, decision.blocks), (&pin, false));
    assert!(decision.reasons.contains(&Reason::NotReady(no_wheel())), "{decision:?}");
}

#[test]
fn a_rebuild_names_the_files_that_name_a_path_it_removes() {
    let mention = Mention {
        file: Path::new("/etc/nginx/shop").into(),
        line: 7,
        name: Path::new("/srv/shop/venv/lib/python3.11").into(),
    };
    let mentions = vec![mention.clone()];
    let facts = Facts { mentions, ..Facts::default() };
    let named = |after: &[&str]| {
        let subject = subject(BaseLink::Followed, OLD);
        let facts = BTreeMap::from([(subject.id.clone(), facts.clone())]);
        let (before, after) = (system(MINOR.before), system(after));
        let plan = upgrade(&[subject], &facts, &before, &after, Phase::BeforeDpkg);
        plan.decisions[0].reasons.contains(&Reason::NamedIn(mention.clone()))
    };
    assert!(named(MINOR.after));
    assert!(!named(&["3.11.9-1"]));
}

#[test]
fn policy_pin_keeps_the_old_minor() {
    let case = Case { policy: Policy::Pin, ..MINOR };
    assert_eq!(outcome(&case), ("pin", false, false));
}

#[test]
fn a_venv_that_would_break_on_its_own_interpreter_blocks() {
    let breaks = vec![Finding::of_venv(FindingKind::Import, "module distutils.util")];
    let decide = |policy, readiness, phase| {
        let subject = Subject { policy, ..subject(BaseLink::Followed, OLD) };
        let facts =
            Facts { readiness: Some(readiness), breaks: breaks.clone(), ..Facts::default() };
        let facts = BTreeMap::from([(subject.id.clone(), facts)]);
        let (before, after) = (system(MINOR.before), system(MINOR.after));
        upgrade(&[subject], &facts, &before, &after, phase).decisions.remove(0)
    };
    for (policy, readiness) in [(Policy::Pin, Readiness::Ready), (Policy::Auto, not_ready())] {
        let decision = decide(policy, readiness.clone(), Phase::BeforeDpkg);
        assert_eq!((&decision.remedy, decision.blocks), (&Remedy::Impossible, true));
        assert!(decision.reasons.contains(&Reason::Breaks(breaks[0].clone())));
        let after = decide(policy, readiness, Phase::AfterDpkg);
        assert!(matches!(after.remedy, Remedy::Pin { .. }), "it has broken already");
    }
    let rebuilt = decide(Policy::Auto, Readiness::Rehearsed, Phase::BeforeDpkg);
    assert!(matches!(rebuilt.remedy, Remedy::Rebuild { .. }));
}

#[test]
fn a_venv_that_the_next_patch_version_breaks_blocks() {
    let breaks = vec![Finding::of_venv(FindingKind::Import, "module pydantic")];
    let decide = |policy, phase| {
        let subject = Subject { policy, ..subject(BaseLink::Followed, OLD) };
        let facts = Facts { breaks: breaks.clone(), ..Facts::default() };
        let facts = BTreeMap::from([(subject.id.clone(), facts)]);
        let (before, after) = (system(MINOR.before), system(&["3.11.9-1"]));
        upgrade(&[subject], &facts, &before, &after, phase).decisions.remove(0)
    };
    let decision = decide(Policy::Auto, Phase::BeforeDpkg);
    assert_eq!((&decision.remedy, decision.blocks), (&Remedy::Impossible, true));
    assert!(decision.reasons.contains(&Reason::Breaks(breaks[0].clone())));
    assert!(!decide(Policy::Warn, Phase::BeforeDpkg).blocks);
    let after = decide(Policy::Auto, Phase::AfterDpkg);
    assert_eq!(after.remedy, Remedy::Restart, "it has broken already");
}

#[test]
fn policy_block_blocks_every_change_of_the_interpreter() {
    for after in [&["3.13.5-2", "3.11.2-6"][..], &["3.11.2-7"], &["3.11.9-1"]] {
        let case = Case { policy: Policy::Block, after, ..MINOR };
        assert_eq!(outcome(&case), ("none", false, true), "{after:?}");
    }
    let unaffected = Case { policy: Policy::Block, after: MINOR.before, ..MINOR };
    assert_eq!(outcome(&unaffected), ("none", false, false));
}

#[test]
fn autoremove_moves_the_venv_before_its_interpreter_is_removed() {
    for link in [BaseLink::Pinned, BaseLink::Copied] {
        let case = Case { link, ..AUTOREMOVE };
        assert_eq!(outcome(&case), ("rebuild", true, false));
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
        assert_eq!(outcome(&case), ("impossible", false, true), "{:?}", case.after);
    }
}

#[test]
fn a_rehearsed_venv_needs_no_old_interpreter() {
    let cases = [
        Case { after: &["3.13.5-2"], ..MINOR },
        Case { link: BaseLink::Pinned, after: &["3.13.5-2"], ..MINOR },
    ];
    for case in cases {
        let case = Case { readiness: Readiness::Rehearsed, ..case };
        assert_eq!(outcome(&case), ("rebuild", false, false));
        assert!(!decided(&case).pin_during_dpkg, "its interpreter is gone when dpkg ends");
    }
    let case = Case { readiness: Readiness::Rehearsed, ..AUTOREMOVE };
    assert_eq!(outcome(&case), ("rebuild", true, false), "before its interpreter is removed");
    let case = Case { readiness: Readiness::Rehearsed, after: &[], ..MINOR };
    assert_eq!(outcome(&case), ("impossible", false, true), "there is nothing to move to");
}

#[test]
fn wheels_in_the_index_prove_less_than_a_rehearsal() {
    let resolved = Case { readiness: Readiness::Resolved, ..MINOR };
    let decision = decided(&resolved);
    assert_eq!((decision.remedy.word(), decision.proof()), ("rebuild", Proof::Resolved));
    let no_way_back = Case { after: &["3.13.5-2"], ..resolved };
    assert_eq!(outcome(&no_way_back), ("impossible", false, true));
}

#[test]
fn policy_rebuild_blocks_an_upgrade_that_the_venv_is_not_ready_for() {
    let case = Case { policy: Policy::Rebuild, readiness: not_ready(), ..MINOR };
    assert_eq!(outcome(&case), ("none", false, true));
    assert!(decided(&case).reasons.contains(&Reason::NotReady(no_wheel())));
    assert_eq!(outcome(&Case { phase: Phase::AfterDpkg, ..case }), ("pin", false, false));
}

#[test]
fn after_dpkg_nothing_blocks_and_a_dead_venv_is_rebuilt() {
    let case = Case { phase: Phase::AfterDpkg, after: &["3.13.5-2"], ..MINOR };
    assert_eq!(outcome(&case), ("rebuild", false, false));
    let case = Case { phase: Phase::AfterDpkg, ..AUTOREMOVE };
    assert_eq!(outcome(&case), ("rebuild", false, false));
    let case = Case { phase: Phase::AfterDpkg, readiness: not_ready(), ..AUTOREMOVE };
    assert_eq!(outcome(&case), ("impossible", false, false));
}

#[test]
fn a_copied_interpreter_is_refreshed_and_a_running_one_restarted() {
    let patch = Case { after: &["3.11.9-1"], ..MINOR };
    assert_eq!(outcome(&patch), ("restart", false, false));
    let copied = Case { link: BaseLink::Copied, ..patch };
    assert_eq!(outcome(&copied), ("refresh", false, false));
}

#[test]
fn a_copied_interpreter_is_rebuilt_for_its_own_minor_version() {
    let target = |after: &[&str]| {
        let (before, after) = (system(&["3.13.5-1", "3.11.2-6"]), system(after));
        target(&subject(BaseLink::Copied, OLD), &before, &after)
    };
    assert_eq!(target(&["3.13.5-1", "3.11.9-1"]), Some(OLD));
    assert_eq!(target(&["3.13.5-1"]), Some(Minor::new(3, 13)));
}

#[test]
fn the_version_that_uv_noted_is_kept_current() {
    let remedy = |after: &'static [&'static str]| {
        let mut subject = subject(BaseLink::Pinned, OLD);
        subject.venv.flavour = Flavour::Uv;
        decide(subject, &Case { phase: Phase::AfterDpkg, after, ..MINOR }).remedy
    };
    assert_eq!(remedy(&["3.11.9-1"]), Remedy::Refresh);
    assert_eq!(remedy(&["3.11.2-7"]), Remedy::Restart, "the version is the same");
}

#[test]
fn a_venv_that_was_not_rebuilt_is_pinned_or_refreshed_if_it_would_not_work() {
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
    assert_eq!(then(BaseLink::Followed, true, moved), Some(Fallback::Pin));
    assert_eq!(then(BaseLink::Pinned, true, moved), Some(Fallback::Pin), "pinned by the gate");
    assert_eq!(then(BaseLink::Pinned, false, moved), None);
    assert_eq!(then(BaseLink::Followed, true, same), None);
    assert_eq!(then(BaseLink::Followed, true, &["3.13.5-2"]), None, "there is nothing to pin to");
    assert_eq!(then(BaseLink::Copied, false, moved), None);
    assert_eq!(then(BaseLink::Copied, false, &["3.11.9-1"]), Some(Fallback::Refresh));
}

fn running() -> Condition {
    Condition {
        up: true,
        done: false,
        at_rest: false,
        failed: false,
        left_alone: None,
        state: "active (running)".into(),
        main_pid: None,
        restarts: 0,
    }
}

/// The decision about a venv with a service that runs.
fn served(case: &Case, restart: RestartMode, facts: Facts) -> Decision {
    served_in(running(), case, restart, facts)
}

fn served_in(condition: Condition, case: &Case, restart: RestartMode, facts: Facts) -> Decision {
    let services = vec![("systemd:web".parse().unwrap(), condition)];
    let readiness = Some(case.readiness.clone());
    let facts = BTreeMap::from([("1".to_string(), Facts { readiness, services, ..facts })]);
    let waits_for = (restart == RestartMode::Window).then(|| "Sat 03:00..05:00".into());
    let policy = case.policy;
    let subject = Subject { policy, restart, waits_for, ..subject(case.link, OLD) };
    let (before, after) = (system(case.before), system(case.after));
    upgrade(&[subject], &facts, &before, &after, case.phase).decisions.remove(0)
}

#[test]
fn a_service_that_is_not_restarted_unasked_keeps_its_venv() {
    let forbidden = || {
        let why = ("systemd:web".parse().unwrap(), "policy-rc.d".to_string());
        Facts { restrained: BTreeMap::from([why]), ..Facts::default() }
    };
    let patch = Case { after: &["3.11.9-1"], ..MINOR };
    let copied = Case { link: BaseLink::Copied, after: &["3.11.9-1"], ..MINOR };
    let late = Case { phase: Phase::AfterDpkg, ..AUTOREMOVE };
    for (mode, facts) in [
        (RestartMode::List, Facts::default()),
        (RestartMode::Never, Facts::default()),
        (RestartMode::Window, Facts::default()),
        (RestartMode::Now, forbidden()),
    ] {
        for (case, remedy, blocks) in [
            (&MINOR, "pin", false),
            (&patch, "restart", false),
            (&copied, "refresh", false),
            (&AUTOREMOVE, "impossible", true),
            (&late, "rebuild", false),
        ] {
            let decision = served(case, mode, facts.clone());
            assert_eq!((decision.remedy.word(), decision.blocks), (remedy, blocks), "{mode}");
            assert!(decision.services.is_empty() && decision.leaves_services_running());
        }
    }
    let now = served(&MINOR, RestartMode::Now, Facts::default());
    assert_eq!((now.remedy.word(), now.services.len()), ("rebuild", 1));
    let stopped = Case { readiness: Readiness::Ready, ..MINOR };
    let subject = Subject { restart: RestartMode::List, ..subject(stopped.link, OLD) };
    assert_eq!(decide(subject, &stopped).remedy.word(), "rebuild", "no service runs");
}

#[test]
fn a_service_that_runs_and_is_left_alone_keeps_its_venv() {
    let left_alone = || Condition { left_alone: Some("it is at work".into()), ..running() };
    let ended = Condition { done: true, ..left_alone() };
    let stopped = Condition { up: false, at_rest: true, ..left_alone() };
    let patch = Case { after: &["3.11.9-1"], ..MINOR };
    for (condition, case, remedy, blocks) in [
        (left_alone(), &MINOR, "pin", false),
        (left_alone(), &patch, "restart", false),
        (left_alone(), &AUTOREMOVE, "impossible", true),
        (ended, &MINOR, "rebuild", false),
        (stopped, &MINOR, "rebuild", false),
    ] {
        let decision = served_in(condition, case, RestartMode::Now, Facts::default());
        assert_eq!((decision.remedy.word(), decision.blocks), (remedy, blocks), "{decision:?}");
        assert!(decision.services.is_empty());
    }
}

#[test]
fn at_a_shutdown_venvs_are_repaired_and_services_left_to_the_next_boot() {
    let facts = Facts { is_shutting_down: true, ..Facts::default() };
    for mode in [RestartMode::Now, RestartMode::List] {
        let decision = served(&MINOR, mode, facts.clone());
        assert_eq!(decision.remedy.word(), "rebuild");
        assert!(decision.services.is_empty() && decision.leaves_services_running());
    }
    // The shutdown has stopped a service that ran before the upgrade.
    let were_up = Some(vec!["systemd:web".parse().unwrap()]);
    let stopped = Condition { up: false, at_rest: true, ..running() };
    let decision = served_in(stopped, &MINOR, RestartMode::Now, Facts { were_up, ..facts });
    assert_eq!(decision.remedy.word(), "rebuild");
    assert!(decision.services.is_empty() && decision.were_up.is_empty(), "{decision:?}");
    assert!(decision.leaves_services_running());
}

/// A program of Debian that runs a venv within itself, by a module for this minor version.
fn embedded(module: Minor) -> Facts {
    let embedding = Embedding { program: "/usr/sbin/apache2".into(), module: Some(module) };
    Facts { embedded_in: Some(embedding), ..Facts::default() }
}

#[test]
fn a_venv_that_a_program_of_debian_embeds_cannot_be_pinned() {
    let remedy = |case: &Case| {
        let decision = served(case, RestartMode::Now, embedded(OLD));
        let is_reported = decision.reasons.iter().any(|one| matches!(one, Reason::EmbeddedIn(_)));
        (decision.remedy.word(), decision.blocks, is_reported)
    };
    assert_eq!(remedy(&MINOR), ("rebuild", false, true));
    let unready = Case { readiness: not_ready(), ..MINOR };
    assert_eq!(remedy(&unready), ("impossible", true, true));
    assert_eq!(remedy(&Case { policy: Policy::Pin, ..MINOR }), ("rebuild", false, true));
}

fn loss() -> Loss {
    let finding = Finding::of_venv(FindingKind::LostLibrary, "x.so needs libpq.so.5");
    Loss { package: "libpq5".into(), finding }
}

#[test]
fn a_venv_that_loses_a_library_blocks_unless_it_is_rebuilt_anyway() {
    let lost = Facts { lost: vec![loss()], ..Facts::default() };
    let none = Case { before: &["3.11.2-6"], after: &["3.11.2-6"], ..MINOR };
    let decision = served(&none, RestartMode::Now, lost.clone());
    assert_eq!(decision.effect, Effect::Unlinked);
    assert!(decision.blocks && !decision.ready(), "{decision:?}");
    assert_eq!(decision.reasons, [Reason::Loses(loss())]);
    for (policy, blocks) in [(Policy::Pin, true), (Policy::Auto, false), (Policy::Warn, false)] {
        let decision = served(&Case { policy, ..MINOR }, RestartMode::Now, lost.clone());
        assert_eq!(decision.blocks, blocks, "{decision:?}");
        assert_eq!(decision.effect, Effect::Orphaned);
    }
}

#[test]
fn a_venv_stays_with_the_module_of_a_program_of_debian_that_the_upgrade_has_left() {
    let after = Case { phase: Phase::AfterDpkg, ..MINOR };
    let remedy = |module| served(&after, RestartMode::Now, embedded(module)).remedy.word();
    assert_eq!(remedy(OLD), "pin");
    assert_eq!(remedy(Minor::new(3, 13)), "rebuild");
}

#[test]
fn warn_and_ignore_do_nothing() {
    for policy in [Policy::Warn, Policy::Ignore] {
        assert_eq!(outcome(&Case { policy, ..AUTOREMOVE }), ("none", false, false));
    }
}
