//! The options of a build with the feature `faults`, which only the tests make: see
//! `crate::host::fault`. Any other build has none of them.

#[cfg(feature = "faults")]
use crate::host::fault::{Fault, Weakness};

#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(super) struct Faults {
    /// Kill the program at this point
    #[cfg(feature = "faults")]
    #[arg(long, hide = true, global = true, default_value_t = 0)]
    die_at: usize,
    /// Fail at this point, as on a full disk
    #[cfg(feature = "faults")]
    #[arg(long, hide = true, global = true, default_value_t = 0)]
    fail_at: usize,
    /// Stop at this point until a test continues the program
    #[cfg(feature = "faults")]
    #[arg(long, hide = true, global = true, default_value_t = 0)]
    stop_at: usize,
    /// Advance the wall clock by so many seconds each time it is read
    #[cfg(feature = "faults")]
    #[arg(long, hide = true, global = true, default_value_t = 0, allow_hyphen_values = true)]
    step_clock: i64,
    /// Leave out this safeguard
    #[cfg(feature = "faults")]
    #[arg(long, hide = true, global = true)]
    weaken: Option<Weakness>,
}

impl Faults {
    #[cfg(feature = "faults")]
    pub(super) fn arm(self) {
        let Self { die_at, fail_at, stop_at, step_clock, weaken } = self;
        Fault { die_at, fail_at, stop_at, step_clock, weaken }.arm();
    }

    #[cfg(not(feature = "faults"))]
    #[expect(clippy::unused_self, reason = "as in a build with faults")]
    pub(super) fn arm(self) {}
}
