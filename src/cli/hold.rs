//! `hold` and `unhold`.

use jiff::SignedDuration;

use super::Exit;
use crate::apt::Hold;
use crate::guard::Guard;

pub(super) fn hold(
    guard: &Guard,
    time: Option<SignedDuration>,
    reason: Option<&str>,
) -> anyhow::Result<Exit> {
    let hold = guard.hold(time, reason)?;
    guard.report.data(in_words(&hold));
    guard.report.note("security updates of Python are held as well; `venvguard unhold` ends this");
    Ok(Exit::Done)
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
