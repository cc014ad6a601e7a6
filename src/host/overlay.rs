//! Directories that a program sees in place of others, or merged with others, in a mount namespace
//! of its own.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use super::path_text::PathText;
use super::{descriptor, dir, mount as table, tree};

/// The beginning of the launcher's message when the kernel or a container forbids mount
/// namespaces.
pub(crate) const NO_NAMESPACE: &str = "cannot make a private mount namespace";

/// Shows `from` at `to`. `from` is identified by more than its name, so that a directory put in
/// its place is noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Overlay {
    from: PathText,
    to: PathText,
    from_identity: tree::Identity,
    /// Whether what is at `to` is visible, too, behind what is in `from`. Nothing of either can
    /// then be changed.
    #[serde(default)]
    merges: bool,
}

impl Overlay {
    /// Shows `from` in place of `to`.
    pub(crate) fn bind(from: &Path, to: &Path, from_identity: tree::Identity) -> Self {
        Self { from: from.into(), to: to.into(), from_identity, merges: false }
    }

    /// Shows the files in `from` in front of those in `to`.
    pub(crate) fn merge(from: &Path, to: &Path, from_identity: tree::Identity) -> Self {
        Self { merges: true, ..Self::bind(from, to, from_identity) }
    }
}

/// Mounts each overlay, in this order, in a private mount namespace.
pub(super) fn mount(overlays: &[Overlay]) -> io::Result<()> {
    if overlays.is_empty() {
        return Ok(());
    }
    unshare_mounts().map_err(forbidden)?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(forbidden)?;
    // Before anything is mounted: a merged directory would hide what is below it.
    let open = |overlay: &Overlay| {
        tree::open_nofollow(&overlay.from.0, OFlags::PATH, overlay.from_identity)
    };
    let opened: Vec<OwnedFd> = overlays.iter().map(open).collect::<io::Result<_>>()?;
    for (overlay, from) in overlays.iter().zip(&opened) {
        let to = &overlay.to.0;
        if overlay.merges { merge(from, to)? } else { bind(from, to)? }
    }
    Ok(())
}

fn forbidden(error: impl Into<io::Error>) -> io::Error {
    let error = error.into();
    io::Error::other(format!("{NO_NAMESPACE}: {error}"))
}

/// By descriptor: no name on the way can be exchanged between the check and the mount.
fn bind(from: &OwnedFd, to: &Path) -> io::Result<()> {
    let to = dir::open_place(to)?;
    rustix::mount::mount_bind(descriptor::path(from), descriptor::path(&to)).map_err(forbidden)
}

/// Mounts the two directories as the lower layers of an overlay. Without an upper one it needs no
/// file system that supports one, and cannot be written to.
fn merge(from: &OwnedFd, to: &Path) -> io::Result<()> {
    let inside = table::below(to)?.into_iter().filter(|point| point.as_path() != to);
    // An overlay does not show what is mounted in its layers, such as a container's resolv.conf.
    let inside: Vec<(PathBuf, OwnedFd)> =
        inside.filter_map(|point| Some((point.clone(), dir::open_place(&point).ok()?))).collect();
    let behind = dir::open_nofollow(to, OFlags::PATH)?;
    let [front, back] = [from, &behind].map(descriptor::path);
    let layers = format!("lowerdir={}:{}", front.display(), back.display());
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    let layers = CString::new(layers)?;
    rustix::mount::mount("overlay", &back, "overlay", flags, Some(layers.as_c_str()))
        .map_err(|error| io::Error::other(format!("cannot merge {}: {error}", to.display())))?;
    inside.iter().try_for_each(|(point, mounted)| bind(mounted, point))
}

/// In a user namespace, an ordinary user may mount as root may; only their own id is mapped
/// there. The program that runs next loses that right.
fn unshare_mounts() -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if uid.is_root() {
        return Ok(unshare(UnshareFlags::NEWNS)?);
    }
    unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)?;
    let (uid, gid) = (uid.as_raw(), gid.as_raw());
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

#[expect(unsafe_code, reason = "unsharing namespaces affects neither memory nor descriptors")]
fn unshare(what: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: only namespaces are unshared; the launcher has a single thread.
    unsafe { rustix::thread::unshare_unsafe(what) }
}
