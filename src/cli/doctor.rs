//! `doctor`: whether venvguard can work on this machine, and commands that fix what prevents it. It
//! changes nothing.

use serde::Serialize;

use super::Exit;
use crate::diagnose::{self, Finding, Severity};
use crate::host::Root;
use crate::report::Report;

/// What `doctor --json` prints.
#[derive(Serialize)]
struct DoctorJson<'a> {
    schema_version: u64,
    findings: &'a [Finding],
}

pub(super) fn doctor(root: &Root, report: &Report, json: bool) -> Exit {
    let findings = diagnose::findings(root, report);
    let is_well = findings.iter().all(|one| one.severity == Severity::Note);
    if json {
        report.json(&DoctorJson { schema_version: 1, findings: &findings });
    } else {
        for Finding { severity, what, fix } in &findings {
            report.data(format!("{severity}: {what}"));
            if let Some(fix) = fix {
                report.data(format!("    fix: {fix}"));
            }
        }
        if is_well {
            report.data("no fault was found");
        }
    }
    if is_well { Exit::Done } else { Exit::Attention }
}
