//! venvguard keeps Python virtualenvs working across apt upgrades of Python.
//!
//! # The promise
//!
//! After an upgrade, every registered venv works as well as it did before, or the upgrade did not
//! happen. No user data is lost. Only a decision stops apt, by exit status 10; a failure inside
//! venvguard never does.
//!
//! # The moments of an upgrade
//!
//! ```text
//! apt upgrade
//!   DPkg::Pre-Invoke         Guard::snapshot   records the interpreters, unless they are recorded already
//!   DPkg::Pre-Install-Pkgs   Guard::gate       apt's list → changes → effects → decisions → verdict;
//!                                              moves venvs off an interpreter that is removed,
//!                                              pins venvs whose default interpreter will move
//!   dpkg                     (a trigger)       marks pending work, if dpkg runs without apt
//!   DPkg::Post-Invoke        Guard::settle     actual changes → decisions → repair → restart → check;
//!                                              then the venvs that users have registered themselves,
//!                                              as each user and for a limited time
//! boot, timer: `resume`      Guard::settle     the same, if a hook did not run or was interrupted
//! timer: `restart --due`     Guard::restart_due  repairs the venvs that waited for a window
//! ```
//!
//! Each moment is a separate process. The processes share state on disk only ([`store`]), and each
//! may run twice or not at all. The gate decides from apt's list, but `settle` decides from the
//! disk alone: apt may have failed halfway.
//!
//! The gate pins a venv that follows `/usr/bin/python3` to `/usr/bin/python3.X` *before* dpkg
//! moves the default, while both are the same program. A program that starts in the middle of the
//! upgrade therefore runs the interpreter that its packages are for, a failed rebuild leaves a
//! working venv, and undoing the pin after an upgrade that did not happen changes one link back.
//!
//! # An upgrade, step by step
//!
//! 1. [`cli`] reads apt's list ([`apt`]) and hands it to the gate in [`guard`].
//! 2. [`inventory`] inspects every registered venv; [`apt`] predicts the interpreters.
//! 3. `plan::questions` says which facts a decision needs; [`inventory`] finds them out.
//! 4. `plan::upgrade` makes a `Decision` for each venv. [`report`] prints them, and the verdict
//!    answers apt. If a person sits at the terminal, the gate asks them first. Then it carries out
//!    what must precede dpkg, and records which services run and which checks pass.
//! 5. dpkg runs. `settle` compares the interpreters with the snapshot, and calls the same function
//!    again to decide from the actual changes.
//! 6. [`repair`] executes the decisions, each with its own journal. `prepare` builds and checks a
//!    new tree beside the venv, in processes of the venv's owner ([`owner`]).
//! 7. `adopt` finishes the repair: [`service`] stops the services, `swap` carries the last changes
//!    over and swaps the trees, the services start. If they do not come up, the trees are swapped
//!    back. Venvs that share a service do this together (`repair::together`), so that the service
//!    restarts once. Meanwhile other venvs are built.
//! 8. [`repair`] writes the result to the registry and the history, closes the journal and removes
//!    old trees.
//!
//! # A rollback, step by step
//!
//! 1. [`cli`] hands the request to `guard`, which takes the lock and finishes interrupted repairs.
//! 2. `guard` asks [`repair`] for the previous environment and [`inventory`] for the services.
//! 3. `plan::request` decides: `Restore`, and how to adjust the tree first. With `--dry-run` that
//!    is the answer, and [`cli`] prints it.
//! 4. [`repair`] adjusts the tree while it is aside, and writes the journal (state: restoring).
//! 5. It stops the services, carries the user files back and swaps the trees.
//! 6. It starts the services and reports whether they come up. The restored tree stays in either
//!    case, because somebody asked for it.
//! 7. The environment that was in place is now the previous one.
//!
//! After a crash, two things determine the next step: the state in the journal, and which tree is
//! at the venv's path. The table is in `repair::states`; the live run uses it as well.
//!
//! # A rehearsal, step by step
//!
//! 1. `guard` asks [`apt`] what the pending upgrade installs, or the upgrade to another release, and
//!    predicts the interpreters.
//! 2. `plan::trial` decides what to find out about each venv: build a new tree, or check the venv
//!    as it is.
//! 3. [`apt`] fetches the packages of the next Python. [`rehearse`] unpacks them; confined programs
//!    see them merged with the installed system.
//! 4. [`repair`] builds and checks each new tree there by the same `prepare` as after an upgrade. The
//!    tree waits beside its venv.
//! 5. [`store`] keeps what was found, by venv and distribution. The gate's readiness takes it into
//!    account, and `settle` swaps in the trees that wait.
//!
//! # The modules
//!
//! | module | the question it answers |
//! |---|---|
//! | [`cli`] | which commands exist, and what do they answer? |
//! | [`guard`] | what happens at each moment of an apt run, and on each request? |
//! | [`diagnose`] | what keeps venvguard from working on this machine, and why does a Python program fail? |
//! | [`inventory`] | what state are the registered venvs in, and which facts does a decision need? |
//! | [`rehearse`] | what will this machine be after the upgrade? |
//! | [`repair`] | how is a decision carried out, undone, and finished after a crash? |
//! | [`owner`] | what does a process of a tree's owner do inside the tree? |
//! | [`report`] | how are results put into words? |
//! | [`monitor`] | what do monitoring systems and logins read? |
//! | [`store`] | what is remembered, and how? |
//! | [`plan`] | how do the changes affect a venv, and what is the remedy? (pure) |
//! | [`service`] | what runs out of a venv, and did it come back? |
//! | [`apt`] | what is apt about to do, and which interpreters does that change? |
//! | [`venv`] | what is this venv, and what does it contain? (read, never run) |
//! | [`python`] | which interpreters are installed? (read from the file, never run) |
//! | [`host`] | the only access to the system: processes, users, mounts, clocks, files |
//!
//! `plan`, `report` and `monitor` have no effects. No module imports from one above it, and nothing imports
//! `cli` (`house.rs` tests both). Paths go through [`host::Root`], so that a test can use a
//! directory of files as its system.

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
mod monitor;
mod owner;
mod plan;
mod python;
mod rehearse;
mod repair;
mod report;
mod service;
mod store;
mod venv;
