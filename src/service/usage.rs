//! Who uses which venv.
//!
//! Built once for all venvs: each process and each unit is looked at once, and the paths
//! they name are looked up in an index, so that 10,000 venvs cost no more than ten.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::Service;
use super::discover::process::{Process, Processes};
use super::discover::venvs::{Index, used};
use super::managers::serving;
use crate::host::Root;

/// A process that runs out of a venv.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VenvProcess {
    pub(crate) process: Process,
    /// The service it belongs to; None where no manager that we know runs it.
    pub(crate) service: Option<Service>,
}

/// Who uses one venv.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct VenvUsage {
    /// Running or not: those that a process belongs to and those whose configuration
    /// names the venv.
    pub(crate) services: BTreeSet<Service>,
    /// In the order of their pids.
    pub(crate) processes: Vec<VenvProcess>,
}

impl VenvUsage {
    /// The processes that belong to one of `services`.
    pub(crate) fn processes_of<'a>(
        &'a self,
        services: &'a BTreeSet<Service>,
    ) -> impl Iterator<Item = &'a Process> {
        let belongs = |user: &&VenvProcess| {
            user.service.as_ref().is_some_and(|service| services.contains(service))
        };
        self.processes.iter().filter(belongs).map(|user| &user.process)
    }

    /// The processes that run old code and that no manager of ours runs: somebody has to
    /// restart them by hand. In words.
    pub(crate) fn unmanaged(&self, interpreter: Option<&Path>) -> Vec<String> {
        self.processes
            .iter()
            .filter(|user| user.service.is_none())
            .filter_map(|VenvProcess { process, .. }| {
                Some(format!("{}: {}", process.describe(), process.stale(interpreter)?))
            })
            .collect()
    }
}

/// Why a venv's users need a restart, one reason a service; empty where none does.
/// `interpreter` is the base interpreter the venv has now.
pub(crate) fn needs_restart(users: &VenvUsage, interpreter: Option<&Path>) -> Vec<String> {
    let mut pids: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for user in &users.processes {
        if let Some(reason) = user.process.stale(interpreter) {
            let who =
                user.service.as_ref().map_or_else(|| user.process.describe(), Service::to_string);
            pids.entry((who, reason)).or_default().push(user.process.id.pid.to_string());
        }
    }
    pids.into_iter()
        .map(|((who, reason), pids)| match pids.as_slice() {
            [_] if who.starts_with("pid ") => format!("{who}: {reason}"),
            [pid] => format!("{who} (pid {pid}): {reason}"),
            _ => format!("{who} (pids {}): {reason}", pids.join(", ")),
        })
        .collect()
}

/// The users of all venvs.
#[derive(Debug)]
pub(crate) struct ServiceMap {
    users: HashMap<PathBuf, VenvUsage>,
    none: VenvUsage,
    /// What could not be looked at, in words.
    pub(crate) gaps: Vec<String>,
}

impl ServiceMap {
    /// Looks for the users of `venvs`.
    pub(crate) fn build<P: AsRef<Path>>(
        root: &Root,
        venvs: impl IntoIterator<Item = P>,
        processes: &Processes,
    ) -> Self {
        let index = Index::new(root, venvs);
        let found = Found::look(root, processes);
        let mut users = vec![VenvUsage::default(); index.venvs.len()];
        let mut ordered: Vec<&Process> = processes.iter().collect();
        ordered.sort_unstable_by_key(|process| process.id);
        for process in ordered {
            for venv in used(root, process, processes, &index) {
                // The index gives out only numbers of venvs.
                let Some(users) = users.get_mut(venv) else { continue };
                let service = found.service_of(process, processes).cloned();
                users.services.extend(service.clone());
                users.processes.push(VenvProcess { process: process.clone(), service });
            }
        }
        for (service, paths) in &found.configured {
            for venv in paths.iter().filter_map(|path| index.venv_of(path)) {
                if let Some(users) = users.get_mut(venv) {
                    users.services.insert(service.clone());
                }
            }
        }
        let gaps = found.gaps.into_iter().chain(processes.gap()).collect();
        Self {
            users: index.venvs.into_iter().zip(users).collect(),
            none: VenvUsage::default(),
            gaps,
        }
    }

    /// Who uses the venv at `path`, as it was given to [`ServiceMap::build`].
    pub(crate) fn of(&self, path: &Path) -> &VenvUsage {
        self.users.get(path).unwrap_or(&self.none)
    }
}

/// What all managers found.
#[derive(Default)]
struct Found {
    trees: HashMap<u32, Option<Service>>,
    members: HashMap<u32, Service>,
    configured: Vec<(Service, Vec<PathBuf>)>,
    gaps: Vec<String>,
}

impl Found {
    fn look(root: &Root, processes: &Processes) -> Self {
        let mut found = Self::default();
        for manager in serving(root) {
            let own = manager.discover(root, processes);
            let service = |name: String| Service::new(manager, &name).ok();
            let trees = own.trees.into_iter().map(|(pid, name)| (pid, name.and_then(service)));
            found.trees.extend(trees);
            let members = own.members.into_iter();
            found.members.extend(members.filter_map(|(pid, name)| Some((pid, service(name)?))));
            let configured = own.configured.into_iter();
            let configured = configured.filter_map(|(name, paths)| Some((service(name)?, paths)));
            found.configured.extend(configured);
            found.gaps.extend(own.gaps);
        }
        found
    }

    /// The service that a process descends from, the nearest one; if it descends from none, the one
    /// that it is a member of. A manager that forks its services may itself be a unit of systemd's,
    /// and then they share its cgroup.
    fn service_of(&self, process: &Process, processes: &Processes) -> Option<&Service> {
        let tree = processes.lineage(process).find_map(|one| self.trees.get(&one.id.pid));
        match tree {
            Some(service) => service.as_ref(),
            None => self.members.get(&process.id.pid),
        }
    }
}

#[cfg(test)]
mod tests;
