//! Why a venv was not rebuilt.

use std::io;

use super::halt::Halted;
use super::install::InstallError;
use super::smoke::Failure;
use crate::host::command::CommandError;
use crate::store::{JournalState, StoreError};
use crate::venv::Difference;

/// Why there is no new tree.
#[derive(Debug, thiserror::Error)]
pub(super) enum RebuildError {
    #[error("its distributions cannot be installed again: {}", .0.join("; "))]
    Unreproducible(Vec<String>),
    #[error("{0}")]
    NoEngine(String),
    #[error("it cannot be rebuilt where it is: {}", .0.join("; "))]
    NotThere(Vec<String>),
    #[error("cannot create the environment: {0}")]
    Create(CommandError),
    #[error(transparent)]
    Install(#[from] InstallError),
    #[error(
        "the new environment does not have the same distributions:\n    {}",
        .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n    ")
    )]
    Different(Vec<Difference>),
    #[error("the new environment does not work: {0}")]
    Dead(String),
    #[error(
        "these fail in the new environment, but not in the old one:\n    {}",
        .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n    ")
    )]
    Worse(Vec<Failure>),
    #[error(
        "the venv changed while the new environment was built (run `venvguard rebuild` to try again)"
    )]
    Changed,
    #[error("mount namespaces are unavailable: it can only be rebuilt in place")]
    OnlyInPlace,
    #[error("its services cannot be kept down for the swap: {0}")]
    Halt(String),
    #[error("its user files cannot be carried over: {0}")]
    Carry(io::Error),
    #[error(
        "the rebuild exceeded its time limit (`rebuild-timeout`, `owner-timeout` and `run-timeout` in the configuration)"
    )]
    OutOfTime,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RebuildError {
    /// Whether it says nothing about the venv: the next attempt may succeed.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Changed
            | Self::OnlyInPlace
            | Self::Halt(_)
            | Self::OutOfTime
            | Self::Io(_)
            | Self::Store(_) => true,
            Self::Install(error) => error.is_out_of_reach(),
            _ => false,
        }
    }
}

/// Why there is no new tree in place, and the state of the journal.
#[derive(Debug)]
pub(super) struct NotRebuilt {
    pub(super) why: Box<RebuildError>,
    /// A directory is left over that the journal does not name.
    pub(super) unfinished: bool,
    /// `None` if nothing was begun.
    pub(super) state: Option<Box<JournalState>>,
}

impl NotRebuilt {
    pub(super) fn at(state: &JournalState, why: RebuildError) -> Self {
        let state = Some(Box::new(state.clone()));
        Self { why: Box::new(why), unfinished: false, state }
    }
}

impl From<RebuildError> for NotRebuilt {
    fn from(why: RebuildError) -> Self {
        Self { why: Box::new(why), unfinished: false, state: None }
    }
}

impl From<io::Error> for NotRebuilt {
    fn from(error: io::Error) -> Self {
        RebuildError::from(error).into()
    }
}

impl From<StoreError> for NotRebuilt {
    fn from(error: StoreError) -> Self {
        RebuildError::from(error).into()
    }
}

impl From<Halted<RebuildError>> for RebuildError {
    fn from(halted: Halted<RebuildError>) -> Self {
        match halted {
            Halted::Stop(because) => Self::Halt(because),
            Halted::Work(error) => error,
        }
    }
}
