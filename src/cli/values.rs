//! The words that stand for options' values, and what is said about each.

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::plan::{Policy, Relax};

impl ValueEnum for Policy {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Auto, Self::Block, Self::Rebuild, Self::Pin, Self::Warn, Self::Ignore]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (word, help) = match self {
            Self::Auto => (
                "auto",
                "Repair whatever can be repaired; keep the old minor version where a rebuild is not ready",
            ),
            Self::Block => ("block", "Let no transaction change this venv's interpreter"),
            Self::Rebuild => {
                ("rebuild", "As auto, and rebuild instead of refreshing a copied interpreter")
            }
            Self::Pin => {
                ("pin", "Keep the minor version: pin to the old interpreter instead of rebuilding")
            }
            Self::Warn => ("warn", "Say what happens to the venv, and leave it alone"),
            Self::Ignore => ("ignore", "Leave it alone silently"),
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
    fn a_value_is_said_as_it_is_stored() {
        fn words<T: ValueEnum + ToString>() {
            for value in T::value_variants() {
                let word = value.to_possible_value().unwrap();
                assert_eq!(word.get_name(), value.to_string());
            }
        }
        words::<Policy>();
        words::<Relax>();
    }
}
