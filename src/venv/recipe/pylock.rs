//! The stored form of a recipe: a lock file in Python's own format (PEP 751, `pylock.toml`),
//! which other tools can read. What that format cannot express is in its `tool` table: how the
//! venv was created, the distributions that move with the interpreter, those installed by name
//! from an index without a record of their files, and the user files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Recipe, Requirement, Source, Vcs};
use crate::host::redacted;
use crate::host::toml::{self, TomlError};
use crate::venv::Flavour;
use crate::venv::lock::Distfile;
use crate::venv::text::{
    FileName, Hash, Name, PackageVersion, Subdirectory, Token, UnsafeText, Url,
};

const LOCK_VERSION: &str = "1.0";
/// Since 2 it contains the versions of distributions that are not from an index.
const SCHEMA_VERSION: u32 = 2;

/// Why a stored recipe was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecipeError {
    #[error("a newer venvguard wrote the recipe (schema {found}; this one knows {known})")]
    Newer { found: u32, known: u32 },
    #[error("{}", redacted(.0))]
    Damaged(String),
    #[error(transparent)]
    UnsafeText(#[from] UnsafeText),
    #[error("the recipe does not record the origin of {0}")]
    NoSource(Name),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Document {
    lock_version: String,
    created_by: String,
    packages: Vec<Package>,
    tool: Tool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tool {
    venvguard: Made,
}

/// What the format cannot express.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Made {
    schema_version: u32,
    flavour: Flavour,
    system_site_packages: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<String>,
    pip: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    packages: Vec<Requirement>,
}

/// `[[packages]]`: exactly one of the sources, and only with the fields that the format requires.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Package {
    name: Name,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<PackageVersion>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vcs: Option<Checkout>,
    #[serde(skip_serializing_if = "Option::is_none")]
    directory: Option<Directory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    archive: Option<Archive>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sdist: Option<Remote>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    wheels: Vec<Remote>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<PackageTool>,
}

/// `[packages.tool]`. The format has no version for a package built from a source tree.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PackageTool {
    venvguard: Built,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Built {
    version: PackageVersion,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Checkout {
    #[serde(rename = "type")]
    kind: Vcs,
    url: Url,
    commit_id: Token,
    #[serde(skip_serializing_if = "Option::is_none")]
    subdirectory: Option<Subdirectory>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Directory {
    path: String,
    editable: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Archive {
    url: Url,
    hashes: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subdirectory: Option<Subdirectory>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remote {
    name: FileName,
    url: Url,
    hashes: BTreeMap<String, String>,
}

fn hashes(hash: &Hash) -> BTreeMap<String, String> {
    [(hash.algorithm.to_string(), hash.digits.to_string())].into()
}

impl Remote {
    fn of(file: &Distfile) -> Option<Self> {
        Some(Self { name: file.name.clone()?, url: file.url.clone()?, hashes: hashes(&file.hash) })
    }

    fn distfile(self) -> Result<Distfile, UnsafeText> {
        let hash =
            Hash::strongest(&self.hashes)?.ok_or_else(|| UnsafeText(self.name.to_string()))?;
        Ok(Distfile { name: Some(self.name), url: Some(self.url), hash })
    }
}

impl Package {
    /// A requirement in the format, if the format can express it.
    fn of(Requirement { name, source }: &Requirement) -> Option<Self> {
        let mut package = Self {
            name: name.clone(),
            version: None,
            vcs: None,
            directory: None,
            archive: None,
            sdist: None,
            wheels: Vec::new(),
            tool: None,
        };
        let built = |version: &Option<PackageVersion>| {
            version.clone().map(|version| PackageTool { venvguard: Built { version } })
        };
        match source {
            Source::Vcs { vcs, url, commit, subdirectory, version } => {
                package.tool = built(version);
                let (url, commit_id) = (url.clone(), commit.clone());
                let subdirectory = subdirectory.clone();
                package.vcs = Some(Checkout { kind: *vcs, url, commit_id, subdirectory });
            }
            Source::Directory { url, editable, version } => {
                package.tool = built(version);
                let path = url.path()?.into_os_string().into_string().ok()?;
                package.directory = Some(Directory { path, editable: *editable });
            }
            Source::Archive { url, hash: Some(hash), subdirectory, version } => {
                package.tool = built(version);
                let (url, subdirectory) = (url.clone(), subdirectory.clone());
                package.archive = Some(Archive { url, hashes: hashes(hash), subdirectory });
            }
            Source::Index { version, files } => {
                let (wheels, others): (Vec<_>, Vec<_>) =
                    files.iter().partition(|file| file.is_wheel());
                let ([] | [_]) = others.as_slice() else { return None };
                package.wheels = wheels.into_iter().map(Remote::of).collect::<Option<_>>()?;
                package.sdist = match others.first() {
                    Some(file) => Some(Remote::of(file)?),
                    None if package.wheels.is_empty() => return None,
                    None => None,
                };
                package.version = Some(version.clone());
            }
            Source::Archive { hash: None, .. } | Source::Newest { .. } => return None,
        }
        Some(package)
    }

    fn requirement(self) -> Result<Requirement, RecipeError> {
        let version = self.tool.map(|tool| tool.venvguard.version);
        let source = if let Some(Checkout { kind, url, commit_id, subdirectory }) = self.vcs {
            Source::Vcs { vcs: kind, url, commit: commit_id, subdirectory, version }
        } else if let Some(Directory { path, editable }) = self.directory {
            Source::Directory { url: Url::of_path(&PathBuf::from(path))?, editable, version }
        } else if let Some(Archive { url, hashes, subdirectory }) = self.archive {
            Source::Archive { url, hash: Hash::strongest(&hashes)?, subdirectory, version }
        } else if let Some(version) = self.version {
            let files = self.wheels.into_iter().chain(self.sdist).map(Remote::distfile);
            Source::Index { version, files: files.collect::<Result<_, _>>()? }
        } else {
            return Err(RecipeError::NoSource(self.name));
        };
        Ok(Requirement { name: self.name, source })
    }
}

impl Recipe {
    pub(crate) fn to_pylock(&self) -> String {
        let (mut packages, mut rest) = (Vec::new(), Vec::new());
        for requirement in &self.requirements {
            match Package::of(requirement) {
                Some(package) => packages.push(package),
                None => rest.push(requirement.clone()),
            }
        }
        let made = Made {
            schema_version: SCHEMA_VERSION,
            flavour: self.flavour,
            system_site_packages: self.system_site_packages,
            prompt: self.prompt.clone(),
            pip: self.seed_pip,
            packages: rest,
        };
        let document = Document {
            lock_version: LOCK_VERSION.to_string(),
            created_by: env!("CARGO_PKG_NAME").to_string(),
            packages,
            tool: Tool { venvguard: made },
        };
        // Strings, numbers and tables only, so this cannot fail.
        ::toml::to_string_pretty(&document).unwrap_or_default()
    }

    /// Reads a stored recipe and validates every text in it again.
    pub(crate) fn of_pylock(bytes: &[u8]) -> Result<Self, RecipeError> {
        #[derive(Deserialize)]
        struct Head {
            tool: HeadTool,
        }
        #[derive(Deserialize)]
        struct HeadTool {
            venvguard: HeadMade,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct HeadMade {
            schema_version: u32,
        }
        let damaged = |error: TomlError| RecipeError::Damaged(error.message);
        let text = String::from_utf8_lossy(bytes);
        let Head { tool } = toml::read(&text).map_err(damaged)?;
        let found = tool.venvguard.schema_version;
        if found > SCHEMA_VERSION {
            return Err(RecipeError::Newer { found, known: SCHEMA_VERSION });
        }
        if found == 0 {
            return Err(RecipeError::Damaged("there is no schema 0".to_string()));
        }
        let Document { packages, tool: Tool { venvguard: made }, .. } =
            toml::read(&text).map_err(damaged)?;
        let mut requirements = made.packages;
        for package in packages {
            requirements.push(package.requirement()?);
        }
        requirements.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Self {
            flavour: made.flavour,
            system_site_packages: made.system_site_packages,
            prompt: made.prompt,
            seed_pip: made.pip,
            requirements,
        })
    }
}
