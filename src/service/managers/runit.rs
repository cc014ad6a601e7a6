//! runit, controlled by `sv`.
//!
//! A service is a directory below `/etc/service`, usually a link to one in `/etc/sv`. Each service
//! has its own `runsv` as the parent of its process, so the process tree shows which service a
//! process belongs to. All of runit may be one unit of systemd, which must not be restarted for
//! one of its services.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Discovered, Manager, Order, Outcome};
use crate::host::clock::{Deadline, wait_until};
use crate::host::command::CommandError;
use crate::host::{Program, Root, file};
use crate::service::condition::Condition;
use crate::service::discover::command_line::paths;
use crate::service::discover::process::{Process, Processes};
use crate::service::error::{NameError, ServiceError};

/// The directories of running services: Debian's, and that of runit's own documentation.
const DIRS: [&str; 2] = ["/etc/service", "/service"];

/// How long to wait for a service to stop: longer than servers usually give their clients to
/// finish (gunicorn: 30 s). runit itself waits for ever.
const STOP_LIMIT: Duration = Duration::from_secs(45);

/// How often services are polled in that time.
const POLL: Duration = Duration::from_millis(100);

/// How long `sv` may take; it normally answers immediately.
const SV_LIMIT: Duration = Duration::from_secs(15);

/// No file of a service is larger; a log is rotated at 1 MB by default.
const LIMIT: u64 = 1 << 20;
const LOG_LIMIT: u64 = 4 << 20;

/// The longest name that a directory can have.
const LONGEST_NAME: usize = 255;

/// How much of the output of `sv` is shown.
const TEXT: usize = 400;

#[derive(Debug, thiserror::Error)]
enum RunitError {
    #[error("runit knows no service {0}")]
    UnknownService(String),
    #[error("sv does not report the state of {name}: {}", file::printable_within(.answer, TEXT))]
    Unintelligible { name: String, answer: String },
    #[error("{name} did not stop within {} s (it is {state})", .limit.as_secs())]
    DoesNotStop { name: String, state: String, limit: Duration },
    #[error("{name} was not started (it is {state})")]
    DoesNotStart { name: String, state: String },
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl From<RunitError> for ServiceError {
    fn from(error: RunitError) -> Self {
        Self::of_manager(error)
    }
}

/// The runit of the system.
#[derive(Debug)]
pub(super) struct Runit;

impl Manager for Runit {
    fn key(&self) -> &'static str {
        "runit"
    }

    fn placeholder(&self) -> &'static str {
        "NAME"
    }

    fn parse(&self, name: &str) -> Result<String, NameError> {
        let fits = !name.is_empty()
            && name.len() <= LONGEST_NAME
            // runsvdir skips names that begin with a dot.
            && !name.starts_with(['-', '.'])
            && file::printable(name) == name
            && !name.contains(|c: char| c.is_whitespace() || "/*".contains(c));
        if fits {
            Ok(name.to_string())
        } else {
            Err(NameError::new(name, "is not the name of a runit service"))
        }
    }

    /// The services of another runsvdir, such as a user's own, belong to no known service: their
    /// processes are not part of the service, or of the unit, that runs their runsvdir.
    fn discover(&self, root: &Root, processes: &Processes) -> Discovered {
        let services = self.services(root);
        let service_of = |runsv: &Process| {
            let name =
                runsv.arguments.get(1).and_then(|name| Path::new(name).file_name()?.to_str())?;
            let dir = root.at(services.get(name)?);
            let cwd = root.at(format!("/proc/{}/cwd", runsv.id.pid));
            let is_own =
                runsv.uid == 0 && identity(&dir).is_some_and(|own| identity(&cwd) == Some(own));
            is_own.then(|| name.to_string())
        };
        let runsvs = processes.iter().filter(|process| is_runsv(process));
        let trees = runsvs.map(|runsv| (runsv.id.pid, service_of(runsv))).collect();
        let configured = services.iter().map(|(name, dir)| {
            let script = text(root, &dir.join("run")).unwrap_or_default();
            let lines = script.lines().filter(|line| !line.trim_start().starts_with('#'));
            (name.clone(), lines.flat_map(paths).collect())
        });
        Discovered { trees, configured: configured.collect(), ..Discovered::default() }
    }

    fn condition(&self, root: &Root, name: &str) -> Result<Condition, ServiceError> {
        Ok(State::ask(root, name)?.condition())
    }

    fn stop(&self, root: &Root, names: &[&str]) -> Vec<Result<Outcome, ServiceError>> {
        give(Order::Stop, root, names, STOP_LIMIT)
    }

    fn start(&self, root: &Root, names: &[&str]) -> Vec<Result<Outcome, ServiceError>> {
        give(Order::Start, root, names, STOP_LIMIT)
    }

    fn restart(&self, root: &Root, names: &[&str]) -> Vec<Result<Outcome, ServiceError>> {
        give(Order::Restart, root, names, STOP_LIMIT)
    }

    /// The end of what svlogd wrote, if it writes to one of the usual places. Without a log service,
    /// runsvdir receives the output of all services mixed.
    fn log(&self, root: &Root, name: &str) -> String {
        let beside = dir_of(root, name).map(|dir| dir.join("log/main"));
        let usual = ["/var/log", "/var/log/runit"].map(|dir| Path::new(dir).join(name));
        let text = |dir: PathBuf| log(root, &dir).filter(|log| !log.trim().is_empty());
        beside.into_iter().chain(usual).find_map(text).unwrap_or_default()
    }
}

impl Runit {
    /// All services by name, with their directories.
    fn services(&self, root: &Root) -> BTreeMap<String, PathBuf> {
        let mut services = BTreeMap::new();
        for dir in DIRS.map(Path::new) {
            let entries = fs::read_dir(root.at(dir)).into_iter().flatten().flatten();
            for name in entries.filter_map(|entry| entry.file_name().into_string().ok()) {
                if self.parse(&name).is_ok() {
                    let dir = dir.join(&name);
                    services.entry(name).or_insert(dir);
                }
            }
        }
        services
    }
}

/// The directory of a service, to pass to `sv`: the search path of `sv` can be changed.
fn dir_of(root: &Root, name: &str) -> Option<PathBuf> {
    DIRS.map(|dir| Path::new(dir).join(name)).into_iter().find(|dir| root.at(dir).is_dir())
}

fn is_runsv(process: &Process) -> bool {
    let called = process.arguments.first().map(Path::new);
    called.and_then(Path::file_name) == Some(OsStr::new("runsv"))
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

fn sv(root: &Root) -> Program {
    Program::named(root, "sv").limit(SV_LIMIT)
}

/// Gives the order to several services in one call, and waits until they have followed it.
fn give(
    order: Order,
    root: &Root,
    names: &[&str],
    limit: Duration,
) -> Vec<Result<Outcome, ServiceError>> {
    let before: Vec<Result<State, ServiceError>> =
        names.iter().map(|name| Ok(State::ask(root, name)?)).collect();
    let meant = before.iter().flatten().filter(|state| state.left_alone().is_none());
    let told = tell(order, root, meant.map(|state| &state.dir)).map_err(ServiceError::from);
    let mut results = Vec::new();
    wait_until(Deadline::after(limit), POLL, || {
        let mut is_over = true;
        let outcome = |(name, before): (&&str, &Result<State, ServiceError>)| {
            let before = before.clone()?;
            if let Some(why) = before.left_alone() {
                return Ok(Outcome::LeftAlone(why));
            }
            told.clone()?;
            let followed = followed(order, name, &before, &State::ask(root, name)?, limit);
            is_over &= !matches!(followed, Err(RunitError::DoesNotStop { .. }));
            Ok(followed?)
        };
        results = names.iter().zip(&before).map(outcome).collect();
        is_over
    });
    results
}

/// `sv` itself would keep waiting for a service that keeps ending. Its exit status only counts the
/// services that have not followed yet; their own states say more.
fn tell<'a>(
    order: Order,
    root: &Root,
    dirs: impl Iterator<Item = &'a PathBuf>,
) -> Result<(), RunitError> {
    let mut dirs = dirs.peekable();
    if dirs.peek().is_some() {
        sv(root).args(["-w", "1", order.verb()]).args(dirs).finish()?;
    }
    Ok(())
}

/// Whether a service followed an order. A service that keeps starting and ending did: runit keeps
/// restarting it, and the caller queries its condition.
fn followed(
    order: Order,
    name: &str,
    before: &State,
    now: &State,
    limit: Duration,
) -> Result<Outcome, RunitError> {
    let (name, state) = (name.to_string(), now.in_words());
    match order {
        Order::Stop if now.pid.is_some() || now.wants_up() => {
            Err(RunitError::DoesNotStop { name, state, limit })
        }
        Order::Restart if now.pid.is_some() && now.pid == before.pid => {
            Err(RunitError::DoesNotStop { name, state, limit })
        }
        Order::Start | Order::Restart if !now.wants_up() => {
            Err(RunitError::DoesNotStart { name, state })
        }
        _ => Ok(Outcome::Done),
    }
}

/// The state of a service, as `sv status` prints it:
///
/// ```text
/// run: /etc/service/web: (pid 123) 45s, normally down, want down, got TERM; run: log: (pid 122) 45s
/// down: /etc/service/web: 5s, normally up, want up
/// finish: /etc/service/web: (pid 124) 1s
/// fail: /etc/service/web: runsv not running
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    dir: PathBuf,
    word: String,
    /// The pid of the service, or of its `finish` script.
    pid: Option<u32>,
    /// The words after the time, which differs in every answer.
    details: Vec<String>,
}

impl State {
    fn ask(root: &Root, name: &str) -> Result<Self, RunitError> {
        let dir = dir_of(root, name).ok_or_else(|| RunitError::UnknownService(name.to_string()))?;
        // It exits with the number of services that it cannot query, and names them.
        let answer = sv(root).read_only().arg("status").arg(&dir).finish()?.text();
        Self::read(&answer, &dir)
            .ok_or_else(|| RunitError::Unintelligible { name: name.to_string(), answer })
    }

    fn read(answer: &str, dir: &Path) -> Option<Self> {
        // The part of the service itself; the part of its log follows.
        let own = answer.lines().next()?.split("; ").next()?;
        let (word, rest) = own.split_once(": ")?;
        let rest = rest.strip_prefix(dir.to_str()?)?.strip_prefix(": ")?;
        let (first, details) = match rest.split_once(", ") {
            Some((first, details)) => (first, details.split(", ").collect()),
            None => (rest, Vec::new()),
        };
        let pid = first.strip_prefix("(pid ").and_then(|rest| rest.split(')').next()?.parse().ok());
        // For a service that it cannot query it prints the reason instead of a time.
        let is_known = matches!(word, "run" | "down" | "finish");
        let details = if is_known { details } else { vec![rest] };
        let details = details.into_iter().map(|one| file::printable_within(one, TEXT)).collect();
        Some(Self { dir: dir.to_path_buf(), word: file::printable(word), pid, details })
    }

    fn says(&self, detail: &str) -> bool {
        self.details.iter().any(|one| one == detail)
    }

    /// Whether runit would start it again if it ended now.
    fn wants_up(&self) -> bool {
        match self.word.as_str() {
            "run" | "finish" => !self.says("want down"),
            "down" => self.says("want up"),
            _ => false,
        }
    }

    /// Whether it was ordered to end and has not done so yet.
    fn is_ending(&self) -> bool {
        self.details.iter().any(|one| one.starts_with("got "))
    }

    fn left_alone(&self) -> Option<String> {
        Some(match self.word.as_str() {
            "run" if self.says("paused") => "it is paused".to_string(),
            // `sv once`: it is not started again after it ends.
            "run" if self.says("want down") && !self.is_ending() => "it runs once".to_string(),
            "run" | "down" | "finish" => return None,
            _ => self.details.join(", "),
        })
    }

    fn condition(&self) -> Condition {
        let runs = self.word == "run";
        let up = runs && !self.is_ending();
        Condition {
            up,
            done: false,
            // A service that is ending and not wanted is down once it has ended, and stays down.
            at_rest: !up && !self.wants_up(),
            // runit never gives up a service: one that is down was stopped.
            failed: false,
            left_alone: self.left_alone(),
            state: self.in_words(),
            main_pid: self.pid.filter(|_| runs),
            // runit does not count restarts; a changed pid reveals them.
            restarts: 0,
        }
    }

    /// The state without the time, which would make any two states differ.
    fn in_words(&self) -> String {
        let words = std::iter::once(&self.word).chain(&self.details);
        words.map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests;
