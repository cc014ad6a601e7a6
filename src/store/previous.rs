//! The previous environments, which rebuilds put aside.

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::PathText;
use crate::host::path_text;
use crate::host::{clock, tree};
use crate::owner::RelinkedName;

/// A previous environment, kept for a rollback until it is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PreviousTree {
    pub(crate) at: Timestamp,
    #[serde(deserialize_with = "path_text::absolute")]
    path: PathText,
    /// The identity of its directory, which is at its path or still at the venv's.
    pub(crate) identity: tree::Identity,
    /// Whether it followed the default interpreter; it may be pinned now.
    pub(crate) followed: bool,
    /// Whether some user files exist only in it: then it is removed only on request.
    #[serde(default)]
    pub(crate) holds_files: bool,
    /// The links in its `bin` that were changed to pin it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) links: Vec<RelinkedName>,
}

impl PreviousTree {
    pub(crate) fn new(path: &Path, identity: tree::Identity, followed: bool) -> Self {
        let (at, path, links) = (clock::now(), path.into(), Vec::new());
        Self { at, path, identity, followed, holds_files: false, links }
    }

    /// The same tree, with the knowledge whether it holds files of its own.
    pub(crate) fn that_holds_files(self, holds_files: bool) -> Self {
        Self { holds_files, ..self }
    }

    pub(crate) fn with_links(self, links: Vec<RelinkedName>) -> Self {
        Self { links, ..self }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path.0
    }
}

/// The previous environments of one venv, oldest first: in the order in which they were put aside,
/// regardless of the clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct PreviousTrees(Vec<PreviousTree>);

impl PreviousTrees {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn latest_first(&self) -> impl Iterator<Item = &PreviousTree> {
        self.0.iter().rev()
    }

    /// The tree with a name as `show` prints it, or with that last component.
    pub(crate) fn named(&self, wanted: &Path) -> Option<&PreviousTree> {
        self.latest_first()
            .find(|one| one.path() == wanted || one.path().file_name() == Some(wanted.as_os_str()))
    }

    pub(crate) fn at_mut(&mut self, path: &Path) -> Option<&mut PreviousTree> {
        self.0.iter_mut().find(|one| one.path() == path)
    }

    /// Adds the latest one. An entry with its path is outdated, because that tree was swapped with
    /// it.
    pub(crate) fn put_aside(&mut self, previous: PreviousTree) {
        self.0.retain(|one| one.path() != previous.path());
        self.0.push(previous);
    }

    /// Drops trees that were removed by hand.
    pub(crate) fn forget_gone(&mut self) {
        // If its parent directory is missing too, its file system may just not be mounted.
        let is_away = |path: &Path| !path.parent().is_some_and(Path::exists);
        self.0.retain(|one| tree::is_at(one.path(), one.identity) || is_away(one.path()));
    }

    /// Takes out the surplus over `at_most`, except trees that hold files of their own.
    pub(crate) fn take_surplus(&mut self, at_most: usize) -> Vec<PendingRemoval> {
        let surplus = self.0.len().saturating_sub(at_most);
        self.take(|index, one| index < surplus && !one.holds_files)
    }

    /// Takes out trees put aside before a moment, except those that hold files of their own.
    pub(crate) fn take_older(&mut self, than: Timestamp) -> Vec<PendingRemoval> {
        self.take(|_, one| one.at < than && !one.holds_files)
    }

    pub(crate) fn take_all(&mut self) -> Vec<PendingRemoval> {
        self.take(|_, _| true)
    }

    fn take(&mut self, is_taken: impl Fn(usize, &PreviousTree) -> bool) -> Vec<PendingRemoval> {
        let mut taken = Vec::new();
        for (index, one) in std::mem::take(&mut self.0).into_iter().enumerate() {
            if is_taken(index, &one) {
                taken.push(PendingRemoval { path: one.path, identity: one.identity });
            } else {
                self.0.push(one);
            }
        }
        taken
    }
}

/// A tree beside a venv that has to be removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PendingRemoval {
    #[serde(deserialize_with = "path_text::absolute")]
    path: PathText,
    pub(crate) identity: tree::Identity,
}

impl PendingRemoval {
    pub(crate) fn new(path: &Path, identity: tree::Identity) -> Self {
        Self { path: path.into(), identity }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn previous(number: u64) -> PreviousTree {
        PreviousTree::new(Path::new(&format!("/srv/.venv.venvguard-{number}")), (number, 0), true)
    }

    fn trees(count: u64) -> PreviousTrees {
        let mut trees = PreviousTrees::default();
        (1..=count).for_each(|number| trees.put_aside(previous(number)));
        trees
    }

    fn numbers(trees: &PreviousTrees) -> Vec<u64> {
        trees.0.iter().map(|one| one.identity.0).collect()
    }

    #[test]
    fn the_oldest_are_taken_first_except_those_with_files_of_their_own() {
        let mut trees = trees(4);
        trees.0[0].holds_files = true;
        let gone: Vec<u64> = trees.take_surplus(2).iter().map(|one| one.identity.0).collect();
        assert_eq!(gone, [2]);
        assert_eq!(numbers(&trees), [1, 3, 4]);
        assert!(trees.take_surplus(2).is_empty(), "a second call takes no more");
        trees.0[1].at = Timestamp::UNIX_EPOCH;
        trees.0[0].at = Timestamp::UNIX_EPOCH;
        assert_eq!(trees.take_older(clock::now()).len(), 1);
        assert_eq!(numbers(&trees), [1, 4]);
        assert_eq!(trees.take_all().len(), 2);
        assert!(trees.is_empty());
    }

    #[test]
    fn a_tree_swapped_with_a_kept_one_replaces_it_as_the_latest() {
        let mut trees = trees(3);
        let back = PreviousTree { identity: (9, 0), ..previous(1) };
        trees.put_aside(back);
        assert_eq!(numbers(&trees), [2, 3, 9]);
    }

    #[test]
    fn a_tree_is_named_by_its_path_or_its_last_component() {
        let trees = trees(2);
        for wanted in ["/srv/.venv.venvguard-1", ".venv.venvguard-1"] {
            assert_eq!(trees.named(Path::new(wanted)).map(|one| one.identity.0), Some(1));
        }
        for wanted in ["", "/", "venvguard-1", ".venv.venvguard-3"] {
            assert_eq!(trees.named(Path::new(wanted)), None, "{wanted:?}");
        }
    }
}
