//! `history`.

use super::Exit;
use crate::guard::Guard;
use crate::report::HistoryJson;

pub(super) fn history(guard: &Guard, json: bool) -> anyhow::Result<Exit> {
    let events = guard.store.history()?;
    if json {
        guard.report.json(&HistoryJson::new(&events));
        return Ok(Exit::Done);
    }
    if events.is_empty() {
        guard.report.note("nothing has been done yet");
    }
    for event in events {
        let mut lines = event.detail.lines();
        let first = lines.next().unwrap_or_default();
        guard.report.data(format!("{}  {:<11}  {}: {first}", event.at, event.what, event.venv));
        for line in lines {
            guard.report.data(format!("{:36}{}", "", line.trim_start()));
        }
    }
    Ok(Exit::Done)
}
