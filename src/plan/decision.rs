//! The value that is decided, printed, stored and executed.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Effect, Policy, Reason};
use crate::apt::Change;
use crate::host::path_text::{self, PathText};
use crate::host::tree::Identity;
use crate::python::{self, Interpreters, Minor};
use crate::service::Service;
use crate::venv::{BaseLink, Relax, Venv};

/// What is decided about one venv: everything that its execution needs.
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
    /// The venv belongs on the default interpreter, though it may be pinned now.
    pub(crate) follows: bool,
    /// It is pinned to its own minor version while dpkg runs, so that what starts in the middle
    /// of the upgrade runs the interpreter that its packages are for.
    pub(crate) pin_during_dpkg: bool,
    /// What runs out of the venv and is restarted.
    pub(crate) services: Vec<Service>,
    /// Those of them that ran before the transaction: one that fails now fails because of it.
    pub(crate) were_up: Vec<Service>,
    /// The transaction must not go on.
    pub(crate) blocks: bool,
    pub(crate) reasons: Vec<Reason>,
}

impl Decision {
    /// Whether the remedy is expected to work.
    pub(crate) fn ready(&self) -> bool {
        !self.blocks && self.remedy != Remedy::Impossible
    }

    /// The interpreter and the links that a rebuild ends with.
    pub(crate) fn target(&self) -> Option<Target> {
        match self.remedy {
            Remedy::Rebuild { target, .. } => Some(target),
            _ => None,
        }
    }

    /// Whether anything is done about the venv.
    pub(crate) fn acts(&self) -> bool {
        !matches!(self.remedy, Remedy::None | Remedy::Impossible)
    }
}

/// What is done about an effect.
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
    /// The word for it in JSON, without what it carries.
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
    /// Its policy is another one.
    Policy,
    /// Somebody rebuilds it: they rolled it back.
    Asked,
}

/// What has to be done to a previous environment before it is swapped in: in its place it must
/// never run an interpreter that its packages are not for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Adjust {
    Nothing,
    Pin,
    Unpin,
    Refresh,
}

/// What is left where a rebuild failed.
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
    /// dpkg has not run: the old interpreter is still there.
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
    /// Linked to `/usr/bin/python3`, and not to the interpreter of the minor version.
    pub(crate) follows: bool,
    pub(crate) copies: bool,
}

impl Target {
    /// For the default interpreter, linked to it as the venv was before.
    pub(crate) fn of_default(venv: &Venv, follows: bool, now: &Interpreters) -> Option<Self> {
        Some(Self::new(venv, follows, now.default?))
    }

    /// For the interpreter that somebody asks for, else for the venv's own: the default one for a
    /// venv that follows it or has lost its own.
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
