//! Work inside a venv's tree, done by a process of the tree's owner.
//!
//! Root must not act on files in a directory that another user can rearrange at the same time: it
//! would delete, read or plant files for them that they cannot reach. So all copying, hashing,
//! listing, pinning, refreshing, archiving and removing inside a tree is a [`Task`], performed by
//! a confined process of the tree's owner. The kernel then allows it what the owner may do, and
//! no more. Root itself renames only the top of a tree, by descriptor, and nothing below it.
//!
//! The owner can stop, trace and kill such a process. Its answer is therefore untrusted data:
//! limited in size, printed with its control characters escaped, and never obeyed.

mod additions;
mod archive;
mod carry;
mod compare;
mod copy;
mod interpreters;
mod manifest;
mod measure;
mod needs;
mod remove;

use std::io::{self, Read, Write};
use std::marker;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(crate) use additions::ListAdditions;
pub(crate) use archive::{Digest, Send, send};
pub(crate) use carry::{Carried, Carry, Pass};
pub(crate) use compare::Compare;
pub(crate) use interpreters::{Refresh, Relink, RelinkedName};
pub(crate) use measure::{Measure, Measured};
pub(crate) use needs::FindNeeds;
pub(crate) use remove::{MakeDirectory, Remove};

use crate::host::clock::Deadline;
use crate::host::user::User;
use crate::host::{Program, Root, confine, fault, parallel};

/// How many names an answer lists; it counts the others.
const NAMED: usize = 10;

/// The address space of such a process: it holds the names of a tree, but never a whole file.
const MEMORY_LIMIT: u64 = 2 << 30;

/// How many owners work at a time.
pub(crate) const AT_ONCE: usize = 8;

/// A piece of work in one tree.
pub(crate) trait Task: Serialize + DeserializeOwned + Sync + marker::Send {
    /// Its name in the hidden command.
    const NAME: &'static str;
    /// How many of them one process performs at a time.
    const AT_ONCE: usize = 4;
    type Answer: Serialize + DeserializeOwned + marker::Send;

    /// Performs the task as the user of this process.
    fn perform(&self, root: &Root, deadline: Deadline) -> io::Result<Self::Answer>;
}

/// Lets the owner perform a task within `limit`.
pub(crate) fn run<T: Task>(
    root: &Root,
    owner: &User,
    limit: Duration,
    task: &T,
) -> io::Result<T::Answer> {
    let answers = run_all(root, owner, limit, std::slice::from_ref(task))?;
    answers.into_iter().next().unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))
}

/// Lets the owner perform several tasks in one process, all within `limit` and several at once. No
/// other process is needed if the owner runs venvguard themselves, or below a directory that stands
/// for a system.
pub(crate) fn run_all<T: Task>(
    root: &Root,
    owner: &User,
    limit: Duration,
    tasks: &[T],
) -> io::Result<Vec<io::Result<T::Answer>>> {
    fault::point(T::NAME)?;
    if is_own(root, owner.uid) {
        let deadline = Deadline::after(limit);
        return Ok(parallel::map(tasks, T::AT_ONCE, |task| task.perform(root, deadline)));
    }
    let program = process(T::NAME, serde_json::to_vec(tasks)?, limit);
    let finished = confine::confined(root, program, owner, &[], Path::new("/"))
        .run()
        .map_err(io::Error::other)?;
    let answers: Vec<Answer<T::Answer>> = serde_json::from_slice(&finished.output)?;
    if answers.len() != tasks.len() {
        return Err(io::Error::other("the number of answers differs from the number of tasks"));
    }
    let results = answers.into_iter().map(|answer| match answer {
        Answer::Done(answer) => Ok(answer),
        Answer::Failed(because) => Err(io::Error::other(because)),
    });
    Ok(results.collect())
}

/// Whether this process can become any user.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this process itself may act as the owner.
fn is_own(root: &Root, uid: u32) -> bool {
    rustix::process::geteuid().as_raw() == uid || !root.is_system()
}

fn process(name: &str, input: Vec<u8>, limit: Duration) -> Program {
    // The fault point of a task is before this call, so this one has none.
    let program = Program::new("/proc/self/exe").args(["own", name]).read_only();
    let program = program.called(format!("venvguard own {name}"));
    program.input(input).limit(limit).memory_limit(MEMORY_LIMIT)
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer<T> {
    Done(T),
    Failed(String),
}

/// The owner's side: reads tasks of type `name`, performs them, and writes the result of each.
pub(crate) fn perform(
    root: &Root,
    name: &str,
    mut input: impl Read,
    output: impl Write,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes)?;
    match name {
        Carry::NAME => answer::<Carry>(root, &bytes, output),
        Compare::NAME => answer::<Compare>(root, &bytes, output),
        Digest::NAME => answer::<Digest>(root, &bytes, output),
        FindNeeds::NAME => answer::<FindNeeds>(root, &bytes, output),
        ListAdditions::NAME => answer::<ListAdditions>(root, &bytes, output),
        MakeDirectory::NAME => answer::<MakeDirectory>(root, &bytes, output),
        Measure::NAME => answer::<Measure>(root, &bytes, output),
        Refresh::NAME => answer::<Refresh>(root, &bytes, output),
        Relink::NAME => answer::<Relink>(root, &bytes, output),
        Remove::NAME => answer::<Remove>(root, &bytes, output),
        // Its answer is the archive itself.
        Send::NAME => serde_json::from_slice::<Send>(&bytes)?.copy(root, output),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "unknown task")),
    }
}

fn answer<T: Task>(root: &Root, input: &[u8], mut output: impl Write) -> io::Result<()> {
    let tasks: Vec<T> = serde_json::from_slice(input)?;
    // Root's time limit kills this process.
    let perform = |task: T| match task.perform(root, Deadline::never()) {
        Ok(answer) => Answer::Done(answer),
        Err(error) => Answer::Failed(error.to_string()),
    };
    let answers = parallel::map(tasks, T::AT_ONCE, perform);
    serde_json::to_writer(&mut output, &answers)?;
    output.flush()
}

/// The first few of some lines, and a count of the others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lines {
    named: Vec<String>,
    more: usize,
}

impl Lines {
    fn push(&mut self, line: impl FnOnce() -> String) {
        if self.named.len() < NAMED {
            self.named.push(line());
        } else {
            self.more += 1;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// The lines for display. The owner's process may have sent any number of them.
    pub(crate) fn into_lines(self) -> Vec<String> {
        let mut lines = self.named;
        let more = self.more.saturating_add(lines.len().saturating_sub(NAMED));
        lines.truncate(NAMED);
        if more > 0 {
            lines.push(format!("and {more} more"));
        }
        lines
    }
}
