//! The disk usage of a tree, and whether a process of its owner can carry its files.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use rustix::fs::Stat;
use serde::{Deserialize, Serialize};

use super::carry::stat;
use super::copy::group_matters;
use super::{Lines, Task};
use crate::host::clock::Deadline;
use crate::host::dir::DEPTH_LIMIT;
use crate::host::file::printable;
use crate::host::{Dir, Root};
use crate::venv::{self, ForeignKind, Layout};

/// Measures a tree.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Measure {
    pub(crate) tree: Layout,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Measured {
    /// The size on disk. A file with several names counts once for each.
    pub(crate) bytes: u64,
    /// User files that only another user could carry: a copy would be of no use to that user.
    pub(crate) others: Lines,
}

impl Task for Measure {
    const NAME: &'static str = "measure";
    type Answer = Measured;

    fn perform(&self, root: &Root, deadline: Deadline) -> io::Result<Measured> {
        let top = Dir::open(&root.at(self.tree.path()))?;
        let mut measured = Measured { bytes: size(&top, deadline, 0)?, others: Lines::default() };
        if rustix::process::geteuid().is_root() {
            // Root gives each copy its owner.
            return Ok(measured);
        }
        let distributions =
            venv::distributions(&root.at(self.tree.site_packages())).unwrap_or_default();
        let own = Own::of(&top.own_stat()?)?;
        for one in venv::foreign_files(root, &self.tree, &distributions)? {
            if matches!(one.kind, ForeignKind::Link | ForeignKind::Other) {
                continue;
            }
            let Ok(stat) = stat(&top, &one.path) else { continue };
            if let Some(why) = own.why_not(&stat) {
                measured.others.push(|| format!("{}: {why}", printable(&one.path)));
            }
        }
        Ok(measured)
    }
}

/// The user of this process, and the groups that its files can get.
struct Own {
    uid: u32,
    groups: BTreeSet<u32>,
}

impl Own {
    /// A directory created in the venv may inherit the venv's group.
    fn of(top: &Stat) -> io::Result<Self> {
        let mut groups: BTreeSet<u32> =
            rustix::process::getgroups()?.into_iter().map(rustix::process::Gid::as_raw).collect();
        groups.extend([rustix::process::getegid().as_raw(), top.st_gid]);
        Ok(Self { uid: rustix::process::geteuid().as_raw(), groups })
    }

    /// Why a copy of a file would not work for all its users. Root can use any.
    fn why_not(&self, stat: &Stat) -> Option<String> {
        let (owner, group) = ((stat.st_mode >> 6) & 0o7, (stat.st_mode >> 3) & 0o7);
        if stat.st_uid != self.uid && stat.st_uid != 0 && owner & !group != 0 {
            let user = stat.st_uid;
            return Some(format!("it belongs to user {user}; a copy would not"));
        }
        (!self.groups.contains(&stat.st_gid) && stat.st_gid != 0 && group_matters(stat)).then(
            || {
                let group = stat.st_gid;
                format!("its group is {group}, and the venv's owner is not a member of it")
            },
        )
    }
}

/// The disk usage of everything in a directory, except directories this process may not enter.
fn size(dir: &Dir, deadline: Deadline, depth: usize) -> io::Result<u64> {
    let mut size = 0_u64;
    for entry in dir.entries()? {
        if deadline.has_passed() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let Ok(stat) = dir.stat(Path::new(&entry.name)) else { continue };
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
        size = size.saturating_add(blocks.saturating_mul(512));
        if entry.kind.is_dir() && depth < DEPTH_LIMIT {
            if let Ok(inner) = dir.dir(&entry.name) {
                size = size.saturating_add(self::size(&inner, deadline, depth + 1).unwrap_or(0));
            }
        }
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_directory_is_as_large_as_its_contents() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("a/b")).unwrap();
        fs::write(base.join("a/b/file"), vec![1; 100_000]).unwrap();
        std::os::unix::fs::symlink("/usr", base.join("a/link")).unwrap();
        let deadline = Deadline::after(Duration::from_secs(9));
        let size = size(&Dir::open(&base).unwrap(), deadline, 0).unwrap();
        assert!((100_000..1_000_000).contains(&size), "{size}");
    }

    #[test]
    fn a_copy_must_work_for_all_users_of_the_file() {
        let file = tempfile::tempfile().unwrap();
        let stat = |uid: u32, gid: u32, mode: u32| {
            let mut stat = rustix::fs::fstat(&file).unwrap();
            (stat.st_uid, stat.st_gid, stat.st_mode) = (uid, gid, 0o100_000 | mode);
            stat
        };
        let own = Own { uid: 7, groups: BTreeSet::from([7, 33]) };
        for (uid, gid, mode, is_fine) in [
            (7, 7, 0o600, true),
            (0, 0, 0o600, true),
            (33, 33, 0o644, false),
            (33, 33, 0o664, true),
            (7, 33, 0o640, true),
            (7, 34, 0o640, false),
            (7, 34, 0o644, true),
        ] {
            assert_eq!(
                own.why_not(&stat(uid, gid, mode)).is_none(),
                is_fine,
                "{uid} {gid} {mode:o}"
            );
        }
    }
}
