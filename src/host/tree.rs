//! Creating, exchanging and removing whole directories.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, RenameFlags, Statx, StatxFlags, Uid};

use super::dir;
use super::fault::{self, Weakness, weakened};

/// The type of overlayfs in `statfs(2)`.
const OVERLAYFS: rustix::fs::FsWord = 0x794c_7630;

/// What makes a directory non-empty for a moment.
const PROBE: &str = ".venvguard-probe";

/// Identifies a directory regardless of its name: inode and birth time in nanoseconds (0 where
/// the file system has none). It is stored and read after a reboot, when the device may have
/// another number; both directories of an exchange lie in one directory anyway.
pub(crate) type Identity = (u64, u64);

/// The identity of the directory at `path`, if there is one. A link to a directory does not
/// count, nor does a directory on another file system than its parent.
pub(crate) fn identity(path: &Path) -> Option<Identity> {
    Parent::of(path).ok()?.identity(Path::new(path.file_name()?))
}

/// Whether this directory is at `path`.
pub(crate) fn is_at(path: &Path, which: Identity) -> bool {
    let found = identity(path);
    found == Some(which) || found.is_some() && weakened(Weakness::TakeAnyDirectory)
}

/// The identity of an open directory.
pub(crate) fn identity_of_open(dir: impl AsFd) -> rustix::io::Result<Identity> {
    look(dir, Path::new("")).map(|stat| identity_in(&stat))
}

/// Opens this directory. No link on the way is followed, and another directory at its path is an
/// error.
pub(crate) fn open_nofollow(path: &Path, access: OFlags, which: Identity) -> io::Result<OwnedFd> {
    let dir = dir::open_nofollow(path, access)?;
    if identity_of_open(&dir)? != which && !weakened(Weakness::TakeAnyDirectory) {
        let path = super::file::printable(path);
        return Err(io::Error::other(format!("{path} was replaced")));
    }
    Ok(dir)
}

/// The `statx` of a name in a directory, or of the directory itself for an empty name.
fn look(dir: impl AsFd, name: &Path) -> rustix::io::Result<Statx> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

fn identity_in(stat: &Statx) -> Identity {
    let born =
        i128::from(stat.stx_btime.tv_sec) * 1_000_000_000 + i128::from(stat.stx_btime.tv_nsec);
    (stat.stx_ino, u64::try_from(born).unwrap_or(0))
}

/// A directory held open, in which names are created and exchanged without resolving its path
/// again. A name may also be in the directory above it, `../NAME`.
#[derive(Debug)]
pub(crate) struct Parent {
    dir: OwnedFd,
    path: PathBuf,
}

impl Parent {
    /// Opens the directory that `path` lies in; no link anywhere on the way is followed.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let dir = dir::open_nofollow(parent, OFlags::RDONLY)?;
        Ok(Self { dir, path: parent.to_path_buf() })
    }

    /// Opens a directory itself, if its identity is `which`.
    pub(crate) fn known(path: &Path, which: Identity) -> io::Result<Self> {
        fault::point("come back to a directory")?;
        let dir = open_nofollow(path, OFlags::RDONLY, which)?;
        Ok(Self { dir, path: path.to_path_buf() })
    }

    /// Creates an empty directory for an owner and returns its identity.
    pub(crate) fn make(&self, name: &Path, uid: u32, gid: u32, mode: u32) -> io::Result<Identity> {
        let path = self.path.join(name);
        fault::point("make a directory")?;
        rustix::fs::mkdirat(&self.dir, name, Mode::from_raw_mode(0o700))
            .map_err(|error| at(&path, error))?;
        let result = (|| {
            fault::point("give a directory away").map_err(|_| rustix::io::Errno::NOSPC)?;
            let dir = open_child(&self.dir, name)?;
            must_be_new(&dir)?;
            rustix::fs::fchown(&dir, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode))?;
            identity_of_open(&dir)
        })();
        result.map_err(|error| {
            let _ = self.remove_if_empty(name);
            at(&path, error)
        })
    }

    /// The identity of the directory of this name.
    pub(crate) fn identity(&self, name: &Path) -> Option<Identity> {
        let (own, stat) = (look(&self.dir, Path::new("")).ok()?, look(&self.dir, name).ok()?);
        let device = |stat: &Statx| (stat.stx_dev_major, stat.stx_dev_minor);
        let is_dir = FileType::from_raw_mode(stat.stx_mode.into()).is_dir();
        (is_dir && device(&own) == device(&stat)).then(|| identity_in(&stat))
    }

    /// Exchanges two names in one step: each path names a complete directory at every instant.
    pub(crate) fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        fault::point("exchange")?;
        rustix::fs::renameat_with(&self.dir, one, &self.dir, other, RenameFlags::EXCHANGE)
            .map_err(|error| at(&self.path.join(other), error))?;
        self.sync_of(&[one, other])
    }

    /// Whether the file system can rename a directory at all: overlayfs without `redirect_dir` cannot
    /// if the directory comes from a lower layer. It is asked for a rename that none carries out:
    /// onto the directory `beside`, which is not empty for this moment.
    pub(crate) fn can_move(&self, name: &Path, beside: &Path) -> io::Result<bool> {
        let found = rustix::fs::fstatfs(&self.dir).map_err(|error| at(&self.path, error))?;
        if found.f_type != OVERLAYFS {
            return Ok(true);
        }
        let inside = Path::new(PROBE);
        let made = open_child(&self.dir, beside)?;
        rustix::fs::mkdirat(&made, inside, Mode::from_raw_mode(0o700))?;
        let moved = rustix::fs::renameat(&self.dir, name, &self.dir, beside);
        rustix::fs::unlinkat(&made, inside, AtFlags::REMOVEDIR)?;
        if moved.is_ok() {
            // Its owner has emptied the directory.
            self.rename(beside, name)?;
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(moved != Err(rustix::io::Errno::XDEV))
    }

    /// Renames a directory, unless the new name is taken.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fault::point("rename a directory")?;
        rustix::fs::renameat_with(&self.dir, from, &self.dir, to, RenameFlags::NOREPLACE)
            .map_err(|error| at(&self.path.join(from), error))?;
        self.sync_of(&[from, to])
    }

    /// The user and group of the directory of this name; `None` if there is no such directory.
    pub(crate) fn owner(&self, name: &Path) -> io::Result<Option<(u32, u32)>> {
        match look(&self.dir, name) {
            Ok(stat) if FileType::from_raw_mode(stat.stx_mode.into()).is_dir() => {
                Ok(Some((stat.stx_uid, stat.stx_gid)))
            }
            Ok(_) => Err(at(&self.path.join(name), rustix::io::Errno::NOTDIR)),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(at(&self.path.join(name), error)),
        }
    }

    /// Removes an empty directory, if its identity is `which`.
    pub(crate) fn remove_empty(&self, name: &Path, which: Identity) -> io::Result<()> {
        let path = self.path.join(name);
        let found = self.identity(name);
        if found.is_some_and(|found| found != which) && !weakened(Weakness::TakeAnyDirectory) {
            let shown = super::file::printable(&path);
            return Err(io::Error::other(format!("{shown} was replaced by another directory")));
        }
        fault::point("remove a directory")?;
        match rustix::fs::unlinkat(&self.dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => self.sync_of(&[name]),
            Err(error) => Err(at(&path, error)),
        }
    }

    /// Removes a directory that was just created, unless it has become non-empty.
    pub(crate) fn remove_if_empty(&self, name: &Path) -> io::Result<()> {
        let _ = rustix::fs::unlinkat(&self.dir, name, AtFlags::REMOVEDIR);
        self.sync_of(&[name])
    }

    /// Syncs the directories that contain these names.
    fn sync_of(&self, names: &[&Path]) -> io::Result<()> {
        if names.iter().any(|name| name.starts_with("..")) {
            let above = open_child(&self.dir, Path::new(".."));
            above.and_then(rustix::fs::fsync).map_err(|error| at(&self.path, error))?;
        }
        self.sync()
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        fault::point("sync a directory")?;
        rustix::fs::fsync(&self.dir).map_err(|error| at(&self.path, error))
    }

    /// The free space of this directory's file system, in bytes.
    pub(crate) fn free(&self) -> io::Result<u64> {
        let found = rustix::fs::fstatvfs(&self.dir).map_err(|error| at(&self.path, error))?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// Syncs the whole file system of this directory.
    pub(crate) fn sync_all(&self) -> io::Result<()> {
        fault::point("sync a file system")?;
        rustix::fs::syncfs(&self.dir).map_err(|error| at(&self.path, error))
    }
}

/// Opens the directory of this name; a link is refused.
fn open_child(parent: &OwnedFd, name: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Checks that a directory is the one we have just created, ours and empty: the owner of the
/// directory above it may have replaced it.
fn must_be_new(dir: &OwnedFd) -> rustix::io::Result<()> {
    let stat = rustix::fs::fstat(dir)?;
    let is_ours =
        stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o777 == 0o700;
    let is_empty = Dir::read_from(dir)?.all(|entry| {
        entry.is_ok_and(|entry| entry.file_name() == c"." || entry.file_name() == c"..")
    });
    let is_new = is_ours && is_empty || weakened(Weakness::TakeAnyDirectory);
    if is_new { Ok(()) } else { Err(rustix::io::Errno::EXIST) }
}

fn at(path: &Path, error: rustix::io::Errno) -> io::Error {
    let error = io::Error::from(error);
    io::Error::new(error.kind(), format!("{}: {error}", super::file::printable(path)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn an_exchange_swaps_two_directories_and_keeps_both() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("venv");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("old"), "").unwrap();
        let parent = Parent::of(&path).unwrap();
        let me = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let stage = Path::new(".venv.stage");
        let made = parent.make(stage, me.0, me.1, 0o750).unwrap();
        let old = identity(&path).unwrap();
        parent.exchange(stage, Path::new("venv")).unwrap();
        assert_eq!(identity(&path), Some(made));
        assert_eq!(parent.identity(stage), Some(old));
        assert!(dir.path().join(".venv.stage/old").exists());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o750);
    }

    #[test]
    fn a_link_on_the_way_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("real/venv")).unwrap();
        std::os::unix::fs::symlink(base.join("real"), base.join("link")).unwrap();
        assert!(Parent::of(&base.join("link/venv")).is_err());
        assert!(Parent::of(&base.join("real/venv")).is_ok());
    }

    /// A directory from a lower layer of overlayfs, and one that was created above it. Mounted in
    /// a namespace of this thread.
    #[expect(clippy::disallowed_methods, reason = "a test mounts in a namespace of its own")]
    fn in_overlay(options: &str, test: impl FnOnce(&Path) + Send) {
        use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        for name in ["lower/venv/bin", "upper", "work", "all"] {
            fs::create_dir_all(base.join(name)).unwrap();
        }
        let [lower, upper, work] = ["lower", "upper", "work"].map(|name| base.join(name));
        let options = format!(
            "lowerdir={},upperdir={},workdir={},{options}",
            lower.display(),
            upper.display(),
            work.display()
        );
        std::thread::scope(|scope| {
            scope.spawn(|| {
                use rustix::thread::UnshareFlags;
                // SAFETY: the thread shares no descriptors that it closes.
                #[expect(unsafe_code, reason = "the call is unsafe for flags that are not given")]
                unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }
                    .unwrap();
                let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
                mount_change("/", private).unwrap();
                let options = std::ffi::CString::new(options).unwrap();
                let none = MountFlags::empty();
                match mount("overlay", base.join("all"), "overlay", none, options.as_c_str()) {
                    Ok(()) => test(&base.join("all/venv")),
                    // The root of a user namespace may not set this option.
                    Err(rustix::io::Errno::PERM) => {}
                    Err(error) => panic!("{error}"),
                }
            });
        });
    }

    #[test]
    fn a_directory_of_a_lower_layer_cannot_be_moved_unless_overlayfs_redirects() {
        let can_move = |path: &Path| {
            let parent = Parent::of(path).unwrap();
            let stage = Path::new(".venv.stage");
            parent.make(stage, 0, 0, 0o755).unwrap();
            let can_move = parent.can_move(Path::new("venv"), stage).unwrap();
            assert!(path.join("bin").is_dir(), "it stays where it is");
            parent.remove_if_empty(stage).unwrap();
            assert!(parent.identity(stage).is_none(), "nothing is left in the other one");
            can_move
        };
        in_overlay("redirect_dir=on", |venv| assert!(can_move(venv)));
        in_overlay("redirect_dir=off", |venv| {
            assert!(!can_move(venv));
            // As the hint says.
            let copy = venv.with_extension("new");
            fs::create_dir_all(copy.join("bin")).unwrap();
            fs::remove_dir_all(venv).unwrap();
            fs::rename(copy, venv).unwrap();
            assert!(can_move(venv));
        });
        let dir = tempfile::tempdir().unwrap();
        let venv = dir.path().canonicalize().unwrap().join("venv");
        fs::create_dir_all(venv.join("bin")).unwrap();
        assert!(can_move(&venv));
    }

    #[test]
    fn an_empty_directory_is_removed_only_if_its_identity_matches() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        for name in ["old/full", "other"] {
            fs::create_dir_all(base.join(name)).unwrap();
        }
        let parent = Parent::of(&base.join("old")).unwrap();
        let which = parent.identity(Path::new("old")).unwrap();
        assert!(parent.remove_empty(Path::new("other"), which).is_err());
        let error = parent.remove_empty(Path::new("old"), which).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::DirectoryNotEmpty);
        fs::remove_dir(base.join("old/full")).unwrap();
        for _ in 0..2 {
            parent.remove_empty(Path::new("old"), which).unwrap();
        }
        assert!(!base.join("old").exists() && base.join("other").exists());
        assert_eq!(parent.owner(Path::new("old")).unwrap(), None);
    }

    #[test]
    fn a_directory_that_took_the_place_of_a_new_one_is_not_given_away() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        for (name, mode) in [("new", 0o700), ("public", 0o755), ("full", 0o700)] {
            fs::create_dir(base.join(name)).unwrap();
            fs::set_permissions(base.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::write(base.join("full/secret"), "").unwrap();
        let is_new = |name| {
            must_be_new(&dir::open_nofollow(&base.join(name), OFlags::RDONLY).unwrap()).is_ok()
        };
        assert_eq!(["new", "public", "full"].map(is_new), [true, false, false]);
    }

    #[test]
    fn a_name_that_is_taken_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        fs::create_dir(base.join("a")).unwrap();
        fs::create_dir(base.join("b")).unwrap();
        let parent = Parent::of(&base.join("a")).unwrap();
        assert!(parent.rename(Path::new("a"), Path::new("b")).is_err());
    }
}
