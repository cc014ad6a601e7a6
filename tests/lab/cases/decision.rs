//! One decision: venvguard executes what `plan` and the dry runs print, and records the same in the journal and the
//! history. Also a prepared tree, which waits until it is wanted.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Case;
use crate::machine::Machine;
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    let sites = &[Site::Bare];
    vec![
        Case::guarded("decision_is_one_value", Kind::TrixieMinor, sites, one_value),
        Case::guarded("prepared_rests_over_a_reboot", Kind::TrixieRevision, sites, rests),
    ]
}

/// The parts of a decision that must be the same wherever it is read.
const SAME: [&str; 6] = ["id", "effect", "remedy", "phase", "target", "services"];

/// The only venv's decision in a command's output.
fn printed(machine: &Machine, command: &str) -> Result<Value> {
    let (_, said) = machine.venvguard_json(command)?;
    let decision = said["venvs"].get(0).with_context(|| format!("{command}: {said}"))?;
    Ok(decision.clone())
}

/// The decision of the latest event in the history.
fn executed(machine: &Machine) -> Result<Value> {
    let (_, said) = machine.venvguard_json("history")?;
    let event = said["events"].as_array().and_then(|events| events.last());
    Ok(event.context("no event")?["decision"].clone())
}

pub(crate) fn assert_same(said: &Value, done: &Value) -> Result<()> {
    for key in SAME {
        ensure!(
            said[key] == done[key] && (key == "target" || !said[key].is_null()),
            "{key} differs:\nprinted {said}\nexecuted {done}"
        );
    }
    Ok(())
}

fn one_value(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    machine.must("install -m 755 /package/venvguard-faults /usr/local/sbin/venvguard-faults")?;
    let planned = printed(machine, "plan")?;
    ensure!(planned["remedy"] == "rebuild", "{planned}");
    ensure!(planned["services"].as_array().is_some_and(|found| found.len() == 1), "{planned}");
    machine.must_upgrade_python()?;
    assert_same(&planned, &executed(machine)?).context("upgrade")?;

    let planned = printed(machine, "rebuild bare --dry-run")?;
    assert_journal(machine, "rebuild bare", &planned)?;
    machine.must("venvguard resume; venvguard rebuild bare")?;
    assert_same(&planned, &executed(machine)?).context("rebuild")?;

    let planned = printed(machine, "rollback bare --dry-run")?;
    ensure!(planned["remedy"] == "restore", "{planned}");
    assert_journal(machine, "rollback bare", &planned)?;
    machine.must("venvguard resume; systemctl is-active bare")?;
    if executed(machine)?["remedy"] != "restore" {
        machine.must("venvguard rollback bare")?;
    }
    assert_same(&planned, &executed(machine)?).context("rollback")
}

/// Kills the command after it has begun to swap, and compares the decision in the journal.
fn assert_journal(machine: &Machine, command: &str, planned: &Value) -> Result<()> {
    let journal = "cat /var/lib/venvguard/journal/*.json 2>/dev/null || true";
    for effect in 1..200 {
        let killed = machine.run(&format!("venvguard-faults --die-at {effect} {command}"))?;
        ensure!(killed.code == 137, "{command} was not killed while it swapped: {killed:?}");
        let open = machine.must(journal)?;
        if ["\"swapping\"", "\"restoring\""].iter().all(|state| !open.contains(state)) {
            machine.must("venvguard resume")?;
            continue;
        }
        let entry: Value = serde_json::from_str(&open)?;
        let stored = &entry["decision"];
        for key in ["id", "effect", "phase", "services"] {
            ensure!(stored[key] == planned[key], "{key}: journal {stored}\nprinted {planned}");
        }
        let remedy = planned["remedy"].as_str().unwrap_or_default();
        let carried = &stored["remedy"][remedy];
        let python =
            if remedy == "rebuild" { &carried["target"]["minor"] } else { &carried["minor"] };
        ensure!(*python == planned["target"]["python"], "journal {stored}\nprinted {planned}");
        return Ok(());
    }
    anyhow::bail!("{command} never swapped")
}

const PREPARE: &str = "venvguard rebuild --prepare bare";

fn rests(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    let prepared = || -> Result<Value> {
        let text =
            machine.must("cat /var/lib/venvguard/prepared/*.json 2>/dev/null || echo null")?;
        Ok(serde_json::from_str(&text)?)
    };
    let inode = || machine.must("stat -c %i /srv/bare/venv");
    let before = inode()?;
    let said = machine.must(PREPARE)?;
    ensure!(said.contains("bare: prepared: "), "{said}");
    ensure!(inode()? == before, "the venv was swapped");
    let tree = prepared()?;
    machine.reboot()?;
    machine.wait_until_all_serve()?;
    ensure!(prepared()? == tree, "the prepared tree was forgotten");
    machine.must("venvguard resume; echo upload >/srv/bare/venv/uploaded")?;
    let said = machine.must("venvguard rebuild bare")?;
    ensure!(said.contains("bare: rebuilt: ") && !said.contains("was not used"), "{said}");
    let swapped_in: u64 = inode()?.trim().parse()?;
    ensure!(tree["identity"][0] == swapped_in, "another tree was swapped in");
    machine.must("grep upload /srv/bare/venv/uploaded")?;
    ensure!(prepared()?.is_null(), "the prepared tree is still recorded");
    machine.wait_until_all_serve()?;

    machine
        .must(&format!("{PREPARE}; touch /srv/bare/venv/lib/python3*/site-packages/*.dist-info"))?;
    let said = machine.must("venvguard rebuild bare")?;
    ensure!(said.contains("was not used: the installed distributions have changed"), "{said}");
    machine.must(PREPARE)?;
    machine.must_upgrade_python()?;
    let said = machine.must("venvguard rebuild bare")?;
    ensure!(said.contains("was not used: the interpreter has changed"), "{said}");
    let beside = machine.must("find /srv/bare -maxdepth 1 -name '.venv.venvguard-*'")?;
    let (_, listed) = machine.venvguard_json("list")?;
    let known = listed["venvs"][0]["previous_trees"].to_string();
    for tree in beside.lines() {
        ensure!(known.contains(tree), "{tree} is left and venvguard does not know of it: {known}");
    }
    machine.must(PREPARE)?;
    machine.must("venvguard unregister bare")?;
    ensure!(prepared()?.is_null(), "the prepared tree is still recorded");
    Ok(())
}
