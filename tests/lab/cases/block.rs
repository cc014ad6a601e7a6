//! A venv whose owner wants no upgrade without their consent: policy `block`.

use anyhow::{Result, ensure};

use super::{Case, Half};
use crate::machine::{Machine, services_of};
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    let case = |half, run| Case {
        subject: "policy_block",
        half,
        upgrade: Kind::TrixieMinor,
        sites: &[Site::Followed, Site::Copied],
        extra: &[],
        run,
    };
    vec![case(Half::Unguarded, unguarded), case(Half::Guarded, guarded)]
}

/// Nothing stops the upgrade, and the service does not survive its next restart.
fn unguarded(machine: &Machine) -> Result<()> {
    let before = machine.packages()?;
    machine.must_upgrade_python()?;
    ensure!(machine.packages()? != before, "nothing was upgraded");
    let service = &services_of(Site::Followed)[0];
    machine.restart(service)?;
    machine.wait_until_failed(service)
}

/// apt stops before it unpacks anything; the message names the venv and a remedy.
fn guarded(machine: &Machine) -> Result<()> {
    machine.must("dpkg --install /package/venvguard_*.deb")?;
    machine.register(Site::Followed, "--policy block")?;
    machine.register(Site::Copied, "")?;
    let packages = machine.packages()?;
    let pids = [Site::Followed, Site::Copied].map(|site| machine.pids_of(&site.venv()));
    let said = machine.upgrade_python()?;
    ensure!(said.code == 100, "apt-get: {said:?}");
    ensure!(!said.text.contains("Unpacking "), "something was unpacked: {}", said.text);
    ensure!(machine.packages()? == packages, "packages have changed");
    for (site, before) in [Site::Followed, Site::Copied].into_iter().zip(pids) {
        ensure!(machine.pids_of(&site.venv())? == before?, "{} was touched", site.name());
    }
    let about = &machine.upgrade.about;
    for word in [
        Site::Followed.venv().as_str(),
        "/usr/bin/python3",
        &about.from.upstream,
        &about.to.upstream,
        "hint: ",
        "venvguard ",
    ] {
        ensure!(said.text.contains(word), "the reason does not name {word:?}:\n{}", said.text);
    }
    for service in machine.services() {
        machine.page(&service, "/ok")?;
    }
    Ok(())
}
