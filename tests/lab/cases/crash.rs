//! Crashes and failures at every step: the program is killed before each of its effects, and each of them fails once,
//! as on a full disk. Whatever happens, the venv is whole and what was put there is in it; `resume` ends it, and has
//! nothing to do the second time.

use anyhow::{Context, Result, ensure};

use super::{Case, Half};
use crate::guard::On;
use crate::machine::{Machine, Said, services_of};
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    let case = |subject, run| Case {
        subject,
        half: Half::Guarded,
        upgrade: Kind::TrixieMinor,
        sites: &[Site::Bare],
        run,
    };
    vec![
        case("crash_in_a_rebuild", in_a_rebuild),
        case("crash_in_a_rollback", in_a_rollback),
        case("crash_in_a_refresh", in_a_refresh),
        case("no_room_for_a_second_tree", no_room),
        case("crash_before_dpkg", before_dpkg),
        case("crash_after_dpkg", |machine| after_dpkg(machine, "--policy auto", On::New)),
        case("crash_after_dpkg_anchored", |machine| {
            after_dpkg(machine, "--policy anchor", On::Old)
        }),
    ]
}

const SITE: Site = Site::Bare;
const VENV: &str = "/srv/bare/venv";

/// More steps than any command has: a command that goes on for ever is noticed.
const MOST: u32 = 400;

/// What goes wrong at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Killed,
    Fails,
}

impl Fault {
    fn option(self, step: u32) -> String {
        match self {
            Self::Killed => format!("--die-at {step}"),
            Self::Fails => format!("--fail-at {step}"),
        }
    }
}

/// A command that is to be interrupted.
struct Storm<'a> {
    machine: &'a Machine,
    command: &'a str,
    /// The shell commands that make the state to begin with.
    prepare: &'a str,
    /// Whether the venv works before the command, and so at every step of it. If not, the command mends it, and is
    /// given again after what went wrong.
    works_before: bool,
    foreign: String,
}

impl<'a> Storm<'a> {
    /// Installs venvguard, and puts files into the venv that no installer knows of.
    fn gathers(machine: &'a Machine, command: &'a str, prepare: &'a str) -> Result<Self> {
        machine.install_guard()?;
        machine.must(
            "printf 'service-timeout = 5\\nstable-for = 0\\n' >/etc/venvguard/config.toml
             install -m 755 /package/venvguard-faults /usr/local/sbin/venvguard-faults",
        )?;
        machine.must(&format!(
            "cd {VENV}
             printf SECRET=1 >.env; chmod 600 .env
             printf 'echo hello\\n' >bin/postactivate; chmod 755 bin/postactivate
             printf '/opt\\n' >$(echo lib/python3*/site-packages)/local.pth
             mkdir -m 750 'my data'; printf x >'my data/a b'; ln -s /etc/hostname 'my data/link'
             chown -R app: .env bin/postactivate lib/python3*/site-packages/local.pth 'my data'"
        ))?;
        let foreign = foreign_files(machine)?;
        ensure!(foreign.lines().count() == 8, "planted: {foreign}");
        Ok(Self { machine, command, prepare, works_before: true, foreign })
    }

    /// Lets the fault strike at the first step, at the second, and so on until none is left.
    fn rages(&self) -> Result<()> {
        for fault in [Fault::Killed, Fault::Fails] {
            let mut steps = 0;
            while steps < MOST && self.strikes(fault, steps + 1)? {
                steps += 1;
            }
            ensure!((1..MOST).contains(&steps), "{steps} steps of {:?}", self.command);
            println!("lab: {:?}, {fault:?}: {steps} steps", self.command);
        }
        Ok(())
    }

    /// Whether there was such a step.
    fn strikes(&self, fault: Fault, step: u32) -> Result<bool> {
        self.machine.must(self.prepare)?;
        let option = fault.option(step);
        let said = self.machine.run(&format!("venvguard-faults {option} {}", self.command))?;
        if !said.text.contains("fault: ") {
            return Ok(false);
        }
        self.is_survived(fault, &said)
            .with_context(|| format!("{option}, {}\n--- it said\n{}", self.command, said.text))?;
        Ok(true)
    }

    fn is_survived(&self, fault: Fault, said: &Said) -> Result<()> {
        let machine = self.machine;
        ensure!(fault == Fault::Fails || said.code == 137, "it was not killed: {}", said.code);
        ensure!(!said.text.contains("bug"), "it did not expect that");
        if self.works_before {
            machine.must(&format!("{VENV}/bin/python -c 'import asyncio, ctypes, email'"))?;
        }
        let there = foreign_files(machine)?;
        ensure!(there == self.foreign, "at the fault, these files were there:\n{there}");
        let resumed = machine.venvguard("resume")?;
        ensure!(matches!(resumed.code, 0 | 3), "resume: {resumed:?}");
        if !self.works_before {
            machine.must(&format!("venvguard {}", self.command))?;
        }
        let again = machine.venvguard("resume")?;
        ensure!(again.code == 0 && again.text.contains("nothing was left"), "again: {again:?}");
        self.is_well().with_context(|| format!("--- resume said\n{}", resumed.text))
    }

    fn is_well(&self) -> Result<()> {
        let machine = self.machine;
        let there = foreign_files(machine)?;
        ensure!(there == self.foreign, "in the end, these files were there:\n{there}");
        let service = &services_of(SITE)[0];
        machine.wait_until_serving(service)?;
        let status = machine.status_of(SITE)?;
        ensure!(status["state"] == "healthy", "status: {status}");
        let open = machine
            .must("find /var/lib/venvguard/journal -name '[!.]*.json' 2>/dev/null || true")?;
        ensure!(open.is_empty(), "the journal holds {open}");
        let known = machine.must("cat /var/lib/venvguard/registry.json")?;
        let beside = machine.must("find /srv/bare -maxdepth 1 -name '.venv.venvguard-*'")?;
        for tree in beside.lines() {
            ensure!(known.contains(tree), "nobody knows of {tree}:\n{known}");
        }
        Ok(())
    }
}

/// What no installer put into the venv: names, without the minor version, modes, owners and content.
fn foreign_files(machine: &Machine) -> Result<String> {
    machine.must(&format!(
        "cd {VENV}; set -- .env bin/postactivate $(echo lib/python3*/site-packages)/local.pth 'my data' 'my data/a b' 'my data/link'
         stat -c '%n %a %U %G %N' \"$@\" | sed 's,lib/python3[.0-9]*,lib/python3,g'
         cat .env bin/postactivate \"$3\""
    ))
}

fn in_a_rebuild(machine: &Machine) -> Result<()> {
    Storm::gathers(machine, "rebuild bare", "true")?.rages()
}

/// There is something to go back to, whatever the last one came to.
fn in_a_rollback(machine: &Machine) -> Result<()> {
    let prepare = "venvguard show bare | grep -q 'kept tree' || venvguard rebuild bare";
    Storm::gathers(machine, "rollback bare", prepare)?.rages()
}

/// The interpreters are copies, and of another build: a byte of their build-id is turned.
fn in_a_refresh(machine: &Machine) -> Result<()> {
    machine.must(&format!(
        "systemctl stop bare; rm -r {VENV}
         su app -s /bin/sh -c '/usr/bin/python3 -m venv --copies --without-pip {VENV}'
         systemctl start bare"
    ))?;
    machine.wait_until_all_serve()?;
    let prepare = &format!(
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
' && venvguard status bare | grep -q stale"#
    );
    Storm { works_before: false, ..Storm::gathers(machine, "rebuild --all", prepare)? }.rages()
}

/// A rebuild that does not fit is refused before anything is changed.
fn no_room(machine: &Machine) -> Result<()> {
    machine.must("dpkg --install /package/venvguard_*.deb")?;
    machine.must(
        "mkdir /srv/small; mount -t tmpfs -o size=40m small /srv/small; chown app: /srv/small
         su app -s /bin/sh -c '/usr/bin/python3 -m venv --without-pip /srv/small/venv
             head -c 20M /dev/zero >/srv/small/venv/data'
         venvguard register /srv/small/venv",
    )?;
    let list = "find /srv/small | sort";
    let before = machine.must(list)?;
    let said = machine.venvguard("rebuild small")?;
    ensure!(said.code == 3 && said.text.contains("there is no room"), "rebuild: {said:?}");
    ensure!(machine.must(list)? == before, "something was changed");
    machine.must("rm /srv/small/venv/data; venvguard rebuild small")?;
    machine.must("venvguard prune small")?;
    ensure!(
        !machine.must(list)?.contains(".venvguard-"),
        "a tree is left: {}",
        machine.must(list)?
    );
    Ok(())
}

/// The gate: apt is about to move the default Python, and does not, since its hook was killed.
fn before_dpkg(machine: &Machine) -> Result<()> {
    let minor = &machine.upgrade.about.to.minor;
    let new = &machine.upgrade.about.to.debian;
    let list = format!(
        "VERSION 3\\n\\n\
         python{minor}-minimal - - none < {new} amd64 allowed /x.deb\\n\
         python3-minimal $(dpkg-query -W -f '${{Version}}' python3-minimal) amd64 allowed < {minor}.0-1 amd64 allowed /x.deb\\n"
    );
    let prepare = format!("printf \"{list}\" >/tmp/list");
    Storm::gathers(machine, "hook pre-install </tmp/list", &prepare)?.rages()
}

/// Python was upgraded, and the repair is still to come.
fn after_dpkg(machine: &Machine, policy: &str, on: On) -> Result<()> {
    let save =
        "rm -rf /root/save; mkdir /root/save; cp -a /srv/bare /var/lib/venvguard /root/save/";
    let restore = "systemctl stop bare; rm -rf /srv/bare /var/lib/venvguard
                   cp -a /root/save/bare /srv/; cp -a /root/save/venvguard /var/lib/
                   systemctl reset-failed bare; systemctl start bare";
    let storm = Storm::gathers(machine, "hook post-invoke", restore)?;
    // The pins of the gate are there, and its notes; the hook that would use them is not.
    machine.register(SITE, policy)?;
    machine.must("sed -i '/Post-Invoke/d' /etc/apt/apt.conf.d/50venvguard")?;
    machine.must_upgrade_python()?;
    machine.must("systemctl stop venvguard-resume.path venvguard-resume.timer venvguard-resume")?;
    machine.must(save)?;
    storm.rages()?;
    machine.must(restore)?;
    machine.must("venvguard resume")?;
    machine.assert_guarded(&[(SITE, on)])
}
