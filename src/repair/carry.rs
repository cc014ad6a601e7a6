//! Carrying what no installer put into a venv over to its successor.
//!
//! What is the owner's is copied by a process of his (see [`super::copier`]). What is somebody
//! else's, or cannot be copied by him, gets a second name in the new tree: so it keeps all that
//! it has, nobody's right to read it is asked for, and root gives nothing to anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::copier::{How, List};
use crate::host::clock::Deadline;
use crate::host::user::User;
use crate::host::{FileIdentity, Folder, Root, file};
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

/// What no installer put into a tree, at one moment. A socket or a FIFO is its service's, which
/// makes it again.
#[derive(Debug, Default)]
pub(super) struct Seen {
    files: BTreeMap<PathBuf, FileIdentity>,
    folders: BTreeSet<PathBuf>,
}

impl Seen {
    pub(super) fn of(root: &Root, venv: &Venv) -> io::Result<Self> {
        let distributions = venv::distributions(&root.at(venv.site_packages()))?;
        let mut seen = Self::default();
        for one in venv::foreign_files(root, venv, &distributions)? {
            match one.kind {
                ForeignKind::Folder => {
                    seen.folders.insert(one.path);
                }
                ForeignKind::File | ForeignKind::Link => {
                    let identity = identity(&root.at(&venv.path).join(&one.path));
                    seen.files.extend(identity.map(|identity| (one.path, identity)));
                }
                ForeignKind::Other => {}
            }
        }
        Ok(seen)
    }

    /// The files that came or were changed until `later`.
    pub(super) fn changed(&self, later: &Self) -> Vec<PathBuf> {
        let is_new =
            |(path, identity): &(&PathBuf, &FileIdentity)| self.files.get(*path) != Some(identity);
        later.files.iter().filter(is_new).map(|(path, _)| path.clone()).collect()
    }
}

/// What of `old` came or was changed since it was `seen`, and is not in its successor as it is.
pub(super) fn late(
    root: &Root,
    seen: &Seen,
    old: &Venv,
    successor: &Path,
    minor: Minor,
) -> io::Result<Vec<PathBuf>> {
    let later = Seen::of(root, old)?;
    let mut changed = seen.changed(&later);
    changed.retain(|path| {
        let carried = root.at(successor).join(corresponding(path, old.site, minor));
        later.files.get(path).copied() != identity(&carried)
    });
    Ok(changed)
}

/// The files of one tree that are no installer's, or changed, and that another tree at `other`
/// has not, or as they were before: with when they were written. None where that is not known.
pub(super) fn last_written_in(
    root: &Root,
    one: &Path,
    other: &Path,
    minor: Minor,
) -> Option<Vec<(PathBuf, SystemTime)>> {
    let one = venv::inspect(root, one).ok()?;
    let distributions = venv::distributions(&root.at(one.site_packages())).ok()?;
    let modified = venv::modified_files(root, &one, &distributions).into_iter();
    let paths = Seen::of(root, &one).ok()?.files.into_keys().chain(modified.map(|file| file.path));
    let written =
        |path: PathBuf| fs::symlink_metadata(path).and_then(|found| found.modified()).ok();
    let alone = paths
        .filter_map(|path| {
            let here = written(root.at(&one.path).join(&path))?;
            let there = written(root.at(other).join(corresponding(&path, one.site, minor)));
            there.is_none_or(|there| there < here).then_some((path, here))
        })
        .collect();
    Some(alone)
}

/// Names the files that are in one tree alone.
pub(super) fn only_in(tree: &Path, files: &[(PathBuf, SystemTime)]) -> Option<String> {
    const NAMED: usize = 10;
    let names: Vec<String> =
        files.iter().take(NAMED).map(|(path, _)| file::printable(path)).collect();
    let more = files.len().saturating_sub(NAMED);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    (!files.is_empty()).then(|| {
        format!(
            "written last in {}, and kept there until it is pruned by name: {}{more}",
            file::printable(tree),
            names.join(", ")
        )
    })
}

fn identity(path: &Path) -> Option<FileIdentity> {
    Some(FileIdentity::from(&fs::symlink_metadata(path).ok()?))
}

impl Carrier<'_> {
    /// Copies those of the foreign files that are `wanted` (by their path in the venv).
    /// Returns what could not be carried, in words; it stays in the old tree.
    pub(super) fn foreign(
        &self,
        seen: &Seen,
        wanted: impl Fn(&Path) -> bool,
    ) -> io::Result<Vec<String>> {
        let wanted = seen.files.keys().filter(|path| wanted(path));
        self.carry(How::New, wanted.map(|path| (path.clone(), self.target(path))))
    }

    /// Copies once more what was changed since.
    pub(super) fn again(&self, changed: Vec<PathBuf>) -> io::Result<Vec<String>> {
        let to_target = |path: PathBuf| (path.clone(), self.target(&path));
        self.carry(How::Over, changed.into_iter().map(to_target))
    }

    /// Makes the folders that nobody accounts for what they were. What is put into one
    /// afterwards changes it again.
    pub(super) fn folders(&self, seen: &Seen) -> io::Result<Vec<String>> {
        self.make(seen.folders.iter().map(PathBuf::as_path))?;
        let (from, to) = self.trees()?;
        let settle = |path: &Path| {
            let made = to.below(&self.target(path))?;
            self.must_be_owners(&made)?;
            made.take_after(&from.below(path)?)
        };
        // Who may enter the venv and look into it, or write there, is its owner's to say.
        let minor = |one: Minor| Path::new("lib").join(one.program());
        let (old, new) = (minor(self.from.site), minor(self.minor));
        let site = |lib: &Path| lib.join("site-packages");
        let same = |name: &str| (PathBuf::from(name), PathBuf::from(name));
        for (old, new) in [
            same(""),
            same("bin"),
            same("lib"),
            (old.clone(), new.clone()),
            (site(&old), site(&new)),
        ] {
            let (Ok(model), Ok(made)) = (from.below(&old), to.below(&new)) else { continue };
            self.must_be_owners(&made)?;
            made.take_rights_of(&model)?;
        }
        // A folder that is somebody else's by then cannot be looked into.
        let failed = seen.folders.iter().rev().filter_map(|path| Some((path, settle(path).err()?)));
        Ok(failed.map(|(path, error)| self.told(path, &error.to_string())).collect())
    }

    /// Copies what was changed after it was installed over what the new tree has in its
    /// place, where that is what it was changed from. Else it is kept beside, and noted.
    pub(super) fn changes(&self, notes: &mut Vec<String>) -> io::Result<Vec<String>> {
        let (from, to) = (self.from, self.root.at(self.to));
        let distributions = venv::distributions(&self.root.at(from.site_packages()))?;
        let (fit, other): (Vec<_>, Vec<_>) = venv::modified_files(self.root, from, &distributions)
            .into_iter()
            .map(|one| (self.target(&one.path), one))
            .partition(|(target, one)| venv::has_hash(&to, target, &one.written));
        let fit = fit.into_iter().map(|(target, one)| (one.path, target));
        let mut left = self.carry(How::Over, fit)?;
        let beside: Vec<(PathBuf, PathBuf)> = other
            .into_iter()
            .map(|(target, one)| (one.path, free_name(&to, &mine(&target))))
            .collect();
        left.extend(self.carry(How::New, beside.iter().cloned())?);
        for (path, kept) in beside {
            // The name was free: what is there now is what was carried.
            if to.join(&kept).symlink_metadata().is_ok() {
                notes.push(format!(
                    "conflict: {} was changed after it was installed, and the new environment has another one or none: it is kept as {}",
                    file::printable(path),
                    file::printable(kept)
                ));
            }
        }
        Ok(left)
    }

    fn target(&self, path: &Path) -> PathBuf {
        corresponding(path, self.from.site, self.minor)
    }

    fn told(&self, path: &Path, because: &str) -> String {
        format!("{}: {because}", file::printable(self.from.path.join(path)))
    }

    /// Carries files from where they are in the old tree to where they belong in the new one.
    fn carry(
        &self,
        how: How,
        files: impl Iterator<Item = (PathBuf, PathBuf)>,
    ) -> io::Result<Vec<String>> {
        let old = self.root.at(&self.from.path);
        let is_owners = |(path, _): &(PathBuf, PathBuf)| {
            fs::symlink_metadata(old.join(path)).is_ok_and(|found| found.uid() == self.owner.uid)
        };
        let (own, others): (Vec<_>, Vec<_>) = files.partition(is_owners);
        let mut list = List::default();
        for (path, target) in &own {
            list.add(how, &self.from.path.join(path), &self.to.join(target));
        }
        let failed = list.copy(self.root, self.owner, self.deadline.left())?;
        let failed = failed.into_iter().filter_map(|(number, why)| Some((own.get(number)?, why)));
        let others = others.iter().map(|file| (file, String::new()));
        let rest: Vec<_> = failed.chain(others).collect();
        self.make(rest.iter().filter_map(|((path, _), _)| path.parent()))?;
        let (from, to) = self.trees()?;
        let mut left = Vec::new();
        for ((path, target), why) in rest {
            if let Err(error) = self.link(how, (&from, path), (&to, target)) {
                let why = if why.is_empty() { error.to_string() } else { why };
                left.push(self.told(path, &why));
            }
        }
        Ok(left)
    }

    /// Lets the owner make folders. One that he cannot make is missed by what belongs there.
    fn make<'b>(&self, folders: impl Iterator<Item = &'b Path>) -> io::Result<()> {
        let mut list = List::default();
        for path in folders {
            list.add(How::Folder, &self.from.path.join(path), &self.to.join(self.target(path)));
        }
        list.copy(self.root, self.owner, self.deadline.left()).map(drop)
    }

    /// Gives a file of the old tree a name in the new one.
    fn link(&self, how: How, from: (&Folder, &Path), to: (&Folder, &Path)) -> io::Result<()> {
        let parted = |(tree, path): (&Folder, &'_ Path)| {
            let parts = path.parent().zip(path.file_name());
            let (parent, name) = parts.ok_or(io::ErrorKind::InvalidInput)?;
            Ok::<_, io::Error>((tree.below(parent)?, PathBuf::from(name)))
        };
        let ((old, name), (new, new_name)) = (parted(from)?, parted(to)?);
        let which =
            |folder: &Folder, name: &Path| folder.stat(name).map(|stat| (stat.st_dev, stat.st_ino));
        match which(&new, &new_name) {
            Ok(found) if found == which(&old, &name)? => return Ok(()),
            Ok(_) if how == How::New => return Err(io::Error::other(TAKEN)),
            _ => {}
        }
        self.must_be_owners(&new)?;
        if how == How::New {
            return old.link(&name, &new, &new_name);
        }
        let beside = beside(&new_name);
        old.link(&name, &new, &beside)?;
        new.rename(&beside, &new_name)
    }

    /// A folder that the owner has put there instead of his own is not touched for him.
    fn must_be_owners(&self, folder: &Folder) -> io::Result<()> {
        let is_owners = folder.own_stat()?.st_uid == self.owner.uid;
        is_owners.then_some(()).ok_or_else(|| {
            io::Error::other(format!("{} is somebody else's", file::printable(folder.path())))
        })
    }

    fn trees(&self) -> io::Result<(Folder, Folder)> {
        Ok((Folder::open(&self.root.at(&self.from.path))?, Folder::open(&self.root.at(self.to))?))
    }
}

/// What is said where a name is not free.
pub(super) const TAKEN: &str = "the new environment has a file of that name";

/// The name under which a file is prepared that will take the place of another one.
pub(super) fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".venvguard");
    path.with_file_name(name)
}

/// The name under which a changed file is kept beside another version of it.
fn mine(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".venvguard-modified");
    name.into()
}

/// A name like this one that nothing in the tree has.
fn free_name(tree: &Path, name: &Path) -> PathBuf {
    let mut name = name.as_os_str().to_os_string();
    while tree.join(&name).symlink_metadata().is_ok() {
        name.push("+");
    }
    name.into()
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn what_was_written_last_in_a_tree_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path().canonicalize().unwrap());
        let (old, new) = (Minor::new(3, 11), Minor::new(3, 13));
        let one = crate::plan::samples::subject(crate::venv::Link::Pinned, new).venv;
        let other = Path::new("/srv/other");
        let site = |minor: Minor| PathBuf::from(format!("lib/{}/site-packages", minor.program()));
        for (tree, minor) in [(one.path.as_path(), new), (other, old)] {
            fs::create_dir_all(root.at(tree.join(site(minor)))).unwrap();
        }
        let write = |tree: &Path, name: &Path, hour: u64| {
            let file = fs::File::create(root.at(tree.join(name))).unwrap();
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(hour * 3600);
            file.set_modified(at).unwrap();
        };
        fs::write(root.at(one.path.join("pyvenv.cfg")), "home = /usr/bin\n").unwrap();
        let moved = |minor| site(minor).join("my.pth");
        for (name, in_one, in_other) in [("same", 1, 1), ("newer", 2, 1), ("older", 1, 2)] {
            write(&one.path, Path::new(name), in_one);
            write(other, Path::new(name), in_other);
        }
        write(&one.path, Path::new("alone"), 1);
        write(&one.path, &moved(new), 1);
        write(other, &moved(old), 1);
        let found = last_written_in(&root, &one.path, other, old).unwrap();
        let names: Vec<_> = found.iter().map(|(path, _)| path.as_path()).collect();
        assert_eq!(names, [Path::new("alone"), Path::new("newer")]);
        let said = only_in(&one.path, &found).unwrap();
        assert!(said.ends_with("pruned by name: alone, newer"), "{said}");
        assert_eq!(only_in(&one.path, &[]), None);
    }

    #[test]
    fn a_name_that_is_free_is_found() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x"), "").unwrap();
        assert_eq!(free_name(folder.path(), Path::new("x")), Path::new("x+"));
        assert_eq!(free_name(folder.path(), Path::new("y")), Path::new("y"));
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
