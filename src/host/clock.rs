//! Time, asked here only, so that what depends on it can be handed in.

use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

use super::fault;

/// The wall clock, to the second: what the records and the people get.
pub(crate) fn now() -> Timestamp {
    let now = Timestamp::now();
    let now = now.checked_add(fault::step_of_the_clock()).unwrap_or(now);
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// A moment as the times of files are given. On Linux every `Timestamp` is one; were it not,
/// the epoch is what makes no file look old.
pub(crate) fn system_time(of: Timestamp) -> SystemTime {
    SystemTime::try_from(of).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// No limit is longer: what is handed in may be any number, and the sum of any is none.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// A point in time by which something has to be done; steps of the wall clock do not move it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    pub(crate) fn after(limit: Duration) -> Self {
        Self(Instant::now() + limit.min(FOR_EVER))
    }

    pub(crate) fn has_passed(self) -> bool {
        self.left().is_zero()
    }

    pub(crate) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// How long something takes; steps of the wall clock do not count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Asks `condition` again and again until it holds or the deadline has passed.
pub(crate) fn wait_until(
    deadline: Deadline,
    every: Duration,
    mut condition: impl FnMut() -> bool,
) -> bool {
    loop {
        if condition() {
            return true;
        }
        if deadline.has_passed() {
            return false;
        }
        std::thread::sleep(every.min(deadline.left()));
    }
}
