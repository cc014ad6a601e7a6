//! Time. Only this module reads a clock, so that tests can pass in any time.

use std::time::{Duration, Instant, SystemTime};

use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};

use super::fault;

/// The wall clock to the second, for records and messages.
pub(crate) fn now() -> Timestamp {
    let now = Timestamp::now();
    let now = now.checked_add(fault::step_of_the_clock()).unwrap_or(now);
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// The same in the time zone of the system.
pub(crate) fn local_now() -> ZonedDateTime {
    now().to_zoned_datetime(TimeZone::system())
}

/// A timestamp as a file time. On Linux every `Timestamp` has one; the fallback, the epoch,
/// makes no file look old.
pub(crate) fn system_time(of: Timestamp) -> SystemTime {
    SystemTime::try_from(of).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The longest limit. A caller may pass any number, and adding it to the clock must not overflow.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// A point in time by which something must be done; steps of the wall clock do not move it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// One that does not pass.
    pub(crate) fn never() -> Self {
        Self::after(Duration::MAX)
    }

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

/// Measures how long something takes, regardless of steps of the wall clock.
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

/// Does nothing for some time.
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Polls `condition` until it holds or the deadline has passed. Returns whether it holds.
pub(crate) fn wait_until(
    deadline: Deadline,
    every: Duration,
    mut condition: impl FnMut() -> bool,
) -> bool {
    poll(deadline, || (!condition()).then_some(every))
}

/// Takes a step, and again after each time that it asks to wait for, until it asks for none or the
/// deadline has passed. Returns whether it asked for none.
pub(crate) fn poll(deadline: Deadline, mut step: impl FnMut() -> Option<Duration>) -> bool {
    while let Some(wait) = step() {
        if deadline.has_passed() {
            return false;
        }
        std::thread::sleep(wait.min(deadline.left()));
    }
    true
}
