//! Decides how changes of the interpreters affect venvs, and which remedy each venv needs.
//!
//! Values in, values out: this module reads no files, no clock and no processes. The command `plan`
//! prints the same value that `repair` executes.

mod consent;
mod decision;
mod effect;
mod finding;
mod health;
mod reason;
mod repair;
mod services;
mod trial;
mod upgrade;
mod window;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub(crate) use consent::{Answer, Consent, Mode, Occasion};
pub(crate) use decision::{Adjust, Checked, Decision, Fallback, Phase, Remedy, Target, Until};
#[cfg(test)]
pub(crate) use effect::samples;
use effect::{Assessment, assess};
pub(crate) use finding::{Finding, FindingKind, Proof};
pub(crate) use health::{Health, State, health};
pub(crate) use reason::{Loss, Mention, Reason, Restraint};
pub(crate) use repair::{RepairFor, Request, Wish, questions_of_repair, repair, request};
pub(crate) use trial::{Trial, trial};
pub(crate) use upgrade::{Questions, fallback, questions, target, upgrade};
pub(crate) use window::Window;

use crate::apt::Change;
use crate::host::path_text::PathText;
use crate::service::{Condition, Embedding, Service};
/// Part of a [`Wish`].
pub(crate) use crate::venv::Relax;
use crate::venv::Venv;

/// What the administrator wants for a venv.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Policy {
    /// Repair what can be repaired; keep the old minor version if a rebuild is not ready.
    #[default]
    Auto,
    /// Let no transaction change this venv's interpreter.
    Block,
    /// As auto, but rebuild instead of refreshing a copied interpreter, and block an upgrade that
    /// the venv is not ready for.
    Rebuild,
    /// Keep the minor version: pin to the old interpreter instead of rebuilding.
    Pin,
    /// Report what happens to the venv, and leave it alone.
    Warn,
    /// Leave it alone silently.
    Ignore,
}

impl Policy {
    /// Whether anything may be done about the venv.
    pub(crate) fn acts(self) -> bool {
        !matches!(self, Self::Warn | Self::Ignore)
    }

    /// Whether an upgrade may rebuild the venv, so that the administrator wants to know if it
    /// cannot.
    pub(crate) fn may_rebuild(self) -> bool {
        self.acts() && self != Self::Pin
    }
}

/// Whether running services are restarted without being asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RestartMode {
    #[default]
    Now,
    /// They keep running, and are listed until somebody restarts them.
    List,
    /// They keep running until a window opens.
    Window,
    /// They keep running, and that needs no attention.
    Never,
}

/// What a decision needs to know of a registered venv.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) policy: Policy,
    pub(crate) restart: RestartMode,
    /// The window that its services wait for, unless it is open.
    pub(crate) waits_for: Option<String>,
    pub(crate) venv: Venv,
    /// How long venvguard has pinned it, if it has: while its own minor version is the default one,
    /// it counts as following the default.
    pub(crate) pin: Option<Until>,
}

impl Subject {
    /// Whether it follows the default interpreter, even if venvguard has pinned it for now.
    pub(crate) fn follows(&self) -> bool {
        self.pin.is_some() || self.venv.follows()
    }

    /// The decision to do nothing.
    fn undecided(&self) -> Decision {
        Decision {
            id: self.id.clone(),
            name: self.name.clone(),
            path: PathText(self.venv.path.clone()),
            policy: self.policy,
            effect: Effect::None,
            change: None,
            remedy: Remedy::None,
            phase: Phase::Now,
            follows: self.follows(),
            pin_during_dpkg: false,
            services: Vec::new(),
            were_up: Vec::new(),
            check_before: None,
            blocks: false,
            reasons: Vec::new(),
        }
    }
}

/// The facts about a venv that a decision asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// `None` if a rebuild is out of the question.
    pub(crate) readiness: Option<Readiness>,
    /// The libraries of the system that it needs and the transaction removes.
    pub(crate) lost: Vec<Loss>,
    /// What breaks in it if it stays as it is, on its own minor version, as a rehearsal has found.
    pub(crate) breaks: Vec<Finding>,
    /// The system's files that name its `lib/pythonX.Y`.
    pub(crate) mentions: Vec<Mention>,
    /// The services that run out of it, declared or found.
    pub(crate) services: Vec<(Service, Condition)>,
    /// The units of users' own service managers that run out of it, each after its user.
    pub(crate) units_of_users: BTreeSet<(String, String)>,
    /// The services that ran out of it before the transaction, if they were recorded.
    pub(crate) were_up: Option<Vec<Service>>,
    /// The result of its check before the transaction, if that was recorded.
    pub(crate) check_before: Option<Checked>,
    /// The services that this machine does not let us restart unasked, and why.
    pub(crate) restrained: BTreeMap<Service, String>,
    pub(crate) is_shutting_down: bool,
    /// The program of Debian that runs the venv's code within itself, if one does.
    pub(crate) embedded_in: Option<Embedding>,
}

/// Whether a rebuild of a venv can be expected to work: its recipe is complete, an installer is
/// available, and its place allows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Its new tree is built and checked, and waits.
    Rehearsed,
    /// An index has a wheel of each distribution.
    Resolved,
    Ready,
    /// Why not.
    NotReady(Vec<Finding>),
}

/// The effect of the changes on one venv.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Effect {
    None,
    /// It works, but running processes have the old interpreter in memory.
    RestartOnly,
    /// Its copied interpreter is of another build than the library under it.
    Stale,
    /// Its `bin/python` runs another minor version than its packages are for.
    Orphaned,
    /// Its interpreter is removed.
    Stranded,
    /// A library of the system that its extension modules need is removed.
    Unlinked,
}

/// The decisions about a transaction, in the order in which the venvs are registered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub(crate) struct Plan {
    pub(crate) changes: Vec<Change>,
    pub(crate) decisions: Vec<Decision>,
}

/// The answer to apt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Allow,
    Repair,
    Block,
}

impl Plan {
    pub(crate) fn verdict(&self) -> Verdict {
        if self.decisions.iter().any(|decision| decision.blocks) {
            Verdict::Block
        } else {
            self.verdict_without_blocks()
        }
    }

    fn verdict_without_blocks(&self) -> Verdict {
        if self.decisions.iter().any(|decision| decision.remedy != Remedy::None) {
            Verdict::Repair
        } else {
            Verdict::Allow
        }
    }

    /// The decisions that do or report something.
    pub(crate) fn notable(&self) -> impl Iterator<Item = &Decision> {
        self.decisions
            .iter()
            .filter(|decision| decision.effect != Effect::None && decision.policy != Policy::Ignore)
    }
}

macro_rules! display_as_in_json {
    ($($type:ty),*) => {$(
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.serialize(f)
            }
        }
    )*};
}
display_as_in_json!(Policy, RestartMode, Effect, Verdict, State);
