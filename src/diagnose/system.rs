//! Checks the machine: dpkg's state, systemd, the kernel, free space.

use super::Finding;
use crate::host::{Program, Root, confine};
use crate::python;

/// The free space needed for venvguard's state and for dpkg itself.
const ROOM: u64 = 64 << 20;

pub(super) fn findings(root: &Root) -> Vec<Finding> {
    let mut findings = Vec::new();
    match python::unsettled(root) {
        Ok(unsettled) if unsettled.is_empty() => {}
        Ok(unsettled) => {
            let names: Vec<String> = unsettled.iter().map(ToString::to_string).collect();
            findings.push(Finding::fault(
                format!("dpkg has not finished with {}", names.join(", ")),
                "`dpkg --configure -a`",
            ));
        }
        Err(error) => findings.push(Finding::fault(
            format!("cannot read dpkg's database: {error}"),
            "fix what `dpkg --audit` complains about",
        )),
    }
    if let Ok(disk) = rustix::fs::statvfs(root.at("/var/lib")) {
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < ROOM {
            findings.push(Finding::fault(
                format!("only {} MiB are free below /var/lib", free >> 20),
                "free some space, for example with `apt clean`",
            ));
        }
    }
    if !root.is_system() {
        return findings;
    }
    findings.extend(of_units(root));
    // Root makes them without asking for a user namespace, which others may not have.
    let unshare = Program::new("/usr/bin/unshare").args(["--mount", "/bin/true"]).read_only();
    if rustix::process::geteuid().is_root() && unshare.run().is_err() {
        findings.push(Finding::note(
            "mount namespaces are unavailable: venvs are missing while they are rebuilt, and builds share /tmp",
        ));
    }
    if !confine::knows_landlock() {
        findings.push(Finding::note(
            "the kernel has no Landlock: build scripts can write wherever the venv's owner can",
        ));
    }
    findings
}

/// The units by which systemd finishes interrupted work, and does what waits for a window.
const UNITS: [(&str, &str); 2] = [
    ("venvguard-resume.path", "interrupted work stays unfinished"),
    ("venvguard-restart.path", "services that wait for a window are not restarted"),
];

fn of_units(root: &Root) -> Vec<Finding> {
    if !root.runs_systemd() {
        return vec![Finding::note(
            "systemd is not running: run `venvguard resume` after an interruption",
        )];
    }
    let is_inactive = |unit: &str| {
        let program = Program::new("/usr/bin/systemctl");
        program.args(["is-active", "--quiet", unit]).read_only().run().is_err()
    };
    let inactive = UNITS.into_iter().filter(|(unit, _)| is_inactive(unit));
    inactive
        .map(|(unit, so)| {
            Finding::fault(
                format!("{unit} is not active: {so}"),
                format!("`systemctl unmask {unit} && systemctl enable --now {unit}`"),
            )
        })
        .collect()
}
