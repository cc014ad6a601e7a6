//! The message of the day.

use jiff::Timestamp;

use super::judgement::{first_of, is_old, notices};
use crate::host::file::printable_within;
use crate::store::Summary;

/// The width of what a login shows without a wrapped line, more or less.
const WIDTH: usize = 100;
const LIMIT: usize = 400;

/// At most two lines: what deserves attention, and what to do. Nothing if nothing does, or if the
/// summary is too old to be true.
pub(crate) fn motd(summary: &Summary, now: Timestamp) -> Vec<String> {
    let notices = notices(summary, now);
    if notices.is_empty() || is_old(summary, now) {
        return Vec::new();
    }
    let first = printable_within(&first_of(&notices, WIDTH), LIMIT);
    vec![format!("venvguard: {first}"), "venvguard: see `sudo venvguard status`".to_string()]
}

#[cfg(test)]
mod tests {
    use super::super::judgement::samples::{ago, now, system};
    use super::*;
    use crate::plan::State;
    use crate::store::HeldSince;

    #[test]
    fn a_login_shows_what_deserves_attention_in_two_lines() {
        let mut summary = system(&[State::Healthy, State::Stale]);
        summary.held = Some(HeldSince { since: ago(3), until: Some(ago(-11)) });
        let lines = motd(&summary, now());
        assert_eq!(
            lines,
            [
                "venvguard: b is stale; Python has been held since 2026-11-28, until 2026-12-12",
                "venvguard: see `sudo venvguard status`",
            ]
        );
        summary.damage = Some("registry.json: \u{1b}[2J\nit is empty".repeat(1000));
        let lines = motd(&summary, now());
        assert!(lines.len() == 2 && lines[0].len() < 450, "{lines:?}");
        assert!(!lines.concat().contains(['\u{1b}', '\n']), "{lines:?}");
    }

    #[test]
    fn a_login_shows_nothing_if_all_is_well_or_the_summary_is_old() {
        assert!(motd(&system(&[State::Healthy]), now()).is_empty());
        assert!(motd(&system(&[State::Missing]), ago(-1)).is_empty());
    }
}
