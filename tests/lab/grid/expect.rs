//! What has to become of a cell, in the test's own words: a function of the cell and the change, and of nothing that
//! venvguard says.

use super::cell::{Cell, Change, Flavour, Install, Link};

/// What has to become of a venv.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Expected {
    /// Nobody can make such a venv.
    Impossible(&'static str),
    /// It works as it is, and is left as it is.
    Untouched,
    /// It gets new copies of its interpreter and its version, and keeps all else.
    Refreshed,
    /// It is made again, for the new minor version.
    Rebuilt,
}

impl Expected {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Impossible(_) => "-",
            Self::Untouched => "untouched",
            Self::Refreshed => "refreshed",
            Self::Rebuilt => "rebuilt",
        }
    }
}

/// What the venv's own manager has to say afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Says {
    /// What it said before.
    Same,
    /// Something else, which is known and has this reason.
    Otherwise(&'static str),
}

pub(crate) fn says(cell: Cell, change: Change) -> Says {
    let rebuilt = expected(cell, change) == Expected::Rebuilt;
    match (cell.flavour, cell.install, change) {
        (Flavour::Uv, Install::Local, _) if rebuilt => Says::Otherwise(
            "copied into the machine, the wheel is newer than uv noted; uv notes it again",
        ),
        _ => Says::Same,
    }
}

/// Why a venv cannot be made as the cell wants it.
pub(crate) fn impossible(cell: Cell) -> Option<&'static str> {
    match (cell.flavour, cell.link, cell.install) {
        (Flavour::Uv, Link::Copied, _) => Some("uv always links the interpreter"),
        (Flavour::Pipx, Link::Copied, _) => Some("pipx always links the interpreter"),
        (Flavour::Poetry, Link::Followed, _) => Some("poetry resolves /usr/bin/python3"),
        (Flavour::Pipx, _, Install::None) => Some("pipx makes no venv without an application"),
        (Flavour::Pdm, _, Install::Vcs) => Some("pdm takes no git repository by a file: URL"),
        _ => None,
    }
}

/// Who is said to have made it, afterwards.
pub(crate) fn flavour_after(cell: Cell, change: Change) -> Flavour {
    match (cell.flavour, expected(cell, change)) {
        // What root has not, root does not run: the standard library makes it again.
        (Flavour::Virtualenv, Expected::Rebuilt) => Flavour::Venv,
        (flavour, _) => flavour,
    }
}

/// Whether uv is installed for the whole machine, and not for its owner alone: so both are tried.
pub(crate) fn roots_uv(change: Change) -> bool {
    change == Change::Removed
}

pub(crate) fn expected(cell: Cell, change: Change) -> Expected {
    if let Some(reason) = impossible(cell) {
        return Expected::Impossible(reason);
    }
    match (change, cell.link) {
        // Its packages are for a minor version that `/usr/bin/python3` no longer is, or its interpreter is gone.
        (Change::Minor, Link::Followed) | (Change::Removed, _) => Expected::Rebuilt,
        (Change::Revision | Change::Patch, Link::Copied) => Expected::Refreshed,
        // uv would make it anew.
        (Change::Patch, _) if cell.flavour == Flavour::Uv => Expected::Refreshed,
        // What links to an interpreter runs the new build by itself, and what hangs on the old minor version has it.
        _ => Expected::Untouched,
    }
}
