//! The interpreter that builds a new tree, as a value.

use std::path::PathBuf;

use crate::host::confine::Overlay;
use crate::plan::Target;
use crate::python::{BuildId, Interpreters, Minor};

/// An interpreter, and the overlays that make it visible: none for one that is installed.
#[derive(Debug, Clone)]
pub(super) struct Builder {
    pub(super) path: PathBuf,
    pub(super) minor: Minor,
    pub(super) build_id: Option<BuildId>,
    pub(super) seen_through: Vec<Overlay>,
}

impl Builder {
    /// The installed interpreter for a target.
    pub(super) fn installed(target: Target, now: &Interpreters) -> Self {
        let (path, minor) = (target.interpreter(), target.minor);
        let build_id = now.get(minor).and_then(|found| found.build_id.clone());
        Self { path, minor, build_id, seen_through: Vec::new() }
    }
}
