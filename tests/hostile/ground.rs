//! The ground for the attacks, and the judgement whether the attacker has won anything.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};

use super::attacks::Attack;
use crate::machine::{Machine, Said};

/// The documented exit codes of a command.
const ENDS: [&str; 3] = ["0", "1", "3"];

/// Only its owner may see it; see `ground.sh`.
const SECRET: &str = "xyzzy-canary";

/// Mallory's own secret; see `trees.sh`.
const PASSWORD: &str = "xyzzy-password";

/// The limits: how much memory one of venvguard's root processes may hold, in KiB; how much all of them may read, and how
/// much a command may print, in bytes. See `meter.py`.
const METER: [(&str, u64); 3] = [("peak", 256 << 10), ("read", 2 << 30), ("said", 256 << 10)];

/// The beginning of a line that only a name with a line break can produce.
const FORGED: &str = "FORGED";

/// The kernel counts a user's processes over all containers: one attacker's forks must not keep another from forking.
static NUMBERS: AtomicU32 = AtomicU32::new(2001);

/// A machine with an attacker, their victims, and venvguard.
pub(super) struct Ground<'a> {
    pub(super) machine: &'a Machine,
}

impl<'a> Ground<'a> {
    /// Prepares the machine: users, canaries, venvs and venvguard.
    pub(super) fn lay(machine: &'a Machine) -> Result<Self> {
        machine.must(
            "dpkg --install /package/venvguard_*.deb
             install -m 755 /package/venvguard-faults /usr/local/sbin/venvguard-faults
             systemctl stop venvguard-resume.path
             mkdir -p /srv/hostile/src",
        )?;
        for (name, text) in [
            ("ground.sh", include_str!("ground.sh")),
            ("plants.sh", include_str!("plants.sh")),
            ("ground.py", include_str!("ground.py")),
            ("payload.py", include_str!("payload.py")),
            ("listener.py", include_str!("listener.py")),
            ("flip.py", include_str!("flip.py")),
            ("never.py", include_str!("never.py")),
            ("trees.sh", include_str!("trees.sh")),
            ("accomplice.py", include_str!("accomplice.py")),
            ("meter.py", include_str!("meter.py")),
            ("syscalls.py", include_str!("../lab/apps/syscalls.py")),
            ("src/backend.py", include_str!("src/backend.py")),
            ("src/pyproject.toml", include_str!("src/pyproject.toml")),
        ] {
            machine.write(&format!("/srv/hostile/{name}"), text)?;
        }
        let next = &machine.upgrade.about.to;
        let next = format!("NEXT={} NEXT_DEBIAN={}\n", next.minor, next.debian);
        machine.write("/srv/hostile/upgrade", &next)?;
        let mallory = NUMBERS.fetch_add(1, Ordering::Relaxed);
        machine.must(&format!("MALLORY={mallory}; . /srv/hostile/ground.sh; set -eu; settle"))?;
        Ok(Self { machine })
    }

    /// Makes an attack and returns its outcome; `weakness` names a guard to leave out.
    pub(super) fn attack(&self, attack: &Attack, weakness: Option<&str>) -> Result<Deed> {
        let meter = if attack.is_metered { "METER=\"python3 $KEEP/meter.py\"" } else { "" };
        let commands: String = attack.commands.iter().map(|command| step(command)).collect();
        // A rebuild gives up after 30 seconds; commands that only look at the venv end in no time.
        let rebuilds = attack.commands.iter().any(|command| command.starts_with("rebuild"));
        let patience = if rebuilds { 40 } else { 10 };
        let weak = weakness.map_or_else(String::new, |name| {
            format!("PATIENCE={patience} GUARD='venvguard-faults --weaken={name}'\n")
        });
        self.deed(&format!(
            "plant {}
             python3 $KEEP/ground.py before
             {meter}
             {weak}{commands}",
            attack.name
        ))
    }

    /// Does something without a reset before, and judges the outcome.
    pub(super) fn judged(&self, does: impl FnOnce() -> Result<String>) -> Result<Deed> {
        let text = does()?;
        let judged = self.machine.run("python3 /srv/hostile/ground.py after")?;
        Deed::read(&Said { text: text + "\n" + &judged.text, ..judged })
    }

    /// Resets the ground to its beginning, runs a script, and judges the outcome.
    pub(super) fn deed(&self, script: &str) -> Result<Deed> {
        let said = self.machine.run(&format!(
            ". /srv/hostile/ground.sh
             reset
             {script}
             cd /
             python3 $KEEP/ground.py after"
        ))?;
        ensure!(!said.text.contains("--- not planted"), "it was not planted: {said:?}");
        Deed::read(&said)
    }
}

/// A step of an attack: a command of venvguard's; one without a mount namespace, after `in place:`; or a script that
/// `mallory:` or `root:` runs between the commands.
fn step(command: &str) -> String {
    match command.split_once(": ") {
        Some(("mallory", does)) => {
            format!("(cd $PLACE; as mallory sh -euc {}) || echo '--- not planted'\n", quoted(does))
        }
        Some(("root", does)) => format!("(cd $PLACE; {does})\n"),
        Some(("in place", does)) => format!("in_place {does}\n"),
        _ => format!("guard {command}\n"),
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The outcome of an attack.
#[derive(Debug)]
pub(super) struct Deed {
    /// All output.
    pub(super) text: String,
    /// The kinds of the attacker's code that ran.
    pub(super) ran: Vec<String>,
    /// What the attacker won.
    pub(super) won: Vec<String>,
}

impl Deed {
    fn read(said: &Said) -> Result<Self> {
        let line = |name: &str| {
            let start = format!("--- {name} ");
            let found = said.text.lines().find_map(|line| line.strip_prefix(&start));
            found.map(str::to_owned).with_context(|| format!("nothing was judged: {}", said.text))
        };
        let ran = line("ran")?.split_whitespace().map(str::to_owned).collect();
        let mut won: Vec<String> = serde_json::from_str(&line("won")?)?;
        let (text, _) = said.text.split_once("--- ran ").unwrap_or_default();
        won.extend(told(text));
        Ok(Self { ran, won, text: text.to_owned() })
    }
}

/// What the attacker won according to the output: exit codes, measures, and lines that should not be there.
fn told(text: &str) -> Vec<String> {
    let mut won = Vec::new();
    let mut command = "";
    for line in text.lines() {
        if let Some(next) = line.strip_prefix("--- venvguard ") {
            command = next;
        } else if let Some(measured) = line.strip_prefix("--- meter ") {
            won.extend(
                measured
                    .split(' ')
                    .filter(|one| is_too_much(one))
                    .map(|one| format!("{command}: {one}")),
            );
        } else if let Some(code) = line.strip_prefix("--- exit ") {
            match code {
                "124" | "137" => won.push(format!("{command} does not end")),
                code if !ENDS.contains(&code) => won.push(format!("{command} ended by {code}")),
                _ => {}
            }
        } else if line.chars().any(|one| one.is_control() && one != '\t') {
            won.push(format!("{command} said {line:?}"));
        } else if line.starts_with(FORGED) {
            won.push(format!("{command} began a line by {line:?}"));
        } else if line.contains(SECRET) || line.contains(PASSWORD) {
            won.push(format!("{command} told a secret: {line}"));
        }
    }
    won
}

/// Whether a measure is above its limit; an unreadable one counts as above.
fn is_too_much(measure: &str) -> bool {
    let (name, number) = measure.split_once('=').unwrap_or_default();
    let limit = METER.iter().find(|(one, _)| *one == name).map(|(_, limit)| *limit);
    number.parse::<u64>().ok().zip(limit).is_none_or(|(number, limit)| number > limit)
}
