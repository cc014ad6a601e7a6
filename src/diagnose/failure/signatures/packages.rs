//! Distributions that do not fit the version of Python that runs them.

use std::path::Path;

use super::super::machine::{KnownVenv, Machine};
use super::super::text::{Failure, PythonError};
use super::{Clue, Signature, Upgrade, Verdict};
use crate::host::file::printable;
use crate::plan::State;
use crate::python::{Minor, removed_in};
use crate::venv::normalized;

pub(super) const PATCH_INCOMPATIBLE: Signature = Signature {
    id: "patch-incompatible",
    title: "a distribution does not work with a change to typing in Python 3.12.4",
    upgrade: Upgrade::IfMoved,
    matches: |failure| {
        let is_it = |error: &PythonError| {
            error.message.contains("ForwardRef._evaluate() missing")
                && error.message.contains("'recursive_guard'")
        };
        let (clue, error) = Clue::of_error(failure, is_it)?;
        Some(clue.named(importer(error).unwrap_or_default()))
    },
    verify: |clue, machine| {
        let venv = match fitting(clue, machine) {
            Ok(venv) => venv,
            Err(verdict) => return verdict,
        };
        match venv.distributions.get(&normalized(&clue.name)) {
            Some(version) => Verdict::Verified(vec![format!(
                "{} has {} {version}, with Python {}",
                printable(&venv.venv.path),
                printable(&clue.name),
                venv.venv.site
            )]),
            None => Verdict::Unknown,
        }
    },
    remedy: |clue, machine| {
        // The last release for the interface that the application uses.
        let wanted = match clue.name.as_str() {
            "pydantic" => "'pydantic>=1.10.17,<2'".to_string(),
            name => upgrade(name),
        };
        install(clue, machine, &wanted)
    },
};

pub(super) const SETUPTOOLS_OUTDATED: Signature = Signature {
    id: "setuptools-outdated",
    title: "setuptools or pip is too old for Python 3.12 and later",
    upgrade: Upgrade::IfMoved,
    matches: |failure| {
        let attribute = "module 'pkgutil' has no attribute 'ImpImporter'";
        let (clue, error) = Clue::of_error(failure, |error| error.message.starts_with(attribute))?;
        let is_pips =
            error.innermost().is_some_and(|frame| frame.file.iter().any(|name| name == "pip"));
        Some(clue.named(if is_pips { "pip" } else { "setuptools" }))
    },
    verify: |clue, machine| {
        let venv = match fitting(clue, machine) {
            Ok(venv) => venv,
            Err(verdict) => return verdict,
        };
        match venv.distributions.get(&clue.name) {
            Some(version) if venv.venv.site >= Minor::new(3, 12) => {
                Verdict::Verified(vec![format!(
                    "{} has {} {version}, with Python {}",
                    printable(&venv.venv.path),
                    clue.name,
                    venv.venv.site
                )])
            }
            _ => Verdict::Unknown,
        }
    },
    remedy: |clue, machine| match (clue.name.as_str(), clue.known(machine)) {
        // A pip that does not start cannot upgrade itself.
        ("pip", Some(venv)) => {
            let python = super::super::machine::quoted(&venv.venv.path.join("bin/python"));
            format!("`{python} -m ensurepip --upgrade`")
        }
        ("pip", None) => "`python -m ensurepip --upgrade` in the venv".to_string(),
        // Later releases have no pkg_resources.
        _ => install(clue, machine, "'setuptools>=66.1,<82'"),
    },
};

pub(super) const PKG_RESOURCES_MISSING: Signature = Signature {
    id: "pkg-resources-missing",
    title: "pkg_resources is missing; only setuptools before version 82 contains it",
    upgrade: Upgrade::IfMoved,
    matches: |failure| {
        let is_it = |error: &PythonError| error.missing_module() == Some("pkg_resources");
        Some(Clue::of_error(failure, is_it)?.0.named("pkg_resources"))
    },
    verify: |clue, machine| {
        let venv = match fitting(clue, machine) {
            Ok(venv) => venv,
            Err(verdict) => return verdict,
        };
        if venv.has_module(machine, "pkg_resources") {
            return Verdict::Refuted;
        }
        let path = printable(&venv.venv.path);
        Verdict::Verified(vec![match venv.distributions.get("setuptools") {
            Some(version) => format!("{path} has setuptools {version}"),
            None => format!("{path} has no setuptools"),
        }])
    },
    remedy: |clue, machine| install(clue, machine, "'setuptools<82'"),
};

pub(super) const STDLIB_MODULE_REMOVED: Signature = Signature {
    id: "stdlib-module-removed",
    title: "the standard library no longer has the module",
    upgrade: Upgrade::IfMoved,
    matches: stdlib_module_removed,
    verify: |clue, machine| {
        let venv = match fitting(clue, machine) {
            Ok(venv) => venv,
            Err(verdict) => return verdict,
        };
        let (name, site) = (printable(&clue.name), venv.venv.site);
        if venv.has_module(machine, &clue.name) {
            return Verdict::Refuted;
        }
        match removed_in(&clue.name) {
            Some(minor) if site >= minor => Verdict::Verified(vec![format!(
                "{} is for Python {site}; {name} was removed in Python {minor}",
                printable(&venv.venv.path)
            )]),
            Some(_) if machine.now.get(site).is_none() || machine.has_module(site, &clue.name) => {
                Verdict::Refuted
            }
            // Debian has parts of it in packages that belong to the default version.
            Some(_) => Verdict::Verified(vec![format!(
                "Python {site} has it, but the package with its files was removed: /usr/lib/{} has no {name}",
                site.program()
            )]),
            None => Verdict::Refuted,
        }
    },
    remedy: |clue, machine| match instead_of(clue) {
        Some(what) => install(clue, machine, &what),
        None => going_back(clue, machine).unwrap_or_else(|| {
            format!("the application must stop importing {}", printable(&clue.name))
        }),
    },
};

pub(super) const NO_EVENT_LOOP: Signature = Signature {
    id: "no-event-loop",
    title: "since Python 3.14, asyncio.get_event_loop() no longer creates an event loop",
    upgrade: Upgrade::IfMoved,
    matches: |failure| {
        let message = "There is no current event loop in thread 'MainThread'.";
        let (clue, error) = Clue::of_error(failure, |error| error.message == message)?;
        let minor = error.frames.iter().rev().find_map(|frame| {
            let mut names = frame.file.iter().filter_map(|name| name.to_str());
            names.find_map(Minor::of_program)
        });
        // Before, an application that closes its loop gets the same answer.
        match minor {
            Some(minor) if minor < Minor::new(3, 14) => None,
            Some(_) => Some(clue.named(importer(error).unwrap_or_default())),
            None => Some(clue.weak()),
        }
    },
    verify: |clue, machine| match clue.known(machine) {
        Some(venv) if venv.venv.site >= Minor::new(3, 14) => Verdict::Verified(vec![format!(
            "{} is for Python {}",
            printable(&venv.venv.path),
            venv.venv.site
        )]),
        Some(_) => Verdict::Refuted,
        None => Verdict::Unknown,
    },
    remedy: |clue, machine| match clue.name.as_str() {
        "" => going_back(clue, machine).unwrap_or_else(|| {
            "create the loop in the application: `asyncio.new_event_loop()`, or start it with \
             `asyncio.run()`"
                .to_string()
        }),
        name => install(clue, machine, &upgrade(name)),
    },
};

/// The venv, if it runs the version of Python that its packages are for: otherwise that explains
/// whatever is missing.
fn fitting<'m>(clue: &Clue, machine: &'m Machine) -> Result<&'m KnownVenv, Verdict> {
    let venv = clue.known(machine).ok_or(Verdict::Unknown)?;
    let fits = !matches!(venv.health.state, State::Orphaned | State::Stranded);
    if fits { Ok(venv) } else { Err(Verdict::Refuted) }
}

/// The distributions that have such a module now.
const INSTEAD: [(&str, &str); 8] = [
    ("distutils", "setuptools"),
    ("imp", "zombie-imp"),
    ("cgi", "legacy-cgi"),
    ("cgitb", "legacy-cgi"),
    ("audioop", "audioop-lts"),
    ("telnetlib", "standard-telnetlib"),
    ("imghdr", "standard-imghdr"),
    ("pipes", "standard-pipes"),
];

fn stdlib_module_removed(failure: &Failure) -> Option<Clue> {
    let is_it =
        |error: &PythonError| error.missing_module().is_some_and(|name| removed_in(name).is_some());
    let (clue, error) = Clue::of_error(failure, is_it)?;
    Some(Clue { culprit: importer(error), ..clue.named(error.missing_module()?) })
}

/// What to install where a module of the standard library is gone: a newer release of what imports
/// it, or a distribution that has it.
fn instead_of(clue: &Clue) -> Option<String> {
    let top = clue.name.split('.').next().unwrap_or_default();
    let instead = INSTEAD.iter().find(|(name, _)| *name == top);
    let instead = instead.map(|(_, distribution)| (*distribution).to_string());
    instead.or_else(|| clue.culprit.as_deref().map(upgrade))
}

fn upgrade(name: &str) -> String {
    let quoted = super::super::machine::quoted(Path::new(name));
    format!("--upgrade {quoted}")
}

/// The module in site-packages that the innermost frame outside the standard library belongs to.
fn importer(error: &PythonError) -> Option<String> {
    let own = |frame: &&super::super::text::Frame| !super::is_stdlib(&frame.file);
    let file = &error.frames.iter().rev().find(own)?.file;
    let mut names = file.iter().skip_while(|name| *name != "site-packages").skip(1);
    let name = names.next()?.to_str()?;
    let name = name.strip_suffix(".py").unwrap_or(name);
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    (is_plain && !name.starts_with('-')).then(|| name.to_string())
}

fn install(clue: &Clue, machine: &Machine, what: &str) -> String {
    match clue.known(machine) {
        Some(venv) => venv.install(what),
        None => match &clue.venv {
            Some(path) => {
                let python = super::super::machine::quoted(&path.join("bin/python"));
                format!("`{python} -m pip install {what}`")
            }
            None => format!("`python -m pip install {what}` in the venv"),
        },
    }
}

/// The way back to the Python before, if venvguard kept it.
fn going_back(clue: &Clue, machine: &Machine) -> Option<String> {
    let venv: &KnownVenv = clue.known(machine).filter(|venv| venv.has_previous)?;
    Some(format!("`venvguard rollback {}`", venv.name.as_deref()?))
}
