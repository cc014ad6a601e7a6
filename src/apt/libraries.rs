//! The shared libraries that a transaction removes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Transaction;
use crate::host::{Program, Root, parallel};
use crate::python::files_of;

/// dpkg lists the files of a package in a second, if the disk is slow.
const LIMIT: Duration = Duration::from_secs(30);

/// How many archives are listed at a time.
const AT_ONCE: usize = 4;

/// The libraries that a transaction removes, by file name, each with its package.
#[derive(Debug, Clone, Default)]
pub(crate) struct RemovedLibraries {
    packages: BTreeMap<String, String>,
    /// What the transaction unpacks: it may contain the same libraries.
    archives: Vec<PathBuf>,
}

impl RemovedLibraries {
    pub(crate) fn of(root: &Root, transaction: &Transaction) -> Self {
        if transaction.removed.is_empty() {
            return Self::default();
        }
        let files = files_of(root, &transaction.removed).into_iter();
        let packages = files.filter_map(|(file, package)| Some((library(&file)?, package)));
        Self { packages: packages.collect(), archives: transaction.archives.clone() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packages.is_empty()
    }

    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.packages.keys().cloned().collect()
    }

    pub(crate) fn package_of(&self, library: &str) -> Option<&str> {
        self.packages.get(library).map(String::as_str)
    }

    /// Which of these libraries the transaction installs again, from a package with another name.
    pub(crate) fn installed_again(&self, libraries: &BTreeSet<String>) -> BTreeSet<String> {
        let listings = parallel::map(&self.archives, AT_ONCE, |archive| {
            let program = Program::new("/usr/bin/dpkg-deb").arg("--contents").arg(archive);
            program.read_only().limit(LIMIT).run().map(|listed| listed.text())
        });
        let listed: BTreeSet<String> = listings
            .into_iter()
            .flatten()
            .flat_map(|listing| listing.lines().filter_map(listed_library).collect::<Vec<_>>())
            .collect();
        libraries.intersection(&listed).cloned().collect()
    }
}

/// The library in a line of `dpkg-deb --contents`:
/// `lrwxrwxrwx root/root 0 2025-01-01 00:00 ./usr/lib/x86_64-linux-gnu/libpq.so.5 -> libpq.so.5.17`.
fn listed_library(line: &str) -> Option<String> {
    let (_, path) = line.split_once(" ./")?;
    let path = path.split_once(" -> ").map_or(path, |(path, _)| path);
    library(&Path::new("/").join(path))
}

/// The name of a file that the dynamic linker finds without being told its directory.
fn library(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    let dir = file.parent()?.to_str()?;
    let dir = dir.strip_prefix("/usr").unwrap_or(dir).strip_prefix("/lib")?;
    let is_searched = match dir.strip_prefix('/') {
        None => dir.is_empty(),
        Some(triplet) => triplet.contains("-linux-") && !triplet.contains('/'),
    };
    (is_searched && name.contains(".so")).then(|| name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_told_from_other_files() {
        for (file, name) in [
            ("/usr/lib/x86_64-linux-gnu/libpq.so.5", Some("libpq.so.5")),
            ("/lib/arm-linux-gnueabihf/libz.so.1", Some("libz.so.1")),
            ("/usr/lib/libfoo.so.1.2", Some("libfoo.so.1.2")),
            ("/usr/lib/x86_64-linux-gnu/samba/libpq.so.5", None),
            ("/usr/lib/python3/dist-packages/x.so", None),
            ("/usr/libexec/libpq.so.5", None),
            ("/usr/share/doc/libpq5/copyright", None),
            ("/.", None),
        ] {
            assert_eq!(library(Path::new(file)).as_deref(), name, "{file}");
        }
        let line = "lrwxrwxrwx root/root 0 2025-01-01 00:00 ./usr/lib/a-linux-gnu/libpq.so.5 -> libpq.so.5.17";
        assert_eq!(listed_library(line).as_deref(), Some("libpq.so.5"));
        assert_eq!(listed_library("drwxr-xr-x root/root 0 2025-01-01 00:00 ./usr/lib/"), None);
    }

    #[test]
    fn only_removed_packages_lose_libraries() {
        let dir = tempfile::tempdir().unwrap();
        let info = dir.path().join("var/lib/dpkg/info");
        std::fs::create_dir_all(&info).unwrap();
        std::fs::write(info.join("libpq5:amd64.list"), "/usr/lib/libpq.so.5\n").unwrap();
        std::fs::write(info.join("libz1:amd64.list"), "/usr/lib/libz.so.1\n").unwrap();
        let removed = BTreeSet::from(["libpq5".to_string()]);
        let transaction = Transaction { removed, ..Transaction::default() };
        let found = RemovedLibraries::of(&Root::new(dir.path()), &transaction);
        assert_eq!(found.names(), BTreeSet::from(["libpq.so.5".to_string()]));
        assert_eq!(found.package_of("libpq.so.5"), Some("libpq5"));
        let none = RemovedLibraries::of(&Root::new(dir.path()), &Transaction::default());
        assert!(none.is_empty());
    }
}
