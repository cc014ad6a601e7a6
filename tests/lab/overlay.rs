//! A throw-away copy of a root: an overlay whose changes live in memory and vanish when the value is dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags};

/// How much a machine or a preparation may write, in MiB: several times as much as the largest one writes.
pub(crate) const ROOM: u64 = 2 << 10;

/// A mounted overlay on its own tmpfs, so that a full one takes no room from another. The lab runs in its own mount
/// namespace, so that a killed run leaves no mount behind.
pub(crate) struct Overlay {
    name: String,
    directory: PathBuf,
}

impl Overlay {
    /// Mounts an overlay over `lower` that takes up to `room` MiB, below the directory `memory`. A tmpfs holds the
    /// changes: an overlay's upper directory cannot itself lie on an overlay, and in many containers the checkout does.
    pub(crate) fn new(memory: &Path, name: &str, lower: &Path, room: u64) -> Result<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(1);
        let name = format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = memory.join(&name);
        fs::create_dir(&directory)?;
        mount_memory(&directory, room)?;
        let overlay = Self { name, directory };
        for part in ["upper", "work", "root"] {
            fs::create_dir_all(overlay.directory.join(part))?;
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            overlay.directory.join("upper").display(),
            overlay.directory.join("work").display(),
        );
        let options = std::ffi::CString::new(options)?;
        rustix::mount::mount(
            "overlay",
            overlay.root(),
            "overlay",
            MountFlags::empty(),
            options.as_c_str(),
        )
        .with_context(|| format!("cannot mount an overlay over {}", lower.display()))?;
        Ok(overlay)
    }

    /// A name that no other overlay of this run has.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A directory in memory beside the root, for logs and the like.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The size of everything that was written and is still there, in MiB.
    pub(crate) fn used(&self) -> Result<u64> {
        let disk = rustix::fs::statvfs(&self.directory)?;
        Ok(((disk.f_blocks - disk.f_bfree) * disk.f_frsize) >> 20)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// The host's path of a path in the container.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.root().join(inside.trim_start_matches('/'))
    }

    /// Writes a file in the container, and makes its directories.
    pub(crate) fn write(&self, inside: &str, text: &str) -> Result<()> {
        let path = self.path(inside);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        // A dying process may still hold the mount; detaching succeeds all the same.
        let _ = rustix::mount::unmount(self.root(), UnmountFlags::DETACH);
        // Machines that were booted in the meantime have copies of the mounts, which keep the files alive.
        let _ = fs::remove_dir_all(&self.directory);
        let _ = rustix::mount::unmount(&self.directory, UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.directory);
    }
}

/// Mounts a tmpfs of `mebibytes` MiB.
pub(crate) fn mount_memory(dir: &Path, mebibytes: u64) -> Result<()> {
    let options = std::ffi::CString::new(format!("size={mebibytes}m,mode=755"))?;
    rustix::mount::mount("lab", dir, "tmpfs", MountFlags::empty(), options.as_c_str())
        .with_context(|| format!("cannot mount a tmpfs on {}", dir.display()))
}
