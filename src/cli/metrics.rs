//! `metrics`, and when the summary for monitoring is written anew.

use super::Exit;
use super::arguments::Command;
use crate::guard::{self, Known, may_summarize};
use crate::host::Root;
use crate::monitor;
use crate::report::Report;

pub(super) fn metrics(
    root: &Root,
    report: &Report,
    write: bool,
    json: bool,
) -> anyhow::Result<Exit> {
    if write {
        anyhow::ensure!(may_summarize(root), "only root can do this (try `sudo venvguard …`)");
        guard::publish(root)?;
        return Ok(Exit::Done);
    }
    let summary = if may_summarize(root) {
        guard::summary(root)
    } else {
        let Known { summary, .. } = guard::known(root)?;
        summary.ok_or_else(|| anyhow::anyhow!(NO_SUMMARY))?
    };
    if json {
        report.json(&summary);
    } else {
        report.data(monitor::metrics(&summary).trim_end());
    }
    Ok(Exit::Done)
}

pub(super) const NO_SUMMARY: &str =
    "no summary has been written since the system started; venvguard-metrics.timer writes one";

/// Whether a command that succeeds may change what monitoring reads.
pub(super) fn may_change(command: &Command) -> bool {
    match command {
        Command::Register(_)
        | Command::Unregister { .. }
        | Command::Prune { .. }
        | Command::Rehearse { .. } => true,
        Command::Hold { dry_run, .. }
        | Command::Unhold { dry_run, .. }
        | Command::Restart { dry_run, .. } => !dry_run,
        Command::Scan { register, .. } => *register,
        Command::Rebuild(wanted) => !wanted.dry_run,
        Command::Rollback(wanted) => !wanted.dry_run,
        _ => false,
    }
}
