//! A venv and the interpreter that it runs: it moved, was removed, or is of another build.

use std::path::{Path, PathBuf};

use super::super::machine::Machine;
use super::super::text::{Failure, PythonError, venv_of, venvs_in};
use super::{Clue, Signature, Upgrade, Verdict, between, is_stdlib};
use crate::host::file::printable;
use crate::plan::State;
use crate::python::Minor;
use crate::venv::BaseLink;

pub(super) const ORPHANED: Signature = Signature {
    id: "orphaned",
    title: "the packages of the venv are for another version of Python",
    upgrade: Upgrade::IfVerified,
    matches: orphaned,
    verify: |clue, machine| in_state(clue, machine, State::Orphaned),
    remedy: rebuild,
};

pub(super) const STRANDED: Signature = Signature {
    id: "stranded",
    title: "the interpreter of the venv was removed",
    upgrade: Upgrade::IfVerified,
    matches: stranded,
    verify: |clue, machine| in_state(clue, machine, State::Stranded),
    remedy: rebuild,
};

pub(super) const COPIED_INTERPRETER: Signature = Signature {
    id: "copied-interpreter",
    title: "the copied interpreter of the venv is from a different build than the standard library",
    upgrade: Upgrade::Always,
    matches: copied_interpreter,
    verify: |clue, machine| in_state(clue, machine, State::Stale),
    remedy: |clue, machine| match clue.known(machine) {
        Some(venv) => venv.repair(),
        None => "copy the interpreter again: `venvguard rebuild --all`".to_string(),
    },
};

pub(super) const PROCESS_OUTDATED: Signature = Signature {
    id: "process-outdated",
    title: "a running process has old code of Python in memory, but loads new files",
    upgrade: Upgrade::Always,
    matches: process_outdated,
    verify: verify_process,
    remedy: restart,
};

pub(super) const STDLIB_MISSING: Signature = Signature {
    id: "stdlib-missing",
    title: "the interpreter does not find its standard library",
    upgrade: Upgrade::IfVerified,
    matches: stdlib_missing,
    verify: verify_stdlib,
    remedy: rebuild,
};

pub(super) const PYTHON_HOME: Signature = Signature {
    id: "python-home",
    title: "PYTHONHOME names a directory without a standard library",
    upgrade: Upgrade::Unknown,
    matches: python_home,
    verify: |clue, machine| {
        let library = clue.file.as_deref().unwrap_or(Path::new("/"));
        if machine.has(library.join("encodings")) {
            return Verdict::Refuted;
        }
        Verdict::Verified(vec![format!("{} has no encodings", printable(library))])
    },
    remedy: |_, _| "unset PYTHONHOME where the program is started, for example in its unit".into(),
};

/// Names that modules of the standard library import from the interpreter itself: each came with a
/// patch version, and breaks an older copy.
const NAMES_OF_INTERPRETERS: [&str; 6] = [
    "HAS_TLSv1_3",
    "_remove_dead_weakref",
    "PROTOCOL_TLS",
    "_compare_digest",
    "MAXREPEAT",
    "urandom",
];

/// The same between modules of the standard library: only a running process has an older one.
const NAMES_OF_MODULES: [&str; 2] = ["HeaderWriteError", "_rewrite_star_unpack"];

/// The state of the venv decides.
fn in_state(clue: &Clue, machine: &Machine, state: State) -> Verdict {
    match clue.known(machine) {
        Some(venv) if venv.is(state) => Verdict::Verified(venv.reasons()),
        Some(_) => Verdict::Refuted,
        None => Verdict::Unknown,
    }
}

fn rebuild(clue: &Clue, machine: &Machine) -> String {
    match (clue.known(machine), &clue.venv) {
        (Some(venv), _) => venv.rebuild(),
        (None, Some(path)) => {
            let path = super::super::machine::quoted(path);
            format!("`venvguard register {path} && venvguard rebuild {path}`")
        }
        (None, None) => "rebuild the venv: `venvguard rebuild NAME`".to_string(),
    }
}

/// A program of a venv does not find its own package.
fn orphaned(failure: &Failure) -> Option<Clue> {
    let is_own = |error: &PythonError| {
        error.missing_module().is_some()
            && error.innermost().is_some_and(|frame| {
                let program = frame.file.iter().rev().nth(1).is_some_and(|name| name == "bin");
                program && frame.line <= PROGRAM_LINES && venv_of(&frame.file).is_some()
            })
    };
    let start = "Error while finding module specification for";
    let of_module = || {
        Clue::of_line(failure, |line| {
            line.contains(start)
                .then(|| between(line, "No module named '", "'"))
                .flatten()
                .map(str::to_string)
        })
        .map(|(clue, name)| clue.named(name))
    };
    let weak = || {
        let missing = Clue::of_error(failure, |error| error.missing_module().is_some());
        let missing = missing.map(|(clue, error)| clue.named(error.missing_module().unwrap_or("")));
        let of_line = || {
            Clue::of_line(failure, |line| {
                let (program, name) = line.split_once(": No module named ")?;
                program.starts_with('/').then(|| name.to_string())
            })
            .map(|(clue, name)| clue.named(name))
        };
        missing.or_else(of_line).map(Clue::weak)
    };
    let own = Clue::of_error(failure, is_own);
    let own = own.map(|(clue, error)| clue.named(error.missing_module().unwrap_or("")));
    own.or_else(of_module).or_else(weak)
}

/// The programs that installers write import their package in the first lines.
const PROGRAM_LINES: u32 = 12;

/// Something that should run an interpreter does not find it.
fn stranded(failure: &Failure) -> Option<Clue> {
    const SCRIPTS: [&str; 2] = ["bad interpreter:", "cannot execute: required file not found"];
    const SYMPTOMS: [&str; 3] = ["status=203/EXEC", ": not found", "No such file or directory"];
    let names_any = |line: &str, parts: &[&str]| parts.iter().any(|part| line.contains(part));
    let strong = Clue::of_line(failure, |line| {
        let is_it = names_any(line, &SCRIPTS) || lost_python(line);
        (is_it && !venvs_in(line).is_empty()).then_some(())
    });
    let weak = || Clue::of_line(failure, |line| names_any(line, &SYMPTOMS).then_some(()));
    strong.map(|(clue, ())| clue).or_else(|| weak().map(|(clue, ())| clue.weak()))
}

/// Whether a line says that an interpreter does not exist: of a shell, or of systemd.
fn lost_python(line: &str) -> bool {
    let Some((before, _)) = line.split_once(": No such file or directory") else { return false };
    let program = before.rsplit([' ', '/']).next().unwrap_or_default();
    before.contains('/') && program.starts_with("python")
}

/// The name that a module of the standard library does not find in another one.
fn mixed_name(error: &PythonError, names: &[&str]) -> bool {
    let missing = error.missing_name().map(|(name, _)| name);
    let undefined = (error.name() == "NameError")
        .then(|| between(&error.message, "name '", "' is not defined"))
        .flatten();
    let is_known = missing.or(undefined).is_some_and(|name| names.contains(&name));
    is_known && error.innermost().is_none_or(|frame| is_stdlib(&frame.file))
}

/// A module of the standard library does not find a name in another file of it: no release is like
/// that, so that files of two releases are mixed.
fn is_mixed(error: &PythonError) -> bool {
    let both =
        |frame: &super::super::text::Frame, file: &Path| is_stdlib(&frame.file) && is_stdlib(file);
    let (Some(frame), Some((_, Some(file)))) = (error.innermost(), error.missing_name()) else {
        return false;
    };
    both(frame, file) && frame.file != file && !error.message.contains("circular import")
}

fn mixed(failure: &Failure, is: impl Fn(&PythonError) -> bool) -> Option<Clue> {
    let (clue, error) = Clue::of_error(failure, is)?;
    let Some((name, file)) = error.missing_name() else { return Some(clue) };
    Some(Clue { file: file.map(Path::to_path_buf), ..clue.named(name) })
}

/// A crash, or a service that gave up: whatever the interpreter is built of may be behind it.
fn crashed(failure: &Failure) -> Option<Clue> {
    const CRASHES: [&str; 5] =
        ["status=11/SEGV", "Segmentation fault", "Exited too quickly", "SIGSEGV", "status=11)"];
    let is_crash = |line: &str| CRASHES.iter().any(|part| line.contains(part)).then_some(());
    Clue::of_line(failure, is_crash).map(|(clue, ())| clue.weak())
}

fn copied_interpreter(failure: &Failure) -> Option<Clue> {
    mixed(failure, |error| mixed_name(error, &NAMES_OF_INTERPRETERS))
        .or_else(|| {
            mixed(failure, |error| mixed_name(error, &NAMES_OF_MODULES) || is_mixed(error))
                .map(Clue::weak)
        })
        .or_else(|| crashed(failure))
}

fn process_outdated(failure: &Failure) -> Option<Clue> {
    mixed(failure, |error| mixed_name(error, &NAMES_OF_MODULES) || is_mixed(error))
        .or_else(|| {
            mixed(failure, |error| mixed_name(error, &NAMES_OF_INTERPRETERS)).map(Clue::weak)
        })
        .or_else(|| {
            let (clue, wanted) = super::library::wanted_version(failure)?;
            let needed_by_stdlib = is_stdlib(&wanted.needed_by);
            let file = Some(wanted.library);
            needed_by_stdlib.then(|| Clue { file, ..clue.named(wanted.version) })
        })
        .or_else(|| crashed(failure))
}

/// A process of the venv runs old code, or the file on disk has what the process did not find.
fn verify_process(clue: &Clue, machine: &Machine) -> Verdict {
    if let Some(venv) = clue.known(machine).filter(|venv| !venv.outdated.is_empty()) {
        return Verdict::Verified(venv.outdated.clone());
    }
    // Then the copy explains it.
    if clue.known(machine).is_some_and(|venv| venv.is(State::Stale)) {
        return Verdict::Refuted;
    }
    let Some(file) = clue.file.as_deref().filter(|_| !clue.name.is_empty()) else {
        return if clue.is_enough { Verdict::Unknown } else { Verdict::Refuted };
    };
    match machine.says(file, &clue.name) {
        Some(true) => Verdict::Verified(vec![format!(
            "{} has {} now: the process had loaded an older file",
            printable(file),
            printable(&clue.name)
        )]),
        Some(false) | None => Verdict::Unknown,
    }
}

/// The command that restarts what runs old code.
fn restart(clue: &Clue, machine: &Machine) -> String {
    let Some(venv) = clue.known(machine) else {
        return "restart the process or its service".to_string();
    };
    let services: Vec<_> = venv.services.iter().collect();
    match services.as_slice() {
        [] => "restart the process or its service".to_string(),
        [one] => {
            let name = printable(one.name());
            match one.manager_key() {
                "systemd" => format!("`systemctl restart {name}`"),
                "user" => format!("`systemctl --user restart {name}`"),
                "supervisord" => format!("`supervisorctl restart {name}`"),
                _ => format!("`sv restart {name}`"),
            }
        }
        _ => venv.repair(),
    }
}

fn stdlib_missing(failure: &Failure) -> Option<Clue> {
    const FATAL: [&str; 3] = [
        "Fatal Python error: init_fs_encoding:",
        "Fatal Python error: initfsencoding:",
        "Fatal Python error: Py_Initialize: Unable to get the locale encoding",
    ];
    let is_fatal = |line: &str| FATAL.iter().any(|part| line.contains(part)).then_some(());
    let of_error = || Clue::of_error(failure, |error| error.missing_module() == Some("encodings"));
    Clue::of_line(failure, is_fatal)
        .map(|(clue, ())| clue)
        .or_else(|| of_error().map(|(clue, _)| clue))
}

/// The venv has a copied interpreter, and its library is gone.
fn verify_stdlib(clue: &Clue, machine: &Machine) -> Verdict {
    let Some(venv) = clue.known(machine) else { return Verdict::Unknown };
    let base = &venv.venv.base;
    let Some(minor) = base.minor else { return Verdict::Unknown };
    match base.link {
        BaseLink::Copied if !machine.has_module(minor, "encodings") => {
            let library = Path::new("/usr/lib").join(minor.program());
            let mut evidence = venv.reasons();
            evidence.push(format!("{} has no encodings", printable(library)));
            Verdict::Verified(evidence)
        }
        BaseLink::Copied => Verdict::Unknown,
        _ => Verdict::Refuted,
    }
}

/// A fatal error shows the paths that it tried, among them PYTHONHOME.
fn python_home(failure: &Failure) -> Option<Clue> {
    let fatal = stdlib_missing(failure)?;
    let home = failure.lines.iter().find_map(|line| between(line, "PYTHONHOME = '", "'"))?;
    let tried = failure.lines.iter().filter_map(|line| between(line, "'", "'"));
    let is_library = |path: &&str| {
        path.starts_with(home) && path.rsplit('/').next().and_then(Minor::of_program).is_some()
    };
    let library = tried.filter(|path| path.starts_with('/')).find(is_library);
    let file = library.map_or_else(|| Path::new(home).join("lib"), PathBuf::from);
    let quote = format!("PYTHONHOME = '{home}'");
    Some(Clue { file: Some(file), quote, ..fatal })
}
