//! The lock files of uv, poetry, pdm, pipenv and pip: the version of each distribution that a
//! project wants, and the hashes of its files.
//!
//! A lock does not decide what is installed; the versions installed before do. It adds hashes to
//! exactly these versions, so that a rebuild takes the same files, and versions for additional
//! distributions that a new interpreter needs. A lock that a person names (`register --lock`)
//! decides the versions too.

mod formats;

use std::collections::{BTreeMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::text::{FileName, Hash, Name, PackageVersion, Url};
use super::{Flavour, Recipe, Venv, normalized};
use crate::host::file::{self, ReadError, printable};
use crate::host::{Dir, Root};
use crate::python::Minor;

/// The locks of very large projects have half of this. Each byte may take thirty in memory when it
/// is read, and root reads it.
const LIMIT: u64 = 6 << 20;

/// The file in which pipenv records the project of a venv that is elsewhere.
const PROJECT: &str = ".project";

/// The content of a lock file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProjectLock {
    pub(crate) path: PathBuf,
    /// By normalized name. A lock for several platforms may have several versions.
    packages: BTreeMap<String, Vec<Locked>>,
}

/// One version of a distribution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Locked {
    pub(crate) version: PackageVersion,
    pub(crate) files: Vec<Distfile>,
}

/// A file that a distribution may be installed from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Distfile {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<FileName>,
    /// Its address, if the lock has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<Url>,
    pub(crate) hash: Hash,
}

impl Distfile {
    pub(super) fn is_wheel(&self) -> bool {
        self.name.as_ref().is_none_or(|name| name.to_string().strip_suffix(".whl").is_some())
    }

    /// Whether an interpreter can install it, judging by its name (see the "binary distribution
    /// format": `…-PYTHON-ABI-PLATFORM.whl`).
    pub(super) fn suits(&self, minor: Minor) -> bool {
        let Some(name) = self.name.as_ref().map(ToString::to_string) else { return true };
        let Some(stem) = name.strip_suffix(".whl") else { return true };
        let mut tags = stem.rsplit('-');
        let (Some(platform), Some(abi), Some(python)) = (tags.next(), tags.next(), tags.next())
        else {
            return false;
        };
        platform.split('.').any(is_debians)
            && abi.split('.').any(|abi| python.split('.').any(|python| takes(minor, python, abi)))
    }
}

/// Whether a platform tag may be that of a Debian system; the processor is not checked.
fn is_debians(platform: &str) -> bool {
    platform == "any" || platform.starts_with("linux") || platform.starts_with("manylinux")
}

/// Whether an interpreter accepts a wheel with these tags, as pip's `packaging.tags` lists them:
/// a wheel for a minor version and the stable ABI is valid for all later minor versions, and so
/// is a pure Python one.
fn takes(minor: Minor, python: &str, abi: &str) -> bool {
    let exact = format!("cp{}", minor.to_string().replace('.', ""));
    let is_for = |kind: &str| {
        let number = python.strip_prefix(kind).and_then(|rest| rest.strip_prefix('3'));
        number
            .and_then(|number| number.parse().ok())
            .is_some_and(|number: u8| number <= minor.minor)
    };
    match abi {
        "none" => python == exact || python == "py3" || is_for("py"),
        "abi3" => is_for("cp"),
        // Before 3.8 the ABI tag had an additional letter.
        abi => python == exact && abi.trim_end_matches('m') == exact,
    }
}

/// Why a lock was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{}, line {line}: not a valid lock file of this kind", printable(.path))]
    Damaged { path: PathBuf, line: usize },
    #[error("{}: not the name of a lock file (known: uv.lock, poetry.lock, pdm.lock, Pipfile.lock, pylock.toml, and requirements with hashes as .txt)", printable(.path))]
    Unknown { path: PathBuf },
}

impl ProjectLock {
    /// The lock of the project that a venv was created for, if there is one of its creator.
    pub(crate) fn beside(root: &Root, venv: &Venv) -> Result<Option<Self>, LockError> {
        let names: &[&str] = match venv.flavour {
            Flavour::Uv => &["uv.lock", "pylock.toml", "requirements.txt"],
            Flavour::Poetry => &["poetry.lock"],
            Flavour::Pdm => &["pdm.lock", "pylock.toml"],
            Flavour::Pipenv => &["Pipfile.lock"],
            // poetry and pdm create their venvs with it.
            Flavour::Virtualenv => &["poetry.lock", "pdm.lock", "pylock.toml", "requirements.txt"],
            Flavour::Venv | Flavour::LegacyVirtualenv => &["pylock.toml", "requirements.txt"],
            Flavour::Hatch | Flavour::Pipx => &[],
        };
        let Some(dir) = project(root, venv) else { return Ok(None) };
        for name in names {
            let path = dir.join(name);
            // The owner determines the directory, so read only what they may read.
            let bytes = Dir::readable_file(venv.uid, &root.at(&path))
                .and_then(|file| file::read_open(file, &path, LIMIT));
            match bytes.map_err(LockError::from).and_then(|bytes| Self::parse(&path, &bytes)) {
                // Requirements without hashes are not a lock.
                Ok(lock) if lock.packages.is_empty() => {}
                Ok(lock) => return Ok(Some(lock)),
                Err(LockError::Read(error)) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The lock that was named for a venv.
    pub(crate) fn read(root: &Root, path: &Path) -> Result<Self, LockError> {
        let real = root.at(path);
        let io = |source| ReadError::Io { path: path.to_path_buf(), source };
        let (dir, name) = real
            .parent()
            .zip(real.file_name())
            .ok_or_else(|| io(ErrorKind::IsADirectory.into()))?;
        Self::parse(path, &Dir::open(dir).map_err(io)?.read(name, LIMIT)?)
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, LockError> {
        let text = String::from_utf8_lossy(bytes);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let packages = match &*name {
            "uv.lock" => formats::of_uv(&text),
            "poetry.lock" => formats::of_poetry(&text),
            "pdm.lock" => formats::of_pdm(&text),
            "Pipfile.lock" => formats::of_pipenv(&text),
            name if is_pylock(name) => formats::of_pylock(&text),
            name if name.strip_suffix(".txt").is_some() => Ok(formats::of_requirements(&text)),
            _ => return Err(LockError::Unknown { path: path.to_path_buf() }),
        };
        let packages =
            packages.map_err(|line| LockError::Damaged { path: path.to_path_buf(), line })?;
        let mut by_name: BTreeMap<String, Vec<Locked>> = BTreeMap::new();
        for (name, locked) in packages {
            // An invalid name belongs to no distribution.
            if Name::try_from(name.clone()).is_ok() {
                by_name.entry(normalized(&name)).or_default().push(locked);
            }
        }
        Ok(Self { path: path.to_path_buf(), packages: by_name })
    }

    /// Its versions of a distribution.
    pub(crate) fn versions(&self, name: &str) -> &[Locked] {
        self.packages.get(&normalized(name)).map_or(&[], Vec::as_slice)
    }

    /// `name==version` for each distribution with a single version, except those in `recipe`:
    /// additional distributions that a new interpreter needs get this version.
    pub(crate) fn constraints(&self, recipe: &Recipe) -> String {
        let there: HashSet<String> = recipe
            .requirements
            .iter()
            .map(|requirement| normalized(&requirement.name.to_string()))
            .collect();
        self.packages
            .iter()
            .filter(|(name, _)| !there.contains(*name))
            .filter_map(|(name, versions)| match versions.as_slice() {
                [only] => Some(format!("{name}=={}\n", only.version)),
                _ => None,
            })
            .collect()
    }
}

/// `pylock.toml`, or `pylock.NAME.toml`.
fn is_pylock(name: &str) -> bool {
    name.strip_prefix("pylock.").is_some_and(|rest| {
        rest == "toml" || rest.strip_suffix(".toml").is_some_and(|name| !name.contains('.'))
    })
}

/// The directory of the project that a venv belongs to.
fn project(root: &Root, venv: &Venv) -> Option<PathBuf> {
    if venv.flavour == Flavour::Pipenv {
        use std::os::unix::ffi::OsStringExt;
        let bytes = file::read_untrusted(&root.at(venv.path.join(PROJECT)), 4096).ok()?;
        let path = PathBuf::from(std::ffi::OsString::from_vec(bytes.trim_ascii().to_vec()));
        if path.is_absolute() {
            return Some(path);
        }
    }
    Some(venv.path.parent()?.to_path_buf())
}

#[cfg(test)]
mod tests;
