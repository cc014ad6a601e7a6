//! The work on trees that root leaves to their owners: see [`crate::owner`].

use std::collections::BTreeSet;
use std::io::{self, ErrorKind::NotFound};
use std::path::Path;
use std::time::Duration;

use super::Context;
use super::account::owner_of;
use super::names::{from_beside, name_of};
use super::states::Standing;
use crate::host::clock::Deadline;
use crate::host::file::printable;
use crate::host::path_text::PathText;
use crate::host::tree::{Identity, Parent};
use crate::host::user::User;
use crate::host::{Root, mount};
use crate::owner::{self, Carried, Carry, Compare, Lines, Pass, Remove};
use crate::python::Minor;
use crate::store::{JournalState, PendingRemoval, PreviousTree, Swap};
use crate::venv::{Flavour, Layout, Venv};

/// The time limit for looking through two trees.
pub(super) const LOOK_LIMIT: Duration = Duration::from_secs(300);

/// Two trees that are swapped, and the minor version that the packages in each are for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair<'a> {
    pub(super) venv: &'a Path,
    pub(super) flavour: Flavour,
    pub(super) owner: &'a User,
    /// The path of the tree that is not in place.
    pub(super) aside: &'a Path,
    pub(super) in_place: Minor,
    pub(super) put_aside: Minor,
}

impl<'a> Pair<'a> {
    /// A venv and another tree of it.
    pub(super) fn new(venv: &'a Venv, owner: &'a User, aside: &'a Path, other: Minor) -> Self {
        let Venv { path, flavour, site, .. } = venv;
        Self { venv: path, flavour: *flavour, owner, aside, in_place: *site, put_aside: other }
    }

    /// The same two trees after the swap.
    pub(super) fn swapped(self) -> Self {
        Self { in_place: self.put_aside, put_aside: self.in_place, ..self }
    }

    /// Carries the user files of the tree in place over to the other one.
    pub(super) fn carry(&self, root: &Root, pass: Pass, limit: Duration) -> io::Result<Carried> {
        let task = Carry {
            from: Layout::new(self.venv, self.in_place, self.flavour),
            to: self.aside.into(),
            minor: self.put_aside,
            venv: self.venv.into(),
            pass,
        };
        owner::run(root, self.owner, limit, &task)
    }

    /// Carries the user files of the tree that is aside over to the one in place.
    pub(super) fn carry_from_aside(
        &self,
        root: &Root,
        pass: Pass,
        limit: Duration,
    ) -> io::Result<Carried> {
        let task = Carry {
            from: Layout::new(self.aside, self.put_aside, self.flavour),
            to: self.venv.into(),
            minor: self.in_place,
            venv: self.venv.into(),
            pass,
        };
        owner::run(root, self.owner, limit, &task)
    }

    /// The files that only the tree that is aside has.
    fn only_aside(&self, root: &Root, partial: bool) -> io::Result<Lines> {
        let task = Compare {
            tree: Layout::new(self.aside, self.put_aside, self.flavour),
            other: self.venv.into(),
            minor: self.in_place,
            partial,
        };
        owner::run(root, self.owner, LOOK_LIMIT, &task)
    }
}

/// Names the files that are in one tree alone.
pub(super) fn only_in(tree: &Path, files: Lines) -> Option<String> {
    (!files.is_empty()).then(|| {
        format!(
            "the latest versions of these files are only in {}, which is kept until `venvguard prune NAME`: {}",
            printable(tree),
            files.into_lines().join(", ")
        )
    })
}

/// Which tree is at the venv's path.
pub(super) fn standing(venv: &Path, state: &JournalState) -> Standing {
    let found = Parent::of(venv).ok().and_then(|parent| parent.identity(name_of(venv)));
    match (found, state.swap()) {
        (None, _) => Standing::Nothing,
        (Some(found), Some(swap)) if found == swap.new => Standing::New,
        (Some(found), Some(swap)) if found != swap.previous.identity => Standing::Neither,
        (Some(_), _) => Standing::Previous,
    }
}

/// Puts the old tree back in its place, unless it is there already; the new tree is aside
/// afterwards. May be repeated after any interruption. A tree that is neither of the two belongs
/// to somebody else and is not touched.
pub(super) fn put_back(venv: &Path, swap: &Swap) -> io::Result<()> {
    let parent = Parent::of(venv)?;
    let (name, aside) = (name_of(venv), &from_beside(venv, swap.previous.path()));
    let (old, new) = (Some(swap.previous.identity), Some(swap.new));
    let standing = parent.identity(name);
    if standing == old {
        return Ok(());
    }
    if parent.identity(aside) != old {
        let (venv, aside) = (printable(venv), printable(swap.previous.path()));
        let message = format!("the previous environment is neither at {venv} nor at {aside}");
        return Err(io::Error::other(message));
    }
    if standing == new {
        return parent.exchange(aside, name);
    }
    // The venv's path is free; the rename refuses a name that is taken.
    parent.rename(aside, name)
}

/// Removes a tree that was put aside: its owner empties it, and root removes the empty directory.
/// A different directory at its path is left alone.
pub(super) fn discard(
    root: &Root,
    tree: &Path,
    which: Identity,
    deadline: Deadline,
) -> io::Result<()> {
    let parent = Parent::of(tree)?;
    let name = name_of(tree);
    let Some((uid, gid)) = parent.owner(name)? else {
        // The run that removed it may have been killed before it synced that.
        return parent.sync();
    };
    if parent.identity(name) != Some(which) {
        let path = printable(tree);
        return Err(io::Error::other(format!("{path} is a different directory now")));
    }
    // A mounted file system is not part of the tree.
    if let Some(mount) = mount::below(tree)?.first() {
        return Err(io::Error::other(format!("{} is mounted there", printable(mount))));
    }
    // Paths of trees are real paths, even if a directory stands in for the system.
    let real = &Root::new("/");
    let task = Remove { path: PathText(tree.to_path_buf()), identity: which };
    let removed = owner::run(real, &owner_of(root, uid, gid), deadline.left(), &task)?;
    // In a tree of root's, other users empty the directories that belong to them. Only the answer
    // of root's own process is trusted.
    let others = if uid == 0 && owner::is_root() { removed.others } else { Vec::new() };
    for (path, identity, other) in others {
        if other != 0 && path.0.starts_with(tree) {
            let task = Remove { path, identity };
            owner::run(real, &owner_of(root, other, other), deadline.left(), &task)?;
        }
    }
    match parent.remove_empty(name, which) {
        Err(error)
            if error.kind() == io::ErrorKind::DirectoryNotEmpty && !removed.left.is_empty() =>
        {
            let left = removed.left.into_lines().join("; ");
            Err(io::Error::other(format!(
                "{}: only its owner's files were removed ({left}); remove the rest by hand",
                printable(tree)
            )))
        }
        other => other,
    }
}

/// Messages about files that were not carried over and so are in one tree only.
pub(super) fn left_behind(left: Lines) -> impl Iterator<Item = String> {
    left.into_lines()
        .into_iter()
        .map(|line| format!("not carried over, and kept in the previous environment: {line}"))
}

/// Two passes may have met the same file.
pub(super) fn drop_repeats(notes: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    notes.retain(|note| seen.insert(note.clone()));
}

/// Whether a tree that was in place and is aside again holds files that the other one lacks.
#[derive(Debug)]
pub(super) enum Left {
    /// The other tree has everything that was in it.
    Nothing,
    HoldsFiles,
}

impl Left {
    pub(super) fn of(
        self,
        swap: &Swap,
        follows: bool,
    ) -> (Option<PendingRemoval>, Option<PreviousTree>) {
        let path = swap.previous.path();
        match self {
            Self::Nothing => (Some(PendingRemoval::new(path, swap.new)), None),
            Self::HoldsFiles => {
                (None, Some(PreviousTree::new(path, swap.new, follows).that_holds_files(true)))
            }
        }
    }
}

impl Pair<'_> {
    /// Whether only the tree that is aside has some files; if that cannot be determined, it is
    /// taken to have some.
    pub(super) fn left_aside(&self, root: &Root, partial: bool) -> (Left, Option<String>) {
        // A power loss may have taken a tree that was never in place.
        if root.at(self.aside).symlink_metadata().is_err_and(|error| error.kind() == NotFound) {
            return (Left::Nothing, None);
        }
        match self.only_aside(root, partial) {
            Ok(files) if files.is_empty() => (Left::Nothing, None),
            Ok(files) => (Left::HoldsFiles, only_in(self.aside, files)),
            Err(error) => {
                let path = printable(self.aside);
                let note = format!(
                    "cannot compare {path}, which is kept until `venvguard prune NAME`: {error}"
                );
                (Left::HoldsFiles, Some(note))
            }
        }
    }

    /// Puts the tree that is aside back in its place, and carries over what was written into the
    /// other one since. The services are down, but other programs may write until the swap: a
    /// second pass after it carries that over too.
    pub(super) fn bring_back(
        &self,
        context: &Context,
        swap: &Swap,
        partial: bool,
    ) -> io::Result<(Left, Vec<String>)> {
        let root = context.root;
        let mut notes = Vec::new();
        let mut is_all_back = true;
        let mut told = |carried: io::Result<Carried>| match carried {
            Ok(carried) => {
                is_all_back &= carried.left.is_empty();
                let left = carried.left.into_lines().into_iter();
                notes.extend(carried.notes.into_lines());
                notes.extend(left.map(|line| format!("not carried back: {line}")));
            }
            Err(error) => {
                is_all_back = false;
                notes.push(format!("cannot carry its user files back: {error}"));
            }
        };
        told(self.carry(root, Pass::Back { partial }, LOOK_LIMIT));
        put_back(self.venv, swap)?;
        let now = self.swapped();
        told(now.carry_from_aside(root, Pass::Late { partial }, LOOK_LIMIT));
        let (left, note) = now.left_aside(root, partial);
        let left = if is_all_back { left } else { Left::HoldsFiles };
        notes.extend(note);
        drop_repeats(&mut notes);
        Ok((left, notes))
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test prepares its own directories")]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::host::tree;

    const MINOR: Minor = Minor::new(3, 11);

    fn dir() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let (venv, aside) = (base.join("venv"), base.join("aside"));
        fs::create_dir(&venv).unwrap();
        fs::write(venv.join("old"), "").unwrap();
        (dir, venv, aside)
    }

    #[test]
    fn the_old_tree_is_put_back_from_wherever_it_is() {
        // Exchanged; taken away; not moved at all.
        for state in ["exchanged", "moved", "untouched"] {
            let (_dir, venv, aside) = dir();
            let old = tree::identity(&venv).unwrap();
            fs::create_dir(&aside).unwrap();
            let new = tree::identity(&aside).unwrap();
            match state {
                "exchanged" => Parent::of(&venv).unwrap().exchange(&aside, &venv).unwrap(),
                "moved" => {
                    fs::remove_dir(&aside).unwrap();
                    fs::rename(&venv, &aside).unwrap();
                }
                _ => {}
            }
            let swap = Swap { previous: PreviousTree::new(&aside, old, true), new, minor: MINOR };
            for _ in 0..2 {
                put_back(&venv, &swap).unwrap();
                assert_eq!(tree::identity(&venv), Some(old), "{state}");
                assert!(venv.join("old").exists() && !aside.join("old").exists(), "{state}");
            }
        }
    }

    #[test]
    fn a_tree_that_is_neither_of_the_two_is_not_touched() {
        let (_dir, venv, aside) = dir();
        fs::create_dir(&aside).unwrap();
        let (mine, old) = (tree::identity(&venv), tree::identity(&aside).unwrap());
        for kept in [(0, 0), old] {
            let swap =
                Swap { previous: PreviousTree::new(&aside, kept, true), new: (0, 1), minor: MINOR };
            assert!(put_back(&venv, &swap).is_err());
            assert_eq!(tree::identity(&venv), mine);
        }
    }

    #[test]
    fn a_tree_of_pipx_is_kept_where_pipx_does_not_look() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let (venv, aside) = (base.join("venvs/app"), base.join(".app.venvguard-x"));
        fs::create_dir_all(venv.join("old")).unwrap();
        fs::create_dir(&aside).unwrap();
        let (old, new) = (tree::identity(&venv).unwrap(), tree::identity(&aside).unwrap());
        let parent = Parent::of(&venv).unwrap();
        let name = from_beside(&venv, &aside);
        assert_eq!(parent.identity(&name), Some(new));
        parent.exchange(&name, name_of(&venv)).unwrap();
        assert!(aside.join("old").exists() && !venv.join("old").exists());
        let swap = Swap { previous: PreviousTree::new(&aside, old, true), new, minor: MINOR };
        put_back(&venv, &swap).unwrap();
        assert!(venv.join("old").exists());
        for _ in 0..2 {
            discard(&Root::new("/"), &aside, new, Deadline::after(LOOK_LIMIT)).unwrap();
        }
        assert!(!aside.exists());
    }
}
