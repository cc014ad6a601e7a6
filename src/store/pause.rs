//! The pause between services of one kind that restart one after another.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Nobody waits longer at the end of an apt run.
const LONGEST: Duration = Duration::from_secs(3600);

/// A time such as `10s`, or `no` if they restart together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pause {
    /// As it was written.
    text: String,
    pub(crate) time: Option<Duration>,
}

/// Why a text is not a pause.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a pause: write a time of one hour at most, such as \"10s\", or \"no\"")]
pub(crate) struct PauseError(String);

impl FromStr for Pause {
    type Err = PauseError;

    fn from_str(text: &str) -> Result<Self, PauseError> {
        let time = || {
            let time: SignedDuration = text.parse().ok()?;
            Duration::try_from(time).ok().filter(|time| *time <= LONGEST)
        };
        let time = match text {
            "no" => None,
            _ => Some(time().ok_or_else(|| PauseError(text.to_string()))?),
        };
        Ok(Self { text: text.to_string(), time })
    }
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl Serialize for Pause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Pause {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_a_short_time_or_none() {
        let time = |text: &str| text.parse::<Pause>().map(|pause| pause.time.map(|t| t.as_secs()));
        assert_eq!(time("10s"), Ok(Some(10)));
        assert_eq!(time("2min"), Ok(Some(120)));
        assert_eq!(time("0s"), Ok(Some(0)));
        assert_eq!(time("no"), Ok(None));
        for text in ["", "10", "-1s", "2h", "x\u{1b}s"] {
            assert_eq!(time(text), Err(PauseError(text.into())));
        }
    }
}
