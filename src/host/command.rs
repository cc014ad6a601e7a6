//! The one way to run a program.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::clock::Deadline;
use super::fault::{self, Weakness, weakened};
use super::file::Sparse;
use super::file::printable_within;
use super::{Root, descriptor};

/// How much of a program's output is kept; the rest is read and dropped.
const OUTPUT_LIMIT: usize = 32 << 20;

/// How many lines of a program's complaint are shown, and how many bytes of each: they become
/// part of messages, of the history and of the registry.
const COMPLAINT_LINES: usize = 6;
const COMPLAINT_LINE: usize = 512;

/// What pip, uv and build backends say without saying anything: it only takes the place of the
/// error itself.
const FILLER: [&str; 6] = [
    "See above for",
    "[end of output]",
    "This error originates from a subprocess",
    "This is an issue with the package mentioned above",
    "This usually indicates a problem with the package or the build environment",
    "Encountered error while",
];

/// The lines in which pip and uv name the distribution that cannot be built.
const HEADLINES: [&str; 3] =
    ["Failed to build `", "Failed building wheel for", "Failed to download"];

/// How lines begin in which other programs report an error, in lower case.
const ERRORS: [&str; 2] = ["error:", "fatal:"];

/// How much of the complaint is searched for its last lines.
const COMPLAINT_TAIL: usize = 64 << 10;

/// How long to wait for the output after the program has ended (a grandchild may hold the pipe
/// open for ever), and for the end of a program that was killed.
const DRAIN: Duration = Duration::from_millis(500);

/// The system's own programs answer within this time unless something is very wrong.
const DEFAULT_LIMIT: Duration = Duration::from_secs(60);

/// The only search path a child gets.
pub(crate) const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Finds the system's program of this name.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    if name.starts_with('/') {
        return Some(PathBuf::from(name)).filter(|path| path.is_file());
    }
    if name.contains('/') {
        return None;
    }
    PATH.split(':').map(|dir| PathBuf::from(dir).join(name)).find(|path| path.is_file())
}

/// A program to run: an absolute path and an argument list, never shell text; an
/// environment of its own; no terminal; killed with its whole group at the time limit.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    path: PathBuf,
    /// Its name in messages, where the file name of its path is not enough.
    name: String,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    input: Vec<u8>,
    /// The file that receives its standard output, and the limit.
    output: Option<(Arc<File>, u64)>,
    limit: Duration,
    /// Ends it early once something can be read there.
    ended_by: Option<Arc<OwnedFd>>,
    /// How much memory a confined run may use, if less than usual.
    memory_limit: Option<u64>,
    /// It leads a session of its own, which only a process that leads no group can begin.
    begins_session: bool,
    changes: bool,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) output: Vec<u8>,
    pub(crate) errors: Vec<u8>,
}

impl Finished {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }

    /// The last lines of the program's complaint, for an error message: printable, and at most
    /// [`COMPLAINT_LINES`] of [`COMPLAINT_LINE`] bytes.
    pub(crate) fn complaint(&self) -> String {
        let is_silent = self.errors.iter().all(u8::is_ascii_whitespace);
        let said = if is_silent { &self.output } else { &self.errors };
        let tail = said.get(said.len().saturating_sub(COMPLAINT_TAIL)..).unwrap_or_default();
        let is_inside = |byte: &u8| byte & 0xc0 == 0x80;
        let start = tail.iter().take_while(|byte| is_inside(byte)).count();
        let text = String::from_utf8_lossy(tail.get(start..).unwrap_or_default());
        // Redact before cutting: half a URL is no longer recognizable.
        let shown = telling(&text)
            .into_iter()
            .map(|line| printable_within(&super::redacted(line), COMPLAINT_LINE));
        shown.collect::<Vec<_>>().join("\n")
    }
}

/// The last lines of a complaint, and the one that names what failed, or the first error, if it comes
/// earlier.
fn telling(text: &str) -> Vec<&str> {
    let is_filler = |line: &str| FILLER.iter().any(|filler| line.contains(filler));
    let lines: Vec<&str> =
        text.lines().filter(|line| !line.trim().is_empty() && !is_filler(line)).collect();
    let (before, last) = lines.split_at(lines.len().saturating_sub(COMPLAINT_LINES));
    let names = |line: &&&str| HEADLINES.iter().any(|head| line.contains(head));
    if last.iter().any(|line| names(&line)) {
        return last.to_vec();
    }
    let is_error = |line: &&&str| {
        let line = line.trim_start().to_ascii_lowercase();
        ERRORS.iter().any(|beginning| line.starts_with(beginning))
    };
    let headline = before.iter().rfind(names).or_else(|| before.iter().find(is_error));
    let Some(headline) = headline else { return last.to_vec() };
    std::iter::once(*headline).chain(last.iter().skip(1).copied()).collect()
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("cannot run {program}: {source}")]
    Start { program: String, source: std::io::Error },
    #[error("{program} did not finish within {} s and was killed", .limit.as_secs())]
    TimedOut { program: String, limit: Duration },
    #[error("{program} was stopped before it finished")]
    Ended { program: String },
    #[error("{program} did not finish within {} s and cannot be killed: leaving it behind as pid {pid}", .limit.as_secs())]
    Unkillable { program: String, limit: Duration, pid: u32 },
    #[error("{program} {status}{}", indent(.complaint))]
    Failed {
        program: String,
        status: ExitDescription,
        complaint: String,
        /// The whole of stderr: to search, never to show.
        errors: Vec<u8>,
    },
}

/// An exit status in words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExitDescription(pub(crate) ExitStatus);

impl std::fmt::Display for ExitDescription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use std::os::unix::process::ExitStatusExt;
        match (self.0.code(), self.0.signal()) {
            (Some(code), _) => write!(f, "exited {code}"),
            (None, Some(11)) => write!(f, "was killed by signal 11 (SIGSEGV)"),
            (None, Some(signal)) => write!(f, "was killed by signal {signal}"),
            (None, None) => write!(f, "ended"),
        }
    }
}

fn indent(complaint: &str) -> String {
    complaint.lines().fold(String::new(), |text, line| text + "\n    " + line)
}

impl Program {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            name: String::new(),
            arguments: Vec::new(),
            environment: vec![("PATH".into(), PATH.into()), ("LANG".into(), "C.UTF-8".into())],
            input: Vec::new(),
            output: None,
            limit: DEFAULT_LIMIT,
            ended_by: None,
            memory_limit: None,
            begins_session: false,
            changes: true,
        }
    }

    /// One of the system's own programs. Not every release has merged `/bin` and `/usr/bin`.
    pub(crate) fn named(root: &Root, name: &str) -> Self {
        let places = PATH.split(':').map(|dir| root.at(dir).join(name));
        let usual = root.at("/usr/bin").join(name);
        Self::new(places.into_iter().find(|path| path.is_file()).unwrap_or(usual))
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_os_string());
        self
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|a| a.as_ref().to_os_string()));
        self
    }

    pub(crate) fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_os_string(), value.as_ref().to_os_string()));
        self
    }

    pub(crate) fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// Marks a program that changes nothing.
    pub(crate) fn read_only(mut self) -> Self {
        self.changes = false;
        self
    }

    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Kills it, as at the time limit, once something can be read there: a line that a person typed.
    pub(crate) fn ended_by(mut self, other: OwnedFd) -> Self {
        self.ended_by = Some(Arc::new(other));
        self
    }

    /// Writes its standard output to a file, at most `limit` bytes, instead of keeping it.
    pub(crate) fn output_to(mut self, file: File, limit: u64) -> Self {
        self.output = Some((Arc::new(file), limit));
        self
    }

    pub(crate) fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// Sets its name in messages.
    pub(crate) fn called(mut self, name: String) -> Self {
        self.name = name;
        self
    }

    /// The memory limit, if one was set.
    pub(super) fn memory(&self) -> Option<u64> {
        self.memory_limit
    }

    /// The program's own name, as messages show it.
    pub(crate) fn name(&self) -> String {
        if self.name.is_empty() {
            return super::file::printable(self.path.file_name().unwrap_or(self.path.as_os_str()));
        }
        self.name.clone()
    }

    /// The same program started by `launcher`, as in a confined run: the launcher begins a session.
    pub(crate) fn launched_by(
        self,
        launcher: impl Into<PathBuf>,
        arguments: Vec<OsString>,
    ) -> Self {
        let name = self.name();
        let mut all = arguments;
        all.push(self.path.into_os_string());
        all.extend(self.arguments);
        Self { path: launcher.into(), arguments: all, name, begins_session: true, ..self }
    }

    /// Runs it; any exit status but 0 is an error.
    pub(crate) fn run(self) -> Result<Finished, CommandError> {
        let program = self.name();
        let finished = self.finish()?;
        if finished.status.success() {
            return Ok(finished);
        }
        let complaint = finished.complaint();
        let Finished { status, errors, .. } = finished;
        Err(CommandError::Failed { program, status: ExitDescription(status), complaint, errors })
    }

    /// Runs it to its end, whatever its exit status.
    pub(crate) fn finish(self) -> Result<Finished, CommandError> {
        descriptor::keep_from_children();
        let program = self.name();
        let start = |source| CommandError::Start { program: program.clone(), source };
        if self.changes {
            fault::point(&program).map_err(start)?;
        }
        let mut command = Command::new(&self.path);
        if !weakened(Weakness::KeepEnvironment) {
            command.env_clear();
        }
        if !self.begins_session {
            command.process_group(0);
        }
        let mut child = command
            .args(&self.arguments)
            .envs(self.environment)
            .current_dir("/")
            .stdin(if self.input.is_empty() { Stdio::null() } else { Stdio::piped() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(start)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that does not read its input ends the thread by EPIPE.
            std::thread::spawn(move || stdin.write_all(&self.input));
        }
        let output = child.stdout.take().map(|output| Stream::collect(output, self.output));
        let errors = child.stderr.take().map(|errors| Stream::collect(errors, None));
        let group = Pid::from_child(&child);
        let end = await_end(&mut child, self.limit, self.ended_by.as_deref());
        if end != End::OfProgram {
            kill_groups_of_children(group);
            let _ = rustix::process::kill_process(group, Signal::KILL);
        }
        // Kill whatever the program left behind in its group.
        if !weakened(Weakness::KeepGroup) {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
        if end != End::OfProgram && await_end(&mut child, DRAIN, None) != End::OfProgram {
            // A process that waits for an unresponsive file system cannot be killed. A user's
            // file system may never respond, so leave the process behind.
            return Err(CommandError::Unkillable { program, limit: self.limit, pid: child.id() });
        }
        let status = child.wait().map_err(start)?;
        let drain = Deadline::after(DRAIN);
        let [output, errors] =
            [output, errors].map(|stream| stream.map(|it| it.until(drain)).unwrap_or_default());
        match end {
            End::OfProgram => Ok(Finished { status, output, errors }),
            End::OfTime => Err(CommandError::TimedOut { program, limit: self.limit }),
            End::ByOther => Err(CommandError::Ended { program }),
        }
    }
}

/// Kills the programs that a process has started in groups of their own, as venvguard's own processes
/// do. What they have started in turn would survive them.
fn kill_groups_of_children(parent: Pid) {
    // Stopped, it starts no others.
    let _ = rustix::process::kill_process(parent, Signal::STOP);
    let tasks = format!("/proc/{}/task", parent.as_raw_nonzero());
    for task in std::fs::read_dir(tasks).into_iter().flatten().flatten() {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        let children =
            children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
        for child in children {
            let _ = rustix::process::kill_process_group(child, Signal::KILL);
            // A launcher that has not begun its session leads no group yet.
            let _ = rustix::process::kill_process(child, Signal::KILL);
        }
    }
}

/// Why the wait for a program is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    OfProgram,
    OfTime,
    /// Something can be read where it ends the program.
    ByOther,
}

/// Waits for the child's end, at most for `limit`, or until something can be read from `other`. The
/// child stays a zombie, so that its process group is still its own when the group is killed.
fn await_end(child: &mut Child, limit: Duration, other: Option<&OwnedFd>) -> End {
    let for_ever = Duration::from_secs(u32::MAX.into());
    let deadline = Deadline::after(if weakened(Weakness::WaitForEver) { for_ever } else { limit });
    let Ok(pidfd) = rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::empty()) else {
        // A kernel before 5.3: poll.
        let has_ended = super::clock::wait_until(deadline, Duration::from_millis(10), || {
            matches!(child.try_wait(), Ok(Some(_)) | Err(_))
        });
        return if has_ended { End::OfProgram } else { End::OfTime };
    };
    loop {
        let mut all = vec![PollFd::new(&pidfd, PollFlags::IN)];
        all.extend(other.map(|other| PollFd::new(other, PollFlags::IN)));
        let left = rustix::event::Timespec::try_from(deadline.left()).ok();
        match poll(&mut all, left.as_ref()) {
            Ok(0) if deadline.has_passed() => return End::OfTime,
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) if all.first().is_some_and(|own| !own.revents().is_empty()) => {
                return End::OfProgram;
            }
            Ok(_) => return End::ByOther,
            Err(_) => return End::OfTime,
        }
    }
}

/// The output read so far from a stream; a thread reads the rest.
struct Stream {
    kept: Arc<Mutex<Vec<u8>>>,
    /// Closes when the stream ends; carries no data.
    end: Receiver<()>,
}

impl Stream {
    fn collect(mut stream: impl Read + Send + 'static, file: Option<(Arc<File>, u64)>) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let (sender, end) = channel();
        let room = Arc::clone(&kept);
        std::thread::spawn(move || {
            let mut chunk = vec![0; 64 << 10];
            if let Some((file, limit)) = file {
                let _ = std::io::copy(&mut stream, &mut Sparse::new(&file, limit));
            }
            while let Ok(read @ 1..) = stream.read(&mut chunk) {
                let is_awaited = Arc::strong_count(&room) > 1;
                let mut kept = room.lock().unwrap_or_else(PoisonError::into_inner);
                let most = if is_awaited { OUTPUT_LIMIT } else { 0 };
                let read = read.min(most.saturating_sub(kept.len()));
                kept.extend_from_slice(chunk.get(..read).unwrap_or_default());
            }
            // Dropping the sender signals the end of the stream.
            drop(sender);
        });
        Self { kept, end }
    }

    /// All of the output, or what has arrived by the deadline.
    fn until(self, deadline: Deadline) -> Vec<u8> {
        let _ = self.end.recv_timeout(deadline.left());
        std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests;
