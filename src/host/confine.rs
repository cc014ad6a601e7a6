//! Running a program on behalf of another user: as that user, and with nothing inherited from us.
//!
//! The parent never forks with threads around it: it starts this same program again
//! (`venvguard confine SPECIFICATION -- PROGRAM…`), which gives up its rights one after
//! the other and then becomes the program.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use landlock::{ABI, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr};
use rustix::fs::{FileType, Mode};
use rustix::process::{Gid, Resource, Rlimit, Signal, Uid};
use serde::{Deserialize, Serialize};

use super::fault::{self, Weakness, weakened};
use super::overlay::{self, Overlay};
use super::path_text::PathText;
use super::user::User;
use super::{Program, Root, descriptor, user};

/// The exit code with which the launcher reports that it failed. The program itself was not
/// started then.
pub(crate) const LAUNCHER_FAILED: i32 = 126;

/// The user that a program runs as, and the directories that it sees in place of others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Confinement {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    /// Directories that the program sees in place of others, mounted in this order.
    overlays: Vec<Overlay>,
    dir: PathText,
    /// The files and directories below which it may write; `None` means wherever its user may.
    writes: Option<Vec<PathText>>,
    /// How many processes and threads its user may have.
    processes: u64,
    /// The address space of one process.
    memory: u64,
}

/// A program that runs as `owner`, sees `overlays`, and starts in `dir`.
pub(crate) fn confined(
    root: &Root,
    program: Program,
    owner: &User,
    overlays: &[Overlay],
    dir: &Path,
) -> Program {
    launched(root, program, owner, overlays, dir, None)
}

/// Like [`confined`]; and where the kernel has Landlock, the program writes only below `writes`
/// and in caches and temporary directories, because an installer runs build scripts of strangers.
pub(crate) fn confined_to(
    root: &Root,
    program: Program,
    owner: &User,
    overlays: &[Overlay],
    dir: &Path,
    mut writes: Vec<PathBuf>,
) -> Program {
    writes.extend(TEMPORARY.iter().chain(&ANYBODYS).map(PathBuf::from));
    writes.extend(CACHES.map(|name| owner.home.join(name)));
    launched(root, program, owner, overlays, dir, Some(writes))
}

/// The directories for temporary files, shared by all users.
pub(crate) const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// Where any program may write. These devices store nothing: root's own venvs are built as
/// root, who could otherwise write to a disk.
const ANYBODYS: [&str; 9] = [
    "/dev/full",
    "/dev/null",
    "/dev/ptmx",
    "/dev/pts",
    "/dev/random",
    "/dev/shm",
    "/dev/tty",
    "/dev/zero",
    "/proc/self/fd",
];

/// Where installers and the compilers they run keep downloads in a user's home.
const CACHES: [&str; 2] = [".cache", ".cargo"];

/// The size of one file; no installer writes a longer one.
const FILE_LIMIT: u64 = 32 << 30;

/// The address space of one process.
const MEMORY_LIMIT: u64 = 64 << 30;

/// How many processes and threads a user may have besides those that existed when the first of
/// their programs was started. The kernel does not limit root.
const PROCESSES_LIMIT: u64 = 4096;

fn launched(
    root: &Root,
    program: Program,
    owner: &User,
    overlays: &[Overlay],
    dir: &Path,
    writes: Option<Vec<PathBuf>>,
) -> Program {
    let confinement = Confinement {
        memory: program.memory().unwrap_or(MEMORY_LIMIT),
        uid: owner.uid,
        gid: owner.gid,
        groups: user::groups(root, owner),
        overlays: overlays.to_vec(),
        dir: dir.into(),
        writes: writes.map(|paths| paths.into_iter().map(PathText).collect()),
        processes: processes_for(owner.uid),
    };
    // Numbers and strings only, so this cannot fail.
    let specification = serde_json::to_string(&confinement).unwrap_or_default();
    let mut arguments = fault::handed_down();
    arguments.extend(["confine", &specification, "--"].map(OsString::from));
    program
        .env("HOME", &owner.home)
        .env("USER", &owner.name)
        .env("LOGNAME", &owner.name)
        .launched_by("/proc/self/exe", arguments)
}

/// The launcher's side: returns only if something went wrong.
pub(crate) fn become_program(confinement: &Confinement, program: &[OsString]) -> io::Error {
    match prepare(confinement) {
        Ok(()) => {
            let Some((path, arguments)) = program.split_first() else {
                return io::Error::other("no program was given");
            };
            let error = Command::new(path).args(arguments).exec();
            io::Error::new(error.kind(), format!("{}: {error}", Path::new(path).display()))
        }
        Err(error) => error,
    }
}

fn prepare(confinement: &Confinement) -> io::Result<()> {
    let parent = rustix::process::getppid();
    descriptor::keep_from_children();
    overlay::mount(&confinement.overlays)?;
    // Without a terminal: a program of another user could type into root's, or take it away from apt.
    if !weakened(Weakness::KeepSession) {
        rustix::process::setsid().map_err(io::Error::from).map_err(step("session"))?;
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    for (resource, most) in [
        (Resource::Core, 0),
        (Resource::Fsize, FILE_LIMIT),
        (Resource::As, confinement.memory),
        (Resource::Nproc, confinement.processes),
    ] {
        if !weakened(Weakness::LiftLimits) {
            limit(resource, most).map_err(step("a resource limit"))?;
        }
    }
    if !weakened(Weakness::StayRoot) {
        become_user(confinement)?;
    }
    if !weakened(Weakness::GainPrivileges) {
        rustix::thread::set_no_new_privs(true)
            .map_err(io::Error::from)
            .map_err(step("no_new_privs"))?;
    }
    let writes = confinement.writes.as_ref().filter(|_| !weakened(Weakness::WriteAnywhere));
    if let Some(writes) = writes {
        if let Some(cache) = writes.iter().find(|path| path.0.ends_with(".cache")) {
            // It cannot be created once writing is restricted to what exists.
            let _ = std::fs::create_dir(&cache.0);
        }
        restrict_writing(writes).map_err(|error| io::Error::other(format!("Landlock: {error}")))?;
    }
    // The program dies with venvguard. Set last: a change of user resets it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(io::Error::from)
        .map_err(step("death signal"))?;
    if rustix::process::getppid() != parent {
        return Err(io::Error::other("venvguard has ended"));
    }
    // As the owner, so that a directory they may not enter is not entered for them.
    std::env::set_current_dir(&confinement.dir.0)
        .or_else(|_| std::env::set_current_dir("/"))
        .map_err(step("working directory"))
}

/// Gives up root's privileges for good.
fn become_user(confinement: &Confinement) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return if rustix::process::geteuid().as_raw() == confinement.uid {
            Ok(())
        } else {
            Err(io::Error::other("only root can run a program as another user"))
        };
    }
    let groups: Vec<Gid> = confinement.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let gid = Gid::from_raw(confinement.gid);
    let uid = Uid::from_raw(confinement.uid);
    give_input_to(uid, gid).map_err(step("standard input"))?;
    rustix::thread::set_thread_groups(&groups).map_err(io::Error::from).map_err(step("groups"))?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)
        .map_err(io::Error::from)
        .map_err(step("group"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(io::Error::from).map_err(step("user"))
}

/// Adds the failed step to an error.
fn step(what: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::other(format!("{what}: {error}"))
}

/// Lowers the priority of this process and of everything it starts from now on.
pub(crate) fn step_back() {
    // If it is forbidden, only time is lost.
    let _ = rustix::process::nice(19);
}

/// The limit for all programs of a user: processes that one leaves behind count for the next.
fn processes_for(uid: u32) -> u64 {
    static LIMITS: Mutex<BTreeMap<u32, u64>> = Mutex::new(BTreeMap::new());
    let mut limits = LIMITS.lock().unwrap_or_else(PoisonError::into_inner);
    *limits.entry(uid).or_insert_with(|| tasks_of(uid).saturating_add(PROCESSES_LIMIT))
}

/// How many visible processes and threads a user has. (The owner of `/proc/PID` does not help:
/// it is root where a process has changed its user.)
fn tasks_of(uid: u32) -> u64 {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let statuses = processes.filter_map(|one| std::fs::read(one.path().join("status")).ok());
    let tasks = |status: Vec<u8>| {
        let status = String::from_utf8_lossy(&status);
        let first = |field| {
            let line = status.lines().find_map(|line| line.strip_prefix(field))?;
            line.split_ascii_whitespace().next()?.parse::<u64>().ok()
        };
        first("Threads:").filter(|_| first("Uid:") == Some(uid.into()))
    };
    statuses.filter_map(tasks).sum()
}

/// Lowers a limit; a lower one stays.
fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let before = rustix::process::getrlimit(resource);
    let lower = |limit: Option<u64>| Some(limit.map_or(most, |limit| limit.min(most)));
    let (current, maximum) = (lower(before.current), lower(before.maximum));
    Ok(rustix::process::setrlimit(resource, Rlimit { current, maximum })?)
}

/// From now on files are written, created and removed only below these paths; missing ones are
/// skipped. A kernel with less Landlock, or none, forbids less.
fn restrict_writing(below: &[PathText]) -> Result<(), landlock::RulesetError> {
    let writing = AccessFs::from_write(ABI::V5);
    Ruleset::default()
        .handle_access(writing)?
        .create()?
        .add_rules(landlock::path_beneath_rules(below.iter().map(|path| &path.0), writing))?
        .restrict_self()?;
    Ok(())
}

/// Whether this kernel can enforce the write restrictions of [`confined_to`].
pub(crate) fn knows_landlock() -> bool {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_write(ABI::V1))
        .and_then(Ruleset::create)
        .is_ok()
}

/// Makes the pipe on standard input the program's own, so that it can open it by name too
/// (`/dev/stdin`). A pipe belongs to the user that created it: root.
fn give_input_to(uid: Uid, gid: Gid) -> io::Result<()> {
    let input = rustix::stdio::stdin();
    let is_pipe = FileType::from_raw_mode(rustix::fs::fstat(input)?.st_mode) == FileType::Fifo;
    if is_pipe {
        rustix::fs::fchown(input, Some(uid), Some(gid))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_count_as_the_kernel_counts_them() {
        let me = rustix::process::geteuid().as_raw();
        let waits = std::sync::Barrier::new(65);
        std::thread::scope(|scope| {
            for _ in 0..64 {
                scope.spawn(|| waits.wait());
            }
            let tasks = tasks_of(me);
            waits.wait();
            assert!(tasks > 64, "{tasks}");
        });
        // The last uid belongs to nobody.
        assert_eq!(tasks_of(u32::MAX), 0);
    }

    #[test]
    fn a_path_of_any_bytes_reaches_the_launcher_unchanged() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        let odd = Path::new(OsStr::from_bytes(b"/srv/\xff\n/venv"));
        let confinement = Confinement {
            uid: 1,
            gid: 1,
            groups: Vec::new(),
            overlays: vec![Overlay::bind(odd, odd, (1, 2))],
            dir: odd.into(),
            writes: Some(vec![odd.into()]),
            processes: 1,
            memory: 1,
        };
        let text = serde_json::to_string(&confinement).unwrap();
        assert_eq!(serde_json::from_str::<Confinement>(&text).unwrap(), confinement);
    }
}
