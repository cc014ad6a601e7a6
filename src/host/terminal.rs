//! The terminal of the person who runs apt.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::stdio::stdin;
use rustix::termios::{QueueSelector, tcflush, tcgetpgrp};

/// The longest line that is read.
const LIMIT: usize = 256;

/// What was heard at the terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Line(String),
    /// The terminal is at its end (Ctrl-D), or is gone.
    End,
    /// Nobody answered in time.
    Nothing,
}

/// Whether the terminal is ours to read from and to write to. A program in the background would be
/// stopped when it reads.
pub(crate) fn is_ours() -> bool {
    let is_terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
    is_terminal && tcgetpgrp(stdin()).is_ok_and(|group| group == rustix::process::getpgrp())
}

/// Forgets what was typed before the question was there to be read.
pub(crate) fn forget_typed() {
    // Without it, an early key may answer the question.
    let _ = tcflush(stdin(), QueueSelector::IFlush);
}

/// The next line, without its end.
pub(crate) fn line(limit: Duration) -> io::Result<Heard> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let input = stdin();
        match poll(&mut [PollFd::new(&input, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(Heard::Nothing),
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // A terminal hands out whole lines.
    let mut bytes = [0; LIMIT];
    let length = loop {
        match rustix::io::read(stdin(), &mut bytes) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::IO) => break 0,
            other => break other?,
        }
    };
    match bytes.get(..length).unwrap_or_default() {
        [] => Ok(Heard::End),
        line => Ok(Heard::Line(String::from_utf8_lossy(line).trim().to_string())),
    }
}
