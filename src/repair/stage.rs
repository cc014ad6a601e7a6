//! A place beside the venv where its successor is built, seen by the builders at the
//! venv's own path.
//!
//! A venv holds its own path in every script. So the new tree is not built at one path and
//! moved to another: in a mount namespace of its own, the stage lies over the venv, and
//! whatever is written there bears the right path.

use std::io;
use std::path::{Path, PathBuf};

use crate::host::confine::{self, LAUNCHER_FAILED, NO_NAMESPACE, Overlay};
use crate::host::file::printable;
use crate::host::tree::{Identity, Parent};
use crate::host::user::User;
use crate::host::{Program, Root, clock};
use crate::store::Swap;
use crate::venv::Venv;

/// What marks a tree beside a venv as ours.
const MARK: &str = ".venvguard-";

/// An empty folder for a venv's successor.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) path: PathBuf,
    pub(super) identity: Identity,
}

impl Stage {
    pub(super) fn make(parent: &Parent, path: &Path, venv: &Venv) -> io::Result<Self> {
        let identity = parent.make(name_of(path), venv.uid, venv.gid, venv.mode & 0o7777)?;
        Ok(Self { path: path.to_path_buf(), identity })
    }

    pub(super) fn overlay(&self, venv: &Path) -> Overlay {
        Overlay { from: self.path.clone(), to: venv.to_path_buf(), from_identity: self.identity }
    }
}

/// `.NAME.venvguard-TIME` in the venv's own folder, and so on its file system: where the
/// successor is built, and where the old tree lies once they have changed places. Nothing
/// has this name yet.
pub(super) fn aside(venv: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(name_of(venv));
    name.push(format!("{MARK}{}", clock::now().strftime("%Y%m%dT%H%M%SZ")));
    let mut aside = venv.with_file_name(&name);
    while aside.symlink_metadata().is_ok() {
        name.push("+");
        aside.set_file_name(&name);
    }
    aside
}

/// The shell's pattern of the trees that we put aside for a venv.
pub(crate) fn pattern_of_what_is_aside(venv: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(name_of(venv));
    name.push(format!("{MARK}*"));
    venv.with_file_name(name)
}

/// Whether a tree is one that we put aside, and no venv of its own.
pub(crate) fn is_ours_to_keep(path: &Path) -> bool {
    let name = name_of(path).to_string_lossy();
    name.starts_with('.') && name.contains(MARK)
}

/// The last name of a path.
pub(super) fn name_of(path: &Path) -> &Path {
    path.file_name().map_or(Path::new(""), Path::new)
}

/// Why a stage cannot be laid over a venv on this machine, in the kernel's words; nothing
/// where it can.
pub(super) fn why_not_laid_over(
    root: &Root,
    owner: &User,
    overlay: Overlay,
) -> io::Result<Option<String>> {
    let probe = Program::new("/bin/true");
    let finished = confine::confined(root, probe, owner, Some(overlay), Path::new("/"))
        .finish()
        .map_err(io::Error::other)?;
    if finished.status.code() != Some(LAUNCHER_FAILED) {
        return Ok(None);
    }
    let complaint = finished.complaint();
    match complaint.split_once(NO_NAMESPACE) {
        Some((_, reason)) => Ok(Some(reason.trim_start_matches(": ").to_string())),
        None => Err(io::Error::other(complaint)),
    }
}

/// Whether a folder is on another file system than the one it lies in.
pub(super) fn is_mount_point(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| std::fs::symlink_metadata(path).ok().map(|found| found.dev());
    path.parent().is_some_and(|parent| device(path) != device(parent))
}

/// Why root must not work in this place: an ancestor of the venv can be replaced by
/// somebody who is neither root nor the venv's owner. Whoever is in the venv's own group
/// counts as its owner: where that group may write, its members decide what the venv is.
pub(crate) fn untrusted_ancestor(path: &Path, venv: &Venv) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    path.ancestors().skip(1).find_map(|ancestor| {
        let metadata = std::fs::symlink_metadata(ancestor).ok()?;
        let shown = printable(ancestor);
        let mode = metadata.mode();
        let is_sticky = mode & 0o1000 != 0;
        let others_write = mode & 0o002 != 0;
        let group_writes = mode & 0o020 != 0 && metadata.gid() != 0 && metadata.gid() != venv.gid;
        if metadata.uid() != 0 && metadata.uid() != venv.uid {
            Some(format!(
                "{shown} belongs to user {}, who is neither root nor the venv's owner",
                metadata.uid()
            ))
        } else if (others_write || group_writes) && !is_sticky {
            Some(format!("{shown} can be written by others than root and the venv's owner"))
        } else {
            None
        }
    })
}

/// Puts the old tree back into its place, unless it is there. The new one is aside then.
/// Right however often and wherever it was interrupted; a tree that is neither of the two is
/// somebody's, and not touched.
pub(super) fn put_back(venv: &Path, swap: &Swap) -> io::Result<()> {
    let parent = Parent::of(venv)?;
    let (name, aside) = (name_of(venv), name_of(swap.kept.path()));
    let (old, new) = (Some(swap.kept.identity), Some(swap.new));
    let standing = parent.identity(name);
    if standing == old {
        return Ok(());
    }
    if parent.identity(aside) != old {
        let (venv, aside) = (printable(venv), printable(swap.kept.path()));
        let message = format!("the tree of before is neither at {venv} nor at {aside}");
        return Err(io::Error::other(message));
    }
    if standing == new {
        return parent.exchange(aside, name);
    }
    // Where nothing stands; a name that is taken is refused.
    parent.rename(aside, name)
}

/// Removes a tree that was put aside. Another one at its path is left alone.
pub(super) fn discard(aside: &Path, which: Identity) -> io::Result<()> {
    Parent::of(aside)?.remove(name_of(aside), Some(which))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test prepares its own folders")]
mod tests {
    use super::*;
    use crate::host::tree;
    use crate::store::Kept;
    use std::fs;

    fn folder() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        let (venv, aside) = (base.join("venv"), base.join("aside"));
        fs::create_dir(&venv).unwrap();
        fs::write(venv.join("old"), "").unwrap();
        (folder, venv, aside)
    }

    #[test]
    fn the_old_tree_is_put_back_from_wherever_it_is() {
        // Exchanged; taken away; not moved at all.
        for state in ["exchanged", "moved", "untouched"] {
            let (_folder, venv, aside) = folder();
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
            let swap = Swap { kept: Kept::new(&aside, old, true), new };
            for _ in 0..2 {
                put_back(&venv, &swap).unwrap();
                assert_eq!(tree::identity(&venv), Some(old), "{state}");
                assert!(venv.join("old").exists() && !aside.join("old").exists(), "{state}");
            }
        }
    }

    #[test]
    fn what_is_neither_of_the_two_trees_is_not_touched() {
        let (_folder, venv, aside) = folder();
        fs::create_dir(&aside).unwrap();
        let (mine, old) = (tree::identity(&venv), tree::identity(&aside).unwrap());
        for kept in [(0, 0), old] {
            let swap = Swap { kept: Kept::new(&aside, kept, true), new: (0, 1) };
            assert!(put_back(&venv, &swap).is_err());
            assert_eq!(tree::identity(&venv), mine);
        }
    }

    #[test]
    fn a_tree_aside_is_known_by_its_name() {
        let (_folder, venv, _) = folder();
        let first = aside(&venv);
        assert_eq!(first.parent(), venv.parent());
        assert!(is_ours_to_keep(&first) && !is_ours_to_keep(&venv));
        fs::create_dir(&first).unwrap();
        assert_ne!(aside(&venv), first, "what is kept there is not written over");
    }
}
