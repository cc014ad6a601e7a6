//! Carrying out what was decided, and undoing what does not hold.
//!
//! [`execute()`] takes the decisions of a plan, one thread a venv; a [`one`] is the way of
//! one. It writes to the journal before it does anything, [`recover()`] ends what was
//! interrupted, and what came of it is entered before the journal is closed. All effects on
//! venvs are in this module; all of them are right when done twice.

mod budget;
mod engine;
mod execute;
mod halt;
mod install;
mod install_spec;
mod job;
mod one;
mod pin;
mod rebuild;
mod recover;
mod restart;
mod rollback;
mod smoke;
mod sources;
mod stage;
mod target;
mod trees;

pub(crate) use execute::{execute, sweep};
pub(crate) use install_spec::{keep_recipe, not_exact, prune_archives, refresh_recipes, way_back};
pub(crate) use job::{Done, Job, Outcome};

pub(crate) use pin::{record_and_pin_all, record_and_unpin};
pub(crate) use recover::recover;
pub(crate) use rollback::rollback;
pub(crate) use stage::{Looked, is_ours_to_keep, look_at, look_through};
pub(crate) use target::{Target, additions, readiness};

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
