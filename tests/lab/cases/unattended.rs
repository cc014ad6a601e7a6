//! unattended-upgrades: a venv that would block the upgrade of Python holds back Python alone.

use anyhow::{Result, ensure};

use super::Case;
use crate::machine::{Machine, wait_for};
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    let kind = Kind::TrixieRevision;
    let case = Case::guarded("unattended_upgrades", kind, &[Site::Followed], unattended);
    vec![Case { extra: &["unattended-upgrades"], ..case }]
}

/// A package that has nothing to do with Python: version 1 is installed, version 2 is in a repository.
const OTHER: &str = r#"
mkdir -p /more /other/DEBIAN
for version in 1 2; do
    printf 'Package: other\nVersion: %s\nArchitecture: all\nMaintainer: lab\nDescription: lab\n' $version \
        >/other/DEBIAN/control
    dpkg-deb --build /other /more/other_$version.deb
done
dpkg --install /more/other_1.deb
{ cat /other/DEBIAN/control
  printf 'Filename: ./other_2.deb\nSize: %s\nSHA256: %s\n' \
      $(stat -c %s /more/other_2.deb) $(sha256sum /more/other_2.deb | cut -d' ' -f1); } >/more/Packages
echo 'deb [trusted=yes] file:/more ./' >/etc/apt/sources.list.d/more.list
printf 'Unattended-Upgrade::Origins-Pattern { "origin=*"; };\n' >/etc/apt/apt.conf.d/99lab
"#;

fn unattended(machine: &Machine) -> Result<()> {
    machine.must("dpkg --install /extra/*.deb")?;
    machine.install_guard()?;
    machine.must(OTHER)?;
    machine.must("sed -i 's/^#forecast = false/forecast = true/' /etc/venvguard/config.toml")?;
    let python = || machine.must("dpkg-query --show 'python3*-minimal'");
    let other = || machine.must("dpkg-query --show --showformat '${Version}' other");
    let old = python()?;

    machine.must("venvguard register /srv/followed/venv --policy block")?;
    forecast(machine)?;
    let status = machine.run("venvguard status")?;
    let held = "Python has been held since";
    ensure!(status.text.contains(held) && status.text.contains("policy"), "{status:?}");
    // The hold does not end because apt no longer offers what it holds.
    forecast(machine)?;
    ensure!(machine.run("venvguard status")?.text.contains(held), "a second forecast ended it");
    let dry = machine.must("unattended-upgrade --dry-run --verbose")?;
    ensure!(other()? == "1" && python()? == old, "the dry run changed something: {dry}");
    let said = machine.must("unattended-upgrade --verbose")?;
    ensure!(other()? == "2", "the other package was not upgraded: {said}");
    ensure!(python()? == old, "Python was upgraded: {said}");
    let log = machine.must("cat /var/log/unattended-upgrades/*.log")?;
    ensure!(log.contains(held), "the log does not name the hold: {log}");

    machine.must("venvguard register /srv/followed/venv --policy auto")?;
    forecast(machine)?;
    let status = machine.run("venvguard status")?;
    ensure!(!status.text.contains(held), "Python is still held: {status:?}");
    let said = machine.must("unattended-upgrade --verbose")?;
    ensure!(python()? != old, "Python was not upgraded: {said}");
    machine.must("venvguard status")?;
    machine.wait_until_all_serve()
}

/// Updates the package lists, as apt's timer does, and waits for the forecast.
fn forecast(machine: &Machine) -> Result<()> {
    machine.must("apt-get -qq update")?;
    wait_for("the forecast", || {
        let state = "systemctl show --property=ActiveState --value venvguard-forecast";
        Ok(machine.must(state)?.trim() == "inactive")
    })
}
