//! `history`.

use super::Exit;
use crate::guard::Guard;
use crate::host::file::printable;
use crate::report::HistoryJson;
use crate::store::History;

pub(super) fn history(guard: &Guard, json: bool) -> anyhow::Result<Exit> {
    let History { events, damaged } = guard.store.history()?;
    for line in damaged {
        guard.report.note(&format!("line {line} of the history cannot be read and is skipped"));
    }
    if json {
        guard.report.json(&HistoryJson::new(&events));
        return Ok(Exit::Done);
    }
    if events.is_empty() {
        guard.report.note("the history is empty");
    }
    for event in events {
        let mut lines = event.detail.lines().map(printable);
        let first = lines.next().unwrap_or_default();
        let (what, venv) = (printable(&event.what), printable(&event.venv));
        guard.report.data(format!("{}  {what:<11}  {venv}: {first}", event.at));
        for line in lines {
            guard.report.data(format!("{:36}{}", "", line.trim_start()));
        }
    }
    Ok(Exit::Done)
}
