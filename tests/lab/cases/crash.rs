//! Crashes and failures at every step: a fault kills the program before its effects, or lets them fail once, as on a full
//! disk.

use anyhow::{Context, Result, ensure};

use super::Case;
use crate::guard::On;
use crate::machine::Machine;
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;
use crate::storm::{Command, Fault, Meanwhile, SITE, Steps, Storm, VENV, make_venv};

pub(super) fn cases() -> Vec<Case> {
    let case = |subject, run| Case::guarded(subject, Kind::TrixieMinor, &[Site::Bare], run);
    vec![
        case("crash_at_every_step_of_the_journal", at_every_step),
        case("crash_by_a_call_that_fails", |machine| {
            every_command(&Storm::gathers(machine)?, Fault::Fails).map(drop)
        }),
        case("crash_before_dpkg", before_dpkg),
        case("crash_after_dpkg", |machine| after_dpkg(machine, "--policy auto", On::New)),
        case("crash_after_dpkg_pinned", |machine| after_dpkg(machine, "--policy pin", On::Old)),
    ]
}

/// Runs a command without mount namespaces, as in many containers.
pub(super) const IN_PLACE: &str = "python3 /root/syscalls.py unshare=1 --";

/// Kills the program in every step that the journal can name.
fn at_every_step(machine: &Machine) -> Result<()> {
    let steps = every_command(&Storm::gathers(machine)?, Fault::Killed)?;
    let all = all_steps(machine)?;
    println!("lab: the journal has {} steps; killed at these effects of each:", all.len());
    for step in &all {
        println!("lab: {:>6} {step}", steps.get(step).unwrap_or(&0));
    }
    ensure!(all.iter().all(|step| steps.contains_key(step)), "a step was never begun");
    Ok(())
}

/// The names of all steps, which the program lists when it reads a journal with an unknown one.
fn all_steps(machine: &Machine) -> Result<Vec<String>> {
    machine.write(
        "/var/lib/venvguard/journal/0.json",
        r#"{"schema_version": 1, "begun_at": "2026-01-01T00:00:00Z", "state": "dancing"}"#,
    )?;
    let said = machine.venvguard("resume")?.text;
    machine.must("rm /var/lib/venvguard/journal/0.json")?;
    let (_, list) = said.split_once("expected one of").with_context(|| said.clone())?;
    let line = list.lines().next().unwrap_or_default();
    let names: Vec<String> = line.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    ensure!(!names.is_empty(), "it named no steps: {said}");
    Ok(names)
}

/// Lets the fault strike the effects of each command that repairs, in each way that it can repair.
pub(super) fn every_command(storm: &Storm, fault: Fault) -> Result<Steps> {
    let mut steps = Steps::new();
    let mut rages = |command: Command| -> Result<()> {
        for (step, effects) in storm.rages(fault, &command)? {
            *steps.entry(step).or_default() += effects;
        }
        Ok(())
    };
    rages(Command::new("rebuild bare"))?;
    rages(Command { under: IN_PLACE, venv: Meanwhile::IsAway, ..first_rebuild() })?;
    // A rollback needs a previous environment, which the last storm may not have left.
    let prepare =
        "venvguard show bare | grep -q 'previous environment' || venvguard rebuild bare".to_owned();
    rages(Command { prepare, ..Command::new("rollback bare") })?;
    let prepare = "venvguard rebuild bare".to_owned();
    rages(Command { prepare, ..Command::new("prune bare") })?;
    let rebuild = Command { venv: Meanwhile::IsToBeMended, ..Command::new("rebuild --all") };
    rages(Command { prepare: OUTDATE.to_owned(), ..rebuild })?;
    rages(refresh(storm.machine)?)?;
    let prepare = "venvguard rebuild --prepare bare".to_owned();
    rages(Command { prepare, ..Command::new("rebuild bare") })?;
    rages(Command { prepare: DISCARD.to_owned(), ..Command::new("rebuild --prepare bare") })?;
    // The check rejects the new tree. A check that cannot run proves nothing, and then the new tree may stay.
    let prepare = format!("venvguard prune bare; {ONLY_THIS}");
    rages(Command { prepare, ..Command::new("rebuild bare") })?;
    Ok(steps)
}

/// Makes the prepared tree useless: another environment is in place.
const DISCARD: &str = "venvguard prune bare; venvguard rebuild bare
                       venvguard rebuild --prepare bare; venvguard rollback bare";

/// Sets a check that accepts only the current tree.
const ONLY_THIS: &str = r#"
sed -i 's/service-timeout = 5/service-timeout = 1/' /etc/venvguard/config.toml
venvguard register /srv/bare/venv --check \
    "sh -c 'test \$(stat -c %i /srv/bare/venv) = $(stat -c %i /srv/bare/venv)'"
"#;

/// A rebuild that has no older tree to remove.
pub(super) fn first_rebuild() -> Command {
    Command { prepare: "venvguard prune bare".to_owned(), ..Command::new("rebuild bare") }
}

/// Replaces the interpreter by another file, so that running processes use the old one. It tries three times, because a
/// service that was restarted a moment ago may load the interpreter only after the replacement.
const OUTDATE: &str = "for _ in 1 2 3; do
                           cp -a $(readlink -f /usr/bin/python3) /usr/bin/.new
                           mv /usr/bin/.new $(readlink -f /usr/bin/python3)
                           if venvguard status bare | grep restart-needed; then break; fi
                           sleep 1
                       done | grep -q restart-needed";

/// Makes a venv whose copies of the interpreter are of another build: it flips a bit of their build-id. A power cut may
/// not lose what the test itself has done.
fn refresh(machine: &Machine) -> Result<Command> {
    machine.must("venvguard prune bare")?;
    make_venv(machine, "--copies")?;
    let prepare = format!(
        r#"/usr/bin/python3 -c '
import glob, os
for name in glob.glob("{VENV}/bin/python*"):
    content = bytearray(open(name, "rb").read())
    note = content.index(b"GNU\0", content.index(b"\x04\0\0\0\x14\0\0\0\x03\0\0\0"))
    content[note + 4] ^= 1
    os.rename(name, name + "~")
    open(name, "wb").write(content)
    os.chmod(name, 0o755)
    os.chown(name, os.stat(name + "~").st_uid, os.stat(name + "~").st_gid)
    os.unlink(name + "~")
os.sync()
' && venvguard status bare | grep -q stale"#
    );
    Ok(Command { prepare, venv: Meanwhile::IsToBeMended, ..Command::new("rebuild --all") })
}

/// The shell command that writes apt's list of an upgrade of the default Python to `/tmp/list`.
pub(super) fn write_list(machine: &Machine) -> String {
    let minor = &machine.upgrade.about.to.minor;
    let new = &machine.upgrade.about.to.debian;
    format!(
        "printf \"VERSION 3\\n\\n\
         python{minor}-minimal - - none < {new} amd64 allowed /x.deb\\n\
         python3-minimal $(dpkg-query -W -f '${{Version}}' python3-minimal) amd64 allowed < {minor}.0-1 amd64 allowed /x.deb\\n\
         \" >/tmp/list"
    )
}

/// The gate: apt is about to move the default Python, and stops because its hook was killed.
fn before_dpkg(machine: &Machine) -> Result<()> {
    let prepare = write_list(machine);
    let command = Command { prepare, ..Command::new("hook pre-install </tmp/list") };
    let storm = Storm::gathers(machine)?;
    for fault in [Fault::Killed, Fault::Fails] {
        storm.rages(fault, &command)?;
    }
    Ok(())
}

/// Python is upgraded, but the venv is not yet repaired.
fn after_dpkg(machine: &Machine, policy: &str, on: On) -> Result<()> {
    let save =
        "rm -rf /root/save; mkdir /root/save; cp -a /srv/bare /var/lib/venvguard /root/save/";
    let restore = "systemctl stop bare; rm -rf /srv/bare /var/lib/venvguard
                   cp -a /root/save/bare /srv/; cp -a /root/save/venvguard /var/lib/
                   systemctl reset-failed bare; systemctl start bare";
    let storm = Storm::gathers(machine)?;
    // The gate leaves its pins and its records; the hook that would use them is removed.
    machine.register(SITE, policy)?;
    machine.must("sed -i '/Post-Invoke/d' /etc/apt/apt.conf.d/50venvguard")?;
    machine.must_upgrade_python()?;
    machine.must("systemctl stop venvguard-resume.timer venvguard-resume")?;
    machine.must(save)?;
    let command = Command { prepare: restore.to_owned(), ..Command::new("hook post-invoke") };
    for fault in [Fault::Killed, Fault::Fails, Fault::Asked] {
        storm.rages(fault, &command)?;
    }
    machine.must(restore)?;
    machine.must("venvguard resume")?;
    machine.assert_guarded(&[(SITE, on)])
}
