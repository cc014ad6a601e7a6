//! Whether a service is up, and stays up.
//!
//! "Active" alone says little: a service whose interpreter is broken is active for a
//! moment between two attempts, and uWSGI stays up with no application in it. This module
//! detects the former; the latter needs a check.

use std::collections::BTreeSet;
use std::time::Duration;

use super::error::ServiceError;
use crate::host::clock::{Deadline, poll};

/// How often a manager is polled; an answer costs it some milliseconds.
const POLL: Duration = Duration::from_millis(150);

/// By how much longer it is left alone while the service is up: a restart in between shows afterwards.
const CALM: Duration = Duration::from_millis(350);

/// For how long a service must be at rest before it counts as down: between the end of
/// a process and the next attempt some managers report a state of rest.
const AT_REST: Duration = Duration::from_secs(1);

/// The condition of a service at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "four questions, each with its own answer")]
pub(crate) struct Condition {
    pub(crate) up: bool,
    /// It ran to its end as intended (a oneshot).
    pub(crate) done: bool,
    /// It is not up, and its manager will not start it on its own.
    pub(crate) at_rest: bool,
    /// It should be up but went down, and nobody stopped it.
    pub(crate) failed: bool,
    /// Why venvguard never restarts it, if so: its work must not be repeated, or its manager
    /// refuses.
    pub(crate) left_alone: Option<String>,
    /// The state in the manager's words.
    pub(crate) state: String,
    pub(crate) main_pid: Option<u32>,
    /// How often the manager restarted it on its own.
    pub(crate) restarts: u32,
}

impl Condition {
    /// Whether its manager does not know it.
    pub(crate) fn is_unknown(&self) -> bool {
        self.state == "not-found"
    }

    /// Whether any part of it runs or is about to.
    pub(crate) fn is_at_work(&self) -> bool {
        self.up || !self.at_rest
    }

    /// Whether venvguard may restart it, and it runs.
    pub(crate) fn is_restarted(&self) -> bool {
        self.left_alone.is_none() && self.is_at_work()
    }

    /// The same if it is unknown what was up before the upgrade (a bare `dpkg -i`, a
    /// `rebuild` by hand): a failed service is started, because the upgrade may be the reason.
    /// A service stopped by hand stays stopped, and one that has ended is not run again.
    pub(crate) fn is_brought_back(&self) -> bool {
        self.is_restarted() || (self.left_alone.is_none() && self.failed)
    }
}

/// Why a service does not count as up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotUp {
    #[error("{service} is {state}{}", quoted(.words))]
    Down { service: String, state: String, words: Vec<String> },
    #[error("{service} did not stay up: {state}, restarted {restarts} times while venvguard watched{}", quoted(.words))]
    Unsteady { service: String, state: String, restarts: u32, words: Vec<String> },
    #[error(transparent)]
    Unknown(#[from] ServiceError),
}

fn quoted(words: &[String]) -> String {
    words.iter().flat_map(|line| ["\n    ", line.as_str()]).collect()
}

/// The result of watching a service.
#[derive(Debug)]
pub(super) enum Watched {
    /// It is up and stayed up, or it ended as intended.
    Up,
    /// Its last condition, and how often its manager restarted it while it was watched.
    NotUp(Condition, u32),
    /// Its manager did not answer.
    Unknown(ServiceError),
}

/// Waits until a service is up and stays up, with the same main process, for `stable_for`.
pub(super) fn watch(
    mut ask: impl FnMut() -> Result<Condition, ServiceError>,
    patience: Duration,
    stable_for: Duration,
) -> Watched {
    let mut first: Option<u32> = None;
    let mut pids = BTreeSet::new();
    let mut since: Option<(Condition, Deadline)> = None;
    let mut last = Watched::Up;
    poll(Deadline::after(patience.saturating_add(stable_for)), || {
        let now = match ask() {
            Ok(now) => now,
            Err(error) => {
                (last, since) = (Watched::Unknown(error), None);
                return Some(POLL);
            }
        };
        let first = *first.get_or_insert(now.restarts);
        let waits_for = if now.up { Some(stable_for) } else { now.at_rest.then_some(AT_REST) };
        let ends = match (&since, waits_for) {
            _ if now.done => true,
            (Some((before, until)), Some(_)) if *before == now => until.has_passed(),
            (_, Some(long)) => {
                since = Some((now.clone(), Deadline::after(long)));
                long.is_zero()
            }
            (_, None) => {
                since = None;
                false
            }
        };
        // Not every manager counts restarts; each new process is a restart as well.
        pids.extend(now.main_pid);
        let seen = u32::try_from(pids.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let restarts = now.restarts.saturating_sub(first).max(seen);
        let calm = since.as_ref().filter(|_| now.up).map(|(_, until)| CALM.min(until.left()));
        last =
            if ends && (now.up || now.done) { Watched::Up } else { Watched::NotUp(now, restarts) };
        (!ends).then(|| POLL + calm.unwrap_or_default())
    });
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);
    const STABLE: Duration = Duration::from_millis(400);

    fn condition(state: &str, pid: u32, restarts: u32) -> Condition {
        Condition {
            up: state == "active",
            done: state == "done",
            at_rest: matches!(state, "failed" | "done"),
            failed: state == "failed",
            left_alone: None,
            state: state.into(),
            main_pid: Some(pid),
            restarts,
        }
    }

    #[test]
    fn a_service_that_stays_up_is_up() {
        let mut asked = 0;
        let answer = watch(
            || {
                asked += 1;
                Ok(condition(if asked < 3 { "activating" } else { "active" }, 7, 0))
            },
            LONG,
            STABLE * 3,
        );
        assert!(matches!(answer, Watched::Up), "{answer:?}");
        assert!(asked > 4, "it was watched for a while: {asked}");
    }

    #[test]
    fn endless_patience_is_allowed() {
        let answer = watch(|| Ok(condition("active", 7, 0)), Duration::MAX, STABLE);
        assert!(matches!(answer, Watched::Up), "{answer:?}");
    }

    #[test]
    fn a_service_that_keeps_restarting_is_not_up() {
        let mut asked = 0;
        let answer = watch(
            || {
                asked += 1;
                Ok(condition("active", 100 + asked, asked))
            },
            Duration::from_millis(500),
            STABLE,
        );
        let Watched::NotUp(last, restarts) = answer else { panic!("{answer:?}") };
        assert!(last.up && restarts >= 2, "{last:?} {restarts}");
    }

    #[test]
    fn a_failed_service_is_given_up_early() {
        let begin = Deadline::after(LONG);
        let answer = watch(|| Ok(condition("failed", 0, 5)), LONG, STABLE);
        let Watched::NotUp(last, _) = answer else { panic!("{answer:?}") };
        assert_eq!(last.state, "failed");
        assert!(begin.left() > LONG / 2);
    }

    #[test]
    fn a_oneshot_that_ended_well_needs_no_watching() {
        assert!(matches!(watch(|| Ok(condition("done", 0, 0)), LONG, LONG), Watched::Up));
    }

    #[test]
    fn a_manager_that_is_briefly_unavailable_is_asked_again() {
        let mut asked = 0;
        let answer = watch(
            || {
                asked += 1;
                if asked < 3 {
                    Err(ServiceError::NotOwn("away".into()))
                } else {
                    Ok(condition("active", 7, 0))
                }
            },
            LONG,
            STABLE,
        );
        assert!(matches!(answer, Watched::Up), "{answer:?}");
    }
}
