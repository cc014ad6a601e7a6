//! The known causes, the most specific first, by family.

mod concurrency;
mod interpreter;
mod library;
mod packages;
mod system;

use std::path::{Path, PathBuf};

use super::Certainty;
use super::machine::{KnownVenv, Machine};
use super::text::{Failure, Importer, PythonError, venv_of, venvs_in};
use crate::plan::State;

/// A known cause of failures.
pub(super) struct Signature {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) upgrade: Upgrade,
    /// What in a text speaks for it.
    pub(super) matches: fn(&Failure) -> Option<Clue>,
    /// Whether it is so on this machine.
    pub(super) verify: fn(&Clue, &Machine) -> Verdict,
    /// The command that mends it, or what else to do.
    pub(super) remedy: fn(&Clue, &Machine) -> String,
}

/// Whether an upgrade of Python is behind a cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upgrade {
    Always,
    Never,
    /// Other things cause it too: known only if this machine confirms the cause.
    IfVerified,
    /// Moving to another Python does: known only if venvguard did that, and it worked before.
    IfMoved,
    Unknown,
}

/// Where in a text a clue is: one place has one cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Error(usize),
    Line(usize),
    /// No text at all: the state of a venv.
    State,
}

/// What in a text speaks for a cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clue {
    pub(super) place: Place,
    /// The line that says it.
    pub(super) quote: String,
    /// Whether the text alone makes the cause likely.
    pub(super) is_enough: bool,
    pub(super) venv: Option<PathBuf>,
    /// The module, name or library that is missing.
    pub(super) name: String,
    /// The file that it is missing in, or that needs it.
    pub(super) file: Option<PathBuf>,
    /// What else is to be said of the text.
    pub(super) details: Vec<String>,
    /// The modules that gevent's warning names.
    pub(super) importers: Vec<Importer>,
    /// The module in site-packages that did it.
    pub(super) culprit: Option<String>,
}

/// What this machine says about a cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is so, for these reasons.
    Verified(Vec<String>),
    /// It is not so.
    Refuted,
    /// What the failure concerns is not on this machine.
    Unknown,
}

/// The order in which causes are looked for: what is specific precedes what is general.
pub(super) const SIGNATURES: &[&Signature] = &[
    &concurrency::PATCHED_LATE,
    &concurrency::PROCESS_FORKED,
    &concurrency::SCHEDULER_FORKED,
    &packages::PATCH_INCOMPATIBLE,
    &packages::SETUPTOOLS_OUTDATED,
    &system::APT_PKG_MISSING,
    &system::EXTERNALLY_MANAGED,
    &system::ENSUREPIP_MISSING,
    &system::BUILD_TOOL_MISSING,
    &interpreter::PYTHON_HOME,
    &interpreter::STDLIB_MISSING,
    &library::BUILT_ELSEWHERE,
    &interpreter::COPIED_INTERPRETER,
    &interpreter::PROCESS_OUTDATED,
    &library::LIBPYTHON_MISSING,
    &library::LIBRARY_MISSING,
    &interpreter::STRANDED,
    &packages::NO_EVENT_LOOP,
    &packages::STDLIB_MODULE_REMOVED,
    &packages::PKG_RESOURCES_MISSING,
    &interpreter::ORPHANED,
];

/// The cause that the state of a venv is.
pub(super) fn of_state(venv: &KnownVenv) -> Option<&'static Signature> {
    match venv.health.state {
        State::Orphaned => Some(&interpreter::ORPHANED),
        State::Stranded => Some(&interpreter::STRANDED),
        State::Stale => Some(&interpreter::COPIED_INTERPRETER),
        State::RestartNeeded => Some(&interpreter::PROCESS_OUTDATED),
        State::Healthy | State::CheckFails | State::Unfinished | State::Broken | State::Missing => {
            None
        }
    }
}

impl Clue {
    /// A clue without a text.
    pub(super) fn of_venv(venv: &KnownVenv) -> Self {
        let path = venv.venv.path.clone();
        Self { venv: Some(path), ..Self::at(Place::State, String::new()) }
    }

    fn at(place: Place, quote: String) -> Self {
        Self {
            place,
            quote,
            is_enough: true,
            venv: None,
            name: String::new(),
            file: None,
            details: Vec::new(),
            importers: Vec::new(),
            culprit: None,
        }
    }

    /// The last exception that `is` accepts. Its venv is that of the innermost frame in one, or the
    /// only one that the text names.
    fn of_error(
        failure: &Failure,
        is: impl Fn(&PythonError) -> bool,
    ) -> Option<(Self, &PythonError)> {
        let index = failure.errors.iter().rposition(is)?;
        let error = failure.errors.get(index)?;
        let framed = error.frames.iter().rev().find_map(|frame| venv_of(&frame.file));
        let venv = framed.or_else(|| only(failure));
        Some((Self { venv, ..Self::at(Place::Error(index), error.in_words()) }, error))
    }

    /// The last line that `is` accepts, and what it makes of it.
    fn of_line<T>(failure: &Failure, read: impl Fn(&str) -> Option<T>) -> Option<(Self, T)> {
        let mut lines = failure.lines.iter().enumerate().rev();
        let (index, line, found) = lines.find_map(|(at, line)| Some((at, line, read(line)?)))?;
        let venv = venvs_in(line).pop().or_else(|| only(failure));
        Some((Self { venv, ..Self::at(Place::Line(index), line.clone()) }, found))
    }

    fn named(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// The text alone proves nothing.
    fn weak(self) -> Self {
        Self { is_enough: false, ..self }
    }

    /// The venv that it concerns, if that is on this machine.
    fn known<'m>(&self, machine: &'m Machine) -> Option<&'m KnownVenv> {
        machine.venv(self.venv.as_deref())
    }
}

/// The only venv that a text names.
fn only(failure: &Failure) -> Option<PathBuf> {
    let mut venvs = failure.venvs();
    if venvs.len() == 1 { venvs.pop() } else { None }
}

impl Upgrade {
    /// Whether an upgrade caused it, and the event that says so.
    pub(super) fn of(
        self,
        certainty: Certainty,
        clue: &Clue,
        machine: &Machine,
    ) -> (Option<bool>, Option<String>) {
        let moved = clue.known(machine).and_then(KnownVenv::moved);
        let before = moved.filter(|event| event.detail.contains(FAILED_BEFORE));
        match (self, before, moved) {
            (Self::Always, ..) => (Some(true), None),
            (Self::Never, ..) => (Some(false), None),
            (Self::IfVerified, ..) if certainty == Certainty::Verified => (Some(true), None),
            (_, Some(event), _) => {
                let line = format!("it failed before the upgrade: baseline of {:.0}", event.at);
                (Some(false), Some(line))
            }
            (Self::IfMoved, None, Some(event)) => {
                let detail = event.detail.lines().next().unwrap_or_default();
                (Some(true), Some(format!("{} on {:.0}: {detail}", event.what, event.at)))
            }
            (Self::IfVerified | Self::IfMoved | Self::Unknown, None, _) => (None, None),
        }
    }
}

/// What a repair records of a service or a check that failed before it.
const FAILED_BEFORE: &str = "failed before, and still does";

/// The text between two others.
fn between<'a>(line: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(start)?;
    let (found, _) = rest.split_once(end)?;
    Some(found).filter(|found| !found.is_empty())
}

/// Whether a file is one of the standard library, which old virtualenvs have links to.
fn is_stdlib(file: &Path) -> bool {
    let mut names = file.iter().skip_while(|name| *name != "lib").skip(1);
    let version = names.next().and_then(|name| name.to_str()?.strip_prefix("python"));
    let is_version = version.is_some_and(|version| version.contains('.'));
    is_version && !names.any(|name| name == "site-packages" || name == "dist-packages")
}
