//! The summary for monitoring: what everybody may know about the registered venvs. It lasts until
//! the next boot.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError, parse};
use crate::host::file;
use crate::host::lock::{self, LockFile};
use crate::plan::State;

const SCHEMA: u64 = 1;

const PATH: &str = "/run/venvguard/summary.json";
/// A lock of its own: a repair that takes hours holds the other one.
const LOCK: &str = "/run/venvguard/summary.lock";

/// The summary of a hundred thousand venvs stays below this.
const LIMIT: u64 = 64 << 20;

/// The limit in bytes of a reason.
const REASON: usize = 256;

/// The venvs of the system and their guard, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Summary {
    pub(crate) schema_version: u64,
    pub(crate) at: Timestamp,
    /// The version of venvguard that wrote it.
    pub(crate) version: String,
    /// Whether apt calls venvguard at each of its events.
    pub(crate) guards: bool,
    /// Why the registry or the configuration cannot be used. Then nothing is known about the venvs.
    pub(crate) damage: Option<String>,
    /// An upgrade changed Python, and the venvs have not been repaired yet.
    pub(crate) has_work: bool,
    /// When apt last called venvguard.
    pub(crate) called_at: Option<Timestamp>,
    /// The last run that had something to do.
    pub(crate) last_run: Option<LastRun>,
    pub(crate) held: Option<HeldSince>,
    /// What the rehearsals found, for each interpreter that is not installed yet.
    pub(crate) rehearsed: Vec<Rehearsed>,
    /// How many processes run code that was replaced.
    pub(crate) stale_processes: usize,
    pub(crate) venvs: Vec<VenvSummary>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LastRun {
    pub(crate) at: Timestamp,
    /// Whether nothing needed attention at its end.
    pub(crate) success: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeldSince {
    pub(crate) since: Timestamp,
    pub(crate) until: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rehearsed {
    /// The version of the package of the interpreter.
    pub(crate) python: String,
    pub(crate) ready: usize,
    /// The names of the venvs that are not ready.
    pub(crate) not_ready: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VenvSummary {
    pub(crate) name: String,
    pub(crate) state: State,
    /// The beginning of the first reason for the state.
    pub(crate) reason: Option<String>,
    /// Since when it is pinned, unless its policy asks for that.
    pub(crate) pinned_since: Option<Timestamp>,
    pub(crate) failed_services: Vec<String>,
    /// How many previous environments are kept.
    pub(crate) backups: usize,
}

impl Summary {
    /// The summary of a system without venvs.
    pub(crate) fn new(at: Timestamp) -> Self {
        Self {
            schema_version: SCHEMA,
            at,
            version: env!("CARGO_PKG_VERSION").to_string(),
            guards: true,
            damage: None,
            has_work: false,
            called_at: None,
            last_run: None,
            held: None,
            rehearsed: Vec::new(),
            stale_processes: 0,
            venvs: Vec::new(),
        }
    }
}

impl VenvSummary {
    pub(crate) fn new(name: &str, state: State, reason: Option<&String>) -> Self {
        Self {
            name: name.to_string(),
            state,
            reason: reason.map(|text| file::within(text, REASON)),
            pinned_since: None,
            failed_services: Vec::new(),
            backups: 0,
        }
    }
}

impl Store {
    /// The summary, if one was written since the system started.
    pub(crate) fn summary(&self) -> Result<Option<Summary>, StoreError> {
        let path = self.summary_path();
        match file::read_own(&path, LIMIT) {
            Ok(bytes) => parse(&path, &bytes, SCHEMA).map(Some),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Everybody may read it. The caller holds [`Store::lock_summary`].
    pub(crate) fn save_summary(&self, summary: &Summary) -> Result<(), StoreError> {
        let path = self.summary_path();
        let io =
            |error: serde_json::Error| StoreError::Io { path: path.clone(), source: error.into() };
        let mut bytes = serde_json::to_vec_pretty(summary).map_err(io)?;
        bytes.push(b'\n');
        self.write(&path, &bytes, 0o644)
    }

    /// Keeps others from writing a summary meanwhile, so that a later one is of a later state.
    pub(crate) fn lock_summary(&self, patience: Duration) -> Result<LockFile, StoreError> {
        Ok(lock::acquire(&self.root().at(LOCK), patience)?)
    }

    fn summary_path(&self) -> PathBuf {
        self.root().at(PATH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Root;

    fn summary() -> Summary {
        let at = |text: &str| text.parse().unwrap();
        let reason = "bin/python runs 3.13, but its distributions are for 3.11".to_string();
        let shop = VenvSummary {
            pinned_since: Some(at("2026-01-02T00:00:00Z")),
            failed_services: vec!["systemd:shop.service".into()],
            backups: 1,
            ..VenvSummary::new("shop", State::Orphaned, Some(&reason))
        };
        let held = HeldSince { since: at("2026-01-03T00:00:00Z"), until: None };
        let rehearsed =
            Rehearsed { python: "3.13.5-2".into(), ready: 1, not_ready: vec!["shop".into()] };
        Summary {
            version: "0.1.0".into(),
            has_work: true,
            called_at: Some(at("2026-01-04T00:00:00Z")),
            last_run: Some(LastRun { at: at("2026-01-05T00:00:00Z"), success: false }),
            held: Some(held),
            rehearsed: vec![rehearsed],
            stale_processes: 2,
            venvs: vec![shop],
            ..Summary::new(at("2026-01-06T00:00:00Z"))
        }
    }

    #[test]
    fn a_summary_of_schema_version_1_is_read() {
        let fixture = include_str!("fixtures/summary.schema-1.json");
        super::super::fixtures::check("summary.json", fixture, SCHEMA, &summary());
    }

    #[test]
    fn a_summary_is_read_back_and_its_reasons_are_short() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(&Root::new(dir.path()));
        assert_eq!(store.summary().unwrap(), None);
        store.save_summary(&summary()).unwrap();
        assert_eq!(store.summary().unwrap(), Some(summary()));
        let flood = VenvSummary::new("shop", State::Broken, Some(&"x".repeat(1 << 20)));
        assert_eq!(flood.reason.unwrap().len(), REASON);
    }
}
