//! The programs beside apt-get through which packages are upgraded.

use anyhow::{Result, ensure};

use super::Case;
use crate::guard::On;
use crate::machine::{Machine, wait_for};
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    let case = |subject, run| Case {
        extra: &["aptitude", "packagekit", "packagekit-tools", "python3-apt"],
        ..Case::guarded(subject, Kind::RealPatch, &[Site::Bare], run)
    };
    vec![
        case("front_end_aptitude", aptitude),
        case("front_end_packagekit", packagekit),
        case("front_end_release_upgrader", release_upgrader),
        Case::guarded("front_end_dpkg", Kind::ArticlePatch, &[Site::Bare], dpkg),
    ]
}

/// Installs the front ends and venvguard. A question that nobody reads would be answered by `abort`.
fn install(machine: &Machine) -> Result<()> {
    machine.must("DEBIAN_FRONTEND=noninteractive dpkg --install /extra/*.deb")?;
    machine.install_guard()?;
    machine.write("/etc/venvguard/config.toml", "ask.default = \"abort\"\n")
}

/// Runs a front end in a unit of its own, which has no terminal and outlives the restart of systemd. One that waits for
/// an answer would wait for ever, hence the limit.
fn must(machine: &Machine, environment: &str, command: &str) -> Result<String> {
    machine.must(&format!(
        "systemd-run --quiet --wait --pipe --setenv=DEBIAN_FRONTEND=noninteractive {environment} \
         timeout 300 {command} </dev/null"
    ))
}

fn is_guarded(machine: &Machine) -> Result<()> {
    machine.assert_guarded(&[(Site::Bare, On::New)])
}

fn aptitude(machine: &Machine) -> Result<()> {
    install(machine)?;
    let options = "--assume-yes -o Dpkg::Options::=--force-confold";
    let packages = machine.upgrade.about.packages.join(" ");
    must(machine, "", &format!("aptitude {options} install {packages}"))?;
    is_guarded(machine)
}

/// The daemon of `PackageKit` runs the hooks, at a terminal that nobody reads.
fn packagekit(machine: &Machine) -> Result<()> {
    install(machine)?;
    // One that runs already has read apt's configuration before venvguard was installed.
    machine.must("systemctl stop packagekit")?;
    let said = must(machine, "", "pkcon --plain --noninteractive update")?;
    ensure!(!said.contains("Fatal error"), "{said}");
    is_guarded(machine)
}

/// A release upgrader commits by python-apt. A venv does not block it half-way, and blocks other programs.
fn release_upgrader(machine: &Machine) -> Result<()> {
    install(machine)?;
    machine.must("venvguard register /srv/bare/venv --policy block")?;
    machine.write("/root/upgrade.py", UPGRADE)?;
    let before = machine.packages()?;
    let upgrade = "python3 /root/upgrade.py";
    let blocked = must(machine, "", upgrade).err().map(|error| format!("{error:#}"));
    let is_ours =
        blocked.as_ref().is_some_and(|said| said.contains("venvguard: this run is blocked"));
    ensure!(is_ours && machine.packages()? == before, "it is not blocked: {blocked:?}");
    must(machine, "--setenv=RELEASE_UPGRADE_IN_PROGRESS=1", upgrade)?;
    is_guarded(machine)
}

/// `cache.commit` and its arguments are what Ubuntu's release upgrader uses.
const UPGRADE: &str = "
import apt
import apt.progress.base
import apt_pkg

apt_pkg.config.set('DPkg::Options::', '--force-confold')
cache = apt.Cache()
cache.upgrade(dist_upgrade=True)
assert any(package.name.startswith('python3') for package in cache.get_changes())
cache.commit(apt.progress.base.AcquireProgress(), apt.progress.base.InstallProgress())
";

/// Without apt nothing runs before. dpkg's trigger leads to a repair two minutes later, for which the test does not wait.
fn dpkg(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    must(
        machine,
        "",
        "sh -c 'dpkg --install --force-confold $(ls /repository/*.deb | grep -v /lab-)'",
    )?;
    wait_for("the timer of the repair", || {
        Ok(machine.run("systemctl is-active --quiet venvguard-resume.timer")?.code == 0)
    })?;
    machine.must("systemctl start venvguard-resume.service")?;
    is_guarded(machine)
}
