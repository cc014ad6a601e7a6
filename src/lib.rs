//! venvguard keeps Python virtualenvs working across apt upgrades of Python.
//!
//! # The promise
//!
//! After an upgrade every registered venv works as well as before, or the upgrade did not
//! happen; and nothing of the user's is lost. apt never suffers for a fault of ours: only a
//! decision stops it, by exit status 10.
//!
//! # The way of an upgrade
//!
//! ```text
//! apt upgrade
//!   DPkg::Pre-Invoke         Guard::snapshot   which interpreters are there; nothing, if that is known
//!   DPkg::Pre-Install-Pkgs   Guard::gate       apt's list → changes → effects → decisions → verdict;
//!                                              moves venvs off an interpreter that goes away,
//!                                              pins those whose default interpreter will move
//!   dpkg                     (a trigger)       marks work, for a dpkg that apt did not call
//!   DPkg::Post-Invoke        Guard::settle     what really changed → decisions → repair → restart → check
//!                                              then, as each of them and for a limited time, the venvs
//!                                              that users have had guarded themselves
//! boot, timer: `resume`      Guard::settle     the same, when a hook did not run or was interrupted
//! ```
//!
//! Each moment is a process of its own. What they must know of each other is on disk
//! ([`store`]), and each is right when it runs twice or not at all. The gate decides from
//! apt's list, but `settle` decides from the disk alone: apt may have failed halfway.
//!
//! A venv that follows `/usr/bin/python3` is pinned to `/usr/bin/python3.X` *before* dpkg
//! moves the default, when both are the same program. So whatever starts in the middle of
//! the upgrade runs what its packages are for; a rebuild that fails leaves a venv that works;
//! and an upgrade that did not happen is undone by changing one link back.
//!
//! # The house
//!
//! | module | a reader asks |
//! |---|---|
//! | [`cli`] | what can be said to the program, and what does it answer? |
//! | [`guard`] | what happens at each moment of an apt run? |
//! | [`apt`] | what is apt about to do, and which interpreters does that change? |
//! | [`python`] | which interpreters are there? (read from the file, never run) |
//! | [`venv`] | what is this venv, and what is in it? (read, never run) |
//! | [`plan`] | what do the changes do to a venv, and what is done about it? (pure) |
//! | [`owner`] | what is done inside a tree, by a process of its owner? |
//! | [`repair`] | how is it done, undone, and ended after a crash? |
//! | [`service`] | what runs out of a venv, and did it come back? |
//! | [`store`] | what is remembered, and how? |
//! | [`report`] | how is it told? |
//! | [`host`] | the only door to the system: processes, users, mounts, clocks, files |
//!
//! `plan` and `report` have no effects; nothing imports `cli`; paths go through
//! [`host::Root`], so that a test is a directory of files.

#![allow(rustdoc::private_intra_doc_links, reason = "the overview is for readers of the code")]

mod apt;
pub mod cli;
mod guard;
mod host;
#[cfg(test)]
mod input;
mod inventory;
mod owner;
mod plan;
mod python;
mod repair;
mod report;
mod service;
mod store;
mod venv;
