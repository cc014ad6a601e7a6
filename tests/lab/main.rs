//! The lab: real Debian systems in containers, real services in real venvs, real upgrades of Python by apt, offline.
//!
//! Each case has two trials: `unguarded`, which must break as it does in the field, and `guarded`, which must come
//! through. The lab needs root, and the Debian archive and `PyPI` for its preparations; `tests/run` installs the rest.
//! `cargo test --test lab -- minor` runs the trials whose names contain "minor", `--nocapture` shows the logs of those
//! that pass, too.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the lab is no part of the program and drives the system itself"
)]

mod cases;
mod child;
mod container;
mod disks;
mod distributions;
mod fleet;
mod grid;
mod guard;
#[path = "../hostile/mod.rs"]
mod hostile;
mod machine;
mod memory;
mod overlay;
mod own;
mod prepare;
mod releases;
mod storm;
mod times;
mod trial;

use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, anyhow};
use libtest_mimic::{Arguments, Failed, Trial};

use cases::{Case, Half};
use machine::Machine;
use overlay::ROOM;
use own::Own;
use prepare::Lab;
use times::{Part, Time};
use trial::Special;

/// Set once the lab runs in a mount namespace of its own.
const INSIDE: &str = "VENVGUARD_LAB_INSIDE";
/// A machine waits for its services and timers half of the time, so three keep two cores busy. More would slow each
/// other down until they hit their time limits.
const MOST_AT_ONCE: usize = 3;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let cases = cases::all();
    let special = trial::all();
    let fleets = fleet::all();
    let own = own::all();
    if arguments.list {
        let names = own.iter().map(|own| (own.name.to_owned(), false));
        let names = names.chain(cases.iter().map(|case| (case.name(), false)));
        let names = names.chain(special.iter().map(|one| (one.name(), one.is_whole())));
        let names = names.chain(fleets.iter().map(|fleet| (fleet.name.to_owned(), true)));
        let trials =
            names.map(|(name, ignored)| Trial::test(name, || Ok(())).with_ignored_flag(ignored));
        return libtest_mimic::run(&arguments, trials.collect()).exit_code();
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("error: the lab boots containers and mounts overlays: it needs root");
        eprintln!("hint: sudo tests/run");
        return ExitCode::FAILURE;
    }
    if std::env::var_os(INSIDE).is_none() {
        let error = enter_own_mount_namespace();
        eprintln!("error: cannot enter a mount namespace: {error}");
        return ExitCode::FAILURE;
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let home = target.with_file_name("lab");
    let wanted: Vec<&Case> =
        cases.iter().filter(|case| is_wanted(&arguments, &case.name(), false)).collect();
    let wanted_special: Vec<&dyn Special> = special
        .iter()
        .filter(|one| is_wanted(&arguments, &one.name(), one.is_whole()))
        .map(|one| &**one)
        .collect();
    let wanted_fleets: Vec<_> =
        fleets.iter().filter(|fleet| is_wanted(&arguments, fleet.name, true)).collect();
    let threads = arguments.test_threads.unwrap_or(MOST_AT_ONCE).min(MOST_AT_ONCE);
    arguments.test_threads = Some(threads);
    let room = wanted_special.iter().map(|one| one.room()).fold(ROOM, u64::max);
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let machines = if wanted_fleets.is_empty() { threads } else { threads * fleet::COUNTS_AS };
    if let Some(told) = memory::shortage(&meminfo, machines, room) {
        println!("lab: {told}");
    }
    let prepared = Lab::open(home)
        .and_then(|lab| prepare_for(&lab, &wanted, &wanted_special, &wanted_fleets).map(|()| lab));
    let lab = match prepared {
        Ok(lab) => Arc::new(lab),
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let nocapture = arguments.nocapture;
    let own = own.into_iter().map(|Own { name, run }| {
        let lab = Arc::clone(&lab);
        Trial::test(name, move || run(&lab).map_err(|error| format!("{error:#}").into()))
    });
    let cases = cases.into_iter().map(|case| {
        let lab = Arc::clone(&lab);
        Trial::test(case.name(), move || perform(&lab, &case, nocapture))
    });
    let special = special.into_iter().map(|one| {
        let lab = Arc::clone(&lab);
        let is_whole = one.is_whole();
        Trial::test(one.name(), move || {
            let boot = || one.boot(&lab);
            perform_on(&lab, &one.name(), boot, |machine| one.run(machine), nocapture)
        })
        .with_ignored_flag(is_whole)
    });
    let fleets = fleets.into_iter().map(|fleet| {
        let lab = Arc::clone(&lab);
        Trial::test(fleet.name, move || fleet.perform(&lab, nocapture)).with_ignored_flag(true)
    });
    let trials = own.chain(cases).chain(special).chain(fleets);
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    print!("{}", lab.times.table());
    conclusion.exit_code()
}

/// Restarts this program in a private mount namespace, which ends with it. Returns only on failure.
fn enter_own_mount_namespace() -> std::io::Error {
    match std::env::current_exe() {
        Ok(program) => Command::new("unshare")
            .args(["--mount", "--propagation", "private", "--"])
            .arg(program)
            .args(std::env::args_os().skip(1))
            .env(INSIDE, "1")
            .exec(),
        Err(error) => error,
    }
}

/// Whether libtest would run this trial.
fn is_wanted(arguments: &Arguments, name: &str, ignored: bool) -> bool {
    let runs =
        if ignored { arguments.ignored || arguments.include_ignored } else { !arguments.ignored };
    let matches = |filter: &String| {
        if arguments.exact { name == filter } else { name.contains(filter.as_str()) }
    };
    runs && arguments.filter.as_ref().is_none_or(matches) && !arguments.skip.iter().any(matches)
}

/// Prepares everything that the trials need, three steps at a time: a step waits for the network as often as for a core.
fn prepare_for(
    lab: &Lab,
    wanted: &[&Case],
    special: &[&dyn Special],
    fleets: &[&fleet::Trial],
) -> Result<()> {
    let started = Instant::now();
    let mut steps: Vec<Step<'_>> = Vec::new();
    let mut kinds = Vec::new();
    let upgrades = wanted.iter().map(|case| case.upgrade);
    for upgrade in upgrades.chain(special.iter().map(|one| one.upgrade())) {
        if !kinds.contains(&upgrade) {
            kinds.push(upgrade);
        }
    }
    // The package takes longest, and waits for nothing.
    if !special.is_empty() || wanted.iter().any(|case| case.half == Half::Guarded) {
        steps.push(Box::new(move || lab.package().map(drop)));
    }
    for suite in kinds.iter().map(|kind| kind.suite()) {
        steps.push(Box::new(move || lab.root(suite).map(drop)));
    }
    for kind in kinds {
        steps.push(Box::new(move || lab.upgrade(kind).map(drop)));
    }
    for case in wanted {
        if !case.extra.is_empty() {
            steps.push(Box::new(move || lab.extra(case.upgrade.suite(), case.extra).map(drop)));
            steps.push(Box::new(move || lab.newer(case.upgrade, case.extra).map(drop)));
        }
        for site in case.sites {
            steps.push(Box::new(move || lab.site(case.upgrade.suite(), *site).map(drop)));
        }
    }
    for one in special {
        steps.push(Box::new(move || one.prepare(lab)));
    }
    for fleet in fleets {
        steps.push(Box::new(move || fleet.prepare(lab)));
    }
    let steps = std::sync::Mutex::new(steps.into_iter());
    let next = || steps.lock().ok().and_then(|mut steps| steps.next());
    let results = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..MOST_AT_ONCE)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    while let Some(step) = next() {
                        step()?;
                    }
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    for result in results {
        result.map_err(|_| anyhow!("a preparation panicked"))??;
    }
    println!("lab: everything is prepared after {:.1} s", started.elapsed().as_secs_f32());
    Ok(())
}

type Step<'a> = Box<dyn FnOnce() -> Result<()> + Send + 'a>;

/// Boots the machine of a case and runs the case on it; a failure includes the machine's logs.
fn perform(lab: &Lab, case: &Case, nocapture: bool) -> Result<(), Failed> {
    let run = |machine: &Machine| {
        machine.wait_until_all_serve()?;
        (case.run)(machine)
    };
    perform_on(lab, &case.name(), || Machine::boot(lab, case), run, nocapture)
}

/// Boots the machine of any trial and runs the trial on it.
fn perform_on(
    lab: &Lab,
    name: &str,
    boot: impl FnOnce() -> Result<Machine>,
    run: impl FnOnce(&Machine) -> Result<()>,
    nocapture: bool,
) -> Result<(), Failed> {
    let run = |machine: &Machine| {
        machine.must("apt-get -qq update")?;
        run(machine)
    };
    let (machine, outcome) = timed(lab, name, boot, run, Machine::used)?;
    if nocapture && outcome.is_ok() {
        println!("{}", machine.report());
    }
    outcome.map_err(|error| format!("{error:#}\n{}", machine.report()).into())
}

/// Boots what a trial runs on, runs it, and enters how long that took and how much was written. A panic is a failure.
fn timed<T>(
    lab: &Lab,
    name: &str,
    boot: impl FnOnce() -> Result<T>,
    run: impl FnOnce(&T) -> Result<()>,
    used: impl FnOnce(&T) -> Result<u64>,
) -> Result<(T, Result<()>), Failed> {
    let started = Instant::now();
    let booted = boot().map_err(|error| format!("{error:#}"))?;
    let boot = started.elapsed().as_secs_f32();
    let outcome = catch_unwind(AssertUnwindSafe(|| run(&booted)))
        .unwrap_or_else(|_| Err(anyhow!("the trial panicked")));
    let seconds = started.elapsed().as_secs_f32();
    println!("lab: {name} took {seconds:.1} s");
    let (part, name, mebibytes) = (Part::Trial, name.to_owned(), used(&booted).ok());
    lab.times.enter(Time { part, name, seconds, boot: Some(boot), mebibytes });
    Ok((booted, outcome))
}
