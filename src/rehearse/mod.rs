//! The next system: what this machine will be after an upgrade, made visible before it.
//!
//! The packages of the next interpreter are unpacked into a directory of their own, and merged with
//! the installed system in the mount namespace of a confined program. No maintainer script runs,
//! nothing of the installed system changes, and nothing is left when the rehearsal is over.

mod next;

pub(crate) use next::{NextError, NextSystem, sweep};
