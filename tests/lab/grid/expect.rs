//! What must become of a cell: a function of the cell and the change only, independent of anything that venvguard
//! reports.

use super::cell::{Cell, Change, Flavour, Install, Link};

/// What must become of a venv.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Expected {
    /// No tool can create such a venv.
    Impossible(&'static str),
    /// It works as it is, and venvguard leaves it alone.
    Untouched,
    /// It gets new copies of its interpreter and the new version number, and keeps everything else.
    Refreshed,
    /// It is created again, for the new minor version.
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

/// What the venv's own manager must say afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Says {
    /// The same as before.
    Same,
    /// Something else, for this known reason.
    Otherwise(&'static str),
}

pub(crate) fn says(cell: Cell, change: Change) -> Says {
    let rebuilt = expected(cell, change) == Expected::Rebuilt;
    match (cell.flavour, cell.install, change) {
        (Flavour::Uv, Install::Local, _) if rebuilt => Says::Otherwise(
            "the copy of the wheel on the machine is newer than uv recorded; uv records it again",
        ),
        _ => Says::Same,
    }
}

/// Why no tool can create the cell's venv.
pub(crate) fn impossible(cell: Cell) -> Option<&'static str> {
    match (cell.flavour, cell.link, cell.install) {
        (Flavour::Uv, Link::Copied, _) => Some("uv always links the interpreter"),
        (Flavour::Pipx, Link::Copied, _) => Some("pipx always links the interpreter"),
        (Flavour::Poetry, Link::Followed, _) => Some("poetry resolves /usr/bin/python3"),
        (Flavour::Pipx, _, Install::None) => Some("pipx creates no venv without an application"),
        (Flavour::Pdm, _, Install::Vcs) => Some("pdm accepts no git repository at a file: URL"),
        _ => None,
    }
}

/// The tool that venvguard reports as the venv's creator afterwards.
pub(crate) fn flavour_after(cell: Cell, change: Change) -> Flavour {
    match (cell.flavour, expected(cell, change)) {
        // Root has no virtualenv to run, so the standard library creates it again.
        (Flavour::Virtualenv, Expected::Rebuilt) => Flavour::Venv,
        (flavour, _) => flavour,
    }
}

/// Whether uv is installed for the whole machine, or for the venvs' owner only. The changes differ, to test both.
pub(crate) fn roots_uv(change: Change) -> bool {
    change == Change::Removed
}

pub(crate) fn expected(cell: Cell, change: Change) -> Expected {
    if let Some(reason) = impossible(cell) {
        return Expected::Impossible(reason);
    }
    match (change, cell.link) {
        // Its packages are for a minor version that `/usr/bin/python3` no longer is, or its interpreter is removed.
        (Change::Minor, Link::Followed) | (Change::Removed, _) => Expected::Rebuilt,
        (Change::Revision | Change::Patch, Link::Copied) => Expected::Refreshed,
        // Otherwise uv would create it anew.
        (Change::Patch, _) if cell.flavour == Flavour::Uv => Expected::Refreshed,
        // A linked venv runs the new build without any change, and the old minor version remains for its venvs.
        _ => Expected::Untouched,
    }
}
