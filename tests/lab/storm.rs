//! Storms: a fault strikes a command at an effect, then at a later one, and so on until none is left. Each time the
//! venv must be whole and still hold the user files; `resume` must finish the work, and find nothing to do when it
//! runs again.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use crate::disks::POWER_OFF;
use crate::machine::{Machine, Said, services_of};
use crate::prepare::venvs::Site;

pub(crate) const SITE: Site = Site::Bare;
pub(crate) const VENV: &str = "/srv/bare/venv";

/// More effects than any command has: catches a command that never ends.
const MOST: usize = 400;

/// Whether this is `tests/run --long`.
pub(crate) fn is_long() -> bool {
    std::env::var_os("VENVGUARD_LAB_LONG").is_some()
}

/// Kills a command of venvguard at many of its effects, and finishes it each time. All must be well afterwards.
pub(crate) fn kill_often(
    machine: &Machine,
    line: &str,
    (stride, least): (usize, usize),
    is_well: impl Fn(&Machine) -> Result<()>,
) -> Result<()> {
    machine.must("install -m 755 /package/venvguard-faults /usr/local/sbin/venvguard-faults")?;
    for (kills, effect) in (1..2000).step_by(stride).enumerate() {
        let killed = machine.run(&format!("venvguard-faults --die-at {effect} {line}"))?;
        if killed.code != 137 {
            ensure!(killed.code == 0, "{killed:?}");
            println!("lab: {line}: killed {kills} times");
            ensure!(kills > least, "only {kills} kills");
            return is_well(machine);
        }
        machine.must("venvguard resume")?;
        is_well(machine)?;
    }
    anyhow::bail!("{line} never ends")
}

/// A fault at an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Killed,
    Fails,
    /// Killed, and all data that was not on the disk is lost: see `disks`.
    PowerLoss,
    /// Asked to end, as by Ctrl-C, a closing terminal, or `kill`.
    Asked,
    /// Stopped while the shell command `does` changes the machine, and continued; `mends` undoes the change afterwards.
    Meanwhile {
        does: &'static str,
        mends: &'static str,
    },
}

impl Fault {
    /// The effects that it strikes. Of six neighbours, a short run kills the program at one, and lets another fail; a
    /// long run does both at each. The other faults lead to the same recovery.
    fn effects(self) -> impl Iterator<Item = usize> {
        let (first, stride) = match self {
            Self::Killed if !is_long() => (1, 6),
            Self::Fails if !is_long() => (4, 6),
            Self::PowerLoss if !is_long() => (2, 11),
            Self::Asked | Self::Meanwhile { .. } if !is_long() => (1, 9),
            Self::Killed | Self::Fails | Self::PowerLoss => (1, 1),
            Self::Asked | Self::Meanwhile { .. } => (1, 3),
        };
        (first..).step_by(stride)
    }

    /// The command with the fault at an effect, as shell commands.
    pub(crate) fn script(self, command: &Command, effect: usize) -> String {
        let Command { line, under, .. } = command;
        let with = |option| format!("{under} venvguard-faults {option} {effect} {line}");
        match self {
            Self::Killed => with("--die-at"),
            Self::Fails => with("--fail-at"),
            Self::PowerLoss => format!("{}; code=$?; power_off; exit $code", with("--die-at")),
            Self::Asked => {
                let signal = ["INT", "TERM", "HUP"][effect / 3 % 3];
                stopped(&with("--stop-at"), &format!("kill -{signal} $pid"), "true")
            }
            Self::Meanwhile { does, mends } => stopped(&with("--stop-at"), does, mends),
        }
    }
}

/// Does something while a command is stopped. A shell's background jobs ignore Ctrl-C, hence `--default-signal`.
fn stopped(command: &str, does: &str, mends: &str) -> String {
    format!(
        "exec env --default-signal=INT {command} & pid=$!
         while sleep 0.02; do
             read -r _ _ state _ </proc/$pid/stat || break
             case $state in T) {{ {does}; }} || echo 'bug: that cannot be done'; kill -CONT $pid; break;; Z) break;; esac
         done
         wait $pid; code=$?
         {mends}
         exit $code"
    )
}

/// What is true of the venv while a command is at work, and so wherever the command is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meanwhile {
    Works,
    /// It is broken beforehand: the command mends it, and is run again after the fault.
    IsToBeMended,
    /// It is missing.
    IsAway,
}

/// A command to interrupt.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) line: String,
    /// The wrapper that it runs under.
    pub(crate) under: &'static str,
    /// The shell commands that make the initial state.
    pub(crate) prepare: String,
    pub(crate) venv: Meanwhile,
}

impl Command {
    pub(crate) fn new(line: &str) -> Self {
        Self {
            line: line.to_owned(),
            under: "",
            prepare: "true".to_owned(),
            venv: Meanwhile::Works,
        }
    }
}

/// The number of effects that a fault struck, by the step in the journal.
pub(crate) type Steps = BTreeMap<String, u32>;

/// A machine for storms.
pub(crate) struct Storm<'a> {
    pub(crate) machine: &'a Machine,
    /// The user files in the venv.
    foreign: String,
}

impl<'a> Storm<'a> {
    /// Installs venvguard, and puts user files into a venv. The venv has no pip, so that a rebuild takes a quarter of the
    /// time.
    pub(crate) fn gathers(machine: &'a Machine) -> Result<Self> {
        make_venv(machine, "")?;
        machine.install_guard()?;
        machine.must(
            "printf 'service-timeout = 5\\nstable-for = 0\\n' >/etc/venvguard/config.toml
             install -m 755 /package/venvguard-faults /usr/local/sbin/venvguard-faults
             systemctl stop venvguard-resume.path",
        )?;
        machine.write("/root/syscalls.py", include_str!("apps/syscalls.py"))?;
        let foreign = foreign_files(machine)?;
        ensure!(foreign.lines().count() == 8, "planted: {foreign}");
        Ok(Self { machine, foreign })
    }

    /// Lets the fault strike the command's effects, one a run.
    pub(crate) fn rages(&self, fault: Fault, command: &Command) -> Result<Steps> {
        let mut steps = Steps::new();
        for effect in fault.effects() {
            ensure!(effect < MOST, "{command:?} never ends");
            let Some(step) = self.strikes(fault, command, effect)? else { break };
            *steps.entry(step).or_default() += 1;
        }
        let effects: u32 = steps.values().sum();
        ensure!(effects > 0, "{command:?} has no effect");
        let under = command.under.split('/').next_back().unwrap_or_default();
        println!("lab: {under}{}, {fault:?}: at {effects} effects: {steps:?}", command.line);
        Ok(steps)
    }

    /// Returns the journal's step at which the fault struck, or none if there was no such effect.
    pub(crate) fn strikes(
        &self,
        fault: Fault,
        command: &Command,
        effect: usize,
    ) -> Result<Option<String>> {
        self.machine.must(&command.prepare)?;
        let script = fault.script(command, effect);
        let said = self.machine.run(&format!("{POWER_OFF}\n({script})"))?;
        if !said.text.contains("fault: ") {
            return Ok(None);
        }
        let outcome = self.step().and_then(|step| {
            self.is_survived(fault, command, &said)?;
            Ok(Some(step))
        });
        outcome.with_context(|| format!("{script}\n--- output\n{}", said.text))
    }

    /// The step that the journal records.
    fn step(&self) -> Result<String> {
        let open =
            self.machine.must("cat /var/lib/venvguard/journal/*.json 2>/dev/null || true")?;
        if open.is_empty() {
            return Ok("none".to_owned());
        }
        let entry: serde_json::Value = serde_json::from_str(&open)?;
        let state = &entry["state"];
        let of_object = || state.as_object().and_then(|one| one.keys().next().cloned());
        state.as_str().map(str::to_owned).or_else(of_object).context("no state")
    }

    fn is_survived(&self, fault: Fault, command: &Command, said: &Said) -> Result<()> {
        let machine = self.machine;
        match fault {
            Fault::Killed | Fault::PowerLoss => {
                ensure!(said.code == 137, "it was not killed: {}", said.code);
            }
            // It may have finished before the signal arrives.
            Fault::Asked => ensure!(
                said.code == 0
                    || matches!(said.code, 129 | 130 | 143) && said.text.contains("interrupted; "),
                "it ended by {}",
                said.code
            ),
            Fault::Fails | Fault::Meanwhile { .. } => {}
        }
        ensure!(!said.text.contains("bug"), "a bug was reported");
        if command.venv == Meanwhile::Works {
            machine.must(&format!("{VENV}/bin/python -c 'import asyncio, ctypes, email'"))?;
        }
        if command.venv != Meanwhile::IsAway {
            self.holds_all()?;
        }
        let resumed = machine.venvguard("resume")?;
        ensure!(matches!(resumed.code, 0 | 3), "resume: {resumed:?}");
        if command.venv == Meanwhile::IsToBeMended {
            machine.must(&format!("venvguard {}", command.line))?;
        }
        let again = machine.venvguard("resume")?;
        let is_idle = again.code == 0 && again.text.contains("nothing to do");
        ensure!(is_idle, "resume: {resumed:?}\nagain: {again:?}");
        self.is_well().with_context(|| format!("--- output of resume\n{}", resumed.text))
    }

    /// All user files are in the venv.
    pub(crate) fn holds_all(&self) -> Result<()> {
        let there = foreign_files(self.machine)?;
        ensure!(there == self.foreign, "found these user files:\n{there}");
        Ok(())
    }

    /// The venv works and holds all user files, its service is up, and neither work nor stray trees are left.
    pub(crate) fn is_well(&self) -> Result<()> {
        let machine = self.machine;
        self.holds_all()?;
        machine.wait_until_serving(&services_of(SITE)[0])?;
        let status = machine.status_of(SITE)?;
        ensure!(status["state"] == "healthy", "status: {status}");
        let open = machine
            .must("find /var/lib/venvguard/journal -name '[!.]*.json' 2>/dev/null || true")?;
        ensure!(open.is_empty(), "the journal holds {open}");
        let known = machine.must(
            "cat /var/lib/venvguard/registry.json /var/lib/venvguard/prepared/*.json 2>/dev/null || true",
        )?;
        let beside = machine.must("find /srv/bare -maxdepth 1 -name '.venv.venvguard-*'")?;
        for tree in beside.lines() {
            ensure!(known.contains(tree), "venvguard does not know of {tree}:\n{known}");
        }
        // Previous environments are whole.
        let (_, listed) = machine.venvguard_json("list")?;
        for tree in listed["venvs"][0]["previous_trees"].as_array().into_iter().flatten() {
            let path = tree["path"].as_str().unwrap_or_default();
            machine.must(&format!("[ -e {path}/.env ] && {path}/bin/python -c 'import sys'"))?;
        }
        Ok(())
    }
}

/// Creates the venv anew, and puts user files into it.
pub(crate) fn make_venv(machine: &Machine, options: &str) -> Result<()> {
    machine.must(&format!(
        "systemctl stop bare; rm -r {VENV}
         su app -s /bin/sh -c '/usr/bin/python3 -m venv --without-pip {options} {VENV}'
         cd {VENV}
         printf SECRET=1 >.env; chmod 600 .env
         printf 'echo hello\\n' >bin/postactivate; chmod 755 bin/postactivate
         printf '/opt\\n' >$(echo lib/python3*/site-packages)/local.pth
         mkdir -m 750 'my data'; printf x >'my data/a b'; ln -s /etc/hostname 'my data/link'
         chown -R app: .env bin/postactivate lib/python3*/site-packages/local.pth 'my data'
         sync --file-system {VENV}; systemctl start bare"
    ))?;
    machine.wait_until_all_serve()
}

/// The user files in the venv: names, without the minor version, modes, owners and content.
fn foreign_files(machine: &Machine) -> Result<String> {
    machine.must(&format!(
        "cd {VENV}; set -- .env bin/postactivate $(echo lib/python3*/site-packages)/local.pth 'my data' 'my data/a b' 'my data/link'
         stat -c '%n %a %U %G %N' \"$@\" | sed 's,lib/python3[.0-9]*,lib/python3,g'
         cat .env bin/postactivate \"$3\""
    ))
}
