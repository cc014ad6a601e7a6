//! Compares what a rebuild installed with its recipe. A URL, a directory or an index may serve
//! something different from what it served before.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use pep440_rs::Version;

use super::recipe::Requirement;
use super::relax::{Nearest, Relax, nearest};
use super::text::{Name, PackageVersion};
use super::{Distribution, Recipe, Source};
use crate::host::file::printable;
use crate::host::redacted;

/// A distribution that differs between the old tree and the new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) name: Name,
    pub(crate) recorded: Option<PackageVersion>,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It is not installed.
    Missing,
    /// It is not installed, because nothing requires it on the new Python.
    NotRequired,
    /// The index or the project's lock gave another version.
    AnotherVersion { installed: String, step: Option<Relax> },
    /// The address or directory that it came from now serves another version.
    AnotherSource { installed: String, step: Option<Relax>, from: String },
    /// The same sources report another version: it is computed when they are built, or the
    /// directory is in use, as with an editable.
    Computed { installed: String },
}

/// The differences that make a rebuild fail, and those that are only reported.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Differences {
    pub(crate) failures: Vec<Difference>,
    pub(crate) notes: Vec<Difference>,
}

impl Differences {
    /// Compares the installed distributions with a recipe. Versions may have moved as far as
    /// `relax` allows, and there may be distributions that the recipe does not name.
    pub(crate) fn of(recipe: &Recipe, installed: &[Distribution], relax: Option<Relax>) -> Self {
        let mut differences = Self::default();
        for requirement in &recipe.requirements {
            let name = requirement.name.to_string();
            let found = installed.iter().find(|one| one.normalized_name() == name);
            let Some(kind) = kind(requirement, found) else { continue };
            let recorded = requirement.source.version().cloned();
            let difference = Difference { name: requirement.name.clone(), recorded, kind };
            match &difference.kind {
                // The installer has already reported it.
                Kind::AnotherVersion { step: Some(step), .. } if Some(*step) <= relax => {}
                Kind::AnotherSource { step: Some(step), .. } if Some(*step) <= relax => {
                    differences.notes.push(difference);
                }
                Kind::Computed { .. } => differences.notes.push(difference),
                _ => differences.failures.push(difference),
            }
        }
        differences
    }

    /// Looks for the names of the distributions that `had` lists, for an installer that chooses their
    /// versions itself. Those that are `required_elsewhere`, on other versions of Python, may be
    /// missing.
    pub(crate) fn of_names(
        had: &[Distribution],
        installed: &[Distribution],
        required_elsewhere: &BTreeSet<String>,
    ) -> Self {
        let mut differences = Self::default();
        let installed: BTreeSet<String> =
            installed.iter().map(Distribution::normalized_name).collect();
        for one in had {
            let text = one.normalized_name();
            // No installer installs what has no proper name.
            let Ok(name) = Name::try_from(text.clone()) else { continue };
            if installed.contains(&text) {
                continue;
            }
            let version = one.version.clone();
            let recorded = version.and_then(|version| PackageVersion::try_from(version).ok());
            if required_elsewhere.contains(&text) {
                let kind = Kind::NotRequired;
                differences.notes.push(Difference { name, recorded, kind });
            } else {
                let kind = Kind::Missing;
                differences.failures.push(Difference { name, recorded, kind });
            }
        }
        differences
    }
}

fn kind(requirement: &Requirement, found: Option<&Distribution>) -> Option<Kind> {
    // These move with the interpreter, and a rebuild reports those that are unavailable.
    if matches!(requirement.source, Source::Newest { .. }) {
        return None;
    }
    let Some(found) = found else { return Some(Kind::Missing) };
    let recorded = requirement.source.version()?;
    let installed = found.version.clone().unwrap_or_else(|| "an unknown version".to_string());
    if is_same(recorded, &installed) {
        return None;
    }
    let step = match nearest(recorded, &[&installed]) {
        Nearest::Later { step, .. } => Some(step),
        Nearest::Itself | Nearest::Nothing => None,
    };
    Some(match &requirement.source {
        Source::Index { .. } | Source::Newest { .. } => Kind::AnotherVersion { installed, step },
        // The commit or the hash proves that it is the same.
        Source::Vcs { .. }
        | Source::Archive { hash: Some(_), .. }
        | Source::Directory { editable: true, .. } => Kind::Computed { installed },
        // The part after the `+` is often the date of the build.
        _ if is_same_but_locally(recorded, &installed) => Kind::Computed { installed },
        Source::Archive { url, hash: None, .. } => {
            Kind::AnotherSource { installed, step, from: redacted(&url.to_string()) }
        }
        Source::Directory { url, editable: false, .. } => {
            let from = url.path().map_or_else(|| url.to_string(), printable);
            Kind::AnotherSource { installed, step, from }
        }
    })
}

/// Whether two spellings are the same version.
fn is_same(recorded: &PackageVersion, installed: &str) -> bool {
    let recorded = recorded.to_string();
    match (Version::from_str(&recorded), Version::from_str(installed)) {
        (Ok(one), Ok(other)) => one == other,
        _ => recorded == installed,
    }
}

fn is_same_but_locally(recorded: &PackageVersion, installed: &str) -> bool {
    let public = |text: &str| Version::from_str(text).ok().map(Version::without_local);
    let recorded = public(&recorded.to_string());
    recorded.is_some() && recorded == public(installed)
}

/// A distribution whose source may serve something different at the time of a rebuild.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Uncertain {
    /// No hash was recorded for this address.
    Address { name: Name, url: String },
    /// It was built from this directory, and a rebuild would build from it again.
    Directory { name: Name, path: PathBuf },
}

impl Recipe {
    /// The distributions that a rebuild cannot be sure to install identically.
    pub(crate) fn uncertain(&self) -> Vec<Uncertain> {
        let uncertain = |requirement: &Requirement| {
            let name = requirement.name.clone();
            match &requirement.source {
                Source::Archive { url, hash: None, .. } => {
                    Some(Uncertain::Address { name, url: redacted(&url.to_string()) })
                }
                Source::Directory { url, editable: false, .. } => {
                    Some(Uncertain::Directory { name, path: url.path()? })
                }
                _ => None,
            }
        };
        self.requirements.iter().filter_map(uncertain).collect()
    }
}

impl fmt::Display for Uncertain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { name, url } => write!(
                f,
                "{name} was installed from {url}, without a hash: that address may serve another version later"
            ),
            Self::Directory { name, path } => write!(
                f,
                "{name} was built from {}: a rebuild builds whatever that directory contains then",
                printable(path)
            ),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, recorded, kind } = self;
        write!(f, "{name}")?;
        if let Some(recorded) = recorded {
            write!(f, " {recorded}")?;
        }
        match kind {
            Kind::Missing => write!(f, " is missing"),
            Kind::NotRequired => {
                write!(f, " is no longer installed: nothing requires it on this Python")
            }
            Kind::AnotherVersion { installed, step } => {
                write!(f, " became {}", printable(installed))?;
                allowed_by(f, *step)
            }
            Kind::AnotherSource { installed, step, from } => {
                write!(f, " became {}: {} has changed", printable(installed), printable(from))?;
                allowed_by(f, *step)
            }
            Kind::Computed { installed } => write!(
                f,
                " is now called {} (same sources; their build computes the version)",
                printable(installed)
            ),
        }
    }
}

fn allowed_by(f: &mut fmt::Formatter<'_>, step: Option<Relax>) -> fmt::Result {
    match step {
        Some(step) => write!(f, " (`--relax {step}` accepts it)"),
        None => write!(f, " (no later release: `--relax` does not accept it)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::venv::Origin;
    use crate::venv::recipe::tests::{distribution, venv};

    fn url(json: &str) -> Origin {
        Origin::of_direct_url(json.as_bytes())
    }

    fn main_zip() -> Origin {
        url(r#"{"url": "http://u:secret@x.org/main.zip", "archive_info": {}}"#)
    }

    fn hashed() -> Origin {
        url(r#"{"url": "http://x.org/a.zip", "archive_info": {"hashes": {"sha256": "ab"}}}"#)
    }

    fn checkout() -> Origin {
        url(r#"{"url": "https://x.org/a", "vcs_info": {"vcs": "git", "commit_id": "4f2a"}}"#)
    }

    fn directory(editable: bool) -> Origin {
        Origin::Directory { path: "/srv/app".into(), editable }
    }

    /// The differences of a distribution of version `before`, now `after`.
    fn differences(before: (&str, Origin), after: &str, relax: Option<Relax>) -> Differences {
        let recipe = Recipe::of(&venv(), &[distribution("a", before.0, before.1)]).unwrap();
        Differences::of(&recipe, &[distribution("A", after, Origin::Index)], relax)
    }

    fn failure(before: (&str, Origin), after: &str) -> String {
        let found = differences(before, after, None);
        let [only] = &found.failures[..] else { panic!("{found:?}") };
        assert!(found.notes.is_empty(), "{found:?}");
        only.to_string()
    }

    fn note(before: (&str, Origin), after: &str) -> String {
        let found = differences(before, after, None);
        let [only] = &found.notes[..] else { panic!("{found:?}") };
        assert!(found.failures.is_empty(), "{found:?}");
        only.to_string()
    }

    #[test]
    fn a_name_may_be_missing_only_if_another_python_requires_it() {
        let one = |name: &str, version| distribution(name, version, Origin::Index);
        let had = [one("Flask", "3.0"), one("async-timeout", "4.0.3"), one("lost", "1.0")];
        let installed = [one("flask", "2.0"), one("new", "1.0")];
        let elsewhere = BTreeSet::from(["async-timeout".to_string()]);
        let found = Differences::of_names(&had, &installed, &elsewhere);
        let words =
            |found: &[Difference]| found.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(words(&found.failures), ["lost 1.0 is missing"]);
        let note = "async-timeout 4.0.3 is no longer installed: nothing requires it on this Python";
        assert_eq!(words(&found.notes), [note]);
    }

    #[test]
    fn equal_versions_in_different_spellings_do_not_differ() {
        for origin in [Origin::Index, main_zip(), hashed(), checkout(), directory(true)] {
            for (before, after) in [("1.0", "1.0"), ("1.0", "1.0.0"), ("1.0-1", "1.0.post1")] {
                let found = differences((before, origin.clone()), after, None);
                assert_eq!(found, Differences::default(), "{origin:?}");
            }
        }
    }

    #[test]
    fn an_address_that_serves_another_version_is_a_failure() {
        assert_eq!(
            failure(("1.0", main_zip()), "1.1"),
            "a 1.0 became 1.1: http://u:****@x.org/main.zip has changed (`--relax minor` accepts it)"
        );
        assert_eq!(
            failure(("1.0", directory(false)), "0.9"),
            "a 1.0 became 0.9: /srv/app has changed (no later release: `--relax` does not accept it)"
        );
    }

    #[test]
    fn an_index_that_leads_to_another_version_is_a_failure() {
        assert_eq!(
            failure(("1.0", Origin::Index), "1.0.1"),
            "a 1.0 became 1.0.1 (`--relax patch` accepts it)"
        );
        assert!(failure(("1.0+cu118", Origin::Index), "1.0+cpu").contains("became 1.0+cpu"));
        assert!(failure(("1.0", Origin::Index), "x\n\u{1b}").contains("became x\\n\\u{1b}"));
    }

    #[test]
    fn a_missing_distribution_is_a_failure() {
        let before = [
            distribution("a", "1.0", Origin::Index),
            distribution("b", "no version", directory(true)),
            distribution("setuptools", "66", Origin::Index),
            distribution("wheel", "1", Origin::Index),
            distribution("pip", "23", Origin::Index),
        ];
        let recipe = Recipe::of(&venv(), &before).unwrap();
        let found = Differences::of(&recipe, &[], Some(Relax::Major));
        let told: Vec<String> = found.failures.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["a 1.0 is missing", "b is missing"]);
        assert!(found.notes.is_empty(), "{found:?}");
    }

    #[test]
    fn seeds_and_additional_distributions_may_differ() {
        let before = [
            distribution("pip", "23.0", Origin::Index),
            distribution("setuptools", "66.1.1", Origin::Index),
        ];
        let recipe = Recipe::of(&venv(), &before).unwrap();
        let after = [
            distribution("pip", "25.1", Origin::Index),
            distribution("setuptools", "81.0", Origin::Index),
            distribution("backport", "1", Origin::Index),
        ];
        assert_eq!(Differences::of(&recipe, &after, None), Differences::default());
    }

    #[test]
    fn versions_may_move_as_far_as_allowed() {
        let index = |relax| differences(("1.0.0", Origin::Index), "1.1.0", Some(relax));
        assert_eq!(index(Relax::Minor), Differences::default(), "the installer has reported it");
        assert_eq!(index(Relax::Major), Differences::default());
        assert_eq!(index(Relax::Patch).failures.len(), 1);
        let found = differences(("1.0", main_zip()), "1.1", Some(Relax::Minor));
        assert_eq!((found.failures.len(), found.notes.len()), (0, 1), "{found:?}");
        let back = differences(("1.1", main_zip()), "1.0", Some(Relax::Major));
        assert_eq!(back.failures.len(), 1, "an earlier one");
    }

    #[test]
    fn a_version_computed_by_the_build_is_no_failure() {
        for origin in [checkout(), hashed(), directory(true)] {
            let told = note(("1.2", origin), "0.1.dev1+g4f2a");
            assert!(told.starts_with("a 1.2 is now called 0.1.dev1+g4f2a ("), "{told}");
        }
        let dated = ("1.0.dev3+g1.d20250101", directory(false));
        assert!(note(dated, "1.0.dev3+g1.d20261129").contains("is now called"));
    }

    #[test]
    fn distributions_that_may_change_later_are_known_in_advance() {
        let of = |origin| {
            let recipe = Recipe::of(&venv(), &[distribution("a", "1.0", origin)]).unwrap();
            recipe.uncertain().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            of(main_zip()),
            ["a was installed from http://u:****@x.org/main.zip, without a hash: \
              that address may serve another version later"]
        );
        assert_eq!(
            of(directory(false)),
            ["a was built from /srv/app: a rebuild builds whatever that directory contains then"]
        );
        for origin in [Origin::Index, hashed(), checkout(), directory(true)] {
            assert!(of(origin.clone()).is_empty(), "{origin:?}");
        }
    }

    #[test]
    fn an_unrecorded_version_is_not_compared() {
        let found = differences(("no version", main_zip()), "2.0", None);
        assert_eq!(found, Differences::default());
    }
}
