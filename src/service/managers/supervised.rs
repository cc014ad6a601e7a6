//! Services that are directories, each with a supervisor of its own as the parent of its process:
//! those of runit and of s6.
//!
//! Such a directory is below a directory of running services, often as a link. The process tree
//! shows which service a process belongs to. All of them may be one unit of systemd, which must not
//! be restarted for one of its services.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Discovered, Manager, Order, Outcome};
use crate::host::clock::{Deadline, wait_until};
use crate::host::command::CommandError;
use crate::host::{Root, file};
use crate::service::condition::Condition;
use crate::service::discover::command_line::paths;
use crate::service::discover::process::{Process, Processes};
use crate::service::error::{NameError, ServiceError};

/// How long to wait for a service to stop: longer than servers usually give their clients to
/// finish (gunicorn: 30 s). The supervisors wait for ever.
const STOP_LIMIT: Duration = Duration::from_secs(45);

/// How long a supervisor may take to notice an order: its program does not wait for that.
const NOTICE_LIMIT: Duration = Duration::from_secs(5);

/// How often services are polled in that time.
const POLL: Duration = Duration::from_millis(100);

/// No file of a service is larger; a log is rotated at 1 MB by default.
const LIMIT: u64 = 1 << 20;
const LOG_LIMIT: u64 = 4 << 20;

/// The longest name that a directory can have.
const LONGEST_NAME: usize = 255;

/// How much of an answer is shown.
pub(super) const TEXT: usize = 400;

#[derive(Debug, thiserror::Error)]
pub(super) enum SupervisorError {
    #[error("{manager} knows no service {name}")]
    UnknownService { manager: &'static str, name: String },
    #[error("{program} does not report the state of {name}: {}", file::printable_within(.answer, TEXT))]
    Unintelligible { program: &'static str, name: String, answer: String },
    #[error("{name} did not stop within {} s (it is {state})", .limit.as_secs())]
    DoesNotStop { name: String, state: String, limit: Duration },
    #[error("{name} was not started (it is {state})")]
    DoesNotStart { name: String, state: String },
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl From<SupervisorError> for ServiceError {
    fn from(error: SupervisorError) -> Self {
        Self::of_manager(error)
    }
}

/// A manager of this kind.
pub(super) trait Supervisor: Sync {
    /// Its name, and the prefix of its services' names.
    const KEY: &'static str;

    /// What a text is that cannot be the name of a service.
    const NO_NAME: &'static str;

    /// The directories of running services.
    const DIRS: &'static [&'static str];

    /// The program that supervises one service, with the name of its directory as the argument.
    const PROGRAM: &'static str;

    /// Asks for the state of the service in a directory.
    fn ask(root: &Root, name: &str, dir: &Path) -> Result<State, SupervisorError>;

    /// Gives an order to services in these states, without waiting until they have followed it.
    fn tell(order: Order, root: &Root, states: &[&State]) -> Result<(), SupervisorError>;
}

/// The state of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) dir: PathBuf,
    /// The process of the service, or of its `finish` script.
    pub(super) pid: Option<u32>,
    pub(super) runs: bool,
    /// Whether it would be started again if it ended now.
    pub(super) wants_up: bool,
    /// Whether it was ordered to end and has not done so yet.
    pub(super) is_ending: bool,
    pub(super) left_alone: Option<String>,
    /// The state in words, without the time, which would make any two states differ.
    pub(super) words: String,
}

impl State {
    fn condition(&self) -> Condition {
        let up = self.runs && !self.is_ending;
        Condition {
            up,
            done: false,
            // A service that is ending and not wanted is down once it has ended, and stays down.
            at_rest: !up && !self.wants_up,
            // No service is ever given up: one that is down was stopped.
            failed: false,
            left_alone: self.left_alone.clone(),
            state: self.words.clone(),
            main_pid: self.pid.filter(|_| self.runs),
            // Restarts are not counted; a changed pid reveals them.
            restarts: 0,
        }
    }
}

impl<T: Supervisor> Manager for T {
    fn key(&self) -> &'static str {
        T::KEY
    }

    fn placeholder(&self) -> &'static str {
        "NAME"
    }

    fn parse(&self, name: &str) -> Result<String, NameError> {
        if is_name(name) { Ok(name.to_string()) } else { Err(NameError::new(name, T::NO_NAME)) }
    }

    /// The services of another supervisor, such as a user's own, belong to no known service: their
    /// processes are not part of the service, or of the unit, that runs that supervisor.
    fn discover(&self, root: &Root, processes: &Processes) -> Discovered {
        let services = services::<T>(root);
        let service_of = |supervisor: &Process| {
            let name = supervisor.arguments.get(1);
            let name = name.and_then(|name| Path::new(name).file_name()?.to_str())?;
            let dir = root.at(services.get(name)?);
            let cwd = root.at(format!("/proc/{}/cwd", supervisor.id.pid));
            let is_own = supervisor.uid == 0
                && identity(&dir).is_some_and(|own| identity(&cwd) == Some(own));
            is_own.then(|| name.to_string())
        };
        let is_supervisor = |process: &&Process| {
            let called = process.arguments.first().map(Path::new);
            called.and_then(Path::file_name) == Some(OsStr::new(T::PROGRAM))
        };
        let supervisors = processes.iter().filter(is_supervisor);
        let trees = supervisors.map(|one| (one.id.pid, service_of(one))).collect();
        let configured = services.iter().map(|(name, dir)| {
            let script = text(root, &dir.join("run")).unwrap_or_default();
            let lines = script.lines().filter(|line| !line.trim_start().starts_with('#'));
            (name.clone(), lines.flat_map(paths).collect())
        });
        Discovered { trees, configured: configured.collect(), ..Discovered::default() }
    }

    fn condition(&self, root: &Root, name: &str) -> Result<Condition, ServiceError> {
        Ok(ask::<T>(root, name)?.condition())
    }

    fn stop(&self, root: &Root, names: &[&str]) -> Vec<Result<Outcome, ServiceError>> {
        give::<T>(Order::Stop, root, names, STOP_LIMIT)
    }

    fn start(&self, root: &Root, names: &[&str]) -> Vec<Result<Outcome, ServiceError>> {
        give::<T>(Order::Start, root, names, STOP_LIMIT)
    }

    fn restart(&self, root: &Root, names: &[&str]) -> Vec<Result<Outcome, ServiceError>> {
        give::<T>(Order::Restart, root, names, STOP_LIMIT)
    }

    /// The end of what a logger wrote, if it writes to one of the usual places. Without a logger, the
    /// output of all services is mixed elsewhere.
    fn log(&self, root: &Root, name: &str) -> String {
        let beside = dir_of::<T>(root, name).map(|dir| dir.join("log/main"));
        let logs = Path::new("/var/log");
        let usual = [logs.join(name), logs.join(T::KEY).join(name)];
        let text = |dir: PathBuf| log(root, &dir).filter(|log| !log.trim().is_empty());
        beside.into_iter().chain(usual).find_map(text).unwrap_or_default()
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= LONGEST_NAME
        // The supervisors skip names that begin with a dot.
        && !name.starts_with(['-', '.'])
        && file::printable(name) == name
        && !name.contains(|c: char| c.is_whitespace() || "/*".contains(c))
}

/// All services by name, with their directories.
fn services<T: Supervisor>(root: &Root) -> BTreeMap<String, PathBuf> {
    let mut services = BTreeMap::new();
    for dir in T::DIRS.iter().map(Path::new) {
        let entries = fs::read_dir(root.at(dir)).into_iter().flatten().flatten();
        for name in entries.filter_map(|entry| entry.file_name().into_string().ok()) {
            if is_name(&name) {
                let dir = dir.join(&name);
                services.entry(name).or_insert(dir);
            }
        }
    }
    services
}

/// The directory of a service: the search paths of the supervisors' own programs can be changed.
fn dir_of<T: Supervisor>(root: &Root, name: &str) -> Option<PathBuf> {
    T::DIRS.iter().map(|dir| Path::new(dir).join(name)).find(|dir| root.at(dir).is_dir())
}

fn ask<T: Supervisor>(root: &Root, name: &str) -> Result<State, SupervisorError> {
    let unknown = || SupervisorError::UnknownService { manager: T::KEY, name: name.to_string() };
    T::ask(root, name, &dir_of::<T>(root, name).ok_or_else(unknown)?)
}

fn identity(dir: &Path) -> Option<(u64, u64)> {
    fs::metadata(dir).ok().map(|found| (found.dev(), found.ino()))
}

fn text(root: &Root, path: &Path) -> Option<String> {
    let real = root.follow(path).ok()?.pop()?;
    let bytes = file::read_untrusted(&root.at(real), LIMIT).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn log(root: &Root, dir: &Path) -> Option<String> {
    let bytes = file::read_untrusted(&root.at(dir.join("current")), LOG_LIMIT).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Gives the order to several services, and waits until they have followed it.
pub(super) fn give<T: Supervisor>(
    order: Order,
    root: &Root,
    names: &[&str],
    limit: Duration,
) -> Vec<Result<Outcome, ServiceError>> {
    let before: Vec<Result<State, ServiceError>> =
        names.iter().map(|name| Ok(ask::<T>(root, name)?)).collect();
    let meant = before.iter().flatten().filter(|state| state.left_alone.is_none());
    let meant: Vec<&State> = meant.collect();
    let told = if meant.is_empty() { Ok(()) } else { T::tell(order, root, &meant) };
    let told = told.map_err(ServiceError::from);
    let mut results = Vec::new();
    let notices = Deadline::after(limit.min(NOTICE_LIMIT));
    wait_until(Deadline::after(limit), POLL, || {
        let mut is_over = true;
        let outcome = |(name, before): (&&str, &Result<State, ServiceError>)| {
            let before = before.clone()?;
            if let Some(why) = before.left_alone {
                return Ok(Outcome::LeftAlone(why));
            }
            told.clone()?;
            let followed = followed(order, name, &before, &ask::<T>(root, name)?, limit);
            is_over &= match followed {
                Err(SupervisorError::DoesNotStop { .. }) => false,
                Err(SupervisorError::DoesNotStart { .. }) => notices.has_passed(),
                _ => true,
            };
            Ok(followed?)
        };
        results = names.iter().zip(&before).map(outcome).collect();
        is_over
    });
    results
}

/// Whether a service followed an order. A service that keeps starting and ending did: its supervisor
/// keeps restarting it, and the caller queries its condition.
fn followed(
    order: Order,
    name: &str,
    before: &State,
    now: &State,
    limit: Duration,
) -> Result<Outcome, SupervisorError> {
    let (name, state) = (name.to_string(), now.words.clone());
    match order {
        Order::Stop if now.pid.is_some() || now.wants_up => {
            Err(SupervisorError::DoesNotStop { name, state, limit })
        }
        Order::Restart if now.pid.is_some() && now.pid == before.pid => {
            Err(SupervisorError::DoesNotStop { name, state, limit })
        }
        Order::Start | Order::Restart if !now.wants_up => {
            Err(SupervisorError::DoesNotStart { name, state })
        }
        _ => Ok(Outcome::Done),
    }
}
