//! Finds what only one of two trees contains, before a tree that was in place is removed.
//!
//! The other tree is in place by then. A pass leaves a list in both trees; the one in the tree
//! that is aside is enough.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::carry::{corresponding, is_installers, stat};
use super::manifest::Manifest;
use super::{Lines, Task};
use crate::host::clock::Deadline;
use crate::host::file::printable;
use crate::host::path_text::PathText;
use crate::host::{Dir, FileIdentity, Root};
use crate::python::Minor;
use crate::venv::{self, ForeignKind, Layout};

/// Finds what a tree has that another one lacks, or has in an older state.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Compare {
    pub(crate) tree: Layout,
    pub(crate) other: PathText,
    /// The minor version of the other one.
    pub(crate) minor: Minor,
    /// Whether the tree is half built: unfinished files of installers do not count.
    pub(crate) partial: bool,
}

impl Task for Compare {
    const NAME: &'static str = "compare";
    /// What only this tree contains.
    type Answer = Lines;

    fn perform(&self, root: &Root, deadline: Deadline) -> io::Result<Lines> {
        let tree = Dir::open(&root.at(self.tree.path()))?;
        let other = Dir::open(&root.at(&self.other.0))?;
        // A pass leaves it in both trees.
        let aside = Manifest::read(&tree, &other);
        let is_listed = aside.is_some();
        let known = aside.or_else(|| Manifest::read(&other, &tree));
        let since = known.map(|known| known.since);
        // A half-built tree may have none.
        let site = root.at(self.tree.site_packages());
        let distributions = venv::distributions(&site).unwrap_or_default();
        let is_new = |path: &Path| {
            let here = stat(&tree, path).ok()?;
            if since.is_some_and(|since| FileIdentity::from(&here).changed < since) {
                return None;
            }
            let there = stat(&other, &corresponding(path, self.tree.site, self.minor));
            let time = |stat: &rustix::fs::Stat| (stat.st_mtime, stat.st_mtime_nsec);
            let is_there = there.is_ok_and(|there| {
                time(&there) > time(&here)
                    || time(&there) == time(&here) && there.st_size == here.st_size
            });
            (!is_there).then_some(())
        };
        let user = venv::foreign_files(root, &self.tree, &distributions)?.into_iter();
        let user = user.filter(|one| matches!(one.kind, ForeignKind::File | ForeignKind::Link));
        let modified = venv::modified_files(root, &self.tree, &distributions, since);
        let modified = modified.into_iter().map(|one| one.path);
        let mut unique = Lines::default();
        for path in user.map(|one| one.path).chain(modified) {
            if deadline.has_passed() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if self.partial && is_installers(&path) {
                continue;
            }
            if is_new(&path).is_some() {
                unique.push(|| printable(&path));
            }
        }
        if !self.partial {
            for info in self.installed_since(root, &distributions, &tree, since) {
                unique.push(|| printable(&info));
            }
        }
        if is_listed {
            Manifest::remove(&other)?;
        }
        Ok(unique)
    }
}

impl Compare {
    /// The distributions that were installed by hand since the other tree was built.
    fn installed_since(
        &self,
        root: &Root,
        distributions: &[venv::Distribution],
        tree: &Dir,
        since: Option<i64>,
    ) -> Vec<PathBuf> {
        let Some(since) = since else { return Vec::new() };
        let site = venv::site_packages(&self.other.0, self.minor);
        let others = venv::distributions(&root.at(site)).unwrap_or_default();
        let known: BTreeSet<(String, Option<&str>)> =
            others.iter().map(|one| (one.normalized_name(), one.version.as_deref())).collect();
        let place = venv::site_packages(Path::new(""), self.tree.site);
        distributions
            .iter()
            .filter(|one| !known.contains(&(one.normalized_name(), one.version.as_deref())))
            .map(|one| place.join(&one.info))
            .filter(|path| {
                stat(tree, path).is_ok_and(|stat| FileIdentity::from(&stat).changed >= since)
            })
            .collect()
    }
}
