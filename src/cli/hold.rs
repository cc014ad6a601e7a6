//! `hold` and `unhold`.

use jiff::SignedDuration;

use super::Exit;
use crate::apt::Hold;
use crate::guard::Guard;
use crate::report::{HoldChangeJson, hold_in_words};

pub(super) fn hold(
    guard: &Guard,
    time: Option<SignedDuration>,
    reason: Option<&str>,
) -> anyhow::Result<Exit> {
    let hold = guard.hold(time, reason)?;
    guard.report.data(hold_in_words(&hold));
    guard.report.note("security updates of Python are held as well; `venvguard unhold` ends this");
    Ok(Exit::Done)
}

/// Prints the hold as it is and as [`hold`] would make it.
pub(super) fn propose(
    guard: &Guard,
    time: Option<SignedDuration>,
    reason: Option<&str>,
    json: bool,
) -> anyhow::Result<Exit> {
    let hold = guard.propose_hold(time, reason)?;
    print_change(guard, guard.held()?.as_ref(), Some(&hold), json);
    Ok(Exit::Done)
}

/// Prints the hold that [`unhold`] would end.
pub(super) fn propose_end(guard: &Guard, json: bool) -> anyhow::Result<Exit> {
    print_change(guard, guard.held()?.as_ref(), None, json);
    Ok(Exit::Done)
}

fn print_change(guard: &Guard, before: Option<&Hold>, after: Option<&Hold>, json: bool) {
    if json {
        guard.report.json(&HoldChangeJson::new(before, after));
        return;
    }
    let line = |hold: Option<&Hold>| hold.map_or("Python is not held".into(), hold_in_words);
    guard.report.data(format!("now: {}", line(before)));
    guard.report.data(format!("then: {}", line(after)));
}

pub(super) fn unhold(guard: &Guard) -> anyhow::Result<Exit> {
    match guard.unhold()? {
        Some(hold) => guard.report.data(format!("no longer held: {}", hold.packages.join(" "))),
        None => guard.report.note("venvguard holds no package"),
    }
    Ok(Exit::Done)
}
