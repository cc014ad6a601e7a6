//! The services that run out of venvs: found, asked, stopped, started, waited for.
//!
//! Which services there are to restart, and when, is decided elsewhere.
//!
//! | module | a reader asks |
//! |---|---|
//! | [`name`] | how is a service written and stored? |
//! | [`discover`] | what runs on this machine, and out of which venv? |
//! | [`managers`] | who runs services, and how is each of them asked and told? |
//! | [`usage`] | which services and processes use a venv? |
//! | [`control`] | how is a service, and how is it stopped, started, waited for? |
//! | [`check`] | does what runs out of a venv do its work? |

mod check;
mod condition;
mod control;
mod discover;
mod error;
#[cfg(test)]
mod input;
mod managers;
mod name;
mod usage;

pub(crate) use check::Check;
pub(crate) use condition::Condition;
pub(crate) use control::{
    await_up, came_up_again, condition, dependents, require_trusted, restart_all, start_all,
    stop_all, triggers,
};
pub(crate) use discover::process::{ProcessId, Processes, await_gone};
pub(crate) use managers::{Outcome, start_units, stop_units};
pub(crate) use name::Service;
pub(crate) use usage::{ServiceMap, VenvUsage, needs_restart};
