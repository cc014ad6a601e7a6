//! The grid: who made a venv × how it hangs on its interpreter × what happens to that × how its package was installed.
//!
//! Every cell is a small venv. All cells of a change stand on one machine and go through one upgrade of apt's. Each has to be
//! repaired as `expect` says, and then its app and its manager have to say what they said before; what cannot be made
//! is in the table with its reason. `tests/run` tries a diagonal, `tests/run --grid` the whole.

pub(crate) mod cell;
pub(crate) mod expect;
mod judge;
mod table;

use std::sync::Mutex;

use anyhow::{Result, bail, ensure};

use crate::machine::{Machine, Said};
use crate::prepare::upgrade::Kind;
use crate::prepare::{Lab, copy_tree};
use cell::{Cell, Change};
use judge::{Asked, judge};
use table::{Outcome, table};

/// One trial: some cells, and what happens to their interpreter.
pub(crate) struct Grid {
    change: Change,
    extent: Extent,
}

/// How much of the grid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Extent {
    Diagonal,
    /// Hundreds of venvs; only where it is asked for.
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
    let of = |change| [Extent::Diagonal, Extent::Whole].map(|extent| Grid { change, extent });
    Change::ALL.into_iter().flat_map(of).collect()
}

/// What is not wheels of the sites comes from the grid's own index.
const PIP_CONFIGURATION: &str = "[global]\nno-index = true\nfind-links = /srv/grid/index/files\n";

const ROOTS_UV: &str = "
    install -m 755 /srv/grid/tools/bin/uv /usr/local/bin/uv
    mkdir /etc/uv
    printf 'no-index = true\nfind-links = [\"/srv/grid/index/files\"]\n' >/etc/uv/uv.toml";

/// As many venvs are asked at once as there are cores in the lab.
const ASKED_AT_ONCE: usize = 2;

impl Grid {
    /// The name of the trial, for filters.
    pub(crate) fn name(&self) -> String {
        format!("grid_{}::{}", self.change.name(), self.extent.name())
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.extent == Extent::Whole
    }

    pub(crate) fn upgrade(&self) -> Kind {
        match self.change {
            Change::Revision => Kind::TrixieRevision,
            Change::Patch => Kind::RealPatch,
            Change::Minor | Change::Removed => Kind::TrixieMinor,
        }
    }

    /// Makes the venvs, or finds them made.
    pub(crate) fn prepare(&self, lab: &Lab) -> Result<()> {
        lab.cells(self.extent.name(), &self.extent.cells()).map(drop)
    }

    pub(crate) fn boot(&self, lab: &Lab) -> Result<Machine> {
        let workshop = lab.workshop()?;
        let cells = lab.cells(self.extent.name(), &self.extent.cells())?;
        Machine::boot_with(lab, self.upgrade(), |overlay| {
            overlay.write("/etc/pip.conf", PIP_CONFIGURATION)?;
            overlay.write("/srv/ask.sh", include_str!("ask.sh"))?;
            copy_tree(&workshop, &overlay.path("/srv/grid"))?;
            copy_tree(&cells, &overlay.path("/srv/cells"))
        })
    }

    pub(crate) fn run(&self, machine: &Machine) -> Result<()> {
        let cells: Vec<Cell> = self.extent.cells();
        let possible: Vec<Cell> =
            cells.into_iter().filter(|cell| expect::impossible(*cell).is_none()).collect();
        machine.must("dpkg --install /package/venvguard_*.deb")?;
        if expect::roots_uv(self.change) {
            machine.must(ROOTS_UV)?;
        }
        for cell in &possible {
            machine.must(&format!(
                "venvguard register \"$(cat /srv/cells/{cell}/where)\" --name {cell}"
            ))?;
        }
        let before = ask_all(machine, &possible)?;
        self.happen(machine)?;
        let after = ask_all(machine, &possible)?;
        let (_, status) = machine.venvguard_json("status")?;
        let (_, history) = machine.venvguard_json("history")?;
        let (from, to) = (&machine.upgrade.about.from, &machine.upgrade.about.to);
        let outcomes: Vec<(Cell, Outcome)> = possible
            .iter()
            .zip(before.into_iter().zip(after))
            .map(|(cell, (before, after))| {
                let asked = Asked { before, after, status: &status, history: &history };
                (*cell, judge(*cell, self.change, &asked, from, to))
            })
            .collect();
        println!("{}", table(self.change, &outcomes));
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

    /// The upgrade itself.
    fn happen(&self, machine: &Machine) -> Result<()> {
        machine.must_upgrade_python()?;
        if self.change == Change::Removed {
            let said = machine.apt("autoremove")?;
            ensure!(said.code == 0, "autoremove: {said:?}");
            let package = format!("python{}-minimal", machine.upgrade.about.from.minor);
            ensure!(!machine.is_installed(&package)?, "{package} is still installed: {said:?}");
        }
        Ok(())
    }
}

/// What each cell's app and manager say.
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
