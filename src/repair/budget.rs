//! The time that one run may spend on all venvs together, and on the venvs of each owner. An owner
//! with many or slow venvs cannot use up the time of the others.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The time that is left of a run. Threads share it.
#[derive(Debug)]
pub(crate) struct Budget {
    run: Duration,
    owner: Duration,
    spent: Mutex<Spent>,
}

#[derive(Debug, Default)]
struct Spent {
    all: Duration,
    by_owner: HashMap<u32, Duration>,
}

impl Budget {
    /// `run` is for all venvs together, `owner` for those of one owner.
    pub(crate) fn new(run: Duration, owner: Duration) -> Self {
        Self { run, owner, spent: Mutex::default() }
    }

    /// How long the next work on a venv of this owner may take; zero if no time is left. Work in
    /// progress in another thread has not been charged yet.
    pub(crate) fn left(&self, uid: u32) -> Duration {
        let spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let by_owner = spent.by_owner.get(&uid).copied().unwrap_or_default();
        self.run.saturating_sub(spent.all).min(self.owner.saturating_sub(by_owner))
    }

    /// Charges the time of work on a venv of this owner, successful or not.
    pub(crate) fn charge(&self, uid: u32, time: Duration) {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.all = spent.all.saturating_add(time);
        let by_owner = spent.by_owner.entry(uid).or_default();
        *by_owner = by_owner.saturating_add(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_owner_cannot_use_up_the_time_of_another() {
        let budget = Budget::new(10 * SECOND, 6 * SECOND);
        assert_eq!(budget.left(1000), 6 * SECOND);
        budget.charge(1000, 4 * SECOND);
        assert_eq!((budget.left(1000), budget.left(0)), (2 * SECOND, 6 * SECOND));
        budget.charge(1000, 3 * SECOND);
        assert_eq!((budget.left(1000), budget.left(0)), (Duration::ZERO, 3 * SECOND));
    }

    #[test]
    fn all_owners_together_use_up_the_run() {
        let budget = Budget::new(10 * SECOND, 6 * SECOND);
        budget.charge(1, 6 * SECOND);
        budget.charge(2, 5 * SECOND);
        assert_eq!([1, 2, 3].map(|uid| budget.left(uid)), [Duration::ZERO; 3]);
    }

    #[test]
    fn charging_very_long_times_does_not_overflow() {
        let budget = Budget::new(Duration::MAX, Duration::MAX);
        assert_eq!(budget.left(1), Duration::MAX);
        budget.charge(1, Duration::MAX);
        budget.charge(1, Duration::MAX);
        assert_eq!((budget.left(1), budget.left(2)), (Duration::ZERO, Duration::ZERO));
        assert_eq!(Budget::new(Duration::ZERO, SECOND).left(1), Duration::ZERO);
    }

    #[test]
    fn threads_charge_one_budget() {
        let budget = Budget::new(1000 * SECOND, 100 * SECOND);
        std::thread::scope(|scope| {
            for uid in 0..4 {
                let budget = &budget;
                scope.spawn(move || {
                    for _ in 0..50 {
                        budget.charge(uid, SECOND);
                    }
                });
            }
        });
        assert_eq!(budget.left(0), 50 * SECOND);
        budget.charge(9, 790 * SECOND);
        assert_eq!(budget.left(0), 10 * SECOND);
    }
}
