//! A container: systemd-nspawn in a control group and a process namespace of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::child;
use crate::overlay::Overlay;
use crate::prepare::machine_name;

/// Booting takes a second, and a few seconds under load.
const BOOT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// Commands run with these variables and with none of the host's.
const ENVIRONMENT: [&str; 5] = [
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
    "TERM=dumb",
    "DEBIAN_FRONTEND=noninteractive",
];

/// A booted container. Dropping the value ends it.
pub(crate) struct Container {
    child: Child,
    /// The pid of the container's first process on the host.
    leader: u32,
    group: ControlGroup,
}

/// A command's output, including its errors, and its exit code.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) text: String,
}

impl Container {
    /// Boots a container and finds its first process.
    pub(crate) fn boot(overlay: &Overlay, dirs: &[(PathBuf, &str)]) -> Result<Self> {
        let group = ControlGroup::new(overlay.name())?;
        let console = overlay.directory().join("console.log");
        let output = fs::File::create(&console)?;
        let mut command = Command::new("setpriv");
        command
            // The container ends with the lab, however that ends: the kernel kills the whole process namespace.
            .args(["--pdeathsig", "KILL", "sh", "-euc", ENTER_GROUP_AND_NAMESPACE])
            .arg(&group.dir)
            .args(["systemd-nspawn", "--quiet"])
            // The host may still mount the legacy hierarchy, which the systemd of newer releases refuses to boot on.
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            .arg("--directory")
            .arg(overlay.root())
            .arg(machine_name(overlay))
            .args([
                "--boot",
                "--register=no",
                "--keep-unit",
                "--console=pipe",
                "--link-journal=no",
                "--private-network",
                "--resolv-conf=off",
                "--timezone=off",
            ]);
        for (here, there) in dirs {
            command.arg(format!("--bind-ro={}:{there}", here.display()));
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("cannot start systemd-nspawn")?;
        let mut container = Self { child, leader: 0, group };
        let started = Instant::now();
        loop {
            let nspawn = child_of(container.child.id());
            if let Some(leader) = nspawn.and_then(child_of).filter(|leader| is_booted(*leader)) {
                container.leader = leader;
                return Ok(container);
            }
            let ended = container.child.try_wait()?;
            if ended.is_some() || started.elapsed() > BOOT {
                let said = fs::read_to_string(&console).unwrap_or_default();
                bail!("the container does not boot\n{}", child::tail(&said));
            }
            std::thread::sleep(POLL);
        }
    }

    /// The container's root as its own processes see it.
    pub(crate) fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.leader))
    }

    /// The number of its first process on the host.
    pub(crate) fn leader(&self) -> u32 {
        self.leader
    }

    /// A command in all of the container's namespaces.
    pub(crate) fn enter(&self) -> Command {
        entering(self.leader)
    }
}

impl Container {
    /// Ends the container as a power switch does.
    pub(crate) fn switch_off(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.group.remove();
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Nothing of the container is kept, so it needs no orderly shutdown.
        self.switch_off();
    }
}

/// The script that starts systemd-nspawn; its first argument is the control group.
const ENTER_GROUP_AND_NAMESPACE: &str = r#"
echo $$ >"$0/cgroup.procs"
exec unshare --pid --fork --kill-child --mount-proc "$@"
"#;

/// A control group for one container. systemd-nspawn makes the container's group below its own, always with the same
/// name: two containers would share their units' groups, and stop each other's processes.
struct ControlGroup {
    dir: PathBuf,
}

impl ControlGroup {
    fn new(name: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let mount = mounts
            .lines()
            .find(|line| line.contains(" - cgroup2 "))
            .and_then(|line| line.split(' ').nth(4))
            .context("no cgroup2 is mounted")?;
        let groups = fs::read_to_string("/proc/self/cgroup")?;
        let own = groups
            .lines()
            .find_map(|line| line.strip_prefix("0::/"))
            .context("the lab is in no control group")?;
        let dir = Path::new(mount).join(own).join(format!("lab-{}-{name}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self { dir })
    }
}

impl ControlGroup {
    fn remove(&self) {
        // Its processes are dead but may not be reaped yet; a leftover group does no harm.
        let started = Instant::now();
        while remove_groups(&self.dir).is_err() && started.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(POLL);
        }
    }
}

fn remove_groups(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_groups(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}

fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Whether systemd is up. `degraded` means a failed unit, which a root without a network may well have.
fn is_booted(leader: u32) -> bool {
    let mut command = entering(leader);
    command.args(["systemctl", "is-system-running"]);
    said(&mut command).is_ok_and(|said| matches!(said.text.trim(), "running" | "degraded"))
}

/// A command in all of the container's namespaces.
fn entering(leader: u32) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg("--target")
        .arg(leader.to_string())
        .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--"])
        .args(["/usr/bin/env", "-i", "--chdir=/"])
        .args(ENVIRONMENT);
    command
}

/// Runs a command to its end, whatever its exit code.
pub(crate) fn said(command: &mut Command) -> Result<Said> {
    let done = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    Ok(Said {
        code: done.status.code().unwrap_or(-1),
        text: text + &String::from_utf8_lossy(&done.stderr),
    })
}
