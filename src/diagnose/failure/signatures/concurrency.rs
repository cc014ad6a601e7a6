//! gevent, the fork of a pre-forking server, and schedulers: failures that are blamed on upgrades,
//! because the restart after one shows them.

use std::collections::BTreeMap;

use super::super::machine::Machine;
use super::super::text::{Failure, Importer, PythonError};
use super::{Clue, Place, Signature, Upgrade, Verdict};
use crate::host::file::printable;

pub(super) const PATCHED_LATE: Signature = Signature {
    id: "gevent-patched-late",
    title: "gevent patched ssl after other modules had imported it, so that TLS code recurses endlessly",
    upgrade: Upgrade::Never,
    matches: patched_late,
    verify: verify_patched_late,
    remedy: |_, _| {
        "begin the configuration file of gunicorn with `from gevent import monkey; \
         monkey.patch_ssl()`, which patches ssl alone before --preload imports the application; or \
         import the application after the fork, without --preload. Patching everything first \
         (patch_all() at the top of the application) also lets every process run the threads that \
         the application starts, so that a BackgroundScheduler runs each job in every worker"
            .to_string()
    },
};

pub(super) const SCHEDULER_FORKED: Signature = Signature {
    id: "scheduler-forked",
    title: "a scheduler that was started before the fork runs each job in every worker",
    upgrade: Upgrade::Never,
    matches: scheduler_forked,
    verify: |clue, machine| needs(clue, machine, &["apscheduler"]),
    remedy: |_, _| {
        "do not patch everything before the fork: patch ssl alone at the top of the configuration \
         file of gunicorn (`monkey.patch_ssl()`), so that the scheduler stays a thread of the \
         master; or run the scheduler as a service of its own. A BlockingScheduler in a Process \
         that the application starts is joined by the workers, which fails"
            .to_string()
    },
};

pub(super) const PROCESS_FORKED: Signature = Signature {
    id: "process-forked",
    title: "workers join a process that was started before the fork and is not their child",
    upgrade: Upgrade::Never,
    matches: |failure| {
        let is_it = |error: &PythonError| {
            error.name() == "AssertionError" && error.message == "can only join a child process"
        };
        let (clue, _) = Clue::of_error(failure, is_it)?;
        Some(Clue { details: vec![WHY_JOINED.to_string()], ..clue })
    },
    verify: |clue, machine| needs(clue, machine, &["gunicorn"]),
    remedy: |_, _| {
        "start the process after the fork or as a service of its own; if it was moved into a \
         Process because a BackgroundScheduler ran its jobs several times, patch ssl alone at the \
         top of the configuration file of gunicorn (`monkey.patch_ssl()`) and keep the \
         BackgroundScheduler"
            .to_string()
    },
};

/// Why a job runs several times.
const WHY_FORKED: &str = "a thread does not survive a fork, but after patch_all() the scheduler's \
    thread is a greenlet, which each worker inherits";

/// Why the workers fail.
const WHY_JOINED: &str = "each worker inherits the list of the master's child processes, and joins \
    them when it ends";

/// A setter of `SSLContext` in `ssl.py` calls itself: `super(SSLContext, SSLContext)` is gevent's
/// class, which inherits from the one that the importers still have.
fn patched_late(failure: &Failure) -> Option<Clue> {
    let calls_itself = |error: &PythonError| {
        let setter = "super(SSLContext, SSLContext).";
        let frames = error.frames.iter().filter(|frame| frame.code.starts_with(setter));
        error.name() == "RecursionError"
            && frames.clone().any(|frame| frame.file.ends_with("ssl.py"))
    };
    let of_error = Clue::of_error(failure, calls_itself).map(|(clue, _)| clue);
    let clue = of_error.or_else(|| {
        let warning = "MonkeyPatchWarning: Monkey-patching ssl after";
        let is_it = |line: &str| line.contains(warning).then_some(());
        Clue::of_line(failure, is_it).map(|(clue, ())| clue)
    })?;
    let named: Vec<String> = failure.importers.iter().map(in_words).collect();
    let details = if named.is_empty() {
        Vec::new()
    } else {
        vec![format!("gevent's warning names who imported ssl before: {}", named.join(", "))]
    };
    Some(Clue { details, importers: failure.importers.clone(), ..clue })
}

/// As gevent writes it.
fn in_words(importer: &Importer) -> String {
    match &importer.file {
        Some(file) => format!("{} ({})", importer.module, printable(file)),
        None => importer.module.clone(),
    }
}

/// gevent is installed in the venv, and what its warning names is in there too.
fn verify_patched_late(clue: &Clue, machine: &Machine) -> Verdict {
    let Some(venv) = clue.known(machine) else { return Verdict::Unknown };
    let Some(gevent) = venv.distributions.get("gevent") else { return Verdict::Unknown };
    let mut evidence = vec![format!("{} has gevent {gevent}", printable(&venv.venv.path))];
    let is_there = |importer: &&Importer| {
        let site = venv.venv.site_packages();
        match importer.file.as_ref().and_then(|file| file.strip_prefix(site).ok()) {
            Some(file) => venv.has(machine, file),
            None => importer.file.is_none() && venv.has_module(machine, &importer.module),
        }
    };
    let there: Vec<&str> =
        clue.importers.iter().filter(is_there).map(|importer| importer.module.as_str()).collect();
    let usual = ["urllib3", "requests"].into_iter();
    let usual: Vec<&str> = usual.filter(|name| venv.distributions.contains_key(*name)).collect();
    if !there.is_empty() {
        evidence.push(format!("the venv has {}", there.join(", ")));
    } else if !usual.is_empty() {
        evidence.push(format!("of what usually imports ssl, it has {}", usual.join(", ")));
    }
    Verdict::Verified(evidence)
}

/// The venv has these distributions.
fn needs(clue: &Clue, machine: &Machine, names: &[&str]) -> Verdict {
    let Some(venv) = clue.known(machine) else { return Verdict::Unknown };
    let version = |name: &&str| Some(format!("{name} {}", venv.distributions.get(*name)?));
    let found: Vec<String> = names.iter().filter_map(version).collect();
    if found.len() < names.len() {
        return Verdict::Unknown;
    }
    let path = printable(&venv.venv.path);
    Verdict::Verified(vec![format!("{path} has {}", found.join(", "))])
}

/// `APScheduler` writes when a run of a job was due, to the microsecond: schedulers with a life of
/// their own never agree, copies of one do.
fn scheduler_forked(failure: &Failure) -> Option<Clue> {
    let mut runs: BTreeMap<(&str, &str), (usize, usize)> = BTreeMap::new();
    for (at, line) in failure.lines.iter().enumerate() {
        if let Some(run) = due(line) {
            let (count, _) = runs.entry(run).or_insert((0, at));
            *count += 1;
        }
    }
    let ((job, time), (count, at)) = runs.into_iter().max_by_key(|(_, (count, _))| *count)?;
    if count < 2 {
        return None;
    }
    let workers = failure.lines.iter().filter(|line| line.contains("Booting worker with pid: "));
    let workers = workers.count();
    let quote = format!("the run of the job {job:?} due at {time} took place {count} times");
    let mut clue = Clue { venv: super::only(failure), ..Clue::at(Place::Line(at), quote) };
    // The master of some versions of gunicorn lets its own greenlets run, that of others does not.
    let also = match count.checked_sub(workers) {
        Some(0) => Some(": each of them ran it"),
        Some(1) => Some(": workers + 1 runs, as the master runs it too"),
        _ => None,
    };
    clue.details.extend(also.map(|also| format!("gunicorn started {workers} workers{also}")));
    clue.details.push(WHY_FORKED.to_string());
    Some(clue)
}

/// The name of a job and the time at which this run of it was due.
fn due(line: &str) -> Option<(&str, &str)> {
    let (_, run) = line.split_once("Running job \"")?;
    let (job, time) = run.split_once(" (scheduled at ")?;
    let job = job.split_once(" (trigger").map_or(job, |(name, _)| name);
    // Independent schedulers share the whole seconds of a cron trigger.
    let (time, _) = time.split_once(')').filter(|(time, _)| time.contains('.'))?;
    Some((job, time))
}
