//! Tests whether a tree works: its own interpreter imports what is installed in it.
//!
//! Optional imports fail in many healthy venvs. Only imports that fail in the new tree and not in
//! the old one count.

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

/// How much of a name and of an error is shown, in bytes: both come from the venv's own code.
const TEXT: usize = 512;

/// The errors, by what was tried: `module numpy`, `script flask`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Failures(BTreeMap<String, String>);

impl Failures {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything that fails here and did not fail in `before`.
    pub(super) fn new_since(&self, before: &Self) -> Vec<String> {
        self.0
            .iter()
            .filter(|(what, _)| !before.0.contains_key(*what))
            .map(|(what, error)| format!("{}: {}", within(what, TEXT), within(error, TEXT)))
            .collect()
    }
}

/// Tries the tree at `venv`: imports `modules` and the entry points of its programs. If the
/// interpreter does not finish (it is missing, crashes, hangs, or takes longer than `limit`), the
/// error says how it ended.
pub(super) fn smoke(
    root: &Root,
    owner: &User,
    venv: &Path,
    modules: &[String],
    overlays: &[Overlay],
    limit: Duration,
) -> Result<Failures, String> {
    let python = venv.join("bin/python");
    // `-` reads the program from standard input; the environment is empty, and the working
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
