//! Many venvs in one upgrade, each with a service of its own: while some services come up, others are built.

use anyhow::{Result, ensure};

use super::Case;
use crate::machine::{Machine, wait_for};
use crate::prepare::upgrade::Kind;
use crate::storm::{is_long, kill_often};

pub(super) fn cases() -> Vec<Case> {
    vec![Case::guarded("minor_of_many_venvs", Kind::TrixieMinor, &[], many)]
}

const APP: &str = "import sys

def app(environ, start):
    start('200 OK', [])
    return [sys.version.encode()]
";

const UNIT: &str = "[Service]
User=app
ExecStartPre=+/bin/sh -c 'echo %i >>/run/starts'
ExecStart=/srv/many/%i/venv/bin/gunicorn --chdir /srv/many --bind unix:/srv/many/%i/socket app:app
";

/// What uv does for one venv; as many at once as venvguard rebuilds.
const BUILD: &str = "cd /srv/many
build() { for dir in */; do echo ${dir%/}; done | xargs -P $(nproc) -I {} su app -s /bin/sh -c \
    \"uv venv --quiet --allow-existing --link-mode copy --python /usr/bin/python3 /srv/many/{}/$1 &&
      uv pip install --quiet --link-mode copy --compile-bytecode --python /srv/many/{}/$1/bin/python gunicorn\"; }
";

fn many(machine: &Machine) -> Result<()> {
    let count: u16 = if is_long() { 39 } else { 6 };
    machine.install_uv()?;
    machine.must("printf 'no-index = true\nfind-links = [\"/wheelhouse\"]\n' >/etc/uv/uv.toml")?;
    machine.must(&format!(
        "for number in $(seq {count}); do install -d -o app /srv/many/$number; done; {BUILD} build venv"
    ))?;
    machine.write("/srv/many/app.py", APP)?;
    machine.write("/etc/systemd/system/many@.service", UNIT)?;
    machine.must(&format!(
        "systemctl daemon-reload
         systemctl start $(seq -f 'many@%.0f' {count})
         dpkg --install /package/venvguard_*.deb
         venvguard scan --register /srv/many"
    ))?;
    // apt runs the hooks in the order of their files.
    for (file, moment) in [("49begin", "begin"), ("51end", "end")] {
        let hook = format!("DPkg::Post-Invoke {{ \"date +%s%3N >/run/{moment}\"; }};\n");
        machine.write(&format!("/etc/apt/apt.conf.d/{file}"), &hook)?;
    }
    let said = machine.must_upgrade_python()?;
    let new = &machine.upgrade.about.to.upstream;
    for number in 1..=count {
        let answer = format!("curl -fsS --unix-socket /srv/many/{number}/socket http://lab/");
        let answer = machine.must(&answer)?;
        ensure!(answer.starts_with(new.as_str()), "{number} answers with {answer}\n{}", said.text);
    }
    let starts = machine.must("sort -n /run/starts | uniq -c | awk '{print $1}' | sort -u")?;
    ensure!(starts.trim() == "2", "a service did not restart once: {starts}\n{}", said.text);
    machine.must(
        "venvguard status && venvguard rebuild --all --dry-run 2>&1 | grep 'nothing to do'",
    )?;
    let guarded: u32 =
        machine.must("echo $(($(cat /run/end) - $(cat /run/begin)))")?.trim().parse()?;
    let alone =
        format!("{BUILD} begin=$(date +%s%3N); build alone; echo $(($(date +%s%3N) - begin))");
    let alone: u32 = machine.must(&alone)?.trim().parse()?;
    println!(
        "lab: {count} venvs after dpkg: {:.1} s; uv alone builds them in {:.1} s",
        f64::from(guarded) / 1000.0,
        f64::from(alone) / 1000.0
    );
    machine.must(
        "rm -r /srv/many/*/alone
         mkdir -p /etc/venvguard; printf 'stable-for = 1\\n' >/etc/venvguard/config.toml",
    )?;
    machine.must(&format!("venvguard rebuild --prepare {THREE} && venvguard rebuild {THREE}"))?;
    is_well(machine)?;
    out_of_service(machine)?;
    storm(machine)
}

const THREE: &str = "/srv/many/1/venv /srv/many/2/venv /srv/many/3/venv";

/// Programs take a venv out of service before its repair and bring it back after it: no more venvs are out than are built
/// at a time.
fn out_of_service(machine: &Machine) -> Result<()> {
    for (moment, word) in [("before", "out"), ("after", "back")] {
        let dir = format!("/etc/venvguard/hooks.d/{moment}");
        machine.must(&format!(
            "mkdir -p {dir}; printf '#!/bin/sh\\necho {word} >>/run/balancer\\n' >{dir}/balancer; chmod 755 {dir}/balancer"
        ))?;
    }
    for jobs in [1, 2] {
        machine.must(&format!("rm -f /run/balancer; venvguard rebuild --jobs {jobs} {THREE}"))?;
        let log = machine.must("cat /run/balancer")?;
        let (mut out, mut most) = (0, 0);
        for word in log.lines() {
            out += if word == "out" { 1 } else { -1 };
            most = out.max(most);
        }
        ensure!(log.lines().count() == 6 && out == 0 && most <= jobs, "{jobs}: {log}");
    }
    machine.must("rm -r /etc/venvguard/hooks.d")?;
    is_well(machine)
}

/// Kills a rebuild of three venvs: some are built, while others are swapped in and their services come up.
fn storm(machine: &Machine) -> Result<()> {
    let stride = if is_long() { 11 } else { 53 };
    kill_often(machine, &format!("rebuild {THREE}"), (stride, 2), is_well)
}

/// All three work, their services answer, and nothing is left to do.
fn is_well(machine: &Machine) -> Result<()> {
    let new = &machine.upgrade.about.to.upstream;
    for number in 1..=3 {
        let ask = format!("curl -fsS --unix-socket /srv/many/{number}/socket http://lab/");
        wait_for("the service to answer", || {
            Ok(machine.run(&ask)?.text.starts_with(new.as_str()))
        })?;
    }
    machine.must("venvguard status && test -z \"$(ls /var/lib/venvguard/journal)\"")?;
    let left = machine.must("ls -A /srv/many/1 /srv/many/2 /srv/many/3 | grep -c venvguard")?;
    ensure!(left.trim().parse::<u32>()? <= 3 * 2, "trees are left behind: {left}");
    Ok(())
}
