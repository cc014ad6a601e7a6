//! The values of options, and the help for each.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::{Arg, Command, ValueEnum};

use jiff::{SignedDuration, Span, SpanRelativeTo};

use crate::guard::Setting;
use crate::plan::{Policy, Relax, RestartMode};

/// A time like `14d`, `36h` or `1w`; a day has 24 hours.
pub(super) fn duration(text: &str) -> Result<SignedDuration, String> {
    let span: Span = text.parse().map_err(|_| "a time is a number and a unit, as in 14d")?;
    let time = span.to_duration(SpanRelativeTo::days_are_24_hours());
    let time = time.map_err(|_| "a time consists of weeks, days, hours and minutes")?;
    if time.is_positive() { Ok(time) } else { Err("it must be longer than zero".into()) }
}

/// Parses the value of an option that an empty text clears.
#[derive(Clone)]
pub(super) struct OrNothing<P>(pub(super) P);

impl<P: TypedValueParser> TypedValueParser for OrNothing<P> {
    type Value = Setting<P::Value>;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Self::Value, clap::Error> {
        if value.is_empty() {
            return Ok(None);
        }
        self.0.parse_ref(command, argument, value).map(Some)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        self.0.possible_values()
    }
}

impl ValueEnum for Policy {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Auto, Self::Block, Self::Rebuild, Self::Pin, Self::Warn, Self::Ignore]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (word, help) = match self {
            Self::Auto => {
                ("auto", "Repair the venv; keep the old minor version if a rebuild is not ready")
            }
            Self::Block => {
                ("block", "Block every transaction that changes the interpreter of the venv")
            }
            Self::Rebuild => (
                "rebuild",
                "Like auto, but rebuild instead of refreshing a copied interpreter, and block if that is not ready",
            ),
            Self::Pin => {
                ("pin", "Keep the minor version: pin to the old interpreter instead of rebuilding")
            }
            Self::Warn => ("warn", "Report what happens to the venv, and leave it alone"),
            Self::Ignore => ("ignore", "Leave the venv alone silently"),
        };
        Some(PossibleValue::new(word).help(help))
    }
}

impl ValueEnum for RestartMode {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Now, Self::List, Self::Window, Self::Never]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (word, help) = match self {
            Self::Now => ("now", "Restart them with the repair"),
            Self::List => ("list", "Let them run, and list them until somebody restarts them"),
            Self::Window => ("window", "Let them run until a window opens"),
            Self::Never => ("never", "Let them run, and count that as healthy"),
        };
        Some(PossibleValue::new(word).help(help))
    }
}

impl ValueEnum for Relax {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Patch, Self::Minor, Self::Major]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (word, help) = match self {
            Self::Patch => ("patch", "1.2.3 to 1.2.4"),
            Self::Minor => ("minor", "1.2.3 to 1.4.0"),
            Self::Major => ("major", "1.2.3 to 2.0.0"),
        };
        Some(PossibleValue::new(word).help(help))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_spelled_as_they_are_stored() {
        fn words<T: ValueEnum + ToString>() {
            for value in T::value_variants() {
                let word = value.to_possible_value().unwrap();
                assert_eq!(word.get_name(), value.to_string());
            }
        }
        words::<Policy>();
        words::<RestartMode>();
        words::<Relax>();
    }
}
