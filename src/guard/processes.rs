//! The processes that run code that was replaced.

use super::{AskError, Guard};
use crate::inventory::{self, StaleProcesses};

impl Guard {
    /// Every process that runs code that was replaced.
    pub(crate) fn stale_processes(&self) -> Result<StaleProcesses, AskError> {
        let inventory = self.inventory()?;
        Ok(inventory::stale_processes(&self.context(), &inventory, &self.interpreters()?))
    }
}
