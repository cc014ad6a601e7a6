//! What is done inside a venv's tree, by a process of its owner.
//!
//! Root must not act on what lies in a directory that somebody else may rearrange meanwhile: it
//! would delete, read or plant for them what they cannot reach. So whatever is copied, hashed,
//! listed, pinned, refreshed, archived or removed inside a tree is a [`Task`], and a confined
//! process of the tree's owner performs it. The kernel then grants it what the owner may do, and
//! no more. Root itself renames the top of a tree, by descriptor, and nothing below it.
//!
//! The owner can stop, trace and kill such a process. Its answer is therefore data of the owner's:
//! limited in size, printed with its control characters escaped, and never obeyed.

mod additions;
mod archive;
mod carry;
mod compare;
mod copy;
mod interpreters;
mod manifest;
mod measure;
mod remove;

use std::io::{self, Read, Write};
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
pub(crate) use remove::{MakeDirectory, Remove};

use crate::host::clock::Deadline;
use crate::host::user::User;
use crate::host::{Program, Root, confine, fault};

/// How many names an answer lists; it counts the others.
const NAMED: usize = 10;

/// The address space of such a process: it holds the names of a tree, and no file as a whole.
const MEMORY_LIMIT: u64 = 2 << 30;

/// A piece of work in one tree.
pub(crate) trait Task: Serialize + DeserializeOwned {
    /// What the hidden command calls it.
    const NAME: &'static str;
    type Answer: Serialize + DeserializeOwned;

    /// Does it, as this process's own user.
    fn perform(&self, root: &Root, deadline: Deadline) -> io::Result<Self::Answer>;
}

/// Lets the owner do it, within `limit`.
pub(crate) fn run<T: Task>(
    root: &Root,
    owner: &User,
    limit: Duration,
    task: &T,
) -> io::Result<T::Answer> {
    let answers = run_all(root, owner, limit, std::slice::from_ref(task))?;
    answers.into_iter().next().unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))
}

/// Lets the owner do several tasks by one process, all within `limit`. Where the owner is the user
/// who runs venvguard, no other process is needed; nor is one below a directory that stands for a
/// system.
pub(crate) fn run_all<T: Task>(
    root: &Root,
    owner: &User,
    limit: Duration,
    tasks: &[T],
) -> io::Result<Vec<io::Result<T::Answer>>> {
    fault::point(T::NAME)?;
    if is_own(root, owner.uid) {
        let deadline = Deadline::after(limit);
        return Ok(tasks.iter().map(|task| task.perform(root, deadline)).collect());
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

/// Whether this process can become anybody.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this very process is one of the owner's.
fn is_own(root: &Root, uid: u32) -> bool {
    rustix::process::geteuid().as_raw() == uid || !root.is_system()
}

fn process(name: &str, input: Vec<u8>, limit: Duration) -> Program {
    // The point at which a test interrupts is passed already.
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

/// The owner's side: reads tasks that are called `name`, does them, and writes what came of each.
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
    let perform = |task: T| match task.perform(root, Deadline::after(Duration::MAX)) {
        Ok(answer) => Answer::Done(answer),
        Err(error) => Answer::Failed(error.to_string()),
    };
    let answers: Vec<Answer<T::Answer>> = tasks.into_iter().map(perform).collect();
    serde_json::to_writer(&mut output, &answers)?;
    output.flush()
}

/// Some lines of which no more than a few are named, and a count of the others.
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

    /// As a person reads them. The owner may have written any number of them.
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
