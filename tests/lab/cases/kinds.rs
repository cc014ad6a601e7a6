//! Services of every kind on one machine, none of them declared: an upgrade restarts each exactly once.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Case;
use crate::machine::{Machine, wait_for};
use crate::prepare::upgrade::Kind;

pub(super) fn cases() -> Vec<Case> {
    let case = |subject, upgrade, run| Case {
        extra: &[
            "apache2",
            "cron",
            "libapache2-mod-wsgi-py3",
            "runit",
            "runit-run",
            "s6",
            "uwsgi-core",
            "uwsgi-plugin-python3",
        ],
        ..Case::guarded(subject, upgrade, &[], run)
    };
    vec![
        case("services_of_every_kind_patch", Kind::ArticlePatch, patch),
        case("services_of_every_kind_minor", Kind::TrixieMinor, minor),
    ]
}

/// What runs and is restarted: its name, its venv below `/srv`, and the service that it belongs to. Root restarts no unit
/// of a user's own manager: the user does. `bound` and `jailed` see their venvs elsewhere than we do (F12).
const RESTARTED: &str = "
plain       plain/venv      systemd:plain.service
rooted      rooted/venv     systemd:rooted.service
wrapper     wrapper/venv    systemd:wrapper.service
pool@1      pool/venv       systemd:pool@1.service
pool@2      pool/venv       systemd:pool@2.service
dropped     dropped/venv    systemd:dropped.service
pre-fixed   pre-fixed/venv  systemd:pre-fixed.service
socketed    socketed/venv   systemd:socketed.service
watched     watched/venv    systemd:watched.service
present     present/venv    systemd:present.service
variable    variable/venv   systemd:variable.service
bound       bound/venv      systemd:bound.service
jailed      jail/opt/venv   systemd:jailed.service
transient   transient/venv  systemd:transient.service
dynamic     dynamic/venv    systemd:dynamic.service
forks       forks/venv      systemd:forks.service
linked      release/7/venv  systemd:linked.service
shared-a    shared/venv     systemd:shared-a.service
shared-b    shared/venv     systemd:shared-b.service
dependent   dependent/venv  systemd:dependent.service
pair-one    one/venv        systemd:pair.service
pair-two    two/venv        systemd:pair.service
gunicorn    gunicorn/venv   systemd:gunicorn.service
celery-w1   celery/venv     systemd:celery.service
celery-w2   celery/venv     systemd:celery.service
vassal-one  vassal-one/venv systemd:emperor.service
vassal-two  vassal-two/venv systemd:emperor.service
sysv        sysv/venv       systemd:sysv.service
solo        solo/venv       supervisord:solo
left        left/venv       supervisord:duo:left
right       right/venv      supervisord:duo:right
many_0      many/venv       supervisord:many:many_0
many_1      many/venv       supervisord:many:many_1
second      second/venv     supervisord:second
third       third/venv      systemd:supervisor-third.service
runs        runs/venv       runit:runs
ess         ess/venv        s6:ess
own         own/venv        -
guest       guest/venv      -
";

/// A copied interpreter is of no use after a patch, and remains with its minor version after another one is installed. So
/// does the plugin of Debian's uWSGI, which nothing upgrades.
const OF_A_MINOR: &str = "
copied      copied/venv     systemd:copied.service
plugin      plugin/venv     systemd:emperor-of-debian.service
";

/// The package of its module restarts Apache in an upgrade to another minor version, too.
const APACHE: &str = "apache apache/venv systemd:apache2.service";

/// What runs and is only reported.
const REPORTED: &str = "
crontab     crontab/venv    -
by-hand     by-hand/venv    -
";

/// What runs no more, or never did.
const AT_REST: [&str; 6] = [
    "stopped.service",
    "masked.service",
    "finished.service",
    "timed.service",
    "timed.timer",
    "idle.service",
];

/// What has run before the upgrade.
const ENDED: [&str; 3] = ["finished", "masked", "stopped"];

/// How many venvs there are: those of the services, of what is at rest, and the emperor's.
const VENVS: usize = 46;

fn patch(machine: &Machine) -> Result<()> {
    let restarted = [kinds(RESTARTED), kinds(OF_A_MINOR), kinds(APACHE)].concat();
    every_kind(machine, &restarted, &[], &[])
}

fn minor(machine: &Machine) -> Result<()> {
    every_kind(machine, &kinds(RESTARTED), &kinds(OF_A_MINOR), &kinds(APACHE))
}

/// An upgrade restarts some services, leaves others as they are, and restarts some that their packages restart as well.
fn every_kind(
    machine: &Machine,
    restarted: &[OneKind],
    left: &[OneKind],
    again: &[OneKind],
) -> Result<()> {
    let reported = kinds(REPORTED);
    let all = [restarted, left, again, &reported].concat();
    make(machine, &all)?;
    machine.must("dpkg --install /package/venvguard_*.deb")?;
    machine.must("printf 'stable-for = 1\\n' >/etc/venvguard/config.toml")?;
    machine.must("venvguard scan --register /srv")?;
    let mut before = Starts::read(machine)?;
    agrees(machine, &all, &before, &BTreeSet::new()).context("before the upgrade")?;
    let at_rest = state_at_rest(machine)?;
    machine.must(": >/srv/starts")?;

    let said = machine.must_upgrade_python()?;
    let mut after = Starts::read(machine)?;
    let new = &machine.upgrade.about.to.upstream;
    for OneKind { name, service, .. } in again {
        let last = after.0.remove(*name).and_then(|mut starts| starts.pop());
        let last = last.with_context(|| format!("{name} was not restarted"))?;
        ensure!(last.1 == *new, "{name} runs {}", last.1);
        let told = format!("restarted {}", service.unwrap_or_default());
        ensure!(said.text.matches(&told).count() == 1, "{told:?} is not reported once: {said:?}");
        before.0.insert((*name).to_owned(), vec![last]);
    }
    let wrong = after.other_than_once(restarted, new);
    ensure!(wrong.is_empty(), "not restarted exactly once:\n{}", wrong.join("\n"));
    let rest = state_at_rest(machine)?;
    ensure!(rest == at_rest, "was\n{at_rest}is\n{rest}");
    let stale: BTreeSet<u64> =
        reported.iter().map(|one| before.pid_of(one.name)).collect::<Result<_>>()?;
    for pid in &stale {
        let told = format!("restart this process yourself: pid {pid} ");
        ensure!(said.text.contains(&told), "{told:?} is missing from the output");
    }
    agrees(machine, &all, &before.then(after), &stale).context("after the upgrade")?;

    let pids: Vec<String> = stale.iter().map(u64::to_string).collect();
    machine.must(&format!("kill {}; sleep 1", pids.join(" ")))?;
    let (code, status) = machine.venvguard_json("status")?;
    ensure!(code == 0, "{status}");
    Ok(())
}

/// Makes the services and waits until all have started; then two of them are stopped.
fn make(machine: &Machine, all: &[OneKind]) -> Result<()> {
    // apt knows the order in which they are configured.
    let said = machine.apt("install /extra/*.deb")?;
    ensure!(said.code == 0, "{said:?}");
    machine.write("/srv/app.py", include_str!("../apps/kinds/app.py"))?;
    machine.write("/srv/tasks.py", include_str!("../apps/kinds/tasks.py"))?;
    machine.write("/root/make.sh", include_str!("../apps/kinds/make.sh"))?;
    machine.must("sh /root/make.sh")?;
    let names: BTreeSet<&str> = all.iter().map(|one| one.name).chain(ENDED).collect();
    let missing = || -> Result<Vec<&str>> {
        let starts = Starts::read(machine)?;
        Ok(names.iter().filter(|name| !starts.0.contains_key(**name)).copied().collect())
    };
    wait_for("all services to start", || Ok(missing()?.is_empty()))
        .with_context(|| format!("{:?} have not started", missing().unwrap_or_default()))?;
    machine.must("systemctl stop stopped masked && systemctl mask --quiet masked").map(drop)
}

/// One service, as the tables describe it.
#[derive(Clone, Copy)]
struct OneKind {
    name: &'static str,
    venv: &'static str,
    service: Option<&'static str>,
}

fn kinds(table: &'static str) -> Vec<OneKind> {
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter_map(|row| match row.as_slice() {
        [name, venv, service] => {
            Some(OneKind { name, venv, service: Some(*service).filter(|one| *one != "-") })
        }
        _ => None,
    })
    .collect()
}

/// The pids and versions with which each service has started.
struct Starts(BTreeMap<String, Vec<(u64, String)>>);

impl Starts {
    fn read(machine: &Machine) -> Result<Self> {
        let mut starts: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
        for line in machine.must("cat /srv/starts")?.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [name, pid, version] = words.as_slice() else { anyhow::bail!("{line:?}") };
            let start = (pid.parse()?, (*version).to_owned());
            starts.entry((*name).to_owned()).or_default().push(start);
        }
        Ok(Self(starts))
    }

    /// The process with which a service has started last.
    fn pid_of(&self, name: &str) -> Result<u64> {
        let last = self.0.get(name).and_then(|starts| starts.last());
        Ok(last.with_context(|| format!("{name} has not started"))?.0)
    }

    /// These and later ones.
    fn then(mut self, later: Self) -> Self {
        self.0.extend(later.0);
        self
    }

    /// The services that have not started exactly once with this version, and others that have started.
    fn other_than_once(&self, wanted: &[OneKind], version: &str) -> Vec<String> {
        let is_once = |name: &str| match self.0.get(name).map(Vec::as_slice) {
            Some([(_, its)]) => its == version,
            _ => false,
        };
        let names: BTreeSet<&str> = wanted.iter().map(|one| one.name).collect();
        let others = self.0.keys().map(String::as_str).filter(|name| !names.contains(name));
        let wrong = names.iter().copied().filter(|name| !is_once(name)).chain(others);
        wrong.map(|name| format!("{name}: {:?}", self.0.get(name))).collect()
    }
}

/// `status` finds all processes of venvs that the kernel has, each in its service, and `processes` those that are stale.
fn agrees(
    machine: &Machine,
    all: &[OneKind],
    starts: &Starts,
    stale: &BTreeSet<u64>,
) -> Result<()> {
    let (code, status) = machine.venvguard_json("status")?;
    ensure!((code == 0) == stale.is_empty(), "status exits {code}: {status}");
    let venvs = status["venvs"].as_array().context("no venvs")?;
    ensure!(venvs.len() == VENVS, "{} venvs: {status}", venvs.len());
    let mut wrong = Vec::new();
    for OneKind { name, venv, service } in all {
        let (pid, path) = (starts.pid_of(name)?, format!("/srv/{venv}"));
        let found = venvs.iter().find(|one| one["path"] == path.as_str());
        let found = found.map_or(&[][..], |one| list(&one["processes"]));
        let process = found.iter().find(|one| one["pid"] == pid);
        let its = process.map(|process| process["service"].as_str());
        if its != Some(*service) {
            wrong.push(format!("{name} (pid {pid}): {its:?} of {found:?}"));
        }
    }
    ensure!(wrong.is_empty(), "found in other services:\n{}", wrong.join("\n"));

    let seen = seen(machine)?;
    let pids = |is: &dyn Fn(&Seen) -> bool| -> BTreeSet<u64> {
        seen.iter().filter(|one| is(one)).map(|one| one.pid).collect()
    };
    let ours = pids(&|one| !one.is_supervisord);
    let found = pids_in(venvs.iter().flat_map(|one| list(&one["processes"])));
    ensure!(found == ours, "status finds {found:?}, the kernel {ours:?}");
    let (_, listed) = machine.venvguard_json("processes")?;
    let listed = pids_in(list(&listed["processes"]).iter());
    let old = pids(&|one| !stale.is_empty() && one.is_old(machine));
    ensure!(listed == old, "processes lists {listed:?}, the kernel has {old:?}: {seen:?}");
    let old: BTreeSet<u64> = old.intersection(&ours).copied().collect();
    ensure!(old == *stale, "old: {old:?}, to be left: {stale:?}");
    Ok(())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn pids_in<'a>(processes: impl Iterator<Item = &'a Value>) -> BTreeSet<u64> {
    processes.filter_map(|one| one["pid"].as_u64()).collect()
}

/// A process of Python's, as the kernel has it.
#[derive(Debug)]
struct Seen {
    pid: u64,
    executable: String,
    is_supervisord: bool,
}

impl Seen {
    /// Whether it runs the interpreter from before the upgrade.
    fn is_old(&self, machine: &Machine) -> bool {
        let (from, to) = (&machine.upgrade.about.from.minor, &machine.upgrade.about.to.minor);
        let is_of_another = from != to && self.executable.ends_with(from.as_str());
        is_of_another || self.executable.ends_with(" (deleted)")
    }
}

/// All processes whose program is a Python, or has loaded its library.
fn seen(machine: &Machine) -> Result<Vec<Seen>> {
    let script = "for dir in /proc/[0-9]*; do
        exe=$(readlink $dir/exe) || continue
        case $exe in
        */bin/python*) echo ${dir#/proc/} $(grep -c /usr/bin/supervisord $dir/cmdline) $exe;;
        */apache2* | */uwsgi-core*)
            library=$(grep -m 1 -o '/[^ ]*/libpython.*' $dir/maps) || continue
            echo ${dir#/proc/} 0 $library;;
        esac
    done";
    let said = machine.must(script)?;
    let one = |line: &str| -> Option<Seen> {
        let mut words = line.splitn(3, ' ');
        let (pid, supervisord) = (words.next()?.parse().ok()?, words.next()?);
        let executable = words.next()?.to_owned();
        Some(Seen { pid, executable, is_supervisord: supervisord != "0" })
    };
    said.lines().map(|line| one(line).with_context(|| line.to_owned())).collect()
}

/// The runs of the units that are at rest.
fn state_at_rest(machine: &Machine) -> Result<String> {
    let properties = ["Id", "LoadState", "ActiveState", "SubState", "InvocationID", "NRestarts"];
    let properties = properties.map(|one| format!("--property={one}")).join(" ");
    machine.must(&format!("systemctl show {properties} {}", AT_REST.join(" ")))
}
