//! A registered venv, as `list`, `show` and `status` print it.

use jiff::Timestamp;
use serde::Serialize;

use super::SCHEMA;
use crate::host::file::printable;
use crate::host::path_text::PathText;
use crate::host::redacted;
use crate::plan::{Finding, Health, Policy, Proof, RestartMode, State};
use crate::python::Version;
use crate::service::{Service, VenvProcess};
use crate::store::{PreparedTree, PreviousTree, RegistryEntry, Rehearsal};
use crate::venv::{Additions, BaseLink, Flavour, Relax, Venv};

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
    prepared: Option<PreparedJson>,
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

/// A new tree that waits to be swapped in.
#[derive(Debug, Serialize)]
struct PreparedJson {
    path: String,
    since: Timestamp,
    bytes: Option<u64>,
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
            prepared: None,
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

    pub(crate) fn with_prepared(mut self, tree: &PreparedTree) -> Self {
        let (path, since, bytes) = (printable(tree.path()), tree.at, tree.bytes);
        self.prepared = Some(PreparedJson { path, since, bytes });
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
