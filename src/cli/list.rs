//! `list` and `status`.

use super::{Exit, no_venv};
use crate::guard::Guard;
use crate::host::file::printable;
use crate::plan::State;
use crate::report::{ListJson, VenvJson, table};

pub(super) fn list(guard: &Guard, json: bool) -> anyhow::Result<Exit> {
    let inventory = guard.inventory()?;
    if json {
        let details = guard.details()?;
        let venvs = inventory.entries();
        let venvs = venvs.map(|(entry, venv)| VenvJson::new(entry, details.of(venv))).collect();
        guard.report.json(&ListJson::new(venvs));
        return Ok(Exit::Done);
    }
    let rows: Vec<Vec<String>> = inventory
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
            vec![
                entry.name.clone(),
                python,
                link,
                flavour,
                entry.policy.to_string(),
                printable(entry.path()),
            ]
        })
        .collect();
    if rows.is_empty() {
        no_venv(guard);
        return Ok(Exit::Done);
    }
    guard
        .report
        .data(table(&["NAME", "PYTHON", "INTERPRETER", "MADE BY", "POLICY", "PATH"], &rows));
    Ok(Exit::Done)
}

pub(super) fn status(guard: &Guard, wanted: &[String], json: bool) -> anyhow::Result<Exit> {
    let looked = guard.status(wanted)?;
    let worst = looked.iter().map(|one| one.health.state).max().unwrap_or(State::Healthy);
    if json {
        let details = guard.details()?;
        let venvs = looked
            .into_iter()
            .map(|one| VenvJson::new(&one.entry, details.of(&one.venv)).with_health(one.health));
        guard.report.json(&ListJson::new(venvs.collect()));
    } else if looked.is_empty() {
        no_venv(guard);
    } else {
        let rows: Vec<Vec<String>> = looked
            .iter()
            .map(|one| {
                let python = one.venv.as_ref().map_or("-".into(), |venv| venv.site.to_string());
                vec![
                    one.entry.name.clone(),
                    one.health.state.to_string(),
                    python,
                    one.entry.previous_trees.len().to_string(),
                    printable(one.entry.path()),
                    one.health.reasons.first().cloned().unwrap_or_default(),
                ]
            })
            .collect();
        guard.report.data(table(&["NAME", "STATE", "PYTHON", "KEPT", "PATH", ""], &rows));
        if worst != State::Healthy {
            guard.report.hint("`venvguard rebuild --all --dry-run` says what would mend this");
        }
    }
    Ok(if worst == State::Healthy { Exit::Done } else { Exit::Attention })
}
