//! Paths in JSON: text where they are UTF-8, bytes in hexadecimal where they are not.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::hexadecimal;

/// A path that survives JSON byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PathText(pub(crate) PathBuf);

#[derive(Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Form {
    Text(String),
    Bytes { bytes: String },
}

impl Serialize for PathText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let form = match self.0.to_str() {
            Some(text) => Form::Text(text.to_string()),
            None => Form::Bytes { bytes: hexadecimal(self.0.as_os_str().as_bytes()) },
        };
        form.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PathText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Form::deserialize(deserializer)? {
            Form::Text(text) => Ok(Self(text.into())),
            Form::Bytes { bytes } => {
                let bytes = bytes
                    .as_bytes()
                    .chunks(2)
                    .map(|pair| {
                        let digit = |byte: &u8| char::from(*byte).to_digit(16);
                        let [high, low] = pair else { return None };
                        u8::try_from((digit(high)? << 4) | digit(low)?).ok()
                    })
                    .collect::<Option<Vec<u8>>>()
                    .ok_or_else(|| {
                        serde::de::Error::custom("a path's bytes are not hexadecimal")
                    })?;
                Ok(Self(PathBuf::from(OsString::from_vec(bytes))))
            }
        }
    }
}

/// A path that must name one place: absolute, without `..`.
pub(crate) fn absolute<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathText, D::Error> {
    let path = PathText::deserialize(deserializer)?;
    let names_one_place = path.0.is_absolute()
        && !path.0.as_os_str().as_bytes().contains(&0)
        && !path.0.components().any(|part| part == Component::ParentDir);
    names_one_place
        .then_some(path)
        .ok_or_else(|| serde::de::Error::custom("a path must be absolute and contain no `..`"))
}

impl From<&std::path::Path> for PathText {
    fn from(path: &std::path::Path) -> Self {
        Self(path.to_path_buf())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_any_bytes_survives() {
        for bytes in [&b"/srv/shop"[..], b"/srv/\xff\xfe/venv", "/srv/ü\n".as_bytes()] {
            let path = PathText(PathBuf::from(OsString::from_vec(bytes.to_vec())));
            let json = serde_json::to_string(&path).unwrap();
            assert_eq!(serde_json::from_str::<PathText>(&json).unwrap(), path, "{json}");
        }
    }
}
