//! A hold: apt keeps Python and upgrades the rest.

use anyhow::{Result, ensure};

use super::Case;
use crate::guard::On;
use crate::machine::Machine;
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    vec![Case::guarded("hold", Kind::TrixieMinor, &[Site::Followed], hold)]
}

const FILE: &str = "/etc/apt/preferences.d/venvguard-hold.pref";

fn hold(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    machine.must("venvguard hold --for 14d --reason 'shop is not ready'")?;
    let python = "dpkg-query --show python3 python3-minimal 'python3.*'";
    let (before, all) = (machine.must(python)?, machine.packages()?);
    let said = machine.apt("dist-upgrade")?;
    ensure!(said.code == 0, "{said:?}");
    ensure!(machine.must(python)? == before, "Python was upgraded: {said:?}");
    ensure!(machine.packages()? != all, "nothing else was upgraded: {said:?}");
    machine.assert_guarded(&[(Site::Followed, On::Old)])?;
    for command in ["venvguard status", "venvguard doctor"] {
        let said = machine.run(command)?;
        ensure!(said.text.contains("python3-minimal"), "{command}: {said:?}");
    }
    ensure!(machine.must("venvguard plan")?.contains("no interpreter changes"), "plan");

    // Its time is over: the next run removes it, and the one after that upgrades Python.
    machine.must(&format!("sed -i 's/^# Until: .*/# Until: 2026-01-01T00:00:00Z/' {FILE}"))?;
    let said = machine.apt("install --reinstall python3-pip-whl")?;
    ensure!(said.text.contains("has ended"), "{said:?}");
    ensure!(machine.run(&format!("test -e {FILE}"))?.code != 0, "the hold is still there");
    machine.must("venvguard hold && venvguard unhold")?;
    machine.must_upgrade_python()?;
    machine.assert_guarded(&[(Site::Followed, On::New)])
}
