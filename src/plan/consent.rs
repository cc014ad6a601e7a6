//! Who answers apt: the policies, a setting, or a person at the terminal.

use serde::{Deserialize, Serialize};

use super::{Plan, Remedy, Verdict};

/// Who answers apt about an upgrade that affects venvs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// A person at the terminal, if there is one; otherwise the policies.
    #[default]
    Ask,
    /// The policies.
    Auto,
    /// Nothing is blocked.
    Allow,
    /// Every upgrade that affects a venv is blocked.
    Block,
}

impl Mode {
    pub(crate) const WORDS: &str = "ask, auto, allow or block";

    /// The mode that is spelled so.
    pub(crate) fn spelled(word: &str) -> Option<Self> {
        match word {
            "ask" => Some(Self::Ask),
            "auto" => Some(Self::Auto),
            "allow" => Some(Self::Allow),
            "block" => Some(Self::Block),
            _ => None,
        }
    }
}

/// What is known about the people around an apt run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Occasion {
    pub(crate) mode: Mode,
    /// Somebody reads the terminal and can answer there.
    pub(crate) is_attended: bool,
    /// A release upgrader installs the next release. It cannot go back any more, and treats a
    /// blocked run as a broken system.
    pub(crate) is_past_return: bool,
}

impl Occasion {
    /// Whether an answer may take its time. A release upgrader goes on in any case, and a run that
    /// is blocked anyway needs no preparation.
    pub(crate) fn can_wait(self) -> bool {
        !self.is_past_return && self.mode != Mode::Block
    }
}

/// A person's answer about an upgrade.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    #[default]
    Continue,
    Abort,
    /// Hold Python, so that the next run upgrades everything else.
    #[serde(skip)]
    Hold,
}

/// Whether apt can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consent {
    /// It can. `overrides`: although a policy or an unready venv blocks it.
    Given { verdict: Verdict, overrides: bool },
    /// Somebody has to be asked.
    Wanted,
}

impl Plan {
    /// Whether somebody must agree before the answer is given.
    pub(crate) fn consent(&self, occasion: Occasion) -> Consent {
        let given = |verdict| Consent::Given { verdict, overrides: false };
        if occasion.is_past_return || occasion.mode == Mode::Allow {
            return self.in_spite_of_a_block();
        }
        match occasion.mode {
            Mode::Block if self.notable().next().is_some() => given(Verdict::Block),
            Mode::Ask if occasion.is_attended && self.is_weighty() => Consent::Wanted,
            _ => given(self.verdict()),
        }
    }

    /// The consent that holds even if the plan blocks.
    pub(crate) fn in_spite_of_a_block(&self) -> Consent {
        let overrides = self.verdict() == Verdict::Block;
        Consent::Given { verdict: self.verdict_without_blocks(), overrides }
    }

    /// Whether a person wants to know before it happens: a venv gets another Python, or none.
    /// Restarts and refreshes are the daily business of security updates.
    fn is_weighty(&self) -> bool {
        self.notable().any(|decision| {
            decision.blocks
                || matches!(
                    decision.remedy,
                    Remedy::Rebuild { .. } | Remedy::Pin { .. } | Remedy::Impossible
                )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::subject;
    use super::super::{Decision, Effect, Target, Until};
    use super::*;
    use crate::python::Minor;
    use crate::venv::BaseLink;

    const NEW: Minor = Minor::new(3, 13);

    fn plan(remedy: Remedy, blocks: bool) -> Plan {
        let old = subject(BaseLink::Followed, Minor::new(3, 11)).undecided();
        let decision = Decision { effect: Effect::Orphaned, remedy, blocks, ..old };
        Plan { changes: Vec::new(), decisions: vec![decision] }
    }

    fn rebuild() -> Remedy {
        let target = Target { minor: NEW, follows: true, copies: false };
        Remedy::Rebuild { target, relax: None }
    }

    const THERE: Occasion = Occasion { mode: Mode::Ask, is_attended: true, is_past_return: false };

    fn given(verdict: Verdict) -> Consent {
        Consent::Given { verdict, overrides: false }
    }

    #[test]
    fn a_person_is_asked_when_a_venv_gets_another_python_or_none() {
        let pin = Remedy::Pin { to: NEW, until: Until::Rebuilt, outdated: false };
        for plan in [plan(rebuild(), false), plan(pin, false), plan(Remedy::Impossible, true)] {
            assert_eq!(plan.consent(THERE), Consent::Wanted);
        }
        for remedy in [Remedy::Restart, Remedy::Refresh] {
            assert_eq!(plan(remedy, false).consent(THERE), given(Verdict::Repair));
        }
    }

    #[test]
    fn nobody_is_asked_where_nobody_is_or_wants_to_be() {
        for occasion in
            [Occasion { is_attended: false, ..THERE }, Occasion { mode: Mode::Auto, ..THERE }]
        {
            assert_eq!(plan(rebuild(), false).consent(occasion), given(Verdict::Repair));
        }
        let blocked = plan(Remedy::None, true);
        let alone = Occasion { is_attended: false, ..THERE };
        assert_eq!(blocked.consent(alone), given(Verdict::Block));
    }

    #[test]
    fn a_setting_allows_or_blocks_everything() {
        let of = |mode| Occasion { mode, ..THERE };
        let forced = |verdict| Consent::Given { verdict, overrides: true };
        let blocked = plan(Remedy::None, true);
        assert_eq!(blocked.consent(of(Mode::Allow)), forced(Verdict::Allow));
        assert_eq!(plan(rebuild(), true).consent(of(Mode::Allow)), forced(Verdict::Repair));
        assert_eq!(plan(rebuild(), false).consent(of(Mode::Allow)), given(Verdict::Repair));
        for remedy in [rebuild(), Remedy::Restart] {
            assert_eq!(plan(remedy, false).consent(of(Mode::Block)), given(Verdict::Block));
        }
        let none = Plan::default();
        assert_eq!(none.consent(of(Mode::Block)), given(Verdict::Allow));
    }

    #[test]
    fn a_release_upgrade_that_cannot_go_back_is_not_blocked() {
        for mode in [Mode::Ask, Mode::Auto, Mode::Block] {
            let occasion = Occasion { mode, is_past_return: true, ..THERE };
            let expected = Consent::Given { verdict: Verdict::Allow, overrides: true };
            assert_eq!(plan(Remedy::None, true).consent(occasion), expected);
            assert_eq!(plan(rebuild(), false).consent(occasion), given(Verdict::Repair));
        }
    }

    #[test]
    fn each_mode_is_spelled_as_in_the_configuration() {
        for mode in [Mode::Ask, Mode::Auto, Mode::Allow, Mode::Block] {
            let word = serde_json::to_value(mode).unwrap();
            let word = word.as_str().unwrap();
            assert_eq!(Mode::spelled(word), Some(mode));
            assert!(Mode::WORDS.contains(word));
        }
        assert_eq!(Mode::spelled("blok"), None);
    }
}
