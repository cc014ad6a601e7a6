//! Rehearses an apt run before it is answered: for a limited time, while somebody waits.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use jiff::SignedDuration;

use super::rehearse::TRY_AGAIN;
use super::users::messages;
use super::{AskError, Guard};
use crate::apt::{self, Transaction, predict};
use crate::host::command::CommandError;
use crate::host::{Program, signal, terminal};
use crate::inventory::Inventory;
use crate::plan::Occasion;
use crate::python::Interpreters;

impl Guard {
    /// How long apt may wait for a rehearsal.
    pub(super) fn rehearsal_limit(&self, occasion: Occasion) -> Duration {
        let settings = &self.config.rehearsal;
        let seconds = if occasion.is_attended { settings.attended } else { settings.unattended };
        Duration::from_secs(if occasion.can_wait() { seconds } else { 0 })
    }

    /// Whether a rehearsal would find out more about an upgrade than is known.
    pub(super) fn is_to_be_rehearsed(
        &self,
        inventory: &Inventory,
        now: &Interpreters,
        after: &Interpreters,
    ) -> bool {
        let trials = self.trials(inventory, &[], now, after).unwrap_or_default();
        trials.iter().any(|(id, trial)| self.is_due(inventory, id, trial, after, TRY_AGAIN))
    }

    /// Rehearses an apt run in a process of its own, which can be ended at any moment: at the time
    /// limit, or when somebody presses Enter. It records what it finds about each venv at once. `again`:
    /// also the venvs that were not ready.
    pub(super) fn rehearse_beforehand(
        &self,
        list: &[u8],
        again: bool,
        limit: Duration,
        is_attended: bool,
    ) {
        let program = Program::new("/proc/self/exe").args(["hook", "rehearse"]);
        let mut program = program.args(again.then_some("--again"));
        program = program.input(list).limit(limit);
        let mut skip = "";
        if is_attended {
            terminal::forget_typed();
            // Without the terminal, only the time limit ends it.
            if let Ok(terminal) = io::stdin().as_fd().try_clone_to_owned() {
                program = program.ended_by(terminal);
                skip = "; press Enter to skip this";
            }
        }
        let seconds = limit.as_secs();
        let progress = self.report.progress("rehearsal");
        progress.step(&format!("trying the venvs with the next Python, for {seconds} s at most"));
        self.report.note(&format!("rehearsing this upgrade before dpkg runs{skip}"));
        let result = program.finish();
        progress.end();
        match result {
            Ok(finished) => messages(&finished).iter().for_each(|line| self.report.note(line)),
            Err(CommandError::Ended { .. }) => {
                terminal::forget_typed();
                self.report.note("the rehearsal was skipped; venvguard uses what it has found so far");
            }
            Err(CommandError::TimedOut { .. }) => self.report.note(&format!(
                "the rehearsal was stopped after {seconds} s; venvguard uses what it has found so far"
            )),
            Err(error) => self.report.error(&format!("cannot rehearse this upgrade: {error}")),
        }
    }

    /// The rehearsal in the process of its own, with the archives that apt has fetched. `again`: also
    /// of the venvs that were not ready in the last one.
    pub(crate) fn rehearse_transaction(
        &self,
        transaction: &Transaction,
        again: bool,
    ) -> Result<(), AskError> {
        signal::end_with_parent();
        let _lock = self.lock()?;
        let now = self.interpreters()?;
        let after = predict(&now, &transaction.actions);
        let mut inventory = self.inventory()?;
        let pause = if again { SignedDuration::ZERO } else { TRY_AGAIN };
        let trials = self.due_trials(&inventory, &now, &after, pause)?;
        let archives = |packages: &[String]| apt::among(&self.root, packages, transaction);
        self.find_out(&mut inventory, trials, (transaction, &now, &after), archives).map(drop)
    }
}
