//! The package comes, is upgraded, and leaves: on each suite, on one machine, with a venv in use.

use anyhow::{Context, Result, ensure};

use super::Case;
use crate::machine::Machine;
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    let case = |subject, upgrade| Case::guarded(subject, upgrade, &[Site::Followed], run);
    vec![
        case("package_of_bookworm", Kind::BookwormMinor),
        case("package_of_trixie", Kind::TrixieRevision),
        case("package_of_forky", Kind::ForkyRevision),
    ]
}

/// Every file outside the directories that apt, dpkg and the journal write to, with what an upgrade could change of it;
/// what dpkg and systemd know of venvguard.
const STATE: &str = r"
find / -xdev \( -path /var/log -o -path /var/lib/apt -o -path /var/cache/apt -o -path /var/cache/debconf -o -path /var/lib/dpkg \
    -o -path /var/backups -o -path /var/lib/systemd/timers -o -path /srv/followed -o -path /root -o -name __pycache__ \) -prune \
    -o -type d -printf '%p %y %m %u:%g\n' -o -type l -printf '%p %y %l\n' -o -printf '%p %y %m %u:%g %s %T@\n' |
    sort
find /srv/followed/venv ! -name __pycache__ ! -path '*/__pycache__/*' -printf '%p %y %m %u:%g %s %l\n' | sort
find /run -name '*venvguard*'
cat /var/lib/dpkg/triggers/File /var/lib/dpkg/diversions /var/lib/dpkg/statoverride
dpkg-query --show
systemctl list-unit-files --no-legend 'venvguard*'
systemctl list-units --all --plain --no-legend 'venvguard*' | tr -s ' '
systemctl list-units --failed --no-legend
";

/// What only a purge removes: conffiles, state, and systemd's record that the unit was enabled.
const KEPT: [&str; 12] = [
    "/etc/apt/apt.conf.d/50venvguard.disabled ",
    "/etc/systemd/system/paths.target.wants",
    "/etc/systemd/system/timers.target.wants",
    "/etc/update-motd.d",
    "/etc/venvguard",
    "/run/venvguard",
    "/var/lib/systemd/deb-systemd-helper-",
    "/var/lib/venvguard",
    "venvguard\t",
    "venvguard-metrics.timer not-found ",
    "venvguard-restart.path not-found ",
    "venvguard-resume.path not-found ",
];

fn run(machine: &Machine) -> Result<()> {
    machine.write("/root/smoke", include_str!("../../../debian/tests/smoke"))?;
    machine.must(
        "dpkg-deb -R /package/venvguard_*.deb /root/next
         sed -i 's/^Version: .*/&+lab1/' /root/next/DEBIAN/control
         dpkg-deb --root-owner-group -Zgzip -z1 --build /root/next /root/next.deb",
    )?;
    let before = machine.must(STATE)?;

    must_apt(machine, "install /package/venvguard_*.deb")?;
    is_installed(machine).context("after the installation")?;
    machine.must("sh /root/smoke")?;
    machine.register(Site::Followed, "--policy warn")?;
    machine.must("echo '# by the administrator' >>/etc/venvguard/config.toml")?;
    let registered = machine.must("venvguard list --json")?;
    for upgrade in ["install /root/next.deb", "install --reinstall /root/next.deb"] {
        must_apt(machine, upgrade)?;
        is_installed(machine).context(upgrade)?;
        is_kept(machine, &registered).context(upgrade)?;
    }

    must_apt(machine, "remove venvguard")?;
    let removed = machine.must(STATE)?;
    let left: Vec<_> = difference(&before, &removed)
        .into_iter()
        .filter(|line| !KEPT.iter().any(|kept| line.starts_with(&format!("+{kept}"))))
        .collect();
    ensure!(left.is_empty(), "a removal leaves, and takes: {left:#?}");

    must_apt(machine, "install /root/next.deb")?;
    is_installed(machine).context("after an installation again")?;
    is_kept(machine, &registered).context("after an installation again")?;

    must_apt(machine, "purge venvguard")?;
    let left = difference(&before, &machine.must(STATE)?);
    ensure!(left.is_empty(), "a purge leaves, and takes: {left:#?}");
    machine.wait_until_all_serve()
}

/// The package is complete, and systemd watches for its work.
fn is_installed(machine: &Machine) -> Result<()> {
    // The roots take no documents, and the administrator has changed the settings.
    let changed = machine.must(
        "dpkg --verify venvguard | grep -v -e ' /usr/share/doc/' -e ' /usr/share/man/' \
             -e ' /etc/venvguard/config.toml$' || true",
    )?;
    ensure!(changed.is_empty(), "files differ from the package: {changed}");
    let unit = machine.must(
        "systemctl show --property ActiveState,UnitFileState,NeedDaemonReload venvguard-resume.path",
    )?;
    for expected in ["ActiveState=active", "UnitFileState=enabled", "NeedDaemonReload=no"] {
        ensure!(unit.contains(expected), "{unit}");
    }
    let failed = machine.must("systemctl list-units --failed --no-legend 'venvguard*'")?;
    ensure!(failed.is_empty(), "{failed}");
    let doctor = machine.stdout("venvguard doctor")?;
    ensure!(doctor.code == 0, "{doctor:?}");
    Ok(())
}

/// The registry and the administrator's settings have not changed.
fn is_kept(machine: &Machine, registered: &str) -> Result<()> {
    let now = machine.must("venvguard list --json")?;
    ensure!(now == registered, "{registered} became {now}");
    machine.must("grep -q 'by the administrator' /etc/venvguard/config.toml").map(drop)
}

/// The lines that are in only one of two texts: with `-` those of the first, with `+` those of the second.
fn difference(before: &str, after: &str) -> Vec<String> {
    let only = |sign, these: &str, others: &str| -> Vec<String> {
        let others: std::collections::HashSet<&str> = others.lines().collect();
        let only = these.lines().filter(|line| !others.contains(line));
        only.map(|line| format!("{sign}{line}")).collect()
    };
    [only('-', before, after), only('+', after, before)].concat()
}

fn must_apt(machine: &Machine, arguments: &str) -> Result<()> {
    let said = machine.apt(arguments)?;
    ensure!(said.code == 0, "apt-get {arguments}: exit {}\n{}", said.code, said.text);
    Ok(())
}
