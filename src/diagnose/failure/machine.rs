//! What this machine says: its interpreters, its files, and the venvs that a failure concerns.
//!
//! Everything is read, nothing is run. What is in a venv is looked up without following links.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::host::file::printable;
use crate::host::{Dir, Root, command, file};
use crate::inventory::current;
use crate::plan::{Health, State, health};
use crate::python::{self, Interpreters, Minor};
use crate::service::{Current, Processes, Service, ServiceMap, VenvUsage, needs_restart};
use crate::store::{Event, History, Registry};
use crate::venv::{self, Venv};

/// libc has 2 MB, a module of the standard library much less.
const FILE_LIMIT: u64 = 16 << 20;

/// Where Debian's libraries are, without the directory of the architecture.
const LIBRARIES: [&str; 4] = ["/usr/lib", "/lib", "/usr/local/lib", "/lib64"];

/// This machine: what the verification of causes needs of it.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    root: &'a Root,
    pub(super) now: Interpreters,
    pub(super) venvs: Vec<KnownVenv>,
}

/// A venv that a failure concerns.
#[derive(Debug)]
pub(crate) struct KnownVenv {
    pub(super) venv: Venv,
    /// Its name, if it is registered.
    pub(super) name: Option<String>,
    pub(super) health: Health,
    /// Why its processes need a restart, and the services of those.
    pub(super) outdated: Vec<String>,
    pub(super) services: BTreeSet<Service>,
    /// The installed distributions, by normalized name.
    pub(super) distributions: BTreeMap<String, String>,
    pub(super) has_previous: bool,
    /// What venvguard did to it, oldest first.
    events: Vec<Event>,
}

impl<'a> Machine<'a> {
    /// Looks at the machine and at the venvs at some paths; a path that is no venv is left out.
    pub(crate) fn look(
        root: &'a Root,
        paths: &[PathBuf],
        registry: &Registry,
        history: &History,
    ) -> Self {
        let now = python::look(root).unwrap_or_default();
        let inspected = paths.iter().filter_map(|path| venv::inspect(root, path).ok());
        let venvs: Vec<Venv> = inspected.collect();
        if venvs.is_empty() {
            return Self { root, now, venvs: Vec::new() };
        }
        let used = venvs.iter().map(|venv| &venv.path);
        let map = ServiceMap::build(root, used, &Processes::look(root));
        let known = |venv: Venv| {
            let usage = map.of(&venv.path);
            KnownVenv::look(root, venv, &now, usage, registry, history)
        };
        let venvs = venvs.into_iter().map(known).collect();
        Self { root, now, venvs }
    }

    pub(crate) fn venvs(&self) -> &[KnownVenv] {
        &self.venvs
    }

    /// The venv at a path; without one, the only venv that there is.
    pub(super) fn venv(&self, path: Option<&Path>) -> Option<&KnownVenv> {
        match (path, self.venvs.as_slice()) {
            (Some(path), venvs) => venvs.iter().find(|known| known.venv.path == path),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }

    /// Whether something of the system is at a path.
    pub(super) fn has(&self, path: impl AsRef<Path>) -> bool {
        std::fs::symlink_metadata(self.root.at(path)).is_ok()
    }

    /// Whether a file of the system contains a word; `None` if it cannot be read.
    pub(super) fn says(&self, path: &Path, word: &str) -> Option<bool> {
        let real = self.root.follow(path).ok()?.pop()?;
        let is_systems = ["/usr", "/lib", "/lib64"].iter().any(|dir| real.starts_with(dir));
        if !is_systems || word.is_empty() || real.iter().any(|name| name == "..") {
            return None;
        }
        let bytes = file::read_untrusted(&self.root.at(real), FILE_LIMIT).ok()?;
        Some(bytes.windows(word.len()).any(|part| part == word.as_bytes()))
    }

    /// Where a library of the system is.
    pub(super) fn library(&self, name: &str) -> Option<PathBuf> {
        if name.contains('/') {
            return None;
        }
        let below = |dir: &str| -> Vec<PathBuf> {
            let entries = std::fs::read_dir(self.root.at(dir)).into_iter().flatten().flatten();
            let named = entries.filter(|entry| {
                entry.file_name().to_string_lossy().contains("-linux-") && entry.path().is_dir()
            });
            let dirs = named.map(|entry| Path::new(dir).join(entry.file_name()));
            std::iter::once(PathBuf::from(dir)).chain(dirs).collect()
        };
        let places = LIBRARIES.iter().flat_map(|dir| below(dir));
        places.map(|dir| dir.join(name)).find(|path| self.root.at(path).exists())
    }

    /// Whether the system has a program of this name.
    pub(super) fn has_program(&self, name: &str) -> bool {
        let mut places = command::PATH.split(':').map(|dir| Path::new(dir).join(name));
        places.any(|path| self.root.at(path).is_file())
    }

    /// The minor versions that a compiled module of Debian's packages is for.
    pub(super) fn minors_of_module(&self, name: &str) -> Vec<Minor> {
        let dir = self.root.at("/usr/lib/python3/dist-packages");
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let minor = |file: String| {
            let tag = file.strip_prefix(name)?.strip_prefix(".cpython-3")?.split('-').next()?;
            Minor::of_program(&format!("python3.{tag}"))
        };
        entries.filter_map(|entry| minor(entry.file_name().into_string().ok()?)).collect()
    }

    /// The standard library's file or directory of a module, if it exists.
    pub(super) fn has_module(&self, minor: Minor, module: &str) -> bool {
        let path = Path::new("/usr/lib").join(minor.program()).join(module.replace('.', "/"));
        self.has(&path) || self.has(path.with_extension("py"))
    }
}

impl KnownVenv {
    fn look(
        root: &Root,
        venv: Venv,
        now: &Interpreters,
        usage: &VenvUsage,
        registry: &Registry,
        history: &History,
    ) -> Self {
        let entry = registry.venvs.iter().find(|entry| entry.path() == venv.path);
        let current = entry.map_or_else(
            || Current { interpreter: venv.runs(now).map(python::path_of), swapped: None },
            |entry| current(entry, &venv, now),
        );
        let outdated = needs_restart(usage, &current);
        let is_outdated = |one: &&crate::service::VenvProcess| one.stale(&current).is_some();
        let services = usage.processes.iter().filter(is_outdated);
        let services = services.filter_map(|one| one.service.clone()).collect();
        let installed = venv::distributions(&root.at(venv.site_packages())).unwrap_or_default();
        let distributions = installed
            .into_iter()
            .map(|one| (one.normalized_name(), one.version.clone().unwrap_or_default()));
        let events = history.events.iter().filter(|event| event.path() == venv.path);
        Self {
            name: entry.map(|entry| entry.name.clone()),
            health: health(&venv, now, &outdated),
            outdated,
            services,
            distributions: distributions.collect(),
            has_previous: entry.is_some_and(|entry| !entry.previous_trees.is_empty()),
            events: events.cloned().collect(),
            venv,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.venv.path
    }

    /// Why it does not work, and where it is.
    pub(super) fn reasons(&self) -> Vec<String> {
        let path = printable(&self.venv.path);
        self.health.reasons.iter().map(|reason| format!("{path}: {reason}")).collect()
    }

    pub(super) fn is(&self, state: State) -> bool {
        self.health.state == state
    }

    /// Whether site-packages has a module or a file, by its path there; links are not followed.
    pub(super) fn has(&self, machine: &Machine, path: &Path) -> bool {
        let Ok(site) = Dir::open_to_look(&machine.root.at(&self.venv.path)) else { return false };
        let library = Path::new("lib").join(self.venv.site.program()).join("site-packages");
        let dir = path.parent().unwrap_or(Path::new(""));
        let found = site.below(&library).and_then(|site| site.below(dir));
        path.file_name().is_some_and(|name| found.is_ok_and(|dir| dir.kind(name).is_some()))
    }

    /// Whether a top-level module is in site-packages.
    pub(super) fn has_module(&self, machine: &Machine, module: &str) -> bool {
        let top = module.split('.').next().unwrap_or_default();
        self.has(machine, Path::new(top)) || self.has(machine, Path::new(&format!("{top}.py")))
    }

    /// The command that repairs it in the cheapest way.
    pub(super) fn repair(&self) -> String {
        match self.name {
            Some(_) => "`venvguard rebuild --all`".to_string(),
            None => self.first_register("venvguard rebuild --all"),
        }
    }

    /// The command that rebuilds it.
    pub(super) fn rebuild(&self) -> String {
        match &self.name {
            Some(name) => format!("`venvguard rebuild {name}`"),
            None => self.first_register(&format!("venvguard rebuild {}", quoted(&self.venv.path))),
        }
    }

    fn first_register(&self, then: &str) -> String {
        format!("`venvguard register {} && {then}`", quoted(&self.venv.path))
    }

    /// The command that installs something in it, as its owner.
    pub(super) fn install(&self, what: &str) -> String {
        format!("`{} -m pip install {what}`", quoted(&self.venv.path.join("bin/python")))
    }

    /// The last event that moved it to another Python.
    pub(super) fn moved(&self) -> Option<&Event> {
        let moves =
            |event: &&Event| matches!(event.what.as_str(), "rebuilt" | "refreshed" | "restarted");
        self.events.iter().rfind(moves)
    }
}

/// A path for a command line.
pub(super) fn quoted(path: &Path) -> String {
    let text = printable(path);
    shlex::try_quote(&text).map_or_else(|_| text.clone(), std::borrow::Cow::into_owned)
}
