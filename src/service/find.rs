//! Who uses which venv.
//!
//! Built once for all venvs: each process and each unit is looked at once, and the paths
//! they name are looked up in an index, so that 10,000 venvs cost no more than ten.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Service;
use super::discover::cgroup::CgroupOwner;
use super::discover::command_line::paths;
use super::discover::process::{Process, Processes};
use super::discover::{unit_file, uwsgi};
use super::managers::supervisord::{self, Supervised};
use crate::host::Root;
use crate::venv::venv_of_aside;

/// How many words of a Python's command line may name its program: options come first.
const WORDS: usize = 6;

/// A supervisord younger than this may not listen yet; for as long it is waited for.
const SUPERVISORD_START: Duration = Duration::from_secs(10);

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
        let (supervised, errors) = match root.user() {
            None => supervisord::programs(root, patience(processes)),
            // It is root who tells supervisord.
            Some(_) => Default::default(),
        };
        let gaps = errors.iter().map(ToString::to_string).chain(processes.gap()).collect();
        let mut users = vec![VenvUsage::default(); index.venvs.len()];
        let programs =
            supervised.iter().filter_map(|program| Some((program.pid?, &program.service)));
        let programs: HashMap<u32, &Service> = programs.collect();
        let mut ordered: Vec<&Process> = processes.iter().collect();
        ordered.sort_unstable_by_key(|process| process.id);
        for process in ordered {
            for venv in used(root, process, processes, &index) {
                // The index gives out only numbers of venvs.
                let Some(users) = users.get_mut(venv) else { continue };
                let service = service_of(root, process, processes, &programs);
                users.services.extend(service.clone());
                users.processes.push(VenvProcess { process: process.clone(), service });
            }
        }
        for (service, venv) in configured(root, processes, supervised, &index) {
            if let Some(users) = users.get_mut(venv) {
                users.services.insert(service);
            }
        }
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

/// Which venv a path lies in.
struct Index {
    venvs: Vec<PathBuf>,
    by_path: HashMap<PathBuf, usize>,
}

impl Index {
    #[expect(
        clippy::disallowed_methods,
        reason = "the whole of a path is resolved, and what leaves the root prefix matches nothing"
    )]
    /// A venv is known by its path as given and by the one that links lead to: the kernel
    /// tells only the latter.
    fn new<P: AsRef<Path>>(root: &Root, venvs: impl IntoIterator<Item = P>) -> Self {
        let venvs: Vec<PathBuf> =
            venvs.into_iter().map(|path| path.as_ref().to_path_buf()).collect();
        let mut by_path = HashMap::with_capacity(venvs.len());
        for (number, path) in venvs.iter().enumerate() {
            by_path.insert(path.clone(), number);
        }
        for (number, path) in venvs.iter().enumerate() {
            if let Ok(real) = fs::canonicalize(root.at(path)) {
                by_path.entry(root.logical(&real)).or_insert(number);
            }
        }
        Self { venvs, by_path }
    }

    /// Compares whole names: `/opt/web2` does not lie in `/opt/web`.
    fn venv_of(&self, path: &Path) -> Option<usize> {
        path.ancestors().find_map(|dir| {
            let known = |path: &Path| self.by_path.get(path).copied();
            // What a process has mapped is named by where it lies now: in the previous environment.
            known(dir).or_else(|| known(&venv_of_aside(dir)?))
        })
    }

    /// The venv whose `bin` a program lies in.
    fn venv_of_program(&self, path: &Path) -> Option<usize> {
        let dir = path.parent().filter(|dir| dir.file_name().is_some_and(|n| n == "bin"))?;
        self.by_path.get(dir.parent()?).copied()
    }
}

/// The venvs that a process uses.
fn used(root: &Root, process: &Process, processes: &Processes, index: &Index) -> BTreeSet<usize> {
    let mut venvs = BTreeSet::new();
    venvs.extend(process.exe.as_ref().and_then(|exe| index.venv_of(&exe.path)));
    let program = |word: &Path| {
        let named = process.dirs.iter().map(|dir| dir.join(word));
        // A relative name is meant from where the process was started, or is now.
        let bare = word.components().count() < 2;
        let all = if word.is_absolute() { vec![word.to_path_buf()] } else { named.collect() };
        (!bare)
            .then_some(all)
            .into_iter()
            .flatten()
            .find_map(|path| index.venv_of_program(&crate::host::root::normal(&path)))
    };
    let called = process.arguments.first().map(Path::new);
    venvs.extend(called.and_then(program));
    if !process.runs_python() {
        return venvs;
    }
    venvs.extend(process.arguments.iter().skip(1).take(WORDS).find_map(|w| program(Path::new(w))));
    venvs.extend(process.mapped.iter().filter_map(|image| index.venv_of(&image.path)));
    let is_uwsgi = is_uwsgi(process);
    // A system's script in an activated shell has VIRTUAL_ENV too; it was started as
    // /usr/bin/python3 and does not use the venv. uWSGI itself reads the variable.
    if is_uwsgi || called.is_none_or(|called| !called.is_absolute()) {
        venvs.extend(process.virtual_env.as_ref().and_then(|venv| index.venv_of(venv)));
        venvs.extend(on_search_path(process, index));
    }
    if is_uwsgi && !matches!(process.place, CgroupOwner::UserUnit { .. }) {
        let named = uwsgi::venvs(root, process, processes);
        venvs.extend(named.iter().filter_map(|path| index.venv_of(path)));
    }
    venvs
}

/// The venv that a bare `python` means by its search path, as far as that leads to one
/// before it leads to the system's own.
fn on_search_path(process: &Process, index: &Index) -> Option<usize> {
    let called = Path::new(process.arguments.first()?);
    if called.components().count() != 1 {
        return None;
    }
    let dirs = process.search_path.iter();
    let mut ours =
        dirs.take_while(|dir| !["/usr/bin", "/bin"].map(Path::new).contains(&dir.as_path()));
    ours.find_map(|dir| index.venv_of_program(&dir.join("python")))
}

fn is_uwsgi(process: &Process) -> bool {
    let called = process.arguments.iter().take(2).map(Path::new);
    let all = called.chain(process.exe.as_ref().map(|exe| exe.path.as_path()));
    all.filter_map(Path::file_name)
        .any(|name| name.as_bytes().windows(5).any(|part| part == b"uwsgi"))
}

/// The supervisord program that a process descends from; if none, its unit. For an ordinary
/// user, the unit of his own.
fn service_of(
    root: &Root,
    process: &Process,
    processes: &Processes,
    programs: &HashMap<u32, &Service>,
) -> Option<Service> {
    if let Some(user) = root.user() {
        return match &process.place {
            CgroupOwner::UserUnit { uid, unit } if *uid == user => Service::users_unit(unit).ok(),
            _ => None,
        };
    }
    let program = processes.lineage(process).find_map(|ancestor| programs.get(&ancestor.id.pid));
    match (program, &process.place) {
        (Some(program), _) => Some((*program).clone()),
        (None, CgroupOwner::Unit(service)) => Some(service.clone()),
        (None, _) => None,
    }
}

/// The services whose configuration names a venv, running or not.
fn configured(
    root: &Root,
    processes: &Processes,
    supervised: Vec<Supervised>,
    index: &Index,
) -> Vec<(Service, usize)> {
    let none = HashMap::new();
    let running =
        processes.iter().filter_map(|process| service_of(root, process, processes, &none));
    let units = unit_file::units(root, &running.collect());
    let units = units.into_iter().map(|unit| (unit.service, unit.paths));
    let programs = supervised.into_iter().map(|program| (program.service, paths(&program.command)));
    units
        .chain(programs)
        .flat_map(|(service, paths)| {
            let venvs: BTreeSet<_> = paths.iter().filter_map(|path| index.venv_of(path)).collect();
            venvs.into_iter().map(move |venv| (service.clone(), venv))
        })
        .collect()
}

/// How long a supervisord that does not answer is waited for: not at all, unless one was
/// started just now (its package's upgrade does that in the midst of a transaction).
fn patience(processes: &Processes) -> Duration {
    let is_supervisord = |process: &&Process| {
        let words = process.arguments.iter().take(3).map(Path::new);
        words.filter_map(Path::file_name).any(|name| name == "supervisord")
    };
    let is_young = |process: &Process| processes.age(process) < SUPERVISORD_START;
    if processes.iter().filter(is_supervisord).any(is_young) {
        SUPERVISORD_START
    } else {
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests;
