//! The base interpreters in `/usr/bin`, their versions and packages.
//!
//! Nothing here runs an interpreter: versions and build-ids are read from the file.

mod dpkg;
mod elf;
#[cfg(test)]
mod input;
mod removed;
mod snapshot;
mod version;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub(crate) use dpkg::{files_of, package_of_venv, unsettled};
#[cfg(test)]
pub(crate) use elf::sample;
pub(crate) use elf::{Binary, ElfError, needed_libraries, read_binary, read_opened};
pub(crate) use removed::{removed_between, removed_in};
pub(crate) use snapshot::{SnapshotError, debian_minor, look, unchanged};
pub(crate) use version::{Minor, Version, VersionError, is_debian_version};

use crate::host::FileIdentity;

/// The default interpreter's path: a link to that of the default minor version.
pub(crate) const DEFAULT: &str = "/usr/bin/python3";

/// A GNU build-id: equal for two files exactly if they come from the same build.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct BuildId(pub(crate) String);

/// A Debian package and its version, as dpkg writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// One interpreter that a Debian package owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Interpreter {
    pub(crate) version: Version,
    pub(crate) package: Package,
    /// `None` if the file has none, and for an interpreter that is yet to be installed.
    pub(crate) build_id: Option<BuildId>,
    /// `None` for an interpreter that is yet to be installed.
    pub(crate) identity: Option<FileIdentity>,
}

/// The interpreters of a system at one moment: the current ones, or those after a transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Interpreters {
    /// The target of `/usr/bin/python3`.
    pub(crate) default: Option<Minor>,
    /// By minor version: `/usr/bin/python3.11` and the like.
    pub(crate) installed: BTreeMap<Minor, Interpreter>,
}

impl Interpreters {
    /// Forgets in which files the interpreters are.
    pub(crate) fn forget_files(&mut self) {
        self.installed.values_mut().for_each(|one| one.identity = None);
    }

    pub(crate) fn get(&self, minor: Minor) -> Option<&Interpreter> {
        self.installed.get(&minor)
    }

    /// The interpreter that `/usr/bin/python3` leads to.
    pub(crate) fn default_interpreter(&self) -> Option<&Interpreter> {
        self.get(self.default?)
    }
}

/// The path where Debian installs the interpreter of a minor version.
pub(crate) fn path_of(minor: Minor) -> PathBuf {
    Path::new("/usr/bin").join(minor.program())
}

impl fmt::Display for Interpreter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} {})", self.version, self.package.name, self.package.version)
    }
}
