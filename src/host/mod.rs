//! The only access to the system: rooted paths, files, commands, users, time.
//!
//! Nothing outside this module starts a process, reads a clock or makes a
//! privileged system call; `.clippy.toml` enforces that.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the rest of the crate has to use this module instead"
)]

pub(crate) mod access;
pub(crate) mod audit;
pub(crate) mod clock;
pub(crate) mod command;
pub(crate) mod confine;
pub(crate) mod descriptor;
pub(crate) mod dir;
pub(crate) mod fault;
pub(crate) mod file;
mod hexadecimal;
#[cfg(test)]
mod input;
pub(crate) mod lock;
pub(crate) mod mount;
pub(crate) mod overlay;
pub(crate) mod parallel;
pub(crate) mod path_text;
pub(crate) mod programs;
pub(crate) mod redact;
pub(crate) mod root;
pub(crate) mod signal;
pub(crate) mod socket;
pub(crate) mod spelling;
pub(crate) mod terminal;
pub(crate) mod toml;
pub(crate) mod tree;
pub(crate) mod user;
pub(crate) mod xattr;

pub(crate) use command::Program;
pub(crate) use dir::Dir;
pub(crate) use file::{FileIdentity, ReadError};
pub(crate) use hexadecimal::hexadecimal;
pub(crate) use redact::redacted;
pub(crate) use root::Root;
