//! The hostile suite: a user owns a registered venv, may run what he likes, and tries everything to gain by it.
//!
//! He has won if a file outside his reach is created, changed, read for him or removed; if any code of his runs as
//! somebody else, or less confined than is promised; if a command does not end, or crashes, or lets him speak to the
//! administrator's terminal; or if what costs them little costs root's memory, disk or time without an end. `ground.py`
//! holds the canaries, `audit` looks at every program. `tests/run` makes every attack that stands still and some rounds of
//! those that race; `tests/run --long` thousands. `VENVGUARD_LAB_ATTACK=NAME` leaves out the attacks whose names do not
//! contain it.

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
use attacks::{ATTACKS, Attack};
use ground::{Deed, Ground};
use races::Extent;

/// Set by `tests/run --long`.
const LONG: &str = "VENVGUARD_LAB_LONG";

/// Set to a part of a name: other attacks are left out.
const WANTED: &str = "VENVGUARD_LAB_ATTACK";

/// How often all is tried while he flips names: each round has four commands.
const ROUNDS: usize = 2;
const LONG_ROUNDS: usize = 200;

pub(crate) fn cases() -> Vec<Case> {
    let case = |subject, sites: &'static [Site], run| {
        Case::guarded(subject, Kind::TrixieMinor, sites, run)
    };
    vec![
        case("hostile_attacks", &[], stand),
        case("hostile_races", &[], race),
        case("hostile_trees", &[], trees::stand),
        case("hostile_apt", &[], trees::apt),
        case("hostile_weaknesses", &[], |machine| weakness::are_found(&Ground::lay(machine)?)),
        case("hostile_upgrade", upgrade::SITES, upgrade::upgrade),
    ]
}

/// Every attack that stands still.
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

/// Every attack that races.
fn race(machine: &Machine) -> Result<()> {
    let ground = Ground::lay(machine)?;
    machine.write("/root/syscalls.py", include_str!("../lab/apps/syscalls.py"))?;
    let mut won = Vec::new();
    if std::env::var_os(LONG).is_some() {
        won.extend(races::stopped(&ground, Extent::Long, "")?);
        // Where no mount namespace is to be had, as in many containers.
        let in_place = "python3 /root/syscalls.py unshare=1 --";
        won.extend(races::stopped(&ground, Extent::Long, in_place)?);
        won.extend(races::flipped(&ground, LONG_ROUNDS)?);
    } else {
        won.extend(races::stopped(&ground, Extent::Short, "")?);
        won.extend(races::flipped(&ground, ROUNDS)?);
    }
    ensure!(won.is_empty(), "{} races were won\n{}", won.len(), won.join("\n\n"));
    Ok(())
}

/// What was won by an attack, or how it missed.
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
