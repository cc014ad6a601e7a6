//! What deserves attention, and how much.

use jiff::{SignedDuration, Timestamp};

use crate::plan::State;
use crate::store::{Summary, VenvSummary};

/// A summary is written every quarter of an hour. An older one says nothing about the present.
const OLD: SignedDuration = SignedDuration::from_hours(1);

/// A venv that is pinned for longer waits for a person.
const PINNED_LONG: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Python gets no security updates while it is held.
const HELD_LONG: SignedDuration = SignedDuration::from_hours(14 * 24);

/// How serious something is, by the exit status that Nagios expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    Ok = 0,
    Warning = 1,
    Critical = 2,
    Unknown = 3,
}

/// Something that a person should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) severity: Severity,
    pub(super) what: String,
}

impl Notice {
    fn new(severity: Severity, what: impl Into<String>) -> Self {
        Self { severity, what: what.into() }
    }
}

/// How old a summary is.
pub(super) fn age(summary: &Summary, now: Timestamp) -> SignedDuration {
    now.duration_since(summary.at)
}

/// Whether a summary is too old, or from a clock that was set back since.
pub(super) fn is_old(summary: &Summary, now: Timestamp) -> bool {
    age(summary, now).abs() > OLD
}

/// How serious the state of a venv is: critical if its programs fail or may fail at any moment.
pub(super) fn of_state(state: State) -> Severity {
    match state {
        State::Healthy => Severity::Ok,
        State::RestartNeeded | State::Stale => Severity::Warning,
        State::CheckFails
        | State::Orphaned
        | State::Stranded
        | State::Unfinished
        | State::Broken
        | State::Missing => Severity::Critical,
    }
}

/// Everything that a person should know, the most serious first.
pub(super) fn notices(summary: &Summary, now: Timestamp) -> Vec<Notice> {
    let is_long = |since: Timestamp, limit| {
        if now.duration_since(since) > limit { Severity::Warning } else { Severity::Ok }
    };
    let mut notices = Vec::new();
    if let Some(damage) = &summary.damage {
        notices.push(Notice::new(Severity::Critical, damage));
    }
    if !summary.guards {
        notices.push(Notice::new(Severity::Critical, "apt does not call venvguard"));
    }
    notices.extend(summary.venvs.iter().flat_map(of_venv));
    if summary.has_work {
        let what = "Python was changed, and the venvs have not been repaired yet";
        notices.push(Notice::new(Severity::Warning, what));
    }
    if summary.last_run.is_some_and(|run| !run.success) {
        notices.push(Notice::new(Severity::Warning, "the last run needs attention"));
    }
    for venv in &summary.venvs {
        let Some(since) = venv.pinned_since else { continue };
        if is_long(since, PINNED_LONG) == Severity::Warning {
            let what = format!("{} has been pinned since {}", venv.name, date(since));
            notices.push(Notice::new(Severity::Warning, what));
        }
    }
    if let Some(held) = summary.held {
        let until = held.until.map(|until| format!(", until {}", date(until))).unwrap_or_default();
        let what = format!("Python has been held since {}{until}", date(held.since));
        notices.push(Notice::new(is_long(held.since, HELD_LONG), what));
    }
    for found in summary.rehearsed.iter().filter(|found| !found.not_ready.is_empty()) {
        let what = format!("not ready for Python {}: {}", found.python, found.not_ready.join(", "));
        notices.push(Notice::new(Severity::Ok, what));
    }
    notices.sort_by_key(|notice| std::cmp::Reverse(notice.severity));
    notices
}

fn of_venv(venv: &VenvSummary) -> Vec<Notice> {
    let is_unhealthy = venv.state != State::Healthy;
    let state = is_unhealthy
        .then(|| Notice::new(of_state(venv.state), format!("{} is {}", venv.name, venv.state)));
    let failed = venv.failed_services.iter().map(|service| {
        Notice::new(Severity::Critical, format!("{service} of {} failed", venv.name))
    });
    state.into_iter().chain(failed).collect()
}

/// The day, in UTC.
fn date(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

/// The beginning of a list of notices, in about so many bytes, and how many more there are.
pub(super) fn first_of(notices: &[Notice], limit: usize) -> String {
    let mut text = String::new();
    for (index, notice) in notices.iter().enumerate() {
        if index > 0 && text.len() + notice.what.len() > limit {
            return format!("{text}; {} more", notices.len() - index);
        }
        if index > 0 {
            text.push_str("; ");
        }
        text.push_str(&notice.what);
    }
    text
}

#[cfg(test)]
pub(super) mod samples {
    use super::*;

    pub(crate) const NOW: &str = "2026-12-01T00:00:00Z";

    pub(crate) fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    pub(crate) fn ago(days: i64) -> Timestamp {
        now().checked_sub(SignedDuration::from_hours(24 * days)).unwrap()
    }

    /// A system with venvs in these states, named `a`, `b` and so on.
    pub(crate) fn system(states: &[State]) -> Summary {
        let venvs = ('a'..).zip(states).map(|(name, state)| {
            VenvSummary::new(&name.to_string(), *state, Some(&"for\na|reason".to_string()))
        });
        Summary { venvs: venvs.collect(), ..Summary::new(now()) }
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{ago, now, system};
    use super::*;
    use crate::store::{HeldSince, LastRun, Rehearsed};

    fn judged(summary: &Summary) -> Vec<(Severity, String)> {
        notices(summary, now()).into_iter().map(|one| (one.severity, one.what)).collect()
    }

    #[test]
    fn each_state_has_a_severity() {
        use Severity::{Critical, Ok, Warning};
        let expected =
            [Ok, Critical, Warning, Warning, Critical, Critical, Critical, Critical, Critical];
        assert_eq!(State::ALL.map(of_state), expected);
        for state in State::ALL {
            let found = judged(&system(&[state]));
            match state {
                State::Healthy => assert_eq!(found, []),
                _ => assert_eq!(found, [(of_state(state), format!("a is {state}"))]),
            }
        }
    }

    #[test]
    fn what_is_wrong_with_the_guard_is_judged() {
        let well = system(&[State::Healthy]);
        let held = |days| Some(HeldSince { since: ago(days), until: None });
        let pinned = |days| {
            let mut summary = well.clone();
            summary.venvs[0].pinned_since = Some(ago(days));
            summary
        };
        let run = |success| Some(LastRun { at: ago(1), success });
        let mut failed = well.clone();
        failed.venvs[0].failed_services = vec!["systemd:a.service".into()];
        let not_ready =
            Rehearsed { python: "3.13.5-2".into(), ready: 0, not_ready: vec!["a".into()] };
        for (summary, expected) in [
            (well.clone(), None),
            (
                Summary { damage: Some("it is empty".into()), ..well.clone() },
                Some((Severity::Critical, "it is empty")),
            ),
            (
                Summary { guards: false, ..well.clone() },
                Some((Severity::Critical, "apt does not call venvguard")),
            ),
            (failed, Some((Severity::Critical, "systemd:a.service of a failed"))),
            (
                Summary { has_work: true, ..well.clone() },
                Some((
                    Severity::Warning,
                    "Python was changed, and the venvs have not been repaired yet",
                )),
            ),
            (
                Summary { last_run: run(false), ..well.clone() },
                Some((Severity::Warning, "the last run needs attention")),
            ),
            (Summary { last_run: run(true), ..well.clone() }, None),
            (pinned(30), None),
            (pinned(31), Some((Severity::Warning, "a has been pinned since 2026-10-31"))),
            (
                Summary { held: held(14), ..well.clone() },
                Some((Severity::Ok, "Python has been held since 2026-11-17")),
            ),
            (
                Summary { held: held(15), ..well.clone() },
                Some((Severity::Warning, "Python has been held since 2026-11-16")),
            ),
            (
                Summary { rehearsed: vec![not_ready], ..well.clone() },
                Some((Severity::Ok, "not ready for Python 3.13.5-2: a")),
            ),
        ] {
            let expected = expected.map(|(severity, what)| (severity, what.to_string()));
            assert_eq!(judged(&summary), Vec::from_iter(expected));
        }
    }

    #[test]
    fn the_most_serious_is_first_and_a_long_list_is_cut() {
        let summary = system(&[State::Stale, State::Missing, State::Stale]);
        let found = notices(&summary, now());
        assert_eq!(first_of(&found, 80), "b is missing; a is stale; c is stale");
        assert_eq!(first_of(&found, 20), "b is missing; 2 more");
        assert_eq!(first_of(&found, 0), "b is missing; 2 more");
    }

    #[test]
    fn a_summary_is_old_after_an_hour_and_if_the_clock_was_set_back() {
        let at = |text: &str| Summary::new(text.parse().unwrap());
        assert!(!is_old(&at("2026-11-30T23:00:00Z"), now()));
        assert!(is_old(&at("2026-11-30T22:59:59Z"), now()));
        assert!(is_old(&at("2026-12-01T01:00:01Z"), now()));
    }
}
