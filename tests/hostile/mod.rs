//! The hostile suite: an attacker owns a registered venv, may run any code, and tries everything to gain by it.
//!
//! The attacker wins if a file outside their reach is created, changed, read for them or removed; if any of their code
//! runs as somebody else, or less confined than promised; if a command does not end, or crashes, or lets them write to
//! the administrator's terminal; or if little effort of theirs uses up root's memory, disk or time without a limit.
//! `ground.py` watches the canaries, `audit` checks every program. `tests/run` makes every static attack and some rounds
//! of the races; `tests/run --long` makes thousands of rounds. `VENVGUARD_LAB_ATTACK=NAME` selects the attacks whose
//! names contain NAME.

mod attacks;
mod audit;
mod ground;
mod races;
mod trees;
mod upgrade;
mod weakness;

use anyhow::{Result, ensure};

use crate::cases::Case;
use crate::machine::Machine;
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;
use crate::storm::is_long;
use attacks::{ATTACKS, Attack};
use ground::{Deed, Ground};
use races::{Extent, PAUSES};

/// Set to a part of a name: selects attacks.
const WANTED: &str = "VENVGUARD_LAB_ATTACK";

/// Rounds of four commands each while the attacker flips names.
const ROUNDS: usize = 2;
const LONG_ROUNDS: usize = 200;

pub(crate) fn cases() -> Vec<Case> {
    let case = |subject, sites: &'static [Site], run| {
        Case::guarded(subject, Kind::TrixieMinor, sites, run)
    };
    let races = if is_long() {
        vec![
            case("hostile_races_with_each_effect", &[], stopped),
            case("hostile_races_with_each_effect_in_place", &[], stopped_in_place),
            case("hostile_races_with_names", &[], |machine| flipped(machine, &PAUSES[..1])),
            case("hostile_races_with_quick_names", &[], |machine| flipped(machine, &PAUSES[1..])),
        ]
    } else {
        vec![case("hostile_races", &[], race)]
    };
    let others = vec![
        case("hostile_attacks", &[], stand),
        case("hostile_trees", &[], trees::stand),
        case("hostile_apt", &[], trees::apt),
        case("hostile_weaknesses", &[], |machine| weakness::are_found(&Ground::lay(machine)?)),
        case("hostile_upgrade", upgrade::SITES, upgrade::upgrade),
    ];
    races.into_iter().chain(others).collect()
}

/// Makes every static attack.
fn stand(machine: &Machine) -> Result<()> {
    let won = won_by(&Ground::lay(machine)?, ATTACKS)?;
    ensure!(won.is_empty(), "{} attacks were won\n{}", won.len(), won.join("\n\n"));
    Ok(())
}

/// Makes attacks one after the other, and returns those that were won.
fn won_by(ground: &Ground, attacks: &[Attack]) -> Result<Vec<String>> {
    let mut lost = Vec::new();
    let wanted = std::env::var(WANTED).unwrap_or_default();
    let attacks: Vec<_> = attacks.iter().filter(|one| one.name.contains(&wanted)).collect();
    for attack in &attacks {
        let deed = ground.attack(attack, None)?;
        let won = wins(attack, &deed);
        if !won.is_empty() {
            lost.push(format!("{}\n    {}\n{}", attack.name, won.join("\n    "), deed.text));
        }
    }
    println!("lab: {} attacks, {} of them won", attacks.len(), lost.len());
    Ok(lost)
}

/// Makes some rounds of every race.
fn race(machine: &Machine) -> Result<()> {
    let ground = Ground::lay(machine)?;
    let mut won = races::stopped(&ground, Extent::Short, "")?;
    won.extend(races::flipped(&ground, ROUNDS, &PAUSES)?);
    none_was_won(&won)
}

/// Makes every race with a guard that is stopped at its effects.
fn stopped(machine: &Machine) -> Result<()> {
    none_was_won(&races::stopped(&Ground::lay(machine)?, Extent::Long, "")?)
}

/// The same without mount namespaces, as in many containers.
fn stopped_in_place(machine: &Machine) -> Result<()> {
    let ground = Ground::lay(machine)?;
    machine.write("/root/syscalls.py", include_str!("../lab/apps/syscalls.py"))?;
    let under = "python3 /root/syscalls.py unshare=1 --";
    none_was_won(&races::stopped(&ground, Extent::Long, under)?)
}

/// Makes thousands of rounds of the races with names.
fn flipped(machine: &Machine, pauses: &[&str]) -> Result<()> {
    none_was_won(&races::flipped(&Ground::lay(machine)?, LONG_ROUNDS, pauses)?)
}

fn none_was_won(won: &[String]) -> Result<()> {
    ensure!(won.is_empty(), "{} races were won\n{}", won.len(), won.join("\n\n"));
    Ok(())
}

/// What an attack won, or how it missed its target.
fn wins(attack: &Attack, deed: &Deed) -> Vec<String> {
    let mut wins = deed.won.clone();
    if !deed.text.contains(attack.says) {
        wins.push(format!("it was not met by {:?}", attack.says));
    }
    for kind in attack.runs.iter().filter(|kind| !deed.ran.iter().any(|ran| ran == **kind)) {
        wins.push(format!("the {kind} code did not run"));
    }
    wins
}
