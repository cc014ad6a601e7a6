//! Venvs that share a service: a run restarts it once for all of them, and judges each venv separately.

use anyhow::{Result, ensure};

use super::Case;
use crate::machine::Machine;
use crate::prepare::upgrade::Kind;
use crate::storm::{is_long, kill_often};

/// Runs a process of each venv. A venv whose inode is recorded works in that directory only: every new tree of it fails.
const PAIR: &str = "#!/bin/sh
for venv in one two; do
    [ ! -e /srv/$venv/inode ] || [ $(stat -c %i /srv/$venv/venv) = $(cat /srv/$venv/inode) ] || exit 3
done
/srv/one/venv/bin/python -c 'import time; time.sleep(9000)' &
exec /srv/two/venv/bin/python -c 'import time; time.sleep(9000)'
";

const UNIT: &str = "[Service]
User=app
ExecStartPre=+/bin/sh -c 'echo started >>/run/starts'
ExecStart=/srv/pair
";

pub(super) fn cases() -> Vec<Case> {
    vec![Case::guarded("shared_service", Kind::TrixieMinor, &[], shared)]
}

fn shared(machine: &Machine) -> Result<()> {
    for venv in ["one", "two"] {
        machine.must(&format!(
            "install -d -o app /srv/{venv}; su app -c '/usr/bin/python3 -m venv --without-pip /srv/{venv}/venv'"
        ))?;
    }
    machine.write("/srv/pair", PAIR)?;
    machine.write("/etc/systemd/system/pair.service", UNIT)?;
    machine.must("chmod 755 /srv/pair; systemctl daemon-reload; systemctl start pair")?;
    machine.must("dpkg --install /package/venvguard_*.deb")?;
    machine
        .must("mkdir -p /etc/venvguard; printf 'stable-for = 1\\n' >/etc/venvguard/config.toml")?;
    machine.must("venvguard register /srv/one/venv --name one")?;
    // Its check accepts only the old interpreter.
    let old = &machine.upgrade.about.from.minor;
    machine.must(&format!(
        "venvguard register /srv/two/venv --name two \
         --check \"/srv/two/venv/bin/python -c 'import sys; sys.exit(sys.version_info[:2] != ({}))'\"",
        old.replace('.', ", ")
    ))?;
    ensure!(starts(machine)? == 1, "{} starts before the upgrade", starts(machine)?);
    let (_, shown) = machine.venvguard_json("show one")?;
    let venv = &shown["venvs"][0];
    let found = &venv["services_found"][0];
    ensure!(found["name"] == "pair.service" && found["evidence"] == "process", "{shown}");
    ensure!(venv["processes"][0]["service"] == "systemd:pair.service", "{shown}");

    let said = machine.must_upgrade_python()?;
    // Two restarts: one for both venvs, and one for the venv that is rolled back.
    ensure!(starts(machine)? == 3, "{} starts\n{}", starts(machine)?, said.text);
    let new = &machine.upgrade.about.to.minor;
    ensure!(runs(machine, "one")? == *new, "one was not rebuilt\n{}", said.text);
    ensure!(runs(machine, "two")? == *old, "two was not rolled back\n{}", said.text);
    ensure!(said.text.contains("two: pinned: it still works"), "{said:?}");

    // Now its check accepts any.
    machine.must("venvguard register /srv/two/venv --check /bin/true && venvguard rebuild two")?;
    ensure!(runs(machine, "two")? == *new, "two was not rebuilt");
    ensure!(starts(machine)? == 4, "{} starts after two was rebuilt", starts(machine)?);
    machine.must("venvguard rebuild one two")?;
    ensure!(starts(machine)? == 5, "{} starts after both were rebuilt", starts(machine)?);
    machine.must("venvguard rebuild --prepare one two")?;
    ensure!(starts(machine)? == 5, "a preparation restarted the service");
    machine.must("venvguard rebuild one two")?;
    ensure!(starts(machine)? == 6, "{} starts after both were swapped in", starts(machine)?);
    is_well(machine)?;
    one_breaks_the_service(machine, "one")?;
    one_breaks_the_service(machine, "two")?;
    storm(machine)
}

/// A new tree that breaks the shared service is rolled back, and the other venv works in either tree, whichever is first.
fn one_breaks_the_service(machine: &Machine, bad: &str) -> Result<()> {
    machine.must(&format!("stat -c %i /srv/{bad}/venv >/srv/{bad}/inode"))?;
    let said = machine.run("venvguard rebuild one two")?;
    ensure!(said.code == 1, "{said:?}");
    ensure!(said.text.contains(&format!("{bad}: rolled-back")), "{said:?}");
    ensure!(!said.text.contains(": failed"), "{said:?}");
    let inode = machine.must(&format!("stat -c %i /srv/{bad}/venv; cat /srv/{bad}/inode"))?;
    let inodes: Vec<&str> = inode.lines().collect();
    ensure!(inodes[0] == inodes[1], "{bad} has another tree: {said:?}");
    is_well(machine)?;
    machine.must(&format!("rm /srv/{bad}/inode"))?;
    Ok(())
}

/// Kills a rebuild of both.
fn storm(machine: &Machine) -> Result<()> {
    let stride = if is_long() { 9 } else { 19 };
    kill_often(machine, "rebuild one two", (stride, 5), is_well)
}

/// Both work, the service is up, and nothing is left to do.
fn is_well(machine: &Machine) -> Result<()> {
    let new = &machine.upgrade.about.to.minor;
    for venv in ["one", "two"] {
        ensure!(runs(machine, venv)? == *new, "{venv}");
    }
    machine.must("systemctl is-active pair; test -z \"$(ls /var/lib/venvguard/journal)\"")?;
    let status = machine.must("venvguard status")?;
    ensure!(!status.contains("restart"), "{status}");
    Ok(())
}

fn starts(machine: &Machine) -> Result<usize> {
    Ok(machine.must("cat /run/starts")?.lines().count())
}

fn runs(machine: &Machine, venv: &str) -> Result<String> {
    let version = "import sys; print(\"%d.%d\" % sys.version_info[:2])";
    Ok(machine.must(&format!("/srv/{venv}/venv/bin/python -c '{version}'"))?.trim().to_string())
}
