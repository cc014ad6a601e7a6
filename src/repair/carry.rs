//! Carrying what no installer put into a venv over to its successor.
//!
//! The copying is done by the venv's owner, in a process of his: what he may not read is
//! not read for him, and what he may not write is not written.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::host::clock::Deadline;
use crate::host::user::User;
use crate::host::{FileIdentity, Program, Root, confine, file};
use crate::python::Minor;
use crate::venv::{self, ForeignKind, Venv};

/// What is carried from where to where.
pub(super) struct Carrier<'a> {
    pub(super) root: &'a Root,
    pub(super) owner: &'a User,
    pub(super) from: &'a Venv,
    /// The new tree, whose `lib/pythonX.Y` is the one of `minor`.
    pub(super) to: &'a Path,
    pub(super) minor: Minor,
    pub(super) deadline: Deadline,
}

/// How the files that no installer put into a tree are, at one moment.
#[derive(Debug, Default)]
pub(super) struct Seen(BTreeMap<PathBuf, FileIdentity>);

impl Seen {
    pub(super) fn of(root: &Root, venv: &Venv) -> io::Result<Self> {
        let identity = |path: PathBuf| {
            let metadata = fs::symlink_metadata(root.at(venv.path.join(&path))).ok()?;
            Some((path, FileIdentity::from(&metadata)))
        };
        Ok(Self(foreign(root, venv)?.filter_map(identity).collect()))
    }

    fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.0.keys()
    }

    /// What came or was changed until `later`.
    pub(super) fn changed(&self, later: &Self) -> Vec<PathBuf> {
        let is_new =
            |(path, identity): &(&PathBuf, &FileIdentity)| self.0.get(*path) != Some(identity);
        later.0.iter().filter(is_new).map(|(path, _)| path.clone()).collect()
    }
}

/// What has to be carried, by its path in the venv. A socket or a FIFO is its service's,
/// which makes it again.
fn foreign(root: &Root, venv: &Venv) -> io::Result<impl Iterator<Item = PathBuf>> {
    let distributions = venv::distributions(&root.at(venv.site_packages()))?;
    let files = venv::foreign_files(root, venv, &distributions)?.into_iter();
    Ok(files.filter(|one| one.kind != ForeignKind::Other).map(|one| one.path))
}

impl Carrier<'_> {
    /// Copies those of the foreign files that are `wanted` (by their path in the venv).
    /// Returns what could not be carried, in words; it stays in the old tree.
    pub(super) fn foreign(
        &self,
        seen: &Seen,
        wanted: impl Fn(&Path) -> bool,
    ) -> io::Result<Vec<String>> {
        self.copy(NEW, seen.paths().filter(|path| wanted(path)).cloned())
    }

    /// Copies once more what was changed since.
    pub(super) fn again(&self, changed: Vec<PathBuf>) -> io::Result<Vec<String>> {
        self.copy(OVER, changed.into_iter())
    }

    /// Copies what was changed after it was installed over what the new tree has in its
    /// place, where that is what it was changed from.
    pub(super) fn changes(&self) -> io::Result<Vec<String>> {
        let (from, to) = (self.from, self.root.at(self.to));
        let distributions = venv::distributions(&self.root.at(from.site_packages()))?;
        let (fit, other): (Vec<_>, Vec<_>) = venv::modified_files(self.root, from, &distributions)
            .into_iter()
            .partition(|one| venv::has_hash(&to, &self.target(&one.path), &one.written));
        let mut left = self.copy(OVER, fit.into_iter().map(|one| one.path))?;
        left.extend(other.into_iter().map(|one| {
            let path = file::printable(&one.path);
            format!("{path}: it was changed after it was installed, and the new environment has another one")
        }));
        Ok(left)
    }

    fn target(&self, path: &Path) -> PathBuf {
        corresponding(path, self.from.site, self.minor)
    }

    fn copy(&self, how: &str, paths: impl Iterator<Item = PathBuf>) -> io::Result<Vec<String>> {
        let mut list = List::default();
        for path in paths {
            list.add(how, &self.from.path.join(&path), &self.to.join(self.target(&path)));
        }
        list.copy(self.root, self.owner, self.deadline.left())
    }
}

/// What is to be copied: how, from where, to where, each ended by NUL.
#[derive(Default)]
struct List(Vec<u8>);

/// Where nothing stands yet.
const NEW: &str = "new";

/// In the place of what stands there.
const OVER: &str = "over";

impl List {
    fn add(&mut self, how: &str, from: &Path, to: &Path) {
        for field in [how.as_bytes(), from.as_os_str().as_bytes(), to.as_os_str().as_bytes()] {
            self.0.extend_from_slice(field);
            self.0.push(0);
        }
    }

    /// Lets the owner copy it all, and returns what he could not copy, in words.
    fn copy(self, root: &Root, owner: &User, limit: Duration) -> io::Result<Vec<String>> {
        if self.0.is_empty() {
            return Ok(Vec::new());
        }
        let copier = Program::new("/proc/self/exe").arg("carry").input(self.0).limit(limit);
        let finished = confine::confined(root, copier, owner, None, Path::new("/"))
            .run()
            .map_err(io::Error::other)?;
        Ok(finished.text().lines().map(str::to_string).collect())
    }
}

/// Where a file of the old tree belongs in the new one: `lib/python3.11/…` becomes
/// `lib/python3.13/…`, everything else keeps its place.
fn corresponding(path: &Path, old: Minor, new: Minor) -> PathBuf {
    for library in ["lib", "lib64", "include"] {
        let prefix = Path::new(library).join(old.program());
        if let Ok(below) = path.strip_prefix(&prefix) {
            return Path::new(library).join(new.program()).join(below);
        }
    }
    path.to_path_buf()
}

/// The owner's side: reads a [`List`], does what it says, and says on `output` what it could
/// not copy.
pub(crate) fn copy_listed(input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    let mut fields =
        input.split(0).map(|bytes| Ok::<_, io::Error>(PathBuf::from(OsString::from_vec(bytes?))));
    while let (Some(how), Some(from), Some(to)) = (fields.next(), fields.next(), fields.next()) {
        let (how, from, to) = (how?, from?, to?);
        let result = if how == Path::new(OVER) { copy_over(&from, &to) } else { copy(&from, &to) };
        if let Err(error) = result {
            writeln!(output, "{}: {error}", file::printable(&from))?;
        }
    }
    Ok(())
}

/// Copies a file beside another one, and then into its place.
#[expect(clippy::disallowed_methods, reason = "the owner's own process, in a tree of his")]
fn copy_over(from: &Path, to: &Path) -> io::Result<()> {
    let mut name = OsString::from(".");
    name.push(to.file_name().unwrap_or_default());
    name.push(".venvguard");
    let beside = to.with_file_name(name);
    copy(from, &beside)?;
    fs::rename(&beside, to)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if fs::symlink_metadata(to).is_ok() {
        return Err(io::Error::other("the new environment has a file of that name"));
    }
    if let (Some(from), Some(to)) = (from.parent(), to.parent()) {
        make_folders(from, to)?;
    }
    let metadata = fs::symlink_metadata(from)?;
    if metadata.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    if metadata.is_dir() {
        fs::create_dir(to)?;
    } else if metadata.is_file() {
        // The standard library copies by reference where the file system can.
        fs::copy(from, to)?;
        let times = fs::FileTimes::new().set_modified(metadata.modified()?);
        fs::File::open(to)?.set_times(times)?;
    } else {
        return Err(io::Error::other("it is neither a file nor a folder nor a link"));
    }
    copy_attributes(from, to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777))
}

/// Makes the folders above a file with the modes of those they correspond to.
fn make_folders(from: &Path, to: &Path) -> io::Result<()> {
    if to.is_dir() {
        return Ok(());
    }
    if let (Some(from), Some(to)) = (from.parent(), to.parent()) {
        make_folders(from, to)?;
    }
    fs::create_dir(to)?;
    let mode = fs::metadata(from)?.mode() & 0o7777;
    // Its owner has to be able to write into it now; that is so in the old tree too, or
    // the file would not have come there.
    fs::set_permissions(to, fs::Permissions::from_mode(mode | 0o700))
}

/// Extended attributes, and with them the access lists.
fn copy_attributes(from: &Path, to: &Path) -> io::Result<()> {
    let mut names = vec![0; 64 << 10];
    let length = match rustix::fs::llistxattr(from, &mut names) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for name in names.get(..length).unwrap_or_default().split(|byte| *byte == 0) {
        // The others are root's or the kernel's to give.
        let is_owners = name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_");
        if !is_owners {
            continue;
        }
        let name = std::ffi::OsStr::from_bytes(name);
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::lgetxattr(from, name, &mut value)?;
        let value = value.get(..length).unwrap_or_default();
        rustix::fs::lsetxattr(to, name, value, rustix::fs::XattrFlags::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for name in ["etc/deep/.env", "link", "taken", "gone"] {
            list.add(NEW, &old.join(name), &new.join(name));
        }
        list.add(OVER, &old.join("patched"), &new.join("patched"));
        let mut said = Vec::new();
        copy_listed(list.0.as_slice(), &mut said).unwrap();
        let said = String::from_utf8(said).unwrap();
        assert_eq!(fs::read(new.join("etc/deep/.env")).unwrap(), b"SECRET=1");
        assert_eq!(fs::metadata(new.join("etc/deep/.env")).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(new.join("etc/deep")).unwrap().mode() & 0o777, 0o710);
        assert_eq!(fs::read_link(new.join("link")).unwrap(), Path::new("nowhere"));
        assert_eq!(fs::read(new.join("taken")).unwrap(), b"new");
        assert_eq!(fs::read(new.join("patched")).unwrap(), b"mine");
        assert!(!new.join(".patched.venvguard").exists());
        assert!(
            said.contains("old/taken: the new environment has") && said.contains("old/gone: "),
            "{said}"
        );
    }

    #[test]
    fn what_came_or_was_changed_since_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path().canonicalize().unwrap());
        let minor = Minor::new(3, 11);
        let venv = crate::plan::samples::subject(crate::venv::Link::Pinned, minor).venv;
        fs::create_dir_all(root.at(venv.site_packages())).unwrap();
        for name in ["same", "changed"] {
            fs::write(root.at(venv.path.join(name)), "1").unwrap();
        }
        let seen = Seen::of(&root, &venv).unwrap();
        fs::write(root.at(venv.path.join("changed")), "12").unwrap();
        fs::write(root.at(venv.path.join("new")), "1").unwrap();
        let changed = seen.changed(&Seen::of(&root, &venv).unwrap());
        assert_eq!(changed, ["changed", "new"].map(PathBuf::from));
    }

    #[test]
    fn a_file_in_the_library_moves_with_the_minor_version() {
        let (old, new) = (Minor::new(3, 11), Minor::new(3, 13));
        let moved = corresponding(Path::new("lib/python3.11/site-packages/my.pth"), old, new);
        assert_eq!(moved, Path::new("lib/python3.13/site-packages/my.pth"));
        assert_eq!(
            corresponding(Path::new("bin/postactivate"), old, new),
            Path::new("bin/postactivate")
        );
    }
}
