//! Paths below a root prefix, so that a test can use a directory as its system.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

/// How many links are followed before a chain counts as a loop (the kernel's own limit).
const MAX_LINKS: usize = 40;

/// The directory that stands for `/`, and the user whose files in it are meant. Every system path
/// is looked up below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Root {
    prefix: PathBuf,
    user: Option<u32>,
}

impl Root {
    /// The system itself, from root's point of view.
    pub(crate) fn new(prefix: impl Into<PathBuf>) -> Self {
        Self { prefix: prefix.into(), user: None }
    }

    /// What the caller administers: the system for root, their own files for anybody else. A
    /// directory that stands for a system belongs to the caller as a whole.
    pub(crate) fn of_caller(prefix: impl Into<PathBuf>) -> Self {
        let root = Self::new(prefix);
        let caller = rustix::process::geteuid();
        let user = (root.is_system() && !caller.is_root()).then_some(caller.as_raw());
        Self { user, ..root }
    }

    /// The same system, as root guards it.
    pub(crate) fn of_root(&self) -> Self {
        Self { user: None, ..self.clone() }
    }

    /// The ordinary user whose files alone are meant, if any.
    pub(crate) fn user(&self) -> Option<u32> {
        self.user
    }

    /// Whether this is the running system and not a directory that stands for one.
    pub(crate) fn is_system(&self) -> bool {
        self.prefix == Path::new("/")
    }

    /// Whether systemd runs the system: `sd_booted(3)`.
    pub(crate) fn runs_systemd(&self) -> bool {
        self.at("/run/systemd/system").is_dir()
    }

    /// The real location of `path`. An absolute path stays below the prefix
    /// (`Path::join` alone would silently drop the prefix).
    pub(crate) fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        if self.is_system() {
            return Path::new("/").join(path);
        }
        self.prefix.join(relative(path.as_ref()))
    }

    /// The path as the system below the prefix would name it.
    pub(crate) fn logical(&self, real: &Path) -> PathBuf {
        match real.strip_prefix(&self.prefix) {
            Ok(below) => Path::new("/").join(below),
            Err(_) => real.to_path_buf(),
        }
    }

    /// Follows the links at the end of `path`, one name after the other. The last
    /// element is not a link: it is a file, a directory, or a missing name.
    /// The kernel resolves links among the directories on the way.
    pub(crate) fn follow(&self, path: &Path) -> std::io::Result<Vec<PathBuf>> {
        let mut chain = vec![path.to_path_buf()];
        let mut here = path.to_path_buf();
        for _ in 0..MAX_LINKS {
            match std::fs::read_link(self.at(&here)) {
                Ok(target) => {
                    here = normal(&here.parent().unwrap_or(Path::new("/")).join(target));
                    chain.push(here.clone());
                }
                Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
                    return Ok(chain);
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(chain),
                Err(error) => return Err(error),
            }
        }
        Err(rustix::io::Errno::LOOP.into())
    }
}

/// The path without its leading `/`.
fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// `path` without `.` and `..`, without looking at the file system.
pub(crate) fn normal(path: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                result.pop();
            }
            Component::CurDir => {}
            other => result.push(AsRef::<OsStr>::as_ref(&other)),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_path_stays_below_the_root() {
        let root = Root::new("/tmp/box");
        assert_eq!(root.at("/etc/passwd"), Path::new("/tmp/box/etc/passwd"));
        assert_eq!(root.logical(Path::new("/tmp/box/etc/passwd")), Path::new("/etc/passwd"));
        assert_eq!(Root::new("/").at("/etc/passwd"), Path::new("/etc/passwd"));
    }

    #[test]
    fn absolute_links_are_followed_below_the_root() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("usr/bin")).unwrap();
        std::fs::write(dir.path().join("usr/bin/python3.11"), "").unwrap();
        std::os::unix::fs::symlink("python3.11", dir.path().join("usr/bin/python3")).unwrap();
        std::os::unix::fs::symlink("/usr/bin/python3", dir.path().join("python")).unwrap();
        let chain = Root::new(dir.path()).follow(Path::new("/python")).unwrap();
        assert_eq!(
            chain,
            ["/python", "/usr/bin/python3", "/usr/bin/python3.11"].map(PathBuf::from)
        );
    }

    #[test]
    fn a_loop_of_links_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("a")).unwrap();
        assert!(Root::new(dir.path()).follow(Path::new("/a")).is_err());
    }
}
