//! `rehearse`: which venvs work after the pending upgrade.

use super::Exit;
use crate::apt::Lists;
use crate::guard::{AskError, Guard, RehearsalRequest, VenvRehearsal};
use crate::plan::Proof;
use crate::report::{RehearsalJson, VenvRehearsalJson};

pub(super) fn rehearse(
    guard: &Guard,
    request: &RehearsalRequest,
    json: bool,
) -> anyhow::Result<Exit> {
    if request.is_forecast && !guard.wants_forecast() {
        return Ok(Exit::Done);
    }
    let rehearsed = match guard.rehearse(request) {
        // The next update of the lists starts another forecast.
        Err(AskError::AptAtWork) if request.is_forecast => return Ok(Exit::Done),
        other => other?,
    };
    if !rehearsed.prepared.is_empty() {
        let names = rehearsed.prepared.join(", ");
        guard.report.note(&format!("ready for the default Python: {names}"));
        guard.start_rebuild_of_ready();
    }
    let is_ready = rehearsed.venvs.iter().all(|one| one.findings.is_empty());
    if json {
        let venvs = rehearsed.venvs.iter().map(|one| {
            VenvRehearsalJson::new(&one.entry, one.version.as_ref(), one.proof, &one.findings)
        });
        guard.report.json(&RehearsalJson::new(&rehearsed.changes, venvs.collect()));
    } else {
        for change in &rehearsed.changes {
            guard.report.data(change);
        }
        for venv in &rehearsed.venvs {
            guard.report.data(in_words(venv));
        }
    }
    if rehearsed.lists == Lists::Empty {
        guard.report.error("apt has no package lists, so the pending upgrade is unknown");
        guard.report.hint("apt update && venvguard rehearse");
        return Ok(Exit::Attention);
    }
    if rehearsed.venvs.is_empty() && !json && !request.is_forecast {
        guard.report.note("nothing to rehearse: no venv gets another version of Python");
    }
    Ok(if is_ready { Exit::Done } else { Exit::Attention })
}

/// `shop: ready for Python 3.13.5 (built and checked)`, or why not, a line for each finding.
fn in_words(venv: &VenvRehearsal) -> String {
    let python = match &venv.version {
        Some(version) => format!("Python {version}"),
        None => "the upgrade".to_string(),
    };
    let name = &venv.entry.name;
    if venv.findings.is_empty() {
        let how = match venv.proof {
            Proof::Rehearsed => "built and checked; the upgrade swaps it in",
            Proof::Smoke => "checked as it is",
            Proof::Resolved => "the index has a wheel of each distribution; none was tried",
            Proof::None => "not checked",
        };
        return format!("{name}: ready for {python} ({how})");
    }
    let mut text = format!("{name}: not ready for {python}");
    for finding in &venv.findings {
        text.push_str("\n    ");
        text.push_str(finding.to_string().replace('\n', "\n      ").trim_end());
    }
    text
}
