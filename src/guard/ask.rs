//! Whether a request may be carried out, and why it was not.

use std::io;
use std::path::PathBuf;

use super::Guard;
use super::choose::ChoiceError;
use super::foresee::ForeseeError;
use super::register::RegisterError;
use crate::apt::{FetchError, HoldError, ReleaseError};
use crate::host::file::printable;
use crate::host::lock::LockFile;
use crate::host::user;
use crate::python::{Minor, SnapshotError};
use crate::rehearse::NextError;
use crate::repair::RollbackError;
use crate::service::ServiceNameError;
use crate::store::StoreError;

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("only root can do this; nothing was changed (try `sudo venvguard …`)")]
    NotRoot,
    #[error(
        "the administrator does not let you register venvs of your own (`users` in /etc/venvguard/config.toml); nothing was registered"
    )]
    NotAllowed,
    #[error("apt or dpkg is at work; nothing was changed (try again when it has finished)")]
    AptAtWork,
    #[error("cannot scan {}: {source}", printable(.path))]
    NotScanned { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    #[error("Python {0} is not installed from Debian's packages; nothing was changed")]
    NotInstalled(Minor),
    #[error(
        "cannot rebuild {name}: its interpreter {interpreter} is not Debian's, so venvguard leaves it alone; nothing was changed",
        interpreter = printable(.interpreter)
    )]
    NotDebian { name: String, interpreter: PathBuf },
    /// In words, with the way back.
    #[error("{0}")]
    NotAVenv(String),
    #[error("{0} vanished from the registry")]
    Vanished(String),
    #[error("{word:?} matches {count} venvs; name one of them")]
    Several { word: String, count: usize },
    #[error(transparent)]
    Unit(ServiceNameError),
    #[error("cannot roll {name} back: {why}; nothing was changed")]
    NotRolledBack { name: String, why: RollbackError },
    #[error(transparent)]
    Register(#[from] RegisterError),
    #[error(transparent)]
    Foresee(#[from] ForeseeError),
    #[error("no interpreter of Debian's is installed, so there is nothing to hold")]
    NothingToHold,
    #[error(transparent)]
    Hold(#[from] HoldError),
    #[error(transparent)]
    Release(#[from] ReleaseError),
    #[error("cannot fetch the packages of the next Python: {0}")]
    Fetch(#[from] FetchError),
    #[error("cannot unpack the next system")]
    Next(#[from] NextError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

impl Guard {
    /// Whether the caller may change the state directory.
    pub(super) fn may_change(&self) -> bool {
        !self.root.is_system() || self.root.user().is_some() || rustix::process::geteuid().is_root()
    }

    /// Refuses a caller who may not change the state directory, before anything is tried.
    pub(crate) fn require_root(&self) -> Result<(), AskError> {
        if self.may_change() { Ok(()) } else { Err(AskError::NotRoot) }
    }

    /// Refuses ordinary users, who have venvs of their own but no apt.
    pub(super) fn require_system(&self) -> Result<(), AskError> {
        if self.root.user().is_some() { Err(AskError::NotRoot) } else { self.require_root() }
    }

    /// Refuses an ordinary user whom the administrator does not let register venvs.
    pub(super) fn require_allowed(&self) -> Result<(), AskError> {
        let Some(uid) = self.root.user() else { return Ok(()) };
        let person = user::by_uid(&self.root, uid);
        if self.config.users.enabled && person.is_none_or(|person| self.is_allowed(&person)) {
            return Ok(());
        }
        Err(AskError::NotAllowed)
    }

    /// Takes the lock against other venvguards, and makes sure that no apt is between its two
    /// hooks: nothing else may change venvs or interpreters.
    pub(super) fn alone(&self) -> Result<LockFile, AskError> {
        self.require_root()?;
        let lock = self.lock()?;
        if self.is_apt_at_work() {
            return Err(AskError::AptAtWork);
        }
        Ok(lock)
    }
}
