//! `status --nagios`, and the message of the day. Both read the latest summary only: they are quick,
//! need no root, and answer when the registry is damaged.

use std::ffi::OsString;

use super::Exit;
use super::metrics::NO_SUMMARY;
use crate::guard::{self, Known};
use crate::host::Root;
use crate::monitor::{self, Detail, Severity};
use crate::report::Report;

impl From<Severity> for Exit {
    /// The exit status has the number that Nagios expects, not the meaning it has elsewhere.
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Ok => Self::Done,
            Severity::Warning => Self::Failed,
            Severity::Critical => Self::Critical,
            Severity::Unknown => Self::Attention,
        }
    }
}

pub(super) fn nagios(root: &Root, report: &Report, verbose: u8) -> Exit {
    let (severity, lines) = answer(root, verbose);
    for line in lines {
        report.data(line);
    }
    severity.into()
}

fn answer(root: &Root, verbose: u8) -> (Severity, Vec<String>) {
    let only = |severity, text: &str| (severity, vec![monitor::line(severity, text)]);
    match guard::known(root) {
        Err(error) => only(Severity::Unknown, &error.to_string()),
        Ok(Known { summary: Some(summary), now, .. }) => {
            let detail = if verbose == 0 { Detail::One } else { Detail::EachVenv };
            monitor::answer(&summary, now, detail)
        }
        Ok(Known { is_used: false, .. }) => only(Severity::Ok, "no venv is registered"),
        Ok(_) => only(Severity::Unknown, NO_SUMMARY),
    }
}

/// Whatever is wrong, a login does not show it here.
pub(super) fn motd(root: &Root, report: &Report) -> Exit {
    if let Ok(Known { summary: Some(summary), now, .. }) = guard::known(root) {
        for line in monitor::motd(&summary, now) {
            report.data(line);
        }
    }
    Exit::Done
}

/// Whether a command line is one of Nagios's, for which a mistake in it is an unknown state.
pub(super) fn is_asked(mut arguments: impl Iterator<Item = OsString>) -> bool {
    arguments.any(|one| one == "--nagios")
}

/// The answer to a command line that is wrong.
pub(super) fn not_understood(error: &clap::Error) -> Exit {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    Report::for_command().data(monitor::line(Severity::Unknown, first));
    Severity::Unknown.into()
}
