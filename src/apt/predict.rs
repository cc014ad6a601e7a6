//! Predicts the interpreters after a transaction.

use crate::python::{Interpreter, Interpreters, Minor, Package, Version};

use super::Action;

/// Applies the actions to the current interpreters. Debian's `python3.N-minimal` contains
/// `/usr/bin/python3.N`, and `python3-minimal` of version N contains the link to it.
pub(crate) fn predict(now: &Interpreters, actions: &[Action]) -> Interpreters {
    let mut after = now.clone();
    for action in actions {
        let to = action.to.as_deref();
        if action.package == "python3-minimal" {
            match to.map(Version::of_package) {
                None => after.default = None,
                Some(Ok(version)) => after.default = Some(version.minor()),
                // A vendor's version that is not a Python version says nothing about the link:
                // it must not be taken for a removal.
                Some(Err(_)) => {}
            }
        } else if let Some(minor) =
            action.package.strip_suffix("-minimal").and_then(Minor::of_program)
        {
            match to.map(|version| (version, Version::of_package(version))) {
                None => {
                    after.installed.remove(&minor);
                }
                Some((debian, _)) if is_installed(&after, minor, debian) => {
                    if let Some(same) = after.installed.get_mut(&minor) {
                        // The same build in another file: what runs it keeps the old one.
                        same.identity = same.identity.filter(|_| !action.unpacks);
                    }
                }
                Some((debian, Ok(version))) => {
                    let package =
                        Package { name: action.package.clone(), version: debian.to_string() };
                    let interpreter =
                        Interpreter { version, package, build_id: None, identity: None };
                    after.installed.insert(minor, interpreter);
                }
                // Not a Python version: the result is seen afterwards.
                Some((_, Err(_))) => {}
            }
        }
    }
    after
}

/// The version of Debian's wheel of pip that the actions install.
pub(crate) fn pip_wheel(actions: &[Action]) -> Option<&str> {
    actions.iter().rev().find(|action| action.package == "python3-pip-whl")?.to.as_deref()
}

/// Whether a version is already installed: then a reinstallation or a configuration brings the
/// same build. dpkg wrote both versions in the same spelling, so comparing text is enough.
fn is_installed(interpreters: &Interpreters, minor: Minor, version: &str) -> bool {
    interpreters.get(minor).is_some_and(|interpreter| interpreter.package.version == version)
}

#[cfg(test)]
mod tests {
    use super::super::change::samples::system;
    use super::super::{ChangeKind, changes};
    use super::*;
    use crate::host::FileIdentity;

    fn action(package: &str, from: Option<&str>, to: Option<&str>) -> Action {
        let unpacks = to.is_some();
        let [from, to] = [from, to].map(|version| version.map(Into::into));
        Action { package: package.into(), from, to, unpacks }
    }

    #[test]
    fn a_minor_upgrade_moves_the_default_and_keeps_the_old_interpreter() {
        let after = predict(
            &system(&["3.11.2-6"]),
            &[
                action("python3.13-minimal", None, Some("3.13.5-2")),
                action("python3-minimal", Some("3.11.2-1+b1"), Some("3.13.5-1")),
            ],
        );
        assert_eq!(after.default, Some(Minor::new(3, 13)));
        assert_eq!(after.get(Minor::new(3, 11)), system(&["3.11.2-6"]).get(Minor::new(3, 11)));
        assert_eq!(after.get(Minor::new(3, 13)).unwrap().version, Version::new(3, 13, 5));
    }

    #[test]
    fn a_reinstallation_is_a_revision_and_a_configuration_changes_nothing() {
        let mut now = system(&["3.13.5-2"]);
        let file = FileIdentity { device: 1, inode: 1, size: 1, changed: 1 };
        now.installed.get_mut(&Minor::new(3, 13)).unwrap().identity = Some(file);
        let again = action("python3.13-minimal", Some("3.13.5-2"), Some("3.13.5-2"));
        let found = changes(&now, &predict(&now, std::slice::from_ref(&again)));
        assert_eq!(found.iter().map(|one| one.kind).collect::<Vec<_>>(), [ChangeKind::Revision]);
        assert_eq!(predict(&now, &[Action { unpacks: false, ..again }]), now);
    }

    #[test]
    fn a_version_that_differs_in_any_part_is_another_build() {
        let now = system(&["3.11.2-6+deb12u8"]);
        for version in ["3.11.2-6", "3.11.2-6+deb12u10", "1:3.11.2-6+deb12u8", "3.11.2~rc1-6"] {
            let upgrade = action("python3.11-minimal", Some("3.11.2-6+deb12u8"), Some(version));
            let after = predict(&now, &[upgrade]);
            assert_eq!(after.get(Minor::new(3, 11)).unwrap().package.version, version);
        }
    }

    #[test]
    fn a_removal_removes_the_interpreter() {
        let after = predict(
            &system(&["3.13.5-2", "3.11.2-6"]),
            &[action("python3.11-minimal", Some("3.11.2-6"), None)],
        );
        assert_eq!(after, system(&["3.13.5-2"]));
    }

    #[test]
    fn a_default_of_unreadable_version_is_kept() {
        use crate::plan::{Phase, samples::subject, upgrade};
        use crate::venv::BaseLink;
        let now = system(&["3.11.2-6"]);
        for version in ["3.11.2.1-1", "3.11.2.pve1-1", "2026.1-1", "3-1"] {
            let after =
                predict(&now, &[action("python3-minimal", Some("3.11.2-1+b1"), Some(version))]);
            let subject = subject(BaseLink::Followed, Minor::new(3, 11));
            let facts = std::collections::BTreeMap::new();
            let plan = upgrade(&[subject], &facts, &now, &after, Phase::BeforeDpkg);
            let decision = &plan.decisions[0];
            assert!(!decision.blocks, "{version}: apt is blocked: {:?}", decision.reasons);
        }
        let after = predict(&now, &[action("python3-minimal", Some("3.11.2-1"), None)]);
        assert_eq!(after.default, None, "a removal is still a removal");
    }

    #[test]
    fn an_interpreter_of_unreadable_version_is_kept() {
        let now = system(&["3.11.2-6"]);
        let upgrade = action("python3.11-minimal", Some("3.11.2-6"), Some("3.11.2.pve1-1"));
        assert_eq!(predict(&now, &[upgrade]), now);
    }
}
