//! Records the outcome of a repair: registry, packages to keep, history and journal. Also removes
//! the trees that are no longer needed.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::budget::Budget;
use super::job::{Done, Outcome};
use super::pin::{PinError, record_and_pin};
use super::{Context, trees};
use crate::apt::marks;
use crate::host::audit;
use crate::host::clock::Deadline;
use crate::host::file::printable;
use crate::host::tree::{self, Identity, Parent};
use crate::owner::RelinkedName;
use crate::plan::Until;
use crate::python::Minor;
use crate::store::{
    CheckFailure, Event, PendingRemoval, Pin, PreparedTree, PreviousTree, Registry, RegistryEntry,
    StoreError,
};
use crate::venv::{self, Venv};

/// How long one run may take to remove trees that are no longer needed: on some disks every file
/// waits for the disk.
const SWEEP_LIMIT: Duration = Duration::from_secs(600);

/// Records each repair as it ends: the registry, the packages that `apt autoremove` must not take,
/// the history. Closes the journal only after that.
pub(super) struct Recorder<'a> {
    pub(super) context: &'a Context<'a>,
    written: Mutex<Written<'a>>,
    in_place: Mutex<()>,
    budget: Budget,
}

struct Written<'a> {
    registry: &'a mut Registry,
    /// The minor versions that are already marked as wanted.
    wanted: BTreeSet<Minor>,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(context: &'a Context<'a>, registry: &'a mut Registry) -> Self {
        let seconds = |seconds| Duration::from_secs(seconds);
        let config = context.config;
        let budget = Budget::new(seconds(config.run_timeout), seconds(config.owner_timeout));
        let written = Mutex::new(Written { registry, wanted: BTreeSet::new() });
        Self { context, written, in_place: Mutex::new(()), budget }
    }

    /// Lets one venv at a time be built in place.
    pub(super) fn one_in_place(&self) -> MutexGuard<'_, ()> {
        self.in_place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the next work on a venv of this owner may take, if any time is left for it.
    pub(super) fn time_left(&self, uid: u32) -> Option<Duration> {
        let left = self.budget.left(uid);
        let limit = self.context.config.rebuild_limit();
        (!left.is_zero()).then(|| left.min(limit))
    }

    /// Charges time that was used for venvs of this owner.
    pub(super) fn charge(&self, uid: u32, used: Duration) {
        self.budget.charge(uid, used);
    }

    /// Pins a venv; see [`record_and_pin`].
    pub(super) fn pin(
        &self,
        id: &str,
        venv: &Venv,
        until: Until,
        because: Option<&str>,
    ) -> Result<(), PinError> {
        record_and_pin(self.context, self.written().registry, id, venv, until, because)
    }

    /// Records which links of a previous environment will be changed, before they are.
    pub(super) fn note_links(
        &self,
        id: &str,
        tree: &Path,
        links: &[RelinkedName],
    ) -> Result<(), StoreError> {
        let mut written = self.written();
        written.registry.set_links(id, tree, links.to_vec());
        self.context.store.save_registry(written.registry)
    }

    /// Whether a tree awaits removal: it may be half removed already.
    pub(super) fn is_to_be_removed(&self, identity: Identity) -> bool {
        self.written().registry.pending_removals.iter().any(|one| one.identity == identity)
    }

    /// Forgets a prepared tree that is no longer valid; the next sweep removes it.
    pub(super) fn discard_prepared(
        &self,
        id: &str,
        tree: PreparedTree,
    ) -> Result<PendingRemoval, StoreError> {
        self.context.store.discard_prepared(self.written().registry, id, tree)
    }

    /// Records the outcome of a repair. Other repairs go on meanwhile: long work is done without
    /// the lock on the registry.
    pub(super) fn record_outcome(
        &self,
        outcome: &Outcome,
        uid: u32,
        removals: Vec<PendingRemoval>,
        aside: Option<PreviousTree>,
        checked: Option<Result<(), CheckFailure>>,
    ) -> Result<(), StoreError> {
        let Context { root, store, report, config } = *self.context;
        let mut written = self.written();
        let Written { registry, wanted } = &mut *written;
        let Some(entry) = registry.get_mut(&outcome.id) else { return Ok(()) };
        let before = entry.clone();
        if let Some(kept) = aside {
            entry.previous_trees.put_aside(kept);
        }
        match checked {
            Some(Ok(())) => entry.check_failure = None,
            // What an earlier upgrade broke stays so.
            Some(Err(failure)) if failure.failed_before && entry.check_failure.is_some() => {}
            Some(Err(failure)) => entry.check_failure = Some(failure),
            None => {}
        }
        let older = note_in_entry(entry, outcome, config.keep_trees.get());
        // A tree that is back in place is no previous environment, even if an earlier attempt
        // recorded it as one.
        entry.previous_trees.forget_gone();
        let after = entry.clone();
        let pending_removals: Vec<PendingRemoval> = removals.into_iter().chain(older).collect();
        if after != before || !pending_removals.is_empty() {
            let known = |one: &&PendingRemoval| registry.pending_removals.contains(one);
            let new: Vec<_> = pending_removals.iter().filter(|one| !known(one)).cloned().collect();
            registry.pending_removals.extend(new);
            store.save_registry(registry)?;
        }
        // A tree that awaits removal must not be swapped in.
        if let Ok(Some(tree)) = store.prepared(&outcome.id) {
            if pending_removals.iter().any(|one| one.identity == tree.identity) {
                store.forget_prepared(&outcome.id)?;
            }
        }
        let pinned = match &outcome.done {
            Done::Pinned { minor, .. } | Done::Restored { minor, pinned: true, .. } => {
                wanted.insert(*minor).then_some(*minor)
            }
            _ => None,
        };
        if let Some((what, detail)) = outcome.for_history() {
            let event = Event::new(&after.name, after.path(), what, detail);
            let event = event.that_took(&outcome.times);
            if let Err(error) = store.record(&event.of(&outcome.decision)) {
                report.error(&format!("cannot record this repair in the history: {error}"));
            }
        }
        drop(written);
        if let Some(Err((minor, error))) = pinned.map(|minor| marks::keep_installed(root, minor)) {
            report.error(&format!(
                "cannot mark the packages of {} as manually installed, so `apt autoremove` may remove them: {error}",
                minor.program()
            ));
        }
        if matches!(outcome.done, Done::Rebuilt { .. } | Done::Restored { .. }) {
            let kept = venv::inspect(root, after.path())
                .map(|venv| super::keep_recipe(self.context, &after, &venv));
            if let Ok(Err(error)) = kept {
                report.error(&format!("{}: cannot keep its recipe: {error}", after.name));
            }
        }
        if matches!(outcome.done, Done::Unfinished { .. }) {
            return Ok(());
        }
        store.close_journal(&outcome.id)?;
        let limit = self.time_left(uid).unwrap_or_default().min(SWEEP_LIMIT);
        let gone = discard_all(self.context, &pending_removals, limit);
        forget(self.context, self.written().registry, &gone);
        Ok(())
    }

    fn written(&self) -> MutexGuard<'_, Written<'a>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Applies an outcome to the entry of its venv. Returns the previous environments that exceed the
/// number to keep.
fn note_in_entry(
    entry: &mut RegistryEntry,
    outcome: &Outcome,
    at_most: usize,
) -> Vec<PendingRemoval> {
    match &outcome.done {
        Done::Rebuilt { previous, .. } => {
            let links = entry.pin.take().map(|pinned| pinned.links);
            entry.previous_trees.put_aside(previous.clone().with_links(links.unwrap_or_default()));
            entry.previous_trees.forget_gone();
            return entry.previous_trees.take_surplus(at_most);
        }
        Done::Restored { minor, previous, pinned, .. } => {
            // The restored tree was recorded under the path at which the other one is now.
            let known =
                entry.previous_trees.named(previous.path()).map(|known| known.links.clone());
            let pin = Pin::new(*minor, Until::Asked, None);
            let pin = Pin { links: known.unwrap_or_default(), ..pin };
            let before = std::mem::replace(&mut entry.pin, pinned.then_some(pin));
            let links = before.map(|pinned| pinned.links).unwrap_or_default();
            entry.previous_trees.put_aside(previous.clone().with_links(links));
        }
        Done::Pinned { minor, until, because, .. } => {
            let links = entry.pin.take().map(|pinned| pinned.links).unwrap_or_default();
            entry.pin = Some(Pin { links, ..Pin::new(*minor, *until, because.as_deref()) });
        }
        _ => {}
    }
    Vec::new()
}

/// Removes the trees that are no longer needed. A tree that cannot be removed is reported, and the
/// next run tries again.
pub(crate) fn sweep(context: &Context, registry: &mut Registry) {
    let gone = discard_all(context, &registry.pending_removals, SWEEP_LIMIT);
    forget(context, registry, &gone);
}

/// Returns the trees that are gone, or that somebody has replaced.
fn discard_all(
    context: &Context,
    pending_removals: &[PendingRemoval],
    limit: Duration,
) -> Vec<PendingRemoval> {
    let deadline = Deadline::after(limit);
    let is_gone = |one: &&PendingRemoval| {
        let path = printable(one.path());
        if is_another(one) {
            let note = format!("{path} is gone or is a different directory now; leaving it alone");
            context.report.note(&note);
            return true;
        }
        match trees::discard(context.root, one.path(), one.identity, deadline) {
            Ok(()) => {
                let (action, place, message) = ("removed", Some(one.path()), &path);
                audit::Line { action, path: place, message, ..Default::default() }
                    .write(context.root);
                true
            }
            Err(error) => {
                context
                    .report
                    .note(&format!("cannot remove a tree that is no longer needed; the next run tries again: {error}"));
                false
            }
        }
    };
    pending_removals.iter().filter(is_gone).cloned().collect()
}

fn forget(context: &Context, registry: &mut Registry, gone: &[PendingRemoval]) {
    let count = registry.pending_removals.len();
    registry.pending_removals.retain(|one| !gone.contains(one));
    if registry.pending_removals.len() < count {
        if let Err(error) = context.store.save_registry(registry) {
            context.report.error(&error.to_string());
        }
    }
}

/// Whether somebody has removed it together with its parent directory, or has replaced it.
fn is_another(one: &PendingRemoval) -> bool {
    match tree::identity(one.path()) {
        Some(_) => !tree::is_at(one.path(), one.identity),
        None => Parent::of(one.path()).is_err_and(|error| error.kind() == ErrorKind::NotFound),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::host::Root;
    use crate::host::clock::wait_until;
    use crate::host::path_text::PathText;
    use crate::plan::{Decision, Policy, samples};
    use crate::report::Report;
    use crate::store::{Config, Store};

    #[test]
    fn a_rollback_keeps_the_links_by_which_its_tree_was_pinned() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let (venv, aside) = (base.join("venv"), base.join(".venv.venvguard-x"));
        for path in [&venv, &aside] {
            std::fs::create_dir(path).unwrap();
        }
        let [restored, other] = [&venv, &aside].map(|path| tree::identity(path).unwrap());
        let root = Root::new(base.join("system"));
        let (store, config) = (Store::new(&root), Config::default());
        let report = Report::for_command();
        let context = Context { root: &root, store: &store, config: &config, report: &report };
        let path = |text: &str| PathText(text.into());
        let link = RelinkedName {
            name: path("python3"),
            from: path("/usr/bin/python3"),
            to: path("/usr/bin/python3.11"),
        };
        let mut registry = Registry::default();
        let entry = registry.add(&venv, None, Policy::Auto).unwrap();
        let id = entry.id.clone();
        // As it was recorded before the swap.
        let known = PreviousTree::new(&aside, restored, true).with_links(vec![link.clone()]);
        entry.previous_trees.put_aside(known);
        let done = Done::Restored {
            minor: Minor::new(3, 11),
            previous: PreviousTree::new(&aside, other, true),
            pinned: true,
            because: None,
        };
        let decision = Decision { id: id.clone(), ..samples::decision() };
        let (restarted, notes) = (Vec::new(), Vec::new());
        let (findings, times) = (Vec::new(), Vec::new());
        let outcome = Outcome { id: id.clone(), decision, done, restarted, notes, findings, times };
        let recorder = Recorder::new(&context, &mut registry);
        recorder.record_outcome(&outcome, 0, Vec::new(), None, None).unwrap();
        let entry = registry.get(&id).unwrap();
        assert_eq!(entry.pin.as_ref().unwrap().links, [link]);
        assert_eq!(entry.previous_trees.len(), 1);
    }

    #[test]
    fn a_check_that_fails_is_kept_until_it_passes() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let (store, config) = (Store::new(&root), Config::default());
        let report = Report::for_command();
        let context = Context { root: &root, store: &store, config: &config, report: &report };
        let mut registry = Registry::default();
        let id = registry.add(Path::new("/srv/venv"), None, Policy::Auto).unwrap().id.clone();
        let decision = Decision { id: id.clone(), ..samples::decision() };
        let done = Done::Restarted;
        let (restarted, notes) = (Vec::new(), Vec::new());
        let (findings, times) = (Vec::new(), Vec::new());
        let outcome = Outcome { id: id.clone(), decision, done, restarted, notes, findings, times };
        let failed = |because, failed_before| Some(Err(CheckFailure::new(because, failed_before)));
        for (checked, kept) in [
            (failed("curl exited 22", false), Some("curl exited 22")),
            (None, Some("curl exited 22")),
            (failed("curl exited 7", true), Some("curl exited 22")),
            (Some(Ok(())), None),
            (failed("curl exited 7", true), Some("curl exited 7")),
            (failed("curl exited 22", false), Some("curl exited 22")),
        ] {
            let recorder = Recorder::new(&context, &mut registry);
            recorder.record_outcome(&outcome, 0, Vec::new(), None, checked).unwrap();
            let failure = registry.get(&id).unwrap().check_failure.as_ref();
            assert_eq!(failure.map(|failure| failure.because.as_str()), kept);
        }
    }

    #[test]
    fn other_repairs_go_on_while_trees_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let root = Root::new(base.join("system"));
        let (store, config) = (Store::new(&root), Config::default());
        let report = Report::for_command();
        let context = Context { root: &root, store: &store, config: &config, report: &report };
        let mut registry = Registry::default();
        let id = registry.add(&base.join("venv"), None, Policy::Auto).unwrap().id.clone();
        let removal = |name: &str| {
            let tree = base.join(name);
            std::fs::create_dir(&tree).unwrap();
            PendingRemoval::new(&tree, tree::identity(&tree).unwrap())
        };
        let removals = ["one", "two", "three", "four", "five"].map(removal);
        let [first, .., last] = &removals;
        // A journal that is full: each removal waits for a second before it is recorded there.
        let socket = root.at("/run/systemd/journal/socket");
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let journal = UnixDatagram::bind(&socket).unwrap();
        let filler = UnixDatagram::unbound().unwrap();
        filler.set_nonblocking(true).unwrap();
        while filler.send_to(b"x", &socket).is_ok() {}
        let decision = Decision { id: id.clone(), ..samples::decision() };
        let (restarted, notes, done) = (Vec::new(), Vec::new(), Done::Nothing);
        let (findings, times) = (Vec::new(), Vec::new());
        let outcome = Outcome { id, decision, done, restarted, notes, findings, times };
        let recorder = Recorder::new(&context, &mut registry);
        std::thread::scope(|scope| {
            let all = removals.to_vec();
            scope.spawn(|| recorder.record_outcome(&outcome, 0, all, None, None).unwrap());
            let limit = Deadline::after(Duration::from_secs(60));
            assert!(wait_until(limit, Duration::from_millis(1), || !first.path().exists()));
            // Its answer comes before all trees are removed and forgotten.
            assert!(recorder.is_to_be_removed(last.identity));
            drop(journal);
        });
        assert!(!recorder.is_to_be_removed(last.identity));
    }
}
