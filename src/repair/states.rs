//! The states of a repair, and the next step in each of them.
//!
//! ```text
//!                        the tree at the venv's path is
//! state                  the previous one    the new one    neither      nothing
//! restarting             restart             -              -            -
//! refreshing             refresh             -              -            -
//! preparing, not made    abandon             -              -            -
//! preparing              discard             -              -            -
//! preparing, to rest     remove              -              -            -
//! building in place      keep previous       swap back      leave alone  put back
//! swapping               keep previous       prove          leave alone  put back
//! returning              keep previous       swap back      leave alone  put back
//! restoring              not restored        restored       leave alone  stop: an error
//! ```
//!
//! The live run, the recovery from the journal and a rollback all use this table. A step that
//! fails is handled like one that was interrupted: the state is in the journal, and the disk shows
//! which tree is where.

use crate::store::JournalState;

/// Which tree is at the venv's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Previous,
    New,
    /// Somebody put a directory of their own there.
    Neither,
    Nothing,
}

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Restart,
    Refresh,
    /// No new tree was made: start what was stopped.
    Abandon,
    /// Remove the unfinished tree, and make the venv work with the one it has.
    Discard,
    /// Remove the unfinished tree: the run was only a preparation.
    Remove,
    /// The previous environment is in place, and stays. Look for files that only the other tree
    /// has.
    KeepPrevious,
    /// Put the previous environment back at the empty path, then as above.
    PutBack,
    /// Stop the services, carry over what was written since, swap.
    SwapBack,
    /// Start the services on the new tree. It stays if they come up.
    Prove,
    /// The swap to an earlier environment did not happen: start what was stopped.
    NotRestored,
    /// Start the services on the environment that somebody asked for.
    Restored,
    LeaveAlone,
    /// The path is empty, and the journal does not say which tree belongs there.
    Stop,
}

/// The next step in this state.
pub(super) fn next(state: &JournalState, standing: Standing) -> Step {
    use JournalState as State;
    match (state, standing) {
        (State::Restarting, _) => Step::Restart,
        (State::Refreshing, _) => Step::Refresh,
        (State::Preparing { new: None, .. }, _) => Step::Abandon,
        (State::Preparing { to_rest: true, .. }, _) => Step::Remove,
        (State::Preparing { .. }, _) => Step::Discard,
        (_, Standing::Neither) => Step::LeaveAlone,
        (State::Restoring(_), Standing::Previous) => Step::NotRestored,
        (State::Restoring(_), Standing::New) => Step::Restored,
        (State::Restoring(_), Standing::Nothing) => Step::Stop,
        (State::Swapping(_), Standing::New) => Step::Prove,
        (State::BuildingInPlace(_) | State::Returning(_), Standing::New) => Step::SwapBack,
        (_, Standing::Previous) => Step::KeepPrevious,
        (_, Standing::Nothing) => Step::PutBack,
    }
}

/// Whether the new tree may be half built in this state: then files that only it has need not be
/// user files.
pub(super) fn is_partial(state: &JournalState) -> bool {
    matches!(state, JournalState::BuildingInPlace(_))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::python::Minor;
    use crate::store::{PreviousTree, Swap};

    fn swap() -> Swap {
        let previous = PreviousTree::new(Path::new("/srv/.venv.venvguard-x"), (1, 1), true);
        Swap { previous, new: (2, 2), minor: Minor::new(3, 13) }
    }

    #[test]
    fn each_state_has_a_next_step_wherever_the_trees_are() {
        use Step::{
            Abandon, Discard, KeepPrevious, LeaveAlone, NotRestored, Prove, PutBack, Refresh,
            Remove, Restart, Restored, Stop, SwapBack,
        };
        let aside = Path::new("/srv/.venv.venvguard-x");
        let preparing =
            |new, to_rest| JournalState::Preparing { aside: aside.into(), new, to_rest };
        let table = [
            (JournalState::Restarting, [Restart; 4]),
            (JournalState::Refreshing, [Refresh; 4]),
            (preparing(None, false), [Abandon; 4]),
            (preparing(None, true), [Abandon; 4]),
            (preparing(Some((2, 2)), false), [Discard; 4]),
            (preparing(Some((2, 2)), true), [Remove; 4]),
            (JournalState::BuildingInPlace(swap()), [KeepPrevious, SwapBack, LeaveAlone, PutBack]),
            (JournalState::Swapping(swap()), [KeepPrevious, Prove, LeaveAlone, PutBack]),
            (JournalState::Returning(swap()), [KeepPrevious, SwapBack, LeaveAlone, PutBack]),
            (JournalState::Restoring(swap()), [NotRestored, Restored, LeaveAlone, Stop]),
        ];
        let standings = [Standing::Previous, Standing::New, Standing::Neither, Standing::Nothing];
        for (state, steps) in table {
            assert_eq!(standings.map(|standing| next(&state, standing)), steps, "{state:?}");
        }
    }
}
