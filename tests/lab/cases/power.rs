//! Power cuts at every step: data that was not on the disk is lost.

use anyhow::{Result, bail};

use super::Case;
use super::crash::every_command;
use crate::disks::{EXT4, PLACES};
use crate::machine::Machine;
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;
use crate::storm::{Command, Fault, Storm};

pub(super) fn cases() -> Vec<Case> {
    let case = |subject, run| Case::guarded(subject, Kind::TrixieMinor, &[Site::Bare], run);
    vec![
        case("power_is_cut", |machine| {
            let storm = Storm::gathers(machine)?;
            machine.put_on_disks(&EXT4, &PLACES)?;
            every_command(&storm, Fault::PowerLoss).map(drop)
        }),
        case("power_is_cut_and_nothing_was_synced", unsynced),
    ]
}

/// Proves that the test above would notice a missing sync: here syncs do nothing, and something is lost.
fn unsynced(machine: &Machine) -> Result<()> {
    let storm = Storm::gathers(machine)?;
    machine.put_on_disks(&EXT4, &PLACES)?;
    machine.must(
        "rm -rf /root/save; mkdir /root/save; cp -a /srv/bare /var/lib/venvguard /root/save/",
    )?;
    let restore = "rm -rf /var/lib/venvguard/* /srv/bare/.venv* /srv/bare/venv
                   cp -a /root/save/venvguard/. /var/lib/venvguard/; cp -a /root/save/bare/. /srv/bare/
                   sync; systemctl restart bare";
    for under in [NO_TREE, NO_JOURNAL] {
        let command =
            Command { under, prepare: restore.to_owned(), ..Command::new("rebuild bare") };
        let lost = first_loss(&storm, &command)?;
        println!("lab: {under}: {lost}");
    }
    Ok(())
}

const NO_TREE: &str = "python3 /root/syscalls.py syncfs=0 --";
const NO_JOURNAL: &str = "python3 /root/syscalls.py fsync=0 fdatasync=0 --";

/// The failure after the first power cut that does harm.
fn first_loss(storm: &Storm, command: &Command) -> Result<String> {
    for effect in 1.. {
        match storm.strikes(Fault::PowerLoss, command, effect) {
            Ok(Some(_)) => {}
            Ok(None) => bail!("{}: nothing was lost", command.under),
            Err(error) => return Ok(format!("at effect {effect}: {}", error.root_cause())),
        }
    }
    bail!("it never ends")
}
