//! Finds what keeps venvguard from working on this machine, and the commands that fix it; and, in
//! [`failure`], the causes of Python failures. It changes nothing and prints nothing.

mod apt;
pub(crate) mod failure;
mod state;
mod system;
mod venvs;

use std::fmt;

use serde::Serialize;

use crate::host::Root;
use crate::repair::Context;
use crate::report::Report;
use crate::store::Store;

/// A fact about this machine that a person should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    pub(crate) what: String,
    /// The command to run, or what else to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fix: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Severity {
    /// Nothing is broken.
    Note,
    /// venvguard or a venv does not work, or will stop working.
    Fault,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Fault => "fault",
        })
    }
}

impl Finding {
    fn fault(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { severity: Severity::Fault, what: what.into(), fix: Some(fix.into()) }
    }

    fn note(what: impl Into<String>) -> Self {
        Self { severity: Severity::Note, what: what.into(), fix: None }
    }
}

/// Whether the caller can read what root guards: to anybody else much of it looks broken.
fn sees_all(root: &Root) -> bool {
    !root.is_system() || rustix::process::geteuid().is_root()
}

/// All findings: about apt, the machine, what venvguard has stored, and each registered venv.
pub(crate) fn findings(root: &Root, report: &Report) -> Vec<Finding> {
    let mut findings = apt::findings(root);
    findings.extend(system::findings(root));
    let store = Store::new(root);
    findings.extend(state::findings(&store));
    match store.config() {
        Ok(_) if !sees_all(root) => findings.push(Finding::note(
            "the venvs were not checked, which takes root (`sudo venvguard doctor`)",
        )),
        Ok(config) => {
            let context = Context { root, store: &store, config: &config, report };
            findings.extend(venvs::findings(&context));
        }
        Err(error) => findings.push(state::finding(&store, &error)),
    }
    findings
}
