//! `doctor`: whether venvguard can do its work on this machine, and the command that mends
//! what keeps it from that. It changes nothing.

mod apt;
mod state;
mod system;
mod venvs;

use serde::Serialize;

use super::Exit;
use crate::guard::Guard;
use crate::host::Root;
use crate::report::Report;
use crate::store::Store;

/// Something that was found.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// Nothing is broken by it; somebody may want to know.
    is_note: bool,
    what: String,
    /// What to type, or to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

impl Finding {
    fn fault(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { is_note: false, what: what.into(), mend: Some(mend.into()) }
    }

    fn note(what: impl Into<String>) -> Self {
        Self { is_note: true, what: what.into(), mend: None }
    }
}

/// What `doctor --json` prints.
#[derive(Serialize)]
struct DoctorJson {
    schema_version: u64,
    findings: Vec<Finding>,
}

pub(super) fn doctor(root: &Root, report: &Report, json: bool) -> Exit {
    let mut findings = apt::findings(root);
    findings.extend(system::findings(root));
    let store = Store::new(root);
    findings.extend(state::findings(&store));
    match Guard::open(root.clone(), report.clone()) {
        Ok(guard) => findings.extend(venvs::findings(&guard)),
        Err(error) => findings.push(state::finding(&store, &error)),
    }
    let is_well = findings.iter().all(|one| one.is_note);
    if json {
        report.json(&DoctorJson { schema_version: 1, findings });
    } else {
        for Finding { is_note, what, mend } in &findings {
            report.data(format!("{}: {what}", if *is_note { "note" } else { "fault" }));
            if let Some(mend) = mend {
                report.data(format!("    mend: {mend}"));
            }
        }
        if is_well {
            report.data("venvguard can do its work here");
        }
    }
    if is_well { Exit::Done } else { Exit::Attention }
}
