//! The JSON that commands print: one object with a `schema_version`, stable.

use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use super::words;
use crate::apt::{Build, Change, ChangeKind, Hold};
use crate::host::file::printable;
use crate::host::path_text::PathText;
use crate::host::redacted;
use crate::plan::{
    Decision, Effect, Finding, Health, Phase, Plan, Policy, Proof, Remedy, RestartMode, State,
    Verdict,
};
use crate::python::{self, Minor, Version};
use crate::service::{Service, VenvProcess};
use crate::store::{Event, PreviousTree, RegistryEntry, Rehearsal};
use crate::venv::{Additions, BaseLink, Flavour, Relax, Venv};

const SCHEMA: u64 = 1;

/// What `list`, `show` and `status` print.
#[derive(Debug, Serialize)]
pub(crate) struct ListJson {
    schema_version: u64,
    venvs: Vec<VenvJson>,
}

impl ListJson {
    pub(crate) fn new(venvs: Vec<VenvJson>) -> Self {
        Self { schema_version: SCHEMA, venvs }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct VenvJson {
    id: String,
    name: String,
    path: String,
    owner: Option<String>,
    flavour: Option<Flavour>,
    interpreter: Option<InterpreterJson>,
    policy: Policy,
    services: Vec<ServiceJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    services_found: Option<Vec<FoundServiceJson>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    processes: Option<Vec<ProcessJson>>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    settings: Option<SettingsJson>,
    previous_trees: Vec<KeptJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasons: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rehearsal: Option<LastRehearsalJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_exact: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    foreign_files: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    modified_files: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
struct InterpreterJson {
    path: String,
    link: BaseLink,
    version: Option<Version>,
}

#[derive(Debug, Serialize)]
struct ServiceJson {
    manager: String,
    name: String,
}

/// A service that was discovered, and how.
#[derive(Debug, Serialize)]
struct FoundServiceJson {
    #[serde(flatten)]
    service: ServiceJson,
    evidence: Evidence,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Evidence {
    /// One of its processes runs from the venv: see `processes`.
    Process,
    /// Its configuration names the venv.
    Configuration,
}

#[derive(Debug, Serialize)]
struct ProcessJson {
    pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
}

/// What was set at `register`.
#[derive(Debug, Serialize)]
struct SettingsJson {
    check: Vec<String>,
    requirements: Option<String>,
    lock: Option<String>,
    build_command: Vec<String>,
    relax: Option<Relax>,
    restart: Option<RestartMode>,
    window: Option<String>,
    rolling: Option<String>,
    probe: Option<bool>,
    declared_in: Option<String>,
}

/// What the last rehearsal found.
#[derive(Debug, Serialize)]
struct LastRehearsalJson {
    at: Timestamp,
    /// The package of the interpreter that the venv was tried with, and its version.
    package: String,
    package_version: String,
    ready: bool,
    proof: Proof,
    findings: Vec<Finding>,
}

/// A previous environment.
#[derive(Debug, Serialize)]
struct KeptJson {
    path: String,
    since: Timestamp,
    /// Some user files exist only in it: it is kept until it is pruned by name.
    holds_files: bool,
}

impl From<&PreviousTree> for KeptJson {
    fn from(kept: &PreviousTree) -> Self {
        Self { path: printable(kept.path()), since: kept.at, holds_files: kept.holds_files }
    }
}

impl From<&Service> for ServiceJson {
    fn from(service: &Service) -> Self {
        Self { manager: service.manager_key().to_string(), name: service.name().to_string() }
    }
}

impl VenvJson {
    /// `version` is that of the interpreter that the venv runs now.
    pub(crate) fn new(
        entry: &RegistryEntry,
        venv: Option<(&Venv, String, Option<Version>)>,
    ) -> Self {
        let (venv, owner, version) = match venv {
            Some((venv, owner, version)) => (Some(venv), Some(owner), version),
            None => (None, None, None),
        };
        Self {
            id: entry.id.clone(),
            name: entry.name.clone(),
            path: printable(entry.path()),
            owner,
            flavour: venv.map(|venv| venv.flavour),
            interpreter: venv.map(|venv| InterpreterJson {
                path: printable(&venv.base.path),
                link: venv.base.link,
                version,
            }),
            policy: entry.policy,
            services: entry.services.iter().map(ServiceJson::from).collect(),
            services_found: None,
            processes: None,
            settings: None,
            previous_trees: entry.previous_trees.latest_first().map(KeptJson::from).collect(),
            state: None,
            reasons: None,
            rehearsal: None,
            not_exact: None,
            foreign_files: None,
            modified_files: None,
        }
    }

    pub(crate) fn with_health(mut self, health: Health) -> Self {
        self.state = Some(health.state);
        self.reasons = Some(health.reasons);
        self
    }

    pub(crate) fn with_settings(mut self, entry: &RegistryEntry) -> Self {
        self.settings = Some(SettingsJson {
            check: entry.check.iter().map(|word| redacted(word)).collect(),
            requirements: entry.requirements().map(printable),
            lock: entry.lock().map(printable),
            build_command: entry.build_command().iter().map(|word| redacted(word)).collect(),
            relax: entry.relax,
            restart: entry.restart,
            window: entry.window.as_ref().map(ToString::to_string),
            rolling: entry.rolling.as_ref().map(ToString::to_string),
            probe: entry.probe,
            declared_in: entry.declared_in().map(printable),
        });
        self
    }

    /// The services that were discovered, and the processes that run from the venv.
    pub(crate) fn with_usage<'a>(
        mut self,
        services: impl Iterator<Item = &'a Service>,
        processes: &[VenvProcess],
    ) -> Self {
        let runs =
            |service: &Service| processes.iter().any(|one| one.service.as_ref() == Some(service));
        let found = |service: &Service| FoundServiceJson {
            service: ServiceJson::from(service),
            evidence: if runs(service) { Evidence::Process } else { Evidence::Configuration },
        };
        self.services_found = Some(services.map(found).collect());
        let process = |one: &VenvProcess| ProcessJson {
            pid: one.process.id.pid,
            service: one.service.as_ref().map(ToString::to_string),
        };
        self.processes = Some(processes.iter().map(process).collect());
        self
    }

    pub(crate) fn with_rehearsal(mut self, found: Rehearsal) -> Self {
        self.rehearsal = Some(LastRehearsalJson {
            at: found.at,
            ready: found.is_ready(),
            package: found.made_for.interpreter.name,
            package_version: found.made_for.interpreter.version,
            proof: found.proof,
            findings: found.findings,
        });
        self
    }

    pub(crate) fn with_not_exact(mut self, reasons: Vec<String>) -> Self {
        self.not_exact = Some(reasons);
        self
    }

    pub(crate) fn with_additions(mut self, additions: &Additions) -> Self {
        let printed = |paths: &[PathText]| paths.iter().map(|path| printable(&path.0)).collect();
        self.foreign_files = Some(printed(&additions.foreign));
        self.modified_files = Some(printed(&additions.modified));
        self
    }
}

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
            findings: decision.findings().cloned().collect(),
            blocks: decision.blocks,
            reasons: words::reasons(decision),
        }
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
