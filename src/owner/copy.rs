//! Copying one entry of a tree into another tree, with all its metadata.
//!
//! Both trees are walked by descriptor and no link in them is followed. A venv of root may contain
//! directories of another user, who can rearrange them during the copy.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, UTIME_OMIT, Uid,
};

use crate::host::{Dir, xattr};

/// The name of an entry until it is complete.
const TEMPORARY: &str = ".venvguard-new";

/// What the copy of an entry gets instead of what the entry contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Instead {
    /// The target of a link.
    Target(PathBuf),
    /// The content of a file.
    Content(Vec<u8>),
}

/// Copies entries of one tree to another one.
pub(super) struct Copier<'a> {
    from: &'a Dir,
    to: &'a Dir,
    /// Whether each file is synced before the next one is copied.
    durable: bool,
    /// The target of the first name of a file with several names, by device and inode.
    copied: HashMap<(u64, u64), PathBuf>,
    /// The directories of the last entry, kept open because the next one is often beside it.
    last: Option<(PathBuf, Dir, Dir)>,
}

impl<'a> Copier<'a> {
    pub(super) fn new(from: &'a Dir, to: &'a Dir, durable: bool) -> Self {
        Self { from, to, durable, copied: HashMap::new(), last: None }
    }

    /// Copies the file or link at `path` to `target`; `over` allows it to replace an existing
    /// entry.
    pub(super) fn copy(
        &mut self,
        path: &Path,
        target: &Path,
        over: bool,
        instead: Option<&Instead>,
    ) -> io::Result<()> {
        let name = name(path)?;
        let new_name = self::name(target)?;
        self.enter(path, target)?;
        let Some((_, from, to)) = &self.last else { return Err(io::ErrorKind::NotFound.into()) };
        let stat = from.stat(name)?;
        let identity = (stat.st_dev, stat.st_ino);
        to.unlink(Path::new(TEMPORARY))?;
        if let Some(first) = self.copied.get(&identity) {
            let first_dir = self.to.below(first.parent().unwrap_or(Path::new("")))?;
            first_dir.link(self::name(first)?, to, Path::new(TEMPORARY))?;
        } else {
            copy_one(from, name, &stat, to, instead, self.durable)?;
        }
        let moved = if over {
            to.rename(Path::new(TEMPORARY), new_name)
        } else {
            to.rename_to_free(Path::new(TEMPORARY), new_name)
        };
        if let Err(error) = moved {
            to.unlink(Path::new(TEMPORARY))?;
            return Err(error);
        }
        if stat.st_nlink > 1 {
            self.copied.insert(identity, target.to_path_buf());
        }
        if self.durable { to.sync() } else { Ok(()) }
    }

    /// Creates a directory and those above it, with the permissions of their counterparts.
    pub(super) fn make(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        self.last = None;
        enter(self.from, self.to, path, target).map(drop)
    }

    fn enter(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        let parent = path.parent().unwrap_or(Path::new(""));
        if self.last.as_ref().is_none_or(|(last, ..)| last != parent) {
            self.last = None;
            let new_parent = target.parent().unwrap_or(Path::new(""));
            let (from, to) = enter(self.from, self.to, parent, new_parent)?;
            make_writable(&to)?;
            self.last = Some((parent.to_path_buf(), from, to));
        }
        Ok(())
    }
}

fn name(path: &Path) -> io::Result<&Path> {
    path.file_name().map(Path::new).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Opens two corresponding directories, name by name, creating those that are missing.
fn enter(from: &Dir, to: &Dir, path: &Path, target: &Path) -> io::Result<(Dir, Dir)> {
    let mut here = (from.dir_itself()?, to.dir_itself()?);
    for (old, new) in path.iter().zip(target.iter()) {
        let from = here.0.dir(old)?;
        let to = match here.1.dir(new) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_like(&from, &here.1, Path::new(new))?
            }
            found => found?,
        };
        here = (from, to);
    }
    Ok(here)
}

/// Creates a directory that is writable for now, whatever the mode of its model.
fn make_like(model: &Dir, parent: &Dir, name: &Path) -> io::Result<Dir> {
    let mode = model.own_stat()?.st_mode & 0o777;
    rustix::fs::mkdirat(parent.descriptor(), name, Mode::from_raw_mode(0o700))?;
    let new = parent.dir(name)?;
    // Keep a bit that the directory inherited.
    let inherited = new.own_stat()?.st_mode & 0o2000;
    rustix::fs::fchmod(new.descriptor(), Mode::from_raw_mode(mode | inherited | 0o700))?;
    Ok(new)
}

/// Lets its owner write to a directory that already has its final permissions from an earlier
/// pass. It gets them again at the end of this pass.
pub(super) fn make_writable(dir: &Dir) -> io::Result<()> {
    let stat = dir.own_stat()?;
    if stat.st_mode & 0o300 == 0o300 || stat.st_uid != rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let mode = Mode::from_raw_mode((stat.st_mode & 0o7777) | 0o300);
    Ok(rustix::fs::fchmod(dir.descriptor(), mode)?)
}

/// Gives a directory the permissions, attributes and time of its counterpart.
pub(super) fn settle(model: &Dir, made: &Dir, with_time: bool) -> io::Result<()> {
    let (stat, found) = (model.own_stat()?, made.own_stat()?);
    give(made.descriptor(), &stat, &found)?;
    xattr::copy(model.descriptor(), made.descriptor())?;
    // Setting an unchanged mode would clear the set-group-ID bit of a directory whose group its
    // owner is not a member of.
    if (stat.st_mode ^ made.own_stat()?.st_mode) & 0o7777 != 0 {
        rustix::fs::fchmod(made.descriptor(), Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    }
    if with_time {
        rustix::fs::futimens(made.descriptor(), &times(&stat))?;
    }
    Ok(())
}

/// Copies a file or a link to the temporary name in another directory.
fn copy_one(
    from: &Dir,
    name: &Path,
    stat: &Stat,
    to: &Dir,
    instead: Option<&Instead>,
    durable: bool,
) -> io::Result<()> {
    let temporary = Path::new(TEMPORARY);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => {
            let target = match instead {
                Some(Instead::Target(target)) => target,
                _ => &from.read_link(name)?,
            };
            rustix::fs::symlinkat(target, to.descriptor(), temporary)?;
            let made = to.stat(temporary)?;
            let (uid, gid) = wanted(stat, &made);
            if uid.is_some() || gid.is_some() {
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::chownat(to.descriptor(), temporary, uid, gid, flags)?;
            }
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            Ok(rustix::fs::utimensat(to.descriptor(), temporary, &times(stat), flags)?)
        }
        FileType::RegularFile => {
            let old = from.file(name).map_err(io::Error::other)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            let flags = flags | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(0o600);
            let new = File::from(rustix::fs::openat(to.descriptor(), temporary, flags, mode)?);
            let content = match instead {
                Some(Instead::Content(content)) => Some(content.as_slice()),
                _ => None,
            };
            let result = fill(&old, &new, content, stat, durable);
            if result.is_err() {
                to.unlink(temporary)?;
            }
            result
        }
        _ => Err(io::Error::other("it is neither a file nor a link")),
    }
}

fn fill(
    old: &File,
    mut new: &File,
    content: Option<&[u8]>,
    stat: &Stat,
    durable: bool,
) -> io::Result<()> {
    match content {
        Some(content) => new.write_all(content)?,
        None => copy_content(old, new, u64::try_from(stat.st_size).unwrap_or(0))?,
    }
    // Both before the mode: the mode may forbid one of them, and the other clears some of its bits.
    xattr::copy(old, new)?;
    give(new, stat, &rustix::fs::fstat(new)?)?;
    rustix::fs::fchmod(new, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    rustix::fs::futimens(new, &times(stat))?;
    if durable { new.sync_all() } else { Ok(()) }
}

/// Gives an open file its owner, which only root can, and its group.
fn give(made: impl AsFd, stat: &Stat, found: &Stat) -> io::Result<()> {
    let (uid, gid) = wanted(stat, found);
    if uid.is_none() && gid.is_none() {
        return Ok(());
    }
    match rustix::fs::fchown(made, uid, gid) {
        // Its owner is not a member of that group, which matters only if the group may do more than
        // others.
        Err(rustix::io::Errno::PERM) if !group_matters(stat) => Ok(()),
        Err(rustix::io::Errno::PERM) => {
            Err(io::Error::other(format!("its owner is not a member of its group {}", stat.st_gid)))
        }
        other => Ok(other?),
    }
}

/// The owner and group that the copy still needs. An ordinary user's copies belong to them.
fn wanted(stat: &Stat, made: &Stat) -> (Option<Uid>, Option<Gid>) {
    let may_give = rustix::process::geteuid().is_root() && made.st_uid != stat.st_uid;
    let uid = may_give.then(|| Uid::from_raw(stat.st_uid));
    let gid = (made.st_gid != stat.st_gid).then(|| Gid::from_raw(stat.st_gid));
    (uid, gid)
}

/// Whether the members of its group may do more with a file than everybody else.
pub(super) fn group_matters(stat: &Stat) -> bool {
    let (group, others) = ((stat.st_mode >> 3) & 0o7, stat.st_mode & 0o7);
    group & !others != 0
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: stat.st_mtime,
            tv_nsec: stat.st_mtime_nsec.try_into().unwrap_or(0),
        },
    }
}

/// Copies the content; holes stay holes. The standard library copies by reference where the file
/// system can. A file that grows during the copy gets its initial length: its program keeps
/// writing.
fn copy_content(mut from: &File, mut to: &File, size: u64) -> io::Result<()> {
    let mut end = 0;
    loop {
        let start = match rustix::fs::seek(from, SeekFrom::Data(end)) {
            Ok(start) if start < size => start,
            // There is no more data.
            Ok(_) | Err(rustix::io::Errno::NXIO) => return to.set_len(size),
            Err(error) => return Err(error.into()),
        };
        end = rustix::fs::seek(from, SeekFrom::Hole(start))?.min(size);
        from.seek(io::SeekFrom::Start(start))?;
        to.seek(io::SeekFrom::Start(start))?;
        io::copy(&mut from.take(end - start), &mut to)?;
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test prepares its own trees")]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::time::Duration;

    use super::*;

    /// Two trees.
    struct Trees(tempfile::TempDir);

    impl Trees {
        fn new() -> Self {
            let trees = Self(tempfile::tempdir().unwrap());
            for name in ["old", "new"] {
                fs::create_dir(trees.0.path().join(name)).unwrap();
            }
            trees
        }

        fn old(&self, path: &str) -> PathBuf {
            self.0.path().join("old").join(path)
        }

        fn new_at(&self, path: &str) -> PathBuf {
            self.0.path().join("new").join(path)
        }

        fn copy(&self, paths: &[(&str, bool)]) -> Vec<io::Result<()>> {
            let open = |name: &str| Dir::open(&self.0.path().canonicalize().unwrap().join(name));
            let (from, to) = (open("old").unwrap(), open("new").unwrap());
            let mut copier = Copier::new(&from, &to, true);
            let copy = |(path, over): &(&str, bool)| {
                copier.copy(Path::new(path), Path::new(path), *over, None)
            };
            paths.iter().map(copy).collect()
        }
    }

    #[test]
    fn files_links_and_directories_keep_content_mode_and_path() {
        let trees = Trees::new();
        fs::create_dir_all(trees.old("etc/deep")).unwrap();
        fs::write(trees.old("etc/deep/.env"), "SECRET=1").unwrap();
        fs::set_permissions(trees.old("etc/deep/.env"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::set_permissions(trees.old("etc/deep"), fs::Permissions::from_mode(0o710)).unwrap();
        symlink("nowhere", trees.old("link")).unwrap();
        for (name, text) in [("taken", "old"), ("patched", "mine")] {
            fs::write(trees.old(name), text).unwrap();
            fs::write(trees.new_at(name), "theirs").unwrap();
        }
        let results = trees.copy(&[
            ("etc/deep/.env", false),
            ("link", false),
            ("taken", false),
            ("patched", true),
            ("gone", false),
        ]);
        let done: Vec<bool> = results.iter().map(Result::is_ok).collect();
        assert_eq!(done, [true, true, false, true, false]);
        assert_eq!(fs::read(trees.new_at("etc/deep/.env")).unwrap(), b"SECRET=1");
        let mode = |path: &str| fs::metadata(trees.new_at(path)).unwrap().mode() & 0o777;
        assert_eq!((mode("etc/deep/.env"), mode("etc/deep")), (0o640, 0o710));
        assert_eq!(fs::read_link(trees.new_at("link")).unwrap(), Path::new("nowhere"));
        assert_eq!(fs::read(trees.new_at("taken")).unwrap(), b"theirs");
        assert_eq!(fs::read(trees.new_at("patched")).unwrap(), b"mine");
        assert!(!trees.new_at(TEMPORARY).exists());
    }

    #[test]
    fn a_link_in_the_way_is_not_followed() {
        let trees = Trees::new();
        fs::create_dir_all(trees.old("data")).unwrap();
        fs::write(trees.old("data/file"), "1").unwrap();
        fs::create_dir(trees.0.path().join("theirs")).unwrap();
        symlink("../theirs", trees.new_at("data")).unwrap();
        assert!(trees.copy(&[("data/file", true)])[0].is_err());
        symlink("../theirs", trees.old("there")).unwrap();
        fs::write(trees.0.path().join("theirs/secret"), "").unwrap();
        assert!(trees.copy(&[("there/secret", false)])[0].is_err());
        assert_eq!(fs::read_dir(trees.0.path().join("theirs")).unwrap().count(), 1);
    }

    #[test]
    fn several_names_of_one_file_stay_names_of_one_file() {
        let trees = Trees::new();
        fs::write(trees.old("a"), "1").unwrap();
        fs::hard_link(trees.old("a"), trees.old("b")).unwrap();
        fs::write(trees.new_at("a"), "0").unwrap();
        assert!(trees.copy(&[("a", true), ("b", false)]).iter().all(Result::is_ok));
        let [a, b] = ["a", "b"].map(|name| fs::metadata(trees.new_at(name)).unwrap());
        assert_eq!((a.ino(), a.nlink(), a.len()), (b.ino(), 2, 1));
    }

    #[test]
    fn a_hole_takes_no_space_and_times_are_kept() {
        let trees = Trees::new();
        let file = File::create(trees.old("sparse")).unwrap();
        file.set_len(64 << 20).unwrap();
        rustix::fs::seek(&file, SeekFrom::Start(32 << 20)).unwrap();
        io::Write::write_all(&mut &file, b"middle").unwrap();
        let old = std::time::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
        file.set_modified(old).unwrap();
        symlink("x", trees.old("link")).unwrap();
        assert!(trees.copy(&[("sparse", false), ("link", false)]).iter().all(Result::is_ok));
        let copied = fs::metadata(trees.new_at("sparse")).unwrap();
        assert_eq!((copied.len(), copied.modified().unwrap()), (64 << 20, old));
        assert!(copied.blocks() * 512 < 1 << 20, "{} blocks", copied.blocks());
        assert_eq!(
            fs::read(trees.new_at("sparse")).unwrap(),
            fs::read(trees.old("sparse")).unwrap()
        );
        let time = |path: PathBuf| fs::symlink_metadata(path).unwrap().modified().unwrap();
        assert_eq!(time(trees.old("link")), time(trees.new_at("link")));
    }
}
