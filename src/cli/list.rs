//! `list` and `status`.

use std::collections::BTreeMap;

use super::{Exit, no_venv};
use crate::guard::{Details, Guard, Looked, Outlook};
use crate::host::file::printable;
use crate::plan::State;
use crate::python::Minor;
use crate::report::{ListJson, Report, Row, Tone, VenvJson, hold_in_words, in_mebibytes};

pub(super) fn list(guard: &Guard, json: bool) -> anyhow::Result<Exit> {
    let inventory = guard.inventory()?;
    if json {
        let details = guard.details()?;
        let venvs = inventory.entries();
        let venvs = venvs.map(|(entry, venv)| VenvJson::new(entry, details.of(venv))).collect();
        guard.report.json(&ListJson::new(venvs));
        return Ok(Exit::Done);
    }
    let rows: Vec<Row> = inventory
        .entries()
        .map(|(entry, venv)| {
            let about = match venv {
                Ok(venv) => [
                    venv.flavour.to_string(),
                    format!("{} {}", venv.base.link, printable(&venv.base.path)),
                    venv.site.to_string(),
                ],
                Err(_) => ["-", "-", "-"].map(String::from),
            };
            let [flavour, link, python] = about;
            Row::new([
                entry.name.clone(),
                python,
                link,
                flavour,
                entry.policy.to_string(),
                printable(entry.path()),
            ])
        })
        .collect();
    if rows.is_empty() {
        no_venv(guard);
        return Ok(Exit::Done);
    }
    let head = ["NAME", "PYTHON", "INTERPRETER", "CREATED BY", "POLICY", "PATH"];
    guard.report.table(&head, &rows);
    Ok(Exit::Done)
}

pub(super) fn status(guard: &Guard, wanted: &[String], json: bool) -> anyhow::Result<Exit> {
    let looked = guard.status(wanted)?;
    let worst = looked.iter().map(|one| one.health.state).max().unwrap_or(State::Healthy);
    if json {
        let details = guard.details()?;
        let venvs = looked.iter().map(|one| in_json(one, &details));
        guard.report.json(&ListJson::new(venvs.collect()));
    } else if looked.is_empty() {
        no_venv(guard);
    } else {
        let outlooks = guard.outlook(&looked)?;
        print_status(&guard.report, looked);
        for outlook in &outlooks {
            guard.report.note(&in_words(outlook));
        }
        match guard.held() {
            Ok(None) => {}
            Ok(Some(hold)) => guard.report.note(&hold_in_words(&hold)),
            Err(error) => guard.report.error(&error.to_string()),
        }
    }
    Ok(if worst == State::Healthy { Exit::Done } else { Exit::Attention })
}

/// A venv and its state, without its settings.
pub(super) fn in_json(looked: &Looked, details: &Details) -> VenvJson {
    let json = VenvJson::new(&looked.entry, details.of(&looked.venv))
        .with_usage(looked.services_found(), &looked.usage.processes)
        .with_health(looked.health.clone());
    match &looked.prepared {
        Ok(Some(tree)) => json.with_prepared(tree),
        _ => json,
    }
}

/// The venvs, those that need attention first, and a summary.
fn print_status(report: &Report, mut looked: Vec<Looked>) {
    looked.sort_by_key(|one| std::cmp::Reverse(one.health.state));
    let rows: Vec<Row> = looked.iter().map(status_row).collect();
    report.table(&["NAME", "STATE", "PYTHON", "BACKUPS", "PATH"], &rows);
    report.note(&summary(&looked));
    if let Some(waiting) = prepared_in_words(&looked) {
        report.note(&waiting);
    }
    let has = |states: &[State]| looked.iter().any(|one| states.contains(&one.health.state));
    if has(&[State::Missing, State::Broken]) {
        report.hint("`venvguard doctor` suggests fixes for missing and broken venvs");
    }
    if has(&[State::Unfinished]) {
        report.hint("`venvguard resume` finishes interrupted repairs");
    }
    if has(&[State::RestartNeeded]) {
        report.hint("`venvguard processes` lists the processes that run old code");
    }
    if has(&[State::Stranded, State::Orphaned, State::Stale, State::RestartNeeded]) {
        report.hint("`venvguard rebuild --all` repairs these; add `--dry-run` to see how");
    }
}

fn status_row(one: &Looked) -> Row {
    let Looked { entry, venv, health, .. } = one;
    let python = venv.as_ref().map_or("-".into(), |venv| venv.site.to_string());
    let tone = match health.state {
        State::Healthy => Tone::Good,
        State::CheckFails | State::RestartNeeded | State::Stale | State::Unfinished => {
            Tone::Attention
        }
        State::Orphaned | State::Stranded | State::Broken | State::Missing => Tone::Bad,
    };
    let backups = entry.previous_trees.len().to_string();
    Row::new([
        entry.name.clone(),
        health.state.to_string(),
        python,
        backups,
        printable(entry.path()),
    ])
    .toned(1, tone)
    .with_detail(health.reasons.first().map(String::as_str))
}

/// `prepared trees: 2 (312 MiB)`; without the size if that of one tree is unknown.
fn prepared_in_words(looked: &[Looked]) -> Option<String> {
    let trees = looked.iter().filter_map(|one| one.prepared.as_ref().ok()?.as_ref());
    let sizes: Vec<Option<u64>> = trees.map(|tree| tree.bytes).collect();
    let bytes: Option<u64> = sizes.iter().copied().sum();
    let size = bytes.map(|bytes| format!(" ({})", in_mebibytes(bytes))).unwrap_or_default();
    (!sizes.is_empty()).then(|| format!("prepared trees: {}{size}", sizes.len()))
}

/// `rehearsed with python3.13-minimal 3.13.5-2: 11 ready, 1 not ready (shop)`
fn in_words(outlook: &Outlook) -> String {
    let Outlook { interpreter, ready, not_ready } = outlook;
    let others = match not_ready.len() {
        0 => String::new(),
        count => format!(", {count} not ready ({})", not_ready.join(", ")),
    };
    format!("rehearsed with {} {}: {ready} ready{others}", interpreter.name, interpreter.version)
}

/// `12 venvs: 1 stale, 11 healthy, 1 pinned to 3.11`
fn summary(looked: &[Looked]) -> String {
    let mut states: Vec<(State, usize)> = Vec::new();
    for one in looked {
        match states.last_mut() {
            Some((state, count)) if *state == one.health.state => *count += 1,
            _ => states.push((one.health.state, 1)),
        }
    }
    let mut parts: Vec<String> =
        states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let mut pins: BTreeMap<Minor, usize> = BTreeMap::new();
    for pin in looked.iter().filter_map(|one| one.entry.pin.as_ref()) {
        *pins.entry(pin.to).or_default() += 1;
    }
    parts.extend(pins.iter().map(|(minor, count)| format!("{count} pinned to {minor}")));
    let venvs = if looked.len() == 1 { "venv" } else { "venvs" };
    format!("{} {venvs}: {}", looked.len(), parts.join(", "))
}
