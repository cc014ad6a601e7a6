//! What a machine lacks to create or build something, and failures that concern no venv at all.

use std::path::Path;

use super::super::text::PythonError;
use super::{Clue, Signature, Upgrade, Verdict, between};
use crate::host::file::printable;
use crate::python::{self, Minor};

pub(super) const ENSUREPIP_MISSING: Signature = Signature {
    id: "ensurepip-missing",
    title: "the package that creates venvs with pip is not installed",
    upgrade: Upgrade::Unknown,
    matches: |failure| {
        let says = "ensurepip is not";
        let (clue, ()) = Clue::of_line(failure, |line| line.contains(says).then_some(()))?;
        // The hint below it names the package.
        let hint = failure.lines.iter().filter_map(|line| line.trim().strip_prefix("apt install "));
        let package = hint.filter_map(|text| text.split_whitespace().next());
        let mut package =
            package.filter(|name| name.starts_with("python3") && name.ends_with("-venv"));
        Some(clue.named(package.next().unwrap_or("python3-venv")))
    },
    verify: |clue, machine| {
        let named = clue.name.strip_suffix("-venv").and_then(Minor::of_program);
        let Some(minor) = named.or(machine.now.default) else { return Verdict::Unknown };
        if machine.has_module(minor, "ensurepip") {
            return Verdict::Refuted;
        }
        let dir = minor.program();
        Verdict::Verified(vec![format!("/usr/lib/{dir} has no ensurepip")])
    },
    remedy: |clue, _| format!("`apt-get install {}`", printable(&clue.name)),
};

pub(super) const BUILD_TOOL_MISSING: Signature = Signature {
    id: "build-tool-missing",
    title: "a program that is needed to build a distribution from source is not installed",
    upgrade: Upgrade::Unknown,
    matches: |failure| {
        let (clue, program) = Clue::of_line(failure, |line| {
            let program = between(line, "error: command '", "' failed: No such file or directory");
            let is_plain =
                |name: &&str| name.chars().all(|c| c.is_ascii_alphanumeric() || "_.+-".contains(c));
            program.filter(is_plain).map(str::to_string)
        })?;
        Some(clue.named(program))
    },
    verify: |clue, machine| {
        if machine.has_program(&clue.name) {
            return Verdict::Unknown;
        }
        Verdict::Verified(vec![format!("there is no program {} on the path", clue.name)])
    },
    remedy: |clue, _| {
        let is_compiler = ["gcc", "g++", "cc", "c++"]
            .iter()
            .any(|end| clue.name == *end || clue.name.ends_with(&format!("-{end}")));
        match clue.name.as_str() {
            _ if is_compiler => "`apt-get install build-essential python3-dev`".to_string(),
            name => format!("`apt-get install {name}`"),
        }
    },
};

pub(super) const EXTERNALLY_MANAGED: Signature = Signature {
    id: "externally-managed",
    title: "pip refuses to change the Python of Debian itself; this concerns no venv",
    upgrade: Upgrade::Unknown,
    matches: |failure| {
        let error = "error: externally-managed-environment";
        let is_it = |line: &str| line.trim().starts_with(error).then_some(());
        Clue::of_line(failure, is_it).map(|(clue, ())| Clue { venv: None, ..clue })
    },
    verify: |_, machine| {
        let Some(minor) = machine.now.default else { return Verdict::Unknown };
        let file = Path::new("/usr/lib").join(minor.program()).join("EXTERNALLY-MANAGED");
        if machine.has(&file) {
            return Verdict::Verified(vec![format!("{} forbids it", printable(&file))]);
        }
        Verdict::Unknown
    },
    remedy: |_, _| "install into a venv: `python3 -m venv DIRECTORY`".to_string(),
};

pub(super) const APT_PKG_MISSING: Signature = Signature {
    id: "apt-pkg-missing",
    title: "a program of Debian runs on a Python that is not Debian's default; this concerns no venv",
    upgrade: Upgrade::Never,
    matches: |failure| {
        let is_it = |error: &PythonError| {
            error.missing_module() == Some("apt_pkg")
                && error.innermost().is_none_or(|frame| frame.file.starts_with("/usr"))
        };
        let (clue, _) = Clue::of_error(failure, is_it)?;
        Some(Clue { venv: None, ..clue })
    },
    verify: |_, machine| {
        let minors = machine.minors_of_module("apt_pkg");
        match (machine.now.default, minors.first()) {
            (default, Some(built)) if default != Some(*built) => {
                let now = default.map_or("something else".to_string(), Minor::program);
                Verdict::Verified(vec![format!(
                    "{} leads to {now}, but apt_pkg is for {}",
                    python::DEFAULT,
                    built.program()
                )])
            }
            _ => Verdict::Unknown,
        }
    },
    remedy: |_, machine| match machine.minors_of_module("apt_pkg").first() {
        Some(minor) => format!("`ln -sf {} {}`", minor.program(), python::DEFAULT),
        None => format!("let {} lead to Debian's default again", python::DEFAULT),
    },
};
