//! The points at which a crash or an error makes a difference: one before each effect on the
//! system. A build with the feature `faults`, which only the tests make, can end, fail or wait
//! there; any other build does not contain them. The same build can leave out one of the guards
//! against hostile users, to prove that the suite of attacks notices.

use std::ffi::OsString;
use std::io;

use jiff::SignedDuration;

/// A guard that can be left out, named after what happens then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    feature = "faults",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
pub(crate) enum Weakness {
    /// A link in place of a file is followed.
    FollowLinks,
    /// A link in place of a directory is followed, anywhere in a path.
    FollowDirectories,
    /// A FIFO or a device is read like a file.
    ReadAnything,
    /// A file is read however long it is.
    ReadWithoutEnd,
    /// A file that another user could have written is obeyed.
    ObeyAnybody,
    /// A directory is mistaken for the one that had its name before.
    TakeAnyDirectory,
    /// A child that should run as the owner runs as root.
    StayRoot,
    /// A child shares our session, and with it the terminal.
    KeepSession,
    /// A child gains privileges by a setuid program.
    GainPrivileges,
    /// A child has no limits.
    LiftLimits,
    /// A child writes wherever its user may.
    WriteAnywhere,
    /// A builder shares its temporary directories with everybody.
    ShareTemporary,
    /// A child inherits our environment.
    KeepEnvironment,
    /// A child inherits our descriptors.
    KeepDescriptors,
    /// Processes that a child leaves behind in its group live on.
    KeepGroup,
    /// A child is waited for as long as it takes.
    WaitForEver,
    /// A process that cannot be inspected is waited for as long as it takes.
    WaitForProcesses,
    /// Names reach the terminal unescaped.
    PrintRaw,
    /// Any listener on a supervisord's socket is believed.
    BelieveAnyListener,
}

#[cfg(not(feature = "faults"))]
mod plan {
    use super::{OsString, SignedDuration, Weakness, io};

    #[expect(clippy::unnecessary_wraps, reason = "as in a build with faults")]
    pub(crate) fn point(_: &str) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn step_of_the_clock() -> SignedDuration {
        SignedDuration::ZERO
    }

    pub(crate) const fn weakened(_: Weakness) -> bool {
        false
    }

    pub(crate) const fn handed_down() -> Vec<OsString> {
        Vec::new()
    }
}

#[cfg(feature = "faults")]
mod plan {
    use std::str::FromStr;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

    use rustix::process::Signal;

    use serde::Deserialize as _;
    use serde::de::IntoDeserializer as _;

    use super::{OsString, SignedDuration, Weakness, io};

    static ARMED: OnceLock<Fault> = OnceLock::new();
    static REACHED: AtomicUsize = AtomicUsize::new(0);
    static LOOKED: AtomicI64 = AtomicI64::new(0);

    /// What happens at which point, counted from one.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Fault {
        /// We are killed at this point.
        pub(crate) die_at: usize,
        /// This point fails, as on a full disk.
        pub(crate) fail_at: usize,
        /// We stop at this point until a test lets us continue.
        pub(crate) stop_at: usize,
        /// Each time the wall clock is read, it has advanced by that many more seconds.
        pub(crate) step_clock: i64,
        /// This guard is left out.
        pub(crate) weaken: Option<Weakness>,
    }

    impl Fault {
        pub(crate) fn arm(self) {
            let _ = ARMED.set(self);
        }
    }

    impl FromStr for Weakness {
        type Err = serde::de::value::Error;

        fn from_str(name: &str) -> Result<Self, Self::Err> {
            Self::deserialize(name.into_deserializer())
        }
    }

    pub(crate) fn point(name: &str) -> io::Result<()> {
        let Some(fault) = ARMED.get() else { return Ok(()) };
        let reached = REACHED.fetch_add(1, Ordering::SeqCst) + 1;
        let send = |signal| rustix::process::kill_process(rustix::process::getpid(), signal);
        if reached == fault.die_at {
            eprintln!("fault: killed before: {name}");
            let _ = send(Signal::KILL);
        }
        if reached == fault.stop_at {
            eprintln!("fault: stopped before: {name}");
            let _ = send(Signal::STOP);
            // The kernel chooses which of our threads gets the signal first.
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        if reached == fault.fail_at {
            eprintln!("fault: failed: {name}");
            return Err(rustix::io::Errno::NOSPC.into());
        }
        Ok(())
    }

    pub(crate) fn step_of_the_clock() -> SignedDuration {
        let step = ARMED.get().map_or(0, |fault| fault.step_clock);
        let looked = LOOKED.fetch_add(1, Ordering::SeqCst);
        SignedDuration::from_secs(step.saturating_mul(looked))
    }

    /// Whether this guard is to be left out.
    pub(crate) fn weakened(guard: Weakness) -> bool {
        ARMED.get().is_some_and(|fault| fault.weaken == Some(guard))
    }

    /// The arguments that tell our launcher which guard to leave out.
    pub(crate) fn handed_down() -> Vec<OsString> {
        let weakness = ARMED.get().and_then(|fault| serde_json::to_value(fault.weaken?).ok());
        let name = weakness.as_ref().and_then(|name| name.as_str());
        name.map_or_else(Vec::new, |name| vec![format!("--weaken={name}").into()])
    }
}

#[cfg(feature = "faults")]
pub(crate) use plan::Fault;
pub(crate) use plan::{handed_down, point, step_of_the_clock, weakened};
