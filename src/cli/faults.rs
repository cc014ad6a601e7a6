//! The options of a build with the feature `faults`, which only the tests make: see
//! `crate::host::fault`. Any other build has none of them.

#[cfg(feature = "faults")]
use crate::host::fault::{Fault, Weakness};

#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(super) struct Faults {
    /// Be killed at this point
    #[cfg(feature = "faults")]
    #[arg(long, hide = true, global = true, default_value_t = 0)]
    die_at: usize,
    /// Let this point fail, as on a full disk
    #[cfg(feature = "faults")]
    #[arg(long, hide = true, global = true, default_value_t = 0)]
    fail_at: usize,
    /// Stop at this point until a test lets us go on, which meanwhile does what it likes
    #[cfg(feature = "faults")]
    #[arg(long, hide = true, global = true, default_value_t = 0)]
    stop_at: usize,
    /// At each look the wall clock has been set by that many seconds more
    #[cfg(feature = "faults")]
    #[arg(long, hide = true, global = true, default_value_t = 0, allow_hyphen_values = true)]
    step_clock: i64,
    /// Leave out this guard
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
