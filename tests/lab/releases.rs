//! A rehearsal for another release: it changes nothing on the machine, and the upgrade afterwards does what it says.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cases::minor::WHEEL;
use crate::guard::named;
use crate::machine::{Machine, wait_for};
use crate::overlay::ROOM;
use crate::prepare::Lab;
use crate::prepare::upgrade::Kind;
use crate::trial::Special;

/// The trial, on bookworm.
pub(crate) struct OtherRelease;

const KEYRING: &str = "/usr/share/keyrings/lab-archive-keyring.gpg";

/// A source in each of apt's two forms; one is on a local web server, whose packages apt has to fetch.
const SOURCES: &str = r"
echo 'deb [arch=amd64 signed-by=KEYRING] http://127.0.0.1:8000 bookworm main' >/etc/apt/sources.list
printf 'Types: deb\nURIs: file:/archive\nSuites: bookworm-security\nComponents: main\nSigned-By: KEYRING\n' \
    >/etc/apt/sources.list.d/security.sources
";

/// What a rehearsal for another release must leave as it is: apt's sources, state and caches, dpkg's database, and the
/// venvs; each with its times, where a service does not write.
const SYSTEM: &str = "
find /etc/apt /var/lib/apt /var/cache/apt /var/lib/dpkg -printf '%p %y %m %s %T@\n' | sort
find /etc/apt /var/lib/apt /var/cache/apt /var/lib/dpkg /srv/*/venv -type f -print0 | sort -z | xargs -0 sha256sum
find /srv/*/venv -printf '%p %y %m %s %l %T@\n' | sort
";

impl Special for OtherRelease {
    fn name(&self) -> String {
        "rehearsal_of_another_release".to_owned()
    }

    fn is_whole(&self) -> bool {
        false
    }

    fn upgrade(&self) -> Kind {
        Kind::BookwormMinor
    }

    fn room(&self) -> u64 {
        ROOM
    }

    fn prepare(&self, lab: &Lab) -> Result<()> {
        lab.releases().map(drop)
    }

    fn boot(&self, lab: &Lab) -> Result<Machine> {
        let dirs = vec![(lab.releases()?, "/archive")];
        Machine::boot_with(lab, self.upgrade(), self.room(), dirs, |_| Ok(()))
    }

    fn run(&self, machine: &Machine) -> Result<()> {
        make_venvs(machine)?;
        machine.must("systemd-run --unit=archive python3 -m http.server --bind 127.0.0.1 --directory /archive 8000")?;
        wait_for("the archive", || {
            Ok(machine.run("curl -fs -o /dev/null http://127.0.0.1:8000/dists/")?.code == 0)
        })?;
        machine.must(&SOURCES.replace("KEYRING", KEYRING))?;
        let trust = |releases: &[&str]| {
            let keys: Vec<String> =
                releases.iter().map(|name| format!("/archive/keys/{name}.gpg")).collect();
            machine.must(&format!("cat {} >{KEYRING}", keys.join(" ")))
        };
        trust(&["bookworm"])?;
        machine.must("apt-get -qq update")?;
        without_the_key(machine)?;
        trust(&["bookworm", "trixie", "forky"])?;
        let before = machine.must(SYSTEM)?;
        let forky = rehearse(machine, "forky")?;
        ensure!(machine.must(SYSTEM)? == before, "the rehearsal for forky changed the system");
        let trixie = rehearse(machine, "trixie")?;
        ensure!(machine.must(SYSTEM)? == before, "the rehearsal for trixie changed the system");
        let minor = |said: &Value| {
            let version =
                named(said, "loose")?["version"].as_str().context("no version")?.to_owned();
            Ok::<String, anyhow::Error>(version)
        };
        ensure!(minor(&trixie)? == machine.upgrade.about.to.upstream, "{trixie}");
        ensure!(minor(&forky)? > minor(&trixie)?, "{forky}");
        agrees(machine, &trixie)
    }
}

/// Venvs that an upgrade to either release moves, cannot move, and leaves alone.
fn make_venvs(machine: &Machine) -> Result<()> {
    machine.write("/root/wheel.py", WHEEL)?;
    machine.must(
        "mkdir /wheels && cd /wheels
         python3 /root/wheel.py tight 1.2.3 cp311; python3 /root/wheel.py tight 1.3.0 py3
         printf '[global]\\nno-index = true\\nfind-links = /wheels\\n' >/etc/pip.conf
         for name in loose tight; do python3 -m venv /srv/$name/venv; done
         python3.11 -m venv /srv/own/venv
         /srv/tight/venv/bin/pip install --quiet tight==1.2.3
         for name in loose own; do /srv/$name/venv/bin/pip install --quiet tight==1.3.0; done
         dpkg --install /package/venvguard_*.deb
         for name in loose tight own; do venvguard register /srv/$name/venv --name $name; done",
    )?;
    Ok(())
}

/// The keyring of the installed release may be older than the other release.
fn without_the_key(machine: &Machine) -> Result<()> {
    let before = machine.must(SYSTEM)?;
    let said = machine.run("venvguard rehearse --release trixie")?;
    ensure!(said.code == 1, "{said:?}");
    for part in ["cannot read the package lists of trixie", "NO_PUBKEY", "debian-archive-keyring"] {
        ensure!(said.text.contains(part), "no {part}: {said:?}");
    }
    ensure!(machine.must(SYSTEM)? == before, "the rehearsal that failed changed the system");
    Ok(())
}

fn rehearse(machine: &Machine, release: &str) -> Result<Value> {
    let (code, said) = machine.venvguard_json(&format!("rehearse --release {release}"))?;
    ensure!(code == 3, "exit {code}: {said}");
    let loose = named(&said, "loose")?;
    ensure!(loose["ready"] == true && loose["proof"] == "rehearsed", "{said}");
    let tight = named(&said, "tight")?;
    let finding = &tight["findings"][0];
    ensure!(tight["ready"] == false && finding["kind"] == "no-wheel", "{said}");
    ensure!(finding["distribution"] == "tight" && finding["works_from"] == "1.3.0", "{said}");
    ensure!(named(&said, "own").is_err(), "a venv on python3.11 itself keeps it: {said}");
    Ok(said)
}

/// The upgrade does to each venv what the rehearsal has said.
fn agrees(machine: &Machine, said: &Value) -> Result<()> {
    machine.must(
        "sed -i s/bookworm/trixie/ /etc/apt/sources.list /etc/apt/sources.list.d/security.sources",
    )?;
    machine.must("apt-get -qq update")?;
    let upgraded = machine.apt("dist-upgrade")?;
    ensure!(upgraded.code == 0, "{upgraded:?}");
    let about = &machine.upgrade.about;
    for name in ["loose", "tight", "own"] {
        let is_moved = named(said, name).is_ok_and(|venv| venv["ready"] == true);
        let python = if is_moved { &about.to } else { &about.from };
        let runs = machine.must(&format!(
            "/srv/{name}/venv/bin/python -c 'import platform, tight; print(platform.python_version())'"
        ))?;
        ensure!(runs.trim() == python.upstream, "{name} runs {runs}, but {said}");
    }
    let status = machine.run("venvguard status")?;
    ensure!(status.text.contains("tight==1.2.3"), "{status:?}");
    Ok(())
}
