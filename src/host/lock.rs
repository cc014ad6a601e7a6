//! The lock that lets only one venvguard run at a time.
//!
//! It is a `flock` lock, which does not interact with dpkg's own `fcntl` locks. The pre and the
//! post hook of one apt run are two processes; the journal connects them, not the lock.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::clock::{Deadline, wait_until};

/// How often a held lock is tried again: too short for a person to notice.
const POLL: Duration = Duration::from_millis(50);

/// The lock, held as long as this value lives.
#[derive(Debug)]
pub(crate) struct LockFile {
    _file: File,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    #[error("another venvguard is running (lock {path})", path = .0.display())]
    Held(PathBuf),
    #[error("cannot lock {path}: {source}", path = .path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Takes the lock at `path`, waiting for at most `patience`. The file is opened once and
/// never renamed or removed, so that all callers lock the same inode.
pub(crate) fn acquire(path: &Path, patience: Duration) -> Result<LockFile, LockError> {
    let io = |source| LockError::Io { path: path.to_path_buf(), source };
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(io)?;
    }
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(io)?;
    let mut failure = None;
    // Polled: a blocking flock would return `Interrupted` on a signal. Called qualified:
    // since Rust 1.89 `File` has methods of the same names that shadow the trait's.
    let taken = wait_until(Deadline::after(patience), POLL, || {
        match fs2::FileExt::try_lock_exclusive(&file) {
            Ok(()) => true,
            Err(error) if error.raw_os_error() == fs2::lock_contended_error().raw_os_error() => {
                false
            }
            Err(error) => {
                failure = Some(error);
                true
            }
        }
    });
    match failure {
        Some(error) => Err(io(error)),
        None if taken => Ok(LockFile { _file: file }),
        None => Err(LockError::Held(path.to_path_buf())),
    }
}

/// Whether somebody holds the lock at `path`. Creates nothing.
pub(crate) fn is_held(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    match fs2::FileExt::try_lock_shared(&file) {
        Ok(()) => false,
        Err(error) => error.raw_os_error() == fs2::lock_contended_error().raw_os_error(),
    }
}

/// Whether apt or dpkg is running: a process holds dpkg's frontend lock, an `fcntl` lock.
pub(crate) fn is_dpkg_running() -> bool {
    const FRONTEND: &str = "/var/lib/dpkg/lock-frontend";
    let Ok(file) = File::open(FRONTEND) else { return is_in_kernels_list(Path::new(FRONTEND)) };
    let whole = rustix::process::Flock::from(rustix::process::FlockType::WriteLock);
    rustix::process::fcntl_getlk(&file, &whole).is_ok_and(|holder| holder.is_some())
}

/// Whether a process holds an `fcntl` lock on a file that we may not open: the sixth field of
/// the lock's line in `/proc/locks` is the device and inode.
fn is_in_kernels_list(path: &Path) -> bool {
    let Ok(metadata) = path.metadata() else { return false };
    let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    let wanted = format!("{major:02x}:{minor:02x}:{}", metadata.ino());
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).any(|fields| {
        fields.get(1) == Some(&"POSIX") && fields.get(5).is_some_and(|file| *file == wanted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_is_refused_to_a_second_taker() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/lock");
        let first = acquire(&path, Duration::ZERO).unwrap();
        assert!(matches!(acquire(&path, Duration::ZERO), Err(LockError::Held(_))));
        drop(first);
        assert!(acquire(&path, Duration::ZERO).is_ok());
    }

    #[test]
    fn an_fcntl_lock_is_seen_without_opening_its_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!is_in_kernels_list(file.path()));
        rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
        assert!(is_in_kernels_list(file.path()));
    }
}
