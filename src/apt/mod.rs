//! What apt is about to do, how that changes the interpreters, and apt's marks on
//! packages. No other module calls apt.

mod change;
mod fetch;
mod get;
mod hold;
mod hooks;
#[cfg(test)]
mod input;
mod json_hook;
mod libraries;
mod lists;
pub(crate) mod marks;
mod predict;
mod protocol;
mod release;
mod simulate;

#[cfg(test)]
pub(crate) use change::samples;
pub(crate) use change::{Build, Change, ChangeKind, changes};
pub(crate) use fetch::{FetchError, among, fetch, packages_of, remove_unused};
pub(crate) use get::AptGet;
pub(crate) use hold::{Hold, HoldError, packages_to_hold, without_hold};
pub(crate) use hooks::Hooks;
pub(crate) use json_hook::converse;
pub(crate) use libraries::RemovedLibraries;
pub(crate) use lists::Lists;
pub(crate) use predict::{pip_wheel, predict};
pub(crate) use protocol::{Action, ProtocolError, Transaction};
pub(crate) use release::{ReleaseError, of_release};
pub(crate) use simulate::pending_upgrade;
