//! Why something is decided: typed here, put into words by `report`.

use serde::{Deserialize, Serialize};

use crate::host::path_text::PathText;
use crate::python::Minor;
use crate::service::Service;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Reason {
    /// Its base interpreter belongs to no Debian package.
    NotDebian(PathText),
    BrokenBefore,
    /// It was broken before this change, which mends it.
    Mended,
    /// The default interpreter will be another one than its packages are for.
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
    /// uv recreates a venv whose `pyvenv.cfg` names another version than its interpreter's.
    UvCompares,
    /// The old interpreter is removed in the same transaction: a rebuild that fails would leave
    /// the venv dead.
    NoWayBack,
    /// No other interpreter is installed for which it could be rebuilt beforehand.
    NoOtherInterpreter,
    /// Why a rebuild cannot be expected to work.
    NotReady(String),
    /// A service that is not restarted, and why.
    LeftAlone {
        service: Service,
        why: String,
    },
}
