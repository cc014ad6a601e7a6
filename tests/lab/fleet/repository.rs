//! The role `guard` with a signed repository.

use anyhow::{Result, ensure};

use super::{Fleet, mirror};

pub(super) fn run(fleet: &Fleet) -> Result<()> {
    let (controller, host) = (&fleet.controller, &fleet.hosts[0]);
    mirror::publish(&controller.machine, "venvguard", &[&fleet.package])?;
    controller.write("mirror.asc", &controller.mirrors_key)?;
    controller.write("repository.yml", include_str!("repository.yml"))?;
    let address = format!("http://{}:8000/venvguard", host.controllers_address);
    let role = format!("repository.yml -e repository={address}");
    let is_installed = || host.machine.is_installed("venvguard");

    controller.must_play(&format!("{role} --check --diff"))?;
    host.machine.must("test ! -e /etc/apt/sources.list.d/venvguard.sources")?;

    mirror::sign(&controller.machine, "venvguard", "stranger")?;
    let refused = controller.play(&role)?;
    ensure!(refused.code != 0 && !is_installed()?, "a stranger's signature is accepted");

    // The repository is configured now, and apt still knows nothing of the package.
    mirror::sign(&controller.machine, "venvguard", "mirror")?;
    let check = controller.must_play(&format!("{role} --check --diff"))?;
    ensure!(!is_installed()?, "the role installs in check mode");
    let real = controller.must_play(&role)?;
    ensure!(is_installed()?, "the role does not install");
    check.announces(&real, &host.name)?;
    for again in [format!("{role} --check"), role] {
        controller.must_play(&again)?.changes_nothing(&host.name)?;
    }
    let policy = host.machine.must("apt-cache policy venvguard")?;
    ensure!(policy.contains(&address), "it is not from the repository: {policy}");
    Ok(())
}
