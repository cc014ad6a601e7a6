//! Deciding: what changes do to venvs, and what is done about it.
//!
//! Values in, values out. No file is read here, no clock, no process: what `plan` prints
//! is the value that `repair` executes.

mod effect;
mod health;
mod remedy;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[cfg(test)]
pub(crate) use effect::samples;
pub(crate) use effect::{Assessment, assess};
pub(crate) use health::{Health, State, health};
pub(crate) use remedy::{Phase, Readiness, decide, fallback};

use crate::apt::Change;
use crate::venv::Venv;

/// What the administrator wants for a venv.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Policy {
    /// Repair whatever can be repaired; keep the old minor version where a rebuild is not ready.
    #[default]
    Auto,
    /// Let no transaction change this venv's interpreter.
    Block,
    /// As auto, and rebuild instead of refreshing a copied interpreter.
    Rebuild,
    /// Keep the minor version: pin to the old interpreter instead of rebuilding.
    Pin,
    /// Say what happens to the venv, and leave it alone.
    Warn,
    /// Leave it alone silently.
    Ignore,
}

/// A registered venv, as far as a decision needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) policy: Policy,
    pub(crate) venv: Venv,
    /// Pinned by ourselves: where its own minor version is the default one, it counts as followed.
    pub(crate) pinned: bool,
}

/// What the changes do to one venv.
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
    /// Its interpreter goes away.
    Stranded,
}

/// What is done about an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Remedy {
    None,
    Restart,
    /// A new copy of the interpreter and its version in `pyvenv.cfg`, then a restart.
    Refresh,
    /// Pinned to the old minor version, which stays installed.
    Pin,
    /// Made again for the new interpreter, exchanged, restarted, checked.
    Rebuild,
    /// Nothing can be done; the reasons say why.
    Impossible,
}

/// What is decided about one venv.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub(crate) struct Decision {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) policy: Policy,
    pub(crate) effect: Effect,
    /// The change that has this effect.
    pub(crate) change: Option<Change>,
    pub(crate) remedy: Remedy,
    /// The remedy is carried out before dpkg runs, while the old interpreter still is there.
    pub(crate) before_dpkg: bool,
    /// The transaction must not go on.
    pub(crate) blocks: bool,
    pub(crate) reasons: Vec<String>,
}

impl Decision {
    /// Whether the remedy is expected to work.
    pub(crate) fn ready(&self) -> bool {
        !self.blocks && self.remedy != Remedy::Impossible
    }
}

/// What is decided about a transaction: ordered as the venvs are registered.
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
        } else if self.decisions.iter().any(|decision| decision.remedy != Remedy::None) {
            Verdict::Repair
        } else {
            Verdict::Allow
        }
    }

    /// The decisions by which something happens or is said.
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
display_as_in_json!(Policy, Effect, Remedy, Verdict, State);
