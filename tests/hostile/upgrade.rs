//! A whole upgrade with services, in a hostile environment and beside hostile venvs. The audit checks every program in
//! it.

use anyhow::{Result, ensure};

use super::audit::{Audit, audit};
use super::ground::Ground;
use crate::guard::On;
use crate::machine::Machine;
use crate::prepare::venvs::Site;

/// Services of systemd and of supervisord, in venvs of other owners.
pub(super) const SITES: &[Site] = &[Site::Followed, Site::Shop];

pub(super) fn upgrade(machine: &Machine) -> Result<()> {
    let ground = Ground::lay(machine)?;
    machine.must(
        "rm /etc/venvguard/config.toml; cp /srv/hostile/kept/config.toml /etc/venvguard/
         sed -i 's/timeout = .*/timeout = 120/' /etc/venvguard/config.toml
         python3 -m venv --without-pip /srv/roots/own; venvguard register /srv/roots/own --name own",
    )?;
    for site in SITES {
        machine.register(*site, "")?;
    }
    let packages = machine.upgrade.about.packages.join(" ");
    let mut found = None;
    let deed = ground.judged(|| {
        machine.must(
            ". /srv/hostile/ground.sh; cd $PLACE; as mallory sh -euc '. /srv/hostile/plants.sh; backdoor nothing; startup_code'
             python3 $KEEP/ground.py before upgrade",
        )?;
        let (said, audit) = audit(machine, |strace| {
            format!(
                ". /srv/hostile/ground.sh
                 env $HOSTILE TMPDIR=/tmp {strace} \
                     apt-get --yes --quiet --option Dpkg::Options::=--force-confold install {packages}"
            )
        })?;
        ensure!(said.code == 0, "apt-get: {said:?}");
        found = Some(audit);
        // apt's own output is none of the suite's business.
        let ours = said.text.lines().filter(|line| line.starts_with("venvguard: "));
        Ok(ours.fold(String::new(), |text, line| text + line + "\n"))
    })?;
    ensure!(deed.won.is_empty(), "the attacker has won: {}\n{}", deed.won.join("\n"), deed.text);
    println!("lab: venvguard's output in the upgrade\n{}", deed.text);
    for code in ["backend", "startup"] {
        ensure!(deed.ran.iter().any(|ran| ran == code), "the {code} code did not run: {deed:?}");
    }
    if let Some(Audit { complaints, as_root, as_others, by_guard }) = found {
        println!(
            "lab: {as_root} programs ran as root, {as_others} as others; venvguard started {by_guard}"
        );
        ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
        ensure!(as_root > 100 && as_others > 10 && by_guard > 20, "the trace is incomplete");
    }
    is_able_to_fail(machine)?;
    machine.must("venvguard unregister prey own")?;
    machine.assert_guarded(&[(Site::Followed, On::New), (Site::Shop, On::Old)])
}

/// Proves that the audit can fail: it finds the fault when a guard is left out.
fn is_able_to_fail(machine: &Machine) -> Result<()> {
    for (weakness, complaint) in [
        ("keep-environment", "was started with LD_PRELOAD=/home/mallory/evil.so"),
        ("stay-root", "/home/mallory/place/venv/bin/python is run as 0"),
    ] {
        let (said, audit) = audit(machine, |strace| {
            format!(
                ". /srv/hostile/ground.sh; env $HOSTILE {strace} venvguard-faults --weaken={weakness} rebuild prey"
            )
        })?;
        ensure!(
            audit.complaints.iter().any(|one| one.contains(complaint)),
            "the audit misses {weakness}: {:?}\n{said:?}",
            audit.complaints
        );
    }
    Ok(())
}
