//! The directory of the store and its lock: the system's, or a user's own.

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

use super::{REGISTRY, Store, StoreError};
use crate::host::lock::{self, LockFile};
use crate::host::{Root, user};

const STATE: &str = "/var/lib/venvguard";
const LOCK: &str = "/run/venvguard/lock";

/// The name of the directory within a user's state directory.
const NAME: &str = "venvguard";

impl Store {
    /// The store of the system, or of the user whose files are meant.
    pub(crate) fn new(root: &Root) -> Self {
        let state = match root.user() {
            None => root.at(STATE),
            Some(uid) => user::own_state(root, uid).join(NAME),
        };
        Self { root: root.clone(), state }
    }

    /// Locks out every other venvguard that works on the same venvs, waiting for at
    /// most `patience`.
    pub(crate) fn lock(&self, patience: Duration) -> Result<LockFile, StoreError> {
        if let Some(uid) = self.root.user() {
            self.make_own_dir(uid)?;
        }
        Ok(lock::acquire(&self.lock_path(), patience)?)
    }

    /// Whether a venvguard is at work on the same venvs.
    pub(crate) fn is_locked(&self) -> bool {
        lock::is_held(&self.lock_path())
    }

    fn lock_path(&self) -> PathBuf {
        match self.root.user() {
            None => self.root.at(LOCK),
            Some(_) => self.state.join("lock"),
        }
    }

    /// Creates a user's directory, readable only by them, and links to it from where apt's hook
    /// looks: the hook does not know the user's session settings.
    fn make_own_dir(&self, uid: u32) -> Result<(), StoreError> {
        let io = |source| StoreError::Io { path: self.state.clone(), source };
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&self.state).map_err(io)?;
        let usual = user::usual_state(&user::own_home(&self.root, uid));
        let link = usual.join(NAME);
        if link != self.state && link.symlink_metadata().is_err() {
            builder.create(&usual).map_err(io)?;
            std::os::unix::fs::symlink(&self.state, link).map_err(io)?;
        }
        Ok(())
    }

    /// Whether anything was ever registered.
    pub(crate) fn is_used(&self) -> bool {
        self.state.join(REGISTRY).symlink_metadata().is_ok()
    }
}
