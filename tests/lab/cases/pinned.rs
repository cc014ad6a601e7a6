//! Venvs that an upgrade has pinned because they were not ready: a later forecast moves them to the new Python.

use anyhow::{Result, ensure};

use super::Case;
use super::minor::WHEEL;
use crate::guard::On;
use crate::machine::{Machine, services_of};
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    let (kind, sites) = (Kind::TrixieMinor, &[Site::Followed]);
    vec![
        Case::guarded("pinned_until_there_is_a_wheel", kind, sites, moved),
        Case::guarded("pinned_as_services_allow", kind, sites, restrained),
        Case::guarded("pinned_for_good_after_a_failure", kind, sites, failing),
    ]
}

/// The day after, when the forecast tries a venv again that was not ready.
const TOMORROW: &str =
    r#"sed -i 's/"at": *"20[0-9][0-9]/"at": "2020/' /var/lib/venvguard/rehearsals/*/*.json"#;

/// Upgrades Python under a venv with a distribution that has a wheel for the old Python only.
fn pin(machine: &Machine) -> Result<()> {
    let old = machine.upgrade.about.from.minor.replace('.', "");
    machine.write("/root/wheel.py", WHEEL)?;
    machine.must(&format!(
        "mkdir /wheels && cd /wheels && python3 /root/wheel.py tight 1.2.3 cp{old}
         printf '[global]\\nno-index = true\\nfind-links = /wheelhouse\\n    /wheels\\n' >/etc/pip.conf
         su app -c '{}/bin/pip install --quiet tight==1.2.3'",
        Site::Followed.venv()
    ))?;
    machine.install_guard()?;
    machine.must("sed -i 's/^#forecast = false/forecast = true/' /etc/venvguard/config.toml")?;
    machine.must_upgrade_python()?;
    stays(machine)?;
    let status = machine.run("venvguard status")?;
    ensure!(
        status.text.contains("pinned to Python") && status.text.contains("tight==1.2.3"),
        "status does not say what is left to do: {status:?}"
    );
    Ok(())
}

/// The distribution gets a wheel for the new Python.
fn publish(machine: &Machine) -> Result<()> {
    let new = machine.upgrade.about.to.minor.replace('.', "");
    machine.must(&format!("cd /wheels && python3 /root/wheel.py tight 1.2.3 cp{new}"))?;
    Ok(())
}

/// The venv serves, on the old Python.
fn stays(machine: &Machine) -> Result<()> {
    let service = &services_of(Site::Followed)[0];
    let version = machine.answering_version(service)?;
    ensure!(version == machine.upgrade.about.from.upstream, "it runs {version}");
    Ok(())
}

/// Waits until neither unit runs, or is about to: a build takes long on a busy host.
const END: &str = "timeout 300 sh -c '
    while systemctl list-jobs --no-legend venvguard-forecast.service venvguard-rebuild.service | grep -q . ||
        systemctl show --property=ActiveState venvguard-forecast venvguard-rebuild | grep -q ating$
    do sleep 0.1; done'";

/// Lets the forecast run, and what it starts.
fn forecast_to_the_end(machine: &Machine) -> Result<()> {
    machine.must("apt-get -qq update")?;
    machine.must(END)?;
    let failed = machine.run("systemctl is-failed venvguard-forecast")?;
    ensure!(failed.code != 0, "{}", machine.must("journalctl --unit='venvguard-*'")?);
    Ok(())
}

/// Neither the forecast nor what it starts does anything to the service.
fn forecast_in_vain(machine: &Machine) -> Result<()> {
    let before = machine.pids_of(&Site::Followed.venv())?;
    forecast_to_the_end(machine)?;
    ensure!(machine.pids_of(&Site::Followed.venv())? == before, "it was restarted");
    stays(machine)
}

fn moved(machine: &Machine) -> Result<()> {
    pin(machine)?;
    forecast_in_vain(machine)?;
    publish(machine)?;
    // Once a day.
    forecast_in_vain(machine)?;
    machine.must(TOMORROW)?;
    forecast_to_the_end(machine)?;
    machine.assert_guarded(&[(Site::Followed, On::New)])?;
    machine.must("/srv/followed/venv/bin/python -c 'import tight'")?;
    let status = machine.run("venvguard status")?;
    ensure!(status.code == 0 && !status.text.contains("pinned"), "{status:?}");
    Ok(())
}

/// The restart mode and the window of a venv hold for the forecast.
fn restrained(machine: &Machine) -> Result<()> {
    let set =
        |options: &str| machine.must(&format!("venvguard register /srv/followed/venv {options}"));
    pin(machine)?;
    publish(machine)?;
    for mode in ["list", "never"] {
        set(&format!("--restart {mode}"))?;
        forecast_in_vain(machine)?;
    }
    let tomorrow = machine.must("date -d tomorrow +%a")?;
    set(&format!("--restart window --window '{} 03:00..05:00'", tomorrow.trim()))?;
    forecast_in_vain(machine)?;
    machine
        .must("ls -d /srv/followed/.venv.venvguard-*; test -e /var/lib/venvguard/waiting.json")?;
    let status = machine.run("venvguard status")?;
    ensure!(status.text.contains("restart in the window of"), "{status:?}");
    set("--restart now")?;
    forecast_to_the_end(machine)?;
    machine.assert_guarded(&[(Site::Followed, On::New)])
}

/// A venv whose services fail on the new tree gets its old tree back, and only a person tries again.
fn failing(machine: &Machine) -> Result<()> {
    pin(machine)?;
    let service = &services_of(Site::Followed)[0];
    machine.must(&format!(
        "venvguard register /srv/followed/venv \
         --check \"sh -c 'curl -fsS --unix-socket {} http://lab/python | grep -qF {}'\"",
        service.socket, machine.upgrade.about.from.upstream
    ))?;
    publish(machine)?;
    let before = machine.pids_of(&Site::Followed.venv())?;
    forecast_to_the_end(machine)?;
    let history = machine.must("venvguard history")?;
    ensure!(machine.pids_of(&Site::Followed.venv())? != before, "it was not tried: {history}");
    stays(machine)?;
    let status = machine.run("venvguard status")?;
    ensure!(status.text.contains("its services failed when it was rebuilt"), "{status:?}");
    machine.must(TOMORROW)?;
    forecast_in_vain(machine)
}
