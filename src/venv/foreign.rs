//! The user files of a venv, which neither its creator nor an installer wrote: `.env`,
//! hooks of activate, hand-made `.pth` files, data. Nothing can recreate them, so a rebuild
//! carries them over, to paths that are still free.
//!
//! A file that an installer wrote and a user modified afterwards is not among them; the hash in
//! its `RecordEntry` reveals it.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use serde::Serialize;

use super::{Distribution, Flavour, Layout, creator};
use crate::host::dir::{DEPTH_LIMIT, DirEntry};
use crate::host::root::normal;
use crate::host::{Dir, Root};
use crate::python::Minor;

/// No venv has more files or longer paths in total; they would not fit into memory.
const FILES_LIMIT: usize = 2_000_000;
const PATHS_LIMIT: usize = 256 << 20;

/// A longer path cannot be opened in one call (`PATH_MAX`), so no program uses it.
const PATH_LIMIT: usize = 4096;

/// A file in a venv that neither the creator nor a distribution accounts for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct ForeignFile {
    /// Relative to the venv.
    pub(crate) path: PathBuf,
    pub(crate) kind: ForeignKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ForeignKind {
    File,
    Link,
    /// A directory that contains only user files, which are listed too.
    Directory,
    /// A directory that this process may not read.
    Closed,
    /// A socket, FIFO or device: to be left alone.
    Other,
}

/// Everything in a venv that neither its creator nor one of its distributions accounts for,
/// sorted by path. `distributions` are those of its site-packages. Library directories of other
/// minor versions (an upgrade in place leaves them) are not searched.
pub(crate) fn foreign_files(
    root: &Root,
    venv: &Layout,
    distributions: &[Distribution],
) -> io::Result<Vec<ForeignFile>> {
    let mut walk = Walk {
        accounted: Accounted::of(root, venv, distributions),
        flavour: venv.flavour,
        site: venv.site,
        found: Vec::new(),
        bytes: 0,
    };
    let top = Dir::open(&root.at(venv.path()))?;
    walk.dir(&top, top.entries()?, Path::new(""), 0)?;
    walk.found.sort();
    Ok(walk.found)
}

/// The files that the distributions account for; paths are relative to the venv.
#[derive(Debug, Default)]
struct Accounted {
    /// `lib/pythonX.Y/site-packages`.
    site_packages: PathBuf,
    /// Files that an installer wrote.
    files: HashSet<PathBuf>,
    /// Directories that belong to a distribution with all their contents.
    trees: HashSet<PathBuf>,
    /// Modules of distributions without a list of files.
    modules: HashSet<String>,
}

impl Accounted {
    fn of(root: &Root, venv: &Layout, distributions: &[Distribution]) -> Self {
        let site_packages = super::site_packages(Path::new(""), venv.site);
        let real = root.at(venv.site_packages());
        let mut accounted = Self { site_packages, ..Self::default() };
        for distribution in distributions {
            accounted.add(venv, distribution, &real);
        }
        accounted
    }

    fn add(&mut self, venv: &Layout, distribution: &Distribution, site_packages: &Path) {
        self.trees.insert(self.site_packages.join(&distribution.info));
        if let Ok(Some(entries)) = distribution.record(site_packages) {
            let below = |path: &Path| match path.strip_prefix(venv.path()) {
                Ok(inside) => Some(inside.to_path_buf()),
                Err(_) if path.is_absolute() => None,
                Err(_) => Some(normal(&self.site_packages.join(path))),
            };
            self.files.extend(entries.iter().filter_map(|entry| below(&entry.path)));
            return;
        }
        let modules = distribution.declared_modules(site_packages);
        if modules.is_empty() {
            self.modules.insert(distribution.normalized_name().replace('-', "_"));
        }
        self.modules.extend(modules);
        let scripts = distribution.declared_scripts(site_packages);
        self.files.extend(scripts.into_iter().map(|name| Path::new("bin").join(name)));
        // Where easy_install and `setup.py develop` record their additions to the path.
        self.files.insert(self.site_packages.join("easy-install.pth"));
    }

    fn has(&self, path: &Path) -> bool {
        self.files.contains(path)
            || self.trees.contains(path)
            || self.is_module(path)
            || self.is_bytecode(path)
    }

    /// `name.py`, `name.cpython-311-….so` or the directory `name` directly in site-packages.
    fn is_module(&self, path: &Path) -> bool {
        let name = || path.file_name()?.to_str()?.split('.').next();
        path.parent() == Some(&self.site_packages)
            && name().is_some_and(|name| self.modules.contains(name))
    }

    /// The bytecode that Python 2 and `compileall -b` write beside the source.
    fn is_bytecode(&self, path: &Path) -> bool {
        path.extension().is_some_and(|extension| extension == "pyc")
            && self.files.contains(&path.with_extension("py"))
    }
}

struct Walk {
    accounted: Accounted,
    flavour: Flavour,
    site: Minor,
    found: Vec<ForeignFile>,
    /// The total length of the paths found.
    bytes: usize,
}

impl Walk {
    /// Whether something in the directory is accounted for.
    fn dir(
        &mut self,
        dir: &Dir,
        entries: Vec<DirEntry>,
        path: &Path,
        depth: usize,
    ) -> io::Result<bool> {
        let mut is_shared = creator::is_skeleton(path, self.site);
        for DirEntry { name, kind } in entries {
            // Recreated from the sources.
            if name == "__pycache__" {
                continue;
            }
            let inner = path.join(&name);
            if self.accounted.has(&inner)
                || creator::created_by_tool(dir, &inner, kind, self.flavour, self.site)
            {
                is_shared = true;
            } else if kind.is_dir() {
                is_shared |= self.dir_in(dir, &name, inner, depth)?;
            } else {
                self.add(inner, kind)?;
            }
        }
        Ok(is_shared)
    }

    fn dir_in(&mut self, dir: &Dir, name: &OsStr, path: PathBuf, depth: usize) -> io::Result<bool> {
        if depth == DEPTH_LIMIT {
            return Err(io::Error::other("its directories are nested too deeply"));
        }
        // A directory that may be read but not searched lists nothing either.
        let read = dir.dir(name).and_then(|opened| Ok((opened.entries()?, opened)));
        let (entries, opened) = match read {
            Ok(read) => read,
            // It was removed in the meantime.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.push(path, ForeignKind::Closed)?;
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let (found, is_empty) = (self.found.len(), entries.is_empty());
        let is_shared = self.dir(&opened, entries, &path, depth + 1)?;
        // Bytecode alone is the remains of a removed module.
        let is_theirs = self.found.len() > found || is_empty;
        if is_theirs && !is_shared {
            self.add(path, FileType::Directory)?;
        }
        Ok(is_shared)
    }

    fn add(&mut self, path: PathBuf, kind: FileType) -> io::Result<()> {
        let kind = match kind {
            FileType::RegularFile => ForeignKind::File,
            FileType::Symlink => ForeignKind::Link,
            FileType::Directory => ForeignKind::Directory,
            _ => ForeignKind::Other,
        };
        self.push(path, kind)
    }

    fn push(&mut self, path: PathBuf, kind: ForeignKind) -> io::Result<()> {
        let length = path.as_os_str().len();
        self.bytes = self.bytes.saturating_add(length);
        if length > PATH_LIMIT {
            return Err(io::Error::other(format!(
                "it contains a path longer than {PATH_LIMIT} bytes"
            )));
        }
        if self.found.len() == FILES_LIMIT || self.bytes > PATHS_LIMIT {
            return Err(io::Error::other("it contains too many user files"));
        }
        self.found.push(ForeignFile { path, kind });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::venv::distributions;

    /// A venv as `python3 -m venv` creates it, with one distribution.
    struct Made(tempfile::TempDir);

    impl Made {
        fn new() -> Self {
            let made = Self(tempfile::tempdir().unwrap());
            for file in [
                "pyvenv.cfg",
                "bin/activate",
                "bin/activate.fish",
                "bin/Activate.ps1",
                "bin/pip",
                "bin/pip3.11",
                "bin/pip-3.11",
                "bin/wheel",
                "bin/pydoc.bat",
                "bin/flask",
                "lib/python3.11/site-packages/flask/__init__.py",
                "lib/python3.11/site-packages/flask/__pycache__/__init__.cpython-311.pyc",
                "lib/python3.11/site-packages/flask/app.py",
                "lib/python3.11/site-packages/flask/app.pyc",
                "lib/python3.11/site-packages/flask-3.0.dist-info/uv_cache.json",
                "lib/python3.11/site-packages/_virtualenv.py",
                "lib/python3.11/site-packages/~lask/old.py",
                "share/man/man1/flask.1",
            ] {
                made.write(file, "");
            }
            made.write(
                "lib/python3.11/site-packages/flask-3.0.dist-info/RECORD",
                "flask/__init__.py,,\nflask/app.py,,\n../../../bin/flask,,\n\
                 ../../../share/man/man1/flask.1,,\n",
            );
            for dir in ["include/python3.11", "lib/python3.11/site-packages/flask/__pycache__"] {
                fs::create_dir_all(made.at(dir)).unwrap();
            }
            symlink("lib", made.at("lib64")).unwrap();
            symlink("/usr/bin/python3", made.at("bin/python3")).unwrap();
            symlink("python3", made.at("bin/python")).unwrap();
            symlink("python3", made.at("bin/𝜋thon")).unwrap();
            symlink("python3", made.at("bin/python3.11")).unwrap();
            made
        }

        fn at(&self, path: &str) -> PathBuf {
            self.0.path().join("srv/app").join(path)
        }

        fn write(&self, path: &str, text: &str) -> &Self {
            fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
            fs::write(self.at(path), text).unwrap();
            self
        }

        fn foreign_of(&self, flavour: Flavour) -> Vec<String> {
            let venv = Layout::new(Path::new("/srv/app"), Minor::new(3, 11), flavour);
            let root = Root::new(self.0.path());
            let installed = distributions(&root.at(venv.site_packages())).unwrap();
            let told = |file: &ForeignFile| format!("{:?} {}", file.kind, file.path.display());
            foreign_files(&root, &venv, &installed).unwrap().iter().map(told).collect()
        }

        fn foreign(&self) -> Vec<String> {
            self.foreign_of(Flavour::Venv)
        }
    }

    #[test]
    fn an_unchanged_venv_contains_no_user_files() {
        assert_eq!(Made::new().foreign(), [""; 0]);
    }

    #[test]
    fn user_files_are_found() {
        let made = Made::new();
        made.write(".env", "SECRET=1")
            .write("bin/postactivate", "")
            .write("pip.conf", "")
            .write("lib/python3.11/site-packages/local.pth", "/srv/lib")
            .write("lib/python3.11/site-packages/flask/static/logo.png", "")
            .write("lib/python3.11/site-packages/hand.py", "")
            .write("share/jupyter/kernels/app/kernel.json", "{}")
            .write("pipx_metadata.json", "{}");
        fs::create_dir_all(made.at("var/run")).unwrap();
        symlink("/srv/data", made.at("data")).unwrap();
        let fifo = made.at("var/fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(
            made.foreign(),
            [
                "File .env",
                "File bin/postactivate",
                "Link data",
                "Directory lib/python3.11/site-packages/flask/static",
                "File lib/python3.11/site-packages/flask/static/logo.png",
                "File lib/python3.11/site-packages/hand.py",
                "File lib/python3.11/site-packages/local.pth",
                "File pip.conf",
                "File pipx_metadata.json",
                "Directory share/jupyter",
                "Directory share/jupyter/kernels",
                "Directory share/jupyter/kernels/app",
                "File share/jupyter/kernels/app/kernel.json",
                "Directory var",
                "Other var/fifo",
                "Directory var/run",
            ]
        );
    }

    #[test]
    fn the_marks_of_the_creators_are_distinguished_from_files_of_the_same_name() {
        let made = Made::new();
        made.write(".gitignore", "# created by virtualenv automatically\n*\n")
            .write("CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55")
            .write(".lock", "");
        assert_eq!(made.foreign(), [""; 0]);
        made.write(".gitignore", "*.log\n").write("CACHEDIR.TAG", "mine").write(".lock", "12");
        assert_eq!(made.foreign(), ["File .gitignore", "File .lock", "File CACHEDIR.TAG"]);
    }

    #[test]
    fn distributions_without_a_list_of_files_account_for_their_modules() {
        let made = Made::new();
        let site = "lib/python3.11/site-packages";
        made.write(&format!("{site}/old.egg-info/top_level.txt"), "old\n_old\n")
            .write(
                &format!("{site}/old.egg-info/entry_points.txt"),
                "[console_scripts]\nold-x = old:main\n[x]\ny = z\n",
            )
            .write(&format!("{site}/old/__init__.py"), "")
            .write(&format!("{site}/_old.cpython-311-x86_64-linux-gnu.so"), "")
            .write(&format!("{site}/Small_Thing-1.0-py3.11.egg-info"), "Name: Small-Thing\n")
            .write(&format!("{site}/small_thing.py"), "")
            .write(&format!("{site}/easy-install.pth"), "")
            .write(&format!("{site}/zipped-1.0-py3.11.egg/zipped/__init__.py"), "")
            .write(&format!("{site}/zipped-1.0-py3.11.egg/EGG-INFO/PKG-INFO"), "Name: zipped\n")
            .write("bin/old-x", "")
            .write("bin/y", "");
        assert_eq!(made.foreign(), ["File bin/y"]);
    }

    #[test]
    fn the_library_of_links_in_an_old_virtualenv_belongs_to_its_creator() {
        let made = Made::new();
        made.write("lib/python3.11/orig-prefix.txt", "/usr").write("lib/python3.11/site.py", "");
        made.write("lib/python3.11/distutils/__init__.py", "");
        symlink("/usr/lib/python3.11/os.py", made.at("lib/python3.11/os.py")).unwrap();
        assert_eq!(made.foreign_of(Flavour::LegacyVirtualenv), [""; 0]);
        assert_eq!(made.foreign().len(), 5);
    }

    #[test]
    fn the_library_of_another_minor_version_is_not_searched() {
        let made = Made::new();
        made.write("lib/python3.9/site-packages/flask/__init__.py", "");
        made.write("lib/python3.9x/file", "");
        assert_eq!(made.foreign(), ["Directory lib/python3.9x", "File lib/python3.9x/file"]);
    }

    #[test]
    fn a_record_does_not_account_for_files_elsewhere() {
        let made = Made::new();
        let record = "/srv/app/notes,,\n/etc/passwd,,\n../../../../../../../data,,\n";
        made.write("lib/python3.11/site-packages/evil-1.dist-info/RECORD", record);
        made.write("notes", "").write("etc/passwd", "");
        assert_eq!(made.foreign(), ["Directory etc", "File etc/passwd"]);
    }
}
