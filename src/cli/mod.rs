//! The command line: each command asks `guard`, then prints.

mod arguments;
mod candidates;
mod complete;
mod diagnose;
mod doctor;
mod faults;
mod generate;
mod history;
mod hold;
mod hook;
mod list;
mod metrics;
mod nagios;
mod plan;
mod processes;
mod rebuild;
mod register;
mod rehearse;
mod scan;
mod show;
mod values;

use std::process::ExitCode;

use clap::Parser;

use crate::guard::{
    AskError, Guard, GuardError, RehearsalRequest, Settled, republish, restart_own,
};
use crate::host::{Root, confine};
use crate::owner;
use crate::report::Report;
use crate::store::{Store, StoreError};
use arguments::{Arguments, Command};

/// How the program ends. Only [`Exit::Blocked`] stops apt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    /// A plugin of Nagios found something critical; to Nagios, the others have a meaning of their own.
    Critical = 2,
    /// The command worked, and found something that needs attention.
    Attention = 3,
    /// The apt run is blocked.
    Blocked = 10,
    /// The launcher failed, and did not start the program.
    NotLaunched = confine::LAUNCHER_FAILED as isize,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Runs the program and returns its exit code.
pub fn main() -> ExitCode {
    // Files of root are readable and writable by nobody else, whatever umask the caller has.
    crate::host::file::usual_umask();
    // Each apt run calls hooks several times: they start before anything else is set up.
    if let Some(event) = hook::called(std::env::args_os()) {
        return hook::run(&Root::new("/"), event).into();
    }
    complete::answer();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() && nagios::is_asked(std::env::args_os()) => {
            return nagios::not_understood(&error).into();
        }
        Err(error) => error.exit(),
    };
    arguments.faults.arm();
    let is_hook = matches!(arguments.command, Command::Hook { .. });
    let report = Report::for_command();
    let root = if arguments.system || is_the_systems(&arguments.command) {
        Root::new(arguments.root)
    } else {
        Root::of_caller(arguments.root)
    };
    let changes = metrics::may_change(&arguments.command);
    let result = run(root.clone(), report.clone(), arguments.command);
    if changes && result.is_ok() {
        republish(&root, &report, None);
    }
    let exit = result.unwrap_or_else(|error| {
        let report = Report::for_command();
        report.error(&in_words(&error));
        if let Some(advice) = advice(&root, &error) {
            report.hint(&advice);
        }
        Exit::Failed
    });
    if let Some(error) = report.lost_output().filter(|_| !is_hook) {
        Report::for_command().error(&format!("cannot write to standard output: {error}"));
        return Exit::Failed.into();
    }
    exit.into()
}

/// An error with its causes, each once: some errors name their cause themselves.
fn in_words(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Whether a command concerns the whole machine, for ordinary users as well.
fn is_the_systems(command: &Command) -> bool {
    match command {
        Command::Hook { .. } | Command::Doctor { .. } | Command::Metrics { .. } => true,
        Command::Status(wanted) => wanted.nagios || wanted.motd,
        _ => false,
    }
}

/// What to do about an error of the store.
fn advice(root: &Root, error: &anyhow::Error) -> Option<String> {
    let error = match (error.downcast_ref(), error.downcast_ref()) {
        (Some(GuardError::Store(error)), _) | (_, Some(AskError::Store(error))) => error,
        _ => error.downcast_ref::<StoreError>()?,
    };
    Store::new(root).advice(error)
}

fn run(root: Root, report: Report, command: Command) -> anyhow::Result<Exit> {
    match command {
        // These must work when venvguard's configuration or state is broken.
        Command::Doctor { json } => return Ok(doctor::doctor(&root, &report, json)),
        Command::Hook { event } => return Ok(hook::run(&root, event)),
        Command::Metrics { write, json } => return metrics::metrics(&root, &report, write, json),
        Command::Status(wanted) if wanted.nagios => {
            return Ok(nagios::nagios(&root, &report, wanted.verbose));
        }
        Command::Status(wanted) if wanted.motd => return Ok(nagios::motd(&root, &report)),
        Command::Confine { specification, program } => {
            return Ok(confined(&report, &specification, &program));
        }
        Command::Own { task } => {
            owner::perform(&root, &task, std::io::stdin().lock(), std::io::stdout().lock())?;
            return Ok(Exit::Done);
        }
        Command::Probe { status: true, address } => {
            report.data(address.status()?.map_or_else(String::new, |status| status.to_string()));
            return Ok(Exit::Done);
        }
        Command::Probe { status: false, address } => {
            address.run()?;
            return Ok(Exit::Done);
        }
        Command::RestartOwn { units } => {
            let is_well = root.user().is_some() && restart_own(&root, &report, &units);
            return Ok(if is_well { Exit::Done } else { Exit::Failed });
        }
        Command::Generate { what } => return generate::run(what).map(|()| Exit::Done),
        _ => {}
    }
    let guard = Guard::open(root, report)?;
    match command {
        Command::Register(wanted) => register::register(&guard, &wanted),
        Command::Unregister { venvs } => register::unregister(&guard, &venvs),
        Command::Prune { venvs } => rebuild::prune(&guard, &venvs),
        Command::List { json } => list::list(&guard, json),
        Command::Show { venvs, json } => show::show(&guard, &venvs, json),
        Command::Status(wanted) => list::status(&guard, &wanted.venvs, wanted.json),
        Command::Processes { json } => processes::processes(&guard, json),
        Command::Scan { dirs, register, json } => scan::scan(&guard, &dirs, register, json),
        Command::Plan { from, json } => plan::plan(&guard, from.as_deref(), json),
        Command::Rehearse { venvs, release, forecast, json } => {
            let request = RehearsalRequest {
                venvs: &venvs,
                release: release.as_deref(),
                is_forecast: forecast,
            };
            rehearse::rehearse(&guard, &request, json)
        }
        Command::Diagnose(asked) => diagnose::diagnose(&guard, &asked),
        Command::Rebuild(wanted) => rebuild::rebuild(&guard, &wanted),
        Command::Restart { due: true, dry_run, json, .. } => {
            rebuild::restart_due(&guard, dry_run, json)
        }
        Command::Restart { venvs, all, dry_run, json, .. } => {
            rebuild::restart(&guard, (!all).then_some(&venvs), dry_run, json)
        }
        Command::Rollback(wanted) => rebuild::rollback(&guard, &wanted),
        Command::Hold { time, reason, dry_run, json } => {
            let reason = reason.as_deref();
            if dry_run {
                hold::propose(&guard, time, reason, json)
            } else {
                hold::hold(&guard, time, reason)
            }
        }
        Command::Unhold { dry_run: true, json } => hold::propose_end(&guard, json),
        Command::Unhold { .. } => hold::unhold(&guard),
        Command::History { json } => history::history(&guard, json),
        Command::Resume => resume(&guard),
        Command::SettleOwn => settle_own(guard),
        Command::Doctor { .. }
        | Command::Hook { .. }
        | Command::Metrics { .. }
        | Command::Confine { .. }
        | Command::Own { .. }
        | Command::Probe { .. }
        | Command::RestartOwn { .. }
        | Command::Generate { .. } => Ok(Exit::Done),
    }
}

/// Finishes what a crash, a kill or a missing Post-Invoke left.
fn resume(guard: &Guard) -> anyhow::Result<Exit> {
    guard.require_root()?;
    Ok(match guard.resume()? {
        Settled::Nothing => {
            guard.report.note("nothing to do");
            Exit::Done
        }
        Settled::Done => Exit::Done,
        Settled::Attention | Settled::Later => Exit::Attention,
    })
}

/// Repairs the venvs of an ordinary user, as that user, at the end of an apt run.
fn settle_own(guard: Guard) -> anyhow::Result<Exit> {
    if guard.root.user().is_none() {
        anyhow::bail!("settle-own runs for ordinary users only");
    }
    if !guard.store.is_used() {
        return Ok(Exit::Done);
    }
    Ok(match guard.settle_own()? {
        Settled::Nothing | Settled::Done => Exit::Done,
        Settled::Attention | Settled::Later => Exit::Attention,
    })
}

/// The launcher's side of a confined run.
fn confined(report: &Report, specification: &str, program: &[std::ffi::OsString]) -> Exit {
    let error = match serde_json::from_str(specification) {
        Ok(confinement) => confine::become_program(&confinement, program),
        Err(error) => error.into(),
    };
    report.note(&error.to_string());
    Exit::NotLaunched
}

/// Reports that no venv is registered, and where there may be some.
fn no_venv(guard: &Guard) {
    guard.report.note("no venv is registered (`venvguard scan` finds some)");
    if guard.root.user().is_some() {
        guard.report.hint("`--system` shows the venvs that root has registered");
    }
}
