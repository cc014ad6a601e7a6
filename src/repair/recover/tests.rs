use std::path::{Path, PathBuf};

use super::*;
use crate::host::Root;
use crate::host::tree::{Identity, Parent, identity};
use crate::plan::{Policy, Reason, Remedy, Target, samples};
use crate::python::Minor;
use crate::report::Report;
use crate::store::{Config, PathText, PreviousTree, Store, Swap};

/// A registered venv whose services cannot be restarted, another tree beside it, and a
/// journal that was left open.
struct Crash {
    _dir: tempfile::TempDir,
    venv: PathBuf,
    aside: PathBuf,
    store: Store,
    root: Root,
    registry: Registry,
    reasons: Vec<Reason>,
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
        Self { _dir: dir, venv, aside, store, root, registry, reasons: Vec::new() }
    }

    /// Leaves the journal at a step, recovers, and returns whether all went well.
    fn recover(&mut self, step: JournalState, services: &[&str]) -> bool {
        let services = services.iter().map(|name| name.parse().unwrap()).collect();
        let decision = Decision { services, ..self.decision() };
        let journal = JournalEntry::new(&decision, step, &[]);
        self.store.write_journal(&journal).unwrap();
        let (config, report) = (Config::default(), Report::for_command());
        let context =
            Context { root: &self.root, store: &self.store, config: &config, report: &report };
        recover(&context, &mut self.registry, &Interpreters::default())
    }

    fn decision(&self) -> Decision {
        let id = self.registry.venvs[0].id.clone();
        let path = self.venv.as_path().into();
        let reasons = self.reasons.clone();
        Decision { id, path, follows: true, reasons, ..samples::decision() }
    }

    fn is_ended(&self) -> bool {
        self.store.open_journal().is_empty()
    }

    fn identities(&self) -> [Identity; 2] {
        [&self.venv, &self.aside].map(|path| identity(path).unwrap())
    }

    /// The previous environments in the registry, read again from the disk.
    fn known(&self) -> Vec<(PathBuf, Identity)> {
        let registry = self.store.registry().unwrap();
        let kept = registry.venvs[0].previous_trees.latest_first();
        kept.map(|one| (one.path().to_path_buf(), one.identity)).collect()
    }

    fn swap(&self, old: Identity, new: Identity) -> Swap {
        Swap { previous: PreviousTree::new(&self.aside, old, true), new, minor: Minor::new(3, 11) }
    }
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[test]
fn an_unfinished_new_tree_is_removed_and_the_venv_is_untouched() {
    for swapping in [false, true] {
        let mut crash = Crash::new();
        let [venv, other] = crash.identities();
        // An earlier pass carried the contents of the other tree there.
        let carried = serde_json::json!({
            "schema_version": 1, "other": other, "since": 9_000_000_000_000_000_000_i64,
            "user": [], "modified": [], "beside": [],
        });
        std::fs::write(crash.venv.join(venv::CARRIED), carried.to_string()).unwrap();
        let step = if swapping {
            JournalState::Swapping(crash.swap(venv, other))
        } else {
            let aside = PathText(crash.aside.clone());
            JournalState::Preparing { aside, new: Some(other), to_rest: false }
        };
        crash.recover(step, &[]);
        assert!(crash.is_ended());
        assert_eq!(identity(&crash.venv), Some(venv));
        assert!(!exists(&crash.aside));
    }
}

#[test]
fn a_killed_preparation_leaves_the_venv_alone() {
    let mut crash = Crash::new();
    let [venv, other] = crash.identities();
    let aside = PathText(crash.aside.clone());
    let step = JournalState::Preparing { aside, new: Some(other), to_rest: true };
    assert!(crash.recover(step, &["systemd:no-such-unit-of-venvguard.service"]));
    assert!(crash.is_ended());
    assert_eq!(identity(&crash.venv), Some(venv));
    assert!(!exists(&crash.aside));
    assert_eq!(crash.store.history().unwrap().events, [], "nothing was repaired");
}

#[test]
fn a_new_tree_in_place_stays_and_the_old_tree_is_recorded() {
    let mut crash = Crash::new();
    let [new, old] = crash.identities();
    assert!(crash.recover(JournalState::Swapping(crash.swap(old, new)), &[]));
    assert!(crash.is_ended());
    assert_eq!(crash.identities(), [new, old]);
    let known = crash.known();
    assert_eq!(known, [(crash.aside.clone(), old)]);
}

#[test]
fn a_new_tree_whose_services_do_not_come_up_is_swapped_back() {
    let mut crash = Crash::new();
    let [new, old] = crash.identities();
    let step = JournalState::Swapping(crash.swap(old, new));
    assert!(!crash.recover(step, &["systemd:no-such-unit-of-venvguard.service"]));
    assert!(crash.is_ended());
    assert_eq!(identity(&crash.venv), Some(old));
    assert!(!exists(&crash.aside));
    assert!(crash.registry.venvs[0].previous_trees.is_empty());
    let events = crash.store.history().unwrap().events;
    assert_eq!(events.last().unwrap().what, "failed", "the history records it");
}

#[test]
fn a_new_tree_stays_if_a_program_of_debian_would_run_the_old_one_on_another_python() {
    let mut crash = Crash::new();
    let before @ [new, old] = crash.identities();
    crash.reasons.push(Reason::EmbeddedIn(Path::new("/usr/bin/uwsgi-core").into()));
    let step = JournalState::Swapping(crash.swap(old, new));
    assert!(!crash.recover(step, &["systemd:no-such-unit-of-venvguard.service"]));
    assert!(crash.is_ended());
    assert_eq!(crash.identities(), before);
    assert_eq!(crash.known(), [(crash.aside.clone(), old)]);
    let events = crash.store.history().unwrap().events;
    let last = events.last().unwrap();
    assert_eq!(last.what, "rebuilt");
    let told = "\n/usr/bin/uwsgi-core runs the venv's code";
    assert!(last.detail.contains("\nbut ") && last.detail.contains(told), "{}", last.detail);
}

#[test]
fn a_service_that_failed_on_the_new_tree_before_the_crash_is_not_in_the_baseline() {
    let crash = Crash::new();
    let base = crash.venv.parent().unwrap().to_path_buf();
    for path in ["run/systemd/system", "usr/bin", "proc"] {
        std::fs::create_dir_all(base.join(path)).unwrap();
    }
    let fails_with = |state: &str| {
        let script = format!(
            "#!/bin/sh\nprintf 'LoadState=loaded\\n{state}\\nType=simple\\nResult=exit-code\\n'\n"
        );
        std::fs::write(base.join("script"), script).unwrap();
        let install = crate::host::Program::new("/usr/bin/install").arg("-m755");
        install.args([base.join("script"), base.join("usr/bin/systemctl")]).run().unwrap();
    };
    // The venv has a real path, although a directory stands in for the system.
    let services = vec!["systemd:web.service".parse().unwrap()];
    let decision = Decision { services, ..crash.decision() };
    let venv = venv::inspect(&crash.root, &crash.venv).unwrap();
    let entry = crash.registry.venvs[0].clone();
    let root = Root::new(&base);
    let config = Config { service_timeout: 0, stable_for: 0, ..Config::default() };
    let report = Report::for_command();
    let context = Context { root: &root, store: &crash.store, config: &config, report: &report };
    for failing in
        ["ActiveState=failed\\nSubState=failed", "ActiveState=activating\\nSubState=auto-restart"]
    {
        fails_with(failing);
        for (blamed, decision) in [(false, decision.clone()), (true, blaming(decision.clone()))] {
            let (entry, venv) = (entry.clone(), venv.clone());
            let job = Job { decision, entry, venv };
            let baseline = super::super::restart::Baseline::take(&context, &job, false);
            assert_eq!(baseline.is_empty(), blamed, "{failing}");
        }
    }
}

#[test]
fn files_written_into_a_new_tree_that_fails_are_carried_back() {
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
fn files_written_into_a_new_tree_are_kept_if_the_swap_back_is_interrupted() {
    let mut crash = Crash::new();
    let [old, new] = crash.identities();
    std::fs::write(crash.aside.join("uploaded"), "").unwrap();
    crash.recover(JournalState::Swapping(crash.swap(old, new)), &[]);
    assert_eq!(identity(&crash.venv), Some(old));
    assert_eq!(crash.known(), [(crash.aside.clone(), new)]);
    assert!(crash.aside.join("uploaded").exists());
    let kept = crash.registry.venvs[0].previous_trees.latest_first().next().unwrap();
    assert!(kept.holds_files, "it is removed only on request");
}

#[test]
fn files_written_during_a_build_in_place_are_carried_back() {
    let mut crash = Crash::new();
    let [new, old] = crash.identities();
    std::fs::create_dir(crash.venv.join("var")).unwrap();
    std::fs::write(crash.venv.join("var/order"), "").unwrap();
    crash.recover(JournalState::BuildingInPlace(crash.swap(old, new)), &[]);
    assert_eq!(identity(&crash.venv), Some(old));
    assert!(crash.venv.join("var/order").exists());
}

#[test]
fn a_tree_built_in_place_is_swapped_back() {
    let mut crash = Crash::new();
    let [new, old] = crash.identities();
    crash.recover(JournalState::BuildingInPlace(crash.swap(old, new)), &[]);
    assert!(crash.is_ended());
    assert_eq!(identity(&crash.venv), Some(old));
    assert!(!exists(&crash.aside));
}

#[test]
fn a_rollback_interrupted_before_the_swap_loses_no_tree() {
    let mut crash = Crash::new();
    let [current, kept] = crash.identities();
    let swap = crash.swap(current, kept);
    assert!(crash.recover(JournalState::Restoring(swap), &[]));
    assert!(crash.is_ended());
    assert_eq!(crash.identities(), [current, kept]);
}

#[test]
fn a_rollback_interrupted_after_the_swap_is_recorded_and_pinned() {
    let mut crash = Crash::new();
    let [current, kept] = crash.identities();
    let swap = crash.swap(current, kept);
    Parent::of(&crash.venv).unwrap().exchange(&crash.aside, &crash.venv).unwrap();
    assert!(crash.recover(JournalState::Restoring(swap), &[]));
    assert!(crash.is_ended());
    let entry = &crash.store.registry().unwrap().venvs[0];
    assert_eq!(crash.known(), [(crash.aside.clone(), current)]);
    assert!(entry.pin.is_some(), "it belongs on the default interpreter");
}

#[test]
fn a_repair_that_cannot_be_recorded_stays_in_the_journal() {
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
    let journal = JournalEntry::new(&crash.decision(), JournalState::Restarting, &[]);
    crash.store.write_journal(&journal).unwrap();
    let venv = venv::inspect(&crash.root, &crash.venv).unwrap();
    let target = Target { minor: Minor::new(3, 11), follows: true, copies: false };
    let remedy = Remedy::Rebuild { target, relax: None };
    let job = Job { decision: Decision { remedy, ..crash.decision() }, entry, venv };
    let (config, report) = (Config::default(), Report::for_command());
    let (root, store) = (&crash.root, &crash.store);
    let context = Context { root, store, config: &config, report: &report };
    let now = Interpreters::default();
    let outcomes = crate::repair::execute(&context, &mut crash.registry, &now, &[job], 1);
    assert!(matches!(outcomes[0].done, Done::Unfinished { .. }), "{outcomes:?}");
    assert!(!crash.is_ended());
    assert_eq!(crash.identities(), before);
}

#[test]
fn a_venv_whose_trees_are_both_gone_stays_in_the_journal() {
    let mut crash = Crash::new();
    let [new, old] = crash.identities();
    for path in [&crash.venv, &crash.aside] {
        std::fs::remove_dir_all(path).unwrap();
    }
    for step in [
        JournalState::BuildingInPlace(crash.swap(old, new)),
        JournalState::Swapping(crash.swap(old, new)),
    ] {
        assert!(!crash.recover(step, &[]));
        assert!(!crash.is_ended());
    }
}

#[test]
fn a_tree_that_somebody_put_there_stays_and_the_old_one_is_recorded() {
    for in_place in [false, true] {
        let mut crash = Crash::new();
        let [_, old] = crash.identities();
        let swap = crash.swap(old, (0, 1));
        let step = if in_place {
            JournalState::BuildingInPlace(swap)
        } else {
            JournalState::Swapping(swap)
        };
        let before = crash.identities();
        assert!(!crash.recover(step, &[]));
        assert!(crash.is_ended());
        assert_eq!(crash.identities(), before);
        assert_eq!(crash.known(), [(crash.aside.clone(), old)]);
    }
}

#[test]
fn a_directory_that_the_journal_only_names_is_not_removed() {
    let mut crash = Crash::new();
    let before = crash.identities();
    let aside = PathText(crash.aside.clone());
    let step = JournalState::Preparing { aside, new: None, to_rest: false };
    assert!(crash.recover(step, &[]));
    assert!(crash.is_ended());
    assert_eq!(crash.identities(), before);
}
