//! Venvs: their state on disk, read without running anything in them.

mod additions;
mod base;
mod compiled;
mod configuration;
mod creator;
mod difference;
mod distribution;
mod foreign;
#[cfg(test)]
mod input;
mod inspect;
mod lock;
mod modified;
mod needs;
mod origin;
mod recipe;
mod record;
mod relax;
mod required;
mod requirements;
mod scan;
mod text;

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub(crate) use additions::Additions;
pub(crate) use base::base_interpreter_link;
pub(crate) use compiled::Compiled;
pub(crate) use configuration::stated_version;
pub(crate) use creator::{CARRIED, is_creators_script};
pub(crate) use difference::{Difference, Differences};
pub(crate) use distribution::{Distribution, distributions, normalized, top_level_modules_of};
pub(crate) use foreign::{ForeignKind, foreign_files};
pub(crate) use inspect::{NotAVenv, inspect};
pub(crate) use lock::{LockError, ProjectLock};
pub(crate) use modified::{has_hash, isolated_programs, modified_files};
pub(crate) use needs::{Need, needs};
pub(crate) use origin::Origin;
pub(crate) use recipe::{
    Exact, Recipe, RecipeError, Requirement, Source, Unreproducible, comes_with_every_venv,
};
pub(crate) use relax::{Nearest, Relax, nearest};
pub(crate) use required::required_on_some_pythons;
pub(crate) use requirements::{RequirementsError, require_requirements};
pub(crate) use scan::scan;

use crate::host::path_text::PathText;
use crate::python::{BuildId, Interpreters, Minor, Version};

/// The tool that created a venv, which determines how to create it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Flavour {
    Venv,
    Virtualenv,
    /// virtualenv before 20: no pyvenv.cfg, the interpreter always a copy.
    LegacyVirtualenv,
    Uv,
    Poetry,
    Pdm,
    Hatch,
    Pipenv,
    Pipx,
}

/// How a venv's `bin/python` reaches its base interpreter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum BaseLink {
    /// Through `/usr/bin/python3`: it moves with the default minor version.
    Followed,
    /// Through `/usr/bin/python3.11`: it stays on that version as long as it is installed.
    Pinned,
    /// A regular file: the copy stays the same, but the library that it uses does not.
    Copied,
    /// The link leads nowhere.
    Dangling,
}

/// The interpreter a venv runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BaseInterpreter {
    pub(crate) link: BaseLink,
    /// The first path outside the venv that `bin/python` links to (`/usr/bin/python3`,
    /// `/usr/bin/python3.11`); for a copy the interpreter it was copied from
    /// (`/usr/bin/python3.11`, by its minor version).
    pub(crate) path: PathBuf,
    /// The minor version that runs. `None` if the link dangles and nothing else reveals it.
    pub(crate) minor: Option<Minor>,
    /// The interpreter's own version, if it could be read.
    pub(crate) version: Option<Version>,
    /// For a copied interpreter: every regular-file interpreter in `bin`, with its build-id.
    pub(crate) copies: Vec<CopiedInterpreter>,
    /// Whether the base interpreter is at a path of Debian's (`/usr/bin/python3*`). If not
    /// (pyenv, conda, uv-managed, /usr/local), venvguard leaves the venv alone.
    pub(crate) is_debian: bool,
}

/// A copied interpreter in a venv's `bin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CopiedInterpreter {
    /// Its name in `bin`.
    pub(crate) name: PathBuf,
    pub(crate) version: Option<Version>,
    pub(crate) build_id: Option<BuildId>,
}

/// A virtual environment on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Venv {
    pub(crate) path: PathBuf,
    pub(crate) flavour: Flavour,
    pub(crate) base: BaseInterpreter,
    /// The minor version whose `lib/pythonX.Y/site-packages` contains the distributions.
    pub(crate) site: Minor,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
    pub(crate) system_site_packages: bool,
    pub(crate) prompt: Option<String>,
}

/// What it takes to distinguish a tree's user files from those that its creator and its
/// installers wrote. A tree that is being built, or that is aside, has one too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Layout {
    path: PathText,
    pub(crate) site: Minor,
    pub(crate) flavour: Flavour,
}

impl Layout {
    pub(crate) fn new(path: &Path, site: Minor, flavour: Flavour) -> Self {
        Self { path: path.into(), site, flavour }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path.0
    }

    pub(crate) fn site_packages(&self) -> PathBuf {
        site_packages(self.path(), self.site)
    }
}

impl Venv {
    pub(crate) fn layout(&self) -> Layout {
        Layout::new(&self.path, self.site, self.flavour)
    }

    /// The minor version of Debian's interpreter that the venv runs now.
    pub(crate) fn runs(&self, now: &Interpreters) -> Option<Minor> {
        let minor =
            if self.base.link == BaseLink::Followed { now.default } else { self.base.minor };
        minor.filter(|_| self.base.is_debian)
    }

    /// Whether it follows the default interpreter, installed or not.
    pub(crate) fn follows(&self) -> bool {
        match self.base.link {
            BaseLink::Followed => true,
            BaseLink::Dangling => self.base.path == Path::new(crate::python::DEFAULT),
            BaseLink::Pinned | BaseLink::Copied => false,
        }
    }

    pub(crate) fn site_packages(&self) -> PathBuf {
        site_packages(&self.path, self.site)
    }
}

/// The part of a name that marks a directory beside a venv as a tree of venvguard.
pub(crate) const ASIDE: &str = ".venvguard-";

/// The venv that a tree beside it was or will become: `.NAME.venvguard-TIME` belongs to `NAME`.
pub(crate) fn venv_of_aside(tree: &Path) -> Option<PathBuf> {
    let name = tree.file_name()?.as_bytes().strip_prefix(b".")?;
    let mark = name.windows(ASIDE.len()).rposition(|part| part == ASIDE.as_bytes())?;
    let name = name.get(..mark).filter(|name| !name.is_empty())?;
    Some(tree.with_file_name(OsStr::from_bytes(name)))
}

/// `lib/pythonX.Y/site-packages` of a venv.
pub(crate) fn site_packages(venv: &Path, minor: Minor) -> PathBuf {
    venv.join("lib").join(minor.program()).join("site-packages")
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Venv => "venv",
            Self::Virtualenv => "virtualenv",
            Self::LegacyVirtualenv => "legacy-virtualenv",
            Self::Uv => "uv",
            Self::Poetry => "poetry",
            Self::Pdm => "pdm",
            Self::Hatch => "hatch",
            Self::Pipenv => "pipenv",
            Self::Pipx => "pipx",
        })
    }
}

impl fmt::Display for BaseLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Followed => "followed",
            Self::Pinned => "pinned",
            Self::Copied => "copied",
            Self::Dangling => "dangling",
        })
    }
}
