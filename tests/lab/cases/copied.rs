//! Copied interpreters across a patch of the same minor: the new standard library meets the old C code.

use anyhow::{Result, ensure};

use super::{Case, Half};
use crate::guard::On;
use crate::machine::{Machine, services_of};
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case {
            subject: "copied_interpreter_article_patch",
            half: Half::Unguarded,
            upgrade: Kind::ArticlePatch,
            sites: &[Site::Shop],
            run: article_unguarded,
        },
        Case {
            subject: "copied_interpreter_article_patch",
            half: Half::Guarded,
            upgrade: Kind::ArticlePatch,
            sites: &[Site::Shop],
            run: article_guarded,
        },
    ]
}

const ARTICLE: &str = "cannot import name 'HAS_TLSv1_3' from '_socket'";

/// The error of the article, after the restart that comes sooner or later. Under uWSGI supervisord calls the program
/// running all the while, and it answers 500.
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

fn article_guarded(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    machine.must_upgrade_python()?;
    machine.assert_guarded(&[(Site::Shop, On::New)])
}
