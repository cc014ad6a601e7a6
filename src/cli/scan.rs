//! `scan`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Exit;
use super::register::report_not_exact;
use crate::guard::Guard;
use crate::host::file::printable;
use crate::host::user;
use crate::repair;
use crate::report::table;
use crate::store::RegistryEntry;
use crate::venv::{self, Venv};

#[derive(Serialize)]
struct ScanJson {
    schema_version: u64,
    venvs: Vec<FoundJson>,
}

#[derive(Serialize)]
struct FoundJson {
    path: String,
    flavour: venv::Flavour,
    link: venv::BaseLink,
    python: String,
    guardable: bool,
    registered: bool,
}

pub(super) fn scan(
    guard: &Guard,
    dirs: &[PathBuf],
    register: bool,
    json: bool,
) -> anyhow::Result<Exit> {
    if register {
        guard.require_root()?;
        guard.require_allowed()?;
    }
    let _lock = register.then(|| guard.lock()).transpose()?;
    let mut registry = guard.registry()?;
    let mut found = Vec::new();
    // An ordinary user's venvs are in their home.
    let home = guard.root.user().map(|uid| vec![user::own_home(&guard.root, uid)]);
    let dirs = home.as_deref().filter(|_| dirs.is_empty()).unwrap_or(dirs);
    for one in venv::scan(&guard.root, dirs).found {
        let Ok(venv) = venv::inspect(&guard.root, &one.path) else { continue };
        if repair::is_ours_to_keep(&venv.path) {
            continue;
        }
        let is_own = guard.root.user().is_none_or(|uid| uid == venv.uid);
        if register && venv.base.is_debian && is_own {
            match registry.add(&venv.path, None, guard.config.policy) {
                Ok(entry) => {
                    repair::keep_recipe(&guard.context(), entry, &venv)?;
                    report_not_exact(guard, entry, &venv);
                }
                Err(error) => guard
                    .report
                    .error(&format!("cannot register {}: {error}", printable(&venv.path))),
            }
        }
        found.push(venv);
    }
    let known: HashSet<&Path> = registry.venvs.iter().map(RegistryEntry::path).collect();
    let found: Vec<(Venv, bool)> = found
        .into_iter()
        .map(|venv| {
            let registered = known.contains(venv.path.as_path());
            (venv, registered)
        })
        .collect();
    if register {
        guard.store.save_registry(&registry)?;
        if guard.store.interpreters()?.is_none() {
            guard.store.save_interpreters(&guard.interpreters()?)?;
        }
    }
    print(guard, &found, json);
    Ok(Exit::Done)
}

/// What was found, and whether it is registered.
fn print(guard: &Guard, found: &[(Venv, bool)], json: bool) {
    if json {
        let venvs = found
            .iter()
            .map(|(venv, registered)| FoundJson {
                path: printable(&venv.path),
                flavour: venv.flavour,
                link: venv.base.link,
                python: venv.site.to_string(),
                guardable: venv.base.is_debian,
                registered: *registered,
            })
            .collect();
        guard.report.json(&ScanJson { schema_version: 1, venvs });
        return;
    }
    if found.is_empty() {
        guard.report.note("no venv was found");
        return;
    }
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|(venv, registered)| {
            let guarded = match (venv.base.is_debian, registered) {
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
        })
        .collect();
    guard.report.data(table(&["PATH", "PYTHON", "INTERPRETER", "MADE BY", "GUARD"], &rows));
    if found.iter().any(|(venv, registered)| venv.base.is_debian && !registered) {
        guard.report.hint("`venvguard scan --register` puts them under guard");
    }
}
