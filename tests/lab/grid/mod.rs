//! The grid: the tool that created a venv, how the venv reaches its interpreter, how its package was installed, and
//! what happens to the interpreter.
//!
//! Every cell is a small venv. All cells of a change share one machine and go through one upgrade by apt. Each must be
//! repaired as `expect` says, and then its app and its manager must say the same as before; the table gives the reason
//! for each cell that is impossible. `tests/run` tries a diagonal, `tests/run --grid` the whole grid and a row of odd
//! places.

pub(crate) mod cell;
pub(crate) mod expect;
mod judge;
mod odd;
mod table;

use std::sync::Mutex;

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use crate::machine::{Machine, Said};
use crate::overlay::ROOM;
use crate::prepare::upgrade::Kind;
use crate::prepare::{Lab, copy_tree};
use crate::trial::Special;
use cell::{Cell, Change};
use judge::{Asked, judge};
use table::{Outcome, table};

/// One trial: a machine, and one upgrade for all its venvs.
#[derive(Clone, Copy)]
pub(crate) enum Grid {
    /// Some cells, and the change of their interpreter.
    Cells(Change, Extent),
    OddPlaces,
}

/// How much of the grid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Extent {
    Diagonal,
    /// Hundreds of venvs; runs only on request.
    Whole,
}

impl Extent {
    fn name(self) -> &'static str {
        match self {
            Self::Diagonal => "diagonal",
            Self::Whole => "whole",
        }
    }

    fn cells(self) -> Vec<Cell> {
        match self {
            Self::Diagonal => cell::diagonal(),
            Self::Whole => cell::all(),
        }
    }
}

/// Every trial of the grid.
pub(crate) fn all() -> Vec<Grid> {
    let of = |change| [Extent::Diagonal, Extent::Whole].map(|extent| Grid::Cells(change, extent));
    Change::ALL.into_iter().flat_map(of).chain([Grid::OddPlaces]).collect()
}

/// Packages come from the grid's own index.
const PIP_CONFIGURATION: &str = "[global]\nno-index = true\nfind-links = /srv/grid/index/files\n";

const UV_CONFIGURATION: &str = "no-index = true\nfind-links = [\"/srv/grid/index/files\"]\n";

const ROOTS_UV: &str = "install -m 755 /srv/grid/tools/bin/uv /usr/local/bin/uv";
const OWNERS_UV: &str =
    "su app -c 'mkdir -p ~/.local/bin && ln -s /srv/grid/tools/bin/uv ~/.local/bin/'";

/// One venv at a time for each of the lab's cores.
const ASKED_AT_ONCE: usize = 2;

impl Special for Grid {
    fn name(&self) -> String {
        match *self {
            Self::Cells(change, extent) => format!("grid_{}::{}", change.name(), extent.name()),
            Self::OddPlaces => "grid_odd_places".to_owned(),
        }
    }

    fn is_whole(&self) -> bool {
        matches!(*self, Self::Cells(_, Extent::Whole) | Self::OddPlaces)
    }

    fn upgrade(&self) -> Kind {
        match *self {
            Self::Cells(Change::Revision, _) => Kind::TrixieRevision,
            Self::Cells(Change::Patch, _) => Kind::RealPatch,
            Self::Cells(Change::Minor | Change::Removed, _) | Self::OddPlaces => Kind::TrixieMinor,
        }
    }

    fn room(&self) -> u64 {
        // A rebuild keeps the previous environment of each venv.
        if self.is_whole() { 6 << 10 } else { ROOM }
    }

    fn prepare(&self, lab: &Lab) -> Result<()> {
        match *self {
            Self::Cells(_, extent) => lab.cells(extent.name(), &extent.cells()).map(drop),
            Self::OddPlaces => lab.workshop().map(drop),
        }
    }

    fn boot(&self, lab: &Lab) -> Result<Machine> {
        let workshop = lab.workshop()?;
        Machine::boot_with(lab, self.upgrade(), self.room(), Vec::new(), |overlay| {
            overlay.write("/etc/pip.conf", PIP_CONFIGURATION)?;
            copy_tree(&workshop, &overlay.path("/srv/grid"))?;
            match *self {
                Self::Cells(_, extent) => {
                    overlay.write("/srv/ask.sh", include_str!("ask.sh"))?;
                    let cells = lab.cells(extent.name(), &extent.cells())?;
                    copy_tree(&cells, &overlay.path("/srv/cells"))
                }
                Self::OddPlaces => odd::lay(overlay),
            }
        })
    }

    fn run(&self, machine: &Machine) -> Result<()> {
        machine.must("dpkg --install /package/venvguard_*.deb")?;
        match *self {
            Self::Cells(change, extent) => run(machine, change, &extent.cells()),
            Self::OddPlaces => odd::run(machine),
        }
    }
}

/// Makes the change, and judges what becomes of the cells.
fn run(machine: &Machine, change: Change, cells: &[Cell]) -> Result<()> {
    let mut possible = cells.to_vec();
    possible.retain(|cell| expect::impossible(*cell).is_none());
    machine.must("mkdir /etc/uv")?;
    machine.write("/etc/uv/uv.toml", UV_CONFIGURATION)?;
    machine.must(if expect::roots_uv(change) { ROOTS_UV } else { OWNERS_UV })?;
    for cell in &possible {
        machine.must(&format!(
            "venvguard register \"$(cat /srv/cells/{cell}/where)\" --name {cell}"
        ))?;
    }
    let before = ask_all(machine, &possible)?;
    let (_, plan) = machine.venvguard_json("plan")?;
    happen(machine, change)?;
    let after = ask_all(machine, &possible)?;
    let (_, status) = machine.venvguard_json("status")?;
    let (_, history) = machine.venvguard_json("history")?;
    let (from, to) = (&machine.upgrade.about.from, &machine.upgrade.about.to);
    let outcomes: Vec<(Cell, Outcome)> = possible
        .iter()
        .zip(before.into_iter().zip(after))
        .map(|(cell, (before, after))| {
            let asked = Asked { before, after, plan: &plan, status: &status, history: &history };
            (*cell, judge(*cell, change, &asked, from, to))
        })
        .collect();
    println!("{}", table(change, &outcomes));
    let bad: Vec<String> = outcomes
        .into_iter()
        .filter_map(|(cell, outcome)| Some(format!("{cell}: {}", outcome.err()?)))
        .collect();
    if !bad.is_empty() {
        bail!("{} cells failed\n{}", bad.len(), bad.join("\n"));
    }
    let again = machine.venvguard("rebuild --all --dry-run")?;
    ensure!(again.text.contains("nothing to do"), "something is left to do: {again:?}");
    Ok(())
}

/// Makes the change itself.
fn happen(machine: &Machine, change: Change) -> Result<()> {
    machine.must_upgrade_python()?;
    if change == Change::Removed {
        let said = machine.apt("autoremove")?;
        ensure!(said.code == 0, "autoremove: {said:?}");
        let package = format!("python{}-minimal", machine.upgrade.about.from.minor);
        ensure!(!machine.is_installed(&package)?, "{package} is still installed: {said:?}");
    }
    Ok(())
}

/// The entries with this name in a list of venvguard's JSON.
fn named<'a>(list: &'a Value, key: &str, name: &str) -> Vec<&'a Value> {
    list.as_array().into_iter().flatten().filter(|one| one[key] == name).collect()
}

/// The answers of each cell's app and manager.
fn ask_all(machine: &Machine, cells: &[Cell]) -> Result<Vec<Said>> {
    let answers: Mutex<Vec<Option<Result<Said>>>> =
        Mutex::new(cells.iter().map(|_| None).collect());
    let next = Mutex::new(cells.iter().enumerate());
    std::thread::scope(|scope| {
        for _ in 0..ASKED_AT_ONCE {
            scope.spawn(|| {
                let take = || next.lock().ok()?.next();
                while let Some((place, cell)) = take() {
                    let said = machine.run(&format!("su app -c 'exec sh -eu /srv/ask.sh {cell}'"));
                    if let Ok(mut answers) = answers.lock() {
                        answers[place] = Some(said);
                    }
                }
            });
        }
    });
    let answers = answers.into_inner().map_err(|_| anyhow::anyhow!("asking panicked"))?;
    answers.into_iter().map(|said| said.unwrap_or_else(|| bail!("a cell was not asked"))).collect()
}
