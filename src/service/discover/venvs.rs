//! Finds the venvs that a process uses.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::cgroup::CgroupOwner;
use super::process::{Process, Processes};
use super::uwsgi;
use crate::host::Root;
use crate::venv::venv_of_aside;

/// How many words of a Python's command line may name its program: options come first.
const WORDS: usize = 6;

/// Finds the venv that contains a path.
pub(crate) struct Index {
    pub(crate) venvs: Vec<PathBuf>,
    by_path: HashMap<PathBuf, usize>,
}

impl Index {
    /// A venv is indexed by its path as given and by the path that its links resolve to: the kernel
    /// reports only the latter.
    #[expect(
        clippy::disallowed_methods,
        reason = "the whole path is resolved, and paths outside the root prefix match nothing"
    )]
    pub(crate) fn new<P: AsRef<Path>>(root: &Root, venvs: impl IntoIterator<Item = P>) -> Self {
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

    /// Compares whole names: `/opt/web2` is not in `/opt/web`.
    pub(crate) fn venv_of(&self, path: &Path) -> Option<usize> {
        path.ancestors().find_map(|dir| {
            let known = |path: &Path| self.by_path.get(path).copied();
            // Mapped files have their current path: in the previous environment.
            known(dir).or_else(|| known(&venv_of_aside(dir)?))
        })
    }

    /// The venv whose `bin` contains a program.
    fn venv_of_program(&self, path: &Path) -> Option<usize> {
        let dir = path.parent().filter(|dir| dir.file_name().is_some_and(|n| n == "bin"))?;
        self.by_path.get(dir.parent()?).copied()
    }
}

/// The venvs that a process uses.
pub(crate) fn used(
    root: &Root,
    process: &Process,
    processes: &Processes,
    index: &Index,
) -> BTreeSet<usize> {
    let mut venvs = BTreeSet::new();
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

fn is_uwsgi(process: &Process) -> bool {
    let called = process.arguments.iter().take(2).map(Path::new);
    let all = called.chain(process.exe.as_ref().map(|exe| exe.path.as_path()));
    all.filter_map(Path::file_name)
        .any(|name| name.as_bytes().windows(5).any(|part| part == b"uwsgi"))
}
