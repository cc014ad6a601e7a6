//! Upstream Python versions.
//!
//! `semver` orders upstream `X.Y.Z` only. A Debian version string must never be given to
//! it: `3.12.3-1` would parse, as a *pre-release* below 3.12.3.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `3.11`, as in `lib/python3.11` and in the names of packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Minor {
    pub(crate) major: u8,
    pub(crate) minor: u8,
}

impl Minor {
    pub(crate) const fn new(major: u8, minor: u8) -> Self {
        Self { major, minor }
    }

    /// `python3.11`: the name of the program and of the directory below `lib`.
    pub(crate) fn program(self) -> String {
        format!("python{self}")
    }

    /// The minor version in exactly a name like `python3.11`.
    pub(crate) fn of_program(name: &str) -> Option<Self> {
        name.strip_prefix("python")?.parse().ok()
    }
}

impl fmt::Display for Minor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A text that is not a version of Python.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a Python version")]
pub(crate) struct VersionError(pub(crate) String);

impl FromStr for Minor {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        text.split_once('.')
            .and_then(|(major, minor)| Some(Self::new(number(major)?, number(minor)?)))
            .ok_or_else(|| VersionError(text.to_string()))
    }
}

/// A number as written in a version: `u8::from_str` would also accept "+3" and "011", which are
/// not spelled so in the name of any interpreter.
fn number(part: &str) -> Option<u8> {
    part.parse().ok().filter(|number: &u8| number.to_string() == part)
}

/// Whether a text uses only the alphabet of Debian's versions (Policy 5.6.12), as apt and dpkg
/// do: any other text comes from a damaged file.
pub(crate) fn is_debian_version(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".+~:-".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}

/// An upstream version, `3.13.5` or `3.14.0rc1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(semver::Version);

impl Version {
    pub(crate) fn new(major: u8, minor: u8, patch: u8) -> Self {
        Self(semver::Version::new(major.into(), minor.into(), patch.into()))
    }

    pub(crate) fn minor(&self) -> Minor {
        // Every constructor guarantees that major and minor fit.
        Minor::new(u8::try_from(self.0.major).unwrap_or(0), u8::try_from(self.0.minor).unwrap_or(0))
    }

    /// The upstream version in a Debian package version: `1:3.13.5-2+deb13u5` has 3.13.5,
    /// `3.14.0~rc1-1` has 3.14.0rc1.
    pub(crate) fn of_package(version: &str) -> Result<Self, VersionError> {
        let without_epoch = version.split_once(':').map_or(version, |(_, rest)| rest);
        let upstream = without_epoch.rsplit_once('-').map_or(without_epoch, |(front, _)| front);
        // Repackaged sources append +dfsg, +really and the like.
        let upstream = upstream.split('+').next().unwrap_or(upstream);
        upstream.replace('~', "").parse().map_err(|_| VersionError(version.to_string()))
    }

    /// A pre-release in Python's spelling: `a1`, `b2`, `rc1`.
    pub(crate) fn with_prerelease(mut self, name: &str) -> Result<Self, VersionError> {
        let error = || VersionError(format!("{self}{name}"));
        // semver's own has dots and dashes too.
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(error());
        }
        self.0.pre = semver::Prerelease::new(name).map_err(|_| error())?;
        Ok(self)
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let error = || VersionError(text.to_string());
        let release = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (numbers, pre) = text.split_at(release);
        let mut parts = numbers.split('.');
        let mut part = || parts.next().and_then(number).ok_or_else(error);
        let (major, minor) = (part()?, part()?);
        // Debian's own metapackages sometimes drop a patch version of zero.
        let patch = parts.next().map_or(Some(0), number).ok_or_else(error)?;
        if parts.next().is_some() {
            return Err(error());
        }
        let version = Self::new(major, minor, patch);
        if pre.is_empty() { Ok(version) } else { version.with_prerelease(pre) }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}{}", self.0.major, self.0.minor, self.0.patch, self.0.pre)
    }
}

macro_rules! serde_as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(Minor, Version);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_versions_are_ordered_as_python_orders_them() {
        let ordered =
            ["3.9.2", "3.11.2", "3.13.5", "3.13.15", "3.14.0a7", "3.14.0b1", "3.14.0rc1", "3.14.0"];
        let parsed: Vec<Version> = ordered.iter().map(|v| v.parse().unwrap()).collect();
        assert!(parsed.windows(2).all(|pair| pair[0] < pair[1]), "{parsed:?}");
        assert_eq!(parsed.iter().map(ToString::to_string).collect::<Vec<_>>(), ordered);
    }

    #[test]
    fn the_upstream_version_of_a_debian_version_is_found() {
        for (debian, upstream) in [
            ("3.13.5-2+deb13u5", "3.13.5"),
            ("3.11.2-6+deb12u8", "3.11.2"),
            ("3.12.3-1ubuntu10", "3.12.3"),
            ("1:3.9.2-1", "3.9.2"),
            ("3.14.0~rc1-1", "3.14.0rc1"),
            ("3.11.2+dfsg-1", "3.11.2"),
            ("3.11.2-1+b1", "3.11.2"),
        ] {
            assert_eq!(Version::of_package(debian).unwrap().to_string(), upstream, "{debian}");
        }
        assert!(Version::of_package("oops").is_err());
    }

    #[test]
    fn only_a_minor_version_is_a_minor_version() {
        assert_eq!(Minor::of_program("python3.11"), Some(Minor::new(3, 11)));
        for text in ["python3", "python3.11.2", "python3.x", "python3.+1", "python3.11-config"] {
            assert_eq!(Minor::of_program(text), None, "{text}");
        }
    }
}
