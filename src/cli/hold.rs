//! `hold` and `unhold`.

use jiff::SignedDuration;

use super::Exit;
use crate::apt::Hold;
use crate::guard::Guard;
use crate::host::file::printable;
use crate::report::HoldChangeJson;

pub(super) fn hold(
    guard: &Guard,
    time: Option<SignedDuration>,
    reason: Option<&str>,
) -> anyhow::Result<Exit> {
    let hold = guard.hold(time, &caller(), reason.map(printable).as_deref())?;
    guard.report.data(in_words(&hold));
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
    let hold = guard.propose_hold(time, &caller(), reason.map(printable).as_deref())?;
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
    let line = |hold: Option<&Hold>| hold.map_or("Python is not held".into(), in_words);
    guard.report.data(format!("now: {}", line(before)));
    guard.report.data(format!("then: {}", line(after)));
}

/// Who became root by sudo; else root itself.
fn caller() -> String {
    printable(std::env::var("SUDO_USER").unwrap_or_else(|_| "root".into()))
}

pub(super) fn unhold(guard: &Guard) -> anyhow::Result<Exit> {
    match guard.unhold()? {
        Some(hold) => guard.report.data(format!("no longer held: {}", hold.packages.join(" "))),
        None => guard.report.note("venvguard holds no package"),
    }
    Ok(Exit::Done)
}

/// `Python is held since … until … (by alice: reason): python3-minimal …`
pub(super) fn in_words(hold: &Hold) -> String {
    let until = hold.until.map(|until| format!(" until {until:.0}")).unwrap_or_default();
    let reason = hold.because.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let packages = hold.packages.join(" ");
    format!("Python is held since {:.0}{until} (by {}{reason}): {packages}", hold.since, hold.by)
}
