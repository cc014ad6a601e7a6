//! After a crash: the journal says what was begun, the disk says what was done.

use super::execute::Ledger;
use super::job::{Done, Job};
use super::{Context, stage};
use crate::host::file::printable;
use crate::host::tree;
use crate::plan::Remedy;
use crate::python::Interpreters;
use crate::store::{JournalEntry, Kept, Progress as Step, Registry, Swap};
use crate::venv::{self, Link};

/// Ends or undoes everything the journal holds. Afterwards every path holds a whole venv
/// and the journal is empty, but for what could not be put right: that is reported, stays
/// in the journal, and stands in no other's way. Says whether all is well.
pub(crate) fn recover(context: &Context, registry: &mut Registry, now: &Interpreters) -> bool {
    let mut all_well = true;
    for entry in context.store.open_journal() {
        let result = match entry {
            Ok(journal) => recover_one(context, registry, now, &journal)
                .map_err(|error| format!("{}: {error}", journal.name)),
            Err(error) => Err(error.to_string()),
        };
        all_well &= result.unwrap_or_else(|error| {
            context.report.error(&format!("cannot end an interrupted repair: {error}"));
            false
        });
    }
    all_well
}

/// What is left to do once the trees are where they belong.
enum Left {
    Nothing,
    /// The venv is whole: its services are restarted.
    Restart,
    /// Its interpreters are copied once more.
    Refresh,
    /// The old tree is back, or never was away; services may run out of the other one.
    FallBack,
    /// The successor stands, and has to prove itself.
    Prove(Swap),
    /// The tree that was wanted back stands.
    Restore(Kept, bool),
}

fn recover_one(
    context: &Context,
    registry: &mut Registry,
    now: &Interpreters,
    journal: &JournalEntry,
) -> Result<bool, Box<dyn std::error::Error>> {
    let left = put_in_place(context, journal)?;
    let entry = registry.get(&journal.id).cloned();
    let (Some(entry), false) = (entry, matches!(left, Left::Nothing)) else {
        if let Left::Prove(Swap { kept, .. }) | Left::Restore(kept, _) = left {
            let path = printable(kept.path());
            context.report.note(&format!(
                "{}: it is not registered any more; another tree of it is at {path}",
                journal.name
            ));
        }
        context.store.close_journal(&journal.id)?;
        return Ok(true);
    };
    let venv = venv::inspect(context.root, journal.path())?;
    let kept_followed = match &left {
        Left::Prove(swap) => swap.kept.followed,
        _ => false,
    };
    let job = Job {
        follows: kept_followed || entry.anchored.is_some() || venv.base.link == Link::Followed,
        entry,
        remedy: Remedy::None,
        because: None,
        target: None,
        services: journal.services.clone(),
        venv,
    };
    let (venv, minor) = (&job.venv, job.venv.site);
    let outcome = Ledger::new(context, registry).carry_out(now, &job, |course| match left {
        Left::Nothing => (Done::Nothing, Vec::new()),
        Left::Restart => (course.restart_unchanged(), Vec::new()),
        Left::Refresh => (course.refresh(venv), Vec::new()),
        Left::FallBack => (course.fall_back("it was interrupted".into(), true), Vec::new()),
        Left::Prove(swap) => course.prove(swap, minor, Vec::new()),
        Left::Restore(kept, follows) => course.restore(kept, minor, follows),
    });
    Ok(!matches!(outcome.done, Done::Failed { .. } | Done::Unfinished { .. }))
}

/// Sees to it that a whole tree stands at the venv's path, and nothing unfinished beside it.
fn put_in_place(context: &Context, journal: &JournalEntry) -> std::io::Result<Left> {
    let path = journal.path();
    let told =
        |what: &str| context.report.note(&format!("{}: interrupted repair: {what}", journal.name));
    let standing = tree::identity(path);
    Ok(match &journal.progress {
        Step::Restarting => {
            told("its services are restarted");
            Left::Restart
        }
        Step::Refreshing => {
            told("its interpreters are copied again");
            Left::Refresh
        }
        Step::Staging { aside } => {
            told("the unfinished successor is removed, the venv is untouched");
            stage::discard(&aside.0, None)?;
            Left::Nothing
        }
        Step::Swapping(swap) if standing == Some(swap.new) => {
            told("the successor is in place, its services are restarted");
            Left::Prove(swap.clone())
        }
        Step::Swapping(swap) | Step::InPlace(swap) => {
            stage::put_back(path, swap)?;
            told("the old environment is in place, the successor is removed");
            stage::discard(swap.kept.path(), Some(swap.new))?;
            Left::FallBack
        }
        Step::RollingBack { swap, follows } if standing == Some(swap.new) => {
            told("the tree of before is in place, its services are restarted");
            Left::Restore(swap.kept.clone(), *follows)
        }
        Step::RollingBack { swap, .. } if standing == Some(swap.kept.identity) => {
            // What would have come back is a kept tree, and stays one.
            told("the venv was not rolled back, it is untouched");
            Left::Nothing
        }
        Step::RollingBack { .. } => {
            return Err(std::io::Error::other(format!(
                "at {} stands neither of the two trees that were to change places",
                printable(path)
            )));
        }
    })
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::host::Root;
    use crate::host::tree::{Identity, Parent, identity};
    use crate::plan::Policy;
    use crate::report::Report;
    use crate::store::{Config, PathText, Store};

    /// A registered venv whose services cannot be restarted, another tree beside it, and a
    /// journal that was left open.
    struct Crash {
        _folder: tempfile::TempDir,
        venv: PathBuf,
        aside: PathBuf,
        store: Store,
        root: Root,
        registry: Registry,
    }

    impl Crash {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let base = folder.path().canonicalize().unwrap();
            let (venv, aside) = (base.join("venv"), base.join(".venv.venvguard-x"));
            for (path, name) in [(&venv, "standing"), (&aside, "beside")] {
                std::fs::create_dir_all(path.join("lib/python3.11/site-packages")).unwrap();
                std::fs::create_dir(path.join("bin")).unwrap();
                std::os::unix::fs::symlink("/usr/bin/python3.11", path.join("bin/python")).unwrap();
                std::fs::write(path.join("pyvenv.cfg"), "home = /usr/bin\n").unwrap();
                std::fs::write(path.join(name), "").unwrap();
            }
            let root = Root::new("/");
            let store = Store::new(&Root::new(base.join("system")));
            let mut registry = Registry::default();
            registry.add(&venv, None, Policy::Auto).unwrap();
            Self { _folder: folder, venv, aside, store, root, registry }
        }

        /// Leaves the journal at a step, recovers, and tells whether all went well.
        fn recover(&mut self, step: Step, services: &[&str]) -> bool {
            let services = services.iter().map(|name| name.parse().unwrap()).collect();
            let id = self.registry.venvs[0].id.clone();
            let journal = JournalEntry::new(&id, "shop", &self.venv, step, services);
            self.store.write_journal(&journal).unwrap();
            let (config, report) = (Config::default(), Report::for_command());
            let context =
                Context { root: &self.root, store: &self.store, config: &config, report: &report };
            recover(&context, &mut self.registry, &Interpreters::default())
        }

        fn is_ended(&self) -> bool {
            self.store.open_journal().is_empty()
        }

        fn identities(&self) -> [Identity; 2] {
            [&self.venv, &self.aside].map(|path| identity(path).unwrap())
        }

        fn swap(&self, old: Identity, new: Identity) -> Swap {
            Swap { kept: Kept::new(&self.aside, old, true), new }
        }
    }

    fn exists(path: &Path) -> bool {
        path.symlink_metadata().is_ok()
    }

    #[test]
    fn an_unfinished_successor_is_removed_and_the_venv_is_untouched() {
        for swapping in [false, true] {
            let mut crash = Crash::new();
            let [venv, other] = crash.identities();
            let step = if swapping {
                Step::Swapping(crash.swap(venv, other))
            } else {
                Step::Staging { aside: PathText(crash.aside.clone()) }
            };
            crash.recover(step, &[]);
            assert!(crash.is_ended());
            assert_eq!(identity(&crash.venv), Some(venv));
            assert!(!exists(&crash.aside));
        }
    }

    #[test]
    fn a_successor_that_took_the_place_keeps_it_and_the_old_tree_is_known() {
        let mut crash = Crash::new();
        let [new, old] = crash.identities();
        assert!(crash.recover(Step::Swapping(crash.swap(old, new)), &[]));
        assert!(crash.is_ended());
        assert_eq!(crash.identities(), [new, old]);
        let known = crash.store.registry().unwrap().venvs[0].kept.clone().unwrap();
        assert_eq!((known.path(), known.identity), (crash.aside.as_path(), old));
    }

    #[test]
    fn a_successor_whose_services_do_not_come_up_makes_room_for_the_old_tree() {
        let mut crash = Crash::new();
        let [new, old] = crash.identities();
        let step = Step::Swapping(crash.swap(old, new));
        assert!(!crash.recover(step, &["systemd:no-such-unit-of-venvguard.service"]));
        assert!(crash.is_ended());
        assert_eq!(identity(&crash.venv), Some(old));
        assert!(!exists(&crash.aside));
        assert_eq!(crash.registry.venvs[0].kept, None);
        let events = crash.store.history().unwrap();
        assert_eq!(events.last().unwrap().what, "failed", "it is told, and not only once");
    }

    #[test]
    fn a_tree_built_in_place_makes_room_for_the_old_one() {
        let mut crash = Crash::new();
        let [new, old] = crash.identities();
        crash.recover(Step::InPlace(crash.swap(old, new)), &[]);
        assert!(crash.is_ended());
        assert_eq!(identity(&crash.venv), Some(old));
        assert!(!exists(&crash.aside));
    }

    #[test]
    fn a_rollback_that_did_not_begin_loses_no_kept_tree() {
        let mut crash = Crash::new();
        let [current, kept] = crash.identities();
        let swap = crash.swap(current, kept);
        assert!(crash.recover(Step::RollingBack { swap, follows: true }, &[]));
        assert!(crash.is_ended());
        assert_eq!(crash.identities(), [current, kept]);
    }

    #[test]
    fn a_rollback_that_was_done_is_known_and_stays_pinned() {
        let mut crash = Crash::new();
        let [current, kept] = crash.identities();
        let swap = crash.swap(current, kept);
        Parent::of(&crash.venv).unwrap().exchange(&crash.aside, &crash.venv).unwrap();
        assert!(crash.recover(Step::RollingBack { swap, follows: true }, &[]));
        assert!(crash.is_ended());
        let entry = &crash.store.registry().unwrap().venvs[0];
        assert_eq!(entry.kept.as_ref().map(|kept| kept.identity), Some(current));
        assert!(entry.anchored.is_some(), "it belongs on the default interpreter");
    }

    #[test]
    fn what_cannot_be_written_down_stays_in_the_journal() {
        let mut crash = Crash::new();
        let [new, old] = crash.identities();
        std::fs::create_dir_all(crash.store.folder().join("registry.json")).unwrap();
        assert!(!crash.recover(Step::Swapping(crash.swap(old, new)), &[]));
        assert!(!crash.is_ended());
        assert_eq!(crash.identities(), [new, old], "it is whole, and nothing is lost");
    }

    #[test]
    fn a_venv_with_an_open_journal_is_not_repaired() {
        let mut crash = Crash::new();
        let before = crash.identities();
        let step = Step::Swapping(crash.swap((0, 0), (0, 1)));
        assert!(!crash.recover(step, &[]));
        let entry = crash.registry.venvs[0].clone();
        let job = Job {
            venv: venv::inspect(&crash.root, &crash.venv).unwrap(),
            remedy: Remedy::Rebuild,
            because: None,
            follows: false,
            target: None,
            services: Vec::new(),
            entry,
        };
        let (config, report) = (Config::default(), Report::for_command());
        let (root, store) = (&crash.root, &crash.store);
        let context = Context { root, store, config: &config, report: &report };
        let now = Interpreters::default();
        let outcomes = crate::repair::execute(&context, &mut crash.registry, &now, vec![job], 1);
        assert!(matches!(outcomes[0].done, Done::Unfinished { .. }), "{outcomes:?}");
        assert!(!crash.is_ended());
        assert_eq!(crash.identities(), before);
    }

    #[test]
    fn a_venv_whose_old_tree_is_nowhere_is_reported_and_stays_in_the_journal() {
        let mut crash = Crash::new();
        let identities = crash.identities();
        for step in
            [Step::InPlace(crash.swap((0, 0), (0, 1))), Step::Swapping(crash.swap((0, 0), (0, 1)))]
        {
            assert!(!crash.recover(step, &[]));
            assert!(!crash.is_ended());
            assert_eq!(crash.identities(), identities);
        }
    }
}
