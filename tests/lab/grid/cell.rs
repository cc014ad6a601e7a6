//! The axes of the grid and its cells.

use std::fmt;

/// The tool that creates a venv.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flavour {
    Venv,
    Virtualenv,
    Uv,
    Poetry,
    Pdm,
    Hatch,
    Pipenv,
    Pipx,
}

/// How the venv reaches the interpreter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Link {
    Followed,
    Pinned,
    Copied,
}

/// How its only package was installed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Install {
    /// By name, from an index that has a wheel.
    Wheel,
    /// By name, from an index that has a source archive only.
    Sdist,
    /// From a git repository.
    Vcs,
    /// From a directory, which stays where it is.
    Editable,
    /// From a wheel file.
    Local,
    /// No package: the venv is as its tool created it.
    None,
}

/// What happens to the interpreter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// A Debian revision of the same version.
    Revision,
    /// The next patches of the same minor version.
    Patch,
    /// The default becomes another minor version; the old one stays.
    Minor,
    /// The same, and later the old one is removed.
    Removed,
}

/// One venv of the grid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cell {
    pub(crate) flavour: Flavour,
    pub(crate) link: Link,
    pub(crate) install: Install,
}

impl Flavour {
    pub(crate) const ALL: [Self; 8] = [
        Self::Venv,
        Self::Virtualenv,
        Self::Uv,
        Self::Poetry,
        Self::Pdm,
        Self::Hatch,
        Self::Pipenv,
        Self::Pipx,
    ];

    /// Its name in venvguard's output and in the grid's scripts.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Venv => "venv",
            Self::Virtualenv => "virtualenv",
            Self::Uv => "uv",
            Self::Poetry => "poetry",
            Self::Pdm => "pdm",
            Self::Hatch => "hatch",
            Self::Pipenv => "pipenv",
            Self::Pipx => "pipx",
        }
    }
}

impl Link {
    pub(crate) const ALL: [Self; 3] = [Self::Followed, Self::Pinned, Self::Copied];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Followed => "followed",
            Self::Pinned => "pinned",
            Self::Copied => "copied",
        }
    }
}

impl Install {
    pub(crate) const ALL: [Self; 6] =
        [Self::Wheel, Self::Sdist, Self::Vcs, Self::Editable, Self::Local, Self::None];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Wheel => "wheel",
            Self::Sdist => "sdist",
            Self::Vcs => "vcs",
            Self::Editable => "editable",
            Self::Local => "local",
            Self::None => "none",
        }
    }
}

impl Change {
    pub(crate) const ALL: [Self; 4] = [Self::Revision, Self::Patch, Self::Minor, Self::Removed];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Revision => "revision",
            Self::Patch => "patch",
            Self::Minor => "minor",
            Self::Removed => "removed",
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.flavour.name(), self.link.name(), self.install.name())
    }
}

/// Every cell.
pub(crate) fn all() -> Vec<Cell> {
    let mut cells = Vec::new();
    for flavour in Flavour::ALL {
        for link in Link::ALL {
            cells.extend(Install::ALL.map(|install| Cell { flavour, link, install }));
        }
    }
    cells
}

/// A few cells that cover every value of every axis, and each tool once.
pub(crate) fn diagonal() -> Vec<Cell> {
    use {Flavour as F, Install as I, Link as L};
    let cell = |flavour, link, install| Cell { flavour, link, install };
    vec![
        cell(F::Venv, L::Copied, I::Sdist),
        cell(F::Virtualenv, L::Followed, I::None),
        cell(F::Uv, L::Followed, I::Editable),
        cell(F::Poetry, L::Pinned, I::Wheel),
        cell(F::Pdm, L::Followed, I::Local),
        cell(F::Hatch, L::Copied, I::Wheel),
        cell(F::Pipenv, L::Followed, I::Vcs),
        cell(F::Pipx, L::Pinned, I::Sdist),
    ]
}
