//! The administrator's programs that run before and after a repair.
//!
//! They belong to root's venvs only, and run as root. One at a time: they may change a load
//! balancer that several venvs share.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Context;
use super::adopt::{Ready, Repair, RestartScope};
use super::job::{Done, Job, Outcome};
use crate::host::{Program, ReadError, programs};
use crate::plan::{self, Fallback, Remedy, Until};
use crate::store::Event;

const SETTINGS: &str = "/etc/venvguard";
const DIR: &str = "/etc/venvguard/hooks.d";

/// How long each program may take.
const LIMIT: Duration = Duration::from_secs(300);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

impl Repair<'_, '_> {
    /// Runs the programs that come before the repair. Why it does not begin, if one fails: a venv
    /// that its default interpreter has left is pinned, and any other stays as it is.
    pub(super) fn withheld(&self) -> Option<Ready> {
        let because = run(self.context, self.job, "before", None).into_iter().next()?;
        let (job, follows) = (self.job, self.job.decision.follows);
        let is_rebuild = matches!(job.decision.remedy, Remedy::Rebuild { .. });
        Some(match plan::fallback(&job.venv, follows, self.now) {
            Some(Fallback::Pin) if is_rebuild => {
                let (until, scope) = (Until::Rebuilt, RestartScope::Stopped);
                Ready::Pinned(self.pin_links(&job.venv, until, Some(because), scope))
            }
            _ => Ready::Ended(Done::unchanged(because).into()),
        })
    }
}

/// Whether there are such programs, or what is there cannot be used.
pub(super) fn exist(context: &Context) -> bool {
    let are_there = |moment| programs_of(context, moment).map_or(true, |found| !found.is_empty());
    context.root.user().is_none() && ["before", "after"].into_iter().any(are_there)
}

fn programs_of(context: &Context, moment: &str) -> Result<Vec<PathBuf>, ReadError> {
    let hooks = context.root.at(DIR);
    programs::in_dir(&[&context.root.at(SETTINGS), &hooks, &hooks.join(moment)])
}

/// Runs the programs that come after a repair, since those before it have run. A failure is only
/// reported.
pub(super) fn after(context: &Context, job: &Job, outcome: &Outcome) {
    let result = outcome.in_words().map_or("nothing", |(result, _)| result);
    for error in run(context, job, "after", Some(result)) {
        context.report.note(&format!("{}: note: {error}", job.entry.name));
        context.store.audit(&Event::new(&job.entry.name, job.entry.path(), "hook", error));
    }
}

/// Runs the programs of a moment, and says which fail. Those before a repair end with the first
/// that fails.
fn run(context: &Context, job: &Job, moment: &str, result: Option<&str>) -> Vec<String> {
    let remedy = &job.decision.remedy;
    let is_meant = match remedy {
        Remedy::Restart => !job.services().is_empty(),
        Remedy::Refresh | Remedy::Rebuild { .. } | Remedy::Restore { .. } => true,
        Remedy::None | Remedy::Pin { .. } | Remedy::Impossible => false,
    };
    if !is_meant || context.root.user().is_some() {
        return Vec::new();
    }
    let failed =
        |error: &dyn std::fmt::Display| format!("a program in {DIR}/{moment} failed: {error}");
    let programs = match programs_of(context, moment) {
        Ok(programs) => programs,
        Err(error) => return vec![failed(&error)],
    };
    let to = match remedy {
        Remedy::Rebuild { target, .. } => target.minor,
        Remedy::Restore { minor, .. } => *minor,
        _ => job.venv.site,
    };
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut errors = Vec::new();
    for path in programs {
        let program = job.inform(Program::new(path), to).limit(LIMIT);
        let program = match result {
            Some(result) => program.env("VENVGUARD_RESULT", result),
            None => program,
        };
        if let Err(error) = program.run() {
            errors.push(failed(&error));
            if result.is_none() {
                break;
            }
        }
    }
    errors
}
