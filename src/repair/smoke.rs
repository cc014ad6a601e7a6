//! Tests whether a tree works: its own interpreter imports what is installed in it.
//!
//! Optional imports fail in many healthy venvs. Only imports that fail in the new tree and not in
//! the old one count.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::host::clock::Deadline;
use crate::host::command::{CommandError, ExitDescription, Finished};
use crate::host::confine;
use crate::host::file::within;
use crate::host::overlay::Overlay;
use crate::host::user::User;
use crate::host::{Program, Root, redacted};
use crate::python::{self, Minor};

const SCRIPT: &str = include_str!("smoke.py");

/// Imports of a hundred distributions take seconds; one that waits for the network hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// How much of a name and of an error is shown, in bytes: both come from the venv's own code.
const TEXT: usize = 512;

/// How many failures of one tree count. Code of the venv can print as many as it likes.
const MOST: usize = 1000;

/// How many modules and programs of one tree may end the interpreter.
const ENDS: usize = 5;

/// What does not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// `module`, `script` for the function that a program calls, or `code` for a module that can be
    /// imported, but uses what the standard library has lost.
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) error: String,
    /// The distribution that it belongs to, for a script and for a module within a package.
    pub(super) distribution: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, error, .. } = self;
        write!(f, "{}: {}", within(&format!("{kind} {name}"), TEXT), within(error, TEXT))
    }
}

/// What fails in one tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Failures(Vec<Failure>);

impl Failures {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything that fails here and did not fail in `before`.
    pub(super) fn new_since(&self, before: &Self) -> Vec<Failure> {
        let known: BTreeSet<(&str, &str)> = before.0.iter().map(Failure::key).collect();
        self.0.iter().filter(|one| !known.contains(&one.key())).cloned().collect()
    }
}

impl Failure {
    fn key(&self) -> (&str, &str) {
        (&self.kind, &self.name)
    }
}

/// What to import from a tree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Top-level modules.
    pub(super) modules: &'a [String],
    /// The modules of the standard library that the new interpreter lacks, unlike the old one:
    /// whatever imports one of them is imported, too. Also names in its other modules, such as
    /// `ssl.wrap_socket`: code that uses one of them without a condition counts as a failure.
    pub(super) removed: &'a [&'a str],
    /// A distribution whose programs are not tried, as `name==version`.
    pub(super) proven: Option<&'a str>,
    /// The minor version to try it with, whatever its links lead to.
    pub(super) pinned_to: Option<Minor>,
}

/// Starts an interpreter by another name: Python looks for `pyvenv.cfg` beside the name that it was
/// started by.
const BY_NAME: &str = "import os, sys; os.execv(sys.executable, sys.argv[1:])";

/// Tries the tree at `venv`: imports what is `wanted` and the entry points of its programs. What ends
/// the interpreter fails, and the others are tried without it. If the interpreter does not finish for
/// another reason (it is missing, crashes, hangs, or takes longer than `limit`), the error says how it
/// ended.
pub(super) fn smoke(
    root: &Root,
    owner: &User,
    venv: &Path,
    wanted: Wanted,
    overlays: &[Overlay],
    limit: Duration,
) -> Result<Failures, String> {
    let deadline = Deadline::after(limit.min(LIMIT));
    let mut ended: Vec<Failure> = Vec::new();
    loop {
        let finished = run(root, owner, venv, wanted, &ended, overlays, deadline.left())
            .map_err(|error| error.to_string())?;
        let text = finished.text();
        if text.lines().last() == Some("done") {
            ended.extend(text.lines().filter_map(failure).take(MOST));
            return Ok(Failures(ended));
        }
        let last = text.lines().filter_map(begun).next_back().filter(|_| ended.len() < ENDS);
        let status = ExitDescription(finished.status);
        let Some((kind, name)) = last else {
            return Err(format!("bin/python {status}\n{}", finished.complaint()));
        };
        let error = format!("it ends the interpreter: {status}");
        ended.push(Failure { kind, name, error, distribution: None });
    }
}

/// Runs the script, without what has ended the interpreter before.
fn run(
    root: &Root,
    owner: &User,
    venv: &Path,
    wanted: Wanted,
    ended: &[Failure],
    overlays: &[Overlay],
    limit: Duration,
) -> Result<Finished, CommandError> {
    let python = venv.join("bin/python");
    let Wanted { modules, removed, proven, pinned_to } = wanted;
    let program = match pinned_to {
        Some(minor) => Program::new(python::path_of(minor)).args(["-ISBc", BY_NAME]).arg(python),
        None => Program::new(python),
    };
    // `-` reads the program from standard input; the environment is empty, and the working
    // directory is not the owner's.
    let proven = proven.map(|one| ["distribution", one]);
    let ended = ended.iter().map(|one| [&*one.kind, &*one.name]);
    let skipped: Vec<[&str; 2]> = proven.into_iter().chain(ended).collect();
    let program = program.args(["-B", "-"]).arg(removed.join(",")).arg(json!(skipped).to_string());
    let program = program.args(modules).input(SCRIPT).limit(limit);
    confine::confined(root, program, owner, overlays, Path::new("/")).finish()
}

/// What the script is about to try.
fn begun(line: &str) -> Option<(String, String)> {
    let (word, kind, name): (String, String, String) = serde_json::from_str(line).ok()?;
    (word == "begin").then_some((kind, name))
}

fn failure(line: &str) -> Option<Failure> {
    let (kind, name, error, distribution) = serde_json::from_str(line).ok()?;
    let error: String = error;
    Some(Failure { kind, name, error: redacted(&error), distribution })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_failures_count() {
        let failures = |names: &[&str]| {
            let line = |name: &&str| failure(&format!(r#"["module", "{name}", "E", null]"#));
            Failures(names.iter().map(|name| line(name).unwrap()).collect())
        };
        let new = |after: &[&str]| -> Vec<String> {
            let new = failures(after).new_since(&failures(&["a"]));
            new.iter().map(ToString::to_string).collect()
        };
        assert_eq!(new(&["a"]), [""; 0]);
        assert_eq!(new(&["a", "b"]), ["module b: E"]);
        let long = "x".repeat(1 << 20);
        let [told] = &new(&[&long])[..] else { panic!() };
        assert!(told.len() < 2 * TEXT, "{}", told.len());
    }
}
