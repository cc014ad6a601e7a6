//! Holds: keeps apt from upgrading Python for a while.

use jiff::SignedDuration;

use super::{AskError, Guard};
use crate::apt::{Hold, HoldError, packages_to_hold};
use crate::host::clock;

impl Guard {
    /// Keeps apt from installing another version of the interpreters, for some time or until
    /// [`Guard::unhold`].
    pub(crate) fn hold(
        &self,
        time: Option<SignedDuration>,
        by: &str,
        because: Option<&str>,
    ) -> Result<Hold, AskError> {
        let hold = self.propose_hold(time, by, because)?;
        hold.write(&self.root)?;
        Ok(hold)
    }

    /// The hold that [`Guard::hold`] writes.
    pub(crate) fn propose_hold(
        &self,
        time: Option<SignedDuration>,
        by: &str,
        because: Option<&str>,
    ) -> Result<Hold, AskError> {
        self.require_system()?;
        let since = clock::now();
        // A time that no clock shows is for ever.
        let until = time.and_then(|time| since.checked_add(time).ok());
        let packages = packages_to_hold(&self.interpreters()?);
        if packages.is_empty() {
            return Err(AskError::NothingToHold);
        }
        let (by, because) = (by.to_string(), because.map(str::to_string));
        Ok(Hold { packages, since, until, by, because })
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

    /// Ends a hold whose time has passed: apt knows no end of a pin.
    pub(super) fn end_hold(&self) {
        let has_ended = |hold: &Hold| hold.has_ended(clock::now());
        match self.held() {
            Ok(Some(hold)) if has_ended(&hold) => match Hold::remove(&self.root) {
                Ok(_) => self.report.note(&format!(
                    "the hold on Python since {:.0} has ended; the next run may upgrade Python",
                    hold.since
                )),
                Err(error) => self.report.error(&error.to_string()),
            },
            _ => {}
        }
    }
}
