//! Writes the summary for monitoring, and the metrics for Prometheus's `node_exporter`.
//!
//! Neither needs a registry or a configuration that can be read: that one of them is damaged is what
//! monitoring must learn first.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::status::{Looked, Outlook};
use super::{AskError, Guard, GuardError, Settled};
use crate::apt::{Hold, Hooks};
use crate::host::file::printable;
use crate::host::{Dir, Root, clock, descriptor, file};
use crate::inventory;
use crate::monitor;
use crate::plan::Until;
use crate::report::Report;
use crate::service::Service;
use crate::store::{
    Config, HeldSince, LastRun, Rehearsed, Store, StoreError, Summary, VenvSummary,
};

/// How long to wait for another process that writes the summary.
const PATIENCE: Duration = Duration::from_secs(20);

/// The name of the file with the metrics.
const METRICS: &str = "venvguard.prom";

/// Why monitoring does not learn the present state.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SummaryError {
    #[error("cannot write the summary for monitoring: {0}")]
    Summary(#[from] StoreError),
    #[error("cannot write {METRICS} in {dir}: {source}", dir = printable(.dir))]
    Metrics { dir: PathBuf, source: io::Error },
}

/// What is known to everybody.
#[derive(Debug)]
pub(crate) struct Known {
    /// None was written since the system started.
    pub(crate) summary: Option<Summary>,
    /// Whether any venv was ever registered.
    pub(crate) is_used: bool,
    pub(crate) now: Timestamp,
}

/// The summary that was written last. Any user can ask for it.
pub(crate) fn known(root: &Root) -> Result<Known, StoreError> {
    let store = Store::new(root);
    Ok(Known { summary: store.summary()?, is_used: store.is_used(), now: clock::now() })
}

/// Whether the caller can look at everything that a summary consists of.
pub(crate) fn may_summarize(root: &Root) -> bool {
    !root.is_system() || rustix::process::geteuid().is_root()
}

/// A summary of the present state.
pub(crate) fn summary(root: &Root) -> Summary {
    // A directory that stands for a system has no apt to ask.
    let guards = !root.is_system()
        || Hooks::configured().is_ok_and(|hooks| hooks.missing().next().is_none());
    summary_of(root, guards)
}

/// The same, if it is known whether apt calls venvguard.
fn summary_of(root: &Root, guards: bool) -> Summary {
    let store = Store::new(root);
    let mut summary = Summary::new(clock::now());
    summary.guards = guards;
    summary.has_work = store.has_work() && !store.is_locked();
    summary.called_at = store.last_call();
    summary.last_run = store.summary().ok().flatten().and_then(|known| known.last_run);
    let hold = Hold::read(root).ok().flatten();
    summary.held = hold.map(|hold| HeldSince { since: hold.since, until: hold.until });
    let seen = Guard::open(root.clone(), Report::silent())
        .map_err(AskError::from)
        .and_then(|guard| guard.describe(&mut summary));
    summary.damage = seen.err().map(|error| printable(error.to_string()));
    summary
}

/// Writes the summary, and the metrics where `node_exporter` reads them.
pub(crate) fn publish(root: &Root) -> Result<(), SummaryError> {
    write(root, None, || summary(root))
}

fn write(
    root: &Root,
    run: Option<LastRun>,
    summary: impl FnOnce() -> Summary,
) -> Result<(), SummaryError> {
    let store = Store::new(root);
    let _lock = store.lock_summary(PATIENCE)?;
    let mut summary = summary();
    summary.last_run = run.or(summary.last_run);
    store.save_summary(&summary)?;
    let dir = root.at(store.config().unwrap_or_else(|_| Config::default()).metrics_dir);
    write_metrics(&dir, &summary).map_err(|source| SummaryError::Metrics { dir, source })
}

/// Writes the summary after something changed, if venvs are guarded. A failure is reported, and
/// changes nothing about the result of what was done.
pub(crate) fn republish(root: &Root, report: &Report, run: Option<LastRun>) {
    if root.user().is_none() && may_summarize(root) && Store::new(root).is_used() {
        // The timer asks apt. That takes longer than many a change.
        let known = Store::new(root).summary().ok().flatten().map(|known| known.guards);
        let now = || known.map_or_else(|| summary(root), |guards| summary_of(root, guards));
        if let Err(error) = write(root, run, now) {
            report.error(&error.to_string());
        }
    }
}

/// The directory above Debian's belongs to the user of `node_exporter`, who could put a link in
/// place of it: the path is followed without links, and the file written in the directory found.
fn write_metrics(dir: &Path, summary: &Summary) -> io::Result<()> {
    let dir = match Dir::open(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let path = descriptor::path(&dir.descriptor()).join(METRICS);
    file::write_atomically(&path, monitor::metrics(summary).as_bytes(), 0o644)
}

impl Guard {
    /// Writes the summary after a run, with its result.
    pub(super) fn publish_run(&self, settled: Result<&Settled, &GuardError>) {
        let run = |success| Some(LastRun { at: clock::now(), success });
        let run = match settled {
            Ok(Settled::Nothing | Settled::Later) => None,
            Ok(Settled::Done) => run(true),
            Ok(Settled::Attention) | Err(_) => run(false),
        };
        republish(&self.root, &self.report, run);
    }

    /// Adds the venvs to a summary.
    fn describe(&self, summary: &mut Summary) -> Result<(), AskError> {
        let (context, now) = (self.context(), self.interpreters()?);
        let inventory = self.inventory()?;
        summary.stale_processes =
            inventory::stale_processes(&context, &inventory, &now).found.len();
        let failed = inventory::failed_services(&context, &inventory);
        let looked = self.looked(inventory, None)?;
        summary.rehearsed = self.outlook(&looked)?.into_iter().map(rehearsed).collect();
        let failed_of = |one: &Looked| failed.get(&one.entry.id).map(Vec::as_slice);
        summary.venvs =
            looked.iter().map(|one| venv(one, failed_of(one).unwrap_or_default())).collect();
        Ok(())
    }
}

fn venv(looked: &Looked, failed: &[Service]) -> VenvSummary {
    let Looked { entry, health, .. } = looked;
    let pin = entry.pin.as_ref().filter(|pin| pin.until != Until::Policy);
    VenvSummary {
        pinned_since: pin.map(|pin| pin.at),
        failed_services: failed.iter().map(ToString::to_string).collect(),
        backups: entry.previous_trees.len(),
        ..VenvSummary::new(&entry.name, health.state, health.reasons.first())
    }
}

fn rehearsed(outlook: Outlook) -> Rehearsed {
    let Outlook { interpreter, ready, not_ready } = outlook;
    Rehearsed { python: interpreter.version, ready, not_ready }
}
