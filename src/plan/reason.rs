//! The reasons of a decision, as types. `report` puts them into words.

use serde::{Deserialize, Serialize};

use super::Finding;
use crate::host::path_text::PathText;
use crate::python::Minor;
use crate::service::Service;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Reason {
    /// Its base interpreter belongs to no Debian package.
    NotDebian(PathText),
    BrokenBefore,
    /// It was broken before this change, and the change repairs it.
    Mended,
    /// The default interpreter moves away from the minor version that its packages are for.
    DefaultMoves {
        to: Minor,
        site: Minor,
    },
    DefaultRemoved,
    /// The interpreter of this minor version is removed.
    Removed(Minor),
    /// Running processes keep the old interpreter in memory.
    OldInMemory,
    /// Its copied interpreter does not match the new standard library.
    CopyOutdated {
        breaks: bool,
    },
    PolicyBlocks,
    /// uv recreates a venv if the version in `pyvenv.cfg` differs from its interpreter's.
    UvCompares,
    /// The old interpreter is removed in the same transaction: a failed rebuild would leave the
    /// venv dead.
    NoWayBack,
    /// No other interpreter is installed that it could be rebuilt for beforehand.
    NoOtherInterpreter,
    /// Its new tree is built and checked, and waits.
    Rehearsed,
    /// An index has a wheel of each of its distributions for the new interpreter.
    Resolved,
    /// Why a rebuild cannot be expected to work.
    NotReady(Finding),
    /// A library that it needs is removed.
    Loses(Loss),
    /// This breaks if it stays as it is, on its own minor version.
    Breaks(Finding),
    /// A service that is not restarted, and why.
    LeftAlone {
        service: Service,
        why: String,
    },
    /// A running service that is not restarted unasked.
    NotUnasked {
        service: Service,
        restraint: Restraint,
    },
    /// Its services must be restarted with it, which nobody has asked for.
    RunsOn,
    /// A service that uses the venv and does not run.
    AtRest(Service),
    /// A unit of a user's own service manager that runs out of the venv.
    UnitOfUser {
        user: String,
        unit: String,
        restarts: bool,
    },
    /// A file of the system's configuration names a path that the rebuild removes.
    NamedIn(Mention),
    /// A program of Debian runs its code within itself, on the default minor version only.
    EmbeddedIn(PathText),
    /// The same, on the minor version that the program's module is built for.
    EmbeddedOn {
        program: PathText,
        minor: Minor,
    },
}

/// A library of the system that a venv loses, and the distribution that needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Loss {
    /// The Debian package of the library.
    pub(crate) package: String,
    pub(crate) finding: Finding,
}

/// A line of a file that names the library or the interpreter of a venv's minor version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mention {
    pub(crate) file: PathText,
    pub(crate) line: usize,
    /// The path that it names.
    pub(crate) name: PathText,
}

/// What keeps a service from being restarted unasked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Restraint {
    /// The restart mode of the venv.
    Listed,
    Never,
    /// The window that it waits for.
    Window(String),
    /// The machine's own settings.
    Machine(String),
    ShuttingDown,
}
