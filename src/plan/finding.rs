//! What a rehearsal finds out about a venv, as types.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a venv does not work with another interpreter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Finding {
    /// The distribution at fault, if it is known.
    pub(crate) distribution: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) kind: FindingKind,
    pub(crate) detail: String,
    /// The nearest version that can be installed.
    pub(crate) works_from: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FindingKind {
    /// The version has no wheel for the interpreter, and cannot be built.
    NoWheel,
    /// Its metadata allows no version of Python of this minor version.
    RequiresPython,
    /// The installer fails.
    BuildFailed,
    /// Another version is installed.
    Different,
    /// A module can no longer be imported.
    Import,
    /// A program can no longer be started.
    Script,
    /// It imports a module of the standard library that is gone.
    RemovedModule,
    /// Code that is in use needs a name of the standard library that is gone.
    RemovedName,
    /// An extension module needs a library of the system that is removed.
    LostLibrary,
    /// A file of the system's configuration names a path that the rebuild removes. The venv itself
    /// works.
    Path,
    /// A program of Debian runs the venv's code within itself, on one minor version only.
    Embedded,
    /// The interpreter crashes, hangs, or does not start.
    Interpreter,
    /// The venv cannot be rebuilt where it is, or from what is known.
    Obstacle,
    /// It could not be tried. That says nothing about the venv.
    Untried,
}

impl Finding {
    /// A finding about the venv as a whole.
    pub(crate) fn of_venv(kind: FindingKind, detail: impl Into<String>) -> Self {
        let (distribution, version, works_from) = (None, None, None);
        Self { distribution, version, kind, detail: detail.into(), works_from }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A detail that begins with the distribution names it already.
        let named = self.distribution.iter().filter(|name| !self.detail.starts_with(name.as_str()));
        for name in named {
            write!(f, "{name}")?;
            self.version.iter().try_for_each(|version| write!(f, " {version}"))?;
            f.write_str(": ")?;
        }
        f.write_str(&self.detail)
    }
}

/// How well it is known that a venv works with an interpreter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Proof {
    /// It was not tried.
    None,
    /// An index has a wheel of each distribution for the interpreter. None was tried.
    Resolved,
    /// The venv as it is was checked with the interpreter.
    Smoke,
    /// A new tree was built and checked with the interpreter, and waits.
    Rehearsed,
}
