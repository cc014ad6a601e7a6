//! A place beside the venv where its successor is built, seen by the builders at the
//! venv's own path.
//!
//! A venv holds its own path in every script. So the new tree is not built at one path and
//! moved to another: in a mount namespace of its own, the stage lies over the venv, and
//! whatever is written there bears the right path.

use std::io;
use std::path::{Path, PathBuf};

use crate::host::confine::{self, LAUNCHER_FAILED, NO_NAMESPACE, Overlay};
use crate::host::tree::{self, Identity, Parent};
use crate::host::user::User;
use crate::host::{Program, Root, clock};
use crate::venv::Venv;

/// An empty folder for a venv's successor.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) path: PathBuf,
    pub(super) identity: Identity,
}

impl Stage {
    /// A name beside the venv that nobody has taken.
    pub(super) fn path_for(venv: &Path) -> PathBuf {
        beside(venv, "new")
    }

    pub(super) fn make(parent: &Parent, path: &Path, venv: &Venv) -> io::Result<Self> {
        let identity = parent.make(name_of(path), venv.uid, venv.gid, venv.mode & 0o7777)?;
        Ok(Self { path: path.to_path_buf(), identity })
    }

    pub(super) fn overlay(&self, venv: &Path) -> Overlay {
        Overlay { from: self.path.clone(), to: venv.to_path_buf(), from_identity: self.identity }
    }
}

/// `.NAME.venvguard-WHAT-TIME` in the venv's own folder, and so on its file system.
pub(super) fn beside(venv: &Path, what: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(name_of(venv));
    name.push(format!(".venvguard-{what}-{}", clock::now().strftime("%Y%m%dT%H%M%SZ")));
    venv.with_file_name(name)
}

/// Whether a tree is a stage or a kept one of ours, and no venv of its own.
pub(crate) fn is_ours_to_keep(path: &Path) -> bool {
    let name = name_of(path).to_string_lossy();
    name.starts_with('.')
        && [".venvguard-new-", ".venvguard-old-"].iter().any(|mark| name.contains(mark))
}

/// The last name of a path.
pub(super) fn name_of(path: &Path) -> &Path {
    path.file_name().map_or(Path::new(""), Path::new)
}

/// Whether a stage can be laid over a venv on this machine; if not, the kernel's reason.
pub(super) fn can_lay_over(
    root: &Root,
    owner: &User,
    stage: &Stage,
    venv: &Path,
) -> Result<(), String> {
    let probe = confine::confined(
        root,
        Program::new("/bin/true"),
        owner,
        Some(stage.overlay(venv)),
        Path::new("/"),
    );
    match probe.finish() {
        Ok(finished) if finished.status.code() == Some(LAUNCHER_FAILED) => {
            let complaint = finished.complaint();
            match complaint.split_once(NO_NAMESPACE) {
                Some((_, reason)) => Err(reason.trim_start_matches(": ").to_string()),
                None => Err(complaint),
            }
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Why root must not work in this place: an ancestor of the venv can be replaced by
/// somebody who is neither root nor the venv's owner.
pub(crate) fn untrusted_ancestor(path: &Path, venv: &Venv) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    path.ancestors().skip(1).find_map(|ancestor| {
        let metadata = std::fs::symlink_metadata(ancestor).ok()?;
        let shown = crate::host::file::printable(ancestor);
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

/// Puts the tree at `aside` back into its place, unless it is there already, and removes
/// what stood in its place. Right however often and wherever it was interrupted.
pub(super) fn put_back(venv: &Path, aside: &Path, old: Identity) -> io::Result<()> {
    let parent = Parent::of(venv)?;
    let (name, aside_name) = (name_of(venv), name_of(aside));
    if parent.identity(name) != Some(old) {
        if parent.identity(aside_name) != Some(old) {
            return Err(io::Error::other(format!(
                "the tree of before is neither at {} nor at {}",
                crate::host::file::printable(venv),
                crate::host::file::printable(aside)
            )));
        }
        if parent.identity(name).is_some() {
            parent.exchange(aside_name, name)?;
        } else {
            parent.rename(aside_name, name)?;
        }
    }
    tree::remove(aside)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test prepares its own folders")]
mod tests {
    use super::*;
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
        // Exchanged; built in place; not moved at all.
        for state in ["exchanged", "moved", "untouched"] {
            let (_folder, venv, aside) = folder();
            let old = tree::identity(&venv).unwrap();
            match state {
                "exchanged" => {
                    fs::rename(&venv, &aside).unwrap();
                    fs::create_dir(&venv).unwrap();
                    fs::write(venv.join("new"), "").unwrap();
                }
                "moved" => fs::rename(&venv, &aside).unwrap(),
                _ => fs::create_dir(&aside).unwrap(),
            }
            for _ in 0..2 {
                put_back(&venv, &aside, old).unwrap();
                assert_eq!(tree::identity(&venv), Some(old), "{state}");
                assert!(venv.join("old").exists() && !aside.exists(), "{state}");
            }
        }
    }

    #[test]
    fn nothing_is_removed_when_the_old_tree_is_not_found() {
        let (_folder, venv, aside) = folder();
        assert!(put_back(&venv, &aside, (0, 0)).is_err());
        assert!(venv.join("old").exists());
    }
}
