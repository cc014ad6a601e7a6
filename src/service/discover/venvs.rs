//! Finds the venvs that a process uses.

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::cgroup::CgroupOwner;
use super::embedded::Embeds;
use super::process::{DirId, Process, Processes, WORDS};
use super::{apache, uwsgi};
use crate::host::Root;
use crate::venv::venv_of_aside;

/// Finds the venv that contains a path.
pub(crate) struct Index {
    root: Root,
    pub(crate) venvs: Vec<PathBuf>,
    by_path: HashMap<PathBuf, usize>,
    by_identity: HashMap<DirId, usize>,
    /// The venvs that Apache's configuration names, read once it is needed.
    of_apache: OnceCell<BTreeSet<usize>>,
}

impl Index {
    /// A venv is indexed by its path as given and by the path that its links resolve to: the kernel
    /// reports only the latter.
    pub(crate) fn new<P: AsRef<Path>>(root: &Root, venvs: impl IntoIterator<Item = P>) -> Self {
        let venvs: Vec<PathBuf> =
            venvs.into_iter().map(|path| path.as_ref().to_path_buf()).collect();
        let mut by_path = HashMap::with_capacity(venvs.len());
        for (number, path) in venvs.iter().enumerate() {
            by_path.insert(path.clone(), number);
        }
        let mut by_identity = HashMap::with_capacity(venvs.len());
        for (number, path) in venvs.iter().enumerate() {
            if let Some(real) = resolved(root, path) {
                by_path.entry(real).or_insert(number);
            }
            let metadata = fs::metadata(root.at(path)).ok();
            by_identity.extend(metadata.map(|m| ((m.dev(), m.ino()), number)));
        }
        Self { root: root.clone(), venvs, by_path, by_identity, of_apache: OnceCell::new() }
    }

    /// Compares whole names: `/opt/web2` is not in `/opt/web`.
    pub(crate) fn venv_of(&self, path: &Path) -> Option<usize> {
        path.ancestors().find_map(|dir| {
            let known = |path: &Path| self.by_path.get(path).copied();
            // Mapped files have their current path: in the previous environment.
            known(dir).or_else(|| known(&venv_of_aside(dir)?))
        })
    }

    /// The venv that a path in a configuration file leads to, perhaps through links.
    pub(crate) fn venv_of_configured(&self, path: &Path) -> Option<usize> {
        let real = |path: &Path| self.venv_of(&resolved(&self.root, path)?);
        // The directory first: the link `bin/python` leads out of its venv.
        self.venv_of(path).or_else(|| real(path.parent()?)).or_else(|| real(path))
    }

    /// The venvs that Apache's configuration names.
    fn of_apache(&self) -> &BTreeSet<usize> {
        self.of_apache.get_or_init(|| {
            let named = apache::named(&self.root);
            named.iter().filter_map(|path| self.venv_of_configured(path)).collect()
        })
    }

    /// The venv whose `bin` contains a program.
    fn venv_of_program(&self, path: &Path) -> Option<usize> {
        let dir = path.parent().filter(|dir| dir.file_name().is_some_and(|n| n == "bin"))?;
        self.by_path.get(dir.parent()?).copied()
    }
}

/// A path without links; `None` if it does not exist.
#[expect(
    clippy::disallowed_methods,
    reason = "the whole path is resolved, and paths outside the root prefix match nothing"
)]
fn resolved(root: &Root, path: &Path) -> Option<PathBuf> {
    fs::canonicalize(root.at(path)).ok().map(|real| root.logical(&real))
}

/// The venvs that a process uses.
pub(crate) fn used(
    root: &Root,
    process: &Process,
    processes: &Processes,
    index: &Index,
) -> BTreeSet<usize> {
    let mut venvs: BTreeSet<usize> = BTreeSet::new();
    if process.has_own_root {
        let named = process.homes.iter().chain(&process.activated);
        venvs.extend(named.filter_map(|home| index.by_identity.get(home)));
        return venvs;
    }
    venvs.extend(process.exe.as_ref().and_then(|exe| index.venv_of(&exe.path)));
    let program = |word: &Path| {
        let named = process.dirs.iter().map(|dir| dir.join(word));
        // A relative name is relative to where the process was started, or to where it is now.
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
    venvs.extend(process.homes.iter().filter_map(|home| index.by_identity.get(home)));
    venvs.extend(process.arguments.iter().skip(1).take(WORDS).find_map(|w| program(Path::new(w))));
    venvs.extend(process.mapped.iter().filter_map(|image| index.venv_of(&image.path)));
    let is_uwsgi = process.calls_itself_uwsgi();
    // A system's script in an activated shell has VIRTUAL_ENV too; it was started as
    // /usr/bin/python3 and does not use the venv. uWSGI itself reads the variable.
    if is_uwsgi || called.is_none_or(|called| !called.is_absolute()) {
        venvs.extend(process.virtual_env.as_ref().and_then(|venv| index.venv_of(venv)));
        venvs.extend(process.activated.and_then(|home| index.by_identity.get(&home)));
        venvs.extend(on_search_path(process, index));
    }
    if process.embeds_python() == Some(Embeds::Apache) {
        venvs.extend(index.of_apache());
    }
    if is_uwsgi && !matches!(process.place, CgroupOwner::UserUnit { .. }) {
        let named = uwsgi::venvs(root, process, processes);
        venvs.extend(named.iter().filter_map(|path| index.venv_of_configured(path)));
    }
    venvs
}

/// The venv in which the search path finds a bare `python`, unless it finds the system's first.
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
