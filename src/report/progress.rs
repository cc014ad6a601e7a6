//! A progress line for each venv: a spinner on a terminal, nothing elsewhere (there, only the
//! outcomes are printed, one plain line each).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::host::clock::Stopwatch;

/// The progress line of one venv.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    steps: Mutex<Steps>,
}

/// The steps that ended, in the order in which they began first, and the current one.
#[derive(Debug, Default)]
struct Steps {
    ended: Vec<(String, Duration)>,
    current: Option<(String, Stopwatch)>,
}

impl Steps {
    fn end(&mut self) {
        let Some((what, started)) = self.current.take() else { return };
        match self.ended.iter_mut().find(|(known, _)| *known == what) {
            Some((_, took)) => *took += started.elapsed(),
            None => self.ended.push((what, started.elapsed())),
        }
    }
}

impl Progress {
    pub(super) fn new(name: &str, bars: Option<&MultiProgress>) -> Self {
        let bar = bars.map(|bars| {
            let style = ProgressStyle::with_template("{spinner} {prefix}: {msg} ({elapsed})");
            // It is complete before it is shown.
            let bar = ProgressBar::new_spinner()
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
                .with_prefix(name.to_string())
                .with_message("starting");
            let bar = bars.add(bar);
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar, steps: Mutex::default() }
    }

    /// Shows the current step. Without a terminal only the outcome is reported.
    pub(crate) fn step(&self, what: &str) {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.end();
        steps.current = Some((what.to_string(), Stopwatch::start()));
        drop(steps);
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_string());
        }
    }

    /// Ends the current step. Returns how long each took.
    pub(crate) fn times(&self) -> Vec<(String, Duration)> {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.end();
        steps.ended.clone()
    }

    /// Removes the line; the outcome is reported as a message.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_begins_again_counts_once() {
        let progress = Progress::new("shop", None);
        for step in ["copying", "checking", "copying"] {
            progress.step(step);
        }
        let names = |times: Vec<(String, Duration)>| -> Vec<String> {
            times.into_iter().map(|(what, _)| what).collect()
        };
        assert_eq!(names(progress.times()), ["copying", "checking"]);
        assert_eq!(names(progress.times()), ["copying", "checking"]);
    }
}
