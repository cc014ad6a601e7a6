//! State shared by the two hooks of one apt run, which are two processes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::host::clock;
use crate::plan::Checked;
use crate::python::Interpreters;
use crate::service::Service;

pub(super) const SCHEMA: u64 = 1;

/// The interpreters for which the venvs were last repaired.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Snapshot {
    pub(super) schema_version: u64,
    pub(super) interpreters: Interpreters,
}

/// The findings of the gate before dpkg ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TransactionRecord {
    schema_version: u64,
    pub(crate) begun_at: Timestamp,
    /// The services that used each venv affected by the transaction, by the venv's id: some of them
    /// die in the middle of an upgrade.
    pub(crate) services: BTreeMap<String, Vec<Service>>,
    /// The results of the venvs' checks, by id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) checks: BTreeMap<String, Checked>,
}

impl TransactionRecord {
    pub(crate) fn new(
        services: BTreeMap<String, Vec<Service>>,
        checks: BTreeMap<String, Checked>,
    ) -> Self {
        Self { schema_version: SCHEMA, begun_at: clock::now(), services, checks }
    }

    /// The services that used a venv.
    pub(crate) fn services_of(&self, id: &str) -> &[Service] {
        self.services.get(id).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Work that was marked for `resume`, and what marked it.
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

#[cfg(test)]
mod tests {
    use super::super::fixtures::check;
    use super::*;
    use crate::host::FileIdentity;
    use crate::python::{BuildId, Interpreter, Minor, Package, Version};

    #[test]
    fn interpreters_of_schema_version_1_are_read() {
        let interpreter = |minor: u8, debian: &str, known: bool| Interpreter {
            version: Version::of_package(debian).unwrap(),
            package: Package { name: format!("python3.{minor}-minimal"), version: debian.into() },
            build_id: known.then(|| BuildId("0a1b".into())),
            identity: known.then_some(FileIdentity { device: 1, inode: 2, size: 3, changed: 4 }),
        };
        let interpreters = Interpreters {
            default: Some(Minor::new(3, 13)),
            installed: BTreeMap::from([
                (Minor::new(3, 13), interpreter(13, "3.13.5-2", true)),
                (Minor::new(3, 14), interpreter(14, "3.14.0~rc1-1", false)),
            ]),
        };
        let snapshot = Snapshot { schema_version: 1, interpreters };
        let fixture = include_str!("fixtures/interpreters.schema-1.json");
        check("interpreters.json", fixture, SCHEMA, &snapshot);
    }

    #[test]
    fn a_transaction_of_schema_version_1_is_read() {
        let services = ["systemd:web.service", "supervisord:shop:worker", "user:own.service"];
        let record = TransactionRecord {
            schema_version: 1,
            begun_at: "2026-01-01T00:00:00Z".parse().unwrap(),
            services: BTreeMap::from([
                ("0a1b2c3d".to_string(), services.map(|name| name.parse().unwrap()).to_vec()),
                ("1".to_string(), Vec::new()),
            ]),
            checks: BTreeMap::new(),
        };
        let fixture = include_str!("fixtures/transaction.schema-1.json");
        check("transaction.json", fixture, SCHEMA, &record);
    }

    #[test]
    fn a_mark_of_schema_version_1_is_read() {
        let since = "2026-01-01T00:00:00Z".parse().unwrap();
        let pending = Pending { schema_version: 1, since, reason: "a trigger of dpkg".into() };
        check("pending", include_str!("fixtures/pending.schema-1.json"), SCHEMA, &pending);
    }
}
