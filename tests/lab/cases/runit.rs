//! Services of runit, which is itself a single unit of systemd's.

use anyhow::{Context, Result, ensure};

use super::Case;
use crate::machine::{Machine, wait_for};
use crate::prepare::upgrade::Kind;

pub(super) fn cases() -> Vec<Case> {
    let case = Case::guarded("runit_patch", Kind::ArticlePatch, &[], patch);
    vec![Case { extra: &["runit", "runit-run"], ..case }]
}

/// An upgrade restarts the services that run from a guarded venv, but neither other services nor runit as a whole. A
/// service that was down stays down, after a rebuild too.
fn patch(machine: &Machine) -> Result<()> {
    machine.must("dpkg --install /extra/*.deb && systemctl start runit")?;
    for venv in ["shop", "other"] {
        machine.must(&format!(
            "install -d -o app /srv/{venv} && su app -c '/usr/bin/python3 -m venv --without-pip /srv/{venv}/venv'"
        ))?;
    }
    for (service, venv) in [("shop", "shop"), ("off", "shop"), ("other", "other")] {
        machine.must(&format!(
            "mkdir /etc/sv/{service}
             printf '#!/bin/sh\\nexec chpst -u app /srv/{venv}/venv/bin/python -c \"import time; time.sleep(9000)\"\\n' \
                 >/etc/sv/{service}/run
             chmod 755 /etc/sv/{service}/run; ln -s /etc/sv/{service} /etc/service/"
        ))?;
        wait_for(service, || Ok(machine.run(&format!("sv check {service}"))?.code == 0))?;
    }
    machine.must("sv stop off")?;
    machine.must("dpkg --install /package/venvguard_*.deb")?;
    machine.must("venvguard register /srv/shop/venv --name shop")?;
    let runit =
        "systemctl show --property=InvocationID --property=MainPID runit; pgrep -x runsvdir";
    let before = machine.must(runit)?;
    let (shop, other) = (pid(machine, "shop")?, pid(machine, "other")?);

    let said = machine.must_upgrade_python()?;
    let restarted = pid(machine, "shop")?;
    ensure!(restarted != shop, "shop was not restarted\n{}", said.text);
    ensure!(pid(machine, "other")? == other, "other was restarted\n{}", said.text);
    ensure!(machine.must(runit)? == before, "runit was restarted\n{}", said.text);
    is_off(machine)?;
    let status = machine.must("venvguard status")?;
    ensure!(status.contains("healthy"), "{status}");
    ensure!(
        machine.must("venvguard history")?.contains("runit:shop"),
        "runit:shop is not in the history"
    );

    machine.must("venvguard rebuild shop")?;
    ensure!(pid(machine, "shop")? != restarted, "shop was not restarted for its rebuild");
    ensure!(machine.must(runit)? == before, "runit was restarted for a rebuild");
    is_off(machine)?;

    // The error names a service that does not come back. runit never gives up on one, so venvguard waits for it until the
    // timeout, and again after the rollback.
    machine.must("printf 'service-timeout = 5\n' >/etc/venvguard/config.toml")?;
    machine.must("printf '#!/bin/sh\\nexit 1\\n' >/etc/sv/shop/run; venvguard register /srv/shop/venv --service runit:shop")?;
    let said = machine.run("venvguard rebuild shop")?;
    ensure!(said.code != 0 && said.text.contains("runit:shop "), "{said:?}");
    ensure!(pid(machine, "other")? == other, "other was restarted");
    Ok(())
}

fn is_off(machine: &Machine) -> Result<()> {
    let off = machine.must("sv status off")?;
    ensure!(off.starts_with("down: off: "), "off was started: {off}");
    Ok(())
}

/// The process of a service, which a restart replaces.
fn pid(machine: &Machine, service: &str) -> Result<u32> {
    let status = machine.must(&format!("sv status {service}"))?;
    let pid = status.strip_prefix(&format!("run: {service}: (pid "));
    let pid = pid.and_then(|rest| rest.split(')').next()).context(status.clone())?;
    Ok(pid.parse()?)
}
