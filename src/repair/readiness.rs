//! Whether a rebuild can be expected to work.

use std::io;
use std::time::Duration;

use super::account::owner;
use super::findings::requires_python;
use super::install_spec::{InstallSpec, Installed};
use super::stage::Looked;
use super::trial::recipe_digest;
use super::{Context, engine, sources, stage};
use crate::host::file;
use crate::owner::{self, ListAdditions};
use crate::plan::{Finding, FindingKind, Proof, Readiness};
use crate::python::{self, Minor, Package};
use crate::store::{MadeFor, RegistryEntry, Rehearsal};
use crate::venv::{Additions, Venv};

/// An interpreter that is not installed yet.
#[derive(Debug, Clone)]
pub(crate) struct Next {
    pub(crate) interpreter: Package,
    /// The version of Debian's wheel of pip that comes with it.
    pub(crate) pip_wheel: Option<String>,
}

/// Whether a rebuild for `minor` can be expected to work. If it is for an interpreter that is not
/// installed yet, what a rehearsal with it found counts.
pub(crate) fn readiness(
    context: &Context,
    entry: &RegistryEntry,
    venv: &Venv,
    (minor, next): (Option<Minor>, Option<&Next>),
    looked: Looked,
) -> Readiness {
    let Some(minor) = minor else {
        return Readiness::NotReady(vec![obstacle(format!(
            "{} is not installed",
            python::DEFAULT
        ))]);
    };
    let mut reasons = Vec::new();
    let spec = InstallSpec::of(context, entry, venv);
    reasons.extend(spec.as_ref().err().into_iter().flatten().cloned());
    let mut engines = Vec::new();
    if entry.build_command().is_empty() {
        let (owner, interpreter) = (owner(context, venv), python::path_of(minor));
        match sources::engines(context, venv, &owner, (minor, &interpreter), context.root) {
            Ok(found) => engines = found,
            Err(reason) => reasons.push(reason),
        }
    }
    reasons.extend(stage::obstacles(context.root, venv, looked));
    let mut findings: Vec<Finding> = reasons.into_iter().map(obstacle).collect();
    if let (Some(next), Ok(spec)) = (next, &spec) {
        // Only where there was a rehearsal: the hash reads every distribution of the venv once more.
        let digest = || Some(spec.digest(&Installed::of(context.root, venv)));
        let known = rehearsed(context, entry, &next.interpreter, digest);
        // The index answers nothing about pip itself.
        if matches!(known, None | Some(Readiness::Resolved)) {
            let too_old = engine::too_old_after(&engines, next.pip_wheel.as_deref(), minor);
            findings.extend(too_old.map(obstacle));
        }
        match known {
            Some(found) if findings.is_empty() => return found,
            Some(_) => {}
            // A rehearsal would find the same, and the nearest version that supports the interpreter.
            None => findings.extend(spec.excluding(minor).map(requires_python)),
        }
    }
    if findings.is_empty() { Readiness::Ready } else { Readiness::NotReady(bounded(findings)) }
}

/// What the last rehearsal found, if nothing has changed since.
fn rehearsed(
    context: &Context,
    entry: &RegistryEntry,
    next: &Package,
    recipe: impl FnOnce() -> Option<String>,
) -> Option<Readiness> {
    // An unreadable record counts as none: the venv is rebuilt after the upgrade all the same.
    let found = context.store.rehearsal(&entry.id, &next.name).ok().flatten()?;
    let MadeFor { interpreter, recipe: was } = &found.made_for;
    if interpreter != next || *was != recipe() {
        return None;
    }
    if !found.is_ready() {
        return Some(Readiness::NotReady(bounded(found.findings)));
    }
    match found.proof {
        Proof::Rehearsed if context.store.has_prepared_tree(&entry.id) => {
            Some(Readiness::Rehearsed)
        }
        Proof::Resolved => Some(Readiness::Resolved),
        _ => None,
    }
}

/// What breaks in a venv that stays on its own interpreter, as the last rehearsal found: in the next
/// system, packages that it needs may be gone.
pub(crate) fn breaks(
    context: &Context,
    entry: &RegistryEntry,
    venv: &Venv,
    own: &Package,
) -> Vec<Finding> {
    let found = context.store.rehearsals(&entry.id).unwrap_or_default();
    let last =
        found.into_iter().find_map(|Rehearsal { made_for, proof, findings, stay, .. }| {
            let MadeFor { interpreter, recipe } = made_for;
            match stay {
                Some(stay) if stay.interpreter == *own => Some((stay.findings, recipe)),
                _ if proof == Proof::Smoke && interpreter == *own => Some((findings, recipe)),
                _ => None,
            }
        });
    match last {
        Some((findings, recipe))
            if !findings.is_empty() && recipe == recipe_digest(context, entry, venv) =>
        {
            bounded(findings)
        }
        _ => Vec::new(),
    }
}

fn obstacle(reason: String) -> Finding {
    Finding::of_venv(FindingKind::Obstacle, reason)
}

/// How many findings a decision holds, and how long each detail may be, in bytes. Some quote the
/// contents of another user's venv, and decisions are stored.
const FINDINGS: usize = 16;
const DETAIL: usize = 1 << 10;

fn bounded(mut findings: Vec<Finding>) -> Vec<Finding> {
    let more = findings.len().saturating_sub(FINDINGS);
    findings.truncate(FINDINGS);
    for finding in &mut findings {
        finding.detail = file::within(&finding.detail, DETAIL);
    }
    if more > 0 {
        let more = format!("and {more} more reasons");
        findings.push(Finding::of_venv(FindingKind::Obstacle, more));
    }
    findings
}

/// The time limit for listing user files: a person waits for it, and the owner decides how much
/// there is to read.
const LISTING_LIMIT: Duration = Duration::from_secs(20);

/// The user files of a venv, as a process of its owner lists them.
pub(crate) fn additions(context: &Context, venv: &Venv) -> io::Result<Additions> {
    let task = ListAdditions { tree: venv.layout() };
    owner::run(context.root, &owner(context, venv), LISTING_LIMIT, &task)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_findings_of_a_decision_are_few_and_short() {
        let finding = Finding::of_venv(FindingKind::Import, "x".repeat(1 << 20));
        let bounded = bounded(vec![finding; 40]);
        assert_eq!(bounded.len(), FINDINGS + 1);
        assert!(
            bounded.iter().all(|one| one.detail.len() <= DETAIL),
            "{}",
            bounded[0].detail.len()
        );
        assert_eq!(bounded.last().unwrap().detail, "and 24 more reasons");
    }
}
