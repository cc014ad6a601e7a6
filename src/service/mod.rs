//! The services that run out of venvs: found, restarted, waited for.

mod find;
mod process;
mod supervisord;
mod systemd;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub(crate) use find::{Users, users_of};
pub(crate) use process::{Process, Processes};

/// Who runs a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Manager {
    Systemd,
    Supervisord,
}

/// A service by its manager and name: `systemd:web.service`, `supervisord:group:program`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Service {
    pub(crate) manager: Manager,
    pub(crate) name: String,
}
