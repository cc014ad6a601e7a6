//! The hold: a file of pins that keeps apt from installing another version of the interpreters.
//!
//! It is a file of its own, so that a hold of the administrator's (`apt-mark hold`) is never touched,
//! and each program that asks apt for candidates obeys it.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use jiff::Timestamp;

use super::AptGet;
use super::protocol::is_package_name;
use crate::host::file::{self, printable};
use crate::host::{ReadError, Root};
use crate::python::Interpreters;

/// apt reads every file in there with this extension (see `apt_preferences(5)`).
const PREFERENCES: &str = "/etc/apt/preferences.d";
const NAME: &str = "venvguard-hold.pref";

/// Where apt's configuration without the hold is.
const WITHOUT: &str = "/var/cache/venvguard/without-hold";

const LIMIT: u64 = 1 << 16;

/// The first line, by which the file is recognized as ours.
const TITLE: &str = "# venvguard holds Python; `venvguard unhold` removes this file.";

/// A hold on the interpreters that are installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) packages: Vec<String>,
    pub(crate) since: Timestamp,
    /// `None`: until somebody ends it.
    pub(crate) until: Option<Timestamp>,
    pub(crate) by: String,
    pub(crate) because: Option<String>,
}

/// Why the hold cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HoldError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{path}: {source}", path = printable(.path))]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is not a hold of venvguard's; it was left alone", path = printable(.0))]
    NotOurs(PathBuf),
}

/// The packages that decide which interpreters there are: the others depend on exactly their
/// versions, so apt keeps those too.
pub(crate) fn packages_to_hold(now: &Interpreters) -> Vec<String> {
    let programs = now.installed.values().map(|interpreter| interpreter.package.name.clone());
    let default = now.default.map(|_| "python3-minimal".to_string());
    default.into_iter().chain(programs).collect()
}

/// apt-get as if Python were not held: a rehearsal finds out whether the hold can end.
pub(crate) fn without_hold(root: &Root) -> Result<AptGet, HoldError> {
    if Hold::read(root)?.is_none() {
        return Ok(AptGet::default());
    }
    let dir = root.at(WITHOUT);
    let preferences = dir.join("preferences.d");
    let io = |source| HoldError::Io { path: dir.clone(), source };
    match fs::remove_dir_all(&preferences) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => fs::create_dir_all(&preferences).map_err(io)?,
    }
    for entry in fs::read_dir(root.at(PREFERENCES)).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.file_name() != NAME {
            symlink(entry.path(), preferences.join(entry.file_name())).map_err(io)?;
        }
    }
    let configuration = dir.join("apt.conf");
    let text = format!("Dir::Etc::PreferencesParts \"{}\";\n", preferences.display());
    file::write_atomically(&configuration, text.as_bytes(), 0o644).map_err(io)?;
    Ok(AptGet { configuration: Some(configuration), ..AptGet::default() })
}

impl Hold {
    fn path(root: &Root) -> PathBuf {
        root.at(PREFERENCES).join(NAME)
    }

    /// The hold on this machine, if there is one.
    pub(crate) fn read(root: &Root) -> Result<Option<Self>, HoldError> {
        let path = Self::path(root);
        match file::read_own(&path, LIMIT) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                Self::parse(&text).map(Some).ok_or(HoldError::NotOurs(path))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn write(&self, root: &Root) -> Result<(), HoldError> {
        // A file of somebody else's stays.
        Self::read(root)?;
        let path = Self::path(root);
        file::write_atomically(&path, self.in_words().as_bytes(), 0o644)
            .map_err(|source| HoldError::Io { path, source })
    }

    /// Ends the hold. Returns it, if there was one.
    pub(crate) fn remove(root: &Root) -> Result<Option<Self>, HoldError> {
        let hold = Self::read(root)?;
        if hold.is_some() {
            let path = Self::path(root);
            file::remove_if_there(&path).map_err(|source| HoldError::Io { path, source })?;
        }
        Ok(hold)
    }

    pub(crate) fn has_ended(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    fn in_words(&self) -> String {
        let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut text = format!("{TITLE}\n# By: {}\n# Since: {}\n", line(&self.by), self.since);
        if let Some(until) = self.until {
            let _ = writeln!(text, "# Until: {until}");
        }
        if let Some(because) = &self.because {
            let _ = writeln!(text, "# Reason: {}", line(because));
        }
        let packages = self.packages.join(" ");
        text + &format!("Package: {packages}\nPin: version *\nPin-Priority: -1\n")
    }

    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(TITLE)?;
        let field = |name: &str| rest.lines().find_map(|line| line.strip_prefix(name));
        let packages = field("Package: ")?.split(' ').map(str::to_string);
        let hold = Self {
            packages: packages.collect(),
            since: field("# Since: ")?.parse().ok()?,
            until: field("# Until: ").map(str::parse).transpose().ok()?,
            by: field("# By: ")?.to_string(),
            because: field("# Reason: ").map(str::to_string),
        };
        hold.packages.iter().all(|name| is_package_name(name)).then_some(hold)
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::system;
    use super::*;

    fn hold() -> Hold {
        Hold {
            packages: packages_to_hold(&system(&["3.13.5-2", "3.11.2-6"])),
            since: "2026-11-29T20:00:00Z".parse().unwrap(),
            until: Some("2026-12-13T20:00:00Z".parse().unwrap()),
            by: "alice".into(),
            because: Some("shop is\nnot ready".into()),
        }
    }

    fn machine() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc/apt/preferences.d")).unwrap();
        let root = Root::new(dir.path().canonicalize().unwrap());
        (dir, root)
    }

    #[test]
    fn a_hold_is_known_until_it_is_removed() {
        let (_dir, root) = machine();
        assert_eq!(Hold::read(&root).unwrap(), None);
        hold().write(&root).unwrap();
        let found = Hold::read(&root).unwrap().unwrap();
        assert_eq!(found, Hold { because: Some("shop is not ready".into()), ..hold() });
        assert_eq!(found.packages, ["python3-minimal", "python3.11-minimal", "python3.13-minimal"]);
        let at = |text: &str| text.parse().unwrap();
        assert!(!found.has_ended(at("2026-12-13T19:59:59Z")));
        assert!(found.has_ended(at("2026-12-13T20:00:00Z")));
        assert_eq!(Hold::remove(&root).unwrap(), Some(found));
        assert_eq!(Hold::remove(&root).unwrap(), None);
    }

    #[test]
    fn without_the_hold_apt_obeys_all_other_pins() {
        let (_dir, root) = machine();
        assert_eq!(without_hold(&root).unwrap().configuration, None);
        std::fs::write(root.at(PREFERENCES).join("own.pref"), "").unwrap();
        hold().write(&root).unwrap();
        for _ in 0..2 {
            let file = without_hold(&root).unwrap().configuration.unwrap();
            let text = std::fs::read_to_string(file).unwrap();
            let dir = text.split('"').nth(1).unwrap();
            let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
            assert_eq!(names.collect::<Vec<_>>(), ["own.pref"]);
        }
    }

    #[test]
    fn a_file_of_somebody_else_is_left_alone() {
        let (_dir, root) = machine();
        let path = Hold::path(&root);
        std::fs::write(&path, "Package: python3\nPin: version *\nPin-Priority: -1\n").unwrap();
        for result in [hold().write(&root), Hold::remove(&root).map(drop)] {
            assert!(matches!(result, Err(HoldError::NotOurs(_))), "{result:?}");
        }
        assert!(path.exists());
    }
}
