//! The JSON that commands print: one object with a `schema_version`, stable.

mod venv;

use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

pub(crate) use self::venv::{ListJson, VenvJson};
use super::words;
use crate::apt::{Build, Change, ChangeKind, Hold};
use crate::host::file::printable;
use crate::plan::{
    Decision, Effect, Finding, FindingKind, Loss, Phase, Plan, Proof, Reason, Remedy, Verdict,
};
use crate::python::{self, Minor, Version};
use crate::service::Service;
use crate::store::{Event, RegistryEntry, StepTime};
use crate::venv::{BaseLink, Flavour, Venv};

const SCHEMA: u64 = 1;

/// What `scan` prints.
#[derive(Debug, Serialize)]
pub(crate) struct ScanJson {
    schema_version: u64,
    venvs: Vec<FoundJson>,
}

#[derive(Debug, Serialize)]
struct FoundJson {
    path: String,
    flavour: Flavour,
    link: BaseLink,
    python: String,
    guardable: bool,
    registered: bool,
}

impl ScanJson {
    /// Takes venvs, and whether each is registered.
    pub(crate) fn new<'a>(found: impl Iterator<Item = (&'a Venv, bool)>) -> Self {
        let venvs = found.map(|(venv, registered)| FoundJson {
            path: printable(&venv.path),
            flavour: venv.flavour,
            link: venv.base.link,
            python: venv.site.to_string(),
            guardable: venv.base.is_debian,
            registered,
        });
        Self { schema_version: SCHEMA, venvs: venvs.collect() }
    }
}

/// What `plan` prints.
#[derive(Debug, Serialize)]
pub(crate) struct PlanJson {
    schema_version: u64,
    changes: Vec<ChangeJson>,
    venvs: Vec<DecisionJson>,
    verdict: Verdict,
}

#[derive(Debug, Serialize)]
struct ChangeJson {
    interpreter: String,
    from: Option<String>,
    to: Option<String>,
    kind: ChangeKind,
}

/// One decision, as `plan`, dry runs and `history` print it.
#[derive(Debug, Serialize)]
struct DecisionJson {
    id: String,
    name: String,
    path: String,
    effect: Effect,
    remedy: &'static str,
    phase: Phase,
    /// The minor version that a rebuild is for, a rollback returns to, or a venv is pinned to.
    target: Option<TargetJson>,
    services: Vec<Service>,
    ready: bool,
    proof: Proof,
    findings: Vec<Finding>,
    blocks: bool,
    reasons: Vec<String>,
}

#[derive(Debug, Serialize)]
struct TargetJson {
    python: Minor,
    #[serde(skip_serializing_if = "Option::is_none")]
    interpreter: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tree: Option<String>,
}

impl From<&Plan> for PlanJson {
    fn from(plan: &Plan) -> Self {
        Self {
            schema_version: SCHEMA,
            changes: plan.changes.iter().map(ChangeJson::from).collect(),
            venvs: plan.decisions.iter().map(DecisionJson::from).collect(),
            verdict: plan.verdict(),
        }
    }
}

impl From<&Decision> for DecisionJson {
    fn from(decision: &Decision) -> Self {
        let interpreter = |path: &Path| Some(printable(path));
        let target = match &decision.remedy {
            Remedy::Rebuild { target, .. } => {
                let interpreter = interpreter(&target.interpreter());
                Some(TargetJson { python: target.minor, interpreter, tree: None })
            }
            Remedy::Pin { to, .. } => {
                let interpreter = interpreter(&python::path_of(*to));
                Some(TargetJson { python: *to, interpreter, tree: None })
            }
            Remedy::Restore { tree, minor, .. } => {
                let tree = Some(printable(&tree.0));
                Some(TargetJson { python: *minor, interpreter: None, tree })
            }
            _ => None,
        };
        Self {
            id: decision.id.clone(),
            name: decision.name.clone(),
            path: printable(&decision.path.0),
            effect: decision.effect,
            remedy: decision.remedy.word(),
            phase: decision.phase,
            target,
            services: decision.services.clone(),
            ready: decision.ready(),
            proof: decision.proof(),
            findings: decision.reasons.iter().filter_map(finding).collect(),
            blocks: decision.blocks,
            reasons: words::reasons(decision),
        }
    }
}

/// What a reason finds out about the venv; not every finding keeps it from being ready.
fn finding(reason: &Reason) -> Option<Finding> {
    let of_venv = |kind| Some(Finding::of_venv(kind, words::reason(reason)));
    match reason {
        Reason::NotReady(finding)
        | Reason::Breaks(finding)
        | Reason::Loses(Loss { finding, .. }) => Some(finding.clone()),
        Reason::NamedIn(_) => of_venv(FindingKind::Path),
        Reason::EmbeddedIn(_) | Reason::EmbeddedOn { .. } => of_venv(FindingKind::Embedded),
        _ => None,
    }
}

/// What the dry runs of `rebuild` and `rollback` print.
#[derive(Debug, Serialize)]
pub(crate) struct DecisionsJson {
    schema_version: u64,
    venvs: Vec<DecisionJson>,
}

impl DecisionsJson {
    pub(crate) fn new(decisions: &[Decision]) -> Self {
        let venvs = decisions.iter().map(DecisionJson::from).collect();
        Self { schema_version: SCHEMA, venvs }
    }
}

/// What the dry runs of `hold` and `unhold` print.
#[derive(Debug, Serialize)]
pub(crate) struct HoldChangeJson {
    schema_version: u64,
    before: Option<HoldJson>,
    after: Option<HoldJson>,
}

#[derive(Debug, Serialize)]
struct HoldJson {
    packages: Vec<String>,
    since: Timestamp,
    until: Option<Timestamp>,
    by: String,
    reason: Option<String>,
}

impl HoldChangeJson {
    pub(crate) fn new(before: Option<&Hold>, after: Option<&Hold>) -> Self {
        let json = |hold: Option<&Hold>| hold.cloned().map(HoldJson::from);
        Self { schema_version: SCHEMA, before: json(before), after: json(after) }
    }
}

impl From<Hold> for HoldJson {
    fn from(hold: Hold) -> Self {
        let Hold { packages, since, until, by, because } = hold;
        Self { packages, since, until, by, reason: because }
    }
}

/// What `history` prints.
#[derive(Debug, Serialize)]
pub(crate) struct HistoryJson {
    schema_version: u64,
    events: Vec<EventJson>,
}

#[derive(Debug, Serialize)]
struct EventJson {
    at: Timestamp,
    venv: String,
    path: String,
    what: String,
    detail: String,
    /// The decision, if one was carried out or blocked the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<DecisionJson>,
    /// How long each step of a repair took.
    #[serde(skip_serializing_if = "<[StepTime]>::is_empty")]
    steps: Vec<StepTime>,
}

impl HistoryJson {
    pub(crate) fn new(events: &[Event]) -> Self {
        let events = events
            .iter()
            .map(|event| EventJson {
                at: event.at,
                venv: event.venv.clone(),
                path: printable(event.path()),
                what: event.what.clone(),
                detail: event.detail.clone(),
                decision: event.decision.as_deref().map(DecisionJson::from),
                steps: event.steps.clone(),
            })
            .collect();
        Self { schema_version: SCHEMA, events }
    }
}
impl From<&Change> for ChangeJson {
    fn from(change: &Change) -> Self {
        let version =
            |build: &Option<Build>| build.as_ref().map(|build| build.package_version.clone());
        Self {
            interpreter: printable(&change.interpreter),
            from: version(&change.from),
            to: version(&change.to),
            kind: change.kind,
        }
    }
}

/// What `rehearse` prints.
#[derive(Debug, Serialize)]
pub(crate) struct RehearsalJson {
    schema_version: u64,
    changes: Vec<ChangeJson>,
    venvs: Vec<VenvRehearsalJson>,
}

impl RehearsalJson {
    pub(crate) fn new(changes: &[Change], venvs: Vec<VenvRehearsalJson>) -> Self {
        let changes = changes.iter().map(ChangeJson::from).collect();
        Self { schema_version: SCHEMA, changes, venvs }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct VenvRehearsalJson {
    id: String,
    name: String,
    path: String,
    version: Option<Version>,
    ready: bool,
    proof: Proof,
    findings: Vec<Finding>,
}

impl VenvRehearsalJson {
    pub(crate) fn new(
        entry: &RegistryEntry,
        version: Option<&Version>,
        proof: Proof,
        findings: &[Finding],
    ) -> Self {
        Self {
            id: entry.id.clone(),
            name: entry.name.clone(),
            path: printable(entry.path()),
            version: version.cloned(),
            ready: findings.is_empty(),
            proof,
            findings: findings.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Mention, samples};

    #[test]
    fn a_finding_about_a_path_or_an_embedding_program_leaves_the_venv_ready() {
        let mention = Mention {
            file: Path::new("/etc/nginx/nginx.conf").into(),
            line: 7,
            name: Path::new("/srv/shop/venv/lib/python3.11").into(),
        };
        let program = Path::new("/usr/sbin/apache2").into();
        let reasons = vec![Reason::NamedIn(mention), Reason::EmbeddedIn(program)];
        let decision = DecisionJson::from(&Decision { reasons, ..samples::decision() });
        let kinds: Vec<FindingKind> = decision.findings.iter().map(|one| one.kind).collect();
        assert_eq!(kinds, [FindingKind::Path, FindingKind::Embedded]);
        assert!(decision.findings[0].detail.starts_with("/etc/nginx/nginx.conf line 7"));
        assert!(decision.ready);
    }
}
