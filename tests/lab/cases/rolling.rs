//! Instances of a template restart one after another; if the first fails, the others never notice.

use anyhow::{Context as _, Result, ensure};

use super::Case;
use crate::machine::Machine;
use crate::prepare::upgrade::Kind;

const UNIT: &str = "[Service]
User=app
ExecStartPre=+/bin/sh -c 'echo %i $(date +%%s) >>/run/starts'
ExecStart=/srv/pool/venv/bin/python -c 'import time; time.sleep(9000)'
";

/// The first instance starts in one directory only: every new tree fails.
const FAILS: &str = "[Service]
ExecStartPre=/bin/sh -c 'test $(stat -c %%i /srv/pool/venv) = $(cat /srv/pool/inode)'
";

/// Seconds between two instances.
const PAUSE: u64 = 2;

pub(super) fn cases() -> Vec<Case> {
    let case = |subject, run| Case::guarded(subject, Kind::TrixieMinor, &[], run);
    vec![case("rolling", rolls), case("rolling_fails", fails)]
}

fn make_pool(machine: &Machine) -> Result<()> {
    machine.must(
        "install -d -o app /srv/pool; su app -c '/usr/bin/python3 -m venv --without-pip /srv/pool/venv'
         stat -c %i /srv/pool/venv >/srv/pool/inode",
    )?;
    machine.write("/etc/systemd/system/pool@.service", UNIT)?;
    machine.must("systemctl daemon-reload; systemctl start pool@1 pool@2 pool@10")?;
    machine.must("dpkg --install /package/venvguard_*.deb")?;
    machine
        .must("mkdir -p /etc/venvguard; printf 'stable-for = 1\\n' >/etc/venvguard/config.toml")?;
    machine.must(&format!(
        "venvguard register /srv/pool/venv --name pool --rolling {PAUSE}s; : >/run/starts"
    ))?;
    Ok(())
}

fn pid(machine: &Machine, instance: &str) -> Result<String> {
    machine.must(&format!("systemctl show --property=MainPID --value pool@{instance}"))
}

fn rolls(machine: &Machine) -> Result<()> {
    make_pool(machine)?;
    let said = machine.must_upgrade_python()?;
    ensure!(said.text.contains("venvguard: pool: rebuilt"), "{said:?}");
    let starts = machine.must("cat /run/starts")?;
    let starts: Vec<(&str, u64)> = starts
        .lines()
        .map(|line| {
            let (instance, time) = line.split_once(' ').context("no time")?;
            Ok((instance, time.parse()?))
        })
        .collect::<Result<_>>()?;
    let order: Vec<&str> = starts.iter().map(|(instance, _)| *instance).collect();
    ensure!(order == ["1", "2", "10"], "{starts:?}");
    let is_apart = |pair: &[(&str, u64)]| pair[1].1 - pair[0].1 >= PAUSE;
    ensure!(starts.windows(2).all(is_apart), "{starts:?}");
    let new = machine.upgrade.about.to.minor.clone();
    for instance in ["1", "2", "10"] {
        let pid = pid(machine, instance)?;
        let exe = machine.must(&format!("readlink /proc/{}/exe", pid.trim()))?;
        ensure!(exe.contains(&format!("python{new}")), "pool@{instance} runs {exe}");
    }
    Ok(())
}

fn fails(machine: &Machine) -> Result<()> {
    make_pool(machine)?;
    machine.must("mkdir /etc/systemd/system/pool@1.service.d")?;
    machine.write("/etc/systemd/system/pool@1.service.d/x.conf", FAILS)?;
    machine.must("systemctl daemon-reload")?;
    let before = [pid(machine, "2")?, pid(machine, "10")?];
    let said = machine.must_upgrade_python()?;
    let told = "left as they were: systemd:pool@2.service, systemd:pool@10.service";
    ensure!(said.text.contains(told), "{told:?} is missing from the output: {said:?}");
    ensure!([pid(machine, "2")?, pid(machine, "10")?] == before, "they restarted: {said:?}");
    let starts = machine.must("cut -d' ' -f1 /run/starts | sort -u")?;
    ensure!(starts.trim() == "1", "{starts}");
    machine.must("systemctl is-active pool@1 pool@2 pool@10")?;
    let old = machine.upgrade.about.from.minor.clone();
    let link = machine.must("readlink -f /srv/pool/venv/bin/python")?;
    ensure!(link.contains(&format!("python{old}")), "it is not pinned: {link}");
    Ok(())
}
