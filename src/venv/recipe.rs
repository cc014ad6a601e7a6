//! Recipes: what it takes to create a venv again without reading the venv.
//!
//! A recipe is kept outside the venv, so that it survives a broken interpreter. It never replaces
//! a distribution from elsewhere by one from an index: there, the name of a private project may
//! belong to anybody.

use std::path::{Path, PathBuf};
use std::{fmt, iter};

use serde::{Deserialize, Serialize};

pub(crate) use pylock::RecipeError;

use super::lock::{Distfile, ProjectLock};
use super::text::{FileName, Hash, Name, PackageVersion, Subdirectory, Token, UnsafeText, Url};
use super::{Distribution, Flavour, Origin, Venv};
use crate::host::file::printable;
use crate::host::root::normal;
use crate::host::{Root, redacted};
use crate::python::Minor;

/// From this version on, setuptools lacks `pkg_resources`, which many distributions import
/// without declaring it.
const SETUPTOOLS_WITHOUT_PKG_RESOURCES: u32 = 82;

/// What it takes to create a venv again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipe {
    pub(crate) flavour: Flavour,
    pub(crate) system_site_packages: bool,
    pub(crate) prompt: Option<String>,
    /// Whether the venv contained pip itself.
    pub(crate) seed_pip: bool,
    /// Sorted by normalized name.
    pub(crate) requirements: Vec<Requirement>,
}

/// One distribution, and where to get it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Requirement {
    /// Normalized.
    pub(crate) name: Name,
    #[serde(flatten)]
    pub(crate) source: Source,
}

/// An archive on this machine.
#[derive(Debug)]
pub(crate) struct LocalArchive<'a> {
    pub(crate) path: PathBuf,
    pub(crate) file: String,
    url: &'a mut Url,
    hash: &'a mut Option<Hash>,
}

impl LocalArchive<'_> {
    /// Its SHA-256, if it is known.
    pub(crate) fn sha256(&self) -> Option<String> {
        let hash = self.hash.as_ref().filter(|hash| hash.algorithm.to_string() == "sha256")?;
        Some(hash.digits.to_string())
    }

    pub(crate) fn set_sha256(&mut self, digits: &str) {
        *self.hash = Hash::try_from(format!("sha256:{digits}")).ok();
    }

    /// Replaces it by the file at `path`.
    pub(crate) fn replace(&mut self, path: &Path) {
        if let Ok(url) = Url::of_path(path) {
            *self.url = url;
        }
    }
}

/// The source of a distribution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Source {
    Index {
        version: PackageVersion,
        /// The files it may be installed from, if a lock lists them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        files: Vec<Distfile>,
    },
    Vcs {
        vcs: Vcs,
        url: Url,
        commit: Token,
        subdirectory: Option<Subdirectory>,
        /// The version that was installed, here and below. An installer cannot request it, but a
        /// rebuild compares it. Recipes of schema 1 have none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<PackageVersion>,
    },
    Archive {
        url: Url,
        hash: Option<Hash>,
        subdirectory: Option<Subdirectory>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<PackageVersion>,
    },
    Directory {
        url: Url,
        editable: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<PackageVersion>,
    },
    /// A distribution that moves with the interpreter: the newest version, or the newest below one
    /// that removes a feature.
    Newest { below: Option<u32> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Vcs {
    Git,
    Hg,
    Svn,
    Bzr,
}

/// A distribution that cannot be installed again, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} cannot be installed again: {reason}", printable(.name))]
pub(crate) struct Unreproducible {
    pub(crate) name: String,
    pub(crate) reason: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Reason {
    #[error("it has no version")]
    NoVersion,
    #[error(transparent)]
    UnsafeText(#[from] UnsafeText),
    #[error("it was checked out with {:?}", redacted(.0))]
    UnknownVcs(String),
    #[error("its origin cannot be read: {}", printable(redacted(.0)))]
    UnknownOrigin(String),
    #[error("it was installed from {}, which no longer exists", printable(.0))]
    Gone(PathBuf),
}

/// Requirements for `pip install --no-deps -r /dev/stdin` (pip has no `-r -`) or uv's equivalent,
/// in the versions that were installed. Those that move with the interpreter are in `seeds`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Exact {
    /// Those with known hashes. pip accepts them only in a separate run.
    pub(crate) hashed: String,
    pub(crate) others: String,
    /// The names of others that have hashes, but none of a file for the interpreter.
    pub(crate) unhashed: Vec<String>,
}

impl Exact {
    pub(crate) fn of(requirement: &Requirement, minor: Minor) -> Self {
        let mut exact = Self::default();
        exact.add(requirement, minor);
        exact
    }

    fn add(&mut self, requirement: &Requirement, minor: Minor) {
        let files = match &requirement.source {
            Source::Newest { .. } => return,
            Source::Index { files, .. } => files.as_slice(),
            _ => &[],
        };
        let line = requirement.to_string();
        if files.iter().any(|file| file.suits(minor)) {
            let hashes = files.iter().map(|file| format!(" --hash={}", file.hash));
            self.hashed.extend(iter::once(line).chain(hashes).chain(["\n".to_string()]));
            return;
        }
        self.others.extend([line.as_str(), "\n"]);
        if !files.is_empty() {
            self.unhashed.push(requirement.name.to_string());
        }
    }
}

impl Recipe {
    /// The recipe of a venv. The error lists all distributions that cannot be installed again, not
    /// only the first.
    pub(crate) fn of(
        venv: &Venv,
        distributions: &[Distribution],
    ) -> Result<Self, Vec<Unreproducible>> {
        let (seeds, others): (Vec<_>, Vec<_>) =
            distributions.iter().partition(|one| comes_with_every_venv(one));
        let mut unreproducible = Vec::new();
        let mut requirements: Vec<Requirement> = seeds.iter().filter_map(|d| seed(d)?).collect();
        requirements.dedup_by(|a, b| a.name == b.name);
        for distribution in others {
            match requirement(distribution) {
                Ok(requirement) => requirements.push(requirement),
                Err(reason) => {
                    unreproducible.push(Unreproducible { name: distribution.name.clone(), reason });
                }
            }
        }
        if !unreproducible.is_empty() {
            return Err(unreproducible);
        }
        requirements.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Self {
            flavour: venv.flavour,
            system_site_packages: venv.system_site_packages,
            prompt: venv.prompt.clone(),
            seed_pip: distributions
                .iter()
                .any(|distribution| distribution.normalized_name() == "pip"),
            requirements,
        })
    }

    /// Takes from a lock what it has for these distributions: the hashes of their files and, if it
    /// `decides`, their versions. Returns the differences between the two.
    pub(crate) fn follow(&mut self, lock: &ProjectLock, decides: bool) -> Vec<String> {
        let mut differing = Vec::new();
        for Requirement { name, source } in &mut self.requirements {
            let Source::Index { version, files } = source else { continue };
            let locked = lock.versions(&name.to_string());
            if let Some(same) = locked.iter().find(|one| one.version == *version) {
                files.clone_from(&same.files);
            } else if let (true, [only]) = (decides, locked) {
                differing
                    .push(format!("{name} {version} is installed, but {} is locked", only.version));
                (*version, *files) = (only.version.clone(), only.files.clone());
            } else if !locked.is_empty() {
                let versions: Vec<String> =
                    locked.iter().map(|one| one.version.to_string()).collect();
                differing.push(format!(
                    "{name} {version} is installed, but {} is locked",
                    versions.join(" or ")
                ));
            }
        }
        differing
    }

    /// The distributions in the versions that were installed.
    pub(crate) fn exact(&self, minor: Minor) -> Exact {
        let mut exact = Exact::default();
        for requirement in &self.requirements {
            exact.add(requirement, minor);
        }
        exact
    }

    /// Whether it contains only what comes with every venv.
    pub(crate) fn is_bare(&self) -> bool {
        self.requirements.iter().all(Requirement::is_seed)
    }

    /// setuptools and wheel, if the venv had them. It is unknown whether an application needs them,
    /// so they are installed if available.
    pub(crate) fn seeds(&self) -> Vec<String> {
        let seeds = self.requirements.iter().filter(|requirement| requirement.is_seed());
        seeds.map(ToString::to_string).collect()
    }

    /// Every distribution by name, for a second pass with the resolver, which adds what the markers
    /// of a new interpreter require. Distributions from elsewhere than an index are installed by
    /// then and are listed without version or URL.
    pub(crate) fn names(&self) -> Vec<String> {
        self.requirements
            .iter()
            .filter(|requirement| !requirement.is_seed())
            .map(|requirement| match requirement.source {
                Source::Index { .. } => requirement.to_string(),
                _ => requirement.name.to_string(),
            })
            .collect()
    }

    /// The distributions whose source on this machine no longer exists.
    pub(crate) fn gone(&self, root: &Root) -> Vec<Unreproducible> {
        let gone = |(name, path): (&Name, PathBuf)| {
            let is_there = std::fs::symlink_metadata(root.at(&path)).is_ok();
            let reason = Reason::Gone(path);
            (!is_there).then(|| Unreproducible { name: name.to_string(), reason })
        };
        self.local_sources().filter_map(gone).collect()
    }

    /// The sources inside the venv itself (pip keeps the checkouts of editables in its `src`): they
    /// must be carried over before anything is installed.
    pub(crate) fn sources_inside(&self, venv: &Path) -> Vec<PathBuf> {
        self.local_paths().filter(|path| path.starts_with(venv)).collect()
    }

    /// The directories that distributions are installed from.
    pub(crate) fn dirs(&self) -> Vec<PathBuf> {
        let dir = |requirement: &Requirement| match &requirement.source {
            Source::Directory { url, .. } => url.path(),
            _ => None,
        };
        self.requirements.iter().filter_map(dir).collect()
    }

    /// The sources of distributions that are on this machine.
    pub(crate) fn local_paths(&self) -> impl Iterator<Item = PathBuf> {
        self.local_sources().map(|(_, path)| normal(&path))
    }

    /// The wheels and source archives on this machine, each with its path and file name.
    pub(crate) fn local_archives(&mut self) -> impl Iterator<Item = (&Name, LocalArchive<'_>)> {
        self.requirements.iter_mut().filter_map(|Requirement { name, source }| {
            let Source::Archive { url, hash, .. } = source else { return None };
            let path = url.path()?;
            let file = FileName::try_from(path.file_name()?.to_str()?.to_string()).ok()?;
            Some((&*name, LocalArchive { path, file: file.to_string(), url, hash }))
        })
    }

    fn local_sources(&self) -> impl Iterator<Item = (&Name, PathBuf)> {
        self.requirements.iter().filter_map(|requirement| {
            let path = match &requirement.source {
                Source::Vcs { url, .. }
                | Source::Archive { url, .. }
                | Source::Directory { url, .. } => url.path(),
                Source::Index { .. } | Source::Newest { .. } => None,
            };
            Some((&requirement.name, path?))
        })
    }
}

impl Source {
    /// The version that was installed, if known; `None` for one that moves with the interpreter.
    pub(super) fn version(&self) -> Option<&PackageVersion> {
        match self {
            Self::Index { version, .. } => Some(version),
            Self::Vcs { version, .. }
            | Self::Archive { version, .. }
            | Self::Directory { version, .. } => version.as_ref(),
            Self::Newest { .. } => None,
        }
    }
}

impl Requirement {
    fn is_seed(&self) -> bool {
        matches!(self.source, Source::Newest { .. })
    }
}

/// Whether a distribution comes with every venv and moves with its interpreter.
pub(crate) fn comes_with_every_venv(distribution: &Distribution) -> bool {
    seed(distribution).is_some()
}

/// Distributions that come with every venv and move with its interpreter: no requirement for
/// pip, which the creator of the venv installs, one without a version for the others.
#[expect(clippy::option_option, reason = "no seed, a seed that is required, one that is not")]
fn seed(distribution: &Distribution) -> Option<Option<Requirement>> {
    let newest = |name: &str, below| {
        Name::try_from(name.to_string())
            .ok()
            .map(|name| Requirement { name, source: Source::Newest { below } })
    };
    match distribution.normalized_name().as_str() {
        "pip" => Some(None),
        "wheel" => Some(newest("wheel", None)),
        // distribute was setuptools for a while.
        "setuptools" | "distribute" => {
            let major =
                distribution.version.as_deref().and_then(|version| version.split('.').next());
            let had_it = major
                .and_then(|major| major.parse::<u32>().ok())
                .is_none_or(|major| major < SETUPTOOLS_WITHOUT_PKG_RESOURCES);
            Some(newest("setuptools", had_it.then_some(SETUPTOOLS_WITHOUT_PKG_RESOURCES)))
        }
        _ => None,
    }
}

fn requirement(distribution: &Distribution) -> Result<Requirement, Reason> {
    Name::try_from(distribution.name.clone())?;
    let name = Name::try_from(distribution.normalized_name())?;
    let version = distribution.version.clone().and_then(|text| PackageVersion::try_from(text).ok());
    let source = match &distribution.origin {
        Origin::Index => {
            let version = distribution.version.clone().ok_or(Reason::NoVersion)?;
            Source::Index { version: PackageVersion::try_from(version)?, files: Vec::new() }
        }
        Origin::Vcs { url, vcs, commit, subdirectory } => Source::Vcs {
            vcs: match vcs.as_str() {
                "git" => Vcs::Git,
                "hg" => Vcs::Hg,
                "svn" => Vcs::Svn,
                "bzr" => Vcs::Bzr,
                other => return Err(Reason::UnknownVcs(other.to_string())),
            },
            url: without_fragment(url)?,
            commit: Token::try_from(commit.clone())?,
            subdirectory: in_archive(subdirectory.as_ref())?,
            version,
        },
        Origin::Archive { url, hashes, subdirectory } => Source::Archive {
            url: without_fragment(url)?,
            hash: Hash::strongest(hashes)?,
            subdirectory: in_archive(subdirectory.as_ref())?,
            version,
        },
        Origin::Directory { path, editable } => {
            Source::Directory { url: Url::of_path(path)?, editable: *editable, version }
        }
        Origin::Unknown { reason } => return Err(Reason::UnknownOrigin(reason.clone())),
    };
    Ok(Requirement { name, source })
}

fn in_archive(dir: Option<&String>) -> Result<Option<Subdirectory>, UnsafeText> {
    dir.cloned().map(Subdirectory::try_from).transpose()
}

fn without_fragment(url: &str) -> Result<Url, UnsafeText> {
    Url::try_from(url.split('#').next().unwrap_or_default().to_string())
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, source } = self;
        match source {
            Source::Index { version, .. } => write!(f, "{name}=={version}"),
            Source::Newest { below: None } => write!(f, "{name}"),
            Source::Newest { below: Some(version) } => write!(f, "{name}<{version}"),
            Source::Directory { url, editable: true, .. } => write!(f, "-e {url}"),
            Source::Directory { url, editable: false, .. } => write!(f, "{name} @ {url}"),
            Source::Vcs { vcs, url, commit, subdirectory, .. } => {
                let dir = subdirectory.as_ref().map(|dir| format!("subdirectory={dir}"));
                if url.path().is_none() {
                    write!(f, "{name} @ {vcs}+{url}@{commit}{}", fragment([dir, None]))
                } else {
                    // pip 23 rejects `name @` with such a URL without a host.
                    let name = Some(format!("egg={name}"));
                    write!(f, "{vcs}+{url}@{commit}{}", fragment([name, dir]))
                }
            }
            Source::Archive { url, hash, subdirectory, .. } => {
                let hash =
                    hash.as_ref().map(|Hash { algorithm, digits }| format!("{algorithm}={digits}"));
                let dir = subdirectory.as_ref().map(|dir| format!("subdirectory={dir}"));
                write!(f, "{name} @ {url}{}", fragment([hash, dir]))
            }
        }
    }
}

impl fmt::Display for Vcs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Git => "git",
            Self::Hg => "hg",
            Self::Svn => "svn",
            Self::Bzr => "bzr",
        })
    }
}

/// The end of a URL, for the installer: `#sha256=…&subdirectory=…`.
fn fragment(parts: [Option<String>; 2]) -> String {
    let text = parts.into_iter().flatten().collect::<Vec<_>>().join("&");
    if text.is_empty() { text } else { format!("#{text}") }
}

mod pylock;
#[cfg(test)]
pub(super) mod tests;
