//! Checks across a patch: what the upgrade breaks is not what was broken before, and `status` shows both until the
//! checks pass.

use anyhow::{Result, ensure};

use super::Case;
use crate::guard::named;
use crate::machine::{Machine, services_of};
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    let sites = &[Site::Followed, Site::Copied, Site::Bare];
    vec![Case::guarded("checks_across_a_patch", Kind::ArticlePatch, sites, across_a_patch)]
}

/// Passes while a service answers with this version, and once all is mended.
const CHECK: &str = "#!/bin/sh
[ -e /run/mended ] || curl -fsS --unix-socket $1 http://lab/python | grep -qF \"$2\"
";

const BROKEN_BY_IT: &str = "its check fails, and passed before the upgrade: ";
const BROKEN_BEFORE: &str = "its check failed before, and still does: ";

/// `followed` and `bare` are restarted, `copied` and `alone` refreshed; `alone` has no service.
fn across_a_patch(machine: &Machine) -> Result<()> {
    let old = machine.upgrade.about.from.upstream.clone();
    machine.must("dpkg --install /package/venvguard_*.deb")?;
    machine.must("printf 'stable-for = 1\\nservice-timeout = 3\\n' >/etc/venvguard/config.toml")?;
    machine.write("/usr/local/bin/answers", CHECK)?;
    machine.must(
        "chmod 755 /usr/local/bin/answers; install -d -o app /srv/alone
         su app -c '/usr/bin/python3 -m venv --copies --without-pip /srv/alone/venv'",
    )?;
    for site in [Site::Followed, Site::Copied] {
        let (socket, venv) = (services_of(site).remove(0).socket, site.venv());
        machine.must(&format!(
            "venvguard register {venv} --check '/usr/local/bin/answers {socket} {old}'"
        ))?;
    }
    for venv in [Site::Bare.venv(), "/srv/alone/venv".to_owned()] {
        let said =
            machine.run(&format!("venvguard register {venv} --check 'test -e /run/mended'"))?;
        ensure!(said.code == 3 && said.text.contains("its check fails now: "), "{said:?}");
    }
    let said = machine.must_upgrade_python()?;
    for (name, told) in [
        ("followed: failed", BROKEN_BY_IT),
        ("copied: failed", BROKEN_BY_IT),
        ("bare: note", BROKEN_BEFORE),
        ("alone: note", BROKEN_BEFORE),
    ] {
        let told = format!("venvguard: {name}: {told}");
        ensure!(said.text.contains(&told), "{told:?} is missing: {said:?}");
    }
    // Once is not enough: it is kept.
    for _ in 0..2 {
        let (code, status) = machine.venvguard_json("status")?;
        ensure!(code == 3, "{status}");
        for (name, state, told) in [
            ("followed", "check-fails", "its check has failed since "),
            ("copied", "check-fails", "its check has failed since "),
            ("bare", "healthy", "its check failed before and after "),
            ("alone", "healthy", "its check failed before and after "),
        ] {
            let venv = named(&status, name)?;
            ensure!(venv["state"] == state && venv["reasons"].to_string().contains(told), "{venv}");
        }
    }
    ensure!(machine.venvguard("status followed")?.code == 3);
    ensure!(machine.venvguard("status bare alone")?.code == 0);
    let resumed = machine.venvguard("resume")?;
    ensure!(resumed.code == 0, "the repairs themselves are finished: {resumed:?}");

    machine.must("touch /run/mended")?;
    let (code, status) = machine.venvguard_json("status")?;
    ensure!(code == 0 && !status.to_string().contains("its check"), "{status}");
    Ok(())
}
