//! Running processes: an upgrade replaces the files of their Python, and their next imports read new files.

use anyhow::{Result, ensure};

use super::{Case, Half};
use crate::guard::On;
use crate::machine::{Machine, Service, services_of};
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    let case = |subject, half, upgrade, run| Case {
        subject,
        half,
        upgrade,
        sites: match upgrade {
            Kind::RealPatch => &[Site::Bare, Site::Followed],
            _ => &[Site::Followed],
        },
        extra: &[],
        run,
    };
    let patch = "running_process_patch";
    let revision = "running_process_revision";
    vec![
        case(patch, Half::Unguarded, Kind::RealPatch, patch_unguarded),
        case(patch, Half::Guarded, Kind::RealPatch, guarded),
        case(revision, Half::Unguarded, Kind::Revision, revision_unguarded),
        case(revision, Half::Guarded, Kind::Revision, guarded),
        case("running_process_revision_of_forky", Half::Guarded, Kind::ForkyRevision, guarded),
        case("running_process_reinstalled", Half::Guarded, Kind::Revision, reinstalled),
        case("running_process_told_of", Half::Guarded, Kind::Revision, told_of),
    ]
}

fn service_of(site: Site) -> Service {
    services_of(site).remove(0)
}

/// The venvs are fine, and new processes would be; the old processes are not.
fn patch_unguarded(machine: &Machine) -> Result<()> {
    let (bare, gunicorn) = (service_of(Site::Bare), service_of(Site::Followed));
    machine.must_upgrade_python()?;
    machine.page(&bare, "/ok")?;
    machine.page(&gunicorn, "/ok")?;
    if machine.upgrade.about.repackaged {
        return assert_stale_name(machine, &bare, "/mail", "'LabError' from 'email.errors'");
    }
    assert_stale_name(machine, &bare, "/library", "from 'typing'")?;
    for (service, crash) in [(&bare, "status=11/SEGV"), (&gunicorn, "was sent SIGSEGV")] {
        let answer = machine.ask(service, "/import/ctypes");
        ensure!(answer.is_err(), "{}: ctypes did not crash the process: {answer:?}", service.name);
        machine.wait_for_log(service, crash)?;
        assert_cured_by_a_restart(machine, service)?;
    }
    Ok(())
}

/// Not even the version changes, and the process is still stale.
fn revision_unguarded(machine: &Machine) -> Result<()> {
    let service = service_of(Site::Followed);
    machine.must_upgrade_python()?;
    ensure!(machine.answering_version(&service)? == machine.upgrade.about.to.upstream);
    let name = if machine.upgrade.about.repackaged { "'LabError'" } else { "'HeaderWriteError'" };
    assert_stale_name(machine, &service, "/mail", &format!("{name} from 'email.errors'"))?;
    assert_cured_by_a_restart(machine, &service)
}

/// A reinstallation puts the same version in new files: it counts as a revision.
fn reinstalled(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    machine.must_upgrade_python()?;
    let venv = Site::Followed.venv();
    let before = machine.pids_of(&venv)?;
    let said = machine.apt(&format!(
        "install --reinstall --yes python{}-minimal",
        machine.upgrade.about.to.minor
    ))?;
    ensure!(said.code == 0 && said.text.contains("is reinstalled"), "{said:?}");
    let after = machine.pids_of(&venv)?;
    ensure!(before.iter().all(|pid| !after.contains(pid)), "not restarted: {}", said.text);
    machine.assert_guarded(&[(Site::Followed, On::New)])?;
    // Nothing changes, so nothing is restarted.
    machine.must("dpkg-reconfigure -fnoninteractive python3; venvguard resume")?;
    ensure!(machine.pids_of(&venv)? == after, "restarted for nothing");
    Ok(())
}

/// The process fails to import a name that only the new files have.
fn assert_stale_name(machine: &Machine, service: &Service, page: &str, name: &str) -> Result<()> {
    let answer = machine.ask(service, page)?;
    ensure!(
        answer.status == 500
            && answer.text.contains("ImportError: cannot import name '")
            && answer.text.contains(name),
        "{page}: {answer:?}"
    );
    let old = machine.processes_of(&service.venv)?;
    ensure!(
        old.iter().all(|process| process.executable.ends_with(" (deleted)")),
        "these should run a deleted interpreter: {old:?}"
    );
    Ok(())
}

fn assert_cured_by_a_restart(machine: &Machine, service: &Service) -> Result<()> {
    machine.restart(service)?;
    machine.wait_until_serving(service)?;
    for page in ["/mail", "/library", "/import/ctypes"] {
        machine.page(service, page)?;
    }
    Ok(())
}

/// Every service is restarted: it runs on the new interpreter, in new processes, and can import anything.
fn guarded(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    let pids = |machine: &Machine| {
        let sites = machine.sites.iter();
        sites.map(|site| machine.pids_of(&site.venv())).collect::<Result<Vec<_>>>()
    };
    let before = pids(machine)?;
    machine.must_upgrade_python()?;
    let expected: Vec<_> = machine.sites.iter().map(|site| (*site, On::New)).collect();
    machine.assert_guarded(&expected)?;
    let after = pids(machine)?;
    for (before, after) in before.iter().zip(&after) {
        ensure!(
            before.iter().all(|pid| !after.contains(pid)),
            "old processes are left: {before:?}, {after:?}"
        );
    }
    for service in machine.services() {
        for page in ["/mail", "/library", "/import/ctypes"] {
            machine.page(&service, page)?;
        }
    }
    Ok(())
}

/// Policy `warn` leaves the processes alone: `status` reports them, and `rebuild --all` restarts them on demand.
fn told_of(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    machine.register(Site::Followed, "--policy warn")?;
    let service = service_of(Site::Followed);
    // A process started by hand: no manager can restart it.
    machine.must(&format!(
        "setsid setpriv --reuid=app --regid=app --init-groups {}/bin/python -c 'import time; time.sleep(900)' >/dev/null 2>&1 </dev/null &
         echo $! >/root/by-hand; sleep 1; kill -0 $(cat /root/by-hand)",
        service.venv
    ))?;
    let before = machine.pids_of(&service.venv)?;
    machine.must_upgrade_python()?;
    ensure!(machine.pids_of(&service.venv)? == before, "policy warn restarted something");
    let status = machine.status_of(Site::Followed)?;
    ensure!(status["state"] == "restart-needed", "status: {status}");
    for _ in 0..2 {
        let rebuilt = machine.venvguard("rebuild --all")?;
        let is_named = rebuilt.text.contains("restart this process yourself: pid ");
        ensure!(rebuilt.code == 3 && is_named, "rebuild --all: {rebuilt:?}");
    }
    machine.must("kill $(cat /root/by-hand)")?;
    let rebuilt = machine.venvguard("rebuild --all")?;
    ensure!(rebuilt.code == 0, "rebuild --all: exit {}\n{}", rebuilt.code, rebuilt.text);
    machine.assert_guarded(&[(Site::Followed, On::New)])?;
    let after = machine.pids_of(&service.venv)?;
    ensure!(before.iter().all(|pid| !after.contains(pid)), "{before:?}, {after:?}");
    Ok(())
}
