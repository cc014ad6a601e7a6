//! The current interpreters, and a cheap check whether they have changed.

use std::collections::BTreeMap;
use std::path::Path;

use rustix::fs::FileType;

use super::{DEFAULT, Interpreter, Interpreters, Minor, Package, Version, VersionError, dpkg};
use super::{path_of, read_binary};
use crate::host::{Dir, FileIdentity, ReadError, Root};

/// Python 3 will not have more minor versions for decades; each costs one `lstat`.
const MINORS: std::ops::Range<u8> = 0..64;

/// Why the interpreters could not be determined.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("cannot read dpkg's database: {0}")]
    Database(#[from] ReadError),
    #[error("package {package} has the version {version:?}: {source}")]
    PackageVersion { package: String, version: String, source: VersionError },
}

/// Reads the interpreters that Debian's packages have installed.
pub(crate) fn look(root: &Root) -> Result<Interpreters, SnapshotError> {
    let default = default_minor(root);
    let programs = programs(root);
    let files: Vec<(Minor, FileIdentity)> = MINORS
        .map(minor)
        .filter_map(|minor| Some((minor, identity(programs.as_ref()?, minor)?)))
        .filter(|(minor, _)| is_owned(root, *minor))
        .collect();
    if files.is_empty() {
        return Ok(Interpreters { default, ..Interpreters::default() });
    }
    let packages =
        dpkg::packages(root, |name| files.iter().any(|(minor, _)| name == dpkg::owner_of(*minor)))?;
    let mut installed = BTreeMap::new();
    for (minor, identity) in files {
        let name = dpkg::owner_of(minor);
        // Only one architecture of a package is installed at a time: it owns a plain path.
        let Some(entry) = packages.iter().find_map(|(qualified, entry)| {
            let (package, _) = qualified.split_once(':')?;
            (package == name && entry.is_unpacked()).then_some(entry)
        }) else {
            continue;
        };
        let binary = read_binary(&root.at(path_of(minor))).unwrap_or_default();
        let version = match binary.version.filter(|version| version.minor() == minor) {
            Some(version) => version,
            None => Version::of_package(&entry.version).map_err(|source| {
                let (package, version) = (name.clone(), entry.version.clone());
                SnapshotError::PackageVersion { package, version, source }
            })?,
        };
        let package = Package { name, version: entry.version.clone() };
        let identity = Some(identity);
        installed
            .insert(minor, Interpreter { version, package, build_id: binary.build_id, identity });
    }
    Ok(Interpreters { default, installed })
}

/// Whether the interpreters are still the known ones. This runs with every apt, so it checks
/// only names and inodes and opens no file.
pub(crate) fn unchanged(root: &Root, known: &Interpreters) -> bool {
    let programs = programs(root);
    let identity = |minor| identity(programs.as_ref()?, minor);
    default_minor(root) == known.default
        && MINORS.map(minor).all(|minor| match (known.get(minor), identity(minor)) {
            (Some(interpreter), Some(identity)) => interpreter.identity == Some(identity),
            (None, None) => true,
            (Some(_), None) => false,
            // Put there by hand, unless a package has been installed with it.
            (None, Some(_)) => std::fs::symlink_metadata(root.at(dpkg::list_of(minor))).is_err(),
        })
}

/// The target of `/usr/bin/python3`, also by way of `/etc/alternatives`.
fn default_minor(root: &Root) -> Option<Minor> {
    let chain = root.follow(Path::new(DEFAULT)).ok()?;
    let (end, links) = chain.split_last()?;
    if links.is_empty() {
        return None;
    }
    debian_minor(end)
}

/// The minor version in exactly a path like `/usr/bin/python3.11`. `/bin` is the same
/// directory since the merge of `/usr`.
pub(crate) fn debian_minor(path: &Path) -> Option<Minor> {
    let dir = path.parent()?;
    if dir != Path::new("/usr/bin") && dir != Path::new("/bin") {
        return None;
    }
    Minor::of_program(path.file_name()?.to_str()?)
}

fn minor(number: u8) -> Minor {
    Minor::new(3, number)
}

/// The directory of the interpreters, held open: 64 names are looked up in it.
fn programs(root: &Root) -> Option<Dir> {
    Dir::open_to_look(&root.at("/usr/bin")).ok()
}

/// The identity of the regular file that is the interpreter of a minor version, if there is one.
fn identity(programs: &Dir, minor: Minor) -> Option<FileIdentity> {
    let stat = programs.stat(minor.program()).ok()?;
    FileType::from_raw_mode(stat.st_mode).is_file().then(|| FileIdentity::from(&stat))
}

fn is_owned(root: &Root, minor: Minor) -> bool {
    dpkg::lists(&root.at(dpkg::list_of(minor)), &path_of(minor))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test prepares its own directories")]
mod tests {
    use super::super::elf::sample::binary;
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    struct System {
        dir: tempfile::TempDir,
        root: Root,
    }

    impl System {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            for path in ["usr/bin", "var/lib/dpkg/info", "etc/alternatives"] {
                fs::create_dir_all(dir.path().join(path)).unwrap();
            }
            fs::write(dir.path().join("var/lib/dpkg/status"), "").unwrap();
            let root = Root::new(dir.path());
            Self { dir, root }
        }

        fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
            // Like dpkg: a new inode under the old name.
            let path = self.dir.path().join(path);
            let new = path.with_extension("dpkg-new");
            fs::write(&new, bytes).unwrap();
            fs::rename(new, path).unwrap();
        }

        fn install(&self, minor: &str, bytes: &[u8], version: &str) {
            self.write(&format!("usr/bin/python{minor}"), bytes);
            self.write(
                &format!("var/lib/dpkg/info/python{minor}-minimal.list"),
                format!("/.\n/usr/bin\n/usr/bin/python{minor}\n"),
            );
            let status = self.dir.path().join("var/lib/dpkg/status");
            let stanza = format!(
                "Package: python{minor}-minimal\nStatus: install ok installed\n\
                 Architecture: amd64\nVersion: {version}\n\n"
            );
            fs::write(&status, fs::read_to_string(&status).unwrap() + &stanza).unwrap();
        }

        fn default(&self, target: &str) {
            let link = self.dir.path().join("usr/bin/python3");
            let _ = fs::remove_file(&link);
            symlink(target, link).unwrap();
        }

        fn look(&self) -> Interpreters {
            look(&self.root).unwrap()
        }
    }

    const V3_11_2: u64 = 0x030b_02f0;

    #[test]
    fn interpreters_of_packages_are_found_with_version_and_build() {
        let system = System::new();
        system.install("3.11", &binary(Some(V3_11_2), b"", &[0xab]), "3.11.2-6+deb12u6");
        system.install("3.9", b"not readable", "3.9.2-1");
        system.default("python3.11");
        let seen = system.look();
        assert_eq!(seen.default, Some(Minor::new(3, 11)));
        assert_eq!(seen.installed.len(), 2);
        let default = seen.default_interpreter().unwrap();
        assert_eq!(default.to_string(), "3.11.2 (python3.11-minimal 3.11.2-6+deb12u6)");
        assert_eq!(default.build_id.as_ref().unwrap().0, "ab");
        let other = seen.get(Minor::new(3, 9)).unwrap();
        assert_eq!((other.version.to_string().as_str(), &other.build_id), ("3.9.2", &None));
    }

    #[test]
    fn an_interpreter_without_a_package_is_ignored() {
        let system = System::new();
        system.write("usr/bin/python3.12", binary(Some(0x030c_00f0), b"", b""));
        system.install("3.11", &binary(Some(V3_11_2), b"", b""), "3.11.2-6");
        symlink("python3.11", system.dir.path().join("usr/bin/python3.10")).unwrap();
        assert_eq!(system.look().installed.into_keys().collect::<Vec<_>>(), [Minor::new(3, 11)]);
        // A removed package leaves its configuration and a list without the program.
        system.write("var/lib/dpkg/info/python3.12-minimal.list", "/.\n/etc\n");
        assert_eq!(system.look().installed.len(), 1);
    }

    #[test]
    fn the_default_is_the_target_of_the_links() {
        let system = System::new();
        let default = || system.look().default.map(|minor| minor.to_string());
        assert_eq!(default(), None);
        system.default("python3.11");
        assert_eq!(default().as_deref(), Some("3.11"), "even if nothing is installed there");
        symlink("/usr/bin/python3.12", system.dir.path().join("etc/alternatives/python3")).unwrap();
        system.default("/etc/alternatives/python3");
        assert_eq!(default().as_deref(), Some("3.12"));
        system.default("/usr/local/bin/python3.12");
        assert_eq!(default(), None);
        fs::remove_file(system.dir.path().join("usr/bin/python3")).unwrap();
        system.write("usr/bin/python3", "#!/bin/sh");
        assert_eq!(default(), None);
    }

    #[test]
    fn a_change_of_any_kind_is_noticed() {
        let system = System::new();
        let build = binary(Some(V3_11_2), b"", b"");
        system.install("3.11", &build, "3.11.2-6");
        system.default("python3.11");
        let known = system.look();
        assert!(unchanged(&system.root, &known));

        system.write("usr/bin/python3.11", &build);
        assert!(!unchanged(&system.root, &known), "the same bytes in a new file");
        let known = system.look();

        system.default("python3.13");
        assert!(!unchanged(&system.root, &known), "another default");
        system.default("python3.11");

        system.install("3.13", &build, "3.13.5-2");
        assert!(!unchanged(&system.root, &known), "another interpreter");
        fs::remove_file(system.dir.path().join("usr/bin/python3.13")).unwrap();
        assert!(unchanged(&system.root, &known), "a list of files alone is not an interpreter");

        fs::remove_file(system.dir.path().join("usr/bin/python3.11")).unwrap();
        assert!(!unchanged(&system.root, &known), "an interpreter is gone");
    }

    #[test]
    fn an_interpreter_installed_by_hand_is_no_change() {
        let system = System::new();
        system.install("3.11", &binary(Some(V3_11_2), b"", b""), "3.11.2-6");
        let known = system.look();
        system.write("usr/bin/python3.14", "by hand");
        assert!(unchanged(&system.root, &known));
    }
}
