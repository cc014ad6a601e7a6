//! The hooks that apt calls. Only a verdict blocks apt: a failure of venvguard itself is reported,
//! and apt continues.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Exit;
use super::arguments::HookEvent;
use crate::apt::{ProtocolError, Transaction};
use crate::guard::{Guard, GuardError};
use crate::host::Root;
use crate::plan::Verdict;
use crate::report::Report;
use crate::store::{Pending, Store};

pub(super) fn run(root: &Root, report: Report, event: HookEvent) -> Exit {
    let result = catch_unwind(AssertUnwindSafe(|| live(root, report, event)));
    let report = Report::for_apt();
    match result {
        Ok(Ok(exit)) => exit,
        Ok(Err(error)) => {
            let (consequence, remedy) = match event {
                HookEvent::PostInvoke => (
                    "the venvs stay as this run left them",
                    Some("see `venvguard status`, then `venvguard resume`".to_string()),
                ),
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
            Exit::Done
        }
    }
}

fn live(root: &Root, report: Report, event: HookEvent) -> Result<Exit, GuardError> {
    if event == HookEvent::PreInstall {
        let transaction = Transaction::read(list()?)?;
        if transaction.actions.is_empty() {
            return Ok(Exit::Done);
        }
        return match Guard::open(root.clone(), report)?.gate(&transaction)? {
            Verdict::Block => Ok(Exit::Blocked),
            Verdict::Allow | Verdict::Repair => Ok(Exit::Done),
        };
    }
    let guard = Guard::open(root.clone(), report)?;
    match event {
        HookEvent::PreInvoke => {
            guard.store.note_call();
            guard.snapshot()?;
        }
        HookEvent::PostInvoke => drop(guard.settle()?),
        HookEvent::Trigger => guard.store.mark_pending(&Pending::new("dpkg changed Python"))?,
        HookEvent::PreInstall => {}
    }
    Ok(Exit::Done)
}

/// apt's list: on the descriptor that apt names, or on standard input for an apt without
/// `InfoFD`.
fn list() -> Result<File, ProtocolError> {
    let number = match std::env::var("APT_HOOK_INFO_FD") {
        Ok(text) => text.parse::<u32>().map_err(|_| {
            io::Error::other(format!("APT_HOOK_INFO_FD is {text:?}, which is not a number"))
        })?,
        Err(_) => 0,
    };
    Ok(File::open(format!("/proc/self/fd/{number}"))?)
}
