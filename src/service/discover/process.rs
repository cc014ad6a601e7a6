//! The processes of this machine that may run Python, from one pass over `/proc`.
//!
//! All this data is controlled by the users of the processes: it is treated as bytes, limited in
//! size, and only compared and shown.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::cgroup::{self, CgroupOwner};
use crate::host::clock::{Deadline, wait_until};
use crate::host::fault::{Weakness, weakened};
use crate::host::{Root, file};

/// How much of a command line and of an environment is read: we need only the beginning of the
/// former, and the latter is seldom larger.
const ARGUMENTS_LIMIT: u64 = 64 << 10;
const ENVIRONMENT_LIMIT: u64 = 256 << 10;

/// How much of a process' maps is read: a Python with every extension module has about a thousand
/// lines.
const MAPS_LIMIT: u64 = 8 << 20;
const MAPPED_LIMIT: usize = 4096;

/// The limit of the files of /proc with only a few lines.
const SMALL: u64 = 16 << 10;

/// Most files of /proc fit into so many bytes: the kernel does not report their lengths.
const USUAL: usize = 4 << 10;

/// How many words of a Python's command line may name its program: options come first.
pub(super) const WORDS: usize = 6;

/// A kernel thread's flag in `/proc/PID/stat`.
const PF_KTHREAD: u64 = 0x0020_0000;

/// How long to wait for one process, for each at least after others have used up that time, and
/// for all together.
const PATIENCE: Duration = Duration::from_secs(2);
const LEAST_PATIENCE: Duration = Duration::from_millis(50);
const WHOLE_PATIENCE: Duration = Duration::from_secs(30);

/// How often to check whether a process is still alive.
const POLL: Duration = Duration::from_millis(50);

/// The unit of start times in milliseconds: `USER_HZ` is 100 on every architecture Debian has.
const TICK: u64 = 10;

/// Identifies a process: a pid alone is reused sooner or later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ProcessId {
    pub(crate) pid: u32,
    /// In ticks since boot.
    pub(crate) started: u64,
}

/// Identifies a directory at one moment: its device and its inode.
pub(crate) type DirId = (u64, u64);

/// A file that a process has mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MappedFile {
    pub(crate) path: PathBuf,
    /// Whether it was removed or replaced since.
    pub(crate) deleted: bool,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) id: ProcessId,
    pub(crate) parent: u32,
    /// The page faults of its children that have ended: they become more with each of these.
    pub(crate) faults_of_ended: u64,
    pub(crate) uid: u32,
    pub(crate) place: CgroupOwner,
    /// `None` if we may not see it.
    pub(crate) exe: Option<MappedFile>,
    pub(crate) arguments: Vec<OsString>,
    /// This and the following fields are only read for processes that run Python.
    pub(crate) virtual_env: Option<PathBuf>,
    pub(crate) search_path: Vec<PathBuf>,
    /// The directories that a relative name may be relative to: the current and the initial one.
    pub(crate) dirs: Vec<PathBuf>,
    /// The directories whose `bin` its command line names, as it sees them itself: through links,
    /// mounts and a root of its own.
    pub(crate) homes: Vec<DirId>,
    /// The directory that `VIRTUAL_ENV` names, seen in the same way.
    pub(crate) activated: Option<DirId>,
    /// Whether it has another root than we have: then its paths mean nothing to us.
    pub(crate) has_own_root: bool,
    /// Extension modules, libpython, and files mapped from outside the system's directories.
    pub(crate) mapped: Vec<MappedFile>,
}

/// The processes of a machine at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Processes {
    by_pid: HashMap<u32, Process>,
    /// The processes that could not be inspected.
    unreadable: Vec<u32>,
    /// How long the machine has been up.
    uptime: Duration,
}

impl Processes {
    /// Inspects all processes. Those that end in the meantime are skipped, and so are those with
    /// another root: a container's `/opt/app` is not ours.
    pub(crate) fn look(root: &Root) -> Self {
        let proc = root.at("/proc");
        let prefix = cgroup::prefix(&some(&proc.join("1/cgroup"), SMALL).unwrap_or_default());
        let home = fs::metadata(root.at("/")).map(|m| (m.dev(), m.ino())).ok();
        let uptime = some(&proc.join("uptime"), SMALL).unwrap_or_default();
        let uptime = String::from_utf8_lossy(&uptime);
        let uptime = uptime.split(' ').next().and_then(|s| s.parse().ok()).unwrap_or(0.0);
        let entries = fs::read_dir(&proc).into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let pids = pids.collect();
        let uptime = Duration::try_from_secs_f64(uptime).unwrap_or_default();
        let mut processes = Self { uptime, ..Self::default() };
        processes.read_all(&Reader { proc, prefix, home }, pids);
        processes
    }

    /// A process that shares another one's memory can block root indefinitely from reading the
    /// command line, the environment and the maps. Then nothing else of that user is read.
    fn read_all(&mut self, reader: &Reader, mut pids: VecDeque<u32>) {
        let (mut patience, whole) = if weakened(Weakness::WaitForProcesses) {
            (Duration::MAX, Deadline::never())
        } else {
            (PATIENCE, Deadline::after(WHOLE_PATIENCE))
        };
        let mut answers = reader.start(&pids);
        while let Some(pid) = pids.front().copied() {
            match answers.recv_timeout(patience.min(whole.left())) {
                Ok(process) => {
                    self.by_pid.extend(process.map(|process| (pid, process)));
                    pids.pop_front();
                }
                Err(RecvTimeoutError::Timeout) if !whole.has_passed() => {
                    let uid = reader.uid(pid).filter(|uid| *uid != 0);
                    let is_silent =
                        |other: &u32| *other == pid || uid.is_some() && reader.uid(*other) == uid;
                    self.unreadable.extend(pids.iter().copied().filter(is_silent));
                    pids.retain(|other| !is_silent(other));
                    patience = (patience / 2).max(LEAST_PATIENCE);
                    answers = reader.start(&pids);
                }
                Err(_) => return self.unreadable.extend(pids),
            }
        }
    }

    /// Describes the processes that could not be inspected.
    pub(crate) fn gap(&self) -> Option<String> {
        let (first, others) = self.unreadable.split_first()?;
        let others = match others.len() {
            0 => String::new(),
            count => format!(" ({count} more processes skipped)"),
        };
        Some(format!("cannot inspect pid {first}{others}"))
    }

    /// How many processes, of a user or of all, could not be looked at.
    pub(crate) fn skipped(&self, of: Option<u32>) -> usize {
        let is_meant = |process: &&Process| of.is_none_or(|uid| uid == process.uid);
        let hidden = self.iter().filter(is_meant);
        let hidden = hidden.filter(|one| one.exe.is_none() && one.runs_python());
        self.unreadable.len() + hidden.count()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Process> {
        self.by_pid.values()
    }

    pub(crate) fn get(&self, pid: u32) -> Option<&Process> {
        self.by_pid.get(&pid)
    }

    /// A process and its ancestors, nearest first.
    pub(crate) fn lineage<'a>(&'a self, process: &'a Process) -> impl Iterator<Item = &'a Process> {
        let parent = |child: &&Process| {
            // A parent younger than its child has a reused pid.
            self.get(child.parent).filter(|parent| parent.id.started <= child.id.started)
        };
        // No service has a deeper tree than this; it also ends a loop.
        std::iter::successors(Some(process), parent).take(64)
    }

    /// How long ago a process was started.
    pub(crate) fn age(&self, process: &Process) -> Duration {
        self.uptime.saturating_sub(Duration::from_millis(process.id.started.saturating_mul(TICK)))
    }
}

/// Reads processes one by one, in a thread that may have to be left behind.
#[derive(Debug, Clone)]
struct Reader {
    proc: PathBuf,
    prefix: Vec<u8>,
    home: Option<DirId>,
}

impl Reader {
    fn start(&self, pids: &VecDeque<u32>) -> Receiver<Option<Process>> {
        let (sender, receiver) = channel();
        let (reader, pids) = (self.clone(), pids.clone());
        std::thread::spawn(move || {
            pids.into_iter().all(|pid| sender.send(reader.read(pid)).is_ok());
        });
        receiver
    }

    fn read(&self, pid: u32) -> Option<Process> {
        let other = fs::metadata(self.proc.join(format!("{pid}/root")));
        let has_own_root = other.is_ok_and(|m| self.home != Some((m.dev(), m.ino())));
        let process = Process::read(&self.proc, pid, &self.prefix)?;
        // A unit with a root of its own may have a venv of ours bound into it. A container's
        // `/opt/app` is not ours.
        let is_ours = !has_own_root || matches!(process.place, CgroupOwner::Unit(_));
        is_ours.then_some(Process { has_own_root, ..process })
    }

    /// Reads the user of a process; nobody can block this.
    fn uid(&self, pid: u32) -> Option<u32> {
        uid(&some(&self.proc.join(format!("{pid}/status")), SMALL)?)
    }
}

/// Waits until processes end and returns those that did not.
pub(crate) fn await_gone(root: &Root, ids: &[ProcessId], patience: Duration) -> Vec<ProcessId> {
    let mut left = ids.to_vec();
    wait_until(Deadline::after(patience), POLL, || {
        left.retain(|id| is_alive(root, *id));
        left.is_empty()
    });
    left
}

fn is_alive(root: &Root, id: ProcessId) -> bool {
    let stat = some(&root.at(format!("/proc/{}/stat", id.pid)), SMALL);
    stat.and_then(|stat| Stat::read(&stat)).is_some_and(|stat| stat.started == id.started)
}

impl Process {
    fn read(proc: &Path, pid: u32, prefix: &[u8]) -> Option<Self> {
        let dir = proc.join(pid.to_string());
        let stat = Stat::read(&some(&dir.join("stat"), SMALL)?)?;
        let mut process = Self {
            id: ProcessId { pid, started: stat.started },
            parent: stat.parent,
            faults_of_ended: stat.faults_of_ended,
            uid: uid(&some(&dir.join("status"), SMALL)?)?,
            place: cgroup::place(&some(&dir.join("cgroup"), SMALL).unwrap_or_default(), prefix),
            exe: link(&dir.join("exe")).map(MappedFile::of),
            arguments: words(&some(&dir.join("cmdline"), ARGUMENTS_LIMIT).unwrap_or_default()),
            virtual_env: None,
            search_path: Vec::new(),
            dirs: Vec::new(),
            homes: Vec::new(),
            activated: None,
            has_own_root: false,
            mapped: Vec::new(),
        };
        if process.runs_python() {
            process.look_closer(&dir);
            // The data belongs together only if the pid is still the same process.
            let again = Stat::read(&some(&dir.join("stat"), SMALL)?)?;
            (again.started == stat.started).then_some(())?;
        }
        Some(process)
    }

    /// Whether it runs a Python interpreter, its own or one within uWSGI or Apache.
    pub(crate) fn runs_python(&self) -> bool {
        let is_python = |name: &OsStr| {
            let name = name.as_bytes();
            name.starts_with(b"python")
                || name.windows(5).any(|part| part == b"uwsgi")
                || matches!(name, b"apache2" | b"httpd")
        };
        let exe = self.exe.as_ref().and_then(|exe| exe.path.file_name());
        let called = self.arguments.first().and_then(|name| Path::new(name).file_name());
        exe.is_some_and(is_python) || called.is_some_and(is_python)
    }

    fn look_closer(&mut self, dir: &Path) {
        let environment = some(&dir.join("environ"), ENVIRONMENT_LIMIT).unwrap_or_default();
        let variable = |name: &[u8]| {
            environment.split(|byte| *byte == 0).find_map(|pair| pair.strip_prefix(name))
        };
        let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
        self.virtual_env = variable(b"VIRTUAL_ENV=").map(path);
        let search_path = variable(b"PATH=").unwrap_or_default();
        self.search_path = search_path.split(|byte| *byte == b':').map(path).collect();
        self.dirs.extend(link(&dir.join("cwd")));
        self.dirs.extend(variable(b"PWD=").map(path));
        self.dirs.retain(|dir| dir.is_absolute());
        self.mapped = mapped(&some(&dir.join("maps"), MAPS_LIMIT).unwrap_or_default());
        let own_root = File::open(dir.join("root"));
        let identity = |path: &PathBuf| directory_within(own_root.as_ref().ok()?, path);
        self.homes = self.named_homes().iter().filter_map(identity).collect();
        self.activated = self.virtual_env.as_ref().and_then(identity);
    }

    /// The directories whose `bin` its command line names.
    fn named_homes(&self) -> BTreeSet<PathBuf> {
        let words = self.arguments.iter().take(WORDS + 1).map(Path::new);
        let programs = words.filter(|word| word.components().count() > 1).flat_map(|word| {
            let all = if word.is_absolute() { vec![PathBuf::new()] } else { self.dirs.clone() };
            all.into_iter().map(move |dir| dir.join(word))
        });
        let home = |program: PathBuf| {
            let bin = program.parent().filter(|dir| dir.ends_with("bin"))?;
            Some(bin.parent()?.to_path_buf())
        };
        programs.filter_map(home).collect()
    }

    /// `pid 363 (/opt/v/web/bin/python3 /opt/v/web/bin/gunicorn …)`, for a person.
    pub(crate) fn describe(&self) -> String {
        format!("pid {} ({})", self.id.pid, self.command())
    }

    /// The beginning of its command line, for a person.
    pub(crate) fn command(&self) -> String {
        let mut words: Vec<_> = self.arguments.iter().take(2).map(file::printable).collect();
        if words.is_empty() {
            words.extend(self.exe.as_ref().map(|exe| file::printable(&exe.path)));
        }
        if self.arguments.len() > 2 {
            words.push("…".to_string());
        }
        words.join(" ").chars().take(160).collect()
    }
}

impl MappedFile {
    /// Recognizes the kernel's mark for a removed file.
    fn of(path: PathBuf) -> Self {
        match path.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
            Some(name) => Self { path: PathBuf::from(OsStr::from_bytes(name)), deleted: true },
            None => Self { path, deleted: false },
        }
    }
}

/// The identity of a directory, looked up as a process with this root looks it up.
fn directory_within(root: &File, path: &Path) -> Option<DirId> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let dir = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve).ok()?;
    let stat = rustix::fs::fstat(dir).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

/// The needed part of `/proc/PID/stat`.
pub(crate) struct Stat {
    parent: u32,
    started: u64,
    faults_of_ended: u64,
}

impl Stat {
    /// `None` for a kernel thread and for a zombie.
    pub(crate) fn read(stat: &[u8]) -> Option<Self> {
        // The name in parentheses may contain anything, even parentheses; the rest contains none.
        let end = stat.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
        let fields: Vec<_> = rest.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        // proc(5) counts from one, and the first field here is its third.
        let is_over = matches!(*fields.first()?, "Z" | "X" | "x");
        let is_kernel = number(6)? & PF_KTHREAD != 0;
        let parent = u32::try_from(number(1)?).ok()?;
        let (started, faults_of_ended) = (number(19)?, number(8)?);
        (!is_over && !is_kernel).then_some(Self { parent, started, faults_of_ended })
    }
}

/// The effective user in `/proc/PID/status`. (The owner of `/proc/PID` is root for every
/// process that changed its user without executing anything since.)
pub(crate) fn uid(status: &[u8]) -> Option<u32> {
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

pub(crate) fn words(command_line: &[u8]) -> Vec<OsString> {
    let end = command_line.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let whole = command_line.get(..end).unwrap_or_default();
    if whole.is_empty() {
        return Vec::new();
    }
    whole.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect()
}

/// The files of interest in `/proc/PID/maps`, each once.
pub(crate) fn mapped(maps: &[u8]) -> Vec<MappedFile> {
    let mut images: Vec<MappedFile> = Vec::new();
    let mut last: &[u8] = b"";
    for line in maps.split(|byte| *byte == b'\n') {
        // The path follows five fields and is the only one with a slash.
        let Some(path) = line.iter().position(|byte| *byte == b'/').and_then(|at| line.get(at..))
        else {
            continue;
        };
        if path == last || !is_of_interest(path) {
            continue;
        }
        last = path;
        let image = MappedFile::of(PathBuf::from(OsStr::from_bytes(path)));
        if images.len() < MAPPED_LIMIT {
            images.push(image);
        }
    }
    images
}

fn is_of_interest(path: &[u8]) -> bool {
    let holds = |part: &[u8]| path.windows(part.len()).any(|window| window == part);
    let is_systems = [b"/usr/".as_slice(), b"/lib/", b"/lib64/", b"/dev/", b"/memfd:", b"/SYSV"]
        .iter()
        .any(|dir| path.starts_with(dir));
    !is_systems
        || [b"/bin/python".as_slice(), b"/lib-dynload/", b"/libpython", b"/site-packages/"]
            .iter()
            .any(|part| holds(part))
}

/// The first `limit` bytes of a file of /proc.
fn some(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(USUAL);
    File::open(path).ok()?.take(limit).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn link(path: &Path) -> Option<PathBuf> {
    fs::read_link(path).ok()
}

#[cfg(test)]
pub(in crate::service) mod tests;
