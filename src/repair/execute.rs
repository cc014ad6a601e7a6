//! Carries out the decisions of a plan, and records the outcomes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;

use super::adopt::{Ready, Repair, RepairResult};
use super::builder::System;
use super::halt::Halt;
use super::job::{Done, Job, Outcome};
use super::record::Recorder;
use super::together::{Groups, finish};
use super::{Context, hooks};
use crate::host::clock::Stopwatch;
use crate::host::parallel::{self, Permits};
use crate::plan::Remedy;
use crate::python::Interpreters;
use crate::store::Registry;

/// How many venvs may wait for their services, for each that is built.
const WAITING: usize = 4;

/// How many may wait at most.
const MOST_WAITING: usize = 16;

/// Repairs the venvs, and reports and records each as it ends. The long part is done for each venv on
/// its own, `at_once` at a time; the venvs of a group wait for each other before their services are
/// restarted. While services come up, other venvs are built, unless that shall be done one at a time.
/// The failure of one venv, even a panic, does not stop the others.
pub(crate) fn execute(
    context: &Context,
    registry: &mut Registry,
    now: &Interpreters,
    jobs: &[Job],
    at_once: usize,
) -> Vec<Outcome> {
    let recorder = Recorder::new(context, registry);
    let groups = Groups::of(context, jobs);
    let mut queue: Vec<usize> = (0..jobs.len()).collect();
    // Services that only need a restart do not wait for builds.
    queue.sort_by_key(|index| jobs.get(*index).map(|job| job.decision.remedy != Remedy::Restart));
    let get_ready = |index: usize| {
        let job = jobs.get(index)?;
        let started = Stopwatch::start();
        let repair = Repair::new(&recorder, now, job, Halt::default());
        let ready = catch_unwind(AssertUnwindSafe(|| repair.get_ready()));
        let ready = ready.unwrap_or_else(|_| Ready::Ended(failed()));
        recorder.charge(job.venv.uid, started.elapsed());
        repair.progress.step("waiting for other venvs");
        // The last of a group completes it.
        groups.join(index, (repair, ready))
    };
    // The programs of hooks.d may take a venv out of service from before its repair until after it.
    let overlaps = at_once > 1 && !hooks::exist(context);
    let finishing = if overlaps { (at_once * WAITING).min(MOST_WAITING) } else { 1 };
    let swaps = Permits::new(at_once);
    let conclude = |group| conclude(group, at_once, &swaps);
    let outcomes = parallel::pipeline(queue, (at_once, finishing), get_ready, conclude);
    outcomes.into_iter().flatten().collect()
}

/// Finishes the repairs of a group, with a permit for the swap.
fn conclude(repairs: Vec<(Repair, Ready)>, at_once: usize, swaps: &Permits) -> Vec<Outcome> {
    let swap = swaps.take();
    let started = Stopwatch::start();
    let (repairs, ready): (Vec<Repair>, Vec<Ready>) = repairs.into_iter().unzip();
    let finished = AssertUnwindSafe(|| finish(repairs.iter().zip(ready).collect(), at_once, swap));
    let results = catch_unwind(finished)
        .unwrap_or_else(|_| repairs.iter().map(|repair| (repair, failed())).collect());
    let recorded = results.into_iter().map(|(repair, result)| {
        let outcome = record(repair, result);
        tell(repair.context, &outcome);
        (repair, outcome)
    });
    let recorded: Vec<(&Repair, Outcome)> = recorded.collect();
    let share = started.elapsed() / u32::try_from(repairs.len()).unwrap_or(u32::MAX).max(1);
    for repair in &repairs {
        repair.recorder.charge(repair.job.venv.uid, share);
    }
    let outcomes = recorded.into_iter().map(|(repair, outcome)| {
        hooks::after(repair.context, repair.job, &outcome);
        outcome
    });
    outcomes.collect()
}

/// Builds and checks the new environments that were decided on, for the interpreters of a system,
/// and keeps them for later. `each` is called with every outcome as it is known.
pub(crate) fn prepare_all(
    context: &Context,
    registry: &mut Registry,
    system: &System,
    jobs: &[Job],
    at_once: usize,
    each: impl Fn(&Job, &Outcome) + Sync,
) -> Vec<Outcome> {
    let recorder = Recorder::new(context, registry);
    parallel::map(jobs, at_once, |job| {
        let prepare = |repair: &Repair| repair.prepare_only(system);
        let outcome =
            run_and_record(&recorder, &system.interpreters, job, Halt::default(), prepare);
        each(job, &outcome);
        outcome
    })
}

/// Runs `work`, and records its outcome.
pub(super) fn run_and_record(
    recorder: &Recorder,
    now: &Interpreters,
    job: &Job,
    halt: Halt,
    work: impl FnOnce(&Repair) -> RepairResult,
) -> Outcome {
    let started = Stopwatch::start();
    let repair = Repair::new(recorder, now, job, halt);
    let result = catch_unwind(AssertUnwindSafe(|| work(&repair))).unwrap_or_else(|_| failed());
    let outcome = record(&repair, result);
    recorder.charge(job.venv.uid, started.elapsed());
    outcome
}

/// The result of a repair that panicked.
fn failed() -> RepairResult {
    Done::Unfinished { because: "venvguard itself failed (this is a bug)".to_string() }.into()
}

fn record(repair: &Repair, result: RepairResult) -> Outcome {
    let Repair { context, recorder, job, .. } = *repair;
    let started_late = repair.halt.borrow().start_what_is_left(context.root);
    repair.progress.end();
    let notes = [result.notes, started_late].concat();
    let mut removals = repair.discarded.take();
    removals.extend(result.pending_removal);
    let mut outcome = Outcome::new(job, result.done, result.restarted, notes);
    outcome.findings = result.findings;
    outcome.times = repair.progress.times();
    let checked = repair.checked.lock().unwrap_or_else(PoisonError::into_inner).take();
    let aside = result.aside;
    if let Err(error) = recorder.record_outcome(&outcome, job.venv.uid, removals, aside, checked) {
        outcome.done =
            Done::Unfinished { because: format!("cannot record what was done: {error}") };
    }
    outcome
}

/// Reports an outcome.
pub(crate) fn tell(context: &Context, outcome: &Outcome) {
    let name = &outcome.decision.name;
    if let Some(words) = outcome.in_words() {
        context.report.outcome(name, words, &outcome.notes);
    } else {
        for note in &outcome.notes {
            context.report.note(&format!("{name}: note: {note}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Program, Root};
    use crate::plan::{Decision, Policy, Remedy, Until, samples};
    use crate::python::Minor;
    use crate::report::Report;
    use crate::service::Service;
    use crate::store::{Config, Store};
    use crate::venv::{BaseLink, Venv};

    /// A machine whose systemd reports the same state for every unit.
    fn machine(shown: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path();
        for path in ["run/systemd/system", "usr/bin", "proc/1", "srv/shop/venv/lib/python3.11"] {
            std::fs::create_dir_all(base.join(path)).unwrap();
        }
        let script = format!(
            "#!/bin/sh\nshift 2\necho \"$@\" >>{}/calls\n\
             printf '{shown}'\n",
            base.display()
        );
        std::fs::write(base.join("script"), script).unwrap();
        let install = Program::new("/usr/bin/install").arg("-m755");
        install.args([base.join("script"), base.join("usr/bin/systemctl")]).run().unwrap();
        dir
    }

    /// A restart of the units that run out of a venv.
    fn restart_of(registry: &mut Registry, path: &str, units: &[&str]) -> Job {
        let sample = samples::subject(BaseLink::Pinned, Minor::new(3, 11)).venv;
        let venv = Venv { path: path.into(), ..sample };
        let entry = registry.add(&venv.path, None, Policy::Auto).unwrap().clone();
        let services = units.iter().map(|unit| format!("systemd:{unit}").parse().unwrap());
        let (id, remedy) = (entry.id.clone(), Remedy::Restart);
        let services: Vec<Service> = services.collect();
        let were_up = services.clone();
        let decision = Decision { id, remedy, services, were_up, ..samples::decision() };
        Job { decision, entry, venv }
    }

    /// The outcomes of restarts on a machine, and its calls of systemctl.
    fn restarted(dir: &tempfile::TempDir, jobs: &[(&str, &[&str])]) -> (Vec<Outcome>, String) {
        restarted_with(dir, jobs, None)
    }

    fn restarted_with(
        dir: &tempfile::TempDir,
        jobs: &[(&str, &[&str])],
        rolling: Option<&str>,
    ) -> (Vec<Outcome>, String) {
        executed(dir, jobs, rolling, |_| {})
    }

    fn executed(
        dir: &tempfile::TempDir,
        jobs: &[(&str, &[&str])],
        rolling: Option<&str>,
        change: impl FnOnce(&mut [Job]),
    ) -> (Vec<Outcome>, String) {
        let root = Root::new(dir.path().canonicalize().unwrap());
        let store = Store::new(&root);
        let rolling = rolling.map(|pause| pause.parse().unwrap());
        let config = Config { stable_for: 0, rolling, ..Config::default() };
        let report = Report::for_command();
        let context = Context { root: &root, store: &store, config: &config, report: &report };
        let mut registry = Registry::default();
        let jobs = jobs.iter().map(|(path, units)| restart_of(&mut registry, path, units));
        let mut jobs: Vec<Job> = jobs.collect();
        change(&mut jobs);
        let outcomes = execute(&context, &mut registry, &Interpreters::default(), &jobs, 2);
        assert!(store.open_journal().is_empty());
        (outcomes, std::fs::read_to_string(dir.path().join("calls")).unwrap())
    }

    #[test]
    fn a_service_that_was_left_alone_is_not_reported_as_restarted() {
        let ended = r"LoadState=loaded\nActiveState=inactive\nType=oneshot\nResult=success\n";
        let (outcomes, calls) = restarted(&machine(ended), &[("/srv/a/venv", &["backup"])]);
        assert!(!calls.lines().any(|line| line.starts_with("restart")), "{calls}");
        assert_eq!(outcomes[0].restarted, []);
        assert!(outcomes[0].notes[0].contains("is left alone: "), "{outcomes:?}");
    }

    #[test]
    fn venvs_that_are_only_restarted_share_one_transaction() {
        let running = r"LoadState=loaded\nActiveState=active\nSubState=running\nType=simple\nResult=success\n";
        let jobs = [("/srv/a/venv", &["web", "db"][..]), ("/srv/b/venv", &["web"])];
        let (outcomes, calls) = restarted(&machine(running), &jobs);
        let restarts: Vec<&str> =
            calls.lines().filter(|line| line.starts_with("restart")).collect();
        assert_eq!(restarts, ["restart -- db.service web.service"], "{calls}");
        assert_eq!(outcomes.iter().map(|one| one.restarted.len()).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn a_pin_restarts_what_it_shares_with_another_venv_once() {
        let running = r"LoadState=loaded\nActiveState=active\nSubState=running\nType=simple\nResult=success\n";
        let jobs = [("/srv/a/venv", &["web"][..]), ("/srv/b/venv", &["web"])];
        let (to, until) = (Minor::new(3, 11), Until::Policy);
        let (_, calls) = executed(&machine(running), &jobs, None, |jobs| {
            jobs[1].decision.remedy = Remedy::Pin { to, until, outdated: true };
        });
        assert_eq!(orders(&calls), ["restart -- web.service"]);
    }

    fn orders(calls: &str) -> Vec<&str> {
        let is_order = |line: &&str| line.starts_with("restart") || line.starts_with("start");
        calls.lines().filter(is_order).collect()
    }

    #[test]
    fn instances_restart_one_after_another() {
        let running = r"LoadState=loaded\nActiveState=active\nSubState=running\nType=simple\nResult=success\n";
        let jobs = [("/srv/a/venv", &["web@2", "db", "web@1"][..]), ("/srv/b/venv", &["web@1"])];
        let (outcomes, calls) = restarted_with(&machine(running), &jobs, Some("0s"));
        let expected = ["restart -- db.service web@1.service", "restart -- web@2.service"];
        assert_eq!(orders(&calls), expected);
        assert_eq!(outcomes.iter().map(|one| one.restarted.len()).collect::<Vec<_>>(), [3, 1]);
        let (_, calls) = restarted_with(&machine(running), &jobs, Some("no"));
        assert_eq!(orders(&calls), ["restart -- db.service web@1.service web@2.service"]);
    }

    #[test]
    fn an_instance_that_does_not_come_up_leaves_the_others_as_they_were() {
        let failed = r"LoadState=loaded\nActiveState=failed\nSubState=failed\nType=simple\nResult=exit-code\n";
        let jobs = [("/srv/a/venv", &["web@1", "web@2", "web@3"][..])];
        let (outcomes, calls) = restarted_with(&machine(failed), &jobs, Some("0s"));
        assert_eq!(orders(&calls), ["start -- web@1.service"]);
        let Done::Failed { because, .. } = &outcomes[0].done else { panic!("{outcomes:?}") };
        let left = "left as they were: systemd:web@2.service, systemd:web@3.service";
        assert!(because.ends_with(left), "{because}");
    }
}
