//! Names the causes of Python failures: from the text of a failure, from the state of venvs, and
//! from what this machine says about both. It changes nothing and prints nothing.
//!
//! [`text`] reads the text. Each of the [`signatures`] says what in a text speaks for its cause,
//! and asks the [`machine`] whether that is so. A text alone makes a cause likely, never verified.

#[cfg(test)]
mod input;
mod machine;
mod signatures;
mod text;

use std::fmt;

use serde::Serialize;

use crate::host::file::printable_within;
use crate::host::redacted;
use crate::plan::{Health, State};
pub(crate) use machine::{KnownVenv, Machine};
use signatures::{SIGNATURES, Signature, Verdict};
use text::Failure;
pub(crate) use text::TEXT_LIMIT;

/// The limit in bytes of a line of evidence: gevent's warning names many modules.
const EVIDENCE: usize = 1 << 10;

/// The cause of a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Cause {
    pub(crate) id: &'static str,
    pub(crate) title: String,
    pub(crate) certainty: Certainty,
    /// Whether an upgrade of Python caused it; `None` if that is not known.
    pub(crate) caused_by_upgrade: Option<bool>,
    pub(crate) evidence: Vec<String>,
    /// The command to run, or what else to do.
    pub(crate) remedy: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Certainty {
    /// This machine confirms it.
    Verified,
    /// Only the text says so.
    Likely,
}

impl fmt::Display for Certainty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Verified => "verified",
            Self::Likely => "likely",
        })
    }
}

/// The text of a failure, read into a value.
#[derive(Debug)]
pub(crate) struct FailureText(Failure);

impl FailureText {
    /// Reads a text of any bytes; of a long one its end.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        Self(Failure::read(bytes))
    }

    /// The venvs that the text names, whether they exist or not.
    pub(crate) fn venvs(&self) -> Vec<std::path::PathBuf> {
        self.0.venvs()
    }
}

/// The causes of what a text says, the verified ones first.
pub(crate) fn causes_of(text: &FailureText, machine: &Machine) -> Vec<Cause> {
    let mut found: Vec<(signatures::Place, Cause)> = Vec::new();
    for signature in SIGNATURES {
        let Some(clue) = (signature.matches)(&text.0) else { continue };
        let (certainty, more) = match (signature.verify)(&clue, machine) {
            Verdict::Verified(evidence) => (Certainty::Verified, evidence),
            Verdict::Unknown if clue.is_enough => (Certainty::Likely, Vec::new()),
            Verdict::Unknown | Verdict::Refuted => continue,
        };
        let place = clue.place;
        let quote = std::iter::once(clue.quote.clone());
        let evidence = quote.chain(clue.details.iter().cloned()).chain(more);
        let cause = cause(signature, certainty, evidence, &clue, machine);
        // One failure has one cause: what this machine confirms, or else what is most specific.
        match found.iter_mut().find(|(other, _)| *other == place) {
            Some((_, other)) if certainty < other.certainty => *other = cause,
            Some(_) => {}
            None => found.push((place, cause)),
        }
    }
    let mut causes: Vec<Cause> = found.into_iter().map(|(_, cause)| cause).collect();
    causes.sort_by_key(|cause| cause.certainty);
    causes
}

/// The causes that the state of a venv is for every failure of it.
pub(crate) fn causes_in(venv: &KnownVenv, machine: &Machine) -> Vec<Cause> {
    let Some(signature) = signatures::of_state(venv) else { return Vec::new() };
    let clue = signatures::Clue::of_venv(venv);
    let evidence = venv.reasons().into_iter();
    vec![cause(signature, Certainty::Verified, evidence, &clue, machine)]
}

/// The cause that the state of a registered venv is, if there is no venv to look at.
pub(crate) fn cause_of_state(name: &str, health: &Health) -> Cause {
    let (id, title, remedy) = match health.state {
        State::Unfinished => {
            ("unfinished", "a repair of the venv was interrupted", "`venvguard resume`".to_string())
        }
        State::Missing => (
            "missing",
            "the venv no longer exists",
            format!("create it again, or unregister it: `venvguard unregister {name}`"),
        ),
        _ => (
            "broken",
            "there is no usable venv at the registered path",
            "create it again with the tool that created it".to_string(),
        ),
    };
    Cause {
        id,
        title: title.to_string(),
        certainty: Certainty::Verified,
        caused_by_upgrade: None,
        evidence: health.reasons.clone(),
        remedy,
    }
}

fn cause(
    signature: &Signature,
    certainty: Certainty,
    evidence: impl Iterator<Item = String>,
    clue: &signatures::Clue,
    machine: &Machine,
) -> Cause {
    let (caused_by_upgrade, baseline) = signature.upgrade.of(certainty, clue, machine);
    let shown = |line: String| printable_within(&redacted(line.trim()), EVIDENCE);
    Cause {
        id: signature.id,
        title: signature.title.to_string(),
        certainty,
        caused_by_upgrade,
        evidence: evidence.chain(baseline).map(shown).collect(),
        remedy: shown((signature.remedy)(clue, machine)),
    }
}

#[cfg(test)]
mod tests;
