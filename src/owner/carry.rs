//! Carries a tree's user files over to the tree that replaces it.
//!
//! A rebuild does this in passes. The first two fill the new tree while the services still run and
//! write; the last one runs after they are stopped, and carries all later changes, deletions
//! included. A rollback is one such pass in the other direction.
//!
//! A pass overwrites and deletes only files that an earlier pass carried: a [`Manifest`] lists
//! them.

mod adapt;
mod created;
mod modified;

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::copy::{Copier, Instead, make_writable, settle};
use super::manifest::Manifest;
use super::{Lines, Task};
use crate::host::clock::Deadline;
use crate::host::file::printable;
use crate::host::path_text::PathText;
use crate::host::{Dir, FileIdentity, Root};
use crate::python::Minor;
use crate::venv::{self, ForeignKind, Layout};
use modified::is_kept_beside;

/// The source and the target of a pass.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Carry {
    /// The tree at its current path.
    pub(crate) from: Layout,
    /// The other tree, whose `lib/pythonX.Y` belongs to `minor`.
    pub(crate) to: PathText,
    pub(crate) minor: Minor,
    /// The path that both trees have when they are in place.
    pub(crate) venv: PathText,
    pub(crate) pass: Pass,
}

/// Which pass it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Pass {
    /// Files that installers need before they run: those below these paths, relative to the tree.
    First(Vec<PathText>),
    /// All user files.
    All,
    /// Changes since the first pass. The other tree is about to replace this one.
    Last,
    /// The same in the other direction: the older tree is about to return. From a `partial` tree,
    /// the unfinished files of installers are not carried.
    Back { partial: bool },
    /// Files written during the swap into the tree that was swapped out. The files now in place
    /// may be newer: none is deleted, and no newer one is overwritten.
    Late { partial: bool },
}

/// The result of a pass.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Carried {
    /// Files that only the first tree has.
    pub(crate) left: Lines,
    /// Notes for the user.
    pub(crate) notes: Lines,
}

impl Task for Carry {
    const NAME: &'static str = "carry";
    type Answer = Carried;

    fn perform(&self, root: &Root, deadline: Deadline) -> io::Result<Carried> {
        let from = Dir::open(&root.at(self.from.path()))?;
        let to = Dir::open(&root.at(&self.to.0))?;
        if self.is_ahead() {
            // A mapped page that a program has modified but that is not yet on disk has no new
            // time: after this sync, the next store sets one.
            rustix::fs::syncfs(from.descriptor())?;
        }
        // Later changes may be missing from the copies of this pass.
        let begun = Manifest::now(&to)?;
        let known = self.known(&from, &to);
        let since = known.as_ref().map(|known| known.since);
        let mut work = Work {
            task: self,
            root,
            from: &from,
            to: &to,
            deadline,
            since,
            known: known.unwrap_or_default(),
            now: Manifest::default(),
            carried: Carried::default(),
        };
        work.run()?;
        let Work { mut now, carried, .. } = work;
        now.since = if self.is_ahead() { since.unwrap_or(begun) } else { begun };
        let here = now.translated(|path| self.origin(path));
        now.write(&to, &from)?;
        if !self.is_ahead() {
            // Both trees keep the list: whichever is put aside needs it for the way back.
            here.write(&from, &to)?;
            from.sync()?;
            to.sync()?;
        }
        Ok(carried)
    }
}

impl Carry {
    /// Whether the services still run: files copied now are copied again when they change.
    fn is_ahead(&self) -> bool {
        matches!(self.pass, Pass::First(_) | Pass::All)
    }

    fn is_back(&self) -> bool {
        matches!(self.pass, Pass::Back { .. } | Pass::Late { .. })
    }

    /// The files that earlier passes carried, in either direction, by their paths in the other
    /// tree.
    fn known(&self, from: &Dir, to: &Dir) -> Option<Manifest> {
        Manifest::read(to, from).or_else(|| {
            let here = Manifest::read(from, to)?;
            Some(here.translated(|path| self.target(path)))
        })
    }

    fn target(&self, path: &Path) -> PathBuf {
        corresponding(path, self.from.site, self.minor)
    }

    /// The path in this tree that corresponds to a path in the other one.
    fn origin(&self, path: &Path) -> PathBuf {
        corresponding(path, self.minor, self.from.site)
    }
}

struct Work<'a> {
    task: &'a Carry,
    root: &'a Root,
    from: &'a Dir,
    to: &'a Dir,
    deadline: Deadline,
    /// A file that has not changed since then is the same as its copy from an earlier pass.
    since: Option<i64>,
    /// The files that earlier passes put into the other tree, by their paths there.
    known: Manifest,
    /// The same after this pass.
    now: Manifest,
    carried: Carried,
}

impl Work<'_> {
    fn run(&mut self) -> io::Result<()> {
        let site = self.root.at(self.task.from.site_packages());
        // A tree that is half built may have none.
        let distributions = venv::distributions(&site).unwrap_or_default();
        let found = venv::foreign_files(self.root, &self.task.from, &distributions)?;
        let wanted = |path: &Path| match &self.task.pass {
            Pass::First(paths) => paths.iter().any(|one| path.starts_with(&one.0)),
            Pass::Back { partial: true } | Pass::Late { partial: true } => !is_installers(path),
            _ => true,
        };
        match self.task.pass {
            Pass::First(_) | Pass::Late { .. } => self.now.user.clone_from(&self.known.user),
            Pass::All | Pass::Last | Pass::Back { .. } => self.delete_what_is_gone()?,
        }
        let mut copier = Copier::new(self.from, self.to, !self.task.is_ahead());
        // Links come last: each is adapted if its new target exists.
        let (links, others): (Vec<_>, Vec<_>) = found
            .iter()
            .filter(|one| wanted(&one.path))
            .partition(|one| one.kind == ForeignKind::Link);
        for one in others.into_iter().chain(links) {
            if self.deadline.has_passed() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match one.kind {
                ForeignKind::Directory => self.directory(&mut copier, &one.path)?,
                ForeignKind::File | ForeignKind::Link => self.file(&mut copier, &one.path)?,
                ForeignKind::Closed => {
                    self.failed(&one.path, &io::ErrorKind::PermissionDenied.into())?;
                }
                // A socket or a FIFO belongs to its service, which creates it again.
                ForeignKind::Other => {}
            }
        }
        let is_whole =
            matches!(self.task.pass, Pass::Back { partial: false } | Pass::Late { partial: false });
        if matches!(self.task.pass, Pass::All | Pass::Last) || is_whole {
            self.modified(&mut copier, &distributions)?;
        }
        if matches!(self.task.pass, Pass::All | Pass::Last) {
            self.created(&mut copier)?;
        }
        if matches!(self.task.pass, Pass::All | Pass::Last | Pass::Back { partial: false }) {
            self.settle(
                found
                    .iter()
                    .filter(|one| one.kind == ForeignKind::Directory)
                    .map(|one| one.path.as_path()),
            );
        }
        Ok(())
    }

    /// Deletes from the other tree whatever an earlier pass put there that is gone from this tree
    /// or has become something else.
    fn delete_what_is_gone(&mut self) -> io::Result<()> {
        // The contents of a directory come before it.
        for path in self.known.user.iter().rev() {
            let (Ok(there), parent) = (stat(self.to, path), path.parent()) else { continue };
            let is_directory = |stat: &Stat| FileType::from_raw_mode(stat.st_mode).is_dir();
            match stat(self.from, &self.task.origin(path)) {
                Ok(here) if is_directory(&here) == is_directory(&there) => continue,
                Err(error) if !is_gone(&error) => continue,
                _ => {}
            }
            let Some(name) = path.file_name().map(Path::new) else { continue };
            let dir = self.to.below(parent.unwrap_or(Path::new("")))?;
            make_writable(&dir)?;
            if is_directory(&there) {
                // It may contain files that no pass put there.
                let _ = dir.remove_dir(name);
            } else {
                dir.unlink(name)?;
            }
            if !self.task.is_ahead() {
                dir.sync()?;
            }
        }
        Ok(())
    }

    fn directory(&mut self, copier: &mut Copier, path: &Path) -> io::Result<()> {
        let target = self.task.target(path);
        match copier.make(path, &target) {
            Ok(()) => drop(self.now.user.insert(target)),
            Err(error) => self.failed(path, &error)?,
        }
        Ok(())
    }

    fn file(&mut self, copier: &mut Copier, path: &Path) -> io::Result<()> {
        let target = self.task.target(path);
        // Such a copy is of no use beside its original.
        if self.task.is_back() && is_kept_beside(path) {
            return Ok(());
        }
        let Ok(here) = stat(self.from, path) else { return Ok(()) };
        let adapted = self.adapted(path, &here);
        let instead = adapted.instead.as_ref();
        let there = stat(self.to, &target).ok();
        let is_known = self.known.user.contains(&target);
        let is_same =
            there.as_ref().is_some_and(|there| self.is_same(path, &here, &target, there, instead));
        let is_unchanged = self.since.is_none_or(|since| FileIdentity::from(&here).changed < since);
        if is_same && (is_unchanged || !is_known) {
            self.now.user.insert(target);
            return Ok(());
        }
        if there.is_some() && !is_known {
            self.left(path, &io::Error::other("the other environment has a file of that name"));
            return Ok(());
        }
        let is_newer = |there: &Stat| {
            (there.st_mtime, there.st_mtime_nsec) > (here.st_mtime, here.st_mtime_nsec)
        };
        if matches!(self.task.pass, Pass::Late { .. }) && there.as_ref().is_some_and(is_newer) {
            self.left(path, &io::Error::other("the other environment has a newer version"));
            return Ok(());
        }
        match copier.copy(path, &target, there.is_some(), instead) {
            Ok(()) => {
                if let Some(what) = adapted.still.filter(|_| !is_known && !self.task.is_back()) {
                    self.note(path, &what);
                }
                self.now.user.insert(target);
            }
            Err(error) => self.failed(path, &error)?,
        }
        Ok(())
    }

    /// Whether two entries look the same by their metadata.
    fn is_same(
        &self,
        path: &Path,
        here: &Stat,
        target: &Path,
        there: &Stat,
        instead: Option<&Instead>,
    ) -> bool {
        let kind = |stat: &Stat| FileType::from_raw_mode(stat.st_mode);
        if kind(here) != kind(there) {
            return false;
        }
        if kind(here).is_symlink() {
            let wanted = match instead {
                Some(Instead::Target(target)) => Some(target.clone()),
                _ => read_link(self.from, path),
            };
            return wanted.is_some() && wanted == read_link(self.to, target);
        }
        let size = match instead {
            Some(Instead::Content(content)) => i64::try_from(content.len()).unwrap_or(i64::MAX),
            _ => here.st_size,
        };
        size == there.st_size
            && (here.st_mtime, here.st_mtime_nsec) == (there.st_mtime, there.st_mtime_nsec)
            && here.st_mode == there.st_mode
    }

    /// Gives directories their permissions and times, last, because adding files changes the times.
    fn settle<'b>(&mut self, directories: impl DoubleEndedIterator<Item = &'b Path>) {
        let both = |path: &Path| {
            Ok::<_, io::Error>((self.from.below(path)?, self.to.below(&self.task.target(path))?))
        };
        let mut failed = Vec::new();
        for path in directories.rev() {
            if let Err(error) = both(path).and_then(|(model, made)| settle(&model, &made, true)) {
                failed.push((path, error));
            }
        }
        // The owner decides who may enter the venv and write there.
        let library = Path::new("lib").join(self.task.from.site.program());
        let frame =
            [PathBuf::new(), "bin".into(), "lib".into(), library.join("site-packages"), library];
        if !self.task.is_back() {
            for path in frame.iter().rev() {
                if let Ok((model, made)) = both(path) {
                    if let Err(error) = settle(&model, &made, false) {
                        failed.push((path, error));
                    }
                }
            }
        }
        for (path, error) in failed {
            if stat(self.from, path).is_ok() {
                self.left(path, &error);
            }
        }
    }

    /// Leaves a file that cannot be copied in the first tree. If the second one, which is about to
    /// be used, has an older copy of it, or if the disk is full, the pass fails instead.
    fn failed(&mut self, path: &Path, because: &io::Error) -> io::Result<()> {
        // It may have been removed just now.
        if stat(self.from, path).is_err_and(|error| is_gone(&error)) {
            return Ok(());
        }
        let target = self.task.target(path);
        let is_stale = self.known.user.contains(&target) || self.known.modified.contains(&target);
        if !self.task.is_back() && (is_stale || is_full(because)) {
            let path = printable(self.task.from.path().join(path));
            return Err(io::Error::new(because.kind(), format!("{path}: {because}")));
        }
        self.left(path, because);
        Ok(())
    }

    fn left(&mut self, path: &Path, because: &io::Error) {
        let path = self.task.from.path().join(path);
        self.carried.left.push(|| format!("{}: {because}", printable(path)));
    }

    fn note(&mut self, path: &Path, what: &str) {
        let old = self.task.from.site;
        self.carried.notes.push(|| {
            format!("{} {what}, which belongs to Python {old}; change it by hand", printable(path))
        });
    }
}

/// Whether installers write there: the remains of an unfinished build are not user files.
pub(super) fn is_installers(path: &Path) -> bool {
    let first = path.iter().next().unwrap_or_default();
    ["bin", "include", "lib", "lib64", "share"].iter().any(|name| first == *name)
}

/// Whether there is no room for a copy.
fn is_full(error: &io::Error) -> bool {
    let full = [Errno::NOSPC, Errno::DQUOT];
    Errno::from_io_error(error).is_some_and(|errno| full.contains(&errno))
}

/// Whether a path does not exist, or a directory above it was replaced by something else.
fn is_gone(error: &io::Error) -> bool {
    let gone = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP];
    Errno::from_io_error(error).is_some_and(|errno| gone.contains(&errno))
}

pub(super) fn stat(tree: &Dir, path: &Path) -> io::Result<Stat> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    tree.below(path.parent().unwrap_or(Path::new("")))?.stat(name)
}

fn read_link(tree: &Dir, path: &Path) -> Option<PathBuf> {
    let dir = tree.below(path.parent()?).ok()?;
    dir.read_link(Path::new(path.file_name()?)).ok()
}

/// Where a file of one tree belongs in another one: `lib/python3.11/…` becomes
/// `lib/python3.13/…`, everything else keeps its place.
pub(super) fn corresponding(path: &Path, old: Minor, new: Minor) -> PathBuf {
    for library in ["lib", "lib64", "include"] {
        let prefix = Path::new(library).join(old.program());
        if let Ok(below) = path.strip_prefix(&prefix) {
            return Path::new(library).join(new.program()).join(below);
        }
    }
    path.to_path_buf()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test prepares its own trees")]
mod tests;
