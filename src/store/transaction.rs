//! What spans the two hooks of one apt run, which are two processes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::host::clock;
use crate::python::Interpreters;
use crate::service::Service;

pub(super) const SCHEMA: u64 = 1;

/// The interpreters that the venvs were last brought in line with.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Snapshot {
    pub(super) schema_version: u64,
    pub(super) interpreters: Interpreters,
}

/// What the gate found before dpkg ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TransactionRecord {
    schema_version: u64,
    pub(crate) begun_at: Timestamp,
    /// What ran out of each venv that the transaction has an effect on, by the venv's id:
    /// some of it dies in the middle of an upgrade.
    pub(crate) services: BTreeMap<String, Vec<Service>>,
}

impl TransactionRecord {
    pub(crate) fn new(services: BTreeMap<String, Vec<Service>>) -> Self {
        Self { schema_version: SCHEMA, begun_at: clock::now(), services }
    }

    /// What ran out of a venv.
    pub(crate) fn services_of(&self, id: &str) -> &[Service] {
        self.services.get(id).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Work that was marked for `resume`, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pending {
    schema_version: u64,
    pub(crate) since: Timestamp,
    pub(crate) reason: String,
}

impl Pending {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self { schema_version: SCHEMA, since: clock::now(), reason: reason.into() }
    }
}
