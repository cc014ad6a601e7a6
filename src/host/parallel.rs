//! Runs the same work for many items in parallel.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::sync_channel;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::Builder;

/// The number of cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Does `work` for each item, at most `at_once` at a time, and returns the results in the order
/// of the items. A panic does not stop the other items; the caller panics once all are done.
pub(crate) fn map<T: Send, R: Send>(
    items: impl IntoIterator<Item = T>,
    at_once: usize,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let items: Vec<T> = items.into_iter().collect();
    let workers = at_once.min(items.len());
    let work = |item| catch_unwind(AssertUnwindSafe(|| work(item)));
    let results: Vec<std::thread::Result<R>> = if workers < 2 {
        items.into_iter().map(work).collect()
    } else {
        let queue = Mutex::new(items.into_iter().enumerate());
        let done = Mutex::new(Vec::new());
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let drain = || {
            for (index, item) in std::iter::from_fn(next) {
                let result = work(item);
                done.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
            }
        };
        std::thread::scope(|scope| {
            // The system may refuse threads.
            let starts = |_: &usize| Builder::new().spawn_scoped(scope, drain).is_ok();
            if (0..workers).take_while(starts).count() == 0 {
                drain();
            }
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|(index, _)| *index);
        done.into_iter().map(|(_, result)| result).collect()
    };
    results.into_iter().map(|result| result.unwrap_or_else(|panic| resume_unwind(panic))).collect()
}

/// Does `work` for each item, at most `at_once` at a time, and `finish` for what that returns, at most
/// `finishing` at a time. While some items wait in `finish`, others are worked on, but nobody works
/// far ahead. Returns the results in the order of the items. A panic does not stop the other items;
/// the caller panics once all are done.
pub(crate) fn pipeline<T: Send, M: Send, R: Send>(
    items: impl IntoIterator<Item = T>,
    (at_once, finishing): (usize, usize),
    work: impl Fn(T) -> Option<M> + Sync,
    finish: impl Fn(M) -> R + Sync,
) -> Vec<R> {
    let items: Vec<(usize, T)> = items.into_iter().enumerate().collect();
    let finishing = finishing.min(items.len());
    if finishing < 2 {
        let results = map(items, at_once, |(_, item)| work(item).map(&finish));
        return results.into_iter().flatten().collect();
    }
    let (sender, receiver) = sync_channel(0);
    let receiver = Mutex::new(receiver);
    let next = || receiver.lock().unwrap_or_else(PoisonError::into_inner).recv().ok();
    let finish = |(index, made)| (index, catch_unwind(AssertUnwindSafe(|| finish(made))));
    let drain = || std::iter::from_fn(next).map(finish).collect::<Vec<_>>();
    let mut results: Vec<_> = std::thread::scope(|scope| {
        let start = |_| Builder::new().spawn_scoped(scope, drain).ok();
        let finishers: Vec<_> = (0..finishing).map_while(start).collect();
        let own = map(items, at_once, |(index, item)| {
            let made = (index, work(item)?);
            if finishers.is_empty() {
                return Some(finish(made));
            }
            // The receiver outlives all senders.
            let _ = sender.send(made);
            None
        });
        drop(sender);
        let others = finishers.into_iter().flat_map(|one| one.join().unwrap_or_default());
        others.chain(own.into_iter().flatten()).collect()
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, one)| one.unwrap_or_else(|panic| resume_unwind(panic))).collect()
}

/// Lets a number of threads work at the same time; the others wait.
#[derive(Debug)]
pub(crate) struct Permits {
    free: Mutex<usize>,
    freed: Condvar,
}

impl Permits {
    pub(crate) fn new(number: usize) -> Self {
        Self { free: Mutex::new(number.max(1)), freed: Condvar::new() }
    }

    /// Waits for a permit. Dropping it lets another thread work.
    pub(crate) fn take(&self) -> Permit<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let free = self.freed.wait_while(free, |free| *free == 0);
        *free.unwrap_or_else(PoisonError::into_inner) -= 1;
        Permit(self)
    }
}

/// The permission to work.
#[derive(Debug)]
#[must_use]
pub(crate) struct Permit<'a>(&'a Permits);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread::current;

    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items() {
        for at_once in [0, 1, 2, 7, 100] {
            let results = map(0..50_u64, at_once, |item| {
                (0..(50 - item) * 100).for_each(|step| {
                    std::hint::black_box(step);
                });
                item * 2
            });
            assert_eq!(results, (0..50).map(|item| item * 2).collect::<Vec<_>>(), "{at_once}");
        }
        assert_eq!(map(Vec::<u8>::new(), 4, |item| item), [0; 0]);
    }

    #[test]
    fn at_most_the_given_number_run_at_a_time() {
        let (at_work, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        // Each waits for two others: with fewer than three in parallel it would wait for ever.
        let three = Barrier::new(3);
        map(0..30, 3, |_| {
            most.fetch_max(at_work.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            three.wait();
            at_work.fetch_sub(1, Ordering::SeqCst);
        });
        assert_eq!(most.into_inner(), 3);
    }

    #[test]
    fn one_at_a_time_needs_no_thread() {
        let ours = current().id();
        let threads = [map(0..3, 1, |_| current().id()), map(0..1, 8, |_| current().id())].concat();
        assert!(threads.iter().all(|id| *id == ours), "{threads:?}");
    }

    #[test]
    fn a_panic_does_not_stop_other_items_and_reaches_the_caller() {
        for at_once in [1, 4] {
            let done = Mutex::new(Vec::new());
            let result = catch_unwind(AssertUnwindSafe(|| {
                map(0..40, at_once, |item| {
                    assert_ne!(item % 4, 3, "it panics more often than there are threads");
                    done.lock().unwrap().push(item);
                })
            }));
            assert!(result.is_err());
            let mut done = done.into_inner().unwrap();
            done.sort_unstable();
            assert_eq!(done, (0..40).filter(|item| item % 4 != 3).collect::<Vec<_>>());
        }
    }

    #[test]
    fn items_are_worked_on_while_others_are_finished() {
        for at_once in [1, 2] {
            let later = Barrier::new(2);
            let work = |item: u32| {
                if item == 3 {
                    later.wait();
                }
                (item != 1).then_some(item)
            };
            let finish = |item: u32| {
                if item == 0 {
                    later.wait();
                }
                item * 2
            };
            assert_eq!(pipeline(0..6, (at_once, 2), work, finish), [0, 4, 6, 8, 10]);
        }
        let ours = current().id();
        let threads = |items, both| {
            pipeline(0..items, both, |_| Some(current().id()), |at| [at, current().id()])
        };
        assert_eq!(threads(1, (2, 8)), [[ours, ours]], "one item needs no thread");
        assert_eq!(threads(2, (1, 1)), [[ours, ours]; 2], "one after the other");
    }

    #[test]
    fn a_panic_in_one_half_of_a_pipeline_leaves_the_other_items_alone() {
        for at_once in [1, 2, 8] {
            for half in ["work", "finish"] {
                let done = Mutex::new(Vec::new());
                let fails = |one: &str, item: u32| assert!(one != half || item % 4 != 3, "{item}");
                let work = |item| {
                    fails("work", item);
                    Some(item)
                };
                let finish = |item| {
                    fails("finish", item);
                    done.lock().unwrap().push(item);
                };
                let both = (at_once, at_once);
                let result = AssertUnwindSafe(|| pipeline(0..40, both, work, finish));
                assert!(catch_unwind(result).is_err());
                let mut done = done.into_inner().unwrap();
                done.sort_unstable();
                let others: Vec<u32> = (0..40).filter(|item| item % 4 != 3).collect();
                assert_eq!(done, others, "{at_once} {half}");
            }
        }
    }

    #[test]
    fn a_permit_is_free_again_once_it_is_dropped() {
        let (permits, most) = (Permits::new(2), AtomicUsize::new(0));
        let at_work = AtomicUsize::new(0);
        let two = Barrier::new(2);
        map(0..20, 5, |_| {
            let permit = permits.take();
            most.fetch_max(at_work.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            two.wait();
            at_work.fetch_sub(1, Ordering::SeqCst);
            drop(permit);
        });
        assert_eq!(most.into_inner(), 2);
    }
}
