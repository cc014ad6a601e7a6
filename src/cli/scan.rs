//! `scan`.

use std::path::PathBuf;

use super::Exit;
use crate::guard::{Found, Guard};
use crate::host::file::printable;
use crate::report::{ScanJson, table};

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
    let rows: Vec<Vec<String>> = found.iter().map(row).collect();
    guard.report.data(table(&["PATH", "PYTHON", "INTERPRETER", "MADE BY", "GUARD"], &rows));
    if found.iter().any(|one| one.venv.base.is_debian && !one.is_registered) {
        guard.report.hint("`venvguard scan --register` puts them under guard");
    }
    Ok(Exit::Done)
}

fn row(Found { venv, is_registered }: &Found) -> Vec<String> {
    let guarded = match (venv.base.is_debian, is_registered) {
        (_, true) => "registered",
        (true, false) => "not registered",
        (false, false) => "not Debian's Python",
    };
    vec![
        printable(&venv.path),
        venv.site.to_string(),
        format!("{} {}", venv.base.link, printable(&venv.base.path)),
        venv.flavour.to_string(),
        guarded.to_string(),
    ]
}
