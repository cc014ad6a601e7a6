//! `processes`.

use serde::Serialize;

use super::Exit;
use crate::guard::Guard;
use crate::inventory::StaleProcess;
use crate::report::{Row, Tone};

/// What `processes --json` prints.
#[derive(Serialize)]
struct ProcessesJson<'a> {
    schema_version: u64,
    processes: &'a [StaleProcess],
    skipped: usize,
}

pub(super) fn processes(guard: &Guard, json: bool) -> anyhow::Result<Exit> {
    let stale = guard.stale_processes()?;
    if json {
        let (processes, skipped) = (&stale.found[..], stale.skipped);
        guard.report.json(&ProcessesJson { schema_version: 1, processes, skipped });
    } else {
        if !stale.found.is_empty() {
            let rows: Vec<Row> = stale.found.iter().map(row).collect();
            guard.report.table(&["PID", "USER", "VENV", "SERVICE", "SINCE"], &rows);
        }
        match stale.found.len() {
            0 => guard.report.note("no process runs code that was replaced"),
            _ => guard.report.hint(
                "`venvguard restart --all` restarts the services of venvs; restart the others yourself",
            ),
        }
        match stale.skipped {
            0 => {}
            1 => guard.report.note("cannot inspect 1 process"),
            count => guard.report.note(&format!("cannot inspect {count} processes")),
        }
    }
    Ok(if stale.found.is_empty() { Exit::Done } else { Exit::Attention })
}

fn row(one: &StaleProcess) -> Row {
    let venvs = if one.venvs.is_empty() { "-".to_string() } else { one.venvs.join(", ") };
    let service = one.service.as_ref().map(ToString::to_string);
    let service = service.or_else(|| one.unit.clone()).unwrap_or_else(|| "-".to_string());
    let since = format!("{:.0}", one.since);
    Row::new([one.pid.to_string(), one.user.clone(), venvs, service, since])
        .toned(0, Tone::Attention)
        .with_detail(Some(&format!("{}: {}", one.command, one.reason)))
}
