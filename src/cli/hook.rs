//! The hooks that apt calls. Only a verdict blocks apt: a failure of venvguard itself is reported,
//! and apt continues.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Exit;
use super::arguments::HookEvent;
use crate::apt::{Action, ProtocolError, RemovedLibraries, Transaction, converse};
use crate::guard::{AptRun, Guard, GuardError};
use crate::host::Root;
use crate::plan::Verdict;
use crate::report::Report;
use crate::store::{Pending, Store};

/// The event of a command line that is spelled exactly as apt's configuration and dpkg's scripts
/// spell it. Any other command line is left to clap, which calls the same [`run`].
pub(super) fn called(mut arguments: impl Iterator<Item = OsString>) -> Option<HookEvent> {
    let [word, event, end] = [arguments.nth(1), arguments.next(), arguments.next()];
    if word? != "hook" || end.is_some() {
        return None;
    }
    match event?.to_str()? {
        "statistics" => Some(HookEvent::Statistics),
        "pre-invoke" => Some(HookEvent::PreInvoke),
        "pre-install" => Some(HookEvent::PreInstall),
        "post-invoke" => Some(HookEvent::PostInvoke),
        "trigger" => Some(HookEvent::Trigger),
        _ => None,
    }
}

pub(super) fn run(root: &Root, event: HookEvent) -> Exit {
    let report = match event {
        // `pre-install` prints what this process prints.
        HookEvent::Rehearse { .. } => Report::for_command(),
        _ => Report::for_apt(),
    };
    let result = catch_unwind(AssertUnwindSafe(|| live(root, report.clone(), event)));
    match result {
        Ok(Ok(exit)) => exit,
        Ok(Err(error)) => {
            let (consequence, remedy) = match event {
                HookEvent::PostInvoke => (
                    "the venvs stay as this run left them",
                    Some("see `venvguard status`, then `venvguard resume`".to_string()),
                ),
                HookEvent::Rehearse { .. } => ("cannot rehearse this upgrade", None),
                _ => ("apt continues without venvguard", None),
            };
            report.error(&format!("{consequence}: {error}"));
            let advice = match &error {
                GuardError::Store(error) => Store::new(root).advice(error),
                _ => None,
            };
            if let Some(hint) = advice.or(remedy) {
                report.hint(&hint);
            }
            Exit::Done
        }
        Err(_) => {
            report.error("internal error; apt continues without venvguard");
            report.hint("run `venvguard resume` when apt has finished: it repairs what is left");
            Exit::Done
        }
    }
}

fn live(root: &Root, report: Report, event: HookEvent) -> Result<Exit, GuardError> {
    let guard = |report| Guard::open(root.clone(), report);
    match event {
        HookEvent::Statistics => {
            let apt = io::stdin().as_fd().try_clone_to_owned().map_err(ProtocolError::Io)?;
            converse(&File::from(apt), |actions| announce(root, &report, actions))
                .map_err(ProtocolError::Io)?;
        }
        HookEvent::PreInvoke => {
            let guard = guard(report)?;
            guard.store.note_call();
            guard.snapshot()?;
        }
        HookEvent::PreInstall => {
            let list = list()?;
            let transaction = Transaction::read(list.as_slice())?;
            let removed = RemovedLibraries::of(root, &transaction);
            if transaction.actions.is_empty() && removed.is_empty() {
                return Ok(Exit::Done);
            }
            let run = AptRun { transaction: &transaction, removed: &removed, list: &list };
            if guard(report)?.gate(run)? == Verdict::Block {
                return Ok(Exit::Blocked);
            }
        }
        HookEvent::Rehearse { again } => {
            let transaction = Transaction::read(list()?.as_slice())?;
            let guard = guard(report)?;
            if let Err(error) = guard.rehearse_transaction(&transaction, again) {
                guard.report.error(&format!("cannot rehearse this upgrade: {error}"));
            }
        }
        HookEvent::PostInvoke => drop(guard(report)?.settle()?),
        HookEvent::Trigger => {
            guard(report)?.store.mark_pending(&Pending::new("dpkg changed Python"))?;
        }
    }
    Ok(Exit::Done)
}

/// Prints what the run will do to the venvs, before apt asks its question. The gate reports errors.
fn announce(root: &Root, report: &Report, actions: Vec<Action>) {
    if actions.is_empty() {
        return;
    }
    let Ok(guard) = Guard::open(root.clone(), report.clone()) else { return };
    if let Ok(plan) = guard.foresee_actions(actions) {
        report.announce(&plan);
    }
}

/// apt's list: on the descriptor that apt names, or on standard input for an apt without
/// `InfoFD`.
fn list() -> Result<Vec<u8>, ProtocolError> {
    let number = match std::env::var("APT_HOOK_INFO_FD") {
        Ok(text) => text.parse::<u32>().map_err(|_| {
            io::Error::other(format!("APT_HOOK_INFO_FD is {text:?}, which is not a number"))
        })?,
        Err(_) => 0,
    };
    let mut list = Vec::new();
    let file = File::open(format!("/proc/self/fd/{number}"))?;
    file.take(Transaction::LIMIT).read_to_end(&mut list)?;
    Ok(list)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::arguments::{Arguments, Command};
    use super::*;

    #[test]
    fn every_call_of_apt_and_dpkg_is_recognised_as_clap_would() {
        let callers = [
            include_str!("../../hooks/50venvguard"),
            include_str!("../../hooks/venvguard.rtupdate"),
            include_str!("../../debian/postinst"),
        ]
        .concat();
        let calls: Vec<&str> = callers
            .split("venvguard hook ")
            .skip(1)
            .filter_map(|rest| rest.split([' ', '"', '\n']).next())
            .collect();
        assert!(calls.len() >= 5, "{calls:?}");
        for event in calls {
            let line = ["venvguard", "hook", event];
            let known = called(line.map(OsString::from).into_iter());
            let Command::Hook { event } = Arguments::parse_from(line).command else {
                panic!("{line:?}")
            };
            assert_eq!(known, Some(event), "{line:?}");
        }
    }

    #[test]
    fn any_other_command_line_is_left_to_clap() {
        for line in [
            &["venvguard"][..],
            &["venvguard", "hook"],
            &["venvguard", "hook", "help"],
            &["venvguard", "hook", "--help"],
            &["venvguard", "hook", "pre-install", "--system"],
            &["venvguard", "--system", "hook", "pre-install"],
            &["venvguard", "list", "pre-install"],
        ] {
            assert_eq!(called(line.iter().map(OsString::from)), None, "{line:?}");
        }
    }
}
