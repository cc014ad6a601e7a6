//! Whether a cell came through as expected.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::cell::{Cell, Change, Flavour};
use super::expect::{Expected, Says, expected, flavour_after, says};
use super::named;
use super::table::Outcome;
use crate::cases::decision::assert_same;
use crate::machine::Said;
use crate::prepare::upgrade::Python;

/// Everything known about a cell.
pub(super) struct Asked<'a> {
    pub(super) before: Said,
    pub(super) after: Said,
    /// The output of `plan` before the upgrade.
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
    ensure!(before.code == 0, "it did not work before the upgrade: {}", before.text);
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
    ensure!(done == wanted, "it should be {}; the history has {done:?}", expected.word());

    let planned = *named(&plan["venvs"], "name", &name).first().context("plan does not name it")?;
    // The removal may move a venv that the upgrade before it did not touch.
    let serves = planned["services"].as_array().is_some_and(|services| !services.is_empty());
    if planned["remedy"] != "none" && (serves || planned["remedy"] != "restart") {
        let events = named(&history["events"], "venv", &name);
        assert_same(planned, &events.first().context("the history has no event")?["decision"])?;
    }

    let venv =
        *named(&status["venvs"], "name", &name).first().context("status does not name it")?;
    // An untouched venv stays on the old minor version.
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
    let should = if cell.flavour == Flavour::Pipx && expected == Expected::Rebuilt {
        let shown = |python: &Python| format!("using Python {}", python.upstream);
        should.replace(&shown(from), &shown(python))
    } else {
        should
    };
    let compared = || format!("expected:\n{should}\nfound:\n{}", after.text);
    match says(cell, change) {
        Says::Same => ensure!(after.text == should, "{}", compared()),
        Says::Otherwise(reason) => {
            let (app, manager) = parts(&after.text);
            let (app_should, manager_should) = parts(&should);
            ensure!(app == app_should, "{}", compared());
            ensure!(
                manager != manager_should,
                "its manager says the same as before, although {reason}"
            );
        }
    }
    Ok(())
}

/// Splits an answer: the output of the app and pip, and the output of the manager.
fn parts(text: &str) -> (&str, &str) {
    text.split_at(text.find("\n## ").unwrap_or(text.len()))
}
