//! `show`.

use std::fmt::Display;

use super::{Exit, list};
use crate::guard::{Contents, Details, Guard, PreviousState, Shown};
use crate::host::file::printable;
use crate::host::redacted;
use crate::report::{ListJson, Report, VenvJson, in_mebibytes};
use crate::service::{Service, VenvProcess};
use crate::store::{PreparedTree, PreviousTree, RegistryEntry, Rehearsal};

pub(super) fn show(guard: &Guard, wanted: &[String], json: bool) -> anyhow::Result<Exit> {
    let venvs = guard.show(wanted)?;
    let details = guard.details()?;
    if json {
        let venvs = venvs.into_iter().map(|one| shown_in_json(one, &details)).collect();
        guard.report.json(&ListJson::new(venvs));
        return Ok(Exit::Done);
    }
    for one in &venvs {
        print_venv(&guard.report, one, &details);
        print_services(&guard.report, one);
        print_wishes(&guard.report, &one.looked.entry);
        for (kept, state) in &one.previous {
            line(&guard.report, "previous environment", previous_in_words(kept, state));
        }
        match &one.looked.prepared {
            Ok(Some(tree)) => line(&guard.report, "prepared", prepared_in_words(tree)),
            Ok(None) => {}
            Err(error) => line(&guard.report, "prepared", format!("not known: {error}")),
        }
        match &one.rehearsals {
            Ok(found) => {
                for one in found {
                    line(&guard.report, "rehearsal", rehearsal_in_words(one));
                }
            }
            Err(error) => line(&guard.report, "rehearsal", format!("not known: {error}")),
        }
        match one.contents.as_ref().map(|contents| &contents.additions) {
            Some(Ok(found)) => guard.report.additions(found),
            Some(Err(error)) => line(&guard.report, "user files", format!("not known: {error}")),
            None => {}
        }
        guard.report.data("");
    }
    Ok(Exit::Done)
}

fn shown_in_json(shown: Shown, details: &Details) -> VenvJson {
    let Shown { looked, contents, rehearsals, .. } = shown;
    let mut json = list::in_json(&looked, details).with_settings(&looked.entry);
    if let Some(latest) = rehearsals.unwrap_or_default().into_iter().next() {
        json = json.with_rehearsal(latest);
    }
    let Some(Contents { not_exact, additions, .. }) = contents else { return json };
    let json = json.with_not_exact(not_exact);
    match additions {
        Ok(found) => json.with_additions(&found),
        Err(_) => json,
    }
}

fn line(report: &Report, what: &str, value: impl Display) {
    report.data(format!("{what:>14}: {}", printable(value.to_string())));
}

fn print_venv(report: &Report, Shown { looked, contents, .. }: &Shown, details: &Details) {
    let entry = &looked.entry;
    line(report, "name", &entry.name);
    line(report, "id", &entry.id);
    line(report, "path", printable(entry.path()));
    line(report, "state", looked.health.state);
    for reason in &looked.health.reasons {
        line(report, "", reason);
    }
    line(report, "policy", entry.policy);
    if let Some(file) = entry.declared_in() {
        line(report, "declared in", printable(file));
    }
    let (Ok(venv), Some(contents)) = (&looked.venv, contents) else { return };
    line(report, "created by", venv.flavour);
    line(report, "interpreter", format!("{} ({})", printable(&venv.base.path), venv.base.link));
    line(report, "python", venv.site);
    line(report, "owner", details.owner(venv));
    if let Some(count) = contents.distributions {
        line(report, "distributions", count);
    }
    for reason in &contents.not_exact {
        line(report, "not exact", reason);
    }
}

fn print_services(report: &Report, shown: &Shown) {
    for service in &shown.looked.entry.services {
        line(report, "service", service);
    }
    let processes = &shown.looked.usage.processes;
    for service in shown.looked.services_found() {
        line(report, "service found", format!("{service} ({})", evidence(service, processes)));
    }
    for VenvProcess { process, .. } in processes.iter().filter(|one| one.service.is_none()) {
        line(report, "process", format!("{} (no service runs it)", process.describe()));
    }
}

/// How venvguard knows that a service belongs to the venv.
fn evidence(service: &Service, processes: &[VenvProcess]) -> String {
    let is_its = |one: &&VenvProcess| one.service.as_ref() == Some(service);
    let its = processes.iter().filter(is_its);
    let pids: Vec<String> = its.map(|one| one.process.id.pid.to_string()).collect();
    match pids.as_slice() {
        [] => "its configuration names the venv".to_string(),
        [pid] => format!("pid {pid}"),
        pids => format!("pids {}", pids.join(", ")),
    }
}

/// What was set at `register`.
fn print_wishes(report: &Report, entry: &RegistryEntry) {
    if !entry.check.is_empty() {
        line(report, "check", printable(redacted(&entry.check.join(" "))));
    }
    if let Some(path) = entry.requirements() {
        line(report, "requirements", printable(path));
    }
    if let Some(path) = entry.lock() {
        line(report, "lock", printable(path));
    }
    if !entry.build_command().is_empty() {
        let command = entry.build_command().join(" ");
        line(report, "build command", printable(redacted(&command)));
    }
    if let Some(restart) = entry.restart {
        line(report, "restart", restart);
    }
    if let Some(window) = &entry.window {
        line(report, "window", window);
    }
    if let Some(rolling) = &entry.rolling {
        line(report, "rolling", rolling);
    }
    if let Some(probe) = entry.probe {
        line(report, "probe", probe);
    }
    if let Some(relax) = entry.relax {
        line(report, "relax", relax);
    }
}

fn previous_in_words(kept: &PreviousTree, state: &PreviousState) -> String {
    let state = match state {
        PreviousState::Kept(venv) => {
            let python = match venv {
                Ok(venv) => format!("Python {}", venv.site),
                Err(error) => error.to_string(),
            };
            let holds = if kept.holds_files { ", holds files that exist nowhere else" } else { "" };
            format!("{python}, since {:.0}{holds}", kept.at)
        }
        PreviousState::Gone => "gone".into(),
    };
    format!("{} ({state})", printable(kept.path()))
}

fn prepared_in_words(tree: &PreparedTree) -> String {
    let (path, python) = (printable(tree.path()), tree.built_for.target.minor);
    let size = tree.bytes.map(|bytes| format!(", {}", in_mebibytes(bytes))).unwrap_or_default();
    format!("{path} (Python {python}, since {:.0}{size})", tree.at)
}

fn rehearsal_in_words(found: &Rehearsal) -> String {
    let (python, at) = (&found.made_for.interpreter.version, found.at);
    match found.findings.as_slice() {
        [] => format!("ready for Python {python} ({at:.0})"),
        [one] => format!("not ready for Python {python} ({at:.0}): {one}"),
        [one, rest @ ..] => {
            format!("not ready for Python {python} ({at:.0}): {one}; and {} more", rest.len())
        }
    }
}
