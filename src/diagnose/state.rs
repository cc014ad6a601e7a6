//! Checks that venvguard's stored state can be read and that nobody else can write to it.

use super::Finding;
use crate::host::file::printable;
use crate::store::{Store, StoreError};

pub(super) fn findings(store: &Store) -> Vec<Finding> {
    let read = [
        store.registry().err(),
        store.interpreters().err(),
        store.transaction().err(),
        store.history().err(),
    ];
    let journal = store.open_journal();
    let called = match store.last_call() {
        Some(at) => format!("apt last called venvguard at {at:.0}"),
        None => "apt has not called venvguard since the machine booted".to_string(),
    };
    let mut findings: Vec<Finding> =
        read.iter().flatten().map(|error| finding(store, error)).collect();
    let declared = store.declarations().into_iter().filter_map(Result::err);
    findings.extend(declared.map(|(_, error)| finding(store, &error)));
    for entry in journal {
        findings.push(match entry {
            Ok(entry) => Finding::fault(
                format!("an interrupted repair of {} is unfinished", printable(entry.name())),
                "`venvguard resume`",
            ),
            Err(error) => finding(store, &error),
        });
    }
    if findings.is_empty() && store.has_work() {
        findings.push(Finding::fault(
            "an upgrade changed Python, but the venvs have not been repaired yet",
            "`venvguard resume`",
        ));
    }
    if let Ok(history) = store.history() {
        if !history.damaged.is_empty() {
            let count = history.damaged.len();
            findings.push(Finding::note(format!("cannot read {count} lines of the history")));
        }
    }
    findings.push(Finding::note(called));
    // An untrusted directory is found once for each file in it.
    findings.dedup();
    findings
}

pub(super) fn finding(store: &Store, error: &StoreError) -> Finding {
    let fix = store.advice(error).unwrap_or_else(|| "see `man venvguard`".to_string());
    Finding::fault(error.to_string(), fix)
}
