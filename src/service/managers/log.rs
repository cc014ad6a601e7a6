//! The lines of a service's log that an error shows: those of its last traceback, or the last ones.

use crate::host::{file, redacted};

/// How many lines are shown, and how many bytes of each.
const LINES: usize = 5;
const LENGTH: usize = 400;

const TRACEBACK: &str = "Traceback (most recent call last):";

/// The telling lines of a log, made printable.
pub(in crate::service) fn last_lines(log: &str) -> Vec<String> {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let shown = |line: &&str| file::printable_within(&redacted(line), LENGTH);
    let last = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default();
    match last_traceback(&lines) {
        // The last lines have it already.
        Some(found) if !found.iter().all(|line| last.contains(line)) => {
            found.iter().map(shown).collect()
        }
        _ => last.iter().map(shown).collect(),
    }
}

/// The innermost frame and the exception of the last traceback, and how the log ends.
fn last_traceback<'a>(lines: &[&'a str]) -> Option<Vec<&'a str>> {
    let start = lines.iter().rposition(|line| line.contains(TRACEBACK))?;
    let after = lines.get(start + 1..)?;
    // Frames are indented; a logger may have put a prefix before the first line only.
    let end = after.iter().position(|line| !line.starts_with([' ', '\t']))?;
    let (frames, rest) = after.split_at(end);
    let frame = frames.iter().rfind(|line| line.trim_start().starts_with("File "));
    let (exception, rest) = rest.split_first()?;
    let found = frame.into_iter().chain([exception]).chain(rest.last());
    Some(found.copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIED: &str = "Starting web.service\n\
        Traceback (most recent call last):\n\
        \x20 File \"/srv/web/venv/bin/gunicorn\", line 5, in <module>\n\
        \x20   from gunicorn.app.wsgiapp import run\n\
        ModuleNotFoundError: No module named 'gunicorn'\n";

    #[test]
    fn a_traceback_is_found_behind_what_systemd_says_of_the_end() {
        let systemd = "Main process exited, code=exited, status=1/FAILURE\n\
            Failed with result 'exit-code'.\nScheduled restart job, restart counter is at 8.\n\
            Stopped web.service.\nStart request repeated too quickly.\nFailed to start web.service.\n";
        assert_eq!(
            last_lines(&format!("{DIED}{systemd}")),
            [
                "  File \"/srv/web/venv/bin/gunicorn\", line 5, in <module>",
                "ModuleNotFoundError: No module named 'gunicorn'",
                "Failed to start web.service.",
            ]
        );
    }

    #[test]
    fn the_last_lines_are_shown_where_they_have_the_traceback_or_there_is_none() {
        assert_eq!(
            last_lines(DIED).last().unwrap(),
            "ModuleNotFoundError: No module named 'gunicorn'"
        );
        assert_eq!(last_lines(DIED).len(), LINES);
        assert_eq!(last_lines("1\n2\n\n3\n4\n5\n6\n"), ["2", "3", "4", "5", "6"]);
        assert_eq!(last_lines(""), [""; 0]);
    }

    #[test]
    fn a_traceback_that_is_cut_is_no_reason_to_say_nothing() {
        let cut = format!("{TRACEBACK}\n  File \"x\", line 1\n    y\n");
        assert_eq!(last_lines(&cut).len(), 3);
        assert_eq!(last_lines(TRACEBACK), [TRACEBACK]);
    }
}
