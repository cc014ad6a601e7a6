//! A fleet's way to another Python: venvguard is installed, one venv turns out not to be ready, the upgrade in waves stops
//! before it, and continues when that is mended.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{Fleet, Host};
use crate::cases::minor::WHEEL;
use crate::guard::On;
use crate::prepare::venvs::Site;

const SMALL: &[Site] = &[Site::Followed];
const LARGE: &[Site] = &[Site::Followed, Site::News];

pub(super) const SITES: [&[Site]; 8] = [SMALL, LARGE, SMALL, SMALL, SMALL, SMALL, LARGE, SMALL];

/// The machines of the first wave. The second wave takes the next three.
const CANARIES: usize = 2;

/// A machine of the second wave, whose venv has a distribution without a wheel for the next Python.
const LATE: usize = 3;

const READINESS: &str = "venvguard.venvguard.readiness";
const UPGRADE: &str = r#"venvguard.venvguard.upgrade -e '{"venvguard_waves": [2, 3, "100%"]}'"#;

const HOLD: &str = "/etc/apt/preferences.d/venvguard-hold.pref";

pub(super) fn run(fleet: &Fleet) -> Result<()> {
    install_ledger(&fleet.hosts[LATE])?;
    install_guard(fleet)?;
    register(fleet)?;
    report_readiness(fleet)?;
    stop_without_lists(fleet)?;
    upgrade_the_canaries(fleet)?;
    relax(fleet)?;
    upgrade_the_others(fleet)
}

/// `ledger` 1.2.3 has a wheel for the old Python only; 1.3.0 has one for every Python.
fn install_ledger(host: &Host) -> Result<()> {
    let tag = format!("cp{}", host.machine.upgrade.about.from.minor.replace('.', ""));
    host.machine.write("/root/wheel.py", WHEEL)?;
    host.machine.must(&format!(
        "mkdir /wheels && cd /wheels
         python3 /root/wheel.py ledger 1.2.3 {tag} && python3 /root/wheel.py ledger 1.3.0 py3
         printf '[global]\\nno-index = true\\nfind-links = /wheelhouse /wheels\\n' >/etc/pip.conf
         su app -c '/srv/followed/venv/bin/pip install --quiet ledger==1.2.3'"
    ))?;
    Ok(())
}

/// The role in check mode, for real, and again.
fn install_guard(fleet: &Fleet) -> Result<()> {
    let controller = &fleet.controller;
    let package = controller.machine.must("ls /package/venvguard_*.deb")?;
    let guard = format!("guard.yml -e package={}", package.trim());
    controller.write("guard.yml", include_str!("guard.yml"))?;
    let check = controller.must_play(&format!("{guard} --check --diff"))?;
    for host in &fleet.hosts {
        ensure!(!host.machine.is_installed("venvguard")?, "the role installs in check mode");
        host.machine.must("test ! -e /etc/venvguard")?;
    }
    let real = controller.must_play(&guard)?;
    let again = controller.must_play(&guard)?;
    for host in &fleet.hosts {
        ensure!(host.machine.is_installed("venvguard")?, "the role does not install");
        check.announces(&real, &host.name)?;
        again.changes_nothing(&host.name)?;
    }
    Ok(())
}

/// The module `venv` in check mode, for real, and again.
fn register(fleet: &Fleet) -> Result<()> {
    let controller = &fleet.controller;
    controller.write("venvs.yml", include_str!("venvs.yml"))?;
    let check = controller.must_play("venvs.yml --check --diff")?;
    for host in &fleet.hosts {
        let (_, listed) = host.machine.venvguard_json("list")?;
        ensure!(listed["venvs"] == json!([]), "the module registers in check mode: {listed}");
    }
    let real = controller.must_play("venvs.yml")?;
    let again = controller.must_play("venvs.yml")?;
    for host in &fleet.hosts {
        check.announces(&real, &host.name)?;
        again.changes_nothing(&host.name)?;
        is_on(host, On::Old)?;
    }
    Ok(())
}

/// The report names what is in the way before anything is upgraded.
fn report_readiness(fleet: &Fleet) -> Result<()> {
    let late = &fleet.hosts[LATE].name;
    fleet.controller.must_play(READINESS)?;
    let report = fleet.controller.read_json("readiness.json")?;
    let venvs = SITES.iter().map(|sites| sites.len()).sum::<usize>();
    for (name, number) in [("hosts", 8), ("venvs", venvs), ("ready", venvs - 1), ("not_ready", 1)] {
        ensure!(report["totals"][name] == number, "{name}: {}", report["totals"]);
    }
    let [blocker] = &report["blockers"].as_array().into_iter().flatten().collect::<Vec<_>>()[..]
    else {
        anyhow::bail!("not exactly one blocker: {}", report["blockers"]);
    };
    let versions = json!([{"version": "1.2.3", "works_from": "1.3.0", "count": 1}]);
    ensure!(blocker["distribution"] == "ledger" && blocker["versions"] == versions, "{blocker}");
    for venv in report["venvs"].as_array().into_iter().flatten() {
        let is_late = venv["host"] == late.as_str() && venv["name"] == "followed";
        let expected = if is_late { ["not-ready", "none"] } else { ["ready", "rehearsed"] };
        ensure!(
            [&venv["readiness"], &venv["proof"]] == expected.map(Value::from).each_ref(),
            "{venv}"
        );
    }
    let page = fleet.controller.machine.must("cat /root/fleet/readiness.html")?;
    for words in ["ledger", "1.2.3 → 1.3.0", &format!("<td>{late}</td><td>followed")] {
        ensure!(page.contains(words), "the page lacks {words:?}");
    }
    fleet.hosts.iter().try_for_each(|host| is_on(host, On::Old))
}

/// A machine without apt's package lists is not taken for one that has nothing to upgrade.
fn stop_without_lists(fleet: &Fleet) -> Result<()> {
    fleet.controller.write("lists.yml", "- ansible.builtin.shell: rm -r /var/lib/apt/lists/*\n")?;
    let lists = "-e venvguard_lists_tasks=/root/fleet/lists.yml";
    let name = &fleet.hosts[0].name;
    let stopped = fleet.controller.play(&format!("{UPGRADE} {lists} --limit {name}"))?;
    ensure!(stopped.code != 0, "the upgrade goes on");
    ensure!(stopped.text.contains("apt has no package lists"), "the reason is not reported");
    is_on(&fleet.hosts[0], On::Old)
}

/// The second wave does not begin, because one of its venvs would not work.
fn upgrade_the_canaries(fleet: &Fleet) -> Result<()> {
    let stopped = fleet.controller.play(UPGRADE)?;
    ensure!(stopped.code != 0, "the upgrade goes on");
    let late = &fleet.hosts[LATE].name;
    let says = |host: &str, why: &str| {
        let fatal = format!("fatal: [{host}]: FAILED! => {{\"changed\": false, \"msg\": \"{why}");
        stopped.text.contains(&fatal)
    };
    ensure!(says(late, "followed would not work: "), "the venv is not named");
    ensure!(
        stopped.text.contains("ledger==1.2.3: the nearest version"),
        "the reason is not reported"
    );
    let because = format!("nothing was upgraded in this wave, because of {late}");
    ensure!(says(&fleet.hosts[LATE + 1].name, &because), "another host is blamed");
    for (number, host) in fleet.hosts.iter().enumerate() {
        let on = if number < CANARIES { On::New } else { On::Old };
        is_on(host, on)?;
        let is_held = host.machine.run(&format!("test -e {HOLD}"))?.code == 0;
        ensure!(is_held == (on == On::Old), "{}: held: {is_held}", host.name);
    }
    Ok(())
}

/// The owner of the venv accepts the next version of the distribution.
fn relax(fleet: &Fleet) -> Result<()> {
    let late = &fleet.hosts[LATE].name;
    let module = format!(
        "ansible {late} -i hosts.yml --become -m venvguard.venvguard.venv -a 'path=/srv/followed/venv relax=minor'"
    );
    for (options, outcome) in [(" --check", "CHANGED"), ("", "CHANGED"), ("", "SUCCESS")] {
        let said = fleet.controller.run(&format!("{module}{options}"))?;
        ensure!(said.text.starts_with(&format!("{late} | {outcome}")), "not {outcome}");
    }
    Ok(())
}

/// The upgrade continues where it stopped.
fn upgrade_the_others(fleet: &Fleet) -> Result<()> {
    let began = fleet.hosts[0].machine.must("cat /var/log/apt/history.log")?;
    fleet.controller.must_play(UPGRADE)?;
    for host in &fleet.hosts {
        is_on(host, On::New)?;
        host.machine.must(&format!("test ! -e {HOLD}"))?;
    }
    let ended = fleet.hosts[0].machine.must("cat /var/log/apt/history.log")?;
    ensure!(ended == began, "a canary was upgraded twice: {ended}");
    let ledger =
        fleet.hosts[LATE].machine.must("/srv/followed/venv/bin/pip list --format freeze")?;
    ensure!(ledger.contains("ledger==1.3.0"), "{ledger}");
    fleet.controller.machine.must("test ! -e /root/fleet/venvguard-upgrade").map(drop)
}

/// Every site of a machine serves on the old or the new Python.
fn is_on(host: &Host, on: On) -> Result<()> {
    let sites: Vec<_> = host.machine.sites.iter().map(|site| (*site, on)).collect();
    host.machine.assert_guarded(&sites).map_err(|error| error.context(host.name.clone()))
}
