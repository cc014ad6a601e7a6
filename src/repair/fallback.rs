//! A venv that gets no new tree works with the one that it has: pinned to its own minor version, with
//! its interpreter copied again, or as it is.

use super::adopt::{Pinned, Repair, RepairResult, RestartScope};
use super::job::Done;
use super::not_rebuilt::NotRebuilt;
use super::restart::Restarted;
use crate::plan::{self, Fallback, Until};
use crate::python::{DEFAULT, path_of};
use crate::report;
use crate::store::JournalState;
use crate::venv::{self, Venv};

impl Repair<'_, '_> {
    /// Makes a venv work whose new tree could not be built or swapped in.
    pub(super) fn not_rebuilt(&self, error: NotRebuilt) -> RepairResult {
        match error {
            NotRebuilt { why, unfinished: true, .. } => {
                Done::Unfinished { because: why.to_string() }.into()
            }
            NotRebuilt { why, state: Some(state), .. } => {
                self.recover(&state, &why.to_string(), Vec::new())
            }
            NotRebuilt { why, .. } => {
                self.fall_back(why.to_string(), Until::Rebuilt, RestartScope::Stopped)
            }
        }
    }

    /// There is no new tree: makes the venv work with the one it has, if need be by a pin.
    pub(super) fn fall_back(
        &self,
        because: String,
        until: Until,
        scope: RestartScope,
    ) -> RepairResult {
        let venv = match venv::inspect(self.context.root, self.job.entry.path()) {
            Ok(venv) => venv,
            Err(error) => {
                let state = format!("the venv is unchanged: {error}");
                return Done::Failed { because, state }.into();
            }
        };
        match plan::fallback(&venv, self.job.decision.follows, self.now) {
            Some(Fallback::Pin) => return self.pin(&venv, until, Some(because), scope),
            Some(Fallback::Refresh) => {
                // Record the refresh, so that it is finished if it fails. An open journal entry
                // that names two trees records more, and its recovery ends in this refresh too. If
                // the entry cannot be written (the disk is full), refresh nevertheless.
                if !self.context.store.has_journal(self.job.id()) {
                    let state = JournalState::Refreshing;
                    let _ = self.job.begin(self.context, state, &self.units());
                }
                let result = self.refresh_and_restart(&venv);
                return RepairResult { done: result.done.instead_of_a_rebuild(because), ..result };
            }
            None => {}
        }
        let works = self.now.get(venv.site).is_some();
        match self.restart_which(scope) {
            Ok(restarted) if works => RepairResult::with(Done::RolledBack { because }, restarted),
            Ok(_) => {
                let state = "the venv is unchanged; its interpreter is gone".into();
                Done::Failed { because, state }.into()
            }
            Err(error) => Done::Failed {
                because: format!("{because}\n{error}"),
                state: "the venv is unchanged".into(),
            }
            .into(),
        }
    }

    /// Pins the venv to its own minor version, and restarts its services.
    fn pin(
        &self,
        venv: &Venv,
        until: Until,
        because: Option<String>,
        scope: RestartScope,
    ) -> RepairResult {
        let pinned = self.pin_links(venv, until, because, scope);
        let restarted = self.restart_which(scope);
        self.pinned(pinned, restarted)
    }

    /// Changes the links that pin a venv. Its services are restarted later.
    pub(super) fn pin_links(
        &self,
        venv: &Venv,
        until: Until,
        because: Option<String>,
        scope: RestartScope,
    ) -> Pinned {
        // The pin serves the programs of the venv, but not this one.
        let because = because.map(|why| match self.job.decision.embedded_in() {
            Some(embedded) => format!("{why}\n{}", report::reason_in_words(embedded)),
            None => why,
        });
        let result = self.recorder.pin(self.job.id(), venv, until, because.as_deref());
        Pinned { minor: venv.site, until, because, scope, result }
    }

    /// The result of a pin, once the services were restarted.
    pub(super) fn pinned(
        &self,
        pinned: Pinned,
        restarted: Result<Restarted, String>,
    ) -> RepairResult {
        let Pinned { minor, until, because, result, .. } = pinned;
        match (result, restarted) {
            (Ok(()), Ok(restarted)) => RepairResult::with(
                Done::Pinned { minor, until, because, services: None },
                restarted,
            ),
            (Ok(()), Err(services)) => {
                Done::Pinned { minor, until, because, services: Some(services) }.into()
            }
            (Err(error), _) => {
                let error = format!("cannot pin it to {}: {error}", path_of(minor).display());
                let because = because.into_iter().chain([error]).collect::<Vec<_>>().join("\n");
                let state = format!(
                    "the venv still follows {DEFAULT}; run `venvguard rebuild {}`",
                    self.job.entry.name
                );
                Done::Failed { because, state }.into()
            }
        }
    }
}
