//! The registered and declared venvs as they are now.
//!
//! This module only reads. It passes its findings to `plan`, which decides.

mod declared;
mod facts;
mod failed;
mod health;
mod lost;
mod processes;
mod waiting;

pub(crate) use declared::registry;
pub(crate) use facts::{Asked, declared_services, facts};
pub(crate) use failed::failed_services;
pub(crate) use health::healths;
pub(crate) use lost::lost_libraries;
pub(crate) use processes::{
    StaleProcess, StaleProcesses, Unmanaged, current, report_unmanaged, stale_processes,
    stale_units_of_users,
};
pub(crate) use waiting::{has_window, window_of};

use std::sync::OnceLock;

use crate::host::{Root, clock, parallel, user};
use crate::plan::Subject;
use crate::repair::Context;
use crate::service::{self, Processes, Service, ServiceMap, VenvUsage};
use crate::store::{Config, Registry, RegistryEntry, StoreError};
use crate::venv::{self, NotAVenv, Venv};

/// The registry, and the current state on disk of each venv in it, in the same order.
#[derive(Debug)]
pub(crate) struct Inventory {
    pub(crate) registry: Registry,
    pub(crate) venvs: Vec<Result<Venv, NotAVenv>>,
    /// What uses them, once somebody has asked.
    users: OnceLock<ServiceMap>,
}

impl Inventory {
    pub(crate) fn new(registry: Registry, venvs: Vec<Result<Venv, NotAVenv>>) -> Self {
        Self { registry, venvs, users: OnceLock::new() }
    }

    /// Reads the venvs that are registered and declared now.
    pub(crate) fn read(context: &Context) -> Result<Self, StoreError> {
        Ok(Self::of(context, registry(context)?))
    }

    /// Inspects every registered venv, on all cores.
    pub(crate) fn of(context: &Context, registry: Registry) -> Self {
        let inspect_all = |chunk: &[RegistryEntry]| -> Vec<Result<Venv, NotAVenv>> {
            chunk.iter().map(|entry| inspect(context, entry)).collect()
        };
        let (chunks, at_once) = (registry.venvs.chunks(CHUNK), context.config.at_once(None));
        let venvs = parallel::map(chunks, at_once, inspect_all).into_iter().flatten().collect();
        Self::new(registry, venvs)
    }

    pub(crate) fn entries(
        &self,
    ) -> impl Iterator<Item = (&RegistryEntry, &Result<Venv, NotAVenv>)> {
        self.registry.venvs.iter().zip(&self.venvs)
    }

    /// The entries that are venvs.
    pub(crate) fn present(&self) -> impl Iterator<Item = (&RegistryEntry, &Venv)> {
        self.entries().filter_map(|(entry, venv)| Some((entry, venv.as_ref().ok()?)))
    }

    /// The entry with this id, if it is a venv.
    pub(crate) fn get(&self, id: &str) -> Option<(&RegistryEntry, &Venv)> {
        self.present().find(|(entry, _)| entry.id == id)
    }

    /// What uses the venvs, even those that do not exist any more.
    pub(crate) fn users(&self, root: &Root) -> &ServiceMap {
        self.users.get_or_init(|| {
            let paths = self.registry.venvs.iter().map(RegistryEntry::path);
            ServiceMap::build(root, paths, &Processes::look(root))
        })
    }

    /// Looks for users again when somebody asks next: processes were started or ended.
    pub(crate) fn forget_users(&mut self) {
        self.users = OnceLock::new();
    }

    /// The venvs as decisions see them.
    pub(crate) fn subjects(&self, config: &Config) -> Vec<Subject> {
        self.present().map(|(entry, venv)| subject(config, entry, venv)).collect()
    }
}

/// The services of a venv. Declared ones take precedence: then no others are restarted.
fn services_of<'a>(entry: &'a RegistryEntry, usage: &'a VenvUsage) -> Vec<&'a Service> {
    match entry.services.as_slice() {
        [] => usage.services.iter().collect(),
        declared => declared.iter().collect(),
    }
}

/// One venv as a decision sees it.
pub(crate) fn subject(config: &Config, entry: &RegistryEntry, venv: &Venv) -> Subject {
    Subject {
        id: entry.id.clone(),
        name: entry.name.clone(),
        policy: entry.policy,
        restart: entry.restart.unwrap_or(config.restart),
        waits_for: waiting::waits_for(config, entry, clock::local_now),
        venv: venv.clone(),
        pin: entry.pin.as_ref().map(|pin| pin.until),
    }
}

/// How many venvs one thread inspects before it takes more.
const CHUNK: usize = 256;

/// Inspects one registered venv and checks the registry against it: ordinary users can write
/// anything to their own registry.
fn inspect(context: &Context, entry: &RegistryEntry) -> Result<Venv, NotAVenv> {
    let venv = venv::inspect(context.root, entry.path())?;
    match refusal(context, entry, &venv) {
        None => Ok(venv),
        Some(why) => Err(NotAVenv::Refused(why)),
    }
}

/// Why the user we work for cannot have a venv guarded. An ordinary user must own the venv and
/// the services that are restarted for it.
pub(crate) fn refusal(context: &Context, entry: &RegistryEntry, venv: &Venv) -> Option<String> {
    let root = context.root;
    if root.user().is_some_and(|uid| uid != venv.uid) {
        let owner = user::name(root, venv.uid);
        return Some(format!("it belongs to {owner}; only its owner or root can register it"));
    }
    let refused = |service| service::require_trusted(root, service).err();
    entry.services.iter().find_map(refused).map(|error| error.to_string())
}
