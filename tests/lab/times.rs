//! How long each part of a run takes.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

/// The part of a run that took the time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    Preparation,
    Trial,
}

/// How long something took.
#[derive(Clone, Debug)]
pub(crate) struct Time {
    pub(crate) part: Part,
    pub(crate) name: String,
    pub(crate) seconds: f32,
    /// How long its machine took to boot.
    pub(crate) boot: Option<f32>,
    /// How much its machine had written at the end.
    pub(crate) mebibytes: Option<u64>,
}

/// The times of a run, entered by its threads.
#[derive(Default)]
pub(crate) struct Times(Mutex<Vec<Time>>);

impl Times {
    pub(crate) fn enter(&self, time: Time) {
        // A panic in another thread leaves the list whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(time);
    }

    pub(crate) fn table(&self) -> String {
        table(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The times of each part, the longest first, with their sum. Steps run in parallel, so a run takes less than half of
/// the sums.
pub(crate) fn table(times: &[Time]) -> String {
    if times.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "lab: the time of each preparation and each trial\nlab: {:>7} {:>8} {:>8}\n",
        "seconds", "boot", "MiB"
    );
    for (part, singular) in [(Part::Preparation, "preparation"), (Part::Trial, "trial")] {
        let mut of_part: Vec<&Time> = times.iter().filter(|time| time.part == part).collect();
        if of_part.is_empty() {
            continue;
        }
        of_part.sort_by(|one, other| other.seconds.total_cmp(&one.seconds));
        for time in &of_part {
            row(&mut text, time.seconds, time.boot, time.mebibytes, &time.name);
        }
        let plural = if of_part.len() == 1 { "" } else { "s" };
        row(
            &mut text,
            of_part.iter().map(|time| time.seconds).sum(),
            of_part.iter().map(|time| time.boot).fold(None, added),
            None,
            &format!("= {} {singular}{plural}", of_part.len()),
        );
    }
    text
}

/// The sum of the times that are known.
fn added(sum: Option<f32>, next: Option<f32>) -> Option<f32> {
    match (sum, next) {
        (Some(sum), Some(next)) => Some(sum + next),
        (sum, next) => sum.or(next),
    }
}

fn row(text: &mut String, seconds: f32, boot: Option<f32>, mebibytes: Option<u64>, name: &str) {
    let boot = boot.map_or_else(|| "-".to_owned(), |boot| format!("{boot:.1}"));
    let mebibytes = mebibytes.map_or_else(|| "-".to_owned(), |number| number.to_string());
    // Writing to a string cannot fail.
    let _ = writeln!(text, "lab: {seconds:>7.1} {boot:>8} {mebibytes:>8}  {name}");
}
