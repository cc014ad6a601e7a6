//! `doctor` finds planted faults, and the commands that it reports fix them.

use anyhow::{Context, Result, ensure};

use super::{Case, Half};
use crate::machine::Machine;
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    vec![Case {
        subject: "doctor_finds_and_fixes",
        half: Half::Guarded,
        upgrade: Kind::TrixieMinor,
        sites: &[Site::Bare],
        extra: &[],
        run,
    }]
}

/// Commands that plant a fault, and words of the report.
const PLANTED: &[(&str, &str)] = &[
    ("rm /etc/apt/apt.conf.d/50venvguard", "apt does not call venvguard before dpkg"),
    (
        "sed -i /Post-Invoke/d /etc/apt/apt.conf.d/50venvguard",
        "apt does not call venvguard after dpkg",
    ),
    (
        "echo 'DPkg::Post-Invoke { \"test ! -x /usr/lib/needrestart/apt-pinvoke\"; };' >/etc/apt/apt.conf.d/10needrestart",
        "needrestart restarts services before venvguard",
    ),
    ("chmod 775 /usr/sbin/venvguard", "users other than root can change /usr/sbin/venvguard"),
    (
        "systemctl disable --quiet --now venvguard-resume.path",
        "venvguard-resume.path is not active",
    ),
    (
        "systemctl disable --quiet --now venvguard-restart.path",
        "venvguard-restart.path is not active",
    ),
    ("systemctl mask --quiet --now venvguard-resume.path", "venvguard-resume.path is not active"),
    (
        "sed -i '/^Package: python3-minimal$/,/^$/s/^Status: .*/Status: install ok half-configured/' /var/lib/dpkg/status",
        "dpkg has not finished with python3-minimal",
    ),
    ("chmod 777 /var/lib/venvguard", "/var/lib/venvguard cannot be trusted"),
    (": >/var/lib/venvguard/registry.json", "registry.json, line 1: it is empty"),
    ("echo [] >/var/lib/venvguard/transaction.json", "transaction.json, line 1: "),
    (
        "mkdir -p /var/lib/venvguard/journal; printf '{' >/var/lib/venvguard/journal/0.json",
        "0.json, line 1: it is truncated",
    ),
    ("echo 'enigne = \"pip\"' >>/etc/venvguard/config.toml", "did you mean `engine`?"),
    ("venvguard-faults --die-at 20 rebuild bare", "an interrupted repair of bare is unfinished"),
    ("venvguard hook trigger", "an upgrade changed Python"),
    (
        "python3 -m venv --without-pip /srv/gone/venv; venvguard register /srv/gone/venv; rm -r /srv/gone",
        "gone is missing",
    ),
    (
        "echo '#!/bin/true' >/root/check; chmod 755 /root/check
         venvguard register /srv/bare/venv --check /root/check; rm /root/check",
        "the program of the check of bare is missing: /root/check",
    ),
    (
        "echo 'flask==3.0 --hash=sha256:ab' >/root/lock.txt
         venvguard register /srv/bare/venv --lock /root/lock.txt; rm /root/lock.txt",
        "the lock file of bare is missing: /root/lock.txt",
    ),
    (
        "python3 -m venv --without-pip /srv/odd/venv; venvguard register /srv/odd/venv
         chmod 777 /srv/odd",
        "odd could not be rebuilt: ",
    ),
];

fn run(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    // Saves the registry again, so that an earlier copy exists.
    machine.must(
        "venvguard register /srv/bare/venv
         install -m 755 /package/venvguard-faults /usr/local/sbin/venvguard-faults",
    )?;
    is_well(machine).context("before anything was planted")?;
    for (planted, told) in PLANTED {
        machine.run(planted)?;
        let said = machine.stdout("venvguard doctor")?;
        ensure!(said.code == 3 && said.text.contains(told), "{planted}: {said:?}");
        // One fix may bring another fault to light.
        for _ in 0..3 {
            for fix in fixes(machine)? {
                machine.run(&fix)?;
            }
        }
        is_well(machine).with_context(|| format!("{planted}\n{}", said.text))?;
    }
    comes_back(machine)?;
    println!("lab: doctor found {} planted faults, and what it reported fixed them", PLANTED.len());
    Ok(())
}

/// The commands that `doctor` reports recreate a removed venv with its distributions.
fn comes_back(machine: &Machine) -> Result<()> {
    let freeze = "/srv/back/venv/bin/python -m pip freeze --all --exclude pip --exclude setuptools";
    machine.must(
        "set -e
         python3 -m venv --system-site-packages /srv/back/venv
         /srv/back/venv/bin/pip --quiet install gunicorn
         venvguard register /srv/back/venv",
    )?;
    let before = machine.stdout(freeze)?;
    ensure!(before.text.contains("gunicorn=="), "{before:?}");
    machine.must("rm -r /srv/back/venv")?;
    let said = machine.stdout("venvguard doctor")?;
    let told = said.text.lines().find(|line| line.contains("back is missing")).unwrap_or_default();
    let commands: Vec<&str> = told.split('`').skip(1).step_by(2).collect();
    ensure!(commands.len() == 2, "{said:?}");
    machine.must(&commands.join(" && "))?;
    let after = machine.stdout(freeze)?;
    ensure!(after.text == before.text, "{commands:?}: {after:?}, before {before:?}");
    is_well(machine).context("after a removed venv came back")?;
    // Distributions that somebody removed do not come back.
    machine.must(
        "find /srv/back/venv/lib/python3*/site-packages -mindepth 1 -delete
         venvguard rebuild back
         ! ls /srv/back/venv/lib/python3*/site-packages | grep gunicorn",
    )?;
    machine.must("venvguard unregister back").map(drop)
}

fn is_well(machine: &Machine) -> Result<()> {
    let said = machine.stdout("venvguard doctor")?;
    ensure!(said.code == 0 && said.text.contains("no fault was found"), "{said:?}");
    Ok(())
}

/// The commands that it reports, word for word, except that a real file replaces the placeholder `FILE`.
fn fixes(machine: &Machine) -> Result<Vec<String>> {
    let said = machine.stdout("venvguard doctor")?;
    let lines = said.text.lines().filter_map(|line| line.strip_prefix("    fix: "));
    let command = |line: &str| {
        let command = line.split('`').nth_back(1)?;
        Some(command.replace("--lock FILE", "--requirements /etc/hostname"))
    };
    Ok(lines.filter_map(command).collect())
}
