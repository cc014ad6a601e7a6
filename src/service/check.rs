//! The check of a venv: a test whether its services do their work.
//!
//! A manager reports that a service is up; only its administrators can tell whether it works.

use std::path::Path;
use std::time::Duration;

use super::probe::Probe;
use crate::host::clock::{Deadline, wait_until};
use crate::host::command::CommandError;
use crate::host::user::User;
use crate::host::{Program, Root, confine};

/// How often a failed check is repeated.
const AGAIN: Duration = Duration::from_millis(250);

/// How long one run of a check may take.
const LIMIT: Duration = Duration::from_secs(20);

/// The hidden command of this program that asks an address.
pub(super) const PROBE: &str = "probe";

/// A command that passes by exiting 0, or an address that must answer. It runs confined as the owner
/// of the venv, because it may be a program in the venv, or a socket that the owner made.
#[derive(Debug)]
pub(crate) struct Check<'a> {
    program: &'a str,
    arguments: &'a [String],
    owner: User,
}

impl<'a> Check<'a> {
    /// `None` if the command is empty: nothing is checked then.
    pub(crate) fn new(command: &'a [String], owner: User) -> Option<Self> {
        let (program, arguments) = command.split_first()?;
        Some(Self { program, arguments, owner })
    }

    /// Runs it once.
    pub(crate) fn run(&self, root: &Root) -> Result<(), CommandError> {
        let program = if Probe::is_meant(self.program) {
            Program::new("/proc/self/exe").args([PROBE, "--", self.program]).called("check".into())
        } else {
            Program::new(self.program).args(self.arguments)
        };
        let program = program.limit(LIMIT);
        confine::confined(root, program, &self.owner, &[], Path::new("/")).run().map(drop)
    }

    /// Runs it until it passes, `patience` has passed, or there is nothing left that could pass it;
    /// the error is that of the last run.
    pub(crate) fn await_passing(
        &self,
        root: &Root,
        patience: Duration,
        may_pass: impl Fn() -> bool,
    ) -> Result<(), CommandError> {
        let mut result = Ok(());
        wait_until(Deadline::after(patience), AGAIN, || {
            result = self.run(root);
            result.is_ok() || !may_pass()
        });
        result
    }
}
