//! A machine: a root of the lab, booted in a container, with sites that serve and a prepared upgrade.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::cases::{Case, Half};
use crate::child;
pub(crate) use crate::container::Said;
use crate::container::{Container, said};
use crate::overlay::{Overlay, ROOM};
use crate::prepare::upgrade::{Kind, Upgrade};
use crate::prepare::venvs::Site;
use crate::prepare::{Lab, copy_tree};

/// How long to poll for anything: supervisord gives up on a program after some seconds.
const PATIENCE: Duration = Duration::from_secs(45);
const POLL: Duration = Duration::from_millis(50);

const PIP_CONFIGURATION: &str = "[global]\nno-index = true\nfind-links = /wheelhouse\n";
const APT_SOURCES: &str = "deb [trusted=yes] file:/repository ./\n";

/// The packages of the next release that replace those in `/extra`.
const NEWER: &str = "/newer";

/// A booted container. Dropping the value removes it, with all that it wrote.
pub(crate) struct Machine {
    container: RwLock<Container>,
    /// The directories of the host that are bound into the container.
    dirs: Vec<(PathBuf, &'static str)>,
    overlay: Overlay,
    pub(crate) upgrade: Upgrade,
    pub(crate) sites: Vec<Site>,
}

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

/// A process of a machine.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) command: String,
    pub(crate) executable: String,
    /// Mapped files of a Python that are deleted.
    pub(crate) deleted: Vec<String>,
}

impl Machine {
    /// Boots a machine with the sites of a case enabled.
    pub(crate) fn boot(lab: &Lab, case: &Case) -> Result<Self> {
        let suite = case.upgrade.suite();
        let sites = |overlay: &Overlay| {
            for site in case.sites {
                // Copied, because a directory in an overlay's lower layer cannot be renamed, unlike one on a real disk.
                copy_tree(&lab.site(suite, *site)?, &overlay.path(&site.dir()))?;
                install(overlay, *site)?;
            }
            Ok(())
        };
        let mut dirs = vec![(lab.wheelhouse(suite)?, "/wheelhouse")];
        if case.half == Half::Guarded {
            dirs.push((lab.package()?, "/package"));
        }
        if !case.extra.is_empty() {
            dirs.push((lab.extra(suite, case.extra)?, "/extra"));
            dirs.extend(lab.newer(case.upgrade, case.extra)?.map(|dir| (dir, NEWER)));
        }
        let mut machine = Self::start(lab, case.upgrade, ROOM, dirs, sites)?;
        machine.sites = case.sites.to_vec();
        Ok(machine)
    }

    /// Boots a machine with venvguard's package and some directories of the host at hand that may write `room` MiB;
    /// `place` adds files to its root.
    pub(crate) fn boot_with(
        lab: &Lab,
        upgrade: Kind,
        room: u64,
        mut dirs: Vec<(PathBuf, &'static str)>,
        place: impl FnOnce(&Overlay) -> Result<()>,
    ) -> Result<Self> {
        dirs.push((lab.package()?, "/package"));
        Self::start(lab, upgrade, room, dirs, place)
    }

    fn start(
        lab: &Lab,
        upgrade: Kind,
        room: u64,
        mut dirs: Vec<(PathBuf, &'static str)>,
        place: impl FnOnce(&Overlay) -> Result<()>,
    ) -> Result<Self> {
        let suite = upgrade.suite();
        let upgrade = lab.upgrade(upgrade)?;
        let overlay = lab.overlay_with_room(suite.name(), &lab.root(suite)?, room)?;
        overlay.write("/etc/apt/sources.list", APT_SOURCES)?;
        if dirs.iter().any(|(_, there)| *there == NEWER) {
            let source = format!("deb [trusted=yes] file:{NEWER} ./\n");
            overlay.write("/etc/apt/sources.list.d/newer.list", &source)?;
        }
        overlay.write("/etc/pip.conf", PIP_CONFIGURATION)?;
        overlay.write("/srv/probe.py", include_str!("apps/probe.py"))?;
        place(&overlay)?;
        dirs.push((upgrade.repository.clone(), "/repository"));
        let container = Container::boot(&overlay, &dirs)?;
        let container = RwLock::new(container);
        Ok(Self { container, dirs, overlay, upgrade, sites: Vec::new() })
    }

    fn container(&self) -> RwLockReadGuard<'_, Container> {
        self.container.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of its first process on the host, which leads to its namespaces.
    pub(crate) fn leader(&self) -> u32 {
        self.container().leader()
    }

    /// Switches the machine off and on again: only what was written to its disk remains.
    pub(crate) fn reboot(&self) -> Result<()> {
        let mut container = self.container.write().unwrap_or_else(PoisonError::into_inner);
        container.switch_off();
        *container = Container::boot(&self.overlay, &self.dirs)?;
        Ok(())
    }

    /// The size of everything that was written on it and is still there, in MiB.
    pub(crate) fn used(&self) -> Result<u64> {
        self.overlay.used()
    }

    /// Runs a shell command and returns its output and exit code.
    pub(crate) fn run(&self, script: &str) -> Result<Said> {
        let mut command = self.container().enter();
        command.args(["/bin/sh", "-c", "exec 2>&1; eval \"$1\"", "sh", script]);
        said(&mut command)
    }

    /// Runs a shell command that must succeed.
    pub(crate) fn must(&self, script: &str) -> Result<String> {
        let said = self.run(script)?;
        ensure!(said.code == 0, "{script}: exit {}\n{}", said.code, child::tail(&said.text));
        Ok(said.text)
    }

    /// The standard output of a command, apart from its errors.
    pub(crate) fn stdout(&self, script: &str) -> Result<Said> {
        let mut command = self.container().enter();
        command.args(["/bin/sh", "-c", script]);
        let done = command.stdin(Stdio::null()).output()?;
        Ok(Said {
            code: done.status.code().unwrap_or(-1),
            text: String::from_utf8_lossy(&done.stdout).into_owned(),
        })
    }

    /// Runs apt-get as an administrator does, in a unit of its own: one that outlives the restart of systemd itself,
    /// which an upgrade may bring. Keeps the output for the report of a failure.
    pub(crate) fn apt(&self, arguments: &str) -> Result<Said> {
        let said = self.run(&format!(
            "systemd-run --quiet --wait --pipe --setenv=DEBIAN_FRONTEND=noninteractive \
             apt-get --yes --quiet --option Dpkg::Options::=--force-confold {arguments}"
        ))?;
        let log = self.overlay.directory().join("apt.log");
        let mut log = fs::OpenOptions::new().create(true).append(true).open(log)?;
        writeln!(log, "# apt-get {arguments}\n{}# exit {}", said.text, said.code)?;
        Ok(said)
    }

    /// Runs the upgrade of Python that was prepared for this machine.
    pub(crate) fn upgrade_python(&self) -> Result<Said> {
        self.apt(&format!("install {}", self.upgrade.about.packages.join(" ")))
    }

    /// Runs the upgrade, which must succeed.
    pub(crate) fn must_upgrade_python(&self) -> Result<Said> {
        let said = self.upgrade_python()?;
        ensure!(said.code == 0, "apt-get: exit {}\n{}", said.code, child::tail(&said.text));
        Ok(said)
    }

    /// Requests a page from a service, on its socket, by HTTP 1.0.
    pub(crate) fn ask(&self, service: &Service, page: &str) -> Result<Answer> {
        let socket = self.container().root().join(service.socket.trim_start_matches('/'));
        let mut stream = UnixStream::connect(&socket)
            .with_context(|| format!("{} does not listen", service.name))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {page} HTTP/1.0\r\nHost: lab\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, text) = answer
            .split_once("\r\n\r\n")
            .with_context(|| format!("{} hung up without an answer", service.name))?;
        let status = head.split(' ').nth(1).context("no HTTP status")?;
        Ok(Answer { status: status.parse()?, text: text.to_owned() })
    }

    /// Requests a page, which must come.
    pub(crate) fn page(&self, service: &Service, page: &str) -> Result<String> {
        let answer = self.ask(service, page)?;
        ensure!(answer.status == 200, "{}{page}: {} {}", service.name, answer.status, answer.text);
        Ok(answer.text)
    }

    /// The version of the interpreter that answers for a service.
    pub(crate) fn answering_version(&self, service: &Service) -> Result<String> {
        let page: serde_json::Value = serde_json::from_str(&self.page(service, "/python")?)?;
        let version = page["version"].as_str().context("no version")?;
        Ok(version.to_owned())
    }

    pub(crate) fn services(&self) -> Vec<Service> {
        self.sites.iter().copied().flat_map(services_of).collect()
    }

    /// Waits until every service answers: the state of the machine before its upgrade.
    pub(crate) fn wait_until_all_serve(&self) -> Result<()> {
        for service in self.services() {
            self.wait_until_serving(&service)?;
        }
        Ok(())
    }

    pub(crate) fn wait_until_serving(&self, service: &Service) -> Result<()> {
        wait_for(&format!("{} to serve", service.name), || {
            Ok(self.ask(service, "/ok").is_ok_and(|answer| answer.status == 200))
        })
    }

    /// Restarts a service as an administrator does, whether or not it comes up.
    pub(crate) fn restart(&self, service: &Service) -> Result<()> {
        self.run(&match service.manager {
            Manager::Systemd => format!("systemctl restart {}", service.name),
            Manager::Supervisord => format!("supervisorctl restart {}", service.name),
        })?;
        Ok(())
    }

    /// Waits until a service's manager reports that it has failed for good.
    pub(crate) fn wait_until_failed(&self, service: &Service) -> Result<()> {
        wait_for(&format!("{} to fail", service.name), || {
            Ok(match service.manager {
                Manager::Systemd => {
                    let state = self.run(&format!("systemctl is-failed {}", service.name))?;
                    state.text.trim() == "failed"
                }
                Manager::Supervisord => {
                    let state = self.run(&format!("supervisorctl status {}", service.name))?;
                    state.text.contains("FATAL")
                }
            })
        })
    }

    /// The log of a service.
    pub(crate) fn log_of(&self, service: &Service) -> Result<String> {
        self.must(&match service.manager {
            Manager::Systemd => format!("journalctl --quiet --no-pager --unit {}", service.name),
            Manager::Supervisord => format!("cat /var/log/supervisor/{}.log", service.name),
        })
    }

    /// Waits until a service has logged something.
    pub(crate) fn wait_for_log(&self, service: &Service, text: &str) -> Result<()> {
        wait_for(&format!("{} to log {text:?}", service.name), || {
            Ok(self.log_of(service)?.contains(text))
        })
        .with_context(|| self.log_of(service).unwrap_or_default())
    }

    /// The processes of the machine that run from a venv.
    pub(crate) fn processes_of(&self, venv: &str) -> Result<Vec<Process>> {
        let inside = format!("{venv}/bin/");
        let mut processes = Vec::new();
        for entry in fs::read_dir(self.container().root().join("proc"))? {
            let entry = entry?;
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
                continue;
            };
            // A process that ends while it is read is of no interest.
            let Some(process) = read_process(&entry.path(), pid) else {
                continue;
            };
            if process.command.contains(&inside) || process.executable.starts_with(&inside) {
                processes.push(process);
            }
        }
        Ok(processes)
    }

    /// The numbers of a venv's processes, in order.
    pub(crate) fn pids_of(&self, venv: &str) -> Result<Vec<u32>> {
        let mut pids: Vec<u32> =
            self.processes_of(venv)?.iter().map(|process| process.pid).collect();
        pids.sort_unstable();
        Ok(pids)
    }

    /// Every package that dpkg knows of, with its version and state.
    pub(crate) fn packages(&self) -> Result<String> {
        self.must("dpkg-query -W -f '${Package} ${Version} ${Status}\\n'")
    }

    pub(crate) fn is_installed(&self, package: &str) -> Result<bool> {
        let state = self.run(&format!("dpkg-query -W -f '${{Status}}' {package}"))?;
        Ok(state.text == "install ok installed")
    }

    /// The logs to read when a trial has failed on this machine.
    pub(crate) fn report(&self) -> String {
        let mut report = String::new();
        let log = fs::read_to_string(self.overlay.directory().join("apt.log"));
        let mut add = |title: &str, text: &str| {
            // Writing to a string cannot fail.
            let _ = writeln!(report, "--- {title}\n{}", child::tail(text).trim_end());
        };
        add("apt", &log.unwrap_or_default());
        for service in self.services() {
            add(&service.name, &self.log_of(&service).unwrap_or_default());
        }
        for script in [
            "systemctl --no-pager --no-legend list-units --failed",
            "journalctl --quiet --no-pager --boot --lines 40 --identifier venvguard",
            "test ! -x /usr/sbin/venvguard || venvguard status",
            "test ! -x /usr/sbin/venvguard || venvguard history",
        ] {
            match self.run(script) {
                Ok(said) => add(script, &said.text),
                Err(error) => add(script, &format!("{error:#}")),
            }
        }
        report
    }

    /// Writes a file of the machine.
    pub(crate) fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.container().root().join(path.trim_start_matches('/'));
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Copies a tree of the host to the machine.
    pub(crate) fn copy(&self, from: &Path, to: &str) -> Result<()> {
        copy_tree(from, &self.container().root().join(to.trim_start_matches('/')))
    }

    /// Makes an image of a file system on the machine, to be mounted.
    pub(crate) fn make_file_system(&self, path: &str, mebibytes: u64, mkfs: &[&str]) -> Result<()> {
        self.must(&format!(
            "mkdir -p $(dirname {path})
             [ -e /dev/loop-control ] || mknod /dev/loop-control c 10 237
             for n in $(seq 0 31); do [ -e /dev/loop$n ] || mknod /dev/loop$n b 7 $n; done"
        ))?;
        let path = self.container().root().join(path.trim_start_matches('/'));
        fs::File::create(&path)?.set_len(mebibytes << 20)?;
        child::output(Command::new(mkfs[0]).args(&mkfs[1..]).arg(path))?;
        Ok(())
    }
}

/// The service manager.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Manager {
    Systemd,
    Supervisord,
}

/// A service of a site.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) manager: Manager,
    pub(crate) name: String,
    pub(crate) socket: String,
    pub(crate) venv: String,
}

/// The services that a site's venv runs.
pub(crate) fn services_of(site: Site) -> Vec<Service> {
    let service = |manager, name: &str, socket: String| Service {
        manager,
        name: name.to_owned(),
        socket,
        venv: site.venv(),
    };
    if site == Site::Shop {
        let programs = ["gunicorn", "uwsgi"].map(|server| {
            let socket = format!("/srv/shop/{server}.sock");
            service(Manager::Supervisord, &format!("shop-{server}"), socket)
        });
        return programs.to_vec();
    }
    let name = site.name();
    vec![service(Manager::Systemd, name, format!("/run/{name}/http.sock"))]
}

/// Polls until a condition holds.
pub(crate) fn wait_for(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !holds()? {
        ensure!(started.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Installs a site's app and its units in a root that is not booted yet.
fn install(overlay: &Overlay, site: Site) -> Result<()> {
    let enable = |unit: &str| -> Result<()> {
        let wanted = overlay.path("/etc/systemd/system/multi-user.target.wants");
        fs::create_dir_all(&wanted)?;
        std::os::unix::fs::symlink(format!("../{unit}"), wanted.join(unit))?;
        Ok(())
    };
    let unit = |name: &str, text: &str| -> Result<()> {
        overlay.write(&format!("/etc/systemd/system/{name}"), text)?;
        enable(name)
    };
    let app = format!("{}/app.py", site.dir());
    match site {
        Site::Bare => {
            overlay.write(&app, include_str!("apps/bare/app.py"))?;
            unit("bare.service", include_str!("apps/bare/bare.service"))
        }
        Site::Followed | Site::Pinned | Site::Copied | Site::Quick => {
            overlay.write(&app, include_str!("apps/plain/app.py"))?;
            let settings = match site {
                // gunicorn's master imports the app's modules, so that a crash ends the unit.
                Site::Copied => "NEEDS=ctypes GUNICORN_CMD_ARGS=--preload",
                _ => "",
            };
            let text = include_str!("apps/plain/site.service")
                .replace("SITE", site.name())
                .replace("SETTINGS", settings);
            unit(&format!("{}.service", site.name()), &text)
        }
        Site::Shop => {
            overlay.write(&app, include_str!("apps/shop/app.py"))?;
            overlay.write(
                "/etc/supervisor/conf.d/shop.conf",
                include_str!("apps/shop/supervisor.conf"),
            )?;
            let wanted = overlay.path("/etc/systemd/system/multi-user.target.wants");
            fs::create_dir_all(&wanted)?;
            std::os::unix::fs::symlink(
                "/lib/systemd/system/supervisor.service",
                wanted.join("supervisor.service"),
            )?;
            Ok(())
        }
        Site::News => {
            overlay.write(&app, include_str!("apps/news/app.py"))?;
            child::output(
                Command::new("sh")
                    .args(["-euc", include_str!("apps/news/authority.sh"), "sh"])
                    .arg({
                        let tls = overlay.path("/srv/news/tls");
                        fs::create_dir(&tls)?;
                        tls
                    }),
            )?;
            unit("tls.service", include_str!("apps/news/tls.service"))?;
            unit("news.service", include_str!("apps/news/news.service"))
        }
    }
}

fn read_process(dir: &Path, pid: u32) -> Option<Process> {
    let executable = fs::read_link(dir.join("exe")).ok()?;
    let command = fs::read(dir.join("cmdline")).ok()?;
    let maps = fs::read_to_string(dir.join("maps")).ok()?;
    let mut deleted: Vec<String> = maps
        .lines()
        .filter(|line| line.ends_with(" (deleted)") && line.contains("python"))
        .filter_map(|line| line.find('/').map(|path| line[path..].to_owned()))
        .collect();
    deleted.dedup();
    Some(Process {
        pid,
        command: String::from_utf8_lossy(&command).replace('\0', " "),
        executable: executable.to_string_lossy().into_owned(),
        deleted,
    })
}
