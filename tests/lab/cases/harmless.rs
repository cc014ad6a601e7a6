//! apt never suffers from venvguard's faults: its package is removed, its binary vanishes, its state is ruined, its disk
//! is full. And venvguard is silent when it has nothing to do.

use anyhow::{Context, Result, ensure};

use super::Case;
use crate::guard::On;
use crate::machine::{Machine, Said, services_of};
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    let case = |subject, run| Case::guarded(subject, Kind::ArticlePatch, &[Site::Followed], run);
    let several = &[Site::Followed, Site::Copied, Site::Shop];
    vec![
        case("an_upgrade_without_python_is_silent", silent),
        case("apt_works_after_the_package_is_removed", removed),
        case("apt_works_after_the_binary_is_deleted", deleted),
        case("apt_works_with_a_corrupt_state", corrupt),
        case("apt_works_with_an_unreadable_state", unreadable),
        case("apt_works_with_a_full_state", full),
        Case::guarded("needrestart_beside_us", Kind::ArticlePatch, several, beside_needrestart),
    ]
}

const STATE: &str = "/var/lib/venvguard";

fn silent(machine: &Machine) -> Result<()> {
    must_apt(machine, "install lab-plain=1.0")?;
    let without = must_apt(machine, "install --only-upgrade lab-plain")?;
    must_apt(machine, "install --allow-downgrades lab-plain=1.0")?;
    machine.install_guard()?;
    let with = must_apt(machine, "install --only-upgrade lab-plain")?;
    // dpkg counts files as it reads its database, including venvguard's own.
    let lines = |said: &Said| -> Vec<String> {
        let lines = said.text.lines().filter(|line| !line.contains("Reading database"));
        lines.map(str::to_owned).collect()
    };
    ensure!(lines(&with) == lines(&without), "with venvguard: {with:?}; without: {without:?}");
    Ok(())
}

fn removed(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    must_apt(machine, "remove venvguard")?;
    ensure!(!machine.is_installed("venvguard")?, "venvguard is still installed");
    assert_apt_goes_on(machine)?;
    must_apt(machine, "purge venvguard")?;
    let left = machine.must("find /etc /usr /var/lib/venvguard /var/cache/venvguard -path '*venvguard*' 2>/dev/null || true")?;
    ensure!(left.is_empty(), "a purge leaves {left}");
    Ok(())
}

fn deleted(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    machine.must("rm /usr/sbin/venvguard")?;
    assert_apt_goes_on(machine)
}

fn corrupt(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    machine.must(&format!(
        "find {STATE} -type f | while read -r file; do head -c 200 /dev/urandom >\"$file\"; done"
    ))?;
    ensure!(machine.venvguard("status")?.code == 1, "status did not notice");
    assert_apt_goes_on(machine)
}

/// Root can read any file, so a directory takes the place of each.
fn unreadable(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    machine.must(&format!(
        "find {STATE} -type f | while read -r file; do rm \"$file\"; mkdir \"$file\"; done"
    ))?;
    ensure!(machine.venvguard("status")?.code == 1, "status did not notice");
    assert_apt_goes_on(machine)
}

/// Nothing can be written, neither a snapshot nor a journal.
fn full(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    machine.must(&format!(
        "cp -a {STATE} /root/state
         mount -t tmpfs -o size=1m,mode=700 full {STATE}
         cp -a /root/state/. {STATE}/
         ! dd if=/dev/zero of={STATE}/filler bs=4k"
    ))?;
    assert_apt_goes_on(machine)
}

/// Packages with and without Python can be upgraded, and the service is no worse off than without venvguard.
fn assert_apt_goes_on(machine: &Machine) -> Result<()> {
    must_apt(machine, "install lab-plain=1.0")?;
    must_apt(machine, "install --only-upgrade lab-plain")?;
    machine.must_upgrade_python()?;
    let about = &machine.upgrade.about;
    let package = format!("python{}", about.to.minor);
    let version = machine.must(&format!("dpkg-query -W -f '${{Version}}' {package}"))?;
    ensure!(version == about.to.debian, "{package} is {version}");
    for service in services_of(Site::Followed) {
        machine.page(&service, "/ok")?;
    }
    must_apt(machine, "remove lab-plain")?;
    Ok(())
}

/// needrestart restarts services from its own hook: into broken venvs, if that hook ran first. Each unit is restarted once
/// in all: those of venvs by venvguard, and supervisord itself by needrestart.
fn beside_needrestart(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    must_apt(machine, "install needrestart")?;
    machine.write("/etc/needrestart/conf.d/lab.conf", "$nrconf{restart} = 'a';\n")?;
    let hooks = machine.must("apt-config dump --format '%v%n' DPkg::Post-Invoke")?;
    let place = |name: &str| {
        let lines = hooks.lines();
        lines.enumerate().find(|(_, line)| line.contains(name)).map(|(place, _)| place)
    };
    let venvguard =
        place("venvguard").with_context(|| format!("no hook of venvguard in {hooks}"))?;
    let needrestart = place("needrestart").with_context(|| format!("no needrestart in {hooks}"))?;
    ensure!(venvguard < needrestart, "needrestart comes first: {hooks}");
    let units = ["followed", "copied", "supervisor"];
    let starts = |unit: &str| {
        let log = machine.must(&format!("journalctl --quiet --output cat --unit {unit}"))?;
        Ok(log.lines().filter(|line| line.starts_with("Started ")).count())
    };
    let before = units.map(starts).into_iter().collect::<Result<Vec<_>>>()?;
    let said = machine.must_upgrade_python()?;
    for (unit, before) in units.into_iter().zip(before) {
        let started = starts(unit)? - before;
        ensure!(started == 1, "{unit} was started {started} times: {said:?}");
    }
    // When it has looked, no process runs on the old interpreter.
    let outdated = machine.must("needrestart -b")?;
    ensure!(!outdated.contains("NEEDRESTART-SVC"), "{outdated}");
    for service in machine.services() {
        machine.wait_until_serving(&service)?;
    }
    let sites = [Site::Followed, Site::Copied, Site::Shop];
    machine.assert_guarded(&sites.map(|site| (site, On::New)))
}

fn must_apt(machine: &Machine, arguments: &str) -> Result<Said> {
    let said = machine.apt(arguments)?;
    ensure!(said.code == 0, "apt-get {arguments}: exit {}\n{}", said.code, said.text);
    Ok(said)
}
