//! Shared libraries: missing, or older than what needs them.

use std::path::{Path, PathBuf};

use super::super::machine::{KnownVenv, Machine};
use super::super::text::{Failure, venv_of};
use super::{Clue, Signature, Upgrade, Verdict, between, is_stdlib};
use crate::host::file::printable;
use crate::python::Minor;

pub(super) const LIBPYTHON_MISSING: Signature = Signature {
    id: "libpython-missing",
    title: "the library of the Python that a program embeds is missing",
    upgrade: Upgrade::IfVerified,
    matches: |failure| library_missing(failure).filter(|clue| minor_of(&clue.name).is_some()),
    verify: is_missing,
    remedy: |clue, machine| {
        if let Some(there) = is_there(clue, machine) {
            return there;
        }
        match minor_of(&clue.name).filter(|minor| machine.now.get(*minor).is_some()) {
            Some(minor) => format!("`apt-get install lib{}`", minor.program()),
            None => rebuild(clue, machine),
        }
    },
};

pub(super) const LIBRARY_MISSING: Signature = Signature {
    id: "library-missing",
    title: "a shared library that an extension module needs is missing",
    upgrade: Upgrade::Unknown,
    matches: |failure| library_missing(failure).filter(|clue| minor_of(&clue.name).is_none()),
    verify: is_missing,
    remedy: |clue, machine| {
        is_there(clue, machine).unwrap_or_else(|| {
            let name = printable(&clue.name);
            let rebuild = rebuild(clue, machine);
            format!(
                "install the package that has it (`apt-file search {name}`); if no package has it \
                 any more, {rebuild} builds what needs it again"
            )
        })
    },
};

pub(super) const BUILT_ELSEWHERE: Signature = Signature {
    id: "built-elsewhere",
    title: "an extension module was built for a newer system",
    upgrade: Upgrade::Never,
    matches: |failure| {
        let (clue, wanted) = wanted_version(failure)?;
        let venv = venv_of(&wanted.needed_by).filter(|_| !is_stdlib(&wanted.needed_by))?;
        let file = Some(wanted.library);
        Some(Clue { venv: Some(venv), file, ..clue.named(wanted.version) })
    },
    verify: |clue, machine| {
        let library = clue.file.as_deref().unwrap_or(Path::new(""));
        match machine.says(library, &clue.name) {
            Some(false) => Verdict::Verified(vec![format!(
                "{} has no {}",
                printable(library),
                printable(&clue.name)
            )]),
            Some(true) => Verdict::Refuted,
            None => Verdict::Unknown,
        }
    },
    remedy: rebuild,
};

/// A version of a library that something needs.
pub(super) struct Wanted {
    pub(super) version: String,
    pub(super) library: PathBuf,
    pub(super) needed_by: PathBuf,
}

/// The loader names the library, the version, and what needs it: `(required by /…/termios.so)`.
pub(super) fn wanted_version(failure: &Failure) -> Option<(Clue, Wanted)> {
    Clue::of_line(failure, |line| {
        let (before, after) = line.split_once(": version `")?;
        let library = before.split_whitespace().next_back()?;
        let version = after.split('\'').next()?;
        let needed_by = between(after, "(required by ", ")")?;
        let (library, needed_by) = (library.into(), needed_by.into());
        Some(Wanted { version: version.to_string(), library, needed_by })
    })
}

/// What the dynamic loader says, on its own, in an `ImportError`, or to uWSGI. A program that loads
/// a library by itself gets an `OSError`, which is its own affair.
fn library_missing(failure: &Failure) -> Option<Clue> {
    let is_library =
        |name: &&str| name.starts_with("lib") && name.contains(".so") && !name.contains(['/', ' ']);
    let (clue, name) = Clue::of_line(failure, |line| {
        let is_loaders =
            ["error while loading shared libraries: ", "ImportError: ", "uWSGI plugin: "]
                .iter()
                .any(|part| line.contains(part));
        let gone = ": cannot open shared object file";
        let name = match line.split_once(gone) {
            Some((before, _)) => before.split_whitespace().next_back(),
            None => between(line, "Error loading shared library ", ":"),
        };
        name.filter(|_| is_loaders).filter(is_library).map(str::to_string)
    })?;
    let place = failure.errors.iter().position(|error| clue.quote.ends_with(&error.in_words()));
    let place = place.map_or(clue.place, super::Place::Error);
    Some(Clue { place, ..clue }.named(name))
}

fn is_missing(clue: &Clue, machine: &Machine) -> Verdict {
    match machine.library(&clue.name) {
        // It may have been missing for a moment, while dpkg unpacked it.
        Some(_) => Verdict::Unknown,
        None => Verdict::Verified(vec![format!(
            "{} is in no directory of the system's libraries",
            printable(&clue.name)
        )]),
    }
}

fn is_there(clue: &Clue, machine: &Machine) -> Option<String> {
    let path = printable(machine.library(&clue.name)?);
    Some(format!("{path} exists now: start the program or service again"))
}

fn rebuild(clue: &Clue, machine: &Machine) -> String {
    let known = clue.known(machine);
    known.map_or_else(|| "`venvguard rebuild NAME`".to_string(), KnownVenv::rebuild)
}

/// The version in `libpython3.12.so.1.0`.
fn minor_of(library: &str) -> Option<Minor> {
    let (version, _) = library.strip_prefix("libpython")?.split_once(".so")?;
    Minor::of_program(&format!("python{version}"))
}
