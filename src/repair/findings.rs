//! Sorts out why a new tree could not be built or does not work: which distribution, and why.

use std::path::Path;

use super::Context;
use super::install::{InstallError, Missing};
use super::not_rebuilt::RebuildError;
use super::smoke::Failure;
use crate::host::file::{printable, within};
use crate::plan::{Finding, FindingKind};
use crate::python::{Minor, removed_in};
use crate::venv::{self, Distribution, Nearest, Venv, normalized};

/// How many findings of a venv are kept, and how long a detail is, in bytes: both come from an
/// owner's code.
const MOST: usize = 32;
const DETAIL: usize = 2 << 10;

/// What an error says about the distributions of a venv.
pub(super) fn findings(
    context: &Context,
    venv: &Venv,
    minor: Minor,
    error: &RebuildError,
) -> Vec<Finding> {
    let site = context.root.at(venv.site_packages());
    let installed =
        Installed { distributions: venv::distributions(&site).unwrap_or_default(), site: &site };
    let mut findings: Vec<Finding> = match error {
        RebuildError::Install(InstallError::Missing { missing, .. }) => {
            missing.iter().map(|one| installed.of_missing(one, minor)).collect()
        }
        RebuildError::Install(InstallError::Failed { requirement: Some(requirement), .. }) => {
            let (distribution, version) = name_and_version(requirement);
            let finding = Finding::of_venv(FindingKind::BuildFailed, error.to_string());
            vec![Finding { distribution, version, ..finding }]
        }
        RebuildError::Install(InstallError::Failed { .. } | InstallError::Command { .. })
        | RebuildError::Create(_) => {
            vec![Finding::of_venv(FindingKind::BuildFailed, error.to_string())]
        }
        RebuildError::Different(differences) => differences
            .iter()
            .map(|one| Finding {
                distribution: Some(one.name.to_string()),
                version: one.recorded.as_ref().map(ToString::to_string),
                ..Finding::of_venv(FindingKind::Different, one.to_string())
            })
            .collect(),
        RebuildError::Worse(failures) => {
            failures.iter().take(MOST).map(|one| installed.of_failure(one, minor)).collect()
        }
        RebuildError::Dead(why) => {
            vec![Finding::of_venv(FindingKind::Interpreter, why.clone())]
        }
        other => vec![Finding::of_venv(FindingKind::Obstacle, other.to_string())],
    };
    findings.truncate(MOST);
    for finding in &mut findings {
        finding.detail = within(&finding.detail, DETAIL);
        if error.is_passing() {
            finding.kind = FindingKind::Untried;
        }
    }
    findings
}

/// A distribution that does not support an interpreter.
pub(super) fn requires_python(distribution: &Distribution) -> Finding {
    let (name, version) = (distribution.normalized_name(), distribution.version.clone());
    let requires = printable(distribution.requires_python.as_deref().unwrap_or_default());
    let version_word = version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
    let detail = format!("{name}{version_word} requires Python {requires}");
    Finding {
        distribution: Some(name),
        version,
        ..Finding::of_venv(FindingKind::RequiresPython, detail)
    }
}

fn name_and_version(requirement: &str) -> (Option<String>, Option<String>) {
    match requirement.split_once("==") {
        Some((name, version)) => (Some(name.trim().into()), Some(version.trim().into())),
        None => (Some(requirement.trim().into()), None),
    }
}

/// The distributions of the old tree.
struct Installed<'a> {
    distributions: Vec<Distribution>,
    site: &'a Path,
}

impl Installed<'_> {
    fn named(&self, name: &str) -> Option<&Distribution> {
        self.distributions.iter().find(|one| one.normalized_name() == normalized(name))
    }

    fn of_missing(&self, missing: &Missing, minor: Minor) -> Finding {
        let (distribution, version) = name_and_version(&missing.requirement);
        let works_from = match &missing.nearest {
            Nearest::Later { version, .. } => Some(version.to_string()),
            _ => None,
        };
        let known = distribution.as_deref().and_then(|name| self.named(name));
        let excluding = known.filter(|one| one.version == version && one.excludes(minor));
        if let Some(finding) = excluding.map(requires_python) {
            let detail = format!("{missing} ({})", finding.detail);
            return Finding { detail, works_from, ..finding };
        }
        let finding = Finding::of_venv(FindingKind::NoWheel, missing.to_string());
        Finding { distribution, version, works_from, ..finding }
    }

    fn of_failure(&self, failure: &Failure, minor: Minor) -> Finding {
        let found = match &failure.distribution {
            Some(name) => self.named(name),
            None => self.with_module(&failure.name),
        };
        let removed = removed_module(&failure.error, minor);
        let kind = match (removed, failure.kind.as_str()) {
            (Some(_), _) => FindingKind::RemovedModule,
            (None, "script") => FindingKind::Script,
            (None, "code") => FindingKind::RemovedName,
            (None, _) => FindingKind::Import,
        };
        let detail = match removed {
            Some(module) => format!("{failure} (Python {minor} no longer has the module {module})"),
            None => failure.to_string(),
        };
        Finding {
            distribution: found.map(Distribution::normalized_name),
            version: found.and_then(|one| one.version.clone()),
            ..Finding::of_venv(kind, detail)
        }
    }

    /// The distribution that a top-level module belongs to.
    fn with_module(&self, module: &str) -> Option<&Distribution> {
        self.distributions.iter().find(|one| {
            let modules = venv::top_level_modules_of(self.site, std::slice::from_ref(one));
            modules.is_ok_and(|modules| modules.iter().any(|name| name == module))
        })
    }
}

/// The removed module of the standard library that an error complains about.
fn removed_module(error: &str, minor: Minor) -> Option<&str> {
    let (_, rest) = error.split_once("No module named '")?;
    let missing = rest.split(['\'', '.']).next()?;
    removed_in(missing).filter(|since| *since <= minor).map(|_| missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_that_the_new_python_lacks_is_named() {
        let removed = |error, minor| removed_module(error, Minor::new(3, minor));
        let distutils = "ModuleNotFoundError: No module named 'distutils.util'";
        assert_eq!(removed(distutils, 13), Some("distutils"));
        assert_eq!(removed(distutils, 11), None);
        assert_eq!(removed("ModuleNotFoundError: No module named 'cgi'", 12), None);
        assert_eq!(removed("ModuleNotFoundError: No module named 'cgi'", 13), Some("cgi"));
        assert_eq!(removed("ModuleNotFoundError: No module named 'flask'", 13), None);
    }
}
