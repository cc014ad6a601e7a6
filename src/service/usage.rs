//! Finds the users of venvs: processes and services.
//!
//! The map is built once for all venvs: each process and each unit is inspected once, and the
//! paths they name are looked up in an index, so that 10,000 venvs cost no more than ten.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Service;
use super::discover::embedded::Embedding;
use super::discover::process::{Process, Processes};
use super::discover::venvs::{Index, used};
use super::managers::serving;
use crate::host::Root;

/// A process that uses a venv.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VenvProcess {
    pub(crate) process: Process,
    /// The service it belongs to; `None` if no known manager runs it.
    pub(crate) service: Option<Service>,
    /// How long ago it was started.
    pub(crate) age: Duration,
}

/// What the processes of a venv would run if they were started now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Current {
    /// The base interpreter, such as `/usr/bin/python3.13`.
    pub(crate) interpreter: Option<PathBuf>,
    /// How long ago the tree was swapped in.
    pub(crate) swapped: Option<Duration>,
}

/// How far the clocks may differ that time a start and a swap.
const MARGIN: Duration = Duration::from_secs(2);

impl VenvProcess {
    /// Why it runs code that was replaced, if it does.
    pub(crate) fn stale(&self, current: &Current) -> Option<String> {
        let replaced = self.process.stale(current.interpreter.as_deref());
        // Of pure Python code, nothing is mapped that would show it.
        let is_older = current.swapped.is_some_and(|swapped| self.age > swapped + MARGIN);
        let older = "it was started before the venv was replaced";
        replaced.or_else(|| is_older.then(|| older.to_string()))
    }
}

/// The users of one venv.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct VenvUsage {
    /// Services that a process belongs to or whose configuration names the venv, running or not.
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

    /// The program of Debian that runs the venv's code within itself, if one does.
    pub(crate) fn embedding(&self, root: &Root) -> Option<Embedding> {
        self.processes.iter().find_map(|user| user.process.embedding(root))
    }
}

/// Why a venv's users need a restart, one reason per service; empty if none does.
pub(crate) fn needs_restart(users: &VenvUsage, current: &Current) -> Vec<String> {
    let mut pids: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for user in &users.processes {
        if let Some(reason) = user.stale(current) {
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
    /// The processes that run Python and use none of the venvs.
    pub(crate) others: Vec<VenvProcess>,
    /// How many processes, for an ordinary user of their own, could not be looked at.
    pub(crate) skipped: usize,
    /// Descriptions of what could not be inspected.
    pub(crate) gaps: Vec<String>,
}

impl ServiceMap {
    /// Finds the users of `venvs`.
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
        let mut others = Vec::new();
        for process in ordered {
            let venvs = used(root, process, processes, &index);
            if venvs.is_empty() && !process.runs_python() {
                continue;
            }
            let service = found.service_of(process, processes).cloned();
            let age = processes.age(process);
            let user = VenvProcess { process: process.clone(), service, age };
            for venv in &venvs {
                // The index only returns numbers of venvs.
                let Some(users) = users.get_mut(*venv) else { continue };
                users.services.extend(user.service.clone());
                users.processes.push(user.clone());
            }
            if venvs.is_empty() {
                others.push(user);
            }
        }
        for (service, paths) in &found.configured {
            for venv in paths.iter().filter_map(|path| index.venv_of_configured(path)) {
                if let Some(users) = users.get_mut(venv) {
                    users.services.insert(service.clone());
                }
            }
        }
        let gaps = found.gaps.into_iter().chain(processes.gap()).collect();
        Self {
            users: index.venvs.into_iter().zip(users).collect(),
            none: VenvUsage::default(),
            others,
            skipped: processes.skipped(root.user()),
            gaps,
        }
    }

    /// The users of the venv at `path`, spelled as for [`ServiceMap::build`].
    pub(crate) fn of(&self, path: &Path) -> &VenvUsage {
        self.users.get(path).unwrap_or(&self.none)
    }
}

/// The findings of all managers.
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

    /// The nearest service that a process descends from; if there is none, the one that it is a
    /// member of. A manager that forks its services may itself be a unit of systemd, and then they
    /// share its cgroup.
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
