//! The interpreter that builds a new tree, as a value.

use std::path::PathBuf;

use super::engine;
use crate::host::Root;
use crate::host::overlay::Overlay;
use crate::plan::Target;
use crate::python::{BuildId, Interpreters, Minor};

/// A system in which new trees are built and checked.
#[derive(Debug, Clone)]
pub(crate) struct System {
    pub(crate) interpreters: Interpreters,
    /// What makes it visible: nothing for the installed system.
    pub(crate) seen_through: Vec<Overlay>,
    /// The directory with the files in which it differs from the installed one.
    pub(crate) unpacked: Option<Root>,
}

impl System {
    pub(crate) fn installed(now: &Interpreters) -> Self {
        Self { interpreters: now.clone(), seen_through: Vec::new(), unpacked: None }
    }
}

/// An interpreter, and the overlays that make it visible: none for one that is installed.
#[derive(Debug, Clone)]
pub(super) struct Builder {
    pub(super) path: PathBuf,
    pub(super) minor: Minor,
    pub(super) build_id: Option<BuildId>,
    pub(super) seen_through: Vec<Overlay>,
    /// Where its system's files are if they are not installed.
    pub(super) unpacked: Option<Root>,
}

impl Builder {
    /// The installed interpreter for a target.
    pub(super) fn installed(target: Target, now: &Interpreters) -> Self {
        Self::of(target, &System::installed(now))
    }

    /// A system's interpreter for a target.
    pub(super) fn of(target: Target, system: &System) -> Self {
        let (path, minor) = (target.interpreter(), target.minor);
        let found = system.interpreters.get(minor);
        let build_id = found.and_then(|found| found.build_id.clone());
        let System { seen_through, unpacked, .. } = system.clone();
        Self { path, minor, build_id, seen_through, unpacked }
    }

    /// The system whose pip and wheels its pip is: its own if they are unpacked.
    pub(super) fn has_pip_of<'a>(&'a self, installed: &'a Root) -> &'a Root {
        self.unpacked.as_ref().filter(|files| engine::has_pip(files)).unwrap_or(installed)
    }
}
