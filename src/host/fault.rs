//! The points at which a crash or an error makes a difference: one before each effect on the
//! system. A build with the feature `faults`, which only the tests make, can end there or
//! fail there; any other build knows nothing of them.

use std::io;

/// What happens at which point, counted from one.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct Fault {
    /// Be killed at this point
    #[cfg(feature = "faults")]
    #[arg(long, hide = true, global = true, default_value_t = 0)]
    die_at: usize,
    /// Let this point fail, as on a full disk
    #[cfg(feature = "faults")]
    #[arg(long, hide = true, global = true, default_value_t = 0)]
    fail_at: usize,
}

#[cfg(not(feature = "faults"))]
mod plan {
    use super::{Fault, io};

    impl Fault {
        #[expect(clippy::unused_self, reason = "as in a build with faults")]
        pub(crate) fn arm(self) {}
    }

    #[expect(clippy::unnecessary_wraps, reason = "as in a build with faults")]
    pub(crate) fn point(_: &str) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(feature = "faults")]
mod plan {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustix::process::Signal;

    use super::{Fault, io};

    static ARMED: OnceLock<Fault> = OnceLock::new();
    static REACHED: AtomicUsize = AtomicUsize::new(0);

    impl Fault {
        pub(crate) fn arm(self) {
            let _ = ARMED.set(self);
        }
    }

    pub(crate) fn point(name: &str) -> io::Result<()> {
        let Some(fault) = ARMED.get() else { return Ok(()) };
        let reached = REACHED.fetch_add(1, Ordering::SeqCst) + 1;
        if reached == fault.die_at {
            eprintln!("fault: killed before: {name}");
            let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
        }
        if reached == fault.fail_at {
            eprintln!("fault: failed: {name}");
            return Err(rustix::io::Errno::NOSPC.into());
        }
        Ok(())
    }
}

pub(crate) use plan::point;
