//! A new default minor version: venvs lose their packages immediately, or their interpreter when the old minor version
//! is removed.

use anyhow::{Result, ensure};

use super::{Case, Half};
use crate::guard::On;
use crate::machine::{Machine, services_of};
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    let venvs: &[Site] = &[Site::Followed, Site::Pinned, Site::Copied];
    let case = |subject, half, upgrade, sites, run| Case {
        subject,
        half,
        upgrade,
        sites,
        extra: &[],
        run,
    };
    let (bookworm, trixie) = (Kind::BookwormMinor, Kind::TrixieMinor);
    vec![
        case("minor_bookworm_to_trixie", Half::Unguarded, bookworm, venvs, unguarded),
        case("minor_bookworm_to_trixie", Half::Guarded, bookworm, venvs, guarded),
        case("minor_trixie_to_forky", Half::Unguarded, trixie, venvs, unguarded),
        case("minor_trixie_to_forky", Half::Guarded, trixie, venvs, guarded),
        case("minor_gevent_and_tls", Half::Unguarded, bookworm, &[Site::News], news_unguarded),
        case("minor_gevent_and_tls", Half::Guarded, bookworm, &[Site::News], news_guarded),
        case("minor_with_uv", Half::Unguarded, trixie, &[Site::Quick], dies),
        case("minor_with_uv", Half::Guarded, trixie, &[Site::Quick], quick_guarded),
        case(
            "minor_with_a_version_that_is_not_there",
            Half::Guarded,
            trixie,
            &[Site::Bare],
            not_there,
        ),
        Case::guarded("minor_of_what_is_declared", trixie, &[Site::Followed], declared),
        case("minor_that_does_not_hold", Half::Unguarded, trixie, &[Site::Followed], dies),
        case("minor_that_does_not_hold", Half::Guarded, trixie, &[Site::Followed], holds_not),
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
    // A copied interpreter whose library is gone still prints its version.
    let version = machine.must(&format!("{}/bin/python --version", Site::Copied.venv()))?;
    ensure!(version.contains(&old.upstream), "{version}");
    Ok(())
}

fn guarded(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    // A library that somebody patched.
    let patched = format!("{}/lib/python3.*/site-packages/gunicorn/util.py", Site::Followed.venv());
    machine.must(&format!("for file in {patched}; do echo '# patched' >>$file; done"))?;
    let before = machine.must(&format!("cat {patched}"))?;
    machine.must_upgrade_python()?;
    ensure!(machine.must(&format!("cat {patched}"))? == before, "the patch is lost");
    machine.assert_guarded(&[
        (Site::Followed, On::New),
        (Site::Pinned, On::Old),
        (Site::Copied, On::Old),
    ])?;
    // Pinned and copied venvs run on the old minor version, and survive a restart.
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

/// Removes the old minor version, as an administrator does some day after the upgrade.
fn remove_old_minor(machine: &Machine) -> Result<()> {
    let said = machine.apt("autoremove")?;
    ensure!(said.code == 0, "autoremove: {said:?}");
    let package = format!("python{}-minimal", machine.upgrade.about.from.minor);
    ensure!(!machine.is_installed(&package)?, "{package} is still installed:\n{}", said.text);
    Ok(())
}

fn dies(machine: &Machine) -> Result<()> {
    machine.must_upgrade_python()?;
    machine.page(&machine.services()[0], "/ok")?;
    dies_at_restart(machine)
}

/// The service does not survive its next restart.
fn dies_at_restart(machine: &Machine) -> Result<()> {
    let service = &machine.services()[0];
    machine.restart(service)?;
    machine.wait_for_log(service, "ModuleNotFoundError: No module named 'gunicorn'")?;
    machine.wait_until_failed(service)
}

fn news_unguarded(machine: &Machine) -> Result<()> {
    let service = &services_of(Site::News)[0];
    machine.page(service, "/tls")?;
    machine.must_upgrade_python()?;
    machine.page(service, "/tls")?;
    dies_at_restart(machine)
}

fn news_guarded(machine: &Machine) -> Result<()> {
    let service = &services_of(Site::News)[0];
    machine.install_guard()?;
    machine.page(service, "/tls")?;
    machine.must_upgrade_python()?;
    machine.assert_guarded(&[(Site::News, On::New)])?;
    ensure!(beats(machine)? > 0 || later_beats(machine)?, "the scheduler does not run");
    Ok(())
}

fn beats(machine: &Machine) -> Result<u32> {
    Ok(machine.page(&services_of(Site::News)[0], "/beats")?.trim().parse()?)
}

fn later_beats(machine: &Machine) -> Result<bool> {
    crate::machine::wait_for("the scheduler to run", || Ok(beats(machine)? > 0)).map(|()| true)
}

/// uv is installed, and recreates the venv that it created; venvguard finds the services.
fn quick_guarded(machine: &Machine) -> Result<()> {
    machine.install_uv()?;
    machine.must("printf 'no-index = true\nfind-links = [\"/wheelhouse\"]\n' >/etc/uv/uv.toml")?;
    machine.install_guard_that_finds()?;
    // venvguard must not use an engine that cannot do the work.
    machine.must("printf 'engine = \"uv\"\n' >/etc/venvguard/config.toml")?;
    machine.must_upgrade_python()?;
    machine.assert_guarded(&[(Site::Quick, On::New)])?;
    let made_by = machine.must(&format!("cat {}/pyvenv.cfg", Site::Quick.venv()))?;
    ensure!(made_by.contains("uv = "), "it was not created by uv: {made_by}");
    let check = format!("uv pip check --python {}/bin/python", Site::Quick.venv());
    machine.must(&check)?;
    compiled_as_before(machine)?;
    only_who_was_told(machine)
}

/// uv compiles modules only on request: a rebuild does what was done.
fn compiled_as_before(machine: &Machine) -> Result<()> {
    let venv = Site::Quick.venv();
    // Nothing here imports this module of gunicorn.
    let bytecode =
        format!("ls {venv}/lib/python3*/site-packages/gunicorn/workers/__pycache__/gtornado.*.pyc");
    machine.must(&format!("! {bytecode}"))?;
    machine.must(&format!(
        "su app -s /bin/sh -c '{venv}/bin/python -m compileall -q {venv}/lib'
         venvguard rebuild quick
         {bytecode}"
    ))?;
    Ok(())
}

/// If only one installer is configured with an index, venvguard does not use the other: it would look for private
/// packages in public.
fn only_who_was_told(machine: &Machine) -> Result<()> {
    let venv = Site::Quick.venv();
    let told = "no-index = true\nfind-links = ";
    machine.must("rm /etc/pip.conf /etc/uv/uv.toml /etc/venvguard/config.toml")?;
    for (file, text, by) in [
        (format!("{venv}/pip.conf"), format!("[global]\n{told}/wheelhouse\n"), "pip"),
        (format!("{venv}/../uv.toml"), format!("{told}[\"/wheelhouse\"]\n"), "uv"),
    ] {
        machine.must(&format!("printf '%b' '{text}' >{file}; chown app: {file}"))?;
        machine.must("venvguard rebuild quick")?;
        let installers = machine
            .must(&format!("cat {venv}/lib/python3*/site-packages/*/INSTALLER | sort -u"))?;
        ensure!(installers.split_whitespace().eq([by]), "installed by {installers}, not by {by}");
        machine.must(&format!("grep -q find-links {file} && rm {file}"))?;
    }
    Ok(())
}

/// A package declares venvs by a pattern, and no venv is registered.
fn declared(machine: &Machine) -> Result<()> {
    let (site, service) = (Site::Followed, &services_of(Site::Followed)[0]);
    let file = "/usr/share/venvguard/venvs.d/sites.toml";
    machine.must(&format!(
        "dpkg --install /package/venvguard_*.deb
         mkdir -p /usr/share/venvguard/venvs.d
         printf 'path = \"/srv/*/venv\"\nservices = [\"systemd:{}.service\"]\n' >{file}",
        service.name
    ))?;
    machine.must_upgrade_python()?;
    machine.assert_guarded(&[(site, On::New)])?;
    // A damaged file still declares what it declared before.
    machine.must(&format!("sed -i 's/^services.*/services = /' {file}"))?;
    let said = machine.run("venvguard status")?;
    let told = format!("{file}, line 2");
    ensure!(said.text.contains(&told) && said.text.contains(&site.venv()), "{said:?}");
    machine.restart(service)?;
    machine.wait_until_serving(service)?;
    // A removed file declares nothing, except for venvs with a previous environment.
    machine.must(&format!("rm {file}"))?;
    let listed = || machine.must("venvguard list");
    ensure!(
        listed()?.contains(&site.venv()),
        "the previous environment is forgotten: {}",
        listed()?
    );
    machine.must("venvguard prune followed")?;
    ensure!(!listed()?.contains(&site.venv()), "it is still guarded: {}", listed()?);
    Ok(())
}

/// The rebuilt venv comes up and fails its check: the old one is restored, with all its processes, and stays until an
/// administrator decides otherwise.
fn holds_not(machine: &Machine) -> Result<()> {
    let (site, service) = (Site::Followed, &services_of(Site::Followed)[0]);
    let (old, new) = (machine.upgrade.about.from.clone(), machine.upgrade.about.to.clone());
    machine.must("dpkg --install /package/venvguard_*.deb")?;
    machine.must("printf 'service-timeout = 5\n' >/etc/venvguard/config.toml")?;
    let register = |check: &str| {
        machine.must(&format!(
            "venvguard register {} --service systemd:{}.service --check '{check}'",
            site.venv(),
            service.name
        ))
    };
    let is_old = format!("{}/bin/python{}", site.venv(), old.minor);
    register(&format!("test -e {is_old}"))?;
    let said = machine.must_upgrade_python()?;
    ensure!(said.text.contains("its check fails"), "the reason is not reported: {said:?}");
    let runs = |python: &str, minor: &str| {
        let version = machine.answering_version(service)?;
        ensure!(version == python, "it answers with {version}, not with {python}");
        machine.assert_no_process_but_on(site, minor)?;
        let status = machine.status_of(site)?;
        ensure!(status["state"] == "healthy", "status: {status}");
        Ok(())
    };
    let beside = || machine.must(&format!("find {} -name '.venv.venvguard-*'", site.dir()));
    runs(&old.upstream, &old.minor)?;
    ensure!(beside()?.is_empty(), "a tree is left over: {}", beside()?);
    machine.restart(service)?;
    machine.wait_until_serving(service)?;
    runs(&old.upstream, &old.minor)?;

    register("true")?;
    machine.must("venvguard rebuild --all")?;
    runs(&new.upstream, &new.minor)?;
    machine.must("venvguard rollback followed")?;
    runs(&old.upstream, &old.minor)?;
    machine.must("venvguard rollback followed")?;
    runs(&new.upstream, &new.minor)?;
    ensure!(beside()?.lines().count() == 1, "not exactly one tree is kept: {}", beside()?);

    // With two previous environments, `--to` restores the named one, not the latest.
    let oldest = beside()?;
    machine.must("venvguard rebuild followed")?;
    machine.must(&format!("venvguard rollback followed --to '{}'", oldest.trim()))?;
    runs(&old.upstream, &old.minor)?;
    let status = machine.must("venvguard status")?;
    ensure!(
        status.lines().any(|line| line.split_whitespace().nth(3) == Some("2")),
        "status does not count two: {status}"
    );
    let said = machine.must("venvguard rebuild followed")?;
    runs(&new.upstream, &new.minor)?;
    let shown = machine.must("venvguard show followed")?;
    ensure!(
        beside()?.lines().count() == 2,
        "not exactly two trees are kept: {}{said}{shown}",
        beside()?
    );
    machine.must("venvguard rollback followed")?;
    runs(&old.upstream, &old.minor)?;
    machine.must("venvguard prune followed")?;
    ensure!(beside()?.is_empty(), "not all are removed: {}", beside()?);
    Ok(())
}

/// One distribution has no file for the new Python: venvguard reports the nearest version that has one, and moves only
/// as far as `--relax` permits. The hashes of a lock fix another one, and no option relaxes them.
fn not_there(machine: &Machine) -> Result<()> {
    let new = machine.upgrade.about.to.clone();
    let old = machine.upgrade.about.from.clone();
    let tag = format!("cp{}", old.minor.replace('.', ""));
    machine.write("/root/wheel.py", WHEEL)?;
    machine.must(&format!(
        "mkdir /wheels && cd /wheels
         python3 /root/wheel.py tight 1.2.3 {tag}
         python3 /root/wheel.py tight 1.3.0 py3
         python3 /root/wheel.py tight 2.0.0 py3
         python3 /root/wheel.py sure 1.0 py3
         printf '[global]\\nno-index = true\\nfind-links = /wheels\\n' >/etc/pip.conf
         python3 -m venv /srv/pinned/venv
         mkdir /srv/own && cd /srv/own && python3 /root/wheel.py own 1.0 py3
         /srv/pinned/venv/bin/pip install --quiet tight==1.2.3 sure==1.0 /srv/own/own-*.whl
         echo \"sure==1.0 --hash=sha256:$(sha256sum /wheels/sure-1.0-*.whl | cut -d ' ' -f 1)\" >/srv/pinned/requirements.txt",
    ))?;
    machine.install_guard()?;
    machine.must("venvguard register /srv/pinned/venv --name pinned")?;
    is_a_lock(machine)?;
    machine.must("rm -r /srv/own")?;
    let nearest =
        "tight==1.2.3: the nearest version with a wheel is 1.3.0 (`--relax minor` accepts it)";
    let said = machine.must_upgrade_python()?;
    ensure!(said.text.contains(nearest), "the version is not reported: {said:?}");
    let has = |list: &str, minor: &str| {
        let found = machine.must(
            "/srv/pinned/venv/bin/python -c 'import sys, tight, sure, own; print(*sys.version_info[:2], sep=\".\")'
             /srv/pinned/venv/bin/pip list --format freeze | grep -v pip",
        )?;
        let wanted = format!("{minor}\nown==1.0\nsure==1.0\n{list}\n");
        ensure!(found == wanted, "found {found:?} instead of {wanted:?}");
        Ok(())
    };
    has("tight==1.2.3", &old.minor)?;
    let refused = |how: &str, why: &str| {
        let said = machine.run(&format!("venvguard rebuild pinned {how}"))?;
        ensure!(said.code == 1 && said.text.contains(why), "{how}: {said:?}");
        has("tight==1.2.3", &old.minor)
    };
    refused("--relax patch", nearest)?;
    machine.must(
        "cd /wheels && cp sure-1.0-*.whl /root/ && python3 /root/wheel.py sure 1.0 py3 forged",
    )?;
    refused("--relax major", "HASH")?;
    machine.must("mv /root/sure-1.0-*.whl /wheels/")?;
    let moves = || {
        let said = machine.run("venvguard rebuild pinned --relax minor")?;
        let told = "tight==1.2.3 was replaced by tight==1.3.0";
        ensure!(
            said.code == 0 && said.text.contains(told),
            "the replacement is not reported: {said:?}"
        );
        has("tight==1.3.0", &new.minor)
    };
    moves()?;
    machine.must("venvguard rollback pinned")?;
    has("tight==1.2.3", &old.minor)?;
    machine.install_uv()?;
    machine.must(
        "rm /etc/pip.conf
         printf 'no-index = true\\nfind-links = [\"/wheels\"]\\n' >/etc/uv/uv.toml",
    )?;
    refused("--relax patch", nearest)?;
    moves()
}

/// Python's own library accepts the venv's recipe as a lock, and the recipe contains the hash.
fn is_a_lock(machine: &Machine) -> Result<()> {
    let check = "import sys, tomllib; from packaging.pylock import Pylock
for path in sys.argv[1:]: Pylock.from_dict(tomllib.load(open(path, 'rb')))";
    machine.write("/root/check.py", check)?;
    machine.must(
        "PYTHONPATH=$(ls /wheelhouse/packaging-*.whl) python3 /root/check.py /var/lib/venvguard/recipes/pylock.*.toml
         grep -q sha256: /var/lib/venvguard/recipes/pylock.*.toml
         test \"$(stat -c %a /var/lib/venvguard/recipes/pylock.*.toml | sort -u)\" = 600",
    )?;
    Ok(())
}

/// Makes a wheel: NAME VERSION PYTHON-TAG [CONTENT].
pub(crate) const WHEEL: &str = r#"
import base64, hashlib, sys, zipfile
name, version, tag, *content = sys.argv[1:]
module = f"version = {version!r}\n# {content}\n"
digest = base64.urlsafe_b64encode(hashlib.sha256(module.encode()).digest()).decode().rstrip("=")
with zipfile.ZipFile(f"{name}-{version}-{tag}-none-any.whl", "w") as wheel:
    info = f"{name}-{version}.dist-info"
    wheel.writestr(f"{name}.py", module)
    wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}-none-any\n")
    wheel.writestr(f"{info}/RECORD", f"{name}.py,sha256={digest},{len(module)}\n")
"#;
