//! `scan`.

use std::path::PathBuf;

use super::Exit;
use crate::guard::{Found, Guard};
use crate::host::file::printable;
use crate::report::{Row, ScanJson};

pub(super) fn scan(
    guard: &Guard,
    dirs: &[PathBuf],
    register: bool,
    json: bool,
) -> anyhow::Result<Exit> {
    let found = if register { guard.scan_and_register(dirs)? } else { guard.scan(dirs)? };
    if json {
        guard.report.json(&ScanJson::new(found.iter().map(|one| (&one.venv, one.is_registered))));
        return Ok(Exit::Done);
    }
    if found.is_empty() {
        guard.report.note("no venv was found");
        return Ok(Exit::Done);
    }
    let rows: Vec<Row> = found.iter().map(row).collect();
    guard.report.table(&["PATH", "PYTHON", "INTERPRETER", "CREATED BY", "GUARD"], &rows);
    if found.iter().any(|one| one.venv.base.is_debian && !one.is_registered) {
        guard.report.hint("`venvguard scan --register` registers them");
    }
    Ok(Exit::Done)
}

fn row(Found { venv, is_registered }: &Found) -> Row {
    let guarded = match (venv.base.is_debian, is_registered) {
        (_, true) => "registered",
        (true, false) => "not registered",
        (false, false) => "not a Debian Python",
    };
    Row::new([
        printable(&venv.path),
        venv.site.to_string(),
        format!("{} {}", venv.base.link, printable(&venv.base.path)),
        venv.flavour.to_string(),
        guarded.to_string(),
    ])
}
