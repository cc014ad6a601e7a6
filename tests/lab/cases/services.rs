//! Services that are not restarted like others: of users, at work, forbidden, listed.

use anyhow::{Result, ensure};

use super::Case;
use super::users::{as_user, make_unit};
use crate::guard::On;
use crate::machine::{Machine, services_of, wait_for};
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    let case = |subject, upgrade, run| Case::guarded(subject, upgrade, &[Site::Followed], run);
    vec![
        case("user_units", Kind::TrixieMinor, user_units),
        case("oneshot_at_work", Kind::Revision, oneshot_at_work),
        case("oneshot_that_imports_late", Kind::TrixieMinor, imports_late),
        case("policy_forbids_a_restart", Kind::Revision, policy_forbids),
        case("refused_restarts", Kind::Revision, refused),
        case("restart_mode_list", Kind::TrixieMinor, listed),
        case("restart_mode_window", Kind::TrixieMinor, in_window),
        case("hooks", Kind::TrixieMinor, hooks),
        case("processes_agree_with_proc", Kind::Revision, processes_agree),
    ]
}

/// Root registers the venv, and a lingering user runs it: their own manager restarts the unit. A unit of another user
/// that fails does not undo the repair.
fn user_units(machine: &Machine) -> Result<()> {
    let new = machine.upgrade.about.to.clone();
    let service = make_unit(machine)?;
    machine.must("dpkg --install /package/venvguard_*.deb")?;
    machine.must(&format!("venvguard register {}", Site::Followed.venv()))?;
    let said = machine.must_upgrade_python()?;
    for told in ["venvguard: followed: rebuilt", "user app: restarted user:web.service"] {
        ensure!(said.text.contains(told), "{told:?} is missing from the output: {said:?}");
    }
    ensure!(!said.text.contains("restart this process yourself"), "{said:?}");
    machine.wait_until_serving(&service)?;
    ensure!(machine.answering_version(&service)? == new.upstream, "it runs the old Python");
    machine.assert_no_process_but_on(Site::Followed, &new.minor)?;
    ensure!(machine.status_of(Site::Followed)?["state"] == "healthy");
    // A unit that cannot come up again.
    let broken = "mkdir -p ~/.config/systemd/user/web.service.d
         printf \"[Service]\\nExecStartPre=/bin/false\\n\" >~/.config/systemd/user/web.service.d/x.conf
         systemctl --user daemon-reload";
    as_user(machine, "app", broken)?;
    let rebuilt = machine.venvguard("rebuild followed")?;
    ensure!(rebuilt.text.contains("cannot restart user:web.service"), "{rebuilt:?}");
    ensure!(rebuilt.text.contains("followed: rebuilt"), "{rebuilt:?}");
    Ok(())
}

const JOB: &str = "[Service]
Type=oneshot
User=app
ExecStart=/srv/followed/venv/bin/python -c 'import time; time.sleep(600)'
";

fn oneshot_at_work(machine: &Machine) -> Result<()> {
    machine.write("/etc/systemd/system/job.service", JOB)?;
    machine.must("systemctl daemon-reload; systemctl start --no-block job; sleep 2")?;
    let pid = || machine.must("systemctl show --property=MainPID --value job");
    let before = pid()?;
    machine.install_guard_that_finds()?;
    let said = machine.must_upgrade_python()?;
    let told = "systemd:job.service is left alone: it is a oneshot at work";
    ensure!(said.text.contains(told), "{told:?} is missing from the output: {said:?}");
    let restarted = said.text.lines().filter(|line| line.contains("restarted systemd:"));
    for line in restarted {
        ensure!(!line.contains("job.service"), "{line}");
    }
    ensure!(pid()? == before, "the oneshot was run again");
    Ok(())
}

const LATE: &str = "[Service]
Type=oneshot
User=app
ExecStart=/srv/followed/venv/bin/python /srv/late.py
";

const LATE_PROGRAM: &str = "import os, time
while not os.path.exists('/run/upgraded'):
    time.sleep(0.1)
import gunicorn.arbiter, sys
print(sys.version_info[:2], gunicorn.arbiter.__file__, file=open('/tmp/late', 'w'))
";

/// A oneshot at work cannot be restarted: its venv stays as it is, so that the job finds its modules.
fn imports_late(machine: &Machine) -> Result<()> {
    machine.write("/etc/systemd/system/job.service", LATE)?;
    machine.write("/srv/late.py", LATE_PROGRAM)?;
    machine.must("systemctl daemon-reload; systemctl start --no-block job; sleep 2")?;
    machine.install_guard_that_finds()?;
    let said = machine.must_upgrade_python()?;
    let told = "systemd:job.service is left alone: it is a oneshot at work";
    ensure!(said.text.contains(told), "{told:?} is missing from the output: {said:?}");
    let old = machine.upgrade.about.from.minor.clone();
    ensure!(said.text.contains("followed: pinned"), "{said:?}");
    machine.must("touch /run/upgraded")?;
    let has_ended = || Ok(machine.run("systemctl is-active job")?.text.trim() == "inactive");
    wait_for("the job to end", has_ended)?;
    let late = machine.must("cat /tmp/late")?;
    ensure!(late.contains(&format!("/lib/python{old}/site-packages/gunicorn")), "{late}");
    machine.must("venvguard rebuild followed")?;
    machine.assert_guarded(&[(Site::Followed, On::New)])
}

fn policy_forbids(machine: &Machine) -> Result<()> {
    let venv = Site::Followed.venv();
    machine.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n")?;
    machine.must("chmod 755 /usr/sbin/policy-rc.d")?;
    machine.install_guard()?;
    let before = machine.pids_of(&venv)?;
    let said = machine.must_upgrade_python()?;
    let told = "is not restarted: /usr/sbin/policy-rc.d forbids it";
    ensure!(said.text.contains(told), "{told:?} is missing from the output: {said:?}");
    ensure!(machine.pids_of(&venv)? == before, "it was restarted: {}", said.text);
    ensure!(machine.status_of(Site::Followed)?["state"] == "restart-needed");
    // Somebody asks for it.
    machine.must("venvguard restart --all")?;
    let after = machine.pids_of(&venv)?;
    ensure!(before.iter().all(|pid| !after.contains(pid)), "not restarted");
    machine.assert_guarded(&[(Site::Followed, On::New)])
}

fn refused(machine: &Machine) -> Result<()> {
    let venv = Site::Followed.venv();
    machine.install_guard()?;
    machine.must(
        "mkdir -p /etc/systemd/system/followed.service.d
         printf '[Unit]\\nRefuseManualStop=yes\\n' >/etc/systemd/system/followed.service.d/x.conf
         systemctl daemon-reload",
    )?;
    let before = machine.pids_of(&venv)?;
    let said = machine.must_upgrade_python()?;
    let told = "systemd:followed.service is left alone: its unit has RefuseManualStop=yes";
    ensure!(said.text.contains(told), "{told:?} is missing from the output: {said:?}");
    ensure!(machine.pids_of(&venv)? == before, "it was restarted: {}", said.text);
    ensure!(!said.text.contains("systemctl exited"), "{}", said.text);
    Ok(())
}

fn listed(machine: &Machine) -> Result<()> {
    let venv = Site::Followed.venv();
    machine.install_guard()?;
    machine.register(Site::Followed, "--restart list")?;
    let before = machine.pids_of(&venv)?;
    let said = machine.must_upgrade_python()?;
    let told = "is not restarted: its restart mode is \"list\"";
    ensure!(said.text.contains(told), "{told:?} is missing from the output: {said:?}");
    ensure!(machine.pids_of(&venv)? == before, "it was restarted: {}", said.text);
    let service = services_of(Site::Followed).remove(0);
    machine.page(&service, "/ok")?;
    let old = machine.upgrade.about.from.minor.clone();
    let link = machine.must(&format!("readlink {venv}/bin/python3 {venv}/bin/python || true"))?;
    ensure!(link.contains(&format!("python{old}")), "it is not pinned: {link}");
    machine.must("venvguard rebuild followed")?;
    machine.assert_guarded(&[(Site::Followed, On::New)])
}

/// The service keeps the old Python until its window opens; then the timer's unit rebuilds the venv.
fn in_window(machine: &Machine) -> Result<()> {
    let venv = Site::Followed.venv();
    machine.install_guard()?;
    let days = "Sat *-*-1..7 03:00";
    machine.register(Site::Followed, &format!("--restart window --window '{days}..05:00'"))?;
    let before = machine.pids_of(&venv)?;
    let said = machine.must_upgrade_python()?;
    let told = format!("is not restarted: it waits for its window ({days}..05:00)");
    ensure!(said.text.contains(&told), "{told:?} is missing from the output: {said:?}");
    ensure!(machine.pids_of(&venv)? == before, "it was restarted: {}", said.text);
    let state =
        machine.must("systemctl is-active venvguard-restart.path venvguard-restart.timer")?;
    ensure!(state.lines().all(|line| line == "active"), "{state}");
    // venvguard and systemd agree on the days.
    let status = machine.status_of(Site::Followed)?;
    let reason = status["reasons"][0].as_str().unwrap_or_default();
    let opens = reason.strip_prefix("its services restart in the window of ").unwrap_or_default();
    let opens = opens.rsplit_once(' ').map_or(opens, |(time, _zone)| time);
    let elapses = machine.must(&format!("systemd-analyze calendar '{days}'"))?;
    ensure!(!opens.is_empty() && elapses.contains(opens), "{status}\n{elapses}");
    // Nothing happens outside of the window.
    machine.must("systemctl start venvguard-restart.service")?;
    ensure!(machine.pids_of(&venv)? == before, "it was restarted outside of its window");
    let soon = machine.must("date -d '1 minute' +%H:%M")?;
    let soon = soon.trim();
    let window = format!("{soon}..$(date -d '31 minutes' +%H:%M)");
    machine.register(Site::Followed, &format!("--window \"{window}\""))?;
    machine.must(&format!("until [ $(date +%H:%M) = {soon} ]; do sleep 1; done"))?;
    machine.must("systemctl start venvguard-restart.service")?;
    let after = machine.pids_of(&venv)?;
    ensure!(before.iter().all(|pid| !after.contains(pid)), "not restarted");
    machine.assert_guarded(&[(Site::Followed, On::New)])?;
    machine.must("systemctl start venvguard-restart.service")?;
    machine.must("test ! -e /var/lib/venvguard/waiting.json")?;
    Ok(())
}

/// A program that fails before the repair leaves the venv on the old Python; one after it learns how it ended.
fn hooks(machine: &Machine) -> Result<()> {
    let venv = Site::Followed.venv();
    machine.install_guard()?;
    let dir = "/etc/venvguard/hooks.d";
    machine.write(&format!("{dir}/before/10-drain"), "#!/bin/sh\ntest -e /run/may-drain\n")?;
    machine.write(
        &format!("{dir}/after/10-note"),
        "#!/bin/sh\necho $VENVGUARD_VENV $VENVGUARD_ACTION $VENVGUARD_PYTHON_FROM $VENVGUARD_PYTHON_TO $VENVGUARD_RESULT >>/run/notes\n",
    )?;
    machine.must(&format!("chmod 755 {dir}/before/10-drain {dir}/after/10-note"))?;
    let before = machine.pids_of(&venv)?;
    let said = machine.must_upgrade_python()?;
    let told = "a program in /etc/venvguard/hooks.d/before failed: 10-drain exited 1";
    ensure!(said.text.contains(told), "{told:?} is missing from the output: {said:?}");
    ensure!(machine.pids_of(&venv)? == before, "it was restarted: {}", said.text);
    let (old, new) = (&machine.upgrade.about.from.minor, &machine.upgrade.about.to.minor);
    let link = machine.must(&format!("readlink {venv}/bin/python3 {venv}/bin/python || true"))?;
    ensure!(link.contains(&format!("python{old}")), "it is not pinned: {link}");
    machine.must("touch /run/may-drain; venvguard rebuild followed")?;
    machine.assert_guarded(&[(Site::Followed, On::New)])?;
    let notes = machine.must("cat /run/notes")?;
    let expected = ["pinned", "rebuilt"].map(|end| format!("followed rebuild {old} {new} {end}"));
    ensure!(notes.lines().eq(expected.iter()), "{notes}");
    Ok(())
}

/// `processes` and the kernel agree to the pid, on a master without a venv as well.
fn processes_agree(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    machine.register(Site::Followed, "--policy warn")?;
    machine.must(
        "systemd-run --quiet --unit=own /usr/bin/python3 -c 'import time; time.sleep(900)'
         sleep 1",
    )?;
    ensure!(machine.venvguard("processes")?.code == 0);
    machine.must_upgrade_python()?;
    let expected = machine.must(
        "for dir in /proc/[0-9]*; do
             case $(readlink $dir/exe) in */bin/python*' (deleted)') echo ${dir#/proc/};; esac
         done | sort -n",
    )?;
    let expected: Vec<u64> = expected.lines().filter_map(|pid| pid.parse().ok()).collect();
    let (code, listed) = machine.venvguard_json("processes")?;
    let processes = listed["processes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let pids: Vec<u64> = processes.iter().filter_map(|one| one["pid"].as_u64()).collect();
    ensure!(code == 3 && pids == expected && !pids.is_empty(), "{expected:?}, {listed}");
    let own = processes.iter().find(|one| one["unit"] == "own.service");
    ensure!(own.is_some_and(|one| one["venvs"] == serde_json::json!([])), "{listed}");
    let venvs = processes.iter().filter(|one| one["venvs"] == serde_json::json!(["followed"]));
    ensure!(venvs.count() == machine.pids_of(&Site::Followed.venv())?.len(), "{listed}");
    Ok(())
}
