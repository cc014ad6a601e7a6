//! Carrying out what was decided, and undoing what does not hold.
//!
//! [`execute()`] takes decisions, one thread a venv; [`adopt`] is the way of one. A rebuild has two
//! halves: [`prepare`] builds and checks a new tree, which may rest ([`rest`]); the other stops the
//! services and swaps it in ([`swap`]), and keeps it or swaps back. Venvs that share a service take
//! the second half together ([`together`]): it is restarted once. The journal is written before anything
//! is done, [`states`] says what is next in each of its states, and [`recover()`] finishes what was
//! interrupted by the same table. All effects on venvs are in this module and in `owner`; all of
//! them are right when done twice.

mod account;
mod adopt;
mod budget;
mod builder;
mod engine;
mod execute;
mod halt;
mod install;
mod install_spec;
mod job;
mod names;
mod pin;
mod prepare;
mod prove;
mod readiness;
mod recipes;
mod record;
mod recover;
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

pub(crate) use execute::{execute, prepare_all};
pub(crate) use job::{Done, Job};
pub(crate) use names::is_ours_to_keep;
pub(crate) use pin::{record_and_pin_all, record_and_unpin};
pub(crate) use readiness::{additions, readiness};
pub(crate) use recipes::{keep_recipe, not_exact, prune_archives, refresh_recipes, way_back};
pub(crate) use record::sweep;
pub(crate) use recover::recover;
pub(crate) use restart::check_once;
pub(crate) use rollback::{RollbackError, previous_environment};
pub(crate) use stage::{look_at, look_through};

use crate::host::Root;
use crate::report::Report;
use crate::store::{Config, Store};

/// What every repair needs to know and to reach.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) root: &'a Root,
    pub(crate) store: &'a Store,
    pub(crate) config: &'a Config,
    pub(crate) report: &'a Report,
}
