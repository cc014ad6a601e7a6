//! Versions that do not exist for a new interpreter: finds the nearest one, and how far away
//! it is.

use std::fmt;
use std::str::FromStr;

use pep440_rs::Version;
use serde::{Deserialize, Serialize};

use super::text::PackageVersion;

/// How far a distribution may move if its own version is unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Relax {
    /// 1.2.3 to 1.2.4
    Patch,
    /// 1.2.3 to 1.4.0
    Minor,
    /// 1.2.3 to 2.0.0
    Major,
}

impl fmt::Display for Relax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Patch => "patch",
            Self::Minor => "minor",
            Self::Major => "major",
        })
    }
}

/// What is available instead of a version that could not be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Nearest {
    /// That version itself: something else went wrong.
    Itself,
    Later {
        version: PackageVersion,
        step: Relax,
    },
    Nothing,
}

/// The lowest offered version that is not below the previous one. Other pre-releases than that
/// one do not count.
pub(crate) fn nearest(there: &PackageVersion, offered: &[&str]) -> Nearest {
    // Nothing is known about a version outside PEP 440, least of all that it is gone.
    let Ok(there) = Version::from_str(&there.to_string()) else { return Nearest::Itself };
    let offered = offered.iter().filter_map(|text| Version::from_str(text).ok());
    let lowest =
        offered.filter(|one| *one >= there && !one.any_prerelease() || *one == there).min();
    let Some(lowest) = lowest else { return Nearest::Nothing };
    if lowest == there {
        return Nearest::Itself;
    }
    let part = |version: &Version, index| version.release().get(index).copied().unwrap_or(0);
    let same = |index| part(&there, index) == part(&lowest, index);
    let step = match (there.epoch() == lowest.epoch() && same(0), same(1)) {
        (true, true) => Relax::Patch,
        (true, false) => Relax::Minor,
        (false, _) => Relax::Major,
    };
    match PackageVersion::try_from(lowest.to_string()) {
        Ok(version) => Nearest::Later { version, step },
        Err(_) => Nearest::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_later_release_is_the_nearest() {
        let release = |text: &str| PackageVersion::try_from(text.to_string()).unwrap();
        let offered = ["2.1.0", "1.26.4", "1.23.2", "1.26.0rc1", "no version", "1.26.2"];
        for (there, offered, later, step) in [
            ("1.24.0", &offered[..], "1.26.2", Relax::Minor),
            ("1.26.3", &offered, "1.26.4", Relax::Patch),
            ("1.27", &offered, "2.1.0", Relax::Major),
            ("1.0", &["1!0.5"], "1!0.5", Relax::Major),
            ("1.0", &["1.0.post1"], "1.0.post1", Relax::Patch),
        ] {
            let version = release(later);
            assert_eq!(nearest(&release(there), offered), Nearest::Later { version, step });
        }
        assert_eq!(nearest(&release("1.26.4"), &offered), Nearest::Itself);
        assert_eq!(nearest(&release("2.1"), &offered), Nearest::Itself);
        assert_eq!(nearest(&release("3.0"), &offered), Nearest::Nothing);
        assert_eq!(nearest(&release("1.0-vendor"), &offered), Nearest::Itself);
    }
}
