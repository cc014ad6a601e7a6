//! Venvs that a command of their application builds.

use anyhow::{Result, ensure};

use super::Case;
use crate::guard::On;
use crate::machine::{Machine, services_of};
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    let case = |subject, upgrade, run| Case::guarded(subject, upgrade, &[Site::Followed], run);
    vec![
        case("built_by_a_command_bookworm_to_trixie", Kind::BookwormMinor, built),
        case("built_by_a_command_trixie_to_forky", Kind::TrixieMinor, built),
        case("built_by_a_command_in_a_rehearsal", Kind::TrixieMinor, rehearsed),
        case("build_command_that_fails", Kind::TrixieMinor, fails),
    ]
}

const COMMAND: &str = "/usr/local/bin/build-followed";

/// Installs what the application needs, by the venv's own pip.
const BUILDS: &str = r#"#!/bin/sh -e
[ "$1" = "for production" ]
[ "$(command -v pip)" = "$VENVGUARD_PATH/bin/pip" ]
pip install --quiet gunicorn
echo "$(id -un) $(pwd) $VENVGUARD_VENV $VENVGUARD_PYTHON_FROM $VENVGUARD_PYTHON_TO" >"$VENVGUARD_PATH/built"
"#;

const FAILS: &str = r#"#!/bin/sh
pip install --quiet no-such-distribution
for line in 1 2 3 4 5 6 7 8; do echo "cleaning up $line" >&2; done
exit 3
"#;

/// What is reported: how it ended, and its first error.
const TOLD: [&str; 2] = [
    "its build command failed: build-followed exited 3",
    "ERROR: Could not find a version that satisfies the requirement no-such-distribution",
];

/// Installs venvguard, and registers the site with a command that runs this script.
fn install_guard(machine: &Machine, script: &str) -> Result<()> {
    machine.must("dpkg --install /package/venvguard_*.deb")?;
    write_command(machine, script)?;
    machine.register(Site::Followed, &format!("--build-command \"{COMMAND} 'for production'\""))
}

fn write_command(machine: &Machine, script: &str) -> Result<()> {
    machine.write(COMMAND, script)?;
    machine.must(&format!("chmod 755 {COMMAND}")).map(drop)
}

fn assert_built(machine: &Machine) -> Result<()> {
    machine.assert_guarded(&[(Site::Followed, On::New)])?;
    let (old, new) = (&machine.upgrade.about.from.minor, &machine.upgrade.about.to.minor);
    let built = machine.must(&format!("cat {}/built", Site::Followed.venv()))?;
    ensure!(built == format!("app /srv/followed followed {old} {new}\n"), "{built}");
    Ok(())
}

fn built(machine: &Machine) -> Result<()> {
    install_guard(machine, BUILDS)?;
    let said = machine.must_upgrade_python()?;
    ensure!(said.text.contains("venvguard: followed: rebuilt"), "{said:?}");
    assert_built(machine)
}

/// The command fills the tree for a Python that is not installed yet, and the upgrade swaps that tree in.
fn rehearsed(machine: &Machine) -> Result<()> {
    install_guard(machine, BUILDS)?;
    let (code, said) = machine.venvguard_json("rehearse followed")?;
    let venv = &said["venvs"][0];
    ensure!(code == 0 && venv["ready"] == true && venv["proof"] == "rehearsed", "{said}");
    machine.assert_guarded(&[(Site::Followed, On::Old)])?;
    let tree = machine.must("stat -c %i /srv/followed/.venv.venvguard-*")?;
    machine.must_upgrade_python()?;
    ensure!(machine.must("stat -c %i /srv/followed/venv")? == tree, "another tree is in place");
    assert_built(machine)
}

/// The rehearsal names the reason, which blocks the upgrade of a venv that must be rebuilt. Another one stays pinned.
fn fails(machine: &Machine) -> Result<()> {
    let old = machine.upgrade.about.from.clone();
    install_guard(machine, FAILS)?;
    machine.register(Site::Followed, "--policy rebuild")?;
    let (code, said) = machine.venvguard_json("rehearse followed")?;
    let finding = &said["venvs"][0]["findings"][0];
    let detail = finding["detail"].as_str().unwrap_or_default();
    ensure!(code == 3 && finding["kind"] == "build-failed", "{said}");
    ensure!(TOLD.iter().all(|told| detail.contains(told)), "{said}");
    let packages = machine.packages()?;
    let blocked = machine.upgrade_python()?;
    ensure!(blocked.code != 0 && blocked.text.contains("blocked"), "{blocked:?}");
    ensure!(blocked.text.contains(TOLD[0]), "{}", blocked.text);
    ensure!(machine.packages()? == packages, "something was unpacked");

    machine.register(Site::Followed, "--policy auto")?;
    machine.must_upgrade_python()?;
    let is_on_old_python = || {
        let version = machine.answering_version(&services_of(Site::Followed)[0])?;
        ensure!(version == old.upstream, "it answers with {version}");
        Ok(())
    };
    is_on_old_python()?;
    let said = machine.run("venvguard rebuild followed")?;
    ensure!(said.code == 1 && TOLD.iter().all(|told| said.text.contains(told)), "{said:?}");
    is_on_old_python()?;
    write_command(machine, BUILDS)?;
    machine.must("venvguard rebuild followed")?;
    machine.assert_guarded(&[(Site::Followed, On::New)])
}
