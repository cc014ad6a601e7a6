//! A new default minor: venvs lose their packages at once, or their interpreter when the old minor is removed.

use anyhow::{Result, ensure};

use super::{Case, Half};
use crate::guard::On;
use crate::machine::{Machine, services_of};
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    let venvs: &[Site] = &[Site::Followed, Site::Pinned, Site::Copied];
    let case = |subject, half, upgrade, sites, run| Case { subject, half, upgrade, sites, run };
    let (bookworm, trixie) = (Kind::BookwormMinor, Kind::TrixieMinor);
    vec![
        case("minor_bookworm_to_trixie", Half::Unguarded, bookworm, venvs, unguarded),
        case("minor_bookworm_to_trixie", Half::Guarded, bookworm, venvs, guarded),
        case("minor_trixie_to_forky", Half::Unguarded, trixie, venvs, unguarded),
        case("minor_trixie_to_forky", Half::Guarded, trixie, venvs, guarded),
        case("minor_gevent_and_tls", Half::Unguarded, bookworm, &[Site::News], news_unguarded),
        case("minor_gevent_and_tls", Half::Guarded, bookworm, &[Site::News], news_guarded),
    ]
}

fn unguarded(machine: &Machine) -> Result<()> {
    let old = machine.upgrade.about.from.clone();
    machine.must_upgrade_python()?;
    for service in machine.services() {
        ensure!(machine.answering_version(&service)? == old.upstream, "{}", service.name);
        machine.restart(&service)?;
        if service.name == "followed" {
            machine.wait_for_log(&service, "ModuleNotFoundError: No module named 'gunicorn'")?;
            machine.wait_until_failed(&service)?;
        } else {
            machine.wait_until_serving(&service)?;
            ensure!(machine.answering_version(&service)? == old.upstream, "{}", service.name);
        }
    }
    remove_old_minor(machine)?;
    for service in machine.services() {
        let symptom = match service.name.as_str() {
            "pinned" => "status=203/EXEC",
            "copied" => "No module named 'encodings'",
            _ => continue,
        };
        machine.restart(&service)?;
        machine.wait_for_log(&service, symptom)?;
        machine.wait_until_failed(&service)?;
    }
    // A copied interpreter whose library is gone still says that it is there.
    let version = machine.must(&format!("{}/bin/python --version", Site::Copied.venv()))?;
    ensure!(version.contains(&old.upstream), "{version}");
    Ok(())
}

fn guarded(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    machine.must_upgrade_python()?;
    machine.assert_guarded(&[
        (Site::Followed, On::New),
        (Site::Pinned, On::Old),
        (Site::Copied, On::Old),
    ])?;
    // They run on the old minor, and a restart is no danger to them.
    for service in machine.services() {
        machine.restart(&service)?;
        machine.wait_until_serving(&service)?;
    }
    remove_old_minor(machine)?;
    machine.assert_guarded(&[
        (Site::Followed, On::New),
        (Site::Pinned, On::New),
        (Site::Copied, On::New),
    ])
}

/// What an administrator does some day after the upgrade.
fn remove_old_minor(machine: &Machine) -> Result<()> {
    let said = machine.apt("autoremove")?;
    ensure!(said.code == 0, "autoremove: {said:?}");
    let package = format!("python{}-minimal", machine.upgrade.about.from.minor);
    ensure!(!machine.is_installed(&package)?, "{package} is still installed:\n{}", said.text);
    Ok(())
}

fn news_unguarded(machine: &Machine) -> Result<()> {
    let service = &services_of(Site::News)[0];
    machine.page(service, "/tls")?;
    machine.must_upgrade_python()?;
    machine.page(service, "/tls")?;
    machine.restart(service)?;
    machine.wait_for_log(service, "ModuleNotFoundError: No module named 'gunicorn'")?;
    machine.wait_until_failed(service)
}

fn news_guarded(machine: &Machine) -> Result<()> {
    let service = &services_of(Site::News)[0];
    machine.install_guard()?;
    machine.page(service, "/tls")?;
    machine.must_upgrade_python()?;
    machine.assert_guarded(&[(Site::News, On::New)])?;
    ensure!(beats(machine)? > 0 || later_beats(machine)?, "the scheduler stands still");
    Ok(())
}

fn beats(machine: &Machine) -> Result<u32> {
    Ok(machine.page(&services_of(Site::News)[0], "/beats")?.trim().parse()?)
}

fn later_beats(machine: &Machine) -> Result<bool> {
    crate::machine::wait_for("the scheduler to run", || Ok(beats(machine)? > 0)).map(|()| true)
}
