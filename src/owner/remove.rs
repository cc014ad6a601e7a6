//! Creating and removing directories in a tree.

use std::io;
use std::path::Path;

use rustix::fs::Mode;
use serde::{Deserialize, Serialize};

use super::{Lines, Task};
use crate::host::clock::Deadline;
use crate::host::dir::DEPTH_LIMIT;
use crate::host::file::printable;
use crate::host::path_text::PathText;
use crate::host::{Dir, Root, tree};

/// Creates an empty directory that nobody else may enter.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MakeDirectory {
    /// The directory to create it in.
    pub(crate) parent: PathText,
    pub(crate) identity: tree::Identity,
    /// Its name.
    pub(crate) name: String,
}

impl Task for MakeDirectory {
    const NAME: &'static str = "make-directory";
    type Answer = ();

    fn perform(&self, root: &Root, _: Deadline) -> io::Result<()> {
        let parent = known(root, &self.parent.0, self.identity)?;
        let mode = Mode::from_raw_mode(0o700);
        Ok(rustix::fs::mkdirat(parent.descriptor(), self.name.as_str(), mode)?)
    }
}

/// Removes the contents of a directory, but not the directory itself.
///
/// Directories that belong to another user are left with their contents: the owner of the tree
/// may have moved a directory into it that they may not empty. For an ordinary owner the kernel
/// already ensures that; for root's own trees only this check does.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Remove {
    pub(crate) path: PathText,
    pub(crate) identity: tree::Identity,
}

/// The result of a removal.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Removed {
    /// The remaining files and the reasons.
    pub(crate) left: Lines,
    /// Directories of other users, with their numbers.
    pub(crate) others: Vec<(PathText, tree::Identity, u32)>,
}

/// How many directories of other users are reported.
const OTHERS: usize = 100;

impl Task for Remove {
    const NAME: &'static str = "remove";
    type Answer = Removed;

    fn perform(&self, root: &Root, deadline: Deadline) -> io::Result<Removed> {
        let top = known(root, &self.path.0, self.identity)?;
        let mut removed = Removed::default();
        empty(&top, &mut removed, deadline, 0)?;
        Ok(removed)
    }
}

/// Opens the directory with this identity.
fn known(root: &Root, path: &Path, which: tree::Identity) -> io::Result<Dir> {
    let found = Dir::open(&root.at(path))?;
    if tree::identity_of_open(found.descriptor())? == which {
        return Ok(found);
    }
    Err(io::Error::other(format!("{} was replaced", printable(path))))
}

fn empty(dir: &Dir, removed: &mut Removed, deadline: Deadline, depth: usize) -> io::Result<()> {
    let me = rustix::process::geteuid().as_raw();
    let own = dir.own_stat()?;
    if own.st_uid != me {
        let user = own.st_uid;
        removed.left.push(|| format!("{} belongs to user {user}", printable(dir.path())));
        if removed.others.len() < OTHERS {
            let identity = tree::identity_of_open(dir.descriptor())?;
            removed.others.push((dir.path().into(), identity, user));
        }
        return Ok(());
    }
    if own.st_mode & 0o700 != 0o700 {
        // Installers create directories that not even their owner may write to.
        rustix::fs::fchmod(dir.descriptor(), Mode::from_raw_mode(own.st_mode | 0o700))?;
    }
    for entry in dir.entries()? {
        if deadline.has_passed() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let name = Path::new(&entry.name);
        let result = if !entry.kind.is_dir() {
            dir.unlink(name)
        } else if depth == DEPTH_LIMIT {
            Err(io::Error::other("it is nested too deeply"))
        } else {
            dir.dir(name).and_then(|inner| {
                empty(&inner, removed, deadline, depth + 1)?;
                drop(inner);
                dir.remove_dir(name)
            })
        };
        match result {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // The remaining files in it are already listed.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(error),
            Err(error) => {
                removed.left.push(|| format!("{}: {error}", printable(dir.path().join(name))));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test prepares its own trees")]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::time::Duration;

    use super::*;

    fn remove(path: &Path) -> Removed {
        let task = Remove { path: path.into(), identity: tree::identity(path).unwrap() };
        task.perform(&Root::new("/"), Deadline::after(Duration::from_secs(9))).unwrap()
    }

    #[test]
    fn a_tree_is_emptied_but_not_the_targets_of_its_links() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("old/a/b")).unwrap();
        fs::create_dir(base.join("mine")).unwrap();
        fs::write(base.join("old/a/file"), "").unwrap();
        fs::write(base.join("mine/file"), "").unwrap();
        symlink(base.join("mine"), base.join("old/link")).unwrap();
        fs::set_permissions(base.join("old/a/b"), fs::Permissions::from_mode(0o000)).unwrap();
        assert_eq!(remove(&base.join("old")), Removed::default());
        assert_eq!(fs::read_dir(base.join("old")).unwrap().count(), 0);
        assert!(base.join("mine/file").exists());
        let task = Remove { path: base.join("old").as_path().into(), identity: (1, 1) };
        assert!(task.perform(&Root::new("/"), Deadline::after(Duration::ZERO)).is_err());
    }

    #[test]
    fn directories_of_other_users_are_left_with_their_contents() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("old/theirs/keep")).unwrap();
        fs::write(base.join("old/theirs/keep/secret"), "").unwrap();
        fs::write(base.join("old/file"), "").unwrap();
        chown(base.join("old/theirs"), Some(4711), None).unwrap();
        let Removed { left, others } = remove(&base.join("old"));
        assert_eq!(others[0].2, 4711);
        let left = left.into_lines();
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(left[0].ends_with("theirs belongs to user 4711"), "{left:?}");
        assert!(base.join("old/theirs/keep/secret").exists() && !base.join("old/file").exists());
    }
}
