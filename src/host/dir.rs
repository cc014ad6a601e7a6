//! An untrusted user's directory, held open: names in it are looked up one at a time and links
//! are never followed, so that nothing leads out of it.

use std::ffi::{CStr, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir as RawDir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat,
};

use super::access::{Access, Trusted};
use super::fault::{Weakness, weakened};
use super::{ReadError, file};

/// No directory of a venv has more names; the largest known has about ten thousand.
const ENTRIES_LIMIT: usize = 1 << 20;

/// Directories deeper than this are deliberate. Each level holds a descriptor open.
pub(crate) const DEPTH_LIMIT: usize = 128;

/// An open directory.
#[derive(Debug)]
pub(crate) struct Dir {
    descriptor: OwnedFd,
    path: PathBuf,
}

/// A name in a directory, and the kind of its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DirEntry {
    pub(crate) name: OsString,
    pub(crate) kind: FileType,
}

/// The flags for opening a directory.
fn dir_flags() -> OFlags {
    let mut flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    flags.set(OFlags::NOFOLLOW, !weakened(Weakness::FollowDirectories));
    flags
}

/// Opens a directory whose path contains no link.
pub(crate) fn open_nofollow(path: &Path, access: OFlags) -> io::Result<OwnedFd> {
    open_without_links(path, access | OFlags::DIRECTORY)
}

/// Opens a directory or a file, only to name it. Its path contains no link.
pub(super) fn open_place(path: &Path) -> io::Result<OwnedFd> {
    open_without_links(path, OFlags::PATH)
}

fn open_without_links(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    open_below(CWD, path, flags).map_err(|error| {
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("{}: {error}", file::printable(path)))
    })
}

/// Opens a path below a directory. No name in it is a link.
fn open_below(dir: BorrowedFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = if weakened(Weakness::FollowDirectories) {
        ResolveFlags::empty()
    } else {
        ResolveFlags::NO_SYMLINKS
    };
    rustix::fs::openat2(dir, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

impl Dir {
    /// Opens a directory whose path contains no link.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let descriptor = open_nofollow(path, OFlags::RDONLY)?;
        Ok(Self { descriptor, path: path.to_path_buf() })
    }

    /// Opens a directory only to read it. The last name must not be a link; earlier ones may be.
    pub(crate) fn open_to_look(path: &Path) -> io::Result<Self> {
        let descriptor = rustix::fs::open(path, dir_flags(), Mode::empty())?;
        Ok(Self { descriptor, path: path.to_path_buf() })
    }

    /// A second handle to this directory.
    pub(crate) fn dir_itself(&self) -> io::Result<Self> {
        Ok(Self { descriptor: self.descriptor.try_clone()?, path: self.path.clone() })
    }

    /// Opens a directory in this one.
    pub(crate) fn dir(&self, name: impl AsRef<Path>) -> io::Result<Self> {
        let name = single(name.as_ref())?;
        let descriptor = rustix::fs::openat(&self.descriptor, name, dir_flags(), Mode::empty())?;
        Ok(Self { descriptor, path: self.path.join(name) })
    }

    /// Opens the directory at a path of several names, none of them a link.
    pub(crate) fn below(&self, path: &Path) -> io::Result<Self> {
        if path.as_os_str().is_empty() {
            return self.dir_itself();
        }
        for name in path {
            single(Path::new(name))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let descriptor = open_below(self.descriptor(), path, flags)?;
        Ok(Self { descriptor, path: self.path.join(path) })
    }

    /// Hard-links a file here to an unused name in another directory.
    pub(crate) fn link(&self, name: &Path, to: &Self, new: &Path) -> io::Result<()> {
        let (name, new) = (single(name)?, single(new)?);
        Ok(rustix::fs::linkat(&self.descriptor, name, &to.descriptor, new, AtFlags::empty())?)
    }

    /// The open directory itself.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// The target of a link.
    pub(crate) fn read_link(&self, name: &Path) -> io::Result<PathBuf> {
        let text = rustix::fs::readlinkat(&self.descriptor, single(name)?, Vec::new())?;
        Ok(OsStr::from_bytes(text.as_bytes()).into())
    }

    /// Removes a name that is not a directory; a missing name is no error.
    pub(crate) fn unlink(&self, name: &Path) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.descriptor, single(name)?, AtFlags::empty()) {
            Err(rustix::io::Errno::NOENT) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Removes an empty directory.
    pub(crate) fn remove_dir(&self, name: &Path) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.descriptor, single(name)?, AtFlags::REMOVEDIR)?)
    }

    /// Makes changes to the names in it survive a power loss.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.descriptor)?)
    }

    /// Renames a file here to an unused name.
    pub(crate) fn rename_to_free(&self, name: &Path, new: &Path) -> io::Result<()> {
        let (name, new) = (single(name)?, single(new)?);
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&self.descriptor, name, &self.descriptor, new, flags) {
            // Not every file system supports that; there, a link refuses a name that is taken.
            Err(rustix::io::Errno::INVAL) => {
                self.link(name, self, new)?;
                self.unlink(name)
            }
            other => Ok(other?),
        }
    }

    /// Renames a file here, replacing whatever had the new name.
    pub(crate) fn rename(&self, name: &Path, new: &Path) -> io::Result<()> {
        let (name, new) = (single(name)?, single(new)?);
        Ok(rustix::fs::renameat(&self.descriptor, name, &self.descriptor, new)?)
    }

    /// Opens a regular file that `uid` may read according to its mode: it belongs to them, or
    /// everybody may read it and enter the directories above it. No name in its path is a link.
    pub(crate) fn readable_file(uid: u32, path: &Path) -> Result<File, ReadError> {
        let io = |source| ReadError::Io { path: path.to_path_buf(), source };
        let denied = || io(io::ErrorKind::PermissionDenied.into());
        let mut dir = Self::open(Path::new("/")).map_err(io)?;
        let mut is_anybodys = true;
        for part in path.parent().ok_or_else(denied)?.components().skip(1) {
            dir = dir.dir(Path::new(part.as_os_str())).map_err(io)?;
            is_anybodys &= dir.own_stat().map_err(io)?.st_mode & 0o001 != 0;
        }
        let file = dir.file(path.file_name().ok_or_else(denied)?)?;
        let stat = rustix::fs::fstat(&file).map_err(|error| io(error.into()))?;
        is_anybodys &= stat.st_mode & 0o004 != 0;
        if uid == 0 || stat.st_uid == uid || is_anybodys { Ok(file) } else { Err(denied()) }
    }

    /// The path it was opened by, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The `stat` of the directory itself.
    pub(crate) fn own_stat(&self) -> io::Result<Stat> {
        Ok(rustix::fs::fstat(&self.descriptor)?)
    }

    /// The `stat` of a name; of a link, that of the link.
    pub(crate) fn stat(&self, name: impl AsRef<Path>) -> io::Result<Stat> {
        let name = single(name.as_ref())?;
        Ok(rustix::fs::statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// The kind of the file at a name, if there is one.
    pub(crate) fn kind(&self, name: impl AsRef<Path>) -> Option<FileType> {
        Some(FileType::from_raw_mode(self.stat(name).ok()?.st_mode))
    }

    /// Opens a regular file. A FIFO or a device neither blocks nor is read.
    pub(crate) fn file(&self, name: impl AsRef<Path>) -> Result<File, ReadError> {
        Ok(self.sized_file(name.as_ref())?.0)
    }

    fn sized_file(&self, name: &Path) -> Result<(File, u64), ReadError> {
        let path = || self.path.join(name);
        let io = |source| ReadError::Io { path: path(), source };
        let name = single(name).map_err(io)?;
        let flags = file::untrusted();
        let file = match rustix::fs::openat(&self.descriptor, name, flags, Mode::empty()) {
            Ok(descriptor) => File::from(descriptor),
            Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => {
                return Err(ReadError::NotRegular { path: path() });
            }
            Err(error) => return Err(io(error.into())),
        };
        let stat = rustix::fs::fstat(&file).map_err(|error| io(error.into()))?;
        let is_file = FileType::from_raw_mode(stat.st_mode).is_file();
        if is_file || weakened(Weakness::ReadAnything) {
            Ok((file, u64::try_from(stat.st_size).unwrap_or(0)))
        } else {
            Err(ReadError::NotRegular { path: path() })
        }
    }

    /// Reads a whole regular file of at most `limit` bytes.
    pub(crate) fn read(&self, name: impl AsRef<Path>, limit: u64) -> Result<Vec<u8>, ReadError> {
        let path = || self.path.join(name.as_ref());
        let limit = file::at_most(limit);
        let (file, size) = self.sized_file(name.as_ref())?;
        if size > limit {
            return Err(ReadError::TooLarge { path: path(), limit });
        }
        // One more byte, so that the end is seen without growing the buffer.
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0).saturating_add(1));
        file.take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|source| ReadError::Io { path: path(), source })?;
        // It may have grown in between.
        if bytes.len() as u64 > limit {
            return Err(ReadError::TooLarge { path: path(), limit });
        }
        Ok(bytes)
    }

    /// Every name in it, in no particular order. A directory with too many names is an error.
    pub(crate) fn entries(&self) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in RawDir::read_from(&self.descriptor)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if entries.len() == ENTRIES_LIMIT {
                return Err(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    "too many names in a directory",
                ));
            }
            let kind = match entry.file_type() {
                FileType::Unknown => self.kind_of(name),
                kind => kind,
            };
            entries
                .push(DirEntry { name: OsStr::from_bytes(name.to_bytes()).to_os_string(), kind });
        }
        Ok(entries)
    }

    /// The first file or directory in it that users other than root may write to; its path is
    /// relative to this directory.
    pub(crate) fn writable_by_others(&self) -> io::Result<Option<PathBuf>> {
        self.writable_by_others_below(0)
    }

    fn writable_by_others_below(&self, depth: usize) -> io::Result<Option<PathBuf>> {
        for DirEntry { name, kind } in self.entries()? {
            let stat = match kind {
                FileType::RegularFile | FileType::Directory => self.stat(&name)?,
                _ => continue,
            };
            let access = Access::of_name(&self.descriptor, &name, &stat)?;
            if access.other(Trusted::ROOT).is_some() {
                return Ok(Some(name.into()));
            }
            if kind == FileType::Directory && depth < DEPTH_LIMIT {
                let below = self.dir(&name)?.writable_by_others_below(depth + 1)?;
                if let Some(below) = below {
                    return Ok(Some(Path::new(&name).join(below)));
                }
            }
        }
        Ok(None)
    }

    /// For file systems that do not report the kind with the name.
    fn kind_of(&self, name: &CStr) -> FileType {
        rustix::fs::statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode))
    }
}

/// A name that stays in its directory.
fn single(name: &Path) -> io::Result<&Path> {
    let bytes = name.as_os_str().as_bytes();
    if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a single name"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_leads_out_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path();
        fs::create_dir_all(base.join("venv/lib")).unwrap();
        fs::write(base.join("secret"), "secret").unwrap();
        symlink("../secret", base.join("venv/cfg")).unwrap();
        symlink("..", base.join("venv/bin")).unwrap();
        let venv = Dir::open(&base.join("venv")).unwrap();
        assert!(matches!(venv.read("cfg", 10), Err(ReadError::NotRegular { .. })));
        assert!(venv.dir("bin").is_err());
        for name in ["..", ".", "", "../secret", "lib/..", "/etc/passwd"] {
            assert!(venv.read(name, 10).is_err(), "{name}");
            assert!(venv.dir(name).is_err(), "{name}");
        }
        assert!(venv.dir("lib").is_ok());
        fs::create_dir_all(base.join("venv/lib/site")).unwrap();
        symlink("site", base.join("venv/lib/link")).unwrap();
        for path in ["bin/venv", "lib/link", "lib/../lib", "/etc", "lib/site/../../.."] {
            assert!(venv.below(Path::new(path)).is_err(), "{path}");
        }
        for (path, name) in [("", "lib"), ("lib", "site"), ("lib/site/", "none")] {
            let below = venv.below(Path::new(path)).unwrap();
            assert_eq!(below.dir(name).is_ok(), name != "none", "{path}");
        }
        symlink("venv", base.join("link")).unwrap();
        assert!(Dir::open(&base.join("link")).is_err());
    }

    #[test]
    fn a_fifo_does_not_block_and_a_large_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, 0o600.into(), 0).unwrap();
        fs::write(dir.path().join("large"), "12345").unwrap();
        let open = Dir::open(dir.path()).unwrap();
        assert!(matches!(open.read("fifo", 10), Err(ReadError::NotRegular { .. })));
        assert!(matches!(open.read("large", 4), Err(ReadError::TooLarge { limit: 4, .. })));
        assert_eq!(open.read("large", 5).unwrap(), b"12345");
        assert!(open.read("absent", 5).unwrap_err().is_not_found());
    }

    #[test]
    fn every_name_is_listed_with_its_kind() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("b"), "").unwrap();
        symlink("b", dir.path().join("c")).unwrap();
        let open = Dir::open(dir.path()).unwrap();
        let mut entries = open.entries().unwrap();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let kinds: Vec<_> = entries.iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds, [FileType::Directory, FileType::RegularFile, FileType::Symlink]);
        assert_eq!(open.entries().unwrap().len(), 3, "it can be listed again");
    }
}
