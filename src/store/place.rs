//! Where things are kept, and the lock on them: the system's, or a user's own.

use std::os::unix::fs::DirBuilderExt;
use std::time::Duration;

use super::{REGISTRY, Store, StoreError};
use crate::host::lock::{self, LockFile};
use crate::host::{Root, user};

const STATE: &str = "/var/lib/venvguard";
const LOCK: &str = "/run/venvguard/lock";

/// What the directory is called among those of a user's other programs.
const NAME: &str = "venvguard";

impl Store {
    /// What is kept for root, or for the user whose things are meant.
    pub(crate) fn new(root: &Root) -> Self {
        let state = match root.user() {
            None => root.at(STATE),
            Some(uid) => user::own_state(root, uid).join(NAME),
        };
        Self { root: root.clone(), state }
    }

    /// Keeps every other venvguard out that has to do with the same venvs, waiting for at
    /// most `patience`.
    pub(crate) fn lock(&self, patience: Duration) -> Result<LockFile, StoreError> {
        let path = match self.root.user() {
            None => self.root.at(LOCK),
            Some(uid) => {
                self.make_own_dir(uid)?;
                self.state.join("lock")
            }
        };
        Ok(lock::acquire(&path, patience)?)
    }

    /// Makes a user's directory, his alone to read, and leads to it from where apt's hook looks:
    /// there nobody knows what he has set in his session.
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
