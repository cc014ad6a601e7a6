//! `hold` and `unhold`.

use jiff::SignedDuration;

use super::Exit;
use crate::guard::Guard;
use crate::report::hold_in_words;

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

pub(super) fn unhold(guard: &Guard) -> anyhow::Result<Exit> {
    match guard.unhold()? {
        Some(hold) => guard.report.data(format!("no longer held: {}", hold.packages.join(" "))),
        None => guard.report.note("venvguard holds no package"),
    }
    Ok(Exit::Done)
}
