//! Walking directories with several threads.

use std::collections::HashSet;
use std::ffi::{CStr, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

use crate::host::file::file_system;
use crate::python::Minor;

/// Enough for the names of a large directory in one or two system calls.
const NAMES_BUFFER: usize = 64 << 10;

/// A directory tree deeper than this is deliberate.
const DEPTH_LIMIT: usize = 128;

/// A directory that is still to be searched.
pub(super) struct Task {
    pub(super) path: PathBuf,
    /// The device of the directory above; `None` for a directory that was named.
    pub(super) device: Option<u64>,
    pub(super) depth: usize,
}

/// The directories that wait for a thread. Each thread keeps most of its own.
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    /// How many threads have nothing to do; read without the lock.
    waiting: AtomicUsize,
}

struct State {
    tasks: Vec<Task>,
    /// Threads that have directories of their own and may give some away.
    busy: usize,
}

impl Queue {
    pub(super) fn new(tasks: Vec<Task>) -> Self {
        let state = Mutex::new(State { tasks, busy: 0 });
        Self { state, changed: Condvar::new(), waiting: AtomicUsize::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is a single step: a panic elsewhere leaves it consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next directory, for a thread that has none; `None` once all threads have none.
    fn next(&self) -> Option<Task> {
        let mut state = self.lock();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        loop {
            if let Some(task) = state.tasks.pop() {
                state.busy += 1;
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                return Some(task);
            }
            if state.busy == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Notes that a thread has no more directories.
    fn done(&self) {
        self.lock().busy -= 1;
        self.changed.notify_all();
    }

    /// Gives directories away if another thread waits.
    fn share(&self, own: &mut Vec<Task>) {
        if own.len() < 2 || self.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        // The first ones are nearer to the root, with more below them.
        let half = own.len() / 2;
        self.lock().tasks.extend(own.drain(..half));
        self.changed.notify_all();
    }
}

pub(super) type Identity = (u64, u64);

/// What one thread found.
#[derive(Default)]
pub(super) struct Part {
    pub(super) found: Vec<(PathBuf, Identity)>,
    pub(super) dirs: usize,
    pub(super) unreadable: usize,
}

pub(super) struct Worker<'scan> {
    queue: &'scan Queue,
    others: &'scan HashSet<PathBuf>,
    own: Vec<Task>,
    buffer: Vec<u8>,
    part: Part,
}

impl<'scan> Worker<'scan> {
    pub(super) fn new(queue: &'scan Queue, others: &'scan HashSet<PathBuf>) -> Self {
        let buffer = Vec::with_capacity(NAMES_BUFFER);
        Self { queue, others, own: Vec::new(), buffer, part: Part::default() }
    }

    pub(super) fn work(mut self) -> Part {
        /// Marks a thread as done when dropped: the others wait for it, and it may panic.
        struct Busy<'scan>(&'scan Queue);
        impl Drop for Busy<'_> {
            fn drop(&mut self) {
                self.0.done();
            }
        }
        while let Some(task) = self.queue.next() {
            let _busy = Busy(self.queue);
            self.own.push(task);
            while let Some(task) = self.own.pop() {
                self.look(&task);
                self.queue.share(&mut self.own);
            }
        }
        self.part
    }

    fn look(&mut self, task: &Task) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = match rustix::fs::open(&task.path, flags, Mode::empty()) {
            Ok(dir) => dir,
            // It vanished or became something else.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if task.depth > 0 => return,
            Err(_) => return self.part.unreadable += 1,
        };
        let Ok(stat) = rustix::fs::fstat(&dir) else { return self.part.unreadable += 1 };
        if task.device.is_some_and(|device| device != stat.st_dev) && is_elsewhere(&dir) {
            return;
        }
        self.part.dirs += 1;
        let mark = self.own.len();
        let Ok(names) = self.list(&dir, task, stat.st_dev) else {
            return self.part.unreadable += 1;
        };
        let is_venv = names.bin && (names.configuration || names.lib && is_legacy(&dir));
        if is_venv {
            self.own.truncate(mark);
            self.part.found.push((task.path.clone(), (stat.st_dev, stat.st_ino)));
        }
    }

    /// Reads the names in a directory and notes the directories among them.
    fn list(&mut self, dir: &OwnedFd, task: &Task, device: u64) -> rustix::io::Result<Names> {
        let mut names = Names::default();
        let mut entries = RawDir::new(dir, self.buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            let kind = match entry.file_type() {
                FileType::Unknown => kind(dir, name),
                known => known,
            };
            if kind.is_file() {
                names.configuration |= name == c"pyvenv.cfg";
                continue;
            }
            let skipped = [c".", c"..", c".git", c"__pycache__"].contains(&name);
            if !kind.is_dir() || skipped || task.depth == DEPTH_LIMIT {
                continue;
            }
            names.bin |= name == c"bin";
            names.lib |= name == c"lib";
            let path = task.path.join(OsStr::from_bytes(name.to_bytes()));
            // All of them are near the root.
            if task.depth > 3 || !self.others.contains(&path) {
                self.own.push(Task { path, device: Some(device), depth: task.depth + 1 });
            }
        }
        Ok(names)
    }
}

/// The names that reveal a venv.
#[derive(Default)]
struct Names {
    bin: bool,
    lib: bool,
    configuration: bool,
}

fn kind(dir: &OwnedFd, name: &CStr) -> FileType {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode))
}

/// Whether a directory without `pyvenv.cfg` is an old virtualenv.
fn is_legacy(dir: &OwnedFd) -> bool {
    if !kind(dir, c"bin/activate").is_file() {
        return false;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(lib) = rustix::fs::openat(dir, c"lib", flags, Mode::empty()) else { return false };
    let Ok(entries) = Dir::read_from(&lib) else { return false };
    entries.flatten().any(|entry| {
        let name = Path::new(OsStr::from_bytes(entry.file_name().to_bytes()));
        let versioned = name.to_str().and_then(Minor::of_program).is_some();
        let note =
            || rustix::fs::statat(&lib, name.join("orig-prefix.txt"), AtFlags::SYMLINK_NOFOLLOW);
        versioned && note().is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file())
    })
}

/// File systems of the kernel, of other machines, and read-only ones.
const ELSEWHERE: [u32; 34] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x1cd1,      // devpts
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0x6165_676c, // pstore
    0xcafe_4a11, // bpf
    0x6265_6570, // configfs
    0x6573_5543, // fusectl
    0x1980_0202, // mqueue
    0x9584_58f6, // hugetlbfs
    0x0187,      // autofs
    0x4249_4e4d, // binfmt_misc
    0xde5e_81e4, // efivarfs
    0x6759_6969, // rpc_pipefs
    0xf97c_ff8c, // selinuxfs
    0x6e73_6673, // nsfs
    0x7371_7368, // squashfs: snaps
    0x9660,      // iso9660
    0x6969,      // nfs
    0x517b,      // smbfs
    0xff53_4d42, // cifs
    0xfe53_4d42, // smb2
    0x7375_7245, // coda
    0x5346_414f, // afs
    0x6b41_4653, // kafs
    0x00c3_6400, // ceph
    0x0102_1997, // 9p
    0x6573_5546, // fuse: mostly sshfs and its like
    0x0bd0_0bd0, // lustre
    0x786f_4256, // vboxsf
];

fn is_elsewhere(dir: &OwnedFd) -> bool {
    file_system(dir).is_ok_and(|found| ELSEWHERE.contains(&found))
}
