//! The decision about a venv: a value that is made, printed, stored and executed.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Effect, Finding, Loss, Policy, Proof, Reason, Restraint};
use crate::apt::Change;
use crate::host::path_text::{self, PathText};
use crate::host::tree::Identity;
use crate::python::{self, Interpreters, Minor};
use crate::service::Service;
use crate::venv::{BaseLink, Relax, Venv};

/// The decision about one venv, with everything that its execution needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[must_use]
pub(crate) struct Decision {
    pub(crate) id: String,
    pub(crate) name: String,
    #[serde(deserialize_with = "path_text::absolute")]
    pub(crate) path: PathText,
    pub(crate) policy: Policy,
    pub(crate) effect: Effect,
    /// The change that has this effect.
    pub(crate) change: Option<Change>,
    pub(crate) remedy: Remedy,
    /// When the remedy is carried out.
    pub(crate) phase: Phase,
    /// The venv follows the default interpreter, even if venvguard has pinned it for now.
    pub(crate) follows: bool,
    /// It is pinned to its own minor version while dpkg runs, so that a program that starts in the
    /// middle of the upgrade runs the interpreter that its packages are for.
    pub(crate) pin_during_dpkg: bool,
    /// The services that run out of the venv and are restarted.
    pub(crate) services: Vec<Service>,
    /// Those of them that ran before the transaction: if one fails now, the transaction caused it.
    pub(crate) were_up: Vec<Service>,
    /// The result of the venv's check before the transaction, if it was run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) check_before: Option<Checked>,
    /// The transaction must not go on.
    pub(crate) blocks: bool,
    pub(crate) reasons: Vec<Reason>,
}

impl Decision {
    /// Whether the venv is expected to work after the upgrade without anybody's help.
    pub(crate) fn ready(&self) -> bool {
        !self.blocks && self.remedy != Remedy::Impossible && self.findings().next().is_none()
    }

    /// Why a rebuild cannot be expected to work.
    pub(crate) fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.reasons.iter().filter_map(|reason| match reason {
            Reason::NotReady(finding)
            | Reason::Breaks(finding)
            | Reason::Loses(Loss { finding, .. }) => Some(finding),
            _ => None,
        })
    }

    /// The program that runs the venv's code on the default interpreter, whatever the venv's own is.
    pub(crate) fn embedded_in(&self) -> Option<&Reason> {
        self.reasons.iter().find(|reason| matches!(reason, Reason::EmbeddedIn(_)))
    }

    /// How well that is known.
    pub(crate) fn proof(&self) -> Proof {
        let has = |reason| self.reasons.contains(&reason);
        match () {
            () if has(Reason::Rehearsed) => Proof::Rehearsed,
            () if has(Reason::Resolved) => Proof::Resolved,
            () => Proof::None,
        }
    }

    /// The interpreter and the links that a rebuild ends with.
    pub(crate) fn target(&self) -> Option<Target> {
        match self.remedy {
            Remedy::Rebuild { target, .. } => Some(target),
            _ => None,
        }
    }

    /// Whether services keep running the old interpreter: a check of them says nothing about the
    /// venv.
    pub(crate) fn leaves_services_running(&self) -> bool {
        self.reasons.iter().any(|reason| matches!(reason, Reason::NotUnasked { .. }))
    }

    /// Whether services wait for a window.
    pub(crate) fn waits(&self) -> bool {
        let waits = |reason: &Reason| {
            matches!(reason, Reason::NotUnasked { restraint: Restraint::Window(_), .. })
        };
        self.reasons.iter().any(waits)
    }

    /// Whether the decision does anything about the venv.
    pub(crate) fn acts(&self) -> bool {
        !matches!(self.remedy, Remedy::None | Remedy::Impossible)
    }
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Checked {
    Passed,
    /// Why it failed.
    Failed(String),
}

/// What to do about an effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Remedy {
    None,
    Restart,
    /// Copy the interpreter and its version in `pyvenv.cfg` again, then restart.
    Refresh,
    /// Point the venv at the interpreter of a minor version that stays installed.
    Pin {
        to: Minor,
        until: Until,
        /// The interpreter of that minor version changed too: all services are restarted.
        outdated: bool,
    },
    /// Build a new tree for another interpreter, swap it in, restart, check.
    Rebuild {
        target: Target,
        relax: Option<Relax>,
    },
    /// Swap a previous environment back in.
    Restore {
        #[serde(deserialize_with = "path_text::absolute")]
        tree: PathText,
        identity: Identity,
        minor: Minor,
        adjust: Adjust,
    },
    /// Nothing can be done; the reasons say why.
    Impossible,
}

impl Remedy {
    /// Its name in JSON, without its fields.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Restart => "restart",
            Self::Refresh => "refresh",
            Self::Pin { .. } => "pin",
            Self::Rebuild { .. } => "rebuild",
            Self::Restore { .. } => "restore",
            Self::Impossible => "impossible",
        }
    }
}

/// How long a venv stays pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Until {
    /// The end of the apt run.
    Transaction,
    /// A rebuild of it succeeds.
    Rebuilt,
    /// Somebody rebuilds it: its services have failed with the new tree.
    RebuiltByHand,
    /// Its policy changes.
    Policy,
    /// Somebody rebuilds it, having rolled it back.
    Asked,
}

/// How to adjust a previous environment before it is swapped in: once in place, it must never run
/// an interpreter that its packages are not for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Adjust {
    Nothing,
    Pin,
    Unpin,
    Refresh,
}

/// What makes a venv work after a failed rebuild.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Fallback {
    Pin,
    Refresh,
}

/// When a remedy is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Phase {
    /// dpkg has not run: the old interpreter is still installed.
    BeforeDpkg,
    AfterDpkg,
    /// No transaction is involved.
    Now,
}

/// What a rebuild ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Target {
    pub(crate) minor: Minor,
    /// Linked to `/usr/bin/python3`, not to the interpreter of the minor version.
    pub(crate) follows: bool,
    pub(crate) copies: bool,
}

impl Target {
    /// For the default interpreter, linked to it as the venv was before.
    pub(crate) fn of_default(venv: &Venv, follows: bool, now: &Interpreters) -> Option<Self> {
        Some(Self::new(venv, follows, now.default?))
    }

    /// For the interpreter that somebody asks for. Otherwise for the venv's own one, or for the
    /// default one if the venv follows it or has lost its own.
    pub(crate) fn asked_for(
        venv: &Venv,
        follows: bool,
        now: &Interpreters,
        wanted: Option<Minor>,
    ) -> Option<Self> {
        match wanted {
            Some(minor) => Some(Self::new(venv, follows && now.default == Some(minor), minor)),
            None if follows || now.get(venv.site).is_none() => Self::of_default(venv, follows, now),
            None => Some(Self::new(venv, false, venv.site)),
        }
    }

    fn new(venv: &Venv, follows: bool, minor: Minor) -> Self {
        let copies = venv.base.link == BaseLink::Copied;
        Self { minor, follows: follows && !copies, copies }
    }

    /// The interpreter that creates the new tree.
    pub(crate) fn interpreter(self) -> PathBuf {
        if self.follows { python::DEFAULT.into() } else { python::path_of(self.minor) }
    }
}
