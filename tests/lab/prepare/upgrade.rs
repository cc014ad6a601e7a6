//! Upgrades: a flat apt repository with exactly the packages that one upgrade of Python needs.
//!
//! The versions are those that the mirror offers on the day. If it offers nothing newer, the lab repackages the root's
//! own packages with the next version (see `repackage`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::root::Suite;
use super::{Lab, repackage, run_in};
use crate::child;

/// The upgrades that the cases make.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Kind {
    /// The same minor version, one patch later, with the new name that the article's copied interpreter lacked.
    ArticlePatch,
    /// The same minor version, with the next release's patch.
    RealPatch,
    /// A Debian revision of the same upstream version.
    Revision,
    /// The same on trixie.
    TrixieRevision,
    /// The same on forky.
    ForkyRevision,
    /// From the default minor version of bookworm to that of trixie.
    BookwormMinor,
    /// From the default minor version of trixie to that of forky.
    TrixieMinor,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::ArticlePatch,
        Self::RealPatch,
        Self::Revision,
        Self::TrixieRevision,
        Self::ForkyRevision,
        Self::BookwormMinor,
        Self::TrixieMinor,
    ];

    pub(crate) fn suite(self) -> Suite {
        match self {
            Self::ArticlePatch | Self::RealPatch | Self::TrixieRevision | Self::TrixieMinor => {
                Suite::Trixie
            }
            Self::ForkyRevision => Suite::Forky,
            Self::Revision => Suite::Bullseye,
            Self::BookwormMinor => Suite::Bookworm,
        }
    }

    /// The release that the machine is upgraded to, if that is another one.
    pub(crate) fn next(self) -> Option<Suite> {
        match self {
            Self::BookwormMinor => Some(Suite::Trixie),
            Self::TrixieMinor => Some(Suite::Forky),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::ArticlePatch => "article-patch",
            Self::RealPatch => "real-patch",
            Self::Revision => "revision",
            Self::TrixieRevision => "trixie-revision",
            Self::ForkyRevision => "forky-revision",
            Self::BookwormMinor => "bookworm-minor",
            Self::TrixieMinor => "trixie-minor",
        }
    }
}

/// A prepared upgrade: its repository and a description.
#[derive(Clone, Debug)]
pub(crate) struct Upgrade {
    pub(crate) repository: PathBuf,
    pub(crate) about: About,
}

/// The description of an upgrade, kept beside its packages.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) from: Python,
    pub(crate) to: Python,
    /// The packages to pass to apt.
    pub(crate) packages: Vec<String>,
    pub(crate) repackaged: bool,
}

/// A version of Debian's Python.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Python {
    /// `3.13`
    pub(crate) minor: String,
    /// `3.13.5`
    pub(crate) upstream: String,
    /// `3.13.5-2`
    pub(crate) debian: String,
}

impl Python {
    fn new(minor: &str, debian: &str) -> Self {
        let upstream = debian.split(['-', '+']).next().unwrap_or(debian);
        Self {
            minor: minor.to_owned(),
            upstream: upstream.replace('~', ""),
            debian: debian.to_owned(),
        }
    }
}

const ABOUT: &str = "about.json";

/// The unversioned packages, whose upgrade moves the default minor version. They include the wheels of pip: the old pip
/// cannot create a venv of the new minor version.
const DEFAULT_PYTHON: [&str; 6] = [
    "libpython3-stdlib",
    "python3",
    "python3-minimal",
    "python3-pip-whl",
    "python3-setuptools-whl",
    "python3-venv",
];

impl Lab {
    pub(crate) fn upgrade(&self, kind: Kind) -> Result<Upgrade> {
        let suite = kind.suite();
        let root = self.root(suite)?;
        let recipe =
            [include_str!("upgrade.rs"), include_str!("repackage.rs"), &root.to_string_lossy()];
        let repository =
            self.artefact(&format!("upgrade-{}", kind.name()), &recipe, |directory| {
                let installed = Installed::in_root(&root)?;
                let main = &self.mirror.main;
                let about = match kind {
                    Kind::ArticlePatch | Kind::TrixieRevision | Kind::ForkyRevision => None,
                    Kind::RealPatch => {
                        let source = format!("deb {main} forky main");
                        self.same_minor(&root, &installed, &source, directory)?
                    }
                    Kind::Revision => {
                        let security = &self.mirror.security;
                        let source = format!("deb {security} bullseye-security main");
                        self.same_minor(&root, &installed, &source, directory)?
                    }
                    Kind::BookwormMinor => {
                        let source = format!("deb {main} trixie main");
                        Some(self.next_minor(&root, &installed, &source, directory)?)
                    }
                    Kind::TrixieMinor => {
                        let source = format!("deb {main} forky main");
                        Some(self.next_minor(&root, &installed, &source, directory)?)
                    }
                };
                let about = match about {
                    Some(about) => about,
                    None => self.repackaged(kind, &root, &installed, directory)?,
                };
                repackage::add_lab_packages(directory)?;
                if kind == Kind::ArticlePatch {
                    // needrestart has a hook of apt's, too.
                    self.download(&root, "", &["needrestart".to_owned()], directory)?;
                }
                index(directory)?;
                fs::write(directory.join(ABOUT), serde_json::to_string_pretty(&about)?)?;
                println!(
                    "lab: {} is {} -> {}{}",
                    kind.name(),
                    about.from.debian,
                    about.to.debian,
                    if about.repackaged { ", repackaged" } else { "" },
                );
                Ok(())
            })?;
        let about = serde_json::from_str(&fs::read_to_string(repository.join(ABOUT))?)?;
        Ok(Upgrade { repository, about })
    }

    /// The same minor version from another archive, or none if that archive has no newer one.
    fn same_minor(
        &self,
        root: &Path,
        installed: &Installed,
        source: &str,
        directory: &Path,
    ) -> Result<Option<About>> {
        let packages = installed.of_source(&installed.python()?);
        self.download(root, source, &packages, directory)?;
        let from = installed.default_python()?;
        let offered = offered_pythons(directory)?;
        let to = offered.into_iter().find(|python| python.minor == from.minor);
        Ok(to.map(|to| About { from, to, packages, repackaged: false }))
    }

    /// The default minor version of another archive.
    fn next_minor(
        &self,
        root: &Path,
        installed: &Installed,
        source: &str,
        directory: &Path,
    ) -> Result<About> {
        let packages: Vec<String> = DEFAULT_PYTHON
            .into_iter()
            .filter(|name| installed.versions.contains_key(*name))
            .map(str::to_owned)
            .collect();
        self.download(root, source, &packages, directory)?;
        let from = installed.default_python()?;
        let offered = offered_pythons(directory)?;
        let Some(to) = offered.into_iter().find(|python| python.minor != from.minor) else {
            bail!("the archive has no newer default Python than {}", from.minor);
        };
        Ok(About { from, to, packages, repackaged: false })
    }

    /// The root's own Python with the next version.
    fn repackaged(
        &self,
        kind: Kind,
        root: &Path,
        installed: &Installed,
        directory: &Path,
    ) -> Result<About> {
        let from = installed.default_python()?;
        let packages = installed.of_source(&installed.python()?);
        let originals = directory.join("originals");
        fs::create_dir(&originals)?;
        let overlay = self.overlay("download", root)?;
        // Programs that embed Python need its library, which no root has.
        let mut script = format!(
            "cd /originals; apt-get -qq update; apt-get -qq download libpython{}={}",
            from.minor, from.debian
        );
        for package in &packages {
            use std::fmt::Write;
            write!(script, " {package}={}", installed.versions[package])?;
        }
        run_in(&overlay, &[(&originals, "/originals")], &script, &[])?;
        let to = match kind {
            Kind::Revision | Kind::TrixieRevision | Kind::ForkyRevision => {
                Python::new(&from.minor, &format!("{}+lab1", from.debian))
            }
            _ => Python::new(&from.minor, &format!("{}-1", repackage::next_patch(&from.upstream)?)),
        };
        for entry in fs::read_dir(&originals)? {
            repackage::python(&entry?.path(), &from, &to, directory)?;
        }
        fs::remove_dir_all(&originals)?;
        Ok(About { from, to, packages, repackaged: true })
    }

    /// Lets apt choose and fetch everything that an installation of `packages` needs, in a root with one more source.
    pub(super) fn download(
        &self,
        root: &Path,
        source: &str,
        packages: &[String],
        directory: &Path,
    ) -> Result<()> {
        let overlay = self.overlay("download", root)?;
        let sources = fs::read_to_string(overlay.path("/etc/apt/sources.list"))?;
        overlay.write("/etc/apt/sources.list", &format!("{sources}\n{source}\n"))?;
        let script = "
            mkdir -p /repository/partial
            apt-get -qq update
            apt-get -qq -y --download-only -o Dir::Cache::archives=/repository \
                -o APT::Sandbox::User=root install \"$@\"
            rm -rf /repository/partial /repository/lock";
        let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
        run_in(&overlay, &[(directory, "/repository")], script, &packages)?;
        Ok(())
    }
}

/// The packages of a root, from dpkg's database.
struct Installed {
    minor: String,
    versions: BTreeMap<String, String>,
    sources: BTreeMap<String, String>,
}

impl Installed {
    fn in_root(root: &Path) -> Result<Self> {
        let listing = child::output(
            Command::new("dpkg-query").arg("--admindir").arg(root.join("var/lib/dpkg")).args([
                "-W",
                "-f",
                "${Package} ${Version} ${source:Package}\n",
            ]),
        )?;
        let mut versions = BTreeMap::new();
        let mut sources = BTreeMap::new();
        for line in listing.lines() {
            let mut words = line.split_whitespace();
            let (Some(package), Some(version), Some(source)) =
                (words.next(), words.next(), words.next())
            else {
                bail!("dpkg-query said {line:?}");
            };
            versions.insert(package.to_owned(), version.to_owned());
            sources.insert(package.to_owned(), source.to_owned());
        }
        let link = fs::read_link(root.join("usr/bin/python3"))?;
        let link = link.to_string_lossy().into_owned();
        let minor = link.strip_prefix("python").context("an odd python3")?;
        Ok(Self { minor: minor.to_owned(), versions, sources })
    }

    /// The source package of the default Python.
    fn python(&self) -> Result<String> {
        let name = format!("python{}", self.minor);
        ensure!(self.versions.contains_key(&name), "{name} is not installed");
        Ok(name)
    }

    fn default_python(&self) -> Result<Python> {
        Ok(Python::new(&self.minor, &self.versions[&self.python()?]))
    }

    fn of_source(&self, source: &str) -> Vec<String> {
        let of_source = self.sources.iter().filter(|(_, built_from)| *built_from == source);
        of_source.map(|(package, _)| package.clone()).collect()
    }
}

/// The versions of Python in a directory of packages.
fn offered_pythons(directory: &Path) -> Result<Vec<Python>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let mut parts = name.trim_end_matches(".deb").split('_');
        let (Some(package), Some(version)) = (parts.next(), parts.next()) else {
            continue;
        };
        let minor = package.strip_prefix("python").and_then(|rest| rest.strip_suffix("-minimal"));
        if let Some(minor) = minor.filter(|minor| minor.contains('.')) {
            // apt writes the colon of an epoch as %3a, but Debian's Python has no epoch.
            found.push(Python::new(minor, version));
        }
    }
    Ok(found)
}

/// Turns a directory of packages into an apt repository.
pub(super) fn index(directory: &Path) -> Result<()> {
    let packages = child::output(
        Command::new("dpkg-scanpackages").args(["--multiversion", "."]).current_dir(directory),
    )?;
    fs::write(directory.join("Packages"), packages)?;
    fs::write(directory.join("Release"), "Suite: lab\n")?;
    Ok(())
}
