//! Does a tree work? Its own interpreter imports what is installed in it.
//!
//! Optional imports fail in many a healthy venv. So the old tree is asked first, and only
//! what fails in the new one alone counts.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::host::command::ExitDescription;
use crate::host::confine::{self, Overlay};
use crate::host::file::within;
use crate::host::user::User;
use crate::host::{Program, Root, redacted};

const SCRIPT: &str = include_str!("smoke.py");

/// Imports of a hundred distributions take seconds; one that waits for the network hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// So much of a name and of an error is shown: the venv's own code says them.
const TEXT: usize = 512;

/// What failed, by what was tried: `module numpy`, `script flask`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Failures(BTreeMap<String, String>);

impl Failures {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What fails here and did not fail in `before`.
    pub(super) fn new_since(&self, before: &Self) -> Vec<String> {
        self.0
            .iter()
            .filter(|(what, _)| !before.0.contains_key(*what))
            .map(|(what, error)| format!("{}: {}", within(what, TEXT), within(error, TEXT)))
            .collect()
    }
}

/// Tries the tree at `venv`: it imports `modules` and what its programs begin with. An
/// interpreter that does not come to the end (it is missing, crashes, hangs) is an error that
/// says how it ended; so is one that takes longer than `limit`.
pub(super) fn smoke(
    root: &Root,
    owner: &User,
    venv: &Path,
    modules: &[String],
    overlays: &[Overlay],
    limit: Duration,
) -> Result<Failures, String> {
    let python = venv.join("bin/python");
    // `-` reads the program from standard input; the environment is empty, and the
    // directory is not the owner's.
    let program =
        Program::new(python).args(["-B", "-"]).args(modules).input(SCRIPT).limit(limit.min(LIMIT));
    let finished = confine::confined(root, program, owner, overlays, Path::new("/"))
        .finish()
        .map_err(|error| error.to_string())?;
    let text = finished.text();
    if text.lines().last() != Some("done") {
        return Err(format!(
            "bin/python {}\n{}",
            ExitDescription(finished.status),
            finished.complaint()
        ));
    }
    Ok(Failures(
        text.lines()
            .filter_map(|line| serde_json::from_str::<(String, String, String)>(line).ok())
            .map(|(kind, name, error)| (format!("{kind} {name}"), redacted(&error)))
            .collect(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_failures_count() {
        let failures = |names: &[&str]| {
            Failures(names.iter().map(|name| ((*name).to_string(), "E".to_string())).collect())
        };
        let before = failures(&["module a"]);
        assert_eq!(failures(&["module a"]).new_since(&before), Vec::<String>::new());
        assert_eq!(failures(&["module a", "module b"]).new_since(&before), ["module b: E"]);
        let long = "x".repeat(1 << 20);
        let [told] = &failures(&[&long]).new_since(&before)[..] else { panic!() };
        assert!(told.len() < 2 * TEXT, "{}", told.len());
    }
}
