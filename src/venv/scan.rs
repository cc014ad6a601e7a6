//! Finding venvs below directories, as fast as `find -name pyvenv.cfg` does.
//!
//! It only reads names: no file is opened and no link followed. The results still have to be
//! inspected.

mod walk;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use walk::{Part, Queue, Task, Worker};

use crate::host::root::normal;
use crate::host::{Root, parallel};

/// More threads would only wait for the same disk.
const THREADS_LIMIT: usize = 8;

/// Directories below `/` that contain only the system.
const SYSTEM: [&str; 13] = [
    "proc",
    "sys",
    "dev",
    "run",
    "boot",
    "bin",
    "sbin",
    "lib",
    "lib32",
    "lib64",
    "libx32",
    "tmp",
    "lost+found",
];

/// In these, only directories that an administrator may have filled are searched.
const PARTLY: [(&str, &[&str]); 2] = [("usr", &["local", "share/python"]), ("etc", &[])];

/// Directories that are not entered on the way: images and chroots of other systems, caches.
/// They are entered if they are named as a root themselves.
const OTHERS: [&str; 9] = [
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/var/lib/docker",
    "/var/lib/containers",
    "/var/lib/containerd",
    "/var/lib/machines",
    "/var/tmp",
];

/// A venv that was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
}

/// The results of a scan.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Sorted by path.
    pub(crate) found: Vec<Found>,
    pub(crate) dirs: usize,
    /// Directories that could not be read.
    pub(crate) unreadable: usize,
}

/// Searches for venvs below some directories, or below all directories in which people keep
/// applications. It stays on local file systems and enters no venv. A named directory is entered
/// on any file system.
pub(crate) fn scan(root: &Root, below: &[PathBuf]) -> Scan {
    let (roots, device) = match below {
        [] => (usual(root), rustix::fs::stat(root.at("/")).ok().map(|stat| stat.st_dev)),
        named => (named.to_vec(), None),
    };
    let mut roots: Vec<PathBuf> = roots.iter().map(|path| root.at(normal(path))).collect();
    roots.sort();
    // A directory in another one is searched with it.
    roots.dedup_by(|later, earlier| later.starts_with(&*earlier));
    let others: HashSet<PathBuf> = OTHERS.iter().map(|path| root.at(path)).collect();
    let queue = Queue::new(roots.into_iter().map(|path| Task { path, device, depth: 0 }).collect());
    let threads = parallel::cores().clamp(2, THREADS_LIMIT);
    let parts: Vec<Part> = std::thread::scope(|scope| {
        let start = |_| scope.spawn(|| Worker::new(&queue, &others).work());
        let workers: Vec<_> = (0..threads).map(start).collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).collect()
    });
    merged(root, parts)
}

fn merged(root: &Root, parts: Vec<Part>) -> Scan {
    let mut scan = Scan::default();
    let mut found = Vec::new();
    for part in parts {
        scan.dirs += part.dirs;
        scan.unreadable += part.unreadable;
        found.extend(part.found);
    }
    found.sort();
    // A bind mount shows a directory at a second path.
    let mut seen = HashSet::new();
    found.retain(|(_, identity)| seen.insert(*identity));
    scan.found = found.into_iter().map(|(path, _)| Found { path: root.logical(&path) }).collect();
    scan
}

/// The directories below `/` that may contain more than the system.
fn usual(root: &Root) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(root.at("/")) else { return Vec::new() };
    let top = Path::new("/");
    let names = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        entry.file_type().ok()?.is_dir().then(|| entry.file_name())
    });
    let mut dirs = Vec::new();
    for name in names.filter(|name| !SYSTEM.iter().any(|system| name == system)) {
        match PARTLY.iter().find(|(dir, _)| name == *dir) {
            Some((dir, parts)) => {
                let parts = parts.iter().map(|part| top.join(dir).join(part));
                dirs.extend(parts.filter(|part| root.at(part).is_dir()));
            }
            None => dirs.push(top.join(name)),
        }
    }
    dirs
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    struct System(tempfile::TempDir);

    impl System {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, path: &str) -> &Self {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
            self
        }

        fn venv(&self, path: &str) -> &Self {
            self.write(&format!("{path}/pyvenv.cfg")).write(&format!("{path}/bin/python"))
        }

        fn scan(&self, below: &[&str]) -> Scan {
            let below: Vec<PathBuf> = below.iter().map(PathBuf::from).collect();
            scan(&Root::new(self.0.path()), &below)
        }

        fn found(&self, below: &[&str]) -> Vec<String> {
            let found = self.scan(below).found;
            found.iter().map(|found| found.path.display().to_string()).collect()
        }
    }

    #[test]
    fn venvs_are_found_at_any_depth_and_listed_once() {
        let system = System::new();
        system.venv("srv/a/venv").venv("srv/a/b/c/d/e/.venv").venv("home/u/env").venv("srv");
        assert_eq!(
            system.found(&["/home", "/srv/a", "/srv/a/b", "/home"]),
            ["/home/u/env", "/srv/a/b/c/d/e/.venv", "/srv/a/venv"]
        );
    }

    #[test]
    fn a_venv_is_not_entered_and_no_link_is_followed() {
        let system = System::new();
        system.venv("srv/venv").venv("srv/venv/share/inner").venv("opt/other");
        symlink("../opt/other", system.0.path().join("srv/link")).unwrap();
        assert_eq!(system.found(&["/srv"]), ["/srv/venv"]);
    }

    #[test]
    fn an_old_virtualenv_is_found_without_a_configuration() {
        let system = System::new();
        system.write("srv/old/bin/activate").write("srv/old/lib/python2.7/orig-prefix.txt");
        system.write("srv/prefix/bin/activate").write("srv/prefix/lib/python3.11/site.py");
        assert_eq!(system.found(&["/srv"]), ["/srv/old"]);
    }

    #[test]
    fn a_configuration_alone_is_not_a_venv() {
        let system = System::new();
        system.write("srv/docs/pyvenv.cfg");
        fs::create_dir_all(system.0.path().join("srv/odd/pyvenv.cfg")).unwrap();
        system.write("srv/odd/bin/python");
        assert_eq!(system.found(&["/srv"]), [""; 0]);
    }

    #[test]
    fn by_default_the_usual_places_of_applications_are_searched() {
        let system = System::new();
        for path in [
            "opt/a",
            "srv/b",
            "home/u/c",
            "root/d",
            "var/www/e",
            "var/lib/f",
            "usr/local/g",
            "data/h",
            // These belong to the system, or to another system.
            "usr/lib/x",
            "proc/x",
            "tmp/x",
            "var/tmp/x",
            "etc/x",
            "var/lib/docker/overlay2/y/srv/x",
        ] {
            system.venv(path);
        }
        assert_eq!(
            system.found(&[]),
            [
                "/data/h",
                "/home/u/c",
                "/opt/a",
                "/root/d",
                "/srv/b",
                "/usr/local/g",
                "/var/lib/f",
                "/var/www/e"
            ]
        );
        assert_eq!(system.found(&["/var/tmp"]), ["/var/tmp/x"], "a named directory is searched");
    }

    #[test]
    fn unreadable_directories_are_counted() {
        let system = System::new();
        system.venv("srv/venv");
        let scan = system.scan(&["/srv", "/none"]);
        assert_eq!((scan.found.len(), scan.dirs, scan.unreadable), (1, 2, 1));
    }

    #[test]
    fn many_directories_are_shared_among_threads_and_none_is_lost() {
        let system = System::new();
        for outer in 0..40 {
            for inner in 0..10 {
                system.venv(&format!("srv/{outer}/{inner}/venv"));
            }
        }
        let scan = system.scan(&["/srv"]);
        assert_eq!((scan.found.len(), scan.dirs), (400, 1 + 40 + 400 + 400));
    }
}
