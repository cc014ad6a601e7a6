//! A live venv: a service keeps its data inside its venv, and writes without a pause while venvguard works on the venv.
//! Afterwards, acknowledged data must be in the venv, deleted data must stay deleted, and the service must continue to
//! write.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Case;
use super::minor::WHEEL;
use crate::machine::{Machine, wait_for};
use crate::prepare::upgrade::Kind;
use crate::storm::{Command, Fault, is_long};

pub(super) fn cases() -> Vec<Case> {
    let case = |subject, run| Case::guarded(subject, Kind::TrixieMinor, &[], run);
    vec![
        case("live_minor_upgrade", minor_upgrade),
        case("live_rebuild_rollback", rebuild_rollback),
        case("live_in_place", in_place),
        case("live_crash_storm", crash_storm),
    ]
}

const VENV: &str = "/srv/live/venv";
const RECORDS: &str = "/var/lib/live/acknowledged";

/// Runs a command where mount namespaces are forbidden, as in many containers.
const IN_PLACE: &str = "setpriv --bounding-set -sys_admin";

/// Hides the wheels: no index has the venv's distribution.
const NO_WHEELS: &str = "mv /wheels /wheels.away";
const WHEELS_AGAIN: &str = "mv /wheels.away /wheels";

/// Lets the check accept only the current tree.
const REFUSE_SUCCESSORS: &str = "stat -c %i /srv/live/venv >/etc/live-only";
const ACCEPT_SUCCESSORS: &str = "rm -f /etc/live-only";
const CHECK: &str = r#"#!/bin/sh
[ ! -e /etc/live-only ] || [ "$(stat -c %i /srv/live/venv)" = "$(cat /etc/live-only)" ]
"#;

/// Where all acknowledged data must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whereabouts {
    InTheVenv,
    /// Or in a previous environment that venvguard reports to hold files.
    Reported,
}
use Whereabouts::{InTheVenv, Reported};

/// A machine on which the service writes.
struct Live<'a> {
    machine: &'a Machine,
    /// The data that was acknowledged before the records were begun anew.
    earlier: RefCell<Counts>,
    latest: RefCell<Counts>,
    kills: Cell<u32>,
}

type Counts = BTreeMap<String, u64>;

impl<'a> Live<'a> {
    /// Installs venvguard and the service. uv creates the venv, because it is fast. All previous environments are kept:
    /// the records name trees by their inodes, and a later tree could reuse one.
    fn start(machine: &'a Machine) -> Result<Self> {
        machine.install_uv()?;
        machine.write("/srv/live.py", include_str!("../apps/live.py"))?;
        machine.write("/etc/systemd/system/live.service", include_str!("../apps/live.service"))?;
        machine.write("/root/wheel.py", WHEEL)?;
        machine.write("/usr/local/bin/live-check", CHECK)?;
        machine.must(&format!(
            "mkdir /wheels && cd /wheels && python3 /root/wheel.py tool 1.0 py3
             printf 'no-index = true\\nfind-links = [\"/wheels\"]\\n' >/etc/uv/uv.toml
             chmod 755 /usr/local/bin/live-check
             install -d -o app /srv/live /var/lib/live
             su app -s /bin/sh -c 'uv --quiet venv --no-project --python /usr/bin/python3 {VENV}
                 uv --quiet pip install --python {VENV}/bin/python tool'
             systemctl daemon-reload
             systemctl enable --now live
             dpkg --install /package/venvguard_*.deb
             install -m 755 /package/venvguard-faults /usr/local/sbin/venvguard-faults
             printf 'engine = \"uv\"\\nservice-timeout = 3\\nstable-for = 0\\nkeep-trees = 9\\n' >/etc/venvguard/config.toml
             systemctl stop venvguard-resume.path
             venvguard register {VENV} --service systemd:live.service --check /usr/local/bin/live-check"
        ))?;
        let live = Self {
            machine,
            earlier: RefCell::default(),
            latest: RefCell::default(),
            kills: Cell::default(),
        };
        live.continues()?;
        Ok(live)
    }

    /// Waits until the service has acknowledged more of each kind.
    fn continues(&self) -> Result<()> {
        let kinds = ["row", "line", "upload", "spooled"];
        let counts = || -> Result<Vec<String>> {
            let count = |kind| format!("grep -c '^{kind} ' {RECORDS} || true;");
            let said = self.machine.must(&kinds.map(count).concat())?;
            Ok(said.lines().map(str::to_owned).collect())
        };
        let before = counts()?;
        wait_for("the service to write", || {
            let now = counts()?;
            Ok(now.iter().zip(&before).all(|(now, before)| now != before))
        })
        .with_context(|| self.log())
    }

    /// All acknowledged data is in its place.
    fn holds_all(&self, whereabouts: Whereabouts) -> Result<()> {
        let reported = match whereabouts {
            InTheVenv => Vec::new(),
            Reported => self.machine.reported_trees("live")?,
        };
        let script =
            format!("exec /usr/bin/python3 /srv/live.py verify {VENV} {}", reported.join(" "));
        let said = self.machine.stdout(&format!("su app -s /bin/sh -c '{script}' 2>&1"))?;
        let found: Value = serde_json::from_str(&said.text).with_context(|| said.text.clone())?;
        let counts = found.as_object().context("no counts")?.iter();
        *self.latest.borrow_mut() =
            counts.filter_map(|(name, count)| Some((name.clone(), count.as_u64()?))).collect();
        let wrong: Vec<&str> =
            found["wrong"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        ensure!(
            said.code == 0 && wrong.is_empty(),
            "{}\nkept and reported: {reported:?}\n{}",
            wrong.join("\n"),
            self.log()
        );
        Ok(())
    }

    /// All data is in its place, the service writes, and venvguard has nothing left to do.
    fn is_well(&self, whereabouts: Whereabouts) -> Result<()> {
        self.holds_all(whereabouts)?;
        self.continues()?;
        let (_, status) = self.machine.venvguard_json("status")?;
        ensure!(status["venvs"][0]["state"] == "healthy", "status: {status}");
        let again = self.machine.venvguard("resume")?;
        ensure!(again.code == 0 && again.text.contains("nothing to do"), "resume: {again:?}");
        self.holds_all(whereabouts)
    }

    /// Checks the same after the service has ended in good order, and again after it has started.
    fn is_well_in_the_end(&self, whereabouts: Whereabouts) -> Result<()> {
        self.machine.must("systemctl stop live")?;
        self.holds_all(whereabouts)?;
        self.machine.must("systemctl start live")?;
        self.is_well(whereabouts)
    }

    /// Runs a command that must end with this exit code.
    fn does(&self, command: &str, code: i32) -> Result<()> {
        let said = self.machine.run(command)?;
        ensure!(said.code == code, "{command}: {said:?}");
        Ok(())
    }

    /// Runs a command, and checks that nothing was lost.
    fn survives(&self, command: &str, code: i32, whereabouts: Whereabouts) -> Result<()> {
        self.does(command, code)?;
        self.is_well(whereabouts).with_context(|| format!("after {command}"))
    }

    /// Begins the records anew, with no previous environment.
    fn begin_anew(&self) -> Result<()> {
        let mut earlier = self.earlier.borrow_mut();
        for (name, count) in self.latest.take() {
            *earlier.entry(name).or_default() += count;
        }
        self.machine.must(&format!(
            "systemctl stop live; venvguard prune live
             rm -rf {VENV}/var {RECORDS}; systemctl start live"
        ))?;
        self.continues()
    }

    /// Kills a command at its effects, one after the other, and checks each time that nothing was lost.
    fn storm(&self, command: &Command, stride: usize) -> Result<()> {
        let before = self.kills.get();
        for effect in (1..400).step_by(stride) {
            self.begin_anew()?;
            self.machine.must(&command.prepare)?;
            let script = Fault::Killed.script(command, effect);
            let said = self.machine.run(&script)?;
            if !said.text.contains("fault: ") {
                let kills = self.kills.get() - before;
                ensure!(kills > 0, "{command:?} has no effect");
                let line = format!("{} {}", command.under, command.line);
                println!("lab: {}: killed {kills} times", line.trim());
                return Ok(());
            }
            ensure!(said.code == 137, "it was not killed: {said:?}");
            self.kills.set(self.kills.get() + 1);
            let resumed = self.machine.venvguard("resume")?;
            self.is_well(Reported).with_context(|| {
                format!("{script}\n--- output\n{}--- output of resume\n{}", said.text, resumed.text)
            })?;
        }
        anyhow::bail!("{command:?} never ends")
    }

    /// Prints how much data was at stake.
    fn print(&self, name: &str) {
        let mut counts = self.earlier.borrow().clone();
        for (kind, count) in self.latest.borrow().iter() {
            *counts.entry(kind.clone()).or_default() += count;
        }
        let counts: Vec<String> = counts
            .iter()
            .filter(|(kind, count)| **count > 0 || !kind.contains("elsewhere"))
            .map(|(kind, count)| format!("{kind} {count}"))
            .collect();
        println!("lab: {name}: {}, kills {}", counts.join(", "), self.kills.get());
    }

    fn log(&self) -> String {
        let script = "journalctl --quiet --no-pager --unit live --lines 15";
        self.machine.run(script).map(|said| said.text).unwrap_or_default()
    }
}

/// Runs a trial, and prints the numbers even if it fails.
fn on_live(
    machine: &Machine,
    name: &str,
    trial: impl FnOnce(&Live<'_>) -> Result<()>,
) -> Result<()> {
    let live = Live::start(machine)?;
    let outcome = trial(&live);
    live.print(name);
    outcome
}

/// apt upgrades Python, and the service runs on the new version afterwards.
fn minor_upgrade(machine: &Machine) -> Result<()> {
    on_live(machine, "live_minor_upgrade", |live| {
        machine.must_upgrade_python()?;
        live.is_well(InTheVenv)?;
        let new = &machine.upgrade.about.to.minor;
        machine.must(&format!("{VENV}/bin/python --version | grep -F '{new}.'"))?;
        for process in machine.processes_of(VENV)? {
            ensure!(process.executable == format!("/usr/bin/python{new}"), "{process:?}");
        }
        live.is_well_in_the_end(InTheVenv)
    })
}

/// Rebuilds, some of which fail, and rollbacks.
fn rebuild_rollback(machine: &Machine) -> Result<()> {
    on_live(machine, "live_rebuild_rollback", |live| {
        live.survives("venvguard rebuild live", 0, InTheVenv)?;
        live.survives("venvguard rollback live", 0, Reported)?;
        live.survives("venvguard rebuild live", 0, Reported)?;
        live.begin_anew()?;
        every_failure(live, "")?;
        live.survives("venvguard rollback live", 0, Reported)?;
        live.survives("venvguard rollback live", 0, Reported)?;
        live.is_well_in_the_end(Reported)
    })
}

/// A rebuild whose distribution cannot be installed, one whose check fails after the swap, and one that succeeds.
fn every_failure(live: &Live<'_>, under: &str) -> Result<()> {
    let rebuild = format!("{under} venvguard rebuild live");
    live.machine.must(NO_WHEELS)?;
    live.survives(&rebuild, 1, Reported).context("with no wheels")?;
    live.machine.must(WHEELS_AGAIN)?;
    live.machine.must(REFUSE_SUCCESSORS)?;
    live.survives(&rebuild, 1, Reported).context("with a check that fails")?;
    live.machine.must(ACCEPT_SUCCESSORS)?;
    live.survives(&rebuild, 0, Reported)
}

/// The same with a new tree that is built in the venv's place.
fn in_place(machine: &Machine) -> Result<()> {
    on_live(machine, "live_in_place", |live| {
        let said = machine.must(&format!("{IN_PLACE} venvguard rebuild live"))?;
        ensure!(said.contains("building in place"), "{said}");
        live.is_well(Reported)?;
        live.begin_anew()?;
        every_failure(live, IN_PLACE)?;
        live.survives("venvguard rollback live", 0, Reported)?;
        live.is_well_in_the_end(Reported)
    })
}

/// Kills venvguard before its effects: before each of them in a long run, before some of them otherwise.
fn crash_storm(machine: &Machine) -> Result<()> {
    let stride = |short| if is_long() { 1 } else { short };
    on_live(machine, "live_crash_storm", |live| {
        let rebuild = || Command::new("rebuild live");
        live.storm(&rebuild(), stride(5))?;
        live.storm(&Command { under: IN_PLACE, ..rebuild() }, stride(5))?;
        let prepare = "venvguard rebuild live".to_owned();
        live.storm(&Command { prepare, ..Command::new("rollback live") }, stride(5))?;
        // Interrupt the rollback, too.
        for under in ["", IN_PLACE] {
            let prepare = REFUSE_SUCCESSORS.to_owned();
            live.storm(&Command { under, prepare, ..rebuild() }, stride(13))?;
            machine.must(ACCEPT_SUCCESSORS)?;
        }
        live.is_well_in_the_end(Reported)
    })
}
