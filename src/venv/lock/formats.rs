//! The formats of lock files. Each reader takes what it needs and ignores the rest; it skips
//! entries that it cannot use (such as invalid versions), and reports the line at which a file
//! is not such a lock.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::{Distfile, Locked};
use crate::host::toml;
use crate::venv::text::{FileName, Hash, PackageVersion, Url};

type Packages = Vec<(String, Locked)>;

/// A file entry of any of the formats.
#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(alias = "file")]
    name: Option<String>,
    url: Option<String>,
    /// `sha256:…`
    hash: Option<String>,
    /// pylock's: `sha256 = "…"`.
    #[serde(default)]
    hashes: BTreeMap<String, String>,
}

impl File {
    fn distfile(self) -> Option<Distfile> {
        let hash = match self.hash {
            Some(hash) => Hash::try_from(hash).ok()?,
            None => Hash::strongest(&self.hashes).ok()??,
        };
        let url = self.url.and_then(|url| Url::try_from(url).ok());
        let in_url = || url.as_ref()?.to_string().rsplit('/').next().map(str::to_string);
        let name = self.name.or_else(in_url).and_then(|name| FileName::try_from(name).ok());
        Some(Distfile { name, url, hash })
    }
}

fn locked(
    name: String,
    version: Option<String>,
    files: impl IntoIterator<Item = File>,
) -> Option<(String, Locked)> {
    let version = PackageVersion::try_from(version?).ok()?;
    let files =
        files.into_iter().map(File::distfile).collect::<Option<Vec<_>>>().unwrap_or_default();
    Some((name, Locked { version, files }))
}

/// Reads TOML, or returns the line of the mistake.
fn toml<T: DeserializeOwned + Send>(text: &str) -> Result<T, usize> {
    toml::read(text).map_err(|error| error.line)
}

/// uv's: every package has a `source`; only hashes of packages from an index count.
pub(super) fn of_uv(text: &str) -> Result<Packages, usize> {
    #[derive(Deserialize)]
    struct Lock {
        #[serde(default)]
        package: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        version: Option<String>,
        #[serde(default)]
        source: Source,
        sdist: Option<File>,
        #[serde(default)]
        wheels: Vec<File>,
    }
    #[derive(Default, Deserialize)]
    struct Source {
        registry: Option<IgnoredAny>,
    }
    let Lock { package } = toml(text)?;
    Ok(package
        .into_iter()
        .filter(|one| one.source.registry.is_some())
        .filter_map(|one| locked(one.name, one.version, one.wheels.into_iter().chain(one.sdist)))
        .collect())
}

/// poetry's and pdm's packages: files by name, or by URL, each with a hash. A package that is not
/// from an index has an additional key.
#[derive(Deserialize)]
struct Package {
    name: String,
    version: Option<String>,
    #[serde(default)]
    files: Vec<File>,
    source: Option<Source>,
    git: Option<String>,
    path: Option<String>,
    url: Option<String>,
}

/// poetry's.
#[derive(Deserialize)]
struct Source {
    #[serde(rename = "type")]
    kind: Option<String>,
}

impl Package {
    fn is_from_an_index(&self) -> bool {
        let kind = self.source.as_ref().and_then(|source| source.kind.as_deref());
        kind.is_none_or(|kind| kind == "legacy")
            && self.git.is_none()
            && self.path.is_none()
            && self.url.is_none()
    }
}

/// poetry's. Before 1.5 the files were listed by name in the metadata.
pub(super) fn of_poetry(text: &str) -> Result<Packages, usize> {
    #[derive(Deserialize)]
    struct Lock {
        #[serde(default)]
        package: Vec<Package>,
        #[serde(default)]
        metadata: Metadata,
    }
    #[derive(Default, Deserialize)]
    struct Metadata {
        #[serde(default)]
        files: BTreeMap<String, Vec<File>>,
    }
    let Lock { package, metadata: Metadata { mut files } } = toml(text)?;
    Ok(package
        .into_iter()
        .filter(Package::is_from_an_index)
        .filter_map(|one| {
            let older = files.remove(&one.name).unwrap_or_default();
            locked(one.name, one.version, one.files.into_iter().chain(older))
        })
        .collect())
}

/// pdm's.
pub(super) fn of_pdm(text: &str) -> Result<Packages, usize> {
    #[derive(Deserialize)]
    struct Lock {
        #[serde(default)]
        package: Vec<Package>,
    }
    let Lock { package } = toml(text)?;
    Ok(package
        .into_iter()
        .filter(Package::is_from_an_index)
        .filter_map(|one| locked(one.name, one.version, one.files))
        .collect())
}

/// PEP 751's.
pub(super) fn of_pylock(text: &str) -> Result<Packages, usize> {
    #[derive(Deserialize)]
    struct Lock {
        #[serde(default)]
        packages: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        version: Option<String>,
        sdist: Option<File>,
        #[serde(default)]
        wheels: Vec<File>,
    }
    let Lock { packages } = toml(text)?;
    Ok(packages
        .into_iter()
        .filter(|one| one.sdist.is_some() || !one.wheels.is_empty())
        .filter_map(|one| locked(one.name, one.version, one.wheels.into_iter().chain(one.sdist)))
        .collect())
}

/// pipenv's: the hashes of all files together, and versions with `==`.
pub(super) fn of_pipenv(text: &str) -> Result<Packages, usize> {
    #[derive(Deserialize)]
    struct Lock {
        #[serde(default)]
        default: BTreeMap<String, Package>,
        #[serde(default)]
        develop: BTreeMap<String, Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        version: Option<String>,
        #[serde(default)]
        hashes: Vec<String>,
    }
    let Lock { default, mut develop } =
        serde_json::from_str(text).map_err(|error| error.line().max(1))?;
    develop.retain(|name, _| !default.contains_key(name));
    Ok(default
        .into_iter()
        .chain(develop)
        .filter_map(|(name, Package { version, hashes })| {
            let version = version?.strip_prefix("==")?.to_string();
            let file = |hash| File { hash: Some(hash), ..File::default() };
            locked(name, Some(version), hashes.into_iter().map(file))
        })
        .collect())
}

/// Requirements as pip-compile and uv write them: `name==version --hash=sha256:… \` over
/// several lines. Lines without a hash are ignored.
pub(super) fn of_requirements(text: &str) -> Packages {
    let joined = text.replace("\\\r\n", " ").replace("\\\n", " ");
    joined
        .lines()
        .filter_map(|line| {
            let mut words = line.split(" #").next()?.split_whitespace();
            let (name, version) = words.next()?.trim_end_matches(';').split_once("==")?;
            let files: Vec<File> = words
                .filter_map(|word| word.strip_prefix("--hash="))
                .map(|hash| File { hash: Some(hash.to_string()), ..File::default() })
                .collect();
            let name = name.split('[').next()?.to_string();
            (!files.is_empty()).then(|| locked(name, Some(version.to_string()), files))?
        })
        .collect()
}
