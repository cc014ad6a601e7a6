//! What the last rehearsals of the venvs found: a directory per venv, with a file per interpreter.

use std::io;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError};
use crate::host::clock;
use crate::plan::{Finding, Proof};
use crate::python::Package;

const SCHEMA: u64 = 1;

const DIR: &str = "rehearsals";

/// A rehearsal, and what it was made for: it says nothing about another interpreter or other
/// distributions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rehearsal {
    schema_version: u64,
    pub(crate) at: Timestamp,
    pub(crate) made_for: MadeFor,
    pub(crate) proof: Proof,
    /// Why the venv is not ready; none if it is.
    pub(crate) findings: Vec<Finding>,
    /// The same if it stays on its own interpreter, if that was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stay: Option<Stay>,
}

/// What breaks in a venv that stays on its own interpreter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stay {
    pub(crate) interpreter: Package,
    pub(crate) findings: Vec<Finding>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MadeFor {
    /// The package of the interpreter.
    pub(crate) interpreter: Package,
    /// A hash of what was to be installed and of what was installed in the venv; `None` if the
    /// venv cannot be reproduced.
    pub(crate) recipe: Option<String>,
}

impl Rehearsal {
    pub(crate) fn new(made_for: MadeFor, proof: Proof, findings: Vec<Finding>) -> Self {
        let (schema_version, at) = (SCHEMA, clock::now());
        Self { schema_version, at, made_for, proof, findings, stay: None }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.findings.is_empty()
    }
}

impl Store {
    /// The last rehearsal of a venv with an interpreter of this package, whatever its version.
    pub(crate) fn rehearsal(
        &self,
        id: &str,
        package: &str,
    ) -> Result<Option<Rehearsal>, StoreError> {
        self.load(&name(id, package), SCHEMA)
    }

    /// The last rehearsals of a venv, the latest first.
    pub(crate) fn rehearsals(&self, id: &str) -> Result<Vec<Rehearsal>, StoreError> {
        let entries = std::fs::read_dir(self.dir().join(DIR).join(id)).into_iter().flatten();
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let packages = names.filter_map(|name| name.strip_suffix(".json").map(str::to_string));
        let mut found = Vec::new();
        for package in packages {
            found.extend(self.rehearsal(id, &package)?);
        }
        found.sort_by_key(|one| std::cmp::Reverse(one.at));
        Ok(found)
    }

    /// Whether any venv was rehearsed. It takes one call, for the commands that show many venvs.
    pub(crate) fn has_rehearsals(&self) -> bool {
        std::fs::read_dir(self.dir().join(DIR)).is_ok_and(|mut found| found.next().is_some())
    }

    pub(crate) fn save_rehearsal(&self, id: &str, found: &Rehearsal) -> Result<(), StoreError> {
        self.save(&name(id, &found.made_for.interpreter.name), found)
    }

    /// Forgets those of a venv that are older.
    pub(crate) fn forget_old_rehearsals(
        &self,
        id: &str,
        oldest: Timestamp,
    ) -> Result<(), StoreError> {
        let found = self.rehearsals(id)?;
        let mut old = found.iter().filter(|one| one.at < oldest);
        old.try_for_each(|one| self.remove(&name(id, &one.made_for.interpreter.name)))
    }

    pub(crate) fn forget_rehearsals(&self, id: &str) -> Result<(), StoreError> {
        let path = self.dir().join(DIR).join(id);
        match std::fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::Io { path, source })
            }
            _ => Ok(()),
        }
    }
}

fn name(id: &str, package: &str) -> String {
    format!("{DIR}/{id}/{package}.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Root;
    use crate::plan::FindingKind;

    fn rehearsal() -> Rehearsal {
        let finding = Finding {
            distribution: Some("psycopg2-binary".into()),
            version: Some("2.9.5".into()),
            works_from: Some("2.9.10".into()),
            ..Finding::of_venv(FindingKind::NoWheel, "no file for Python 3.13")
        };
        let interpreter = Package { name: "python3.13-minimal".into(), version: "3.13.5-2".into() };
        let made_for = MadeFor { interpreter, recipe: Some("0c2d".into()) };
        let at = "2026-01-01T00:00:00Z".parse().unwrap();
        Rehearsal { at, ..Rehearsal::new(made_for, Proof::None, vec![finding]) }
    }

    #[test]
    fn a_rehearsal_is_known_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(&Root::new(dir.path()));
        assert_eq!(store.rehearsals("1").unwrap(), []);
        store.save_rehearsal("1", &rehearsal()).unwrap();
        assert_eq!(store.rehearsals("1").unwrap(), [rehearsal()]);
        assert!(!rehearsal().is_ready());
        let stay = Stay {
            interpreter: Package { name: "python3.11-minimal".into(), version: "3.11.2-6".into() },
            findings: vec![Finding::of_venv(FindingKind::Import, "module distutils.util")],
        };
        let stays = Rehearsal { stay: Some(stay), ..rehearsal() };
        store.save_rehearsal("1", &stays).unwrap();
        assert_eq!(store.rehearsals("1").unwrap().first(), Some(&stays));
        let mut other = Rehearsal { at: Timestamp::UNIX_EPOCH, ..rehearsal() };
        other.made_for.interpreter.name = "python3.11-minimal".into();
        store.save_rehearsal("1", &other).unwrap();
        assert_eq!(store.rehearsals("1").unwrap(), [stays, other.clone()]);
        assert_eq!(store.rehearsal("1", "python3.11-minimal").unwrap(), Some(other));
        store.forget_old_rehearsals("1", rehearsal().at).unwrap();
        assert_eq!(store.rehearsals("1").unwrap().len(), 1);
        store.forget_rehearsals("1").unwrap();
        store.forget_rehearsals("1").unwrap();
        assert_eq!(store.rehearsals("1").unwrap(), []);
    }

    #[test]
    fn a_rehearsal_of_schema_version_1_is_read() {
        let fixture = include_str!("fixtures/rehearsal.schema-1.json");
        super::super::fixtures::check(&name("0a1b2c3d", "x"), fixture, SCHEMA, &rehearsal());
    }
}
