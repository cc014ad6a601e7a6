//! Signals that ask venvguard to stop: from Ctrl-C, a closing terminal, `kill` or systemd.

use std::io;
use std::sync::Once;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// Calls `tell` on the first such signal, then lets the signal end the program as it would by
/// default: the children die with it, and the journal records the unfinished work. So stopping
/// is a crash, and only crashes have to be tested. Only the first call counts.
pub(crate) fn tell_of_interruption(tell: impl FnOnce() + Send + 'static) -> io::Result<()> {
    static FIRST: Once = Once::new();
    let mut result = Ok(());
    FIRST.call_once(|| result = watch(tell));
    result
}

fn watch(tell: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let ignored = ignored();
    let heeded = [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|signal| !is_in(ignored, *signal));
    let mut signals = Signals::new(heeded)?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            tell();
            let _ = emulate_default_handler(signal);
        }
    });
    Ok(())
}

/// Ends this process when the thread that started it ends, as `kill` would.
pub(crate) fn end_with_parent() {
    // The signal cannot be an invalid one.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
}

/// Ends this process as `kill` would.
pub(crate) fn end_self() {
    // The signal cannot be an invalid one.
    let _ = signal_hook::low_level::raise(SIGTERM);
}

/// The signals that our parent wants ignored (`nohup`), one bit each.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn is_in(mask: u64, signal: i32) -> bool {
    u32::try_from(signal - 1).is_ok_and(|bit| mask.checked_shr(bit).unwrap_or(0) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_signal_is_recognized_by_its_bit() {
        assert!(is_in(0b1, SIGHUP) && !is_in(0b1, SIGINT) && is_in(0b10, SIGINT));
        assert!(!is_in(0, SIGTERM) && is_in(1 << 14, SIGTERM));
    }
}
