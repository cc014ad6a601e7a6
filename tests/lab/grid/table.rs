//! The grid as a table: a line for each flavour and link, a column for each way of installing.

use std::fmt::Write as _;

use super::cell::{Cell, Change, Flavour, Install, Link};
use super::expect::{Expected, Says, expected, impossible, says};

/// What became of a cell.
pub(crate) type Outcome = Result<(), String>;

/// Every cell of the whole grid; `.` marks those that are not part of this run.
pub(crate) fn table(change: Change, outcomes: &[(Cell, Outcome)]) -> String {
    let mut text = format!("{:<22}", change.name());
    let mut notes: Vec<&str> = Vec::new();
    for install in Install::ALL {
        let _ = write!(text, "{:<15}", install.name());
    }
    text.push('\n');
    for flavour in Flavour::ALL {
        for link in Link::ALL {
            let _ = write!(text, "{:<22}", format!("{} {}", flavour.name(), link.name()));
            for install in Install::ALL {
                let cell = Cell { flavour, link, install };
                let outcome = outcomes.iter().find(|(one, _)| *one == cell);
                let word = match (expected(cell, change), outcome) {
                    (Expected::Impossible(reason), _) => {
                        format!("{} {}", expected(cell, change).word(), note(&mut notes, reason))
                    }
                    (_, Some((_, Err(_)))) => "FAILED".to_owned(),
                    (expected, Some((_, Ok(())))) => match says(cell, change) {
                        Says::Same => expected.word().to_owned(),
                        Says::Otherwise(reason) => {
                            format!("{} {}", expected.word(), note(&mut notes, reason))
                        }
                    },
                    (_, None) => ".".to_owned(),
                };
                let _ = write!(text, "{word:<15}");
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
    }
    for (number, reason) in notes.iter().enumerate() {
        let _ = writeln!(text, "({}) {reason}", number + 1);
    }
    let made = outcomes.iter().filter(|(cell, _)| impossible(*cell).is_none()).count();
    let bad = outcomes.iter().filter(|(_, outcome)| outcome.is_err()).count();
    let _ = writeln!(
        text,
        "{made} cells tried, {bad} failed; only the whole grid has the cells marked `.`"
    );
    text
}

/// The number of a reason in the notes below the table.
fn note<'a>(notes: &mut Vec<&'a str>, reason: &'a str) -> String {
    let place = notes.iter().position(|known| *known == reason).unwrap_or_else(|| {
        notes.push(reason);
        notes.len() - 1
    });
    format!("({})", place + 1)
}
