//! Other faults in the middle of a command: signals, disks, indexes, time, the interpreter, and somebody else at work.

use anyhow::{Result, ensure};

use super::Case;
use super::crash::{every_command, first_rebuild};
use super::minor::WHEEL;
use crate::disks::{BTRFS, EXT4, PLACES, QUOTA};
use crate::guard::On;
use crate::machine::{Machine, Said, services_of};
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;
use crate::storm::{Command, Fault, SITE, Storm, VENV, is_long};

pub(super) fn cases() -> Vec<Case> {
    let case = |subject, sites, run| Case::guarded(subject, Kind::TrixieMinor, sites, run);
    vec![
        case("fault_of_the_disk", &[Site::Bare], of_the_disk),
        case("fault_of_a_quota", &[Site::Bare], of_a_quota),
        case("fault_by_a_signal", &[Site::Bare], |machine| {
            every_command(&Storm::gathers(machine)?, Fault::Asked).map(drop)
        }),
        case("fault_of_the_index", &[Site::Bare, Site::Quick], of_the_index),
        case("fault_of_the_clock_and_the_interpreter", &[Site::Bare], of_time_and_interpreter),
        case("fault_of_two_at_once", &[Site::Bare], two_at_once),
        case("fault_of_apt_and_a_rebuild_at_once", &[Site::Bare], apt_and_rebuild),
        case("fault_of_an_interrupted_apt", &[Site::Bare], interrupted_apt),
        case("fault_of_an_owner_at_work", &[Site::Quick], owner_at_work),
        case("no_room_for_a_second_tree", &[Site::Bare], no_room),
    ]
}

/// From one effect on, the disks are full, or one of them is read-only.
fn of_the_disk(machine: &Machine) -> Result<()> {
    let storm = Storm::gathers(machine)?;
    machine.put_on_disks(&EXT4, &PLACES)?;
    for fault in [
        Fault::Meanwhile {
            does: "for place in /srv/bare /var/lib/venvguard; do cat /dev/zero >$place/filler; done 2>/dev/null || true",
            mends: "rm /srv/bare/filler /var/lib/venvguard/filler",
        },
        Fault::Meanwhile {
            // The kernel removes a builder's mounts only some moments after the builder has ended.
            does: "timeout 5 sh -c 'until mount -o remount,ro /srv/bare; do sleep 0.1; done'",
            mends: "mount -o remount,rw /srv/bare",
        },
        Fault::Meanwhile {
            does: "mount -o remount,ro /var/lib/venvguard",
            mends: "mount -o remount,rw /var/lib/venvguard",
        },
    ] {
        storm.rages(fault, &first_rebuild())?;
    }
    Ok(())
}

/// From one effect on, the quota of the venv's directory is used up.
fn of_a_quota(machine: &Machine) -> Result<()> {
    let storm = Storm::gathers(machine)?;
    let said = machine.run("mount -t btrfs none /mnt")?.text;
    if said.contains("unknown filesystem type") {
        println!("lab: skipping the trial with a quota: this kernel has no btrfs: {}", said.trim());
        return Ok(());
    }
    machine.put_on_disks(&BTRFS, &["/srv/bare"])?;
    machine.write("/root/quota.py", QUOTA)?;
    let fault =
        Fault::Meanwhile { does: "python3 /root/quota.py on", mends: "python3 /root/quota.py off" };
    storm.rages(fault, &first_rebuild()).map(drop)
}

/// pip and uv find no index, or one that never answers, or are killed.
fn of_the_index(machine: &Machine) -> Result<()> {
    machine.install_uv()?;
    machine.install_guard()?;
    machine.write("/root/stalls.py", STALLS)?;
    machine.must("systemd-run --quiet --unit stalls python3 /root/stalls.py")?;
    let killed =
        "while kill -0 $pid; do pkill -KILL -u app -f 'pip install|pip.* install'; sleep 0.2; done";
    for engine in ["pip", "uv"] {
        for (index, while_it_runs, complaint) in [
            ("http://127.0.0.1:9/simple", "true", "cannot install "),
            ("http://127.0.0.1:8000/simple", "true", "did not finish within"),
            ("http://127.0.0.1:8000/simple", killed, "was killed by signal 9"),
        ] {
            machine.must(&format!(
                "printf '[global]\\nindex-url = {index}\\n' >/etc/pip.conf
                 printf 'index-url = \"{index}\"\\n' >/etc/uv/uv.toml
                 printf 'engine = \"{engine}\"\\nrebuild-timeout = 5\\n' >/etc/venvguard/config.toml",
            ))?;
            let before = machine.must(QUICK)?;
            let said = machine.run(&format!(
                "venvguard rebuild quick & pid=$!; {while_it_runs} 2>/dev/null; wait $pid"
            ))?;
            let whom = format!("{engine}, {index}: {said:?}");
            ensure!(said.code == 1 && said.text.contains(complaint), "{whom}");
            ensure!(machine.must(QUICK)? == before, "the venv was replaced: {whom}");
            machine.wait_until_serving(&services_of(Site::Quick)[0])?;
            nothing_is_left(machine)?;
        }
    }
    Ok(())
}

const QUICK: &str = "stat -c '%n %i' /srv/quick/venv /srv/quick/.venv.* 2>/dev/null || true";

/// A server that accepts every connection and never sends a byte.
const STALLS: &str = r#"
import socket
server = socket.create_server(("127.0.0.1", 8000))
connections = []
while True:
    connections.append(server.accept())
"#;

fn nothing_is_left(machine: &Machine) -> Result<()> {
    let said = machine.venvguard("resume")?;
    ensure!(said.code == 0 && said.text.contains("nothing to do"), "resume: {said:?}");
    Ok(())
}

/// The wall clock jumps at each look at it, and the interpreter vanishes at each effect.
fn of_time_and_interpreter(machine: &Machine) -> Result<()> {
    let storm = Storm::gathers(machine)?;
    // A month ahead, so that kept trees would be too old; a month back; to before 1970.
    for step in [30 * 86_400, -30 * 86_400, -60 * 365 * 86_400_i64] {
        let said = machine.must(&format!("venvguard-faults --step-clock {step} rebuild bare"))?;
        ensure!(said.contains("the previous environment is kept at"), "{step}: {said}");
        storm.is_well()?;
        let kept = machine.must("venvguard show bare | grep 'previous environment'")?;
        let beside = machine.must("ls -d /srv/bare/.venv.venvguard-*")?;
        let is_known = |tree: &str| kept.contains(tree) && !kept.contains("not there");
        ensure!(
            beside.lines().all(is_known),
            "{step}: venvguard knows {kept}, but there is {beside}"
        );
        machine.must(&format!("venvguard-faults --step-clock {step} rollback bare"))?;
        storm.is_well()?;
    }
    nothing_is_left(machine)?;
    let fault = Fault::Meanwhile {
        does: "mv $(readlink -f /usr/bin/python3) /usr/bin/gone",
        mends: "mv /usr/bin/gone $(readlink -m /usr/bin/python3)
                systemctl reset-failed bare; systemctl start bare",
    };
    storm.rages(fault, &first_rebuild()).map(drop)
}

/// Two commands for one venv: the second waits, and works on the result of the first.
fn two_at_once(machine: &Machine) -> Result<()> {
    let storm = Storm::gathers(machine)?;
    machine.must("venvguard rebuild bare")?;
    for first in ["rebuild bare", "rollback bare"] {
        for second in ["rebuild bare", "rebuild --all", "rollback bare", "prune bare"] {
            let said = both(machine, first, second)?;
            ensure!(said.code == 0, "{first}, {second}: {said:?}");
            storm.is_well()?;
            nothing_is_left(machine)?;
            machine.must("venvguard rebuild bare")?;
        }
    }
    let said = both(machine, "rebuild bare", "unregister bare")?;
    ensure!(said.code == 0, "unregister: {said:?}");
    storm.holds_all()?;
    machine.register(SITE, "")?;
    // A venv that is unregistered after an interruption is still whole.
    let fault = Fault::Killed;
    for under in ["", super::crash::IN_PLACE] {
        for effect in [8, 12, 16, 20, 24] {
            let command = Command { under, ..Command::new("rebuild bare") };
            machine.run(&fault.script(&command, effect))?;
            machine.must("venvguard unregister bare")?;
            storm.holds_all()?;
            machine.must(&format!("{VENV}/bin/python -c 'import asyncio, ctypes, email'"))?;
            nothing_is_left(machine)?;
            machine.must("rm -rf /srv/bare/.venv.venvguard-*")?;
            machine.register(SITE, "")?;
            storm.is_well()?;
        }
    }
    Ok(())
}

/// Runs two commands, the second while the first is halfway.
fn both(machine: &Machine, first: &str, second: &str) -> Result<Said> {
    machine.run(&format!(
        "venvguard-faults --stop-at 8 {first} & first=$!
         {}
         venvguard {second} & second=$!
         sleep 0.5; kill -CONT $first
         wait $first || exit; wait $second",
        until_stopped("$first")
    ))
}

fn until_stopped(pid: &str) -> String {
    format!("until read -r _ _ state _ </proc/{pid}/stat && [ $state = T ]; do sleep 0.05; done")
}

/// apt starts during a rebuild, and waits for its end; a rebuild is refused while apt is at work.
fn apt_and_rebuild(machine: &Machine) -> Result<()> {
    let storm = Storm::gathers(machine)?;
    let refused = machine.run(
        "python3 -c 'import fcntl, subprocess
lock = open(\"/var/lib/dpkg/lock-frontend\", \"w\")
fcntl.lockf(lock, fcntl.LOCK_EX)
raise SystemExit(subprocess.call([\"venvguard\", \"rebuild\", \"bare\"]))'",
    )?;
    ensure!(refused.code == 1 && refused.text.contains("apt or dpkg is at work"), "{refused:?}");
    let packages = machine.upgrade.about.packages.join(" ");
    let said = machine.run(&format!(
        "venvguard-faults --stop-at 8 rebuild bare & rebuild=$!
         {}
         apt-get --yes --quiet --option Dpkg::Options::=--force-confold install {packages} & apt=$!
         until pgrep -f 'hook pre-install$'; do sleep 0.1; done
         sleep 0.5; kill -CONT $rebuild
         wait $rebuild || exit; wait $apt",
        until_stopped("$rebuild")
    ))?;
    ensure!(said.code == 0, "{said:?}");
    storm.is_well()?;
    machine.assert_guarded(&[(SITE, On::New)])
}

/// Ctrl-C during the hook after dpkg: apt and the hook end, the venv works, and `resume` does the rest.
fn interrupted_apt(machine: &Machine) -> Result<()> {
    let storm = Storm::gathers(machine)?;
    machine.must(
        "sed -i '/Post-Invoke/s,/usr/sbin/venvguard hook,/usr/local/sbin/venvguard-faults --stop-at 20 hook,' \
             /etc/apt/apt.conf.d/50venvguard",
    )?;
    let packages = machine.upgrade.about.packages.join(" ");
    // apt gets its own session, because a terminal would send the signal to the whole foreground group.
    let said = machine.run(&format!(
        "env --default-signal=INT setsid apt-get --yes --quiet --option Dpkg::Options::=--force-confold install {packages} & apt=$!
         until hook=$(pgrep -x venvguard-fault); do sleep 0.1; done
         {}
         kill -INT -$apt; kill -CONT $hook
         wait $apt",
        until_stopped("$hook")
    ))?;
    ensure!(
        said.text.contains("to finish the recorded work (systemd does so in a few minutes)"),
        "{said:?}"
    );
    ensure!(machine.must("dpkg --audit")?.is_empty(), "dpkg was interrupted: {said:?}");
    machine.must(&format!("{VENV}/bin/python -c 'import asyncio, ctypes, email'"))?;
    storm.holds_all()?;
    machine.wait_until_all_serve()?;
    machine.must("venvguard resume")?;
    storm.is_well()?;
    machine.assert_guarded(&[(SITE, On::New)])
}

/// An owner edits an installed file. Like an editor, sed writes a new file: the old one may be a link into uv's cache.
const EDIT: Fault = Fault::Meanwhile {
    does: r#"su app -s /bin/sh -c "sed -i '\$a # owners-work' /srv/quick/venv/lib/python3*/site-packages/gunicorn/util.py""#,
    mends: "true",
};
const UNDO_EDIT: &str =
    "sed -i '/# owners-work/d' /srv/quick/venv/lib/python3*/site-packages/gunicorn/util.py";

/// An owner installs a distribution by hand.
const INSTALL: Fault = Fault::Meanwhile {
    does: "su app -s /bin/sh -c 'uv --quiet pip install --python /srv/quick/venv/bin/python late'",
    mends: "true",
};
const UNDO_INSTALL: &str = "rm -rf /srv/quick/venv/lib/python3*/site-packages/late*";

/// Owners work in a venv during a rebuild. Afterwards, their work is in the venv, or in a previous environment that
/// venvguard reports to hold files.
fn owner_at_work(machine: &Machine) -> Result<()> {
    machine.install_uv()?;
    machine.install_guard()?;
    machine.write("/root/wheel.py", WHEEL)?;
    machine.must(
        r#"mkdir /wheels && cd /wheels && python3 /root/wheel.py late 1.0 py3 owners-work
         printf 'no-index = true\nfind-links = ["/wheelhouse", "/wheels"]\n' >/etc/uv/uv.toml
         printf 'engine = "uv"\nservice-timeout = 20\nstable-for = 0\n' >/etc/venvguard/config.toml
         install -m 755 /package/venvguard-faults /usr/local/sbin/venvguard-faults
         systemctl stop venvguard-resume.path"#,
    )?;
    let command = Command::new("rebuild quick");
    let stride = if is_long() { 1 } else { 6 };
    for (work, undo) in [(EDIT, UNDO_EDIT), (INSTALL, UNDO_INSTALL)] {
        let mut moments = 0;
        for effect in (1..400).step_by(stride) {
            machine.must(&format!("{undo}; venvguard prune quick"))?;
            let said = machine.run(&work.script(&command, effect))?;
            if !said.text.contains("fault: ") {
                break;
            }
            moments += 1;
            let resumed = machine.venvguard("resume")?;
            let mut trees = machine.reported_trees("quick")?;
            trees.push(Site::Quick.venv());
            let found = machine
                .run(&format!("grep -rF --include '*.py' owners-work {}", trees.join(" ")))?;
            ensure!(
                found.code == 0 && !said.text.contains("bug"),
                "{work:?} at {effect}: it is in none of {trees:?}\n{said:?}\n{resumed:?}"
            );
            machine.wait_until_serving(&services_of(Site::Quick)[0])?;
        }
        ensure!(moments > 0, "{command:?} has no effect");
        println!("lab: an owner worked at {moments} moments of `{}`", command.line);
    }
    Ok(())
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
    ensure!(said.code == 3 && said.text.contains("not enough disk space"), "rebuild: {said:?}");
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
