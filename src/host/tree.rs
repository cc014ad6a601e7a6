//! Folders made, exchanged and removed as a whole.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, RenameFlags, Statx, StatxFlags, Uid};

use super::fault::{self, Weakness, weakened};
use super::folder;

/// Which folder it is, whatever its name is: inode and birth time in nanoseconds (0 where
/// the file system tells none). It is written down and read after a reboot, when the device
/// may have another number: both folders of an exchange lie in one folder anyway.
pub(crate) type Identity = (u64, u64);

/// Which folder stands at `path`, if one does. A link to one does not count, nor does one
/// that is on another file system than the folder it lies in.
pub(crate) fn identity(path: &Path) -> Option<Identity> {
    Parent::of(path).ok()?.identity(Path::new(path.file_name()?))
}

/// Whether it is this folder that stands at `path`.
pub(crate) fn stands_at(path: &Path, which: Identity) -> bool {
    let found = identity(path);
    found == Some(which) || found.is_some() && weakened(Weakness::TakeAnyFolder)
}

/// Which folder is open.
pub(crate) fn identity_of_open(folder: impl AsFd) -> rustix::io::Result<Identity> {
    look(folder, Path::new("")).map(|stat| identity_in(&stat))
}

/// Opens this folder; no link on the way is followed, and another one at its path is none.
pub(crate) fn reach(path: &Path, access: OFlags, which: Identity) -> io::Result<OwnedFd> {
    let folder = folder::reach(path, access)?;
    if identity_of_open(&folder)? != which && !weakened(Weakness::TakeAnyFolder) {
        let path = super::file::printable(path);
        return Err(io::Error::other(format!("{path} was replaced")));
    }
    Ok(folder)
}

/// What stands at a name in a folder; the folder itself, where there is no name.
fn look(folder: impl AsFd, name: &Path) -> rustix::io::Result<Statx> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    rustix::fs::statx(folder, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

fn identity_in(stat: &Statx) -> Identity {
    let born =
        i128::from(stat.stx_btime.tv_sec) * 1_000_000_000 + i128::from(stat.stx_btime.tv_nsec);
    (stat.stx_ino, u64::try_from(born).unwrap_or(0))
}

/// A folder held open, in which names are made and exchanged without its path being
/// walked again. A name may be one of the folder above it, `../NAME`.
#[derive(Debug)]
pub(crate) struct Parent {
    folder: OwnedFd,
    path: PathBuf,
}

impl Parent {
    /// Opens the folder that `path` lies in; no link anywhere on the way is followed.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let folder = folder::reach(parent, OFlags::RDONLY)?;
        Ok(Self { folder, path: parent.to_path_buf() })
    }

    /// Opens a folder itself, if it is this one.
    pub(crate) fn known(path: &Path, which: Identity) -> io::Result<Self> {
        fault::point("come back to a folder")?;
        let folder = reach(path, OFlags::RDONLY, which)?;
        Ok(Self { folder, path: path.to_path_buf() })
    }

    /// Makes an empty folder for an owner and returns which one it is.
    pub(crate) fn make(&self, name: &Path, uid: u32, gid: u32, mode: u32) -> io::Result<Identity> {
        let path = self.path.join(name);
        fault::point("make a folder")?;
        rustix::fs::mkdirat(&self.folder, name, Mode::from_raw_mode(0o700))
            .map_err(|error| at(&path, error))?;
        let result = (|| {
            fault::point("give a folder away").map_err(|_| rustix::io::Errno::NOSPC)?;
            let folder = open_child(&self.folder, name)?;
            must_be_new(&folder)?;
            rustix::fs::fchown(&folder, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            rustix::fs::fchmod(&folder, Mode::from_raw_mode(mode))?;
            identity_of_open(&folder)
        })();
        result.map_err(|error| {
            let _ = self.remove_if_empty(name);
            at(&path, error)
        })
    }

    /// Which folder has this name.
    pub(crate) fn identity(&self, name: &Path) -> Option<Identity> {
        let (own, stat) = (look(&self.folder, Path::new("")).ok()?, look(&self.folder, name).ok()?);
        let device = |stat: &Statx| (stat.stx_dev_major, stat.stx_dev_minor);
        let is_folder = FileType::from_raw_mode(stat.stx_mode.into()).is_dir();
        (is_folder && device(&own) == device(&stat)).then(|| identity_in(&stat))
    }

    /// Exchanges two names in one step: each path holds a whole folder at every instant.
    pub(crate) fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        fault::point("exchange")?;
        rustix::fs::renameat_with(&self.folder, one, &self.folder, other, RenameFlags::EXCHANGE)
            .map_err(|error| at(&self.path.join(other), error))?;
        self.sync_of(&[one, other])
    }

    /// Gives a name to a folder, unless something has that name already.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fault::point("rename a folder")?;
        rustix::fs::renameat_with(&self.folder, from, &self.folder, to, RenameFlags::NOREPLACE)
            .map_err(|error| at(&self.path.join(from), error))?;
        self.sync_of(&[from, to])
    }

    /// Whose directory has this name, by user and group; nobody's, where none has it.
    pub(crate) fn owner(&self, name: &Path) -> io::Result<Option<(u32, u32)>> {
        match look(&self.folder, name) {
            Ok(stat) if FileType::from_raw_mode(stat.stx_mode.into()).is_dir() => {
                Ok(Some((stat.stx_uid, stat.stx_gid)))
            }
            Ok(_) => Err(at(&self.path.join(name), rustix::io::Errno::NOTDIR)),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(at(&self.path.join(name), error)),
        }
    }

    /// Removes a directory that has nothing in it, if it is this one.
    pub(crate) fn remove_empty(&self, name: &Path, which: Identity) -> io::Result<()> {
        let path = self.path.join(name);
        let found = self.identity(name);
        if found.is_some_and(|found| found != which) && !weakened(Weakness::TakeAnyFolder) {
            let shown = super::file::printable(&path);
            return Err(io::Error::other(format!("{shown} is another directory than it was")));
        }
        fault::point("remove a folder")?;
        match rustix::fs::unlinkat(&self.folder, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => self.sync_of(&[name]),
            Err(error) => Err(at(&path, error)),
        }
    }

    /// Removes a directory that was just made, unless something is in it; any other is left alone.
    pub(crate) fn remove_if_empty(&self, name: &Path) -> io::Result<()> {
        let _ = rustix::fs::unlinkat(&self.folder, name, AtFlags::REMOVEDIR);
        self.sync_of(&[name])
    }

    /// The folders that these names are in.
    fn sync_of(&self, names: &[&Path]) -> io::Result<()> {
        if names.iter().any(|name| name.starts_with("..")) {
            let above = open_child(&self.folder, Path::new(".."));
            above.and_then(rustix::fs::fsync).map_err(|error| at(&self.path, error))?;
        }
        self.sync()
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        fault::point("sync a folder")?;
        rustix::fs::fsync(&self.folder).map_err(|error| at(&self.path, error))
    }

    /// How much can be written to this folder's file system, in bytes.
    pub(crate) fn free(&self) -> io::Result<u64> {
        let found = rustix::fs::fstatvfs(&self.folder).map_err(|error| at(&self.path, error))?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// All that was written to this folder's file system reaches the disk.
    pub(crate) fn sync_all(&self) -> io::Result<()> {
        fault::point("sync a file system")?;
        rustix::fs::syncfs(&self.folder).map_err(|error| at(&self.path, error))
    }
}

/// Opens the folder of this name; a link to one is none.
fn open_child(parent: &OwnedFd, name: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// A folder that we have just made is ours and empty. Whoever owns the folder that it lies in
/// may have put another one in its place meanwhile.
fn must_be_new(folder: &OwnedFd) -> rustix::io::Result<()> {
    let stat = rustix::fs::fstat(folder)?;
    let is_ours =
        stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o777 == 0o700;
    let is_empty = Dir::read_from(folder)?.all(|entry| {
        entry.is_ok_and(|entry| entry.file_name() == c"." || entry.file_name() == c"..")
    });
    let is_new = is_ours && is_empty || weakened(Weakness::TakeAnyFolder);
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
    fn an_exchange_swaps_two_folders_and_keeps_both() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("venv");
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
        assert!(folder.path().join(".venv.stage/old").exists());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o750);
    }

    #[test]
    fn a_link_on_the_way_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("real/venv")).unwrap();
        std::os::unix::fs::symlink(base.join("real"), base.join("link")).unwrap();
        assert!(Parent::of(&base.join("link/venv")).is_err());
        assert!(Parent::of(&base.join("real/venv")).is_ok());
    }

    #[test]
    fn an_empty_directory_is_removed_if_it_is_the_one_that_is_meant() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
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
    fn a_folder_that_took_the_place_of_a_new_one_is_not_given_away() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        for (name, mode) in [("new", 0o700), ("public", 0o755), ("full", 0o700)] {
            fs::create_dir(base.join(name)).unwrap();
            fs::set_permissions(base.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::write(base.join("full/secret"), "").unwrap();
        let is_new =
            |name| must_be_new(&folder::reach(&base.join(name), OFlags::RDONLY).unwrap()).is_ok();
        assert_eq!(["new", "public", "full"].map(is_new), [true, false, false]);
    }

    #[test]
    fn a_name_that_is_taken_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        fs::create_dir(base.join("a")).unwrap();
        fs::create_dir(base.join("b")).unwrap();
        let parent = Parent::of(&base.join("a")).unwrap();
        assert!(parent.rename(Path::new("a"), Path::new("b")).is_err());
    }
}
