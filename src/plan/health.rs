//! The state of a venv.

use serde::{Deserialize, Serialize};

use crate::python::{self, Interpreters};
use crate::venv::{BaseLink, Venv};

/// The state of a venv, as `status` reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    Healthy,
    /// Its check fails, and passed before an upgrade or a repair.
    CheckFails,
    RestartNeeded,
    Stale,
    Orphaned,
    Stranded,
    /// A repair was interrupted and is not finished yet.
    Unfinished,
    Broken,
    Missing,
}

impl State {
    /// Every state, from the best to the worst.
    pub(crate) const ALL: [Self; 9] = [
        Self::Healthy,
        Self::CheckFails,
        Self::RestartNeeded,
        Self::Stale,
        Self::Orphaned,
        Self::Stranded,
        Self::Unfinished,
        Self::Broken,
        Self::Missing,
    ];
}

/// A state and the reasons for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) state: State,
    pub(crate) reasons: Vec<String>,
}

impl Health {
    pub(crate) fn new(state: State, reason: impl Into<String>) -> Self {
        Self { state, reasons: vec![reason.into()] }
    }
}

/// The state of a venv with the installed interpreters. `processes` has a reason for each process
/// of the venv that runs old code.
pub(crate) fn health(venv: &Venv, now: &Interpreters, processes: &[String]) -> Health {
    let base = &venv.base;
    if !base.is_debian {
        return match base.link {
            BaseLink::Dangling => {
                Health::new(State::Stranded, format!("{} is gone", base.path.display()))
            }
            _ => Health::new(
                State::Healthy,
                format!(
                    "{} is not Debian's; venvguard leaves this venv alone",
                    base.path.display()
                ),
            ),
        };
    }
    let runs = match base.link {
        BaseLink::Followed => now.default,
        BaseLink::Pinned | BaseLink::Copied => base.minor,
        BaseLink::Dangling => None,
    };
    let Some(interpreter) = runs.and_then(|minor| now.get(minor)) else {
        return Health::new(State::Stranded, format!("{} is not installed", base.path.display()));
    };
    let minor = interpreter.version.minor();
    if minor != venv.site {
        return Health::new(
            State::Orphaned,
            format!("bin/python runs {minor}, but its distributions are for {}", venv.site),
        );
    }
    let stale: Vec<String> = base
        .copies
        .iter()
        .filter(|copy| interpreter.build_id.is_some() && copy.build_id != interpreter.build_id)
        .map(|copy| {
            let version = copy.version.as_ref().map_or_else(String::new, |v| format!(" {v}"));
            format!(
                "bin/{} is a copy{version} of a different build than {} {}",
                copy.name.display(),
                python::path_of(minor).display(),
                interpreter.package.version
            )
        })
        .collect();
    if !stale.is_empty() {
        return Health { state: State::Stale, reasons: stale };
    }
    if !processes.is_empty() {
        return Health { state: State::RestartNeeded, reasons: processes.to_vec() };
    }
    Health { state: State::Healthy, reasons: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::super::effect::samples::subject;
    use super::*;
    use crate::apt::samples::system;
    use crate::python::{BuildId, Minor};
    use crate::venv::CopiedInterpreter;

    const OLD: Minor = Minor::new(3, 11);

    fn state(venv: &Venv, now: &[&str]) -> State {
        health(venv, &system(now), &[]).state
    }

    #[test]
    fn a_venv_is_judged_by_the_interpreter_it_runs() {
        let followed = subject(BaseLink::Followed, OLD).venv;
        assert_eq!(state(&followed, &["3.11.2-6"]), State::Healthy);
        assert_eq!(state(&followed, &["3.13.5-2", "3.11.2-6"]), State::Orphaned);
        assert_eq!(state(&followed, &[]), State::Stranded);
        let pinned = subject(BaseLink::Pinned, OLD).venv;
        assert_eq!(state(&pinned, &["3.13.5-2", "3.11.2-6"]), State::Healthy);
        assert_eq!(state(&pinned, &["3.13.5-2"]), State::Stranded);
    }

    #[test]
    fn a_copy_is_healthy_only_if_it_is_of_the_same_build() {
        let mut copied = subject(BaseLink::Copied, OLD).venv;
        copied.base.copies = vec![CopiedInterpreter {
            name: "python3".into(),
            version: None,
            build_id: Some(BuildId("3.11.2-6".into())),
        }];
        assert_eq!(state(&copied, &["3.11.2-6"]), State::Healthy);
        assert_eq!(state(&copied, &["3.11.2-7"]), State::Stale);
    }

    #[test]
    fn a_process_with_old_code_needs_a_restart() {
        let venv = subject(BaseLink::Pinned, OLD).venv;
        let health = health(&venv, &system(&["3.11.2-6"]), &["pid 7 runs a deleted file".into()]);
        assert_eq!(health.state, State::RestartNeeded);
    }
}
