//! After a crash: the journal says what was begun, the disk says what was done.

use std::path::Path;

use super::execute::{Recorder, sweep};
use super::halt::Halt;
use super::job::{Done, Job};
use super::one::{Repair, RepairResult};
use super::target::owner;
use super::trees::{Left, Pair, put_back};
use super::{Context, stage};
use crate::host::file::printable;
use crate::host::tree::{self, Parent};
use crate::plan::Remedy;
use crate::python::Interpreters;
use crate::store::{JournalEntry, JournalState, PendingRemoval, PreviousTree, Registry, Swap};
use crate::venv;

/// Ends or undoes everything the journal holds. Afterwards every path holds a whole venv
/// and the journal is empty, but for what could not be put right: that is reported, stays
/// in the journal, and stands in no other's way. Says whether all is well.
pub(crate) fn recover(context: &Context, registry: &mut Registry, now: &Interpreters) -> bool {
    let mut all_well = true;
    let open = context.store.open_journal();
    let was_interrupted = !open.is_empty();
    for entry in open {
        let result = match entry {
            Ok(journal) => recover_one(context, registry, now, &journal)
                .map_err(|error| format!("{}: {error}", journal.name)),
            Err(error) => Err(match context.store.advice(&error) {
                Some(advice) => format!("{error}\nhint: {advice}"),
                None => error.to_string(),
            }),
        };
        all_well &= result.unwrap_or_else(|error| {
            context.report.error(&format!("cannot end an interrupted repair: {error}"));
            false
        });
    }
    if was_interrupted {
        // The run that was interrupted had no time to remove what it no longer needed.
        sweep(context, registry);
    }
    all_well
}

/// What is left to do once the trees are where they belong.
enum NextStep {
    Nothing,
    /// The venv is as it was before; its services may be down.
    Start,
    /// The venv is whole: its services are restarted.
    Restart,
    /// Its interpreters are copied once more.
    Refresh,
    /// The old tree is in place; what was built is to be removed.
    RestorePrevious(PendingRemoval),
    /// The same, where the other tree was in place for a while: what it alone has is kept.
    Return {
        swap: Swap,
        partial: bool,
        notes: Vec<String>,
    },
    /// The successor is in place, and has to prove itself.
    Prove(Swap),
    /// The tree that was wanted back is in place, and follows or does not.
    Restore(Swap, bool),
    /// Somebody put a tree of their own there. This one was the venv's.
    LeaveForeignTree(PreviousTree),
}

/// What came of one entry of the journal.
enum Recovered {
    /// All was done that was left to do; it went well, or not.
    Repaired(bool),
    /// There was nothing to be repaired, and all is well, or not.
    LeftAlone(bool),
}

fn recover_one(
    context: &Context,
    registry: &mut Registry,
    now: &Interpreters,
    journal: &JournalEntry,
) -> Result<bool, Box<dyn std::error::Error>> {
    let recovered = recover_venv(context, registry, now, journal);
    if let Ok(Recovered::Repaired(is_well)) = recovered {
        return Ok(is_well);
    }
    // Whatever becomes of the venv, what was stopped for its repair is started.
    for note in Halt::of(journal).start_what_is_left(context.root) {
        context.report.note(&format!("{}: {note}", journal.name));
    }
    recovered.map(|recovered| matches!(recovered, Recovered::LeftAlone(true)))
}

fn recover_venv(
    context: &Context,
    registry: &mut Registry,
    now: &Interpreters,
    journal: &JournalEntry,
) -> Result<Recovered, Box<dyn std::error::Error>> {
    // What could not be written down afterwards is not begun: the services would be
    // restarted by each attempt.
    context.store.write_journal(journal)?;
    let next = put_in_place(context, journal)?;
    let Some(entry) = registry.get_mut(&journal.id) else {
        context.report.note(&format!(
            "{}: it is not registered any more; what is left of its repair lies beside {}",
            journal.name,
            printable(journal.path())
        ));
        context.store.close_journal(&journal.id)?;
        return Ok(Recovered::LeftAlone(true));
    };
    if let NextStep::LeaveForeignTree(kept) = next {
        if tree::identity(kept.path()) == Some(kept.identity) {
            let path = printable(kept.path());
            context
                .report
                .note(&format!("{}: the previous environment is kept at {path}", journal.name));
            entry.previous_trees.put_aside(kept);
            context.store.save_registry(registry)?;
        }
        context.store.close_journal(&journal.id)?;
        return Ok(Recovered::LeftAlone(false));
    }
    if matches!(next, NextStep::Nothing) {
        context.store.close_journal(&journal.id)?;
        return Ok(Recovered::LeftAlone(true));
    }
    let venv = match venv::inspect(context.root, journal.path()) {
        // There is nothing to be done for what is no venv any more.
        Err(error) if matches!(next, NextStep::Start | NextStep::Restart | NextStep::Refresh) => {
            context.report.note(&format!("{}: {error}", journal.name));
            context.store.close_journal(&journal.id)?;
            return Ok(Recovered::LeftAlone(false));
        }
        other => other?,
    };
    let followed = match &next {
        NextStep::Prove(swap) => swap.previous.followed,
        NextStep::Restore(_, follows) => *follows,
        _ => false,
    };
    let mut job = Job::new(entry, &venv, Remedy::None);
    job.follows |= followed;
    job.services.clone_from(&journal.services);
    job.were_up.clone_from(&journal.services);
    let halt = Halt::of(journal);
    let recorder = Recorder::new(context, registry);
    let outcome = recorder.run_and_record(now, &job, halt, |repair| repair.go_on(next));
    let is_well = !matches!(outcome.done, Done::Failed { .. } | Done::Unfinished { .. });
    Ok(Recovered::Repaired(is_well))
}

impl Repair<'_, '_> {
    /// Does what is left to do, once the trees are where they belong.
    fn go_on(&self, next: NextStep) -> RepairResult {
        match next {
            NextStep::Nothing | NextStep::LeaveForeignTree(_) => Done::Nothing.into(),
            NextStep::Start => match self.restart_down() {
                Ok(restarted) => RepairResult { notes: restarted.notes, ..Done::Nothing.into() },
                Err(because) => Done::unchanged(because).into(),
            },
            NextStep::Restart => self.restart_unchanged(),
            NextStep::Refresh => self.refresh(&self.job.venv),
            NextStep::RestorePrevious(pending_removal) => {
                RepairResult { pending_removal: Some(pending_removal), ..self.after_crash(false) }
            }
            NextStep::Return { swap, partial, notes } => {
                let venv = &self.job.venv;
                let owner = owner(self.context, venv);
                let pair = Pair::new(venv, &owner, swap.previous.path(), swap.minor);
                let (left, note) = pair.left_aside(self.context.root, partial);
                let (pending_removal, aside) = left.of(&swap, self.job.follows);
                let result = self.after_crash(true);
                let notes = notes.into_iter().chain(note).chain(result.notes.clone()).collect();
                RepairResult { notes, pending_removal, aside, ..result }
            }
            NextStep::Prove(mut swap) => {
                let notes = self.note_late_writes(&mut swap).into_iter().collect();
                self.prove(swap, notes)
            }
            NextStep::Restore(swap, _) => self.restore(swap.previous, swap.minor),
        }
    }
}

/// Puts a whole tree at the venv's path.
fn put_in_place(context: &Context, journal: &JournalEntry) -> std::io::Result<NextStep> {
    let path = journal.path();
    let told =
        |what: &str| context.report.note(&format!("{}: interrupted repair: {what}", journal.name));
    let parent = Parent::of(path)?;
    let standing = parent.identity(stage::name_of(path));
    Ok(match &journal.progress {
        JournalState::Restarting => {
            told("restarting its services");
            NextStep::Restart
        }
        JournalState::Refreshing => {
            told("copying its interpreters again");
            NextStep::Refresh
        }
        JournalState::Staging { aside, new: Some(new) } => {
            told("removing the unfinished new environment");
            NextStep::RestorePrevious(PendingRemoval::new(&aside.0, *new))
        }
        JournalState::Staging { aside, new: None } => {
            told("it had not begun");
            parent.remove_if_empty(&stage::from_beside(path, &aside.0))?;
            NextStep::Nothing
        }
        JournalState::Swapping(swap) if standing == Some(swap.new) => {
            told("the new environment is in place, restarting its services");
            NextStep::Prove(swap.clone())
        }
        JournalState::RollingBack { swap, follows } if standing == Some(swap.new) => {
            told("the previous environment is in place, restarting its services");
            NextStep::Restore(swap.clone(), *follows)
        }
        JournalState::RollingBack { swap, .. } if standing == Some(swap.previous.identity) => {
            // What would have come back is kept, and stays so.
            told("the venv was not rolled back");
            NextStep::Start
        }
        JournalState::Swapping(swap)
        | JournalState::InPlace(swap)
        | JournalState::RollingBack { swap, .. }
            if standing.is_some_and(|one| one != swap.new && one != swap.previous.identity) =>
        {
            told("another directory has been placed there since; leaving it alone");
            NextStep::LeaveForeignTree(swap.previous.clone())
        }
        JournalState::InPlace(swap) if standing == Some(swap.new) => {
            told("putting the previous environment back, removing the unfinished new one");
            bring_back(context, path, swap)?
        }
        JournalState::Swapping(swap) | JournalState::InPlace(swap) => {
            put_back(path, swap)?;
            told("the previous environment is in place, removing the new one");
            let partial = matches!(journal.progress, JournalState::InPlace(_));
            NextStep::Return { swap: swap.clone(), partial, notes: Vec::new() }
        }
        JournalState::RollingBack { .. } => {
            return Err(std::io::Error::other(format!("there is nothing at {}", printable(path))));
        }
    })
}

/// A half-built tree is in place: what was written into it meanwhile goes with the venv.
fn bring_back(context: &Context, path: &Path, swap: &Swap) -> std::io::Result<NextStep> {
    let Ok(old) = venv::inspect(context.root, swap.previous.path()) else {
        put_back(path, swap)?;
        return Ok(NextStep::Return { swap: swap.clone(), partial: true, notes: Vec::new() });
    };
    let owner = owner(context, &old);
    let pair = Pair::new(&old, &owner, swap.previous.path(), old.site);
    let pair = Pair { venv: path, in_place: swap.minor, ..pair };
    let (left, notes) = pair.bring_back(context, swap, true)?;
    Ok(match left {
        Left::Nothing if notes.is_empty() => {
            NextStep::RestorePrevious(PendingRemoval::new(swap.previous.path(), swap.new))
        }
        _ => NextStep::Return { swap: swap.clone(), partial: true, notes },
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::host::Root;
    use crate::host::tree::{Identity, Parent, identity};
    use crate::plan::Policy;
    use crate::python::Minor;
    use crate::report::Report;
    use crate::store::{Config, PathText, Store};

    /// A registered venv whose services cannot be restarted, another tree beside it, and a
    /// journal that was left open.
    struct Crash {
        _dir: tempfile::TempDir,
        venv: PathBuf,
        aside: PathBuf,
        store: Store,
        root: Root,
        registry: Registry,
    }

    impl Crash {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let base = dir.path().canonicalize().unwrap();
            let (venv, aside) = (base.join("venv"), base.join(".venv.venvguard-x"));
            for (path, name) in [(&venv, "standing"), (&aside, "beside")] {
                std::fs::create_dir_all(path.join("lib/python3.11/site-packages")).unwrap();
                std::fs::create_dir(path.join("bin")).unwrap();
                std::os::unix::fs::symlink("/usr/bin/python3.11", path.join("bin/python")).unwrap();
                std::fs::write(path.join("pyvenv.cfg"), "home = /usr/bin\n").unwrap();
                let file = std::fs::File::create(path.join(name)).unwrap();
                file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
            }
            let root = Root::new("/");
            let store = Store::new(&Root::new(base.join("system")));
            let mut registry = Registry::default();
            registry.add(&venv, None, Policy::Auto).unwrap();
            Self { _dir: dir, venv, aside, store, root, registry }
        }

        /// Leaves the journal at a step, recovers, and tells whether all went well.
        fn recover(&mut self, step: JournalState, services: &[&str]) -> bool {
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

        /// Which trees are known as kept, when the registry is read again.
        fn known(&self) -> Vec<(PathBuf, Identity)> {
            let registry = self.store.registry().unwrap();
            let kept = registry.venvs[0].previous_trees.latest_first();
            kept.map(|one| (one.path().to_path_buf(), one.identity)).collect()
        }

        fn swap(&self, old: Identity, new: Identity) -> Swap {
            Swap {
                previous: PreviousTree::new(&self.aside, old, true),
                new,
                minor: Minor::new(3, 11),
            }
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
            // What is in the other tree was carried there before.
            let carried = serde_json::json!({
                "schema_version": 1, "other": other, "since": 9_000_000_000_000_000_000_i64,
                "user": [], "modified": [], "beside": [],
            });
            std::fs::write(crash.venv.join(venv::CARRIED), carried.to_string()).unwrap();
            let step = if swapping {
                JournalState::Swapping(crash.swap(venv, other))
            } else {
                JournalState::Staging { aside: PathText(crash.aside.clone()), new: Some(other) }
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
        assert!(crash.recover(JournalState::Swapping(crash.swap(old, new)), &[]));
        assert!(crash.is_ended());
        assert_eq!(crash.identities(), [new, old]);
        let known = crash.known();
        assert_eq!(known, [(crash.aside.clone(), old)]);
    }

    #[test]
    fn a_successor_whose_services_do_not_come_up_makes_room_for_the_old_tree() {
        let mut crash = Crash::new();
        let [new, old] = crash.identities();
        let step = JournalState::Swapping(crash.swap(old, new));
        assert!(!crash.recover(step, &["systemd:no-such-unit-of-venvguard.service"]));
        assert!(crash.is_ended());
        assert_eq!(identity(&crash.venv), Some(old));
        assert!(!exists(&crash.aside));
        assert!(crash.registry.venvs[0].previous_trees.is_empty());
        let events = crash.store.history().unwrap().events;
        assert_eq!(events.last().unwrap().what, "failed", "it is told, and not only once");
    }

    #[test]
    fn what_was_written_into_a_successor_that_does_not_hold_is_not_lost_with_it() {
        let mut crash = Crash::new();
        let [new, old] = crash.identities();
        std::fs::write(crash.venv.join("uploaded"), "").unwrap();
        let step = JournalState::Swapping(crash.swap(old, new));
        assert!(!crash.recover(step, &["systemd:no-such-unit-of-venvguard.service"]));
        assert_eq!(identity(&crash.venv), Some(old));
        assert!(crash.venv.join("uploaded").exists(), "it comes back with the old tree");
        assert!(!exists(&crash.aside) && crash.known().is_empty());
    }

    #[test]
    fn what_was_written_into_a_successor_is_kept_if_the_way_back_is_interrupted() {
        let mut crash = Crash::new();
        let [old, new] = crash.identities();
        std::fs::write(crash.aside.join("uploaded"), "").unwrap();
        crash.recover(JournalState::Swapping(crash.swap(old, new)), &[]);
        assert_eq!(identity(&crash.venv), Some(old));
        assert_eq!(crash.known(), [(crash.aside.clone(), new)]);
        assert!(crash.aside.join("uploaded").exists());
        let kept = crash.registry.venvs[0].previous_trees.latest_first().next().unwrap();
        assert!(kept.holds_files, "only somebody who names it removes it");
    }

    #[test]
    fn what_was_written_while_a_tree_was_built_in_place_comes_back() {
        let mut crash = Crash::new();
        let [new, old] = crash.identities();
        std::fs::create_dir(crash.venv.join("var")).unwrap();
        std::fs::write(crash.venv.join("var/order"), "").unwrap();
        crash.recover(JournalState::InPlace(crash.swap(old, new)), &[]);
        assert_eq!(identity(&crash.venv), Some(old));
        assert!(crash.venv.join("var/order").exists());
    }

    #[test]
    fn a_tree_built_in_place_makes_room_for_the_old_one() {
        let mut crash = Crash::new();
        let [new, old] = crash.identities();
        crash.recover(JournalState::InPlace(crash.swap(old, new)), &[]);
        assert!(crash.is_ended());
        assert_eq!(identity(&crash.venv), Some(old));
        assert!(!exists(&crash.aside));
    }

    #[test]
    fn a_rollback_that_did_not_begin_loses_no_kept_tree() {
        let mut crash = Crash::new();
        let [current, kept] = crash.identities();
        let swap = crash.swap(current, kept);
        assert!(crash.recover(JournalState::RollingBack { swap, follows: true }, &[]));
        assert!(crash.is_ended());
        assert_eq!(crash.identities(), [current, kept]);
    }

    #[test]
    fn a_rollback_that_was_done_is_known_and_stays_pinned() {
        let mut crash = Crash::new();
        let [current, kept] = crash.identities();
        let swap = crash.swap(current, kept);
        Parent::of(&crash.venv).unwrap().exchange(&crash.aside, &crash.venv).unwrap();
        assert!(crash.recover(JournalState::RollingBack { swap, follows: true }, &[]));
        assert!(crash.is_ended());
        let entry = &crash.store.registry().unwrap().venvs[0];
        assert_eq!(crash.known(), [(crash.aside.clone(), current)]);
        assert!(entry.pin.is_some(), "it belongs on the default interpreter");
    }

    #[test]
    fn what_cannot_be_written_down_stays_in_the_journal() {
        let mut crash = Crash::new();
        let [new, old] = crash.identities();
        std::fs::create_dir_all(crash.store.dir().join("registry.json")).unwrap();
        assert!(!crash.recover(JournalState::Swapping(crash.swap(old, new)), &[]));
        assert!(!crash.is_ended());
        assert_eq!(crash.identities(), [new, old], "it is whole, and nothing is lost");
    }

    #[test]
    fn a_venv_with_an_open_journal_is_not_repaired() {
        let mut crash = Crash::new();
        let before = crash.identities();
        let entry = crash.registry.venvs[0].clone();
        let step = JournalState::Restarting;
        let journal = JournalEntry::new(&entry.id, "shop", &crash.venv, step, Vec::new());
        crash.store.write_journal(&journal).unwrap();
        let venv = venv::inspect(&crash.root, &crash.venv).unwrap();
        let job = Job::new(&entry, &venv, Remedy::Rebuild);
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
    fn a_venv_whose_trees_are_nowhere_is_reported_and_stays_in_the_journal() {
        let mut crash = Crash::new();
        let [new, old] = crash.identities();
        for path in [&crash.venv, &crash.aside] {
            std::fs::remove_dir_all(path).unwrap();
        }
        for step in [
            JournalState::InPlace(crash.swap(old, new)),
            JournalState::Swapping(crash.swap(old, new)),
        ] {
            assert!(!crash.recover(step, &[]));
            assert!(!crash.is_ended());
        }
    }

    #[test]
    fn a_tree_that_somebody_put_there_stays_and_the_old_one_is_known() {
        for in_place in [false, true] {
            let mut crash = Crash::new();
            let [_, old] = crash.identities();
            let swap = crash.swap(old, (0, 1));
            let step =
                if in_place { JournalState::InPlace(swap) } else { JournalState::Swapping(swap) };
            let before = crash.identities();
            assert!(!crash.recover(step, &[]));
            assert!(crash.is_ended());
            assert_eq!(crash.identities(), before);
            assert_eq!(crash.known(), [(crash.aside.clone(), old)]);
        }
    }

    #[test]
    fn a_directory_that_was_only_named_is_not_taken_for_ours() {
        let mut crash = Crash::new();
        let before = crash.identities();
        let step = JournalState::Staging { aside: PathText(crash.aside.clone()), new: None };
        assert!(crash.recover(step, &[]));
        assert!(crash.is_ended());
        assert_eq!(crash.identities(), before);
    }
}
