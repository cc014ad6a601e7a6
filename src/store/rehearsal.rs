//! What the last rehearsal of a venv found: one file per venv.

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
    pub(crate) fn rehearsal(&self, id: &str) -> Result<Option<Rehearsal>, StoreError> {
        self.load(&name(id), SCHEMA)
    }

    /// Whether any venv was rehearsed. It takes one call, for the commands that show many venvs.
    pub(crate) fn has_rehearsals(&self) -> bool {
        std::fs::read_dir(self.dir().join(DIR)).is_ok_and(|mut found| found.next().is_some())
    }

    pub(crate) fn save_rehearsal(&self, id: &str, found: &Rehearsal) -> Result<(), StoreError> {
        self.save(&name(id), found)
    }

    pub(crate) fn forget_rehearsal(&self, id: &str) -> Result<(), StoreError> {
        let is_there = self.dir().join(name(id)).symlink_metadata().is_ok();
        if is_there { self.remove(&name(id)) } else { Ok(()) }
    }
}

fn name(id: &str) -> String {
    format!("{DIR}/{id}.json")
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
        assert_eq!(store.rehearsal("1").unwrap(), None);
        store.save_rehearsal("1", &rehearsal()).unwrap();
        assert_eq!(store.rehearsal("1").unwrap(), Some(rehearsal()));
        assert!(!rehearsal().is_ready());
        let stay = Stay {
            interpreter: Package { name: "python3.11-minimal".into(), version: "3.11.2-6".into() },
            findings: vec![Finding::of_venv(FindingKind::Import, "module distutils.util")],
        };
        let stays = Rehearsal { stay: Some(stay), ..rehearsal() };
        store.save_rehearsal("1", &stays).unwrap();
        assert_eq!(store.rehearsal("1").unwrap(), Some(stays));
        store.forget_rehearsal("1").unwrap();
        store.forget_rehearsal("1").unwrap();
        assert_eq!(store.rehearsal("1").unwrap(), None);
    }

    #[test]
    fn a_rehearsal_of_schema_version_1_is_read() {
        let fixture = include_str!("fixtures/rehearsal.schema-1.json");
        super::super::fixtures::check(&name("0a1b2c3d"), fixture, SCHEMA, &rehearsal());
    }
}
