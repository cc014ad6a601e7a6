//! Errors of services, whatever their manager.

use std::error::Error;
use std::sync::Arc;

/// Why a manager was not called, or did not follow an order.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ServiceError {
    #[error("{0} is not a unit of your own service manager")]
    NotOwn(String),
    #[error("{0} is a unit of a user's own service manager: that user must register the venv")]
    NotTheSystems(String),
    /// In the manager's words; shared if several services got the order together.
    #[error(transparent)]
    Manager(Arc<dyn Error + Send + Sync>),
}

impl ServiceError {
    pub(super) fn of_manager(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Manager(Arc::new(error))
    }
}

/// Why a text is not the name of a service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} {problem}")]
pub(crate) struct NameError {
    name: String,
    problem: &'static str,
}

impl NameError {
    pub(super) fn new(name: impl Into<String>, problem: &'static str) -> Self {
        Self { name: name.into(), problem }
    }
}
