//! Copied interpreters across a patch of the same minor version: the new standard library meets the old C code.

use anyhow::{Result, ensure};

use super::{Case, Half};
use crate::guard::On;
use crate::machine::{Machine, services_of};
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    let article = |half, run| Case {
        subject: "copied_interpreter_article_patch",
        half,
        upgrade: Kind::ArticlePatch,
        sites: &[Site::Shop],
        extra: &[],
        run,
    };
    let real = |half, run| Case {
        subject: "copied_interpreter_real_patch",
        half,
        upgrade: Kind::RealPatch,
        sites: &[Site::Copied],
        extra: &[],
        run,
    };
    vec![
        article(Half::Unguarded, article_unguarded),
        article(Half::Guarded, article_guarded),
        real(Half::Unguarded, real_unguarded),
        real(Half::Guarded, real_guarded),
    ]
}

const ARTICLE: &str = "cannot import name 'HAS_TLSv1_3' from '_socket'";

/// The error of the article, after the restart that comes sooner or later. Under uWSGI, supervisord reports the program
/// as running throughout, and it answers 500.
fn article_unguarded(machine: &Machine) -> Result<()> {
    machine.must_upgrade_python()?;
    for service in services_of(Site::Shop) {
        machine.page(&service, "/ok")?;
        machine.restart(&service)?;
        machine.wait_for_log(&service, ARTICLE)?;
        if service.name == "shop-gunicorn" {
            machine.wait_until_failed(&service)?;
        } else {
            let state = machine.must(&format!("supervisorctl status {}", service.name))?;
            ensure!(state.contains("RUNNING"), "{state}");
            let answer = machine.ask(&service, "/ok")?;
            ensure!(answer.status == 500, "{answer:?}");
        }
    }
    Ok(())
}

/// No service is registered: venvguard finds them.
fn article_guarded(machine: &Machine) -> Result<()> {
    machine.install_guard_that_finds()?;
    machine.must_upgrade_python()?;
    machine.assert_guarded(&[(Site::Shop, On::New)])
}

/// With the archive's patch, the copied interpreter does not even raise an error: it crashes.
fn real_unguarded(machine: &Machine) -> Result<()> {
    machine.must_upgrade_python()?;
    let service = &services_of(Site::Copied)[0];
    machine.page(service, "/ok")?;
    let python = format!("{}/bin/python", Site::Copied.venv());
    // The commands that people try first report that all is well.
    machine.must(&format!("{python} --version"))?;
    machine.must(&format!("{python} -m pip --version"))?;
    machine.restart(service)?;
    if machine.upgrade.about.repackaged {
        machine.wait_for_log(service, ARTICLE)?;
        return machine.wait_until_failed(service);
    }
    machine.wait_for_log(service, "status=11/SEGV")?;
    machine.wait_until_failed(service)?;
    for code in ["import ctypes", "import asyncio; asyncio.run(asyncio.sleep(0))"] {
        let said = machine.run(&format!("{python} -c '{code}'"))?;
        ensure!(said.code == 139, "{code}: {said:?}");
    }
    Ok(())
}

fn real_guarded(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    machine.must_upgrade_python()?;
    machine.assert_guarded(&[(Site::Copied, On::New)])?;
    let python = format!("{}/bin/python", Site::Copied.venv());
    machine
        .must(&format!("{python} -c 'import asyncio, ctypes; asyncio.run(asyncio.sleep(0))'"))?;
    Ok(())
}
