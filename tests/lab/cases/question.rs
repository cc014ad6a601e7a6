//! The question before Python is upgraded, at a pseudo-terminal.

use anyhow::{Result, ensure};

use super::Case;
use super::crash::write_list;
use crate::guard::On;
use crate::machine::{Machine, Said, wait_for};
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::guarded("question_at_a_terminal", Kind::TrixieMinor, &[Site::Followed], question),
        Case::guarded("question_that_nobody_reads", Kind::TrixieMinor, &[Site::Followed], nobody),
    ]
}

const CONFIG: &str = "/etc/venvguard/config.toml";

/// The upgrade of Python, by somebody who is asked whether to continue.
fn upgrade(machine: &Machine) -> String {
    let packages = machine.upgrade.about.packages.join(" ");
    format!("apt-get -o Dpkg::Options::=--force-confold install {packages}")
}

/// Runs a command at a pseudo-terminal, where these keys answer venvguard's questions. A question
/// that nobody answers would keep apt waiting for ever, hence the limit.
fn at_terminal(machine: &Machine, keys: &str, command: &str) -> Result<Said> {
    machine.run(&format!(
        "systemd-run --quiet --wait --pipe --setenv=DEBIAN_PRIORITY=critical --setenv=TERM=dumb \\
         timeout 300 python3 /root/answers.py '{keys}' {command}"
    ))
}

/// The state that an answer may not change.
fn state(machine: &Machine) -> Result<String> {
    machine.must(
        "dpkg-query --show; readlink /srv/followed/venv/bin/python3; ls -d /srv/followed/.*
         find /var/lib/venvguard -type f ! -name history.jsonl | xargs sha256sum",
    )
}

fn question(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    machine.write("/root/answers.py", include_str!("../apps/answers.py"))?;
    machine.must("venvguard hook pre-invoke")?;
    let upgrade = upgrade(machine);
    let before = state(machine)?;
    for (keys, settings) in [
        ("a", ""),
        ("d,a", ""),
        ("x,no", ""),
        ("^C", ""),
        ("^D", ""),
        ("", "timeout = 2\ndefault = \"abort\"\n"),
    ] {
        machine.write(CONFIG, &format!("rehearsal.attended = 0\n[ask]\n{settings}"))?;
        let said = at_terminal(machine, keys, &upgrade)?;
        ensure!(said.code == 100, "{keys}: {said:?}");
        ensure!(said.text.contains("this upgrade affects 1 venv:"), "{keys}: {said:?}");
        ensure!(state(machine)? == before, "{keys} changed something: {said:?}");
        ensure!(machine.run("dpkg --audit")?.text.is_empty(), "{keys}: {said:?}");
    }

    let said = machine.run(&upgrade.replacen("apt-get", "apt --assume-no", 1))?;
    ensure!(said.text.contains("venvguard: 1 venv: 1 to rebuild"), "{said:?}");

    let said = at_terminal(machine, "h", &upgrade)?;
    ensure!(said.code == 100 && said.text.contains("Python is held until"), "{said:?}");
    let simulated = machine.must("apt-get --simulate dist-upgrade")?;
    ensure!(!simulated.contains("Inst python3-minimal"), "{simulated}");
    ensure!(simulated.contains("Inst "), "nothing else is upgraded: {simulated}");
    machine.must("venvguard unhold")?;

    // A policy blocks. Without an answer, the run is aborted; somebody may allow it all the same.
    machine.write(CONFIG, "rehearsal.attended = 0\n[ask]\ntimeout = 2\n")?;
    machine.must("venvguard register /srv/followed/venv --policy block")?;
    let said = at_terminal(machine, "", &upgrade)?;
    ensure!(said.code == 100 && said.text.contains("none: blocks"), "{said:?}");
    machine.must("venvguard register /srv/followed/venv --policy auto")?;
    let said = at_terminal(machine, "r,d,a", &upgrade)?;
    ensure!(said.code == 100 && said.text.contains(READY), "{said:?}");
    machine.must("venvguard prune followed")?;
    rehearsed_unasked(machine, &upgrade)
}

/// What the details say about a venv that is ready.
const READY: &str = "is built and checked";

/// Nobody need ask for a rehearsal while they wait, and they can skip it.
fn rehearsed_unasked(machine: &Machine, upgrade: &str) -> Result<()> {
    machine.write(CONFIG, "")?;
    let begun = "venvguard: rehearsing this upgrade before dpkg runs";
    let said = at_terminal(machine, "skip,d,a", upgrade)?;
    ensure!(said.code == 100 && said.text.contains(begun), "{said:?}");
    ensure!(said.text.contains("the rehearsal was skipped"), "{said:?}");
    ensure!(!said.text.contains(READY), "{said:?}");
    let ends = || Ok(machine.run("pgrep --full 'hook [r]ehearse'")?.code == 1);
    ensure!(ends()?, "the rehearsal goes on");
    let said = at_terminal(machine, "stop", upgrade)?;
    ensure!(said.code != 0 && !said.text.contains("Unpacking"), "{said:?}");
    wait_for("the end of the rehearsal", ends)?;
    machine.write(CONFIG, "rehearsal.attended = 1\n")?;
    let said = at_terminal(machine, "d,a", upgrade)?;
    ensure!(
        said.code == 100 && said.text.contains("the rehearsal was stopped after 1 s"),
        "{said:?}"
    );
    machine.write(CONFIG, "")?;
    let said = at_terminal(machine, "d,c", upgrade)?;
    ensure!(said.code == 0 && said.text.contains(begun), "{said:?}");
    ensure!(said.text.contains(READY), "{said:?}");
    machine.assert_guarded(&[(Site::Followed, On::New)])
}

/// Nobody is asked where nobody reads the question, or where somebody has answered it beforehand.
fn nobody(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    machine.write("/root/answers.py", include_str!("../apps/answers.py"))?;
    machine.write(CONFIG, "[ask]\ndefault = \"abort\"\n")?;
    let (upgrade, dry) = (upgrade(machine), "-o Debug::pkgDPkgPM=1");
    for command in [
        // PackageKit has a terminal that nobody reads.
        format!("env DEBIAN_FRONTEND=noninteractive {upgrade} {dry}"),
        format!("env DEBIAN_FRONTEND=passthrough APT_LISTBUGS_FRONTEND=none {upgrade} {dry}"),
        format!("{upgrade} -y {dry}"),
        format!("env VENVGUARD_MODE=auto {upgrade} {dry}"),
        format!("{upgrade} -o VenvGuard::Mode=auto {dry}"),
        format!("{upgrade} {dry}"),
    ] {
        let said = at_terminal(machine, "", &command)?;
        ensure!(said.code == 0, "{command}: {said:?}");
        ensure!(!said.text.contains("[C/a/h/r/d]"), "{command}: {said:?}");
    }
    // In the background, a program that reads the terminal is stopped.
    machine.must(&write_list(machine))?;
    let gate = "APT_HOOK_INFO_FD=20 venvguard hook pre-install 20</tmp/list";
    let said = at_terminal(machine, "", &format!("bash -ic '{gate} & wait $!'"))?;
    ensure!(said.code == 0 && said.text.contains("is rebuilt"), "{said:?}");
    machine.must_upgrade_python()?;
    machine.assert_guarded(&[(Site::Followed, On::New)])
}
