//! The record that services wait for a window. `venvguard-restart.path` watches its file.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError};
use crate::host::clock;

const FILE: &str = "waiting.json";
const SCHEMA: u64 = 1;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Waiting {
    schema_version: u64,
    since: Timestamp,
}

impl Store {
    /// Since when services wait for a window, or when they were tried last.
    pub(crate) fn waiting_since(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.load::<Waiting>(FILE, SCHEMA)?.map(|waiting| waiting.since))
    }

    /// Records that services wait for a window from now on. Those that wait already do not wait
    /// longer for it.
    pub(crate) fn wait_for_windows(&self) -> Result<(), StoreError> {
        match self.waiting_since() {
            Ok(Some(_)) => Ok(()),
            // A damaged file is replaced.
            Ok(None) | Err(StoreError::Damaged { .. }) => self.windows_tried_at(clock::now()),
            Err(error) => Err(error),
        }
    }

    /// Records that what waits was tried at this time: it waits for a window that opens later.
    pub(crate) fn windows_tried_at(&self, since: Timestamp) -> Result<(), StoreError> {
        self.save(FILE, &Waiting { schema_version: SCHEMA, since })
    }

    /// Nothing waits for a window any more.
    pub(crate) fn end_waiting(&self) -> Result<(), StoreError> {
        self.remove(FILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Root;

    #[test]
    fn a_record_of_schema_version_1_is_read() {
        let since = "2026-01-01T00:00:00Z".parse().unwrap();
        let fixture = include_str!("fixtures/waiting.schema-1.json");
        let waiting = Waiting { schema_version: SCHEMA, since };
        super::super::fixtures::check(FILE, fixture, SCHEMA, &waiting);
    }

    #[test]
    fn what_waits_keeps_its_time_until_it_is_tried() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(&Root::new(dir.path()));
        assert_eq!(store.waiting_since().unwrap(), None);
        store.windows_tried_at(Timestamp::UNIX_EPOCH).unwrap();
        store.wait_for_windows().unwrap();
        assert_eq!(store.waiting_since().unwrap(), Some(Timestamp::UNIX_EPOCH));
        assert!(!store.has_work(), "`resume` has nothing to do with it");
        std::fs::write(store.dir().join(FILE), "{").unwrap();
        store.wait_for_windows().unwrap();
        assert!(store.waiting_since().unwrap().is_some_and(|since| since > Timestamp::UNIX_EPOCH));
        store.end_waiting().unwrap();
        assert_eq!(store.waiting_since().unwrap(), None);
    }
}
