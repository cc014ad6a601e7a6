//! A row of the grid: venvs in odd places, through a new minor version.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::named;
use crate::child;
use crate::machine::Machine;
use crate::overlay::Overlay;

/// A place, and what must become of the venv there.
struct Place {
    /// Its name in `odd.sh`.
    name: &'static str,
    expected: Expected,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expected {
    /// Created again for the new minor version.
    Rebuilt,
    /// It stays on the old minor version, for the reason with these words.
    Pinned(&'static str),
    /// It is not registered, for the reason with these words.
    Refused(&'static str),
}

const PLACES: [Place; 13] = {
    use Expected::{Pinned, Rebuilt, Refused};
    const fn place(name: &'static str, expected: Expected) -> Place {
        Place { name, expected }
    }
    [
        place("system", Rebuilt),
        place("outer", Rebuilt),
        place("nested", Refused("already registered")),
        place("link", Rebuilt),
        place("mount", Pinned("is a mount point: another tree cannot take its place")),
        place("spaces", Rebuilt),
        place("quotes", Rebuilt),
        place("newline", Rebuilt),
        place("bytes", Pinned("was not rebuilt")),
        place("owner", Rebuilt),
        place("closed", Rebuilt),
        place("hardlinks", Rebuilt),
        place("plain", Rebuilt),
    ]
};

/// File systems for further places, if the host's kernel supports them.
const FILE_SYSTEMS: [&str; 2] = ["btrfs", "xfs"];

/// Adds the script and the file systems to a root. Prints and skips the file systems that this kernel cannot mount.
pub(super) fn lay(overlay: &Overlay) -> Result<()> {
    overlay.write("/srv/odd.sh", include_str!("odd.sh"))?;
    for kind in FILE_SYSTEMS {
        if let Err(error) = mount(overlay, kind) {
            println!("lab: skipping {kind} in odd places: this machine cannot mount it: {error:#}");
        }
    }
    Ok(())
}

/// Mounts a new file system, which ends with the overlay. The root's own tools make it.
fn mount(overlay: &Overlay, kind: &str) -> Result<()> {
    let image = format!("/var/tmp/{kind}.image");
    fs::File::create(overlay.path(&image))?.set_len(400 << 20)?;
    let make = format!("mount -t proc proc /proc; mkfs.{kind} -q {image}; umount /proc");
    child::output(Command::new("chroot").arg(overlay.root()).args(["sh", "-euc", &make]))?;
    let dir = overlay.path(&format!("/srv/odd/{kind}"));
    fs::create_dir_all(&dir)?;
    child::output(
        Command::new("mount").args(["-o", "loop", "-t", kind]).arg(overlay.path(&image)).arg(&dir),
    )
    .map(drop)
}

pub(super) fn run(machine: &Machine) -> Result<()> {
    let mut places: Vec<(&str, Expected)> =
        PLACES.iter().map(|place| (place.name, place.expected)).collect();
    for kind in FILE_SYSTEMS {
        if machine.run(&format!("mountpoint -q /srv/odd/{kind}"))?.code == 0 {
            places.push((kind, Expected::Rebuilt));
        }
    }
    let odd = |what: &str, name: &str| machine.run(&format!("sh -eu /srv/odd.sh {what} {name}"));
    let mut before = Vec::new();
    for (name, expected) in &places {
        let made = odd("make", name)?;
        ensure!(made.code == 0, "{name} cannot be created: {}", made.text);
        let registered = machine.run(&format!(
            "path=$(sh -eu /srv/odd.sh where {name}); venvguard register \"$path\" --name {name}"
        ))?;
        if let Expected::Refused(words) = expected {
            ensure!(registered.code != 0 && registered.text.contains(words), "{registered:?}");
        } else {
            ensure!(registered.code == 0, "{name} cannot be registered: {}", registered.text);
        }
        let said = odd("ask", name)?;
        ensure!(said.code == 0, "{name} does not work before the upgrade: {}", said.text);
        before.push(said);
    }
    machine.must_upgrade_python()?;
    let (_, history) = machine.venvguard_json("history")?;
    let (_, status) = machine.venvguard_json("status")?;
    let mut table = String::new();
    let mut bad = Vec::new();
    for ((name, expected), before) in places.into_iter().zip(before) {
        let outcome = (|| {
            let on = |minor: &str| {
                before.text.replacen(
                    &format!(" on {}\n", machine.upgrade.about.from.minor),
                    &format!(" on {minor}\n"),
                    1,
                )
            };
            let (word, should) = match expected {
                Expected::Rebuilt => ("rebuilt".to_owned(), on(&machine.upgrade.about.to.minor)),
                Expected::Pinned(words) => {
                    let told = named(&history["events"], "venv", name).into_iter().any(|event| {
                        event["detail"].as_str().is_some_and(|detail| detail.contains(words))
                    });
                    ensure!(told, "the history of it does not contain {words:?}: {history}");
                    (format!("pinned: {words}"), on(&machine.upgrade.about.from.minor))
                }
                Expected::Refused(words) => return Ok(format!("refused: {words}")),
            };
            let venv = *named(&status["venvs"], "name", name).first().context("not in status")?;
            ensure!(venv["state"] == "healthy", "status: {venv}");
            let after = odd("ask", name)?;
            ensure!(after.code == 0 && after.text == should, "it says {after:?}, not {should:?}");
            Ok(word)
        })();
        let word = outcome.unwrap_or_else(|error| {
            bad.push(format!("{name}: {error:#}"));
            "FAILED".to_owned()
        });
        let _ = writeln!(table, "{name:<12}{word}");
    }
    println!("odd places\n{table}");
    if !bad.is_empty() {
        bail!("{} places failed\n{}", bad.len(), bad.join("\n"));
    }
    Ok(())
}
