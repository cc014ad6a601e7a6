//! The answer of a plugin of Nagios and Icinga: a line with performance data, and details.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::judgement::{Severity, age, first_of, is_old, notices, of_state};
use crate::host::file::printable_within;
use crate::plan::State;
use crate::store::Summary;

/// About how long the text of the first line is: pagers cut it.
const WIDTH: usize = 60;

/// The limits of a line and of the details: Nagios reads 8 KiB.
const LINE: usize = 400;
const VENVS: usize = 20;

/// Whether the venvs are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    One,
    EachVenv,
}

/// The lines of the answer, and its severity.
pub(crate) fn answer(summary: &Summary, now: Timestamp, detail: Detail) -> (Severity, Vec<String>) {
    if is_old(summary, now) {
        let minutes = age(summary, now).as_mins();
        let why = format!("the last summary is {minutes} minutes old; see venvguard-metrics.timer");
        return (Severity::Unknown, vec![line(Severity::Unknown, &why)]);
    }
    let notices = notices(summary, now);
    let severity = notices.first().map_or(Severity::Ok, |notice| notice.severity);
    let venvs = if summary.venvs.len() == 1 { "venv" } else { "venvs" };
    let mut text = first_of(&notices, WIDTH);
    if severity == Severity::Ok {
        let well = format!("{} {venvs} healthy", summary.venvs.len());
        text = if notices.is_empty() { well } else { format!("{well}; {text}") };
    }
    let first = format!("{}|{}", line(severity, &text), performance(summary, now));
    let details = match detail {
        Detail::One => Vec::new(),
        Detail::EachVenv => details(summary),
    };
    (severity, [vec![first], details].concat())
}

/// A first line without performance data.
pub(crate) fn line(severity: Severity, text: &str) -> String {
    let word = match severity {
        Severity::Ok => "OK",
        Severity::Warning => "WARNING",
        Severity::Critical => "CRITICAL",
        Severity::Unknown => "UNKNOWN",
    };
    format!("VENVGUARD {word} - {}", plain(text))
}

/// A text in one line, without the character that begins performance data.
fn plain(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    printable_within(&words, LINE).replace('|', "/")
}

/// A line for each venv, the worst first.
fn details(summary: &Summary) -> Vec<String> {
    let mut venvs: Vec<_> = summary.venvs.iter().collect();
    venvs.sort_by_key(|venv| std::cmp::Reverse((of_state(venv.state), venv.state)));
    let described = venvs.iter().take(VENVS).map(|venv| {
        let reason = venv.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        plain(&format!("{}: {}{reason}", venv.name, venv.state))
    });
    let mut lines: Vec<String> = described.collect();
    if venvs.len() > VENVS {
        lines.push(format!("and {} more", venvs.len() - VENVS));
    }
    lines
}

/// `'label'=value[unit];[warn];[crit];[min];[max]`, separated by spaces.
fn performance(summary: &Summary, now: Timestamp) -> String {
    let count = summary.venvs.len();
    let mut data = format!("'age'={}s;;;0", age(summary, now).as_secs().max(0));
    // Nothing is known about the venvs.
    if summary.damage.is_some() {
        return data;
    }
    let _ = write!(data, " 'venvs'={count};;;0");
    for state in State::ALL {
        let its = summary.venvs.iter().filter(|venv| venv.state == state).count();
        let _ = write!(data, " '{state}'={its};;;0;{count}");
    }
    let failed: usize = summary.venvs.iter().map(|venv| venv.failed_services.len()).sum();
    let stale = summary.stale_processes;
    data + &format!(" 'failed_services'={failed};;;0 'stale_processes'={stale};;;0")
}

#[cfg(test)]
mod tests {
    use super::super::judgement::samples::{ago, now, system};
    use super::*;

    #[test]
    fn a_line_names_what_is_wrong_and_is_followed_by_numbers() {
        let summary = system(&[State::Healthy, State::Stale, State::Orphaned]);
        let (severity, lines) = answer(&summary, now(), Detail::One);
        assert_eq!(severity, Severity::Critical);
        assert_eq!(
            lines,
            ["VENVGUARD CRITICAL - c is orphaned; b is stale|'age'=0s;;;0 'venvs'=3;;;0 \
              'healthy'=1;;;0;3 'check-fails'=0;;;0;3 'restart-needed'=0;;;0;3 'stale'=1;;;0;3 \
              'orphaned'=1;;;0;3 'stranded'=0;;;0;3 'unfinished'=0;;;0;3 'broken'=0;;;0;3 \
              'missing'=0;;;0;3 'failed_services'=0;;;0 'stale_processes'=0;;;0"]
        );
        let (_, lines) = answer(&summary, now(), Detail::EachVenv);
        let details =
            ["c: orphaned: for a/reason", "b: stale: for a/reason", "a: healthy: for a/reason"];
        assert_eq!(lines[1..], details);
    }

    #[test]
    fn each_state_alone_gives_its_severity() {
        for state in State::ALL {
            let (severity, lines) = answer(&system(&[state]), now(), Detail::One);
            assert_eq!(severity, of_state(state));
            assert!(lines[0].contains(&format!("'{state}'=1;;;0;1")), "{lines:?}");
        }
    }

    #[test]
    fn the_first_line_is_short_however_many_venvs_are_broken() {
        let (_, lines) = answer(&system(&[State::Broken; 26]), now(), Detail::EachVenv);
        let (text, _) = lines[0].split_once('|').unwrap();
        assert!(text.len() < 100 && text.ends_with("; 22 more"), "{text}");
        assert_eq!(lines.len(), 1 + VENVS + 1);
        assert_eq!(lines.last().unwrap(), "and 6 more");
    }

    #[test]
    fn an_old_summary_and_a_damaged_registry_are_no_good_news() {
        let (severity, lines) = answer(&system(&[State::Healthy]), ago(-1), Detail::EachVenv);
        assert_eq!(severity, Severity::Unknown);
        assert!(lines.len() == 1 && lines[0].contains("is 1440 minutes old"), "{lines:?}");
        let damage = Some("registry.json, line 1:\nit is | empty".to_string());
        let (severity, lines) = answer(&Summary { damage, ..system(&[]) }, now(), Detail::EachVenv);
        assert_eq!(severity, Severity::Critical);
        let text = "VENVGUARD CRITICAL - registry.json, line 1: it is / empty|'age'=0s;;;0";
        assert_eq!(lines, [text]);
    }

    #[test]
    fn without_a_venv_all_is_well() {
        let (severity, lines) = answer(&system(&[]), now(), Detail::One);
        assert_eq!(severity, Severity::Ok);
        assert!(lines[0].starts_with("VENVGUARD OK - 0 venvs healthy|"), "{lines:?}");
    }
}
