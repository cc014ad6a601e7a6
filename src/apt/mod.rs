//! What apt is about to do, and what it changes about the interpreters.

mod change;
#[cfg(test)]
mod input;
mod predict;
mod protocol;
mod simulate;

#[cfg(test)]
pub(crate) use change::samples;
pub(crate) use change::{Build, Change, ChangeKind, changes};
pub(crate) use predict::predict;
pub(crate) use protocol::{Action, ProtocolError, Transaction, concerns_python};
pub(crate) use simulate::simulated;
