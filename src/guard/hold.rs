//! Holds: keeps apt from upgrading Python for a while.

use jiff::{SignedDuration, Timestamp};

use super::{AskError, Guard};
use crate::apt::{Hold, HoldError, packages_to_hold};
use crate::host::clock;
use crate::host::file::printable;
use crate::plan::{Decision, Plan};
use crate::report::{hold_in_words, reasons_in_words};

/// Who holds Python because the forecast says that a venv would block its upgrade.
const FORECAST: &str = "venvguard-forecast.service";

/// How long such a hold lasts if no forecast renews it.
const FORECAST_HOLD: SignedDuration = SignedDuration::from_hours(48);

impl Guard {
    /// Keeps apt from installing another version of the interpreters, for some time or until
    /// [`Guard::unhold`].
    pub(crate) fn hold(
        &self,
        time: Option<SignedDuration>,
        because: Option<&str>,
    ) -> Result<Hold, AskError> {
        let hold = self.propose_hold(time, because)?;
        hold.write(&self.root)?;
        Ok(hold)
    }

    /// The hold that [`Guard::hold`] writes.
    pub(crate) fn propose_hold(
        &self,
        time: Option<SignedDuration>,
        because: Option<&str>,
    ) -> Result<Hold, AskError> {
        self.require_system()?;
        // Who became root by sudo; else root itself.
        let by = printable(std::env::var("SUDO_USER").unwrap_or_else(|_| "root".into()));
        self.hold_to_be(clock::now(), time, by, because.map(printable))
    }

    fn hold_to_be(
        &self,
        since: Timestamp,
        time: Option<SignedDuration>,
        by: String,
        because: Option<String>,
    ) -> Result<Hold, AskError> {
        // A time that no clock shows is for ever.
        let until = time.and_then(|time| clock::now().checked_add(time).ok());
        let packages = packages_to_hold(&self.interpreters()?);
        if packages.is_empty() {
            return Err(AskError::NothingToHold);
        }
        Ok(Hold { packages, since, until, by, because })
    }

    /// Holds Python if the pending upgrade would be blocked, so that unattended-upgrades installs
    /// everything else instead of nothing. Ends that hold if the upgrade would not be blocked any
    /// more. A hold of the administrator's stays as it is.
    pub(super) fn hold_by_forecast(&self, plan: &Plan) -> Result<(), AskError> {
        let existing = self.held()?;
        if existing.as_ref().is_some_and(|hold| hold.by != FORECAST) {
            return Ok(());
        }
        let blocking: Vec<&Decision> =
            plan.decisions.iter().filter(|decision| decision.blocks).collect();
        if blocking.is_empty() {
            if Hold::remove(&self.root)?.is_some() {
                self.report
                    .note("no venv blocks the upgrade any more, so the hold on Python has ended");
            }
            return Ok(());
        }
        let because =
            |one: &&Decision| format!("{}: {}", one.name, reasons_in_words(one).join("; "));
        let because = blocking.iter().map(because).collect::<Vec<_>>().join("; ");
        let is_new = existing.is_none();
        let since = existing.map_or_else(clock::now, |hold| hold.since);
        let because = Some(printable(because));
        let hold = self.hold_to_be(since, Some(FORECAST_HOLD), FORECAST.into(), because)?;
        hold.write(&self.root)?;
        if is_new {
            self.report.note(&hold_in_words(&hold));
        }
        Ok(())
    }

    /// Ends the hold, and returns it if there was one.
    pub(crate) fn unhold(&self) -> Result<Option<Hold>, AskError> {
        self.require_system()?;
        Ok(Hold::remove(&self.root)?)
    }

    /// The hold on Python, if there is one.
    pub(crate) fn held(&self) -> Result<Option<Hold>, HoldError> {
        Hold::read(&self.root)
    }

    /// Reports in apt's output, and so in the log of unattended-upgrades, that the forecast holds
    /// Python. Who holds it themselves knows that.
    pub(super) fn report_hold_by_forecast(&self, hold: &Hold) {
        if hold.by == FORECAST {
            self.report.note(&hold_in_words(hold));
        }
    }

    /// Ends a hold whose time has passed: apt knows no end of a pin. Returns the hold that is left.
    pub(super) fn end_hold(&self) -> Option<Hold> {
        let hold = self.held().ok().flatten()?;
        if !hold.has_ended(clock::now()) {
            return Some(hold);
        }
        match Hold::remove(&self.root) {
            Ok(_) => {
                self.report.note(&format!(
                    "the hold on Python since {:.0} has ended; the next run may upgrade Python",
                    hold.since
                ));
                None
            }
            Err(error) => {
                self.report.error(&error.to_string());
                Some(hold)
            }
        }
    }
}
