//! The directory beside the venv in which the new tree is built. Builders see it at the venv's own
//! path.
//!
//! Every script of a venv contains the path of the venv, so the new tree cannot be built at one
//! path and moved to another. Builders run in a mount namespace in which the stage is bound over
//! the venv, and everything that they write contains the right path.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::account::perform_all;
use super::names::{from_beside, name_of};
use super::place::untrusted_place;
use super::trees::{self, LOOK_LIMIT};
use crate::host::clock::Deadline;
use crate::host::confine::{self, LAUNCHER_FAILED};
use crate::host::fault::{Weakness, weakened};
use crate::host::file::printable;
use crate::host::overlay::{NO_NAMESPACE, Overlay};
use crate::host::tree::{Identity, Parent, identity_of_open};
use crate::host::user::{self, User};
use crate::host::{Dir, Program, Root, clock, mount};
use crate::owner::{self, MakeDirectory, Measure, Measured};
use crate::python;
use crate::report::in_mebibytes;
use crate::venv::Venv;

/// The name of the temporary directory in a stage.
const TEMPORARY: &str = ".venvguard-tmp";

/// How long, and how often, to try to empty a directory that somebody writes into.
const PATIENCE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(50);

/// The time limit for emptying one.
const EMPTY_LIMIT: Duration = Duration::from_secs(120);

/// The time limit for making a directory.
const MOMENT: Duration = Duration::from_secs(20);

/// A directory for a new tree, or for the temporary files of its builders.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) path: PathBuf,
    pub(super) identity: Identity,
}

impl Stage {
    /// The owner of a venv need not be a member of its group. Files in the stage get that group
    /// nevertheless, through the set-group-ID bit that the stage has until it is finished.
    pub(super) fn make(
        root: &Root,
        parent: &Parent,
        path: &Path,
        venv: &Venv,
        owner: &User,
    ) -> io::Result<Self> {
        let is_member =
            venv.uid == 0 || owner.gid == venv.gid || user::groups(root, owner).contains(&venv.gid);
        let inherits = if is_member { 0 } else { 0o2000 };
        let mode = venv.mode & 0o7777 | inherits | 0o700;
        let identity = parent.make(&from_beside(&venv.path, path), venv.uid, venv.gid, mode)?;
        Ok(Self { path: path.to_path_buf(), identity })
    }

    /// Makes a directory in the stage for its builders' temporary files. It is removed before the
    /// stage or with it.
    pub(super) fn temporary(&self, root: &Root, owner: &User) -> io::Result<Self> {
        let path = self.path.join(TEMPORARY);
        let (parent, name) = (self.path.as_path().into(), TEMPORARY.to_string());
        let task = MakeDirectory { parent, identity: self.identity, name };
        owner::run(root, owner, MOMENT, &task)?;
        // If it has been replaced since, then by the owner, who may do so, but not with a directory of
        // another user: that user's process would empty it.
        Parent::known(&self.path, self.identity)?;
        let dir = Dir::open(&path)?;
        if dir.own_stat()?.st_uid != owner.uid && !weakened(Weakness::StayRoot) {
            let path = printable(&path);
            return Err(io::Error::other(format!("{path} does not belong to the venv's owner")));
        }
        let identity = identity_of_open(dir.descriptor())?;
        Ok(Self { path, identity })
    }

    /// Has its owner remove it with everything in it. Processes that builders have left running may
    /// still write there, so this tries again for a moment.
    pub(super) fn empty_and_remove(self, root: &Root) -> io::Result<()> {
        let mut result = Ok(());
        clock::wait_until(Deadline::after(PATIENCE), POLL, || {
            result = trees::discard(root, &self.path, self.identity, Deadline::after(EMPTY_LIMIT));
            result.is_ok()
        });
        result.map_err(|error| {
            let message = format!("cannot empty the builders' temporary directories: {error}");
            io::Error::new(error.kind(), message)
        })
    }

    /// The overlay that makes it visible at another place.
    pub(super) fn over(&self, place: &Path) -> Overlay {
        Overlay::bind(&self.path, place, self.identity)
    }
}

/// Why a stage cannot be bound over a venv on this machine, in the kernel's words; `None` if it
/// can.
pub(super) fn why_not_laid_over(
    root: &Root,
    owner: &User,
    overlay: Overlay,
) -> io::Result<Option<String>> {
    let probe = Program::new("/bin/true");
    let finished = confine::confined(root, probe, owner, &[overlay], Path::new("/"))
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

/// The shared temporary directories that builders get private ones for, except those that contain
/// something the builders need.
pub(super) fn shared_dirs(needed: &[PathBuf]) -> BTreeSet<PathBuf> {
    if weakened(Weakness::ShareTemporary) {
        return BTreeSet::new();
    }
    not_needed(confine::TEMPORARY.map(Path::new), needed)
}

/// Compares real paths: a path may contain links, or one directory may link to the other.
fn not_needed<'a>(
    shared: impl IntoIterator<Item = &'a Path>,
    needed: &[PathBuf],
) -> BTreeSet<PathBuf> {
    let real = |dir: &'a Path| Some((dir, dir.canonicalize().ok()?));
    let (kept, free): (Vec<_>, Vec<_>) =
        shared.into_iter().filter_map(real).partition(|(name, real)| {
            needed.iter().any(|path| path.starts_with(name) || path.starts_with(real))
        });
    let kept: Vec<PathBuf> = kept.into_iter().map(|(_, real)| real).collect();
    free.into_iter().map(|(_, real)| real).filter(|real| !kept.contains(real)).collect()
}

/// Everything that prevents a rebuild of a venv in its place, in words.
pub(super) fn obstacles(root: &Root, venv: &Venv, measured: Looked) -> Vec<String> {
    let path = root.at(&venv.path);
    let untrusted = untrusted_place(root, venv)
        .map(|reason| format!("{reason}: venvguard will not work there as root"));
    let all = [packaged(root, venv), untrusted, not_writable(&path), mounts_in_the_way(&path)];
    all.into_iter().flatten().chain(cannot_be_carried(root, venv, measured)).collect()
}

/// A venv that consists of files of a package is for dpkg to replace.
pub(crate) fn packaged(root: &Root, venv: &Venv) -> Option<String> {
    let package = python::package_of_venv(root, &venv.path)?;
    Some(format!("it belongs to the package {}, which replaces it", printable(package)))
}

/// What a process of a venv's owner found in it, or why it could not look through it.
pub(crate) type Looked = Result<Measured, String>;

/// Looks through a venv, in a process of its owner.
pub(crate) fn look_at(root: &Root, venv: &Venv) -> Looked {
    let looked = look_through(root, &[venv]).pop();
    looked.unwrap_or_else(|| Err("it was not inspected".into()))
}

/// Looks through venvs, in one process for each owner.
pub(crate) fn look_through(root: &Root, venvs: &[&Venv]) -> Vec<Looked> {
    let tasks = venvs.iter().map(|venv| (*venv, Measure { tree: venv.layout() }));
    perform_all(root, LOOK_LIMIT, tasks.collect())
}

/// What a process of the venv's owner could not carry over, and whether there is room for a second
/// tree.
fn cannot_be_carried(root: &Root, venv: &Venv, looked: Looked) -> Vec<String> {
    let measured = match looked {
        Ok(measured) => measured,
        Err(error) => {
            return vec![format!("a process of its owner cannot look through it: {error}")];
        }
    };
    let others = measured.others.into_lines().into_iter();
    let others =
        others.map(|line| format!("{line} (move it out of the venv, or change its owner)"));
    others.chain(no_room(&root.at(&venv.path), measured.bytes)).collect()
}

/// Why the directory of the venv is not writable: an ordinary user may own a venv in a directory of
/// somebody else.
fn not_writable(path: &Path) -> Option<String> {
    let dir = path.parent()?;
    let error = rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).err()?;
    Some(format!("cannot make a directory beside it, in {}: {error}", printable(dir)))
}

/// The mounts that prevent a swap. If the venv itself is a mount point, no tree beside it is on the
/// same file system; a file system mounted inside it would move aside with it.
fn mounts_in_the_way(path: &Path) -> Option<String> {
    let mounts = match mount::below(path) {
        Ok(mounts) => mounts,
        Err(error) => return Some(format!("cannot tell what is mounted there: {error}")),
    };
    if let Some(first) = mounts.first() {
        return Some(format!(
            "{} is a mount point: another tree cannot take its place (unmount it first)",
            printable(first)
        ));
    }
    // A subvolume of btrfs is not a mount point, but has a device number of its own.
    let device = |path: &Path| Some(path.symlink_metadata().ok()?.dev());
    (device(path) != device(path.parent()?)).then(|| {
        "it is a separate file system, and no tree beside it is on the same one (create the venv in a directory on it)".into()
    })
}

/// Fails if the venv cannot change places with the stage: asked before anything is built.
pub(super) fn require_movable(parent: &Parent, venv: &Path, stage: &Path) -> Result<(), String> {
    match parent.can_move(name_of(venv), &from_beside(venv, stage)) {
        Ok(true) => Ok(()),
        Ok(false) => {
            let venv = printable(venv);
            Err(format!(
                "it comes from a lower layer of overlayfs, which does not rename directories (mount it with `redirect_dir=on`, or move a copy into its place: `cp -a {venv} {venv}.new && rm -r {venv} && mv {venv}.new {venv}`)"
            ))
        }
        Err(error) => Err(format!("cannot tell whether it can be moved: {error}")),
    }
}

/// Why there is no room for a second tree beside a venv. The estimate starts from the size of the
/// venv and adds to it: a new version of a package may be larger, and archives are unpacked there.
fn no_room(path: &Path, size: u64) -> Option<String> {
    match Parent::of(path).and_then(|parent| parent.free()) {
        Ok(free) => too_little(size, free),
        Err(error) => Some(format!("cannot tell how much disk space is free: {error}")),
    }
}

fn too_little(size: u64, free: u64) -> Option<String> {
    let needed = size.saturating_add(size / 2).saturating_add(16 << 20);
    (free < needed).then(|| {
        let [needed, free] = [needed, free].map(in_mebibytes);
        format!(
            "not enough disk space for a second tree beside it: it needs {needed}, {free} are free"
        )
    })
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test prepares its own directories")]
mod tests;
