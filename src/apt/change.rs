//! The difference between the interpreters at two moments.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::python::{self, Interpreter, Interpreters, Minor, Version};

/// An interpreter before or after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Build {
    pub(crate) version: Version,
    /// The Debian version of the package that owns it.
    pub(crate) package_version: String,
}

impl From<&Interpreter> for Build {
    fn from(interpreter: &Interpreter) -> Self {
        Self {
            version: interpreter.version.clone(),
            package_version: interpreter.package.version.clone(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ChangeKind {
    /// `/usr/bin/python3` leads to another minor version.
    Minor,
    /// Another upstream version of the same minor version.
    Patch,
    /// The same upstream version, another Debian revision (or another build of it, or the same
    /// one installed again).
    Revision,
    Removed,
    Appeared,
}

/// One interpreter, before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Change {
    pub(crate) interpreter: PathBuf,
    pub(crate) kind: ChangeKind,
    pub(crate) from: Option<Build>,
    pub(crate) to: Option<Build>,
}

/// The changes from `before` to `after`, the default interpreter first.
pub(crate) fn changes(before: &Interpreters, after: &Interpreters) -> Vec<Change> {
    let default = (before.default != after.default).then(|| Change {
        interpreter: python::DEFAULT.into(),
        kind: match (before.default, after.default) {
            (None, _) => ChangeKind::Appeared,
            (_, None) => ChangeKind::Removed,
            _ => ChangeKind::Minor,
        },
        from: before.default_interpreter().map(Build::from),
        to: after.default_interpreter().map(Build::from),
    });
    let minors: std::collections::BTreeSet<Minor> =
        before.installed.keys().chain(after.installed.keys()).copied().collect();
    let pinned =
        minors.into_iter().filter_map(|minor| of(minor, before.get(minor), after.get(minor)));
    default.into_iter().chain(pinned).collect()
}

/// The change of the interpreter of one minor version.
fn of(minor: Minor, before: Option<&Interpreter>, after: Option<&Interpreter>) -> Option<Change> {
    let kind = match (before, after) {
        (None, None) => return None,
        (None, Some(_)) => ChangeKind::Appeared,
        (Some(_), None) => ChangeKind::Removed,
        (Some(before), Some(after)) if before.version != after.version => ChangeKind::Patch,
        (Some(before), Some(after)) => {
            let rebuilt = matches!((&before.build_id, &after.build_id), (Some(one), Some(other)) if one != other);
            let is_same = before.package.version == after.package.version;
            if is_same && !rebuilt && !is_another_file(before, after) {
                return None;
            }
            ChangeKind::Revision
        }
    };
    Some(Change {
        interpreter: python::path_of(minor),
        kind,
        from: before.map(Build::from),
        to: after.map(Build::from),
    })
}

/// Whether the interpreter is another file than before, or is going to be one. A device may have
/// another number after a reboot: across devices nothing is known.
fn is_another_file(before: &Interpreter, after: &Interpreter) -> bool {
    match (before.identity, after.identity) {
        (Some(before), Some(after)) => before.device == after.device && before.inode != after.inode,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Minor => "minor",
            Self::Patch => "patch",
            Self::Revision => "revision",
            Self::Removed => "removed",
            Self::Appeared => "appeared",
        })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.interpreter.display())?;
        match (&self.from, &self.to) {
            (Some(from), Some(to)) if self.kind == ChangeKind::Revision && from == to => {
                write!(f, "{} is reinstalled", to.package_version)
            }
            (Some(from), Some(to)) if self.kind == ChangeKind::Revision => {
                write!(f, "{} → {}", from.package_version, to.package_version)
            }
            (Some(from), Some(to)) => write!(f, "{} → {}", from.version, to.version),
            (Some(from), None) => write!(f, "{} is removed", from.version),
            (None, Some(to)) => write!(f, "{} is installed", to.version),
            (None, None) => write!(f, "changes"),
        }
    }
}

/// Systems for the tests of several modules.
#[cfg(test)]
pub(crate) mod samples {
    use super::*;
    use crate::python::{BuildId, Package};

    /// A system with these Debian versions installed; the first is the default.
    pub(crate) fn system(versions: &[&str]) -> Interpreters {
        let installed: Vec<(Minor, Interpreter)> = versions
            .iter()
            .map(|debian| {
                let version = Version::of_package(debian).unwrap();
                let minor = version.minor();
                let name = format!("{}-minimal", minor.program());
                let package = Package { name, version: (*debian).to_string() };
                let build_id = Some(BuildId((*debian).to_string()));
                (minor, Interpreter { version, package, build_id, identity: None })
            })
            .collect();
        Interpreters {
            default: installed.first().map(|(minor, _)| *minor),
            installed: installed.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::samples::system;
    use super::*;
    use crate::host::FileIdentity;

    fn kinds(before: &[&str], after: &[&str]) -> Vec<(String, ChangeKind)> {
        changes(&system(before), &system(after))
            .into_iter()
            .map(|change| (change.interpreter.display().to_string(), change.kind))
            .collect()
    }

    #[test]
    fn an_interpreter_in_another_file_is_reinstalled_unless_the_device_is_another() {
        let with = |device, inode| {
            let mut system = system(&["3.13.5-2"]);
            let file = FileIdentity { device, inode, size: 1, changed: 1 };
            system.installed.get_mut(&Minor::new(3, 13)).unwrap().identity = Some(file);
            system
        };
        let found = changes(&with(1, 1), &with(1, 2));
        assert_eq!(found[0].kind, ChangeKind::Revision);
        assert_eq!(found[0].to_string(), "/usr/bin/python3.13 3.13.5-2 is reinstalled");
        assert_eq!(changes(&with(1, 1), &with(2, 2)), [], "after a reboot");
        assert_eq!(changes(&with(1, 1), &with(1, 1)), []);
    }

    #[test]
    fn each_kind_of_change_is_named() {
        let python3 = "/usr/bin/python3".to_string();
        let of = |minor: &str| format!("/usr/bin/python{minor}");
        assert_eq!(kinds(&["3.13.5-2"], &["3.13.5-2"]), []);
        assert_eq!(kinds(&["3.13.5-2"], &["3.13.5-3"]), [(of("3.13"), ChangeKind::Revision)]);
        assert_eq!(kinds(&["3.13.5-2"], &["3.13.15-1"]), [(of("3.13"), ChangeKind::Patch)]);
        assert_eq!(
            kinds(&["3.11.2-6"], &["3.13.5-2", "3.11.2-6"]),
            [(python3, ChangeKind::Minor), (of("3.13"), ChangeKind::Appeared)]
        );
        assert_eq!(
            kinds(&["3.13.5-2", "3.11.2-6"], &["3.13.5-2"]),
            [(of("3.11"), ChangeKind::Removed)]
        );
    }

    #[test]
    fn a_local_rebuild_of_the_same_version_is_a_revision() {
        let before = system(&["3.13.5-2"]);
        let mut after = before.clone();
        after.installed.get_mut(&Minor::new(3, 13)).unwrap().build_id =
            Some(crate::python::BuildId("other".into()));
        assert_eq!(changes(&before, &after)[0].kind, ChangeKind::Revision);
    }
}
