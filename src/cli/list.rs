//! `list`, `show` and `status`.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::io;
use std::time::Duration;

use super::{Exit, no_venv};
use crate::guard::{Guard, chosen};
use crate::host::file::printable;
use crate::host::{redacted, tree, user};
use crate::inventory::{Inventory, healths};
use crate::plan::{Health, State};
use crate::python::{Interpreters, Version};
use crate::repair;
use crate::report::{ListJson, VenvJson, table};
use crate::service::{Processes, ServiceMap, VenvUsage};
use crate::store::{PreviousTree, RegistryEntry};
use crate::venv::{self, Additions, BaseLink, NotAVenv, Venv};

type Looked<'a> = (&'a RegistryEntry, &'a Result<Venv, NotAVenv>);

pub(super) fn list(guard: &Guard, json: bool) -> anyhow::Result<Exit> {
    let inventory = guard.inventory()?;
    let looked: Vec<Looked> = inventory.entries().collect();
    if json {
        let facts = Facts::new(guard)?;
        let venvs = looked.iter().map(|one| facts.in_json(one)).collect();
        guard.report.json(&ListJson::new(venvs));
        return Ok(Exit::Done);
    }
    if looked.is_empty() {
        no_venv(guard);
        return Ok(Exit::Done);
    }
    let rows: Vec<Vec<String>> = looked
        .iter()
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
    guard
        .report
        .data(table(&["NAME", "PYTHON", "INTERPRETER", "MADE BY", "POLICY", "PATH"], &rows));
    Ok(Exit::Done)
}

pub(super) fn status(guard: &Guard, wanted: &[String], json: bool) -> anyhow::Result<Exit> {
    let inventory = guard.inventory()?;
    // Whoever looks at the venvs as who keeps them sees to it that they can be made again.
    if guard.may_change() && guard.store.is_used() {
        if let Ok(_lock) = guard.store.lock(Duration::ZERO) {
            let venvs = inventory.present();
            repair::refresh_recipes(&guard.context(), venvs);
        }
    }
    let ids: Option<HashSet<&str>> = if wanted.is_empty() {
        None
    } else {
        Some(chosen(&inventory.registry, wanted)?.iter().map(|entry| entry.id.as_str()).collect())
    };
    let looked: Vec<(Looked, Health)> = with_health(guard, &inventory)?
        .into_iter()
        .filter(|((entry, _), _)| ids.as_ref().is_none_or(|ids| ids.contains(entry.id.as_str())))
        .collect();
    let worst = looked.iter().map(|(_, health)| health.state).max().unwrap_or(State::Healthy);
    if json {
        let facts = Facts::new(guard)?;
        let venvs = looked
            .into_iter()
            .map(|(one, health)| facts.in_json(&one).with_health(health))
            .collect();
        guard.report.json(&ListJson::new(venvs));
    } else if looked.is_empty() {
        no_venv(guard);
    } else {
        let rows: Vec<Vec<String>> = looked
            .iter()
            .map(|((entry, venv), health)| {
                let python = venv.as_ref().map_or("-".into(), |venv| venv.site.to_string());
                let reason = health.reasons.first().cloned().unwrap_or_default();
                vec![
                    entry.name.clone(),
                    health.state.to_string(),
                    python,
                    entry.previous_trees.len().to_string(),
                    printable(entry.path()),
                    reason,
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

/// Every registered venv and its state.
fn with_health<'a>(
    guard: &Guard,
    inventory: &'a Inventory,
) -> anyhow::Result<Vec<(Looked<'a>, Health)>> {
    let healths = healths(&guard.context(), inventory, &guard.interpreters()?);
    Ok(inventory.entries().zip(healths).collect())
}

pub(super) fn show(guard: &Guard, wanted: &[String], json: bool) -> anyhow::Result<Exit> {
    let inventory = guard.inventory()?;
    let ids: HashSet<&str> =
        chosen(&inventory.registry, wanted)?.iter().map(|entry| entry.id.as_str()).collect();
    let looked: Vec<(Looked, Health)> = with_health(guard, &inventory)?
        .into_iter()
        .filter(|((entry, _), _)| ids.contains(entry.id.as_str()))
        .collect();
    let facts = Facts::new(guard)?;
    if json {
        let venvs = looked
            .into_iter()
            .map(|(one, health)| {
                let json = facts.in_json(&one).with_health(health);
                let json = match &one.1 {
                    Ok(venv) => {
                        json.with_not_exact(repair::not_exact(&guard.context(), one.0, venv))
                    }
                    Err(_) => json,
                };
                match additions(guard, &one) {
                    Some(Ok(found)) => json.with_additions(&found),
                    _ => json,
                }
            })
            .collect();
        guard.report.json(&ListJson::new(venvs));
        return Ok(Exit::Done);
    }
    let processes = Processes::look(&guard.root);
    let paths: Vec<_> = looked.iter().map(|((entry, _), _)| entry.path().to_path_buf()).collect();
    let map = ServiceMap::build(&guard.root, paths, &processes);
    for (one, health) in &looked {
        print(&facts, one, health, map.of(one.0.path()));
    }
    Ok(Exit::Done)
}

/// What is known of one venv, a line for each fact.
fn print(facts: &Facts, (entry, venv): &Looked, health: &Health, usage: &VenvUsage) {
    let guard = facts.guard;
    let line = |what: &str, value: &str| guard.report.data(format!("{what:>14}: {value}"));
    line("name", &entry.name);
    line("id", &entry.id);
    line("path", &printable(entry.path()));
    line("state", &health.state.to_string());
    for reason in &health.reasons {
        line("", reason);
    }
    line("policy", &entry.policy.to_string());
    if let Some(file) = entry.declared_in() {
        line("declared in", &printable(file));
    }
    if let Ok(venv) = venv {
        line("made by", &venv.flavour.to_string());
        line("interpreter", &format!("{} ({})", printable(&venv.base.path), venv.base.link));
        line("python", &venv.site.to_string());
        line("owner", &facts.owner(venv));
        if let Ok(distributions) = venv::distributions(&guard.root.at(venv.site_packages())) {
            line("distributions", &distributions.len().to_string());
        }
        for reason in repair::not_exact(&guard.context(), entry, venv) {
            line("not exact", &reason);
        }
    }
    for service in &entry.services {
        line("service", &service.to_string());
    }
    for service in usage.services.iter().filter(|one| !entry.services.contains(one)) {
        line("service found", &service.to_string());
    }
    print_settings(guard, entry);
    for previous in entry.previous_trees.latest_first() {
        line("previous environment", &previous_tree_in_words(guard, previous));
    }
    match guard.store.prepared(&entry.id) {
        Ok(Some(tree)) => {
            let (path, python) = (printable(tree.path()), tree.built_for.target.minor);
            line("prepared", &format!("{path} (Python {python}, since {:.0})", tree.at));
        }
        Ok(None) => {}
        Err(error) => line("prepared", &format!("not known: {error}")),
    }
    match additions(guard, &(entry, venv)) {
        Some(Ok(found)) => guard.report.additions(&found),
        Some(Err(error)) => line("foreign files", &format!("not known: {error}")),
        None => {}
    }
    guard.report.data("");
}

/// What was said at registration.
fn print_settings(guard: &Guard, entry: &RegistryEntry) {
    let line = |what: &str, value: &str| guard.report.data(format!("{what:>14}: {value}"));
    if !entry.check.is_empty() {
        line("check", &printable(redacted(&entry.check.join(" "))));
    }
    if let Some(path) = entry.requirements() {
        line("requirements", &printable(path));
    }
    if let Some(path) = entry.lock() {
        line("lock", &printable(path));
    }
    if let Some(relax) = entry.relax {
        line("relax", &relax.to_string());
    }
}

/// The venv's own files, where it is one.
fn additions(guard: &Guard, (_, venv): &Looked) -> Option<io::Result<Additions>> {
    venv.as_ref().ok().map(|venv| repair::additions(&guard.context(), venv))
}

fn previous_tree_in_words(guard: &Guard, kept: &PreviousTree) -> String {
    let state = if tree::identity(&guard.root.at(kept.path())) == Some(kept.identity) {
        let python = venv::inspect(&guard.root, kept.path())
            .map_or_else(|error| error.to_string(), |venv| format!("Python {}", venv.site));
        let holds = if kept.holds_files { ", holds files that are nowhere else" } else { "" };
        format!("{python}, since {:.0}{holds}", kept.at)
    } else {
        "not there any more".into()
    };
    format!("{} ({state})", printable(kept.path()))
}

/// What more has to be known to show a venv.
struct Facts<'a> {
    guard: &'a Guard,
    now: Interpreters,
    /// Names of owners, each looked up once.
    owners: RefCell<HashMap<u32, String>>,
}

impl<'a> Facts<'a> {
    fn new(guard: &'a Guard) -> anyhow::Result<Self> {
        Ok(Self { guard, now: guard.interpreters()?, owners: RefCell::default() })
    }

    fn owner(&self, venv: &Venv) -> String {
        let mut owners = self.owners.borrow_mut();
        owners.entry(venv.uid).or_insert_with(|| user::name(&self.guard.root, venv.uid)).clone()
    }

    /// The version of the interpreter that runs when the venv is used now.
    fn version(&self, venv: &Venv) -> Option<Version> {
        let linked = match venv.base.link {
            BaseLink::Followed => self.now.default,
            BaseLink::Pinned => venv.base.minor,
            BaseLink::Copied | BaseLink::Dangling => None,
        };
        let interpreter = linked.and_then(|minor| self.now.get(minor));
        interpreter.map(|one| one.version.clone()).or_else(|| venv.base.version.clone())
    }

    fn in_json(&self, (entry, venv): &Looked) -> VenvJson {
        let known = venv.as_ref().ok();
        VenvJson::new(entry, known.map(|venv| (venv, self.owner(venv), self.version(venv))))
    }
}
