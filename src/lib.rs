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
//!                                              moves venvs off an interpreter that is removed,
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
//! # The walk of an upgrade
//!
//! 1. [`cli`] reads apt's list ([`apt`]) and hands it to [`guard`]'s gate.
//! 2. [`inventory`] inspects every registered venv; [`apt`] predicts the interpreters.
//! 3. `plan::questions` says what has to be known; [`inventory`] finds it out.
//! 4. `plan::upgrade` decides: a `Decision` for each venv. [`report`] prints it, and a verdict
//!    answers apt. What must precede dpkg is carried out, and what runs is recorded.
//! 5. dpkg runs. `settle` compares the interpreters with the snapshot, and decides again by the
//!    same function, from what really changed.
//! 6. [`repair`] executes the decisions, each with its journal. `prepare` builds and checks a
//!    new tree beside the venv, by processes of its owner ([`owner`]).
//! 7. `adopt`: [`service`] stops what runs, `swap` carries the last changes over and swaps, the
//!    services start and prove the new tree, or it is swapped back. Venvs that share a service
//!    do this together (`repair::together`), so that it is restarted once.
//! 8. The result goes to registry and history, the journal is closed, old trees are removed.
//!
//! # The walk of a rollback
//!
//! 1. [`cli`] hands the request to `guard`, which locks and finishes what was interrupted.
//! 2. `guard` asks [`repair`] for the previous environment and [`inventory`] for the services.
//! 3. `plan::request` decides: `Restore`, with what has to be adjusted in the tree first.
//!    With `--dry-run` that is the answer, and [`cli`] prints it.
//! 4. [`repair`] adjusts the tree while it is aside, and writes the journal: restoring.
//! 5. It stops the services, carries the user files back and swaps.
//! 6. It starts the services. What they say is reported; the tree stays: somebody asked for it.
//! 7. The environment that was in place is the previous one now.
//!
//! After a crash the journal's state and the tree that is at the venv's path say what is next, by
//! the table in `repair::states`, which the live run asks as well.
//!
//! # The house
//!
//! | module | a reader asks |
//! |---|---|
//! | [`cli`] | what can be said to the program, and what does it answer? |
//! | [`guard`] | what happens at each moment of an apt run, and when somebody asks for something? |
//! | [`diagnose`] | what keeps venvguard from its work on this machine? |
//! | [`inventory`] | how are the registered venvs now, and what has a decision to know? |
//! | [`repair`] | how is a decision carried out, undone, and finished after a crash? |
//! | [`owner`] | what is done inside a tree, by a process of its owner? |
//! | [`report`] | how is it told? |
//! | [`store`] | what is remembered, and how? |
//! | [`plan`] | what do the changes do to a venv, and what is done about it? (pure) |
//! | [`service`] | what runs out of a venv, and did it come back? |
//! | [`apt`] | what is apt about to do, and which interpreters does that change? |
//! | [`venv`] | what is this venv, and what is in it? (read, never run) |
//! | [`python`] | which interpreters are there? (read from the file, never run) |
//! | [`host`] | the only door to the system: processes, users, mounts, clocks, files |
//!
//! `plan` and `report` have no effects; no module imports from one above it, and nothing
//! imports `cli` (`house.rs` tests it); paths go through [`host::Root`], so that a test is a
//! directory of files.

#![allow(rustdoc::private_intra_doc_links, reason = "the overview is for readers of the code")]

mod apt;
pub mod cli;
mod diagnose;
mod guard;
mod host;
#[cfg(test)]
mod house;
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
