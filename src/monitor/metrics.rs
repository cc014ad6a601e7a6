//! A summary in Prometheus's text format.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::plan::State;
use crate::store::Summary;

/// The metrics of a system. What is not known has no sample.
pub(crate) fn metrics(summary: &Summary) -> String {
    let mut families = of_guard(summary);
    if summary.damage.is_none() {
        families.extend(of_venvs(summary));
    }
    families.iter().map(text).collect()
}

/// A name, what it means, and its samples.
type Family = (&'static str, &'static str, Vec<Sample>);

fn of_guard(summary: &Summary) -> Vec<Family> {
    let run = summary.last_run;
    vec![
        (
            "build_info",
            "The version of venvguard; the value is always 1.",
            vec![Sample::with("version", &summary.version, 1)],
        ),
        (
            "observation_timestamp_seconds",
            "When these values were determined.",
            times(Some(summary.at)),
        ),
        ("guard_enabled", "Whether apt calls venvguard.", is(summary.guards)),
        (
            "data_readable",
            "Whether the registry and the configuration can be used; if not, nothing is known about the venvs.",
            is(summary.damage.is_none()),
        ),
        (
            "work_pending",
            "Whether Python was changed and the venvs have not been repaired yet.",
            is(summary.has_work),
        ),
        (
            "last_call_timestamp_seconds",
            "When apt last called venvguard, since the system started.",
            times(summary.called_at),
        ),
        (
            "last_run_timestamp_seconds",
            "When venvguard last repaired venvs after a change of Python, since the system started.",
            times(run.map(|run| run.at)),
        ),
        (
            "last_run_success",
            "Whether nothing needed attention at the end of that run.",
            run.map(|run| is(run.success)).unwrap_or_default(),
        ),
        (
            "python_held",
            "Whether `venvguard hold` keeps apt from upgrading Python.",
            is(summary.held.is_some()),
        ),
        (
            "python_held_since_timestamp_seconds",
            "Since when Python is held.",
            times(summary.held.map(|held| held.since)),
        ),
    ]
}

fn of_venvs(summary: &Summary) -> Vec<Family> {
    let venvs = &summary.venvs;
    let states = State::ALL.map(|state| {
        let its = venvs.iter().filter(|venv| venv.state == state).count();
        Sample::with("state", &state.to_string(), its)
    });
    let pins: Vec<Timestamp> = venvs.iter().filter_map(|venv| venv.pinned_since).collect();
    vec![
        ("venvs", "Registered venvs by their state.", states.into()),
        (
            "venvs_pinned",
            "Venvs that are pinned to an old minor version because they could not be rebuilt, or were rolled back.",
            count(pins.len()),
        ),
        (
            "oldest_pin_timestamp_seconds",
            "When the first of these pins was made.",
            times(pins.into_iter().min()),
        ),
        (
            "venvs_not_ready",
            "Venvs that a rehearsal found not ready for a Python that is not installed yet.",
            count(not_ready(summary)),
        ),
        (
            "services_failed",
            "Services of venvs that should run and do not.",
            count(venvs.iter().map(|venv| venv.failed_services.len()).sum()),
        ),
        (
            "processes_stale",
            "Processes that run Python code that was replaced.",
            count(summary.stale_processes),
        ),
        (
            "previous_environments",
            "Previous environments that are kept for a rollback.",
            count(venvs.iter().map(|venv| venv.backups).sum()),
        ),
    ]
}

/// A venv that was rehearsed for several interpreters counts once.
fn not_ready(summary: &Summary) -> usize {
    let names = summary.rehearsed.iter().flat_map(|found| &found.not_ready);
    names.collect::<std::collections::BTreeSet<_>>().len()
}

/// A value, and the label that distinguishes it from others of its family.
struct Sample {
    labels: String,
    value: i64,
}

impl Sample {
    fn with(label: &str, value: &str, number: usize) -> Self {
        let labels = format!("{{{label}=\"{}\"}}", escaped(value));
        Self { labels, value: number.try_into().unwrap_or(i64::MAX) }
    }
}

fn count(number: usize) -> Vec<Sample> {
    vec![Sample { labels: String::new(), value: number.try_into().unwrap_or(i64::MAX) }]
}

fn is(value: bool) -> Vec<Sample> {
    count(value.into())
}

fn times(at: Option<Timestamp>) -> Vec<Sample> {
    let sample = at.map(|at| Sample { labels: String::new(), value: at.as_second() });
    sample.into_iter().collect()
}

/// A family, each a gauge; nothing if it has no sample.
fn text((name, help, samples): &Family) -> String {
    if samples.is_empty() {
        return String::new();
    }
    let mut text = format!("# HELP venvguard_{name} {help}\n# TYPE venvguard_{name} gauge\n");
    for Sample { labels, value } in samples {
        let _ = writeln!(text, "venvguard_{name}{labels} {value}");
    }
    text
}

/// The value of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::super::judgement::samples::{ago, now, system};
    use super::*;
    use crate::store::{HeldSince, LastRun, Rehearsed};

    fn value(text: &str, sample: &str) -> Option<String> {
        let mut lines = text.lines().filter_map(|line| line.rsplit_once(' '));
        lines.find(|(name, _)| *name == sample).map(|(_, value)| value.to_string())
    }

    #[test]
    fn every_state_has_a_number_and_what_is_not_known_has_none() {
        let text = metrics(&system(&[State::Healthy, State::Healthy, State::Stale]));
        for state in State::ALL {
            let expected = match state {
                State::Healthy => "2",
                State::Stale => "1",
                _ => "0",
            };
            let sample = format!("venvguard_venvs{{state=\"{state}\"}}");
            assert_eq!(value(&text, &sample).as_deref(), Some(expected), "{text}");
        }
        for unknown in ["last_run_success", "python_held_since_timestamp_seconds"] {
            assert!(!text.contains(unknown), "{text}");
        }
        assert_eq!(value(&text, "venvguard_python_held").as_deref(), Some("0"));
    }

    #[test]
    fn everything_that_is_known_has_a_number() {
        let mut summary = system(&[State::Healthy, State::Healthy]);
        summary.venvs[0].pinned_since = Some(ago(2));
        summary.venvs[1].pinned_since = Some(ago(3));
        summary.venvs[1].failed_services = vec!["systemd:b.service".into()];
        summary.venvs[0].backups = 2;
        summary.held = Some(HeldSince { since: ago(1), until: None });
        summary.last_run = Some(LastRun { at: ago(4), success: false });
        let found = |names: &[&str]| Rehearsed {
            python: "3.13.5-2".into(),
            ready: 0,
            not_ready: names.iter().map(ToString::to_string).collect(),
        };
        summary.rehearsed = vec![found(&["a", "b"]), found(&["b"])];
        summary.stale_processes = 7;
        let text = metrics(&summary);
        let second = |at: Timestamp| at.as_second().to_string();
        for (name, expected) in [
            ("observation_timestamp_seconds", second(now())),
            ("guard_enabled", "1".into()),
            ("data_readable", "1".into()),
            ("venvs_pinned", "2".into()),
            ("oldest_pin_timestamp_seconds", second(ago(3))),
            ("venvs_not_ready", "2".into()),
            ("services_failed", "1".into()),
            ("processes_stale", "7".into()),
            ("previous_environments", "2".into()),
            ("python_held", "1".into()),
            ("python_held_since_timestamp_seconds", second(ago(1))),
            ("last_run_timestamp_seconds", second(ago(4))),
            ("last_run_success", "0".into()),
        ] {
            assert_eq!(value(&text, &format!("venvguard_{name}")), Some(expected), "{name}");
        }
    }

    #[test]
    fn each_family_is_described_once() {
        let text = metrics(&system(&[State::Healthy]));
        let names = |word: &str| -> Vec<String> {
            let lines = text.lines().filter_map(|line| line.strip_prefix(word));
            lines.filter_map(|line| line.split(' ').next()).map(str::to_string).collect()
        };
        let (helps, types) = (names("# HELP "), names("# TYPE "));
        assert_eq!(helps, types);
        assert_eq!(helps.iter().collect::<std::collections::BTreeSet<_>>().len(), helps.len());
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        for name in samples.filter_map(|line| line.split(['{', ' ']).next()) {
            assert!(helps.iter().any(|known| known == name), "{name}");
        }
    }

    #[test]
    fn nothing_is_claimed_about_venvs_whose_registry_is_damaged() {
        let text = metrics(&Summary { damage: Some("it is empty".into()), ..system(&[]) });
        assert_eq!(value(&text, "venvguard_data_readable").as_deref(), Some("0"));
        assert!(!text.contains("venvguard_venvs"), "{text}");
    }

    #[test]
    fn the_value_of_a_label_is_escaped() {
        let sample = Sample::with("version", "0\"1\\2\n3", 1);
        assert_eq!(sample.labels, "{version=\"0\\\"1\\\\2\\n3\"}");
    }
}
