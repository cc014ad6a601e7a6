//! Real distributions in rehearsals: old ones that do not work on the next Python, each of which must be reported with
//! the reason, and popular ones that do, about which nothing may be reported. `tests/run --rehearse` runs it.

pub(crate) mod table;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::guard::named;
use crate::machine::Machine;
use crate::prepare::distributions::PLACE;
use crate::prepare::upgrade::Kind;
use crate::prepare::{Lab, copy_tree};
use crate::trial::Special;
use table::{Expected, Planned};

/// The rehearsal of one upgrade.
#[derive(Clone, Copy)]
pub(crate) struct Distributions {
    upgrade: Kind,
}

pub(crate) fn all() -> Vec<Distributions> {
    [Kind::BookwormMinor, Kind::TrixieMinor].map(|upgrade| Distributions { upgrade }).to_vec()
}

impl Distributions {
    fn venvs(self) -> Vec<Planned> {
        let old = match self.upgrade {
            Kind::BookwormMinor => &table::OLD_ON_3_13[..],
            _ => &table::OLD_ON_3_14[..],
        };
        old.iter().chain(&[table::HEALTHY]).copied().collect()
    }
}

impl Special for Distributions {
    fn name(&self) -> String {
        format!("rehearsal_of_distributions::{}", self.upgrade.suite().name())
    }

    fn is_whole(&self) -> bool {
        true
    }

    fn upgrade(&self) -> Kind {
        self.upgrade
    }

    fn room(&self) -> u64 {
        8 << 10
    }

    fn prepare(&self, lab: &Lab) -> Result<()> {
        lab.many_venvs(self.upgrade, &self.venvs()).map(drop)
    }

    fn boot(&self, lab: &Lab) -> Result<Machine> {
        let wheels = lab.many_wheels(self.upgrade, &self.venvs())?;
        let venvs = lab.many_venvs(self.upgrade, &self.venvs())?;
        let dirs = vec![(wheels, "/wheelhouse")];
        Machine::boot_with(lab, self.upgrade, self.room(), dirs, |overlay| {
            copy_tree(&venvs, &overlay.path(PLACE))
        })
    }

    fn run(&self, machine: &Machine) -> Result<()> {
        machine.must("dpkg --install /package/venvguard_*.deb")?;
        let venvs = self.venvs();
        for Planned { name, .. } in &venvs {
            machine.must(&format!("venvguard register {PLACE}/{name} --name {name}"))?;
        }
        let (code, said) = machine.venvguard_json("rehearse")?;
        ensure!(code == 3, "exit {code}: {said}");
        let mut wrong = Vec::new();
        for planned in &venvs {
            let result = named(&said, planned.name).and_then(|found| judge(planned, found));
            match result {
                Ok(told) => println!("{}: {told}", planned.name),
                Err(error) => wrong.push(format!("{}: {error:#}", planned.name)),
            }
        }
        if !wrong.is_empty() {
            bail!("{} of {} venvs\n{}", wrong.len(), venvs.len(), wrong.join("\n"));
        }
        Ok(())
    }
}

/// What was found about a venv, if it is as expected.
fn judge(planned: &Planned, found: &Value) -> Result<String> {
    let findings = found["findings"].as_array().context("no findings")?;
    let Some(Expected { distribution, kind, because, works_from }) = planned.expected else {
        ensure!(found["ready"] == true && found["proof"] == "rehearsed", "a false alarm: {found}");
        return Ok("ready".to_owned());
    };
    ensure!(found["ready"] == false && found["proof"] == "none", "nothing was found: {found}");
    let is_it = |finding: &&Value| {
        finding["distribution"] == distribution
            && finding["kind"] == kind
            && finding["detail"].as_str().is_some_and(|detail| detail.contains(because))
            && works_from.is_none_or(|version| finding["works_from"] == version)
            && finding["version"].is_string()
    };
    let one = findings.iter().find(is_it);
    let one = one.with_context(|| format!("no {kind} of {distribution} ({because}): {found}"))?;
    // Every other finding is about a distribution, too.
    let is_named = |finding: &Value| finding["distribution"].is_string();
    ensure!(findings.iter().all(is_named), "a finding about nothing: {found}");
    Ok(format!("{kind}: {}", one["detail"].as_str().unwrap_or_default().replace('\n', " ")))
}
