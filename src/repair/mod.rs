//! Carries decisions out, and undoes a repair that fails.
//!
//! [`execute()`] takes decisions, one thread for each venv; [`adopt`] repairs one venv. A rebuild
//! has two halves. The first ([`prepare`]) builds and checks a new tree, which may be kept for
//! later ([`rest`]). The second stops the services, swaps the tree in ([`swap`]), and keeps it or
//! swaps back. Venvs that share a service take the second half together ([`together`]), so that
//! the service restarts once.
//!
//! The journal is written before each step. The table in [`states`] names the next step for each
//! state, and [`recover()`] uses the same table to finish an interrupted repair. Only this module
//! and `owner` change venvs, and every change may be repeated.

mod account;
mod adopt;
mod budget;
mod build_command;
mod build_needs;
mod builder;
mod engine;
mod execute;
mod fallback;
mod findings;
mod halt;
mod hooks;
mod install;
mod install_spec;
mod job;
mod mentions;
mod names;
mod not_rebuilt;
mod pin;
mod place;
mod prepare;
mod prove;
mod readiness;
mod recipes;
mod record;
mod recover;
mod resolve;
mod rest;
mod restart;
mod rollback;
mod smoke;
mod sources;
mod stage;
mod states;
mod swap;
mod together;
mod trees;
mod trial;
mod turns;

pub(crate) use account::perform_all;
pub(crate) use builder::System;
pub(crate) use execute::{execute, prepare_all, tell};
pub(crate) use job::{Done, Job, Outcome};
pub(crate) use mentions::mentions;
pub(crate) use names::is_ours_to_keep;
pub(crate) use pin::{record_and_pin_all, record_and_unpin};
pub(crate) use readiness::{Next, additions, breaks, readiness};
pub(crate) use recipes::{keep_recipe, not_exact, prune_archives, refresh_recipes, way_back};
pub(crate) use record::sweep;
pub(crate) use recover::recover;
pub(crate) use resolve::resolve;
pub(crate) use restart::check_once;
pub(crate) use rollback::{RollbackError, previous_environment};
pub(crate) use stage::{look_at, look_through, packaged};
pub(crate) use trial::{check_in, recipe_digest};

use crate::host::Root;
use crate::report::Report;
use crate::store::{Config, Store};

/// What every repair needs: the system, the store, the configuration and the report.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) root: &'a Root,
    pub(crate) store: &'a Store,
    pub(crate) config: &'a Config,
    pub(crate) report: &'a Report,
}
