//! Whether a cell came through as it had to.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::cell::{Cell, Change};
use super::expect::{Expected, Says, expected, flavour_after, says};
use super::named;
use super::table::Outcome;
use crate::cases::decision::assert_same;
use crate::machine::Said;
use crate::prepare::upgrade::Python;

/// All that is known of a cell.
pub(super) struct Asked<'a> {
    pub(super) before: Said,
    pub(super) after: Said,
    /// What `plan` said before the upgrade.
    pub(super) plan: &'a Value,
    pub(super) status: &'a Value,
    pub(super) history: &'a Value,
}

pub(super) fn judge(
    cell: Cell,
    change: Change,
    asked: &Asked<'_>,
    from: &Python,
    to: &Python,
) -> Outcome {
    tried(cell, change, asked, from, to).map_err(|error| format!("{error:#}"))
}

fn tried(cell: Cell, change: Change, asked: &Asked<'_>, from: &Python, to: &Python) -> Result<()> {
    let expected = expected(cell, change);
    let Asked { before, after, plan, status, history } = asked;
    ensure!(before.code == 0, "it did not work to begin with: {}", before.text);
    let name = cell.to_string();

    let done: Vec<&str> = named(&history["events"], "venv", &name)
        .into_iter()
        .filter_map(|event| event["what"].as_str())
        .collect();
    let wanted: &[&str] = match expected {
        Expected::Rebuilt => &["rebuilt"],
        Expected::Refreshed => &["refreshed"],
        Expected::Untouched | Expected::Impossible(_) => &[],
    };
    ensure!(done == wanted, "it should be {}; done was {done:?}", expected.word());

    let planned = *named(&plan["venvs"], "name", &name).first().context("plan names it not")?;
    // What an upgrade does not touch may be moved by the removal after it.
    let serves = planned["services"].as_array().is_some_and(|services| !services.is_empty());
    if planned["remedy"] != "none" && (serves || planned["remedy"] != "restart") {
        let events = named(&history["events"], "venv", &name);
        assert_same(planned, &events.first().context("nothing was done")?["decision"])?;
    }

    let venv = *named(&status["venvs"], "name", &name).first().context("status names it not")?;
    // A copied interpreter that was left alone is of the minor version that was left alone.
    let stays = from.minor != to.minor && expected == Expected::Untouched;
    let python = if stays { from } else { to };
    for (key, is, should) in [
        ("state", &venv["state"], "healthy"),
        ("flavour", &venv["flavour"], flavour_after(cell, change).name()),
        ("link", &venv["interpreter"]["link"], cell.link.name()),
        ("version", &venv["interpreter"]["version"], python.upstream.as_str()),
    ] {
        ensure!(is == should, "its {key} is {is}, not {should}: {venv}");
    }

    ensure!(after.code == 0, "it does not work: {}", after.text);
    let should = asked.before.text.replacen(
        &format!(" on {}\n", from.minor),
        &format!(" on {}\n", python.minor),
        1,
    );
    let compared = || format!("it should say:\n{should}\nand says:\n{}", after.text);
    match says(cell, change) {
        Says::Same => ensure!(after.text == should, "{}", compared()),
        Says::Otherwise(reason) => {
            let (app, manager) = parts(&after.text);
            let (app_should, manager_should) = parts(&should);
            ensure!(app == app_should, "{}", compared());
            ensure!(manager != manager_should, "its manager is content, although {reason}");
        }
    }
    Ok(())
}

/// What the app and pip say, and what the manager says.
fn parts(text: &str) -> (&str, &str) {
    text.split_at(text.find("\n## ").unwrap_or(text.len()))
}
