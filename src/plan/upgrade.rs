//! Decides about the venvs in an upgrade.

use std::collections::BTreeMap;

use super::{
    Assessment, Decision, Effect, Facts, Fallback, Finding, Phase, Plan, Policy, Readiness, Reason,
    Remedy, State, Subject, Target, Until, assess, health, services,
};
use crate::apt::{Change, ChangeKind, changes};
use crate::python::{self, Interpreters, Minor};
use crate::venv::{BaseLink, Flavour, Venv};

/// What a decision about a venv needs to know. Both answers cost time: a process of its owner looks
/// through the whole tree, and every process on the system is inspected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Questions {
    pub(crate) readiness: bool,
    pub(crate) services: bool,
}

/// The questions that an upgrade asks about one venv.
pub(crate) fn questions(
    subject: &Subject,
    before: &Interpreters,
    after: &Interpreters,
) -> Questions {
    let effect = assess(subject, before, after).effect;
    if effect == Effect::None || !subject.policy.acts() {
        return Questions::default();
    }
    let readiness = match effect {
        Effect::Orphaned | Effect::Stranded => true,
        Effect::Stale => subject.policy == Policy::Rebuild,
        Effect::None | Effect::RestartOnly | Effect::Unlinked => false,
    };
    Questions { readiness, services: true }
}

/// The minor version that a rebuild of a venv would be for.
pub(crate) fn target(
    subject: &Subject,
    before: &Interpreters,
    after: &Interpreters,
) -> Option<Minor> {
    minor_for(assess(subject, before, after).effect, &subject.venv, after)
}

/// A copied interpreter whose minor version stays installed is rebuilt for that one.
fn minor_for(effect: Effect, venv: &Venv, now: &Interpreters) -> Option<Minor> {
    if effect == Effect::Stale { Some(venv.site) } else { now.default }
}

/// Decides about an upgrade from `before` to `after`. If it is `made` before dpkg runs, `after` is
/// a prediction.
pub(crate) fn upgrade(
    subjects: &[Subject],
    facts: &BTreeMap<String, Facts>,
    before: &Interpreters,
    after: &Interpreters,
    made: Phase,
) -> Plan {
    let changes = changes(before, after);
    let none = Facts::default();
    let decisions = subjects
        .iter()
        .map(|subject| {
            let facts = facts.get(&subject.id).unwrap_or(&none);
            Upgrade { subject, facts, before, after, made, changes: &changes }.decide()
        })
        .collect();
    Plan { changes, decisions }
}

/// One venv in an upgrade.
struct Upgrade<'a> {
    subject: &'a Subject,
    facts: &'a Facts,
    before: &'a Interpreters,
    after: &'a Interpreters,
    /// When the decision is made. After dpkg has run, it can no longer block.
    made: Phase,
    changes: &'a [Change],
}

impl Upgrade<'_> {
    fn decide(&self) -> Decision {
        let mut decision = self.about_interpreters();
        self.about_libraries(&mut decision);
        decision
    }

    /// A venv that loses a library is broken, unless a rebuild is due anyway: it builds for the
    /// libraries that are left.
    fn about_libraries(&self, decision: &mut Decision) {
        let lost = &self.facts.lost;
        if lost.is_empty() || matches!(decision.remedy, Remedy::Rebuild { .. }) {
            return;
        }
        if decision.effect == Effect::None {
            decision.effect = Effect::Unlinked;
        }
        let reasons = lost.iter().cloned().map(Reason::Loses);
        if self.subject.policy.acts() {
            self.impossible(decision, reasons);
        } else {
            decision.reasons.extend(reasons);
        }
    }

    fn about_interpreters(&self) -> Decision {
        let Self { subject, before, after, .. } = *self;
        let Assessment { effect, change, reasons } = assess(subject, before, after);
        let mut decision =
            Decision { effect, change, reasons, phase: Phase::AfterDpkg, ..subject.undecided() };
        if effect == Effect::None || !subject.policy.acts() {
            return decision;
        }
        if subject.policy == Policy::Block && self.made == Phase::BeforeDpkg {
            decision.blocks = true;
            decision.reasons.push(Reason::PolicyBlocks);
            return decision;
        }
        match effect {
            // `about_libraries` decides about a venv that only loses libraries.
            Effect::None | Effect::Unlinked => {}
            Effect::RestartOnly if self.breaks() => self.impossible(&mut decision, self.broken()),
            Effect::RestartOnly if is_noted_by_uv(&subject.venv, decision.change.as_ref()) => {
                decision.remedy = Remedy::Refresh;
                decision.reasons.push(Reason::UvCompares);
            }
            Effect::RestartOnly => decision.remedy = Remedy::Restart,
            Effect::Stale if subject.policy == Policy::Rebuild && self.is_ready() => {
                self.rebuild(&mut decision);
            }
            Effect::Stale => decision.remedy = Remedy::Refresh,
            Effect::Orphaned => self.orphaned(&mut decision),
            Effect::Stranded => self.stranded(&mut decision),
        }
        if decision.acts() {
            services::of_transaction(&mut decision, subject, self.facts, self.made);
            decision.pin_during_dpkg = self.made == Phase::BeforeDpkg
                && decision.phase == Phase::AfterDpkg
                && effect == Effect::Orphaned
                && subject.venv.base.link == BaseLink::Followed
                && after.get(subject.venv.site).is_some();
        }
        decision
    }

    fn keeps_from_swapping(&self) -> bool {
        services::keep_from_swapping(self.subject, self.facts)
    }

    fn may_swap(&self) -> bool {
        self.made == Phase::AfterDpkg || !self.keeps_from_swapping()
    }

    /// A service that is not restarted would keep running on an interpreter that is removed.
    fn runs_on(&self, decision: &mut Decision) {
        self.impossible(decision, [Reason::RunsOn]);
        services::of_transaction(decision, self.subject, self.facts, self.made);
    }

    fn readiness(&self) -> &Readiness {
        self.facts.readiness.as_ref().unwrap_or(&Readiness::Ready)
    }

    fn is_ready(&self) -> bool {
        !matches!(self.readiness(), Readiness::NotReady(_))
    }

    /// Whether the upgrade would break the venv as it is, on its own minor version. After dpkg, it
    /// has.
    fn breaks(&self) -> bool {
        self.made == Phase::BeforeDpkg && !self.facts.breaks.is_empty()
    }

    fn broken(&self) -> impl Iterator<Item = Reason> {
        self.facts.breaks.iter().cloned().map(Reason::Breaks)
    }

    /// The default interpreter moves away from a venv that follows it.
    fn orphaned(&self, decision: &mut Decision) {
        let site = self.subject.venv.site;
        let can_pin = self.after.get(site).is_some();
        let path = python::path_of(site);
        let outdated = self.changes.iter().any(|change| change.interpreter == path);
        let pin = |until| Remedy::Pin { to: site, until, outdated };
        // A module that runs its code is for one minor version, wherever a link leads: the default
        // one, unless the upgrade has left the module as it was.
        let embedded_in = self.facts.embedded_in.as_ref();
        let is_left = self.made == Phase::AfterDpkg
            && embedded_in.is_some_and(|embedding| embedding.module == Some(site));
        let can_keep = can_pin && (embedded_in.is_none() || is_left);
        let is_kept = self.subject.policy == Policy::Pin;
        decision.reasons.extend(embedded_in.map(|embedding| {
            let program = embedding.program.as_path().into();
            let on = |program| Reason::EmbeddedOn { program, minor: site };
            if is_left { on(program) } else { Reason::EmbeddedIn(program) }
        }));
        match self.readiness() {
            _ if can_keep && is_left => decision.remedy = pin(Until::Rebuilt),
            _ if can_keep && is_kept && self.breaks() => self.impossible(decision, self.broken()),
            _ if can_keep && is_kept => decision.remedy = pin(Until::Policy),
            // Until somebody restarts its services, they run the old interpreter.
            _ if can_keep && self.is_ready() && self.keeps_from_swapping() => {
                decision.remedy = pin(Until::Rebuilt);
            }
            Readiness::Ready | Readiness::Resolved | Readiness::Rehearsed if can_pin => {
                self.rebuild(decision);
            }
            Readiness::NotReady(findings)
                if self.subject.policy == Policy::Rebuild && self.made == Phase::BeforeDpkg =>
            {
                decision.blocks = true;
                decision.reasons.extend(not_ready(findings));
            }
            Readiness::NotReady(findings) if can_keep && self.breaks() => {
                self.impossible(decision, not_ready(findings).chain(self.broken()));
            }
            Readiness::NotReady(findings) if can_keep => {
                decision.remedy = pin(Until::Rebuilt);
                decision.reasons.extend(not_ready(findings));
            }
            // Its old interpreter is not needed any more, unless a service keeps running on it.
            Readiness::Rehearsed if self.may_swap() => self.rebuild(decision),
            Readiness::Rehearsed => self.runs_on(decision),
            Readiness::Ready | Readiness::Resolved if self.made == Phase::AfterDpkg => {
                self.rebuild(decision);
            }
            Readiness::Ready | Readiness::Resolved => {
                self.impossible(decision, [Reason::NoWayBack]);
            }
            Readiness::NotReady(findings) => self.impossible(decision, not_ready(findings)),
        }
    }

    /// A venv's interpreter is removed. If the one that stays is installed already, the venv moves
    /// to it before dpkg runs, and the removal is blocked only if that fails.
    fn stranded(&self, decision: &mut Decision) {
        let Self { before, after, made, .. } = *self;
        let target_is_there = after
            .default
            .is_some_and(|minor| before.default == Some(minor) && before.get(minor).is_some());
        match self.readiness() {
            Readiness::NotReady(findings) => self.impossible(decision, not_ready(findings)),
            _ if made == Phase::AfterDpkg && after.default.is_some() => self.rebuild(decision),
            _ if target_is_there && self.keeps_from_swapping() => self.runs_on(decision),
            _ if target_is_there => {
                decision.phase = Phase::BeforeDpkg;
                self.rebuild(decision);
            }
            Readiness::Rehearsed if after.default.is_some() && self.may_swap() => {
                self.rebuild(decision);
            }
            Readiness::Rehearsed if after.default.is_some() => self.runs_on(decision),
            _ => self.impossible(decision, [Reason::NoOtherInterpreter]),
        }
    }

    fn rebuild(&self, decision: &mut Decision) {
        let now = if decision.phase == Phase::BeforeDpkg { self.before } else { self.after };
        let venv = &self.subject.venv;
        let minor = minor_for(decision.effect, venv, now);
        let target = |minor| Target::asked_for(venv, decision.follows, now, Some(minor));
        match minor.and_then(target) {
            Some(target) => {
                decision.remedy = Remedy::Rebuild { target, relax: None };
                decision.reasons.extend(match self.readiness() {
                    Readiness::Rehearsed => Some(Reason::Rehearsed),
                    Readiness::Resolved => Some(Reason::Resolved),
                    Readiness::Ready | Readiness::NotReady(_) => None,
                });
                decision.reasons.extend(named_in(venv, target, self.facts));
            }
            None => self.impossible(decision, [Reason::NoOtherInterpreter]),
        }
    }

    fn impossible(&self, decision: &mut Decision, reasons: impl IntoIterator<Item = Reason>) {
        decision.remedy = Remedy::Impossible;
        decision.blocks = self.made == Phase::BeforeDpkg;
        decision.reasons.extend(reasons);
    }
}

/// What names a path that a rebuild for another minor version removes.
pub(super) fn named_in(venv: &Venv, target: Target, facts: &Facts) -> impl Iterator<Item = Reason> {
    let is_moved = target.minor != venv.site;
    facts.mentions.iter().filter(move |_| is_moved).cloned().map(Reason::NamedIn)
}

/// Why a rebuild is not ready.
pub(super) fn not_ready(findings: &[Finding]) -> impl Iterator<Item = Reason> {
    findings.iter().cloned().map(Reason::NotReady)
}

/// What makes a venv work that was not rebuilt. `follows` says whether it follows the default
/// interpreter, even if venvguard has pinned it for now.
pub(crate) fn fallback(venv: &Venv, follows: bool, now: &Interpreters) -> Option<Fallback> {
    let stays = now.get(venv.site).is_some();
    match venv.base.link {
        BaseLink::Followed | BaseLink::Pinned
            if follows && stays && now.default != Some(venv.site) =>
        {
            Some(Fallback::Pin)
        }
        BaseLink::Copied if health(venv, now, &[]).state == State::Stale => Some(Fallback::Refresh),
        _ => None,
    }
}

/// Whether uv would take the interpreter for a different one than the venv was created for.
fn is_noted_by_uv(venv: &Venv, change: Option<&Change>) -> bool {
    venv.flavour == Flavour::Uv && change.is_some_and(|change| change.kind == ChangeKind::Patch)
}

#[cfg(test)]
mod tests;
