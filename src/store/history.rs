//! The history of events, one per line, for people and for `history --json`.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{PathText, Store, StoreError, parse};
use crate::host::{audit, clock, fault, file};
use crate::plan::Decision;

const SCHEMA: u64 = 1;

const NAME: &str = "history.jsonl";
const LIMIT: u64 = 64 << 20;

/// The size at which the file is shortened, far below the limit for reading it, and how much of
/// it is kept: the latest events, of hundreds of upgrades of hundreds of venvs.
const FULL: u64 = 16 << 20;
const KEPT: usize = 8 << 20;

/// The limit of an event's text in bytes: the last lines of some services and of a build fit.
const DETAIL: usize = 16 << 10;

/// One event of a venv, or of a transaction because of a venv.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Event {
    schema_version: u64,
    pub(crate) at: Timestamp,
    /// The venv's name.
    pub(crate) venv: String,
    path: PathText,
    /// The event: `rebuilt`, `refreshed`, `prepared`, `pinned`, `restarted`, `rolled-back`,
    /// `blocked`, `allowed`, `failed`.
    pub(crate) what: String,
    pub(crate) detail: String,
    /// The decision that caused the event, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) decision: Option<Box<Decision>>,
    /// The steps of a repair, in the order in which they began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) steps: Vec<StepTime>,
}

/// How long a step of a repair took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StepTime {
    pub(crate) step: String,
    pub(crate) milliseconds: u64,
}

impl Event {
    pub(crate) fn path(&self) -> &Path {
        &self.path.0
    }

    pub(crate) fn new(venv: &str, path: &Path, what: &str, detail: impl Into<String>) -> Self {
        Self {
            schema_version: SCHEMA,
            at: clock::now(),
            venv: venv.to_string(),
            path: path.into(),
            what: what.to_string(),
            detail: file::within(&detail.into(), DETAIL),
            decision: None,
            steps: Vec::new(),
        }
    }

    /// Adds how long the steps of the repair took.
    pub(crate) fn that_took(self, times: &[(String, Duration)]) -> Self {
        let steps = times.iter().map(|(step, took)| StepTime {
            step: step.clone(),
            milliseconds: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        });
        Self { steps: steps.collect(), ..self }
    }

    /// Adds the decision that caused the event.
    pub(crate) fn of(self, decision: &Decision) -> Self {
        Self { decision: Some(Box::new(decision.clone())), ..self }
    }
}

/// All events, oldest first, and the numbers of the damaged lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct History {
    pub(crate) events: Vec<Event>,
    pub(crate) damaged: Vec<usize>,
}

impl History {
    /// A damaged line does not affect the others. A line of a newer schema is an error: a history
    /// without its latest events would mislead.
    pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<Self, StoreError> {
        let mut history = Self::default();
        for (line, number) in bytes.split(|byte| *byte == b'\n').zip(1..) {
            match parse(path, line, SCHEMA) {
                Ok(event) => history.events.push(event),
                Err(_) if line.is_empty() => {}
                Err(error @ StoreError::Newer { .. }) => return Err(error),
                Err(_) => history.damaged.push(number),
            }
        }
        Ok(history)
    }
}

impl Store {
    /// Writes the event to the system's journal.
    pub(crate) fn audit(&self, event: &Event) {
        let Event { venv, path, what, detail, .. } = event;
        audit::Line { action: what, venv: Some(venv), path: Some(&path.0), message: detail }
            .write(self.root());
    }

    /// Writes the event to the history and to the system's journal.
    pub(crate) fn record(&self, event: &Event) -> Result<(), StoreError> {
        self.audit(event);
        let path = self.dir().join(NAME);
        let io = |source| StoreError::Io { path: path.clone(), source };
        let mut line = serde_json::to_vec(event).map_err(|error| io(error.into()))?;
        line.push(b'\n');
        std::fs::create_dir_all(self.dir()).map_err(io)?;
        make_room(&path, line.len()).map_err(io)?;
        fault::point("append").map_err(io)?;
        let mut file = std::fs::OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o644)
            .open(&path)
            .map_err(io)?;
        // Ends a line that a crash cut off.
        let mut last = *b"\n";
        let length = file.metadata().map_err(io)?.len();
        file.read_at(&mut last, length.saturating_sub(1)).map_err(io)?;
        if last != *b"\n" {
            line.insert(0, b'\n');
        }
        file.write_all(&line).and_then(|()| file.sync_data()).map_err(io)
    }

    pub(crate) fn history(&self) -> Result<History, StoreError> {
        let path = self.dir().join(NAME);
        match file::read_untrusted(&path, LIMIT) {
            Ok(bytes) => History::read(&path, &bytes),
            Err(error) if error.is_not_found() => Ok(History::default()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Drops the oldest events if another line would make the file too large.
fn make_room(path: &Path, line: usize) -> io::Result<()> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let length = file.metadata()?.len();
    if length.saturating_add(line as u64) <= FULL {
        return Ok(());
    }
    let mut latest = vec![0; KEPT];
    file.read_exact_at(&mut latest, length.saturating_sub(KEPT as u64))?;
    // The first line is incomplete.
    let end = latest.iter().position(|byte| *byte == b'\n').map_or(KEPT, |end| end + 1);
    file::write_atomically(path, latest.get(end..).unwrap_or_default(), 0o644)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::super::fixtures;
    use super::*;
    use crate::host::Root;

    #[test]
    fn a_history_of_schema_version_1_is_read() {
        let fixture = include_str!("fixtures/history.schema-1.jsonl");
        let event = |at: &str, path: &[u8], what: &str, detail: &str| Event {
            schema_version: 1,
            at: at.parse().unwrap(),
            venv: "shop".into(),
            path: PathText(OsStr::from_bytes(path).into()),
            what: what.into(),
            detail: detail.into(),
            decision: None,
            steps: Vec::new(),
        };
        let rebuilt =
            event("2026-01-01T00:00:00Z", b"/srv/shop/venv", "rebuilt", "for Python 3.13\n1 file");
        let events = [
            rebuilt
                .of(&fixtures::decision())
                .that_took(&[("installing the distributions".into(), Duration::from_millis(3540))]),
            event("2026-01-02T03:04:05Z", b"/srv/sh\xffp", "blocked", "\u{1b}"),
        ];
        let path = Path::new("/var/lib/venvguard").join(NAME);
        let read = |text: &str| History::read(&path, text.as_bytes());
        let whole = History { events: events.to_vec(), damaged: Vec::new() };
        assert_eq!(read(fixture).unwrap(), whole);
        for (line, event) in fixture.lines().zip(&events) {
            assert_eq!(serde_json::to_string(event).unwrap(), line);
            let document = serde_json::from_str(line).unwrap();
            for changed in fixtures::with_an_unknown_field(&document) {
                assert_eq!(read(&changed.to_string()).unwrap().damaged, [1], "{changed}");
            }
        }
        let newer = fixture.replacen("version\":1", "version\":2", 1);
        fixtures::assert_is_newer(&read(&newer).unwrap_err(), NAME, SCHEMA);
        let without = fixture.replacen("\"schema_version\":1,", "", 1);
        assert_eq!(read(&without).unwrap().damaged, [1]);
    }

    #[test]
    fn the_text_of_an_event_is_limited() {
        let flood = "é\u{1b}".repeat(32 << 20);
        let event = Event::new("shop", Path::new("/srv/shop"), "failed", flood);
        assert!(event.detail.len() <= DETAIL && event.detail.ends_with('…'));
    }

    #[test]
    fn the_history_stays_below_the_limit_for_reading_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(&Root::new(dir.path()));
        let event = |what| Event::new("shop", Path::new("/srv/shop"), what, "x".repeat(1000));
        store.record(&event("first")).unwrap();
        let path = store.dir().join(NAME);
        let line = std::fs::read(&path).unwrap();
        // As many as an older venvguard without a limit may have left.
        for size in [FULL, LIMIT + line.len() as u64] {
            let lines = usize::try_from(size).unwrap() / line.len();
            std::fs::write(&path, line.repeat(lines)).unwrap();
            store.record(&event("last")).unwrap();
            let history = store.history().unwrap();
            assert_eq!(history.events.last().unwrap().what, "last");
            assert_eq!(history.damaged, [0; 0], "whole lines are dropped");
            assert!(history.events.len() > KEPT / line.len() / 2);
            assert!(std::fs::metadata(&path).unwrap().len() <= FULL);
        }
    }

    #[test]
    fn events_are_read_back_in_order_and_a_cut_line_does_not_affect_others() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(&Root::new(dir.path()));
        let events = ["rebuilt", "rolled-back"]
            .map(|what| Event::new("shop", Path::new("/srv/shop"), what, "x"));
        for event in &events {
            store.record(event).unwrap();
        }
        let path = store.dir().join(NAME);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(b"{\"at\":");
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(store.history().unwrap(), History { events: events.to_vec(), damaged: vec![3] });
        store.record(&events[0]).unwrap();
        let history = store.history().unwrap();
        assert_eq!((history.events.len(), history.damaged), (3, vec![3]));
    }
}
