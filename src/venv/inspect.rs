//! Inspects a path: whether it is a venv, its creator and its interpreter; or why it is not one.
//!
//! Nothing in the venv is run, no link in it is followed, and only small files and copied
//! interpreters are opened.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::base::{Claims, base};
use super::configuration::{self, Configuration};
use super::{Flavour, Venv};
use crate::host::file::printable;
use crate::host::root::normal;
use crate::host::{Dir, ReadError, Root};
use crate::python::Minor;

/// The limit of a file that contains one path.
const PATH_LIMIT: u64 = 8 << 10;

/// Why a path is not a venv that venvguard can guard.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAVenv {
    #[error("{}: no such directory", printable(.0))]
    Missing(PathBuf),
    #[error("{} is not a directory", printable(.0))]
    NotADirectory(PathBuf),
    #[error("{} is a link to {}: name the directory itself", printable(.path), printable(.target))]
    Link { path: PathBuf, target: PathBuf },
    #[error("{} is a conda environment, which has an interpreter of its own", printable(.0))]
    Conda(PathBuf),
    #[error("{} contains neither a pyvenv.cfg nor the orig-prefix.txt of an old virtualenv", printable(.0))]
    NoConfiguration(PathBuf),
    #[error("{} contains a pyvenv.cfg, but neither an interpreter nor a library", printable(.0))]
    Remains(PathBuf),
    #[error("cannot read its configuration: {0}")]
    Configuration(ReadError),
    #[error("venvguard refuses it: {0}")]
    Refused(String),
    #[error("cannot inspect {}: {source}", printable(.path))]
    Io { path: PathBuf, source: io::Error },
}

/// Inspects the venv at `path`.
pub(crate) fn inspect(root: &Root, path: &Path) -> Result<Venv, NotAVenv> {
    let path = normal(path);
    let real = root.at(&path);
    let dir = open(&real, &path)?;
    let configuration = configuration(&dir)?;
    let libraries = Libraries::of(&dir);
    let legacy = match configuration {
        Some(_) => None,
        None => libraries.minors.iter().find_map(|minor| Legacy::of(&libraries.dir(*minor)?)),
    };
    if configuration.is_none() && legacy.is_none() {
        return Err(match dir.kind("conda-meta") {
            Some(FileType::Directory) => NotAVenv::Conda(path),
            _ => NotAVenv::NoConfiguration(path),
        });
    }
    let claims = Claims {
        configuration: configuration.as_ref(),
        original_prefix: legacy.as_ref().map(|legacy| legacy.prefix.as_path()),
        library: libraries.minors.iter().copied().max(),
    };
    let bin = dir.dir("bin").ok();
    let base = base(root, &path, bin.as_ref(), &claims);
    let claimed = configuration.as_ref().and_then(Configuration::minor);
    let Some(site) = site(&libraries, claimed.or(base.minor)).or(base.minor).or(claimed) else {
        return Err(NotAVenv::Remains(path));
    };
    let stat = dir.own_stat().map_err(|source| NotAVenv::Io { path: path.clone(), source })?;
    Ok(Venv {
        flavour: flavour(&dir, &real, &path, configuration.as_ref()),
        base,
        site,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mode: stat.st_mode & 0o7777,
        system_site_packages: match (&configuration, &legacy) {
            (Some(configuration), _) => configuration.is_true("include-system-site-packages"),
            (None, legacy) => legacy.as_ref().is_some_and(|legacy| legacy.system_site_packages),
        },
        prompt: configuration.and_then(|configuration| configuration.prompt()),
        path,
    })
}

fn open(real: &Path, path: &Path) -> Result<Dir, NotAVenv> {
    Dir::open_to_look(real).map_err(|source| {
        let path = path.to_path_buf();
        match std::fs::read_link(real) {
            Ok(target) => NotAVenv::Link { path, target },
            Err(_) if source.kind() == io::ErrorKind::NotFound => NotAVenv::Missing(path),
            Err(_) if source.kind() == io::ErrorKind::NotADirectory => {
                NotAVenv::NotADirectory(path)
            }
            Err(_) => NotAVenv::Io { path, source },
        }
    })
}

fn configuration(dir: &Dir) -> Result<Option<Configuration>, NotAVenv> {
    match dir.read("pyvenv.cfg", configuration::LIMIT) {
        Ok(bytes) => Ok(Some(Configuration::parse(&bytes))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(NotAVenv::Configuration(error)),
    }
}

/// The directories `lib/pythonX.Y`. They are opened only if necessary.
#[derive(Default)]
struct Libraries {
    lib: Option<Dir>,
    minors: Vec<Minor>,
}

impl Libraries {
    fn of(venv: &Dir) -> Self {
        let lib = venv.dir("lib").ok();
        let entries = lib.as_ref().and_then(|lib| lib.entries().ok()).unwrap_or_default();
        let minors = entries
            .iter()
            .filter(|entry| entry.kind.is_dir())
            .filter_map(|entry| Minor::of_program(entry.name.to_str()?))
            .collect();
        Self { lib, minors }
    }

    fn dir(&self, minor: Minor) -> Option<Dir> {
        self.lib.as_ref()?.dir(minor.program()).ok()
    }
}

/// What a virtualenv before version 20 records instead of a `pyvenv.cfg`.
struct Legacy {
    prefix: PathBuf,
    system_site_packages: bool,
}

impl Legacy {
    fn of(library: &Dir) -> Option<Self> {
        let prefix = library.read("orig-prefix.txt", PATH_LIMIT).ok()?;
        let prefix = PathBuf::from(std::ffi::OsStr::from_bytes(prefix.trim_ascii()));
        let system_site_packages = library.kind("no-global-site-packages.txt").is_none();
        Some(Self { prefix, system_site_packages })
    }
}

/// The minor version whose site-packages contains the distributions: of several, the one with
/// the most distributions (`venv --upgrade` leaves an empty one), then the claimed one.
fn site(libraries: &Libraries, claimed: Option<Minor>) -> Option<Minor> {
    match libraries.minors[..] {
        [] => None,
        [only] => Some(only),
        ref several => several.iter().copied().max_by_key(|minor| {
            let held = libraries.dir(*minor).map(|library| distributions(&library));
            (held, Some(*minor) == claimed, *minor)
        }),
    }
}

/// The number of distributions without those that come with every venv, and the number of all.
fn distributions(library: &Dir) -> (usize, usize) {
    let Ok(site) = library.dir("site-packages") else { return (0, 0) };
    let Ok(entries) = site.entries() else { return (0, 0) };
    let known = entries.iter().map(|entry| entry.name.to_string_lossy()).filter(|name| {
        [".dist-info", ".egg-info", ".egg-link", ".egg"].iter().any(|end| name.ends_with(end))
    });
    known.fold((0, 0), |(chosen, all), name| {
        let name = name.split(['-', '.']).next().unwrap_or_default();
        (chosen + usize::from(!matches!(name, "pip" | "setuptools" | "wheel")), all + 1)
    })
}

/// The manager whose marks it has, otherwise the tool that created it. `real` is the real location
/// of `path`.
fn flavour(dir: &Dir, real: &Path, path: &Path, configuration: Option<&Configuration>) -> Flavour {
    let regular = |name: &str| dir.kind(name) == Some(FileType::RegularFile);
    let Some(configuration) = configuration else { return Flavour::LegacyVirtualenv };
    if regular("pipx_metadata.json") {
        Flavour::Pipx
    } else if regular(".project") {
        Flavour::Pipenv
    } else if lies_in(path, "pypoetry/virtualenvs") || is_poetry(real, configuration) {
        Flavour::Poetry
    } else if path.to_string_lossy().contains("/hatch/env/virtual/") {
        Flavour::Hatch
    } else if lies_in(path, "pdm/venvs") || is_pdm(real, path) {
        Flavour::Pdm
    } else if configuration.has("uv") {
        Flavour::Uv
    } else if configuration.has("virtualenv") {
        Flavour::Virtualenv
    } else {
        Flavour::Venv
    }
}

/// Whether it is in a directory of this name.
fn lies_in(path: &Path, dir: &str) -> bool {
    path.parent().is_some_and(|parent| parent.ends_with(dir))
}

/// poetry creates the venv of a project with virtualenv and leaves no mark in it.
fn is_poetry(real: &Path, configuration: &Configuration) -> bool {
    let lock = || real.with_file_name("poetry.lock");
    real.ends_with(".venv") && configuration.has("virtualenv") && lock().is_file()
}

/// pdm records the project's interpreter in the project's directory.
fn is_pdm(real: &Path, path: &Path) -> bool {
    let Some(project) = real.parent() else { return false };
    crate::host::file::read_untrusted(&project.join(".pdm-python"), PATH_LIMIT).is_ok_and(|bytes| {
        Path::new(std::ffi::OsStr::from_bytes(bytes.trim_ascii())).starts_with(path)
    })
}

#[cfg(test)]
mod tests;
