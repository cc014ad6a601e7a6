//! dpkg dies in the middle: Python is partly unpacked, its service still runs, and the upgrade is finished later.

use anyhow::{Result, ensure};

use super::{Case, Half};
use crate::guard::On;
use crate::machine::{Machine, services_of};
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    let case = |half, run| Case {
        subject: "dpkg_fails_halfway",
        half,
        upgrade: Kind::TrixieMinor,
        sites: &[Site::Followed, Site::Copied],
        extra: &[],
        run,
    };
    vec![case(Half::Unguarded, unguarded), case(Half::Guarded, guarded)]
}

/// The default Python has moved although the upgrade failed; a restart now ends the service.
fn unguarded(machine: &Machine) -> Result<()> {
    fail_halfway(machine)?;
    let service = &services_of(Site::Followed)[0];
    machine.page(service, "/ok")?;
    machine.restart(service)?;
    machine.wait_for_log(service, "ModuleNotFoundError: No module named 'gunicorn'")?;
    machine.wait_until_failed(service)
}

/// The services work, even after a restart, while dpkg is halfway; once the upgrade is finished, `resume` finishes the
/// rest.
fn guarded(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    fail_halfway(machine)?;
    for service in machine.services() {
        machine.page(&service, "/ok")?;
        machine.restart(&service)?;
        machine.wait_until_serving(&service)?;
    }
    finish(machine)?;
    let resumed = machine.venvguard("resume")?;
    ensure!(resumed.code == 0, "resume: {resumed:?}");
    machine.assert_guarded(&[(Site::Followed, On::New), (Site::Copied, On::Old)])
}

/// Upgrades Python together with a package that cannot be unpacked.
fn fail_halfway(machine: &Machine) -> Result<()> {
    let packages = machine.upgrade.about.packages.join(" ");
    let said = machine.apt(&format!("install {packages} lab-halt"))?;
    ensure!(said.code == 100, "apt-get: {said:?}");
    ensure!(said.text.contains("Unpacking python3"), "nothing was unpacked: {said:?}");
    let audit = machine.must("dpkg --audit")?;
    ensure!(audit.contains("python3"), "Python is not halfway: {audit:?}");
    Ok(())
}

/// Finishes the upgrade as dpkg's own message advises. No hook of apt's runs here.
fn finish(machine: &Machine) -> Result<()> {
    machine.must("dpkg --configure --pending")?;
    let audit = machine.must("dpkg --audit")?;
    ensure!(audit.is_empty(), "packages are still halfway: {audit}");
    Ok(())
}
