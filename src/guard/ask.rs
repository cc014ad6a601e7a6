//! Whether something may be done that somebody asks for, and why it was not.

use std::io;
use std::path::PathBuf;

use super::Guard;
use super::choose::ChoiceError;
use super::foresee::ForeseeError;
use super::register::RegisterError;
use crate::host::file::printable;
use crate::host::lock::LockFile;
use crate::host::user;
use crate::python::{Minor, SnapshotError};
use crate::repair::RollbackError;
use crate::store::StoreError;

/// Why something was not done that somebody asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("only root can do this; nothing was changed (try `sudo venvguard …`)")]
    NotRoot,
    #[error(
        "the administrator does not let you have venvs of your own guarded (`users` in /etc/venvguard/config.toml); nothing was registered"
    )]
    NotAllowed,
    #[error("apt or dpkg is at work; nothing was changed (try again when it has ended)")]
    AptAtWork,
    #[error("cannot scan {}: {source}", printable(.path))]
    NotScanned { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    #[error("Python {0} is not installed by Debian here; nothing was changed")]
    NotInstalled(Minor),
    #[error(
        "cannot rebuild {name}: its interpreter {interpreter} is not Debian's, venvguard leaves it alone; nothing was changed",
        interpreter = printable(.interpreter)
    )]
    NotDebian { name: String, interpreter: PathBuf },
    /// In words, with the way back.
    #[error("{0}")]
    NotAVenv(String),
    #[error("{0} vanished from the registry")]
    Vanished(String),
    #[error("{word:?} stands for {count} venvs; one at a time is rolled back")]
    Several { word: String, count: usize },
    #[error("cannot roll {name} back: {why}; nothing was changed")]
    NotRolledBack { name: String, why: RollbackError },
    #[error(transparent)]
    Register(#[from] RegisterError),
    #[error(transparent)]
    Foresee(#[from] ForeseeError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

impl Guard {
    /// Whether what is kept is the caller's to change.
    pub(super) fn may_change(&self) -> bool {
        !self.root.is_system() || self.root.user().is_some() || rustix::process::geteuid().is_root()
    }

    /// What changes what root keeps says so before anything is tried.
    pub(crate) fn require_root(&self) -> Result<(), AskError> {
        if self.may_change() { Ok(()) } else { Err(AskError::NotRoot) }
    }

    /// An ordinary user registers where the administrator lets them.
    pub(super) fn require_allowed(&self) -> Result<(), AskError> {
        let Some(uid) = self.root.user() else { return Ok(()) };
        let person = user::by_uid(&self.root, uid);
        if self.config.users.enabled && person.is_none_or(|person| self.is_allowed(&person)) {
            return Ok(());
        }
        Err(AskError::NotAllowed)
    }

    /// Makes sure that nobody changes venvs or interpreters meanwhile: no other venvguard, and
    /// no apt that is between its two hooks.
    pub(super) fn alone(&self) -> Result<LockFile, AskError> {
        self.require_root()?;
        let lock = self.lock()?;
        if self.is_apt_at_work() {
            return Err(AskError::AptAtWork);
        }
        Ok(lock)
    }
}
