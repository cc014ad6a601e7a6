//! The side of a carrying that is the owner's: a process of his, which copies what it is told.
//! What he may not read it does not read, and what he may not write it does not write.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead, Read, Seek, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Gid, SeekFrom, Timespec, Timestamps, UTIME_OMIT};

use crate::host::user::User;
use crate::host::{Program, Root, confine, xattr};

/// What is to be copied: how, from where, to where, each ended by NUL.
#[derive(Default)]
pub(super) struct List(Vec<u8>);

/// How something is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// To where nothing stands yet.
    New,
    /// In the place of what stands there.
    Over,
    /// A folder alone, and those it lies in, for what is put into it by others.
    Folder,
}

impl How {
    const ALL: [Self; 3] = [Self::New, Self::Over, Self::Folder];

    fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Over => "over",
            Self::Folder => "folder",
        }
    }
}

impl List {
    pub(super) fn add(&mut self, how: How, from: &Path, to: &Path) {
        let fields =
            [how.word().as_bytes(), from.as_os_str().as_bytes(), to.as_os_str().as_bytes()];
        for field in fields {
            self.0.extend_from_slice(field);
            self.0.push(0);
        }
    }

    /// Lets the owner copy it all. Returns what he could not copy, by its number in the list,
    /// and why.
    pub(super) fn copy(
        self,
        root: &Root,
        owner: &User,
        limit: Duration,
    ) -> io::Result<Vec<(usize, String)>> {
        if self.0.is_empty() {
            return Ok(Vec::new());
        }
        let copier = Program::new("/proc/self/exe").arg("carry").input(self.0).limit(limit);
        let finished = confine::confined(root, copier, owner, &[], Path::new("/"))
            .run()
            .map_err(io::Error::other)?;
        let failure = |line: &str| {
            let (number, because) = line.split_once(' ')?;
            Some((number.parse().ok()?, because.to_string()))
        };
        Ok(finished.text().lines().filter_map(failure).collect())
    }
}

/// Does what a [`List`] says, and says on `output` what could not be copied.
pub(crate) fn copy_listed(input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    let mut fields =
        input.split(0).map(|bytes| Ok::<_, io::Error>(PathBuf::from(OsString::from_vec(bytes?))));
    let mut copier = Copier::default();
    let mut number = 0;
    while let (Some(how), Some(from), Some(to)) = (fields.next(), fields.next(), fields.next()) {
        let (how, from, to) = (how?, from?, to?);
        let how = How::ALL.into_iter().find(|one| Path::new(one.word()) == how);
        let result = match how.ok_or(io::ErrorKind::InvalidInput)? {
            How::New => copier.copy(&from, &to),
            How::Over => copier.copy_over(&from, &to),
            How::Folder => make_folders(&from, &to),
        };
        if let Err(error) = result {
            writeln!(output, "{number} {error}")?;
        }
        number += 1;
    }
    Ok(())
}

#[derive(Default)]
struct Copier {
    /// Where the first name of a file with several names was copied to, by device and inode.
    copied: HashMap<(u64, u64), PathBuf>,
}

impl Copier {
    /// Copies a file beside another one, and then into its place.
    #[expect(clippy::disallowed_methods, reason = "the owner's own process, in a tree of his")]
    fn copy_over(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let beside = super::carry::beside(to);
        self.copy(from, &beside)?;
        fs::rename(&beside, to)?;
        for copied in self.copied.values_mut().filter(|copied| **copied == beside) {
            *copied = to.to_path_buf();
        }
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "the owner's own process, in a tree of his")]
    fn copy(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if fs::symlink_metadata(to).is_ok() {
            if fs::read_link(from)
                .is_ok_and(|link| fs::read_link(to).is_ok_and(|there| there == link))
            {
                return Ok(());
            }
            return Err(io::Error::other(super::carry::TAKEN));
        }
        let metadata = fs::symlink_metadata(from)?;
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other("it is somebody else's"));
        }
        if let (Some(from), Some(to)) = (from.parent(), to.parent()) {
            make_folders(from, to)?;
        }
        let identity = (metadata.dev(), metadata.ino());
        if let Some(first) = self.copied.get(&identity) {
            return fs::hard_link(first, to);
        }
        let result = copy_one(from, &metadata, to);
        if result.is_err() {
            let _ = fs::remove_file(to);
        } else if metadata.nlink() > 1 {
            self.copied.insert(identity, to.to_path_buf());
        }
        result
    }
}

/// Copies a file or a link with all that belongs to it.
fn copy_one(from: &Path, metadata: &fs::Metadata, to: &Path) -> io::Result<()> {
    if metadata.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
        give_group(to, metadata.gid())?;
    } else if metadata.is_file() {
        let old = File::open(from)?;
        let new = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
        copy_content(&old, &new)?;
        // Both before the mode: it may forbid the one, and the other takes some of it away.
        xattr::copy(&old, &new)?;
        give_group(to, metadata.gid())?;
        new.set_permissions(fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    } else {
        return Err(io::Error::other("it is neither a file nor a link"));
    }
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: metadata.mtime(), tv_nsec: metadata.mtime_nsec() },
    };
    Ok(rustix::fs::utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn give_group(to: &Path, gid: u32) -> io::Result<()> {
    if fs::symlink_metadata(to)?.gid() == gid {
        return Ok(());
    }
    let group = Some(Gid::from_raw(gid));
    Ok(rustix::fs::chownat(CWD, to, None, group, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// What is a hole stays one. The standard library copies by reference where the file system
/// can.
fn copy_content(mut from: &File, mut to: &File) -> io::Result<()> {
    let size = from.metadata()?.len();
    let mut end = 0;
    loop {
        let start = match rustix::fs::seek(from, SeekFrom::Data(end)) {
            Ok(start) => start,
            // There is no more data.
            Err(rustix::io::Errno::NXIO) => return to.set_len(size),
            Err(error) => return Err(error.into()),
        };
        end = rustix::fs::seek(from, SeekFrom::Hole(start))?;
        from.seek(io::SeekFrom::Start(start))?;
        to.seek(io::SeekFrom::Start(start))?;
        io::copy(&mut from.take(end - start), &mut to)?;
    }
}

/// Makes a folder and those above it, with the modes of those they correspond to.
fn make_folders(from: &Path, to: &Path) -> io::Result<()> {
    if to.is_dir() {
        return Ok(());
    }
    if let (Some(from), Some(to)) = (from.parent(), to.parent()) {
        make_folders(from, to)?;
    }
    fs::create_dir(to)?;
    // Its owner has to be able to write into it now.
    let mode = fs::metadata(from).map_or(0, |metadata| metadata.mode() & 0o777);
    fs::set_permissions(to, fs::Permissions::from_mode(mode | 0o700))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test prepares its own files")]
mod tests {
    use super::*;

    fn copy(list: &List) -> String {
        let mut said = Vec::new();
        copy_listed(list.0.as_slice(), &mut said).unwrap();
        String::from_utf8(said).unwrap()
    }

    #[test]
    fn files_links_and_folders_keep_content_mode_and_place() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        fs::create_dir_all(old.join("etc/deep")).unwrap();
        fs::create_dir(&new).unwrap();
        fs::write(old.join("etc/deep/.env"), "SECRET=1").unwrap();
        fs::set_permissions(old.join("etc/deep/.env"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(old.join("etc/deep"), fs::Permissions::from_mode(0o710)).unwrap();
        symlink("nowhere", old.join("link")).unwrap();
        fs::write(old.join("taken"), "old").unwrap();
        fs::write(new.join("taken"), "new").unwrap();
        fs::write(old.join("patched"), "mine").unwrap();
        fs::write(new.join("patched"), "theirs").unwrap();
        let mut list = List::default();
        for (name, tree) in [("same", &old), ("same", &new), ("other", &old)] {
            symlink("target", tree.join(name)).unwrap();
        }
        symlink("another", new.join("other")).unwrap();
        for name in ["etc/deep/.env", "link", "taken", "gone", "same", "other"] {
            list.add(How::New, &old.join(name), &new.join(name));
        }
        list.add(How::Over, &old.join("patched"), &new.join("patched"));
        list.add(How::Folder, &old.join("a/b"), &new.join("a/b"));
        let said = copy(&list);
        assert_eq!(fs::read(new.join("etc/deep/.env")).unwrap(), b"SECRET=1");
        assert_eq!(fs::metadata(new.join("etc/deep/.env")).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(new.join("etc/deep")).unwrap().mode() & 0o777, 0o710);
        assert_eq!(fs::read_link(new.join("link")).unwrap(), Path::new("nowhere"));
        assert_eq!(fs::read(new.join("taken")).unwrap(), b"new");
        assert_eq!(fs::read(new.join("patched")).unwrap(), b"mine");
        assert!(!new.join(".patched.venvguard").exists());
        assert!(new.join("a/b").is_dir());
        let numbers: Vec<_> = said.lines().filter_map(|line| line.split_once(' ')).collect();
        let taken = super::super::carry::TAKEN;
        assert_eq!(numbers[0], ("2", taken), "{said}");
        assert_eq!((numbers[1].0, numbers[2]), ("3", ("5", taken)), "{said}");
        assert_eq!(numbers.len(), 3, "the same link is there: {said}");
    }

    #[test]
    fn the_names_of_one_file_are_names_of_one_file_again() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a"), "1").unwrap();
        fs::hard_link(at("a"), at("b")).unwrap();
        fs::write(at("new-a"), "0").unwrap();
        let mut list = List::default();
        list.add(How::Over, &at("a"), &at("new-a"));
        list.add(How::New, &at("b"), &at("new-b"));
        assert_eq!(copy(&list), "");
        let [a, b] = ["new-a", "new-b"].map(|name| fs::metadata(at(name)).unwrap());
        assert_eq!((a.ino(), a.nlink(), a.len()), (b.ino(), 2, 1));
    }

    #[test]
    fn a_hole_takes_no_room_and_times_and_attributes_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let file = File::create(at("sparse")).unwrap();
        file.set_len(64 << 20).unwrap();
        rustix::fs::seek(&file, SeekFrom::Start(32 << 20)).unwrap();
        (&file).write_all(b"middle").unwrap();
        let old = std::time::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
        file.set_modified(old).unwrap();
        symlink("x", at("link")).unwrap();
        let mut list = List::default();
        list.add(How::New, &at("sparse"), &at("copy"));
        list.add(How::New, &at("link"), &at("copied-link"));
        assert_eq!(copy(&list), "");
        let copied = fs::metadata(at("copy")).unwrap();
        assert_eq!((copied.len(), copied.modified().unwrap()), (64 << 20, old));
        assert!(copied.blocks() * 512 < 1 << 20, "{} blocks", copied.blocks());
        assert_eq!(fs::read(at("copy")).unwrap(), fs::read(at("sparse")).unwrap());
        let [one, other] =
            ["link", "copied-link"].map(|name| fs::symlink_metadata(at(name)).unwrap());
        assert_eq!(one.modified().unwrap(), other.modified().unwrap());
        assert_eq!(fs::read_link(at("copied-link")).unwrap(), Path::new("x"));
    }
}
