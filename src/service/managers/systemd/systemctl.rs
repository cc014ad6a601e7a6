//! Calls `systemctl`, for the system's systemd or an ordinary user's own.

use std::time::Duration;

use crate::host::command::CommandError;
use crate::host::{Program, Root, user};
use crate::service::error::ServiceError;

/// systemd answers a query within this time unless PID 1 hangs.
pub(super) const QUESTION_LIMIT: Duration = Duration::from_secs(25);

/// systemd itself limits a stop and a start (to 90 s each, unless the unit says otherwise);
/// this is for units without a limit.
pub(super) const ORDER_LIMIT: Duration = Duration::from_secs(300);

#[derive(Debug, thiserror::Error)]
pub(super) enum SystemdError {
    #[error("systemd is not running on this machine")]
    NoSystemd,
    #[error("systemd cannot {verb} {unit}: the unit is {state}")]
    NotLoaded { verb: &'static str, unit: String, state: String },
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl From<SystemdError> for ServiceError {
    fn from(error: SystemdError) -> Self {
        Self::of_manager(error)
    }
}

pub(super) fn systemctl(root: &Root) -> Result<Program, SystemdError> {
    if !root.runs_systemd() {
        return Err(SystemdError::NoSystemd);
    }
    let program = Program::named(root, "systemctl")
        .limit(QUESTION_LIMIT)
        .args(["--no-pager", "--no-ask-password"]);
    Ok(match root.user() {
        None => program,
        Some(uid) => program.arg("--user").env("XDG_RUNTIME_DIR", user::runtime(uid)),
    })
}
