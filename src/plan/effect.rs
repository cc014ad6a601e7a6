//! The effect of the changes of the interpreters on one venv.

use crate::apt::{Change, ChangeKind, changes};
use crate::python::{self, Interpreters, Minor};
use crate::venv::BaseLink;

use super::{Effect, Reason, Subject};

/// An effect, the change that causes it, and the reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assessment {
    pub(crate) effect: Effect,
    pub(crate) change: Option<Change>,
    pub(crate) reasons: Vec<Reason>,
}

impl Assessment {
    fn none() -> Self {
        Self { effect: Effect::None, change: None, reasons: Vec::new() }
    }

    fn unharmed(reason: Reason) -> Self {
        Self { reasons: vec![reason], ..Self::none() }
    }
}

/// Assesses what happens to a venv when the interpreters become `after`. A venv that was broken
/// before is not blamed on the change.
pub(crate) fn assess(subject: &Subject, before: &Interpreters, after: &Interpreters) -> Assessment {
    let venv = &subject.venv;
    if !venv.base.is_debian {
        return Assessment::unharmed(Reason::NotDebian(venv.base.path.as_path().into()));
    }
    match venv.base.link {
        BaseLink::Followed => followed(venv.site, before, after),
        // Once the default has moved, it depends only on its own interpreter.
        BaseLink::Pinned if subject.pin.is_some() && before.default == Some(venv.site) => {
            followed(venv.site, before, after)
        }
        BaseLink::Pinned => match venv.base.minor {
            Some(minor) if minor == venv.site => pinned(minor, before, after),
            _ => broken_before(),
        },
        BaseLink::Copied => copied(subject, before, after),
        // Its base interpreter was removed, now or long ago.
        BaseLink::Dangling if venv.follows() => followed(venv.site, before, after),
        BaseLink::Dangling if venv.base.minor == Some(venv.site) => {
            pinned(venv.site, before, after)
        }
        BaseLink::Dangling => broken_before(),
    }
}

fn broken_before() -> Assessment {
    Assessment::unharmed(Reason::BrokenBefore)
}

fn followed(site: Minor, before: &Interpreters, after: &Interpreters) -> Assessment {
    match (before.default, after.default) {
        (Some(old), Some(new)) if old == site && new == site => pinned(site, before, after),
        (Some(old), _) if old != site => {
            if after.default == Some(site) {
                Assessment::unharmed(Reason::Mended)
            } else {
                broken_before()
            }
        }
        (None, _) => broken_before(),
        (Some(_), new) => {
            let effect = if new.is_some() { Effect::Orphaned } else { Effect::Stranded };
            let change = of_default(before, after);
            let reason = match new {
                Some(to) => Reason::DefaultMoves { to, site },
                None => Reason::DefaultRemoved,
            };
            Assessment { effect, change, reasons: vec![reason] }
        }
    }
}

fn pinned(minor: Minor, before: &Interpreters, after: &Interpreters) -> Assessment {
    if before.get(minor).is_none() {
        return broken_before();
    }
    match of_minor(minor, before, after) {
        None => Assessment::none(),
        Some(change) if change.kind == ChangeKind::Removed => stranded(minor, change),
        Some(change) => Assessment {
            effect: Effect::RestartOnly,
            change: Some(change),
            reasons: vec![Reason::OldInMemory],
        },
    }
}

fn copied(subject: &Subject, before: &Interpreters, after: &Interpreters) -> Assessment {
    let venv = &subject.venv;
    let Some(minor) = venv.base.minor.filter(|minor| *minor == venv.site) else {
        return broken_before();
    };
    if before.get(minor).is_none() {
        return broken_before();
    }
    let Some(change) = of_minor(minor, before, after) else { return Assessment::none() };
    match change.kind {
        ChangeKind::Removed => stranded(minor, change),
        kind => Assessment {
            effect: Effect::Stale,
            change: Some(change),
            reasons: vec![Reason::CopyOutdated { breaks: kind == ChangeKind::Patch }],
        },
    }
}

fn stranded(minor: Minor, change: Change) -> Assessment {
    let reasons = vec![Reason::Removed(minor)];
    Assessment { effect: Effect::Stranded, change: Some(change), reasons }
}

fn of_default(before: &Interpreters, after: &Interpreters) -> Option<Change> {
    changes(before, after)
        .into_iter()
        .find(|change| change.interpreter.as_os_str() == python::DEFAULT)
}

fn of_minor(minor: Minor, before: &Interpreters, after: &Interpreters) -> Option<Change> {
    let path = python::path_of(minor);
    changes(before, after).into_iter().find(|change| change.interpreter == path)
}

#[cfg(test)]
pub(crate) mod samples {
    use super::super::{Decision, Policy, RestartMode};
    use super::*;
    use crate::venv::{BaseInterpreter, Flavour, Venv};

    /// The decision to do nothing about a sample venv.
    pub(crate) fn decision() -> Decision {
        subject(BaseLink::Pinned, Minor::new(3, 11)).undecided()
    }

    /// A venv for `site` that reaches its interpreter by `link`.
    pub(crate) fn subject(link: BaseLink, site: Minor) -> Subject {
        let path =
            if link == BaseLink::Followed { python::DEFAULT.into() } else { python::path_of(site) };
        Subject {
            id: "1".into(),
            name: "shop".into(),
            policy: Policy::Auto,
            restart: RestartMode::Now,
            waits_for: None,
            pin: None,
            venv: Venv {
                path: "/srv/shop/venv".into(),
                flavour: Flavour::Venv,
                base: BaseInterpreter {
                    link,
                    path,
                    minor: Some(site),
                    version: None,
                    copies: Vec::new(),
                    is_debian: true,
                },
                site,
                uid: 1000,
                gid: 1000,
                mode: 0o755,
                system_site_packages: false,
                prompt: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::samples::subject;
    use super::*;
    use crate::apt::samples::system;

    const OLD: Minor = Minor::new(3, 11);
    const NEW: Minor = Minor::new(3, 13);

    /// The effects on a followed, a pinned and a copied venv of 3.11.
    fn effects(before: &[&str], after: &[&str]) -> [Effect; 3] {
        [BaseLink::Followed, BaseLink::Pinned, BaseLink::Copied]
            .map(|link| assess(&subject(link, OLD), &system(before), &system(after)).effect)
    }

    #[test]
    fn each_change_has_its_effect_on_each_kind_of_link() {
        use Effect::{None, Orphaned, RestartOnly, Stale, Stranded};
        assert_eq!(effects(&["3.11.2-6"], &["3.11.2-6"]), [None, None, None]);
        assert_eq!(effects(&["3.11.2-6"], &["3.11.2-7"]), [RestartOnly, RestartOnly, Stale]);
        assert_eq!(effects(&["3.11.2-6"], &["3.11.9-1"]), [RestartOnly, RestartOnly, Stale]);
        assert_eq!(effects(&["3.11.2-6"], &["3.13.5-2", "3.11.2-6"]), [Orphaned, None, None]);
        assert_eq!(
            effects(&["3.11.2-6"], &["3.13.5-2", "3.11.9-1"]),
            [Orphaned, RestartOnly, Stale]
        );
        assert_eq!(effects(&["3.11.2-6"], &["3.13.5-2"]), [Orphaned, Stranded, Stranded]);
        assert_eq!(effects(&["3.11.2-6"], &[]), [Stranded, Stranded, Stranded]);
    }

    #[test]
    fn a_venv_that_was_broken_before_is_not_blamed_on_the_change() {
        let followed = subject(BaseLink::Followed, Minor::new(3, 9));
        let assessment =
            assess(&followed, &system(&["3.11.2-6"]), &system(&["3.13.5-2", "3.11.2-6"]));
        assert_eq!(assessment, broken_before());
        let copied = subject(BaseLink::Copied, Minor::new(3, 9));
        assert_eq!(assess(&copied, &system(&["3.11.2-6"]), &system(&[])), broken_before());
    }

    #[test]
    fn a_venv_that_was_rebuilt_already_is_left_alone() {
        let rebuilt = subject(BaseLink::Followed, NEW);
        let before = system(&["3.11.2-6"]);
        let after = system(&["3.13.5-2", "3.11.2-6"]);
        assert_eq!(assess(&rebuilt, &before, &after).effect, Effect::None);
    }

    #[test]
    fn a_venv_pinned_for_the_transaction_counts_as_followed() {
        let mut held = subject(BaseLink::Pinned, OLD);
        held.pin = Some(crate::plan::Until::Transaction);
        let assessment = assess(&held, &system(&["3.11.2-6"]), &system(&["3.13.5-2", "3.11.2-6"]));
        assert_eq!(assessment.effect, Effect::Orphaned);
        // A removal before the repair ran.
        let moved = system(&["3.13.5-2", "3.11.2-6"]);
        assert_eq!(assess(&held, &moved, &system(&["3.13.5-2"])).effect, Effect::Stranded);
    }

    #[test]
    fn a_dangling_link_shows_which_interpreter_the_venv_used() {
        let dangling = |path: &str| {
            let mut subject = subject(BaseLink::Dangling, OLD);
            subject.venv.base.path = path.into();
            subject
        };
        let pinned = dangling("/usr/bin/python3.11");
        let (both, new) = (system(&["3.13.5-2", "3.11.2-6"]), system(&["3.13.5-2"]));
        assert_eq!(assess(&pinned, &both, &new).effect, Effect::Stranded);
        assert_eq!(assess(&pinned, &new, &new), broken_before());
        let followed = dangling("/usr/bin/python3");
        assert_eq!(
            assess(&followed, &system(&["3.11.2-6"]), &system(&[])).effect,
            Effect::Stranded
        );
    }

    #[test]
    fn a_venv_on_an_interpreter_that_is_not_debians_is_unaffected() {
        let mut foreign = subject(BaseLink::Pinned, OLD);
        foreign.venv.base.is_debian = false;
        assert_eq!(assess(&foreign, &system(&["3.11.2-6"]), &system(&[])).effect, Effect::None);
    }
}
