//! After the swap: keeps the new tree if its services come up, and otherwise swaps the previous
//! environment back, if that can help.

use std::convert::Infallible;

use super::account::owner;
use super::adopt::{Repair, RepairResult, RestartScope};
use super::halt::{Halted, Stopping, Triggers, while_stopped};
use super::job::Done;
use super::restart::Restarted;
use super::states;
use super::trees::{Left, Pair};
use crate::host::user::User;
use crate::plan::{Reason, Until};
use crate::report;
use crate::store::{JournalState, Swap};
use crate::venv;

impl Repair<'_, '_> {
    /// The new tree is in place. It stays if its services came up with it, or if the previous
    /// environment would be of no use to them.
    pub(super) fn prove(
        &self,
        mut swap: Swap,
        mut notes: Vec<String>,
        restarted: Result<Restarted, String>,
    ) -> RepairResult {
        let minor = swap.minor;
        let stays = match restarted {
            Ok(restarted) => Ok((restarted, None)),
            Err(because) => match self.stays_embedded(&swap) {
                Some(embedded) => {
                    let because = format!("{because}\n{}", report::reason_in_words(embedded));
                    Ok((Restarted::default(), Some(because)))
                }
                None => Err(because),
            },
        };
        let because = match stays {
            Ok((restarted, because)) => {
                notes.extend(restarted.notes);
                if !swap.previous.holds_files {
                    notes.extend(self.note_late_writes(&mut swap));
                }
                let done = Done::Rebuilt { minor, previous: swap.previous, because };
                return RepairResult { notes, restarted: restarted.services, ..done.into() };
            }
            Err(because) => because,
        };
        let state = JournalState::Returning(swap);
        if let Err(error) = self.job.begin(self.context, state.clone(), &self.units()) {
            // A recovery would find the step before, and test the services once more.
            notes.push(format!("cannot write the journal: {error}"));
        }
        self.recover(&state, &because, notes)
    }

    /// The program of Debian that runs the venv's code on the default interpreter, if the previous
    /// environment is for another one: it would only make things worse.
    fn stays_embedded(&self, swap: &Swap) -> Option<&Reason> {
        let old = venv::inspect(self.context.root, swap.previous.path()).ok()?;
        self.job.decision.embedded_in().filter(|_| self.now.default != Some(old.site))
    }

    /// Swaps the previous environment back, with what was written into the new tree.
    pub(super) fn swap_back(
        &self,
        swap: &Swap,
        state: &JournalState,
        because: String,
    ) -> RepairResult {
        self.progress.step("putting the previous environment back");
        let (mut result, mut notes) = (None, Vec::new());
        let partial = states::is_partial(state);
        // Those that were not told to restart run out of the previous environment.
        let (job, services) = (self.job, self.reached());
        let stopping = [Stopping { job, services, state, halt: &self.halt }];
        let stopped = while_stopped(self.context, &stopping, Triggers::GoOn, || {
            // Further attempts only stop services again: the environment is back already.
            if result.is_none() {
                result = Some(self.bring_back(swap, partial));
            }
            Ok::<_, Infallible>(())
        });
        if let Err(Halted::Stop(error)) = stopped {
            notes.push(format!("not all services were stopped for this: {error}"));
        }
        match result.unwrap_or_else(|| self.bring_back(swap, partial)) {
            Ok((left, more)) => {
                // Before the services start: they are younger than the tree that is put aside.
                let (pending_removal, aside) = left.of(swap, self.job.decision.follows);
                let result = self.fall_back(because, Until::RebuiltByHand, RestartScope::All);
                let notes = [notes, more, result.notes.clone()].concat();
                RepairResult { notes, pending_removal, aside, ..result }
            }
            Err(error) => RepairResult { notes, ..Done::not_put_back(&because, &error).into() },
        }
    }

    fn bring_back(&self, swap: &Swap, partial: bool) -> std::io::Result<(Left, Vec<String>)> {
        let owner = owner(self.context, &self.job.venv);
        self.pair(&owner, swap).bring_back(self.context, swap, partial)
    }

    /// The previous environment is in place. The other tree was in place too, or may have been: it
    /// is kept if it alone has some files, and all services are restarted, because they may run
    /// out of it.
    pub(super) fn keep_previous(
        &self,
        swap: &Swap,
        state: &JournalState,
        because: &str,
    ) -> RepairResult {
        let venv = &self.job.venv;
        let owner = owner(self.context, venv);
        let pair = Pair::new(venv, &owner, swap.previous.path(), swap.minor);
        let (left, note) = pair.left_aside(self.context.root, states::is_partial(state));
        let (pending_removal, aside) = left.of(swap, self.job.decision.follows);
        // A repair that was interrupted before the swap has disturbed no service.
        let until = match state {
            JournalState::Returning(_) | JournalState::BuildingInPlace(_) => Until::RebuiltByHand,
            _ => Until::Rebuilt,
        };
        let result = self.fall_back(because.into(), until, RestartScope::All);
        let notes = note.into_iter().chain(result.notes.clone()).collect();
        RepairResult { notes, pending_removal, aside, ..result }
    }

    /// The venv after a swap: its new tree in place, the previous environment aside.
    fn pair<'b>(&'b self, owner: &'b User, swap: &'b Swap) -> Pair<'b> {
        let old = venv::inspect(self.context.root, swap.previous.path());
        let old = old.map_or(self.job.venv.site, |old| old.site);
        let pair = Pair::new(&self.job.venv, owner, swap.previous.path(), old);
        Pair { in_place: swap.minor, ..pair }
    }

    /// Looks for files that only the previous environment has. A program outside services, or one
    /// that was started in between, may have written there after the last copy; so may anything
    /// during a crash.
    pub(super) fn note_late_writes(&self, swap: &mut Swap) -> Option<String> {
        let owner = owner(self.context, &self.job.venv);
        let (left, note) = self.pair(&owner, swap).left_aside(self.context.root, false);
        swap.previous.holds_files |= matches!(left, Left::HoldsFiles);
        note
    }
}
