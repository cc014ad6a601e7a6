//! The services that use venvs: finds, queries, stops, starts and awaits them.
//!
//! Other modules decide which services to restart, and when.
//!
//! | module | a reader asks |
//! |---|---|
//! | [`name`] | how is a service written and stored? |
//! | [`discover`] | what runs on this machine, and from which venv? |
//! | [`managers`] | which programs run services, and how are they queried and given orders? |
//! | [`usage`] | which services and processes use a venv? |
//! | [`control`] | is a service up, and how is it stopped, started, awaited? |
//! | [`restraint`] | must a service not be restarted unasked? |
//! | [`workers`] | do the workers of a service last? |
//! | [`check`], [`probe`], [`mod@listening`], [`answer`] | do the services of a venv do their work? |

mod answer;
mod check;
mod condition;
mod control;
mod discover;
mod error;
#[cfg(test)]
mod input;
mod listening;
mod managers;
mod name;
mod needrestart;
mod probe;
mod restraint;
mod usage;
mod workers;

pub(crate) use answer::{HttpAnswer, await_answer};
pub(crate) use check::Check;
pub(crate) use condition::Condition;
pub(crate) use control::{
    await_up, came_up_again, condition, conditions, dependents, log, require_trusted, restart_all,
    start_all, stop_all, stop_with, triggers,
};
pub(crate) use discover::cgroup::CgroupOwner;
pub(crate) use discover::embedded::Embedding;
pub(crate) use discover::process::{ProcessId, Processes, await_gone};
pub(crate) use listening::{await_listening, listening};
pub(crate) use managers::{Outcome, start_units, stop_units};
pub(crate) use name::{Service, ServiceNameError};
pub(crate) use probe::{AddressError, Probe};
pub(crate) use restraint::{Restraints, is_shutting_down};
pub(crate) use usage::{Current, ServiceMap, VenvProcess, VenvUsage, needs_restart};
pub(crate) use workers::come_and_go;
