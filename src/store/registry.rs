//! The registered venvs.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};

use super::Declaration;
use super::PathText;
use super::Pause;
use super::previous::{PendingRemoval, PreviousTrees};
use crate::host::{clock, file, path_text};
use crate::owner::RelinkedName;
use crate::plan::{Policy, RestartMode, Until, Window};
use crate::python::Minor;
use crate::service::Service;
use crate::venv::Relax;

pub(super) const SCHEMA: u64 = 1;

/// The limit in bytes of the reason for a pin: a user's build can print endlessly, and the
/// registry must stay readable. The history keeps more of it.
const REASON: usize = 1 << 10;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Registry {
    schema_version: u64,
    pub(crate) venvs: Vec<RegistryEntry>,
    /// Trees that are no longer needed and still have to be removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) pending_removals: Vec<PendingRemoval>,
}

/// One registered venv and its settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegistryEntry {
    #[serde(deserialize_with = "id")]
    pub(crate) id: String,
    #[serde(deserialize_with = "name")]
    pub(crate) name: String,
    #[serde(deserialize_with = "path_text::absolute")]
    path: PathText,
    #[serde(default)]
    pub(crate) policy: Policy,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) services: Vec<Service>,
    /// The check's program and arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) check: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    requirements: Option<PathText>,
    /// The lock file that determines the versions to install.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lock: Option<PathText>,
    /// The program and the arguments of the command that fills a rebuilt venv.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    build_command: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) relax: Option<Relax>,
    /// Set when its check fails after an upgrade or a repair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) check_failure: Option<CheckFailure>,
    /// Instead of the mode in the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) restart: Option<RestartMode>,
    /// Instead of the window in the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) window: Option<Window>,
    /// Instead of the pause in the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rolling: Option<Pause>,
    /// Whether its services are probed, instead of the setting in the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) probe: Option<bool>,
    /// The file that declares it, unless it was registered by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    declared: Option<PathText>,
    pub(crate) registered_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pin: Option<Pin>,
    /// The trees that rebuilds put aside.
    #[serde(default, skip_serializing_if = "PreviousTrees::is_empty")]
    pub(crate) previous_trees: PreviousTrees,
}

/// Our pin of a venv that otherwise follows the default interpreter. It is stored before the
/// venv is pinned, so that our pin is never taken for its owner's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pin {
    pub(crate) at: Timestamp,
    /// The minor version it is pinned to.
    pub(crate) to: Minor,
    pub(crate) until: Until,
    /// Why it was not rebuilt instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) because: Option<String>,
    /// The links in `bin` that were changed for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) links: Vec<RelinkedName>,
}

impl Pin {
    pub(crate) fn new(to: Minor, until: Until, because: Option<&str>) -> Self {
        let because = because.map(|text| file::within(text, REASON));
        Self { at: clock::now(), to, until, because, links: Vec::new() }
    }
}

/// A check that failed after an upgrade or a repair, and has not passed since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CheckFailure {
    pub(crate) at: Timestamp,
    pub(crate) because: String,
    /// It failed before as well: nothing that venvguard knows of is the cause.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) failed_before: bool,
}

impl CheckFailure {
    pub(crate) fn new(because: &str, failed_before: bool) -> Self {
        Self { at: clock::now(), because: file::within(because, REASON), failed_before }
    }
}

/// Why a name or a path cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameError {
    #[error("the name {name:?} is taken by {path}", path = crate::host::file::printable(.path))]
    Taken { name: String, path: PathBuf },
    #[error(
        "{name:?} is not a valid name: use letters, digits and any of . _ + -, and begin with a letter or digit"
    )]
    Malformed { name: String },
    #[error(
        "it is inside {outer}, which is already registered",
        outer = crate::host::file::printable(.outer)
    )]
    Below { outer: PathBuf },
    #[error(
        "it contains {inner}, which is already registered",
        inner = crate::host::file::printable(.inner)
    )]
    Around { inner: PathBuf },
}

impl RegistryEntry {
    pub(crate) fn path(&self) -> &Path {
        &self.path.0
    }

    pub(crate) fn declared_in(&self) -> Option<&Path> {
        self.declared.as_ref().map(|file| file.0.as_path())
    }

    /// Makes the registration take precedence over any file that declares the venv.
    pub(crate) fn register_by_hand(&mut self) {
        self.declared = None;
    }

    pub(crate) fn requirements(&self) -> Option<&Path> {
        self.requirements.as_ref().map(|path| path.0.as_path())
    }

    pub(crate) fn lock(&self) -> Option<&Path> {
        self.lock.as_ref().map(|path| path.0.as_path())
    }

    pub(crate) fn build_command(&self) -> &[String] {
        &self.build_command
    }

    /// Sets the lock file, which replaces any other description of what to install.
    pub(crate) fn set_lock(&mut self, path: &Path) {
        self.install_the_same();
        self.lock = Some(path.into());
    }

    pub(crate) fn set_requirements(&mut self, path: &Path) {
        self.install_the_same();
        self.requirements = Some(path.into());
    }

    pub(crate) fn set_build_command(&mut self, command: &[String]) {
        self.install_the_same();
        self.build_command = command.to_vec();
    }

    fn install_the_same(&mut self) {
        (self.requirements, self.lock, self.build_command) = (None, None, Vec::new());
    }

    /// A rebuild installs what is installed again.
    pub(crate) fn clear_requirements(&mut self) {
        self.requirements = None;
    }

    pub(crate) fn clear_lock(&mut self) {
        self.lock = None;
    }

    pub(crate) fn clear_build_command(&mut self) {
        self.build_command.clear();
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self { schema_version: SCHEMA, venvs: Vec::new(), pending_removals: Vec::new() }
    }
}

impl Registry {
    /// The entry for a path, created with `policy` if there is none. `name` renames an existing
    /// one.
    pub(crate) fn add(
        &mut self,
        path: &Path,
        name: Option<&str>,
        policy: Policy,
    ) -> Result<&mut RegistryEntry, NameError> {
        let known = self.venvs.iter().position(|entry| entry.path() == path);
        if let Some(name) = name {
            if !is_name(name) {
                return Err(NameError::Malformed { name: name.to_string() });
            }
            let taken = self.venvs.iter().find(|entry| entry.name == name && entry.path() != path);
            if let Some(entry) = taken {
                return Err(NameError::Taken {
                    name: name.to_string(),
                    path: entry.path().to_path_buf(),
                });
            }
        }
        let index = match known {
            Some(index) => index,
            None => self.append(path, policy)?,
        };
        // Found or appended just now.
        let entry = &mut self.venvs[index];
        if let Some(name) = name {
            entry.name = name.to_string();
        }
        Ok(entry)
    }

    /// The entry for a declared path, updated to its declaration; an entry that was registered by
    /// hand is unchanged.
    pub(crate) fn declare(
        &mut self,
        path: &Path,
        declaration: &Declaration,
        policy: Policy,
    ) -> Result<&RegistryEntry, NameError> {
        let is_by_hand = |entry: &&RegistryEntry| entry.path() == path && entry.declared.is_none();
        let name = declaration.name.as_deref();
        let name = name.filter(|_| !self.venvs.iter().any(|entry| is_by_hand(&entry)));
        let is_known = self.venvs.iter().any(|entry| entry.path() == path);
        let entry = self.add(path, name, policy)?;
        if !is_known || entry.declared.is_some() {
            entry.declared = Some(declaration.file.as_path().into());
            entry.policy = declaration.policy.unwrap_or(policy);
            entry.services.clone_from(&declaration.services);
            entry.check.clone_from(&declaration.check);
            entry.build_command.clone_from(&declaration.build_command);
            entry.restart = declaration.restart;
            entry.window.clone_from(&declaration.window);
            entry.rolling.clone_from(&declaration.rolling);
            entry.probe = declaration.probe;
        }
        Ok(entry)
    }

    fn append(&mut self, path: &Path, policy: Policy) -> Result<usize, NameError> {
        if let Some(outer) = self.venvs.iter().find(|entry| path.starts_with(entry.path())) {
            return Err(NameError::Below { outer: outer.path().to_path_buf() });
        }
        if let Some(inner) = self.venvs.iter().find(|entry| entry.path().starts_with(path)) {
            return Err(NameError::Around { inner: inner.path().to_path_buf() });
        }
        self.venvs.push(RegistryEntry {
            id: self.unused_id(path),
            name: self.unused_name(path),
            path: path.into(),
            policy,
            services: Vec::new(),
            check: Vec::new(),
            requirements: None,
            lock: None,
            build_command: Vec::new(),
            relax: None,
            check_failure: None,
            restart: None,
            window: None,
            rolling: None,
            probe: None,
            declared: None,
            registered_at: clock::now(),
            pin: None,
            previous_trees: PreviousTrees::default(),
        });
        Ok(self.venvs.len() - 1)
    }

    pub(crate) fn get(&self, id: &str) -> Option<&RegistryEntry> {
        self.venvs.iter().find(|entry| entry.id == id)
    }

    pub(crate) fn get_mut(&mut self, id: &str) -> Option<&mut RegistryEntry> {
        self.venvs.iter_mut().find(|entry| entry.id == id)
    }

    /// Records the links that pin a previous environment.
    pub(crate) fn set_links(&mut self, id: &str, tree: &Path, links: Vec<RelinkedName>) {
        if let Some(kept) = self.get_mut(id).and_then(|entry| entry.previous_trees.at_mut(tree)) {
            kept.links = links;
        }
    }

    /// Eight hexadecimal digits that no other entry has, taken from the path's SHA-256, which is
    /// the same in every build of venvguard.
    fn unused_id(&self, path: &Path) -> String {
        let mut digest = Sha256::new_with_prefix(path.as_os_str().as_bytes());
        loop {
            let [a, b, c, d, ..] = <[u8; 32]>::from(digest.clone().finalize());
            let id = format!("{:08x}", u32::from_be_bytes([a, b, c, d]));
            if self.get(&id).is_none() {
                return id;
            }
            digest.update([0]);
        }
    }

    /// A name made from the path: the venv's own, or its project's if that is more telling.
    fn unused_name(&self, path: &Path) -> String {
        let words: Vec<_> = path.iter().rev().map(OsStr::to_string_lossy).collect();
        let word = words.iter().find(|word| says_much(word)).or(words.first());
        let word = word.map(ToString::to_string).unwrap_or_default();
        let word: String =
            word.chars().map(|c| if is_name_character(c) { c } else { '-' }).collect();
        let base = word.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        let base = if base.is_empty() { "venv" } else { base };
        let mut name = base.to_string();
        let mut number = 2;
        while self.venvs.iter().any(|entry| entry.name == name) {
            name = format!("{base}-{number}");
            number += 1;
        }
        name
    }
}

/// Whether a directory's name tells venvs apart: neither the usual name of a venv, nor that of
/// one release among others (a number, a version, a date, a hash).
fn says_much(word: &str) -> bool {
    const USUAL: [&str; 11] = [
        "venv",
        ".venv",
        "env",
        ".env",
        "venvs",
        "virtualenv",
        "current",
        "python",
        "release",
        "releases",
        "versions",
    ];
    let is_number = |c: char| c.is_ascii_digit() || ".-_T:".contains(c);
    let is_release = word.strip_prefix('v').unwrap_or(word).chars().all(is_number);
    let is_hash = word.len() >= 7
        && word.chars().all(|c| c.is_ascii_hexdigit())
        && word.contains(|c: char| c.is_ascii_digit());
    !USUAL.contains(&word) && !is_release && !is_hash && word != "/"
}

/// Reads and checks a stored id.
fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let id = String::deserialize(deserializer)?;
    if is_id(&id) { Ok(id) } else { Err(serde::de::Error::custom(MALFORMED_ID)) }
}

/// Reads and checks a stored name.
fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    if is_name(&name) {
        Ok(name)
    } else {
        Err(serde::de::Error::custom(NameError::Malformed { name }))
    }
}

/// Checks an id and a name that are stored outside the registry.
pub(super) fn check(id: &str, name: &str) -> Result<(), String> {
    if !is_id(id) {
        return Err(MALFORMED_ID.into());
    }
    if !is_name(name) {
        return Err(NameError::Malformed { name: name.into() }.to_string());
    }
    Ok(())
}

const MALFORMED_ID: &str = "an id consists of letters and digits";

fn is_id(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_name_character)
}

fn is_name_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || "._+-".contains(character)
}

#[cfg(test)]
mod tests;
