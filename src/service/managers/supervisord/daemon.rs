//! One supervisord and its programs.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::configuration::{self, Server};
use super::http::{self, HttpError};
use super::xml::{self, Reply, Value};
use crate::host::clock::{Deadline, wait_until};
use crate::host::fault::{Weakness, weakened};
use crate::host::socket::Connection;
use crate::host::{Root, file};
use crate::service::condition::Condition;
use crate::service::error::{NameError, ServiceError};

/// How long to wait for an absent supervisord. An upgrade of its package restarts it in the
/// middle of a transaction, which takes two to three seconds, and longer if programs stop
/// slowly.
pub(super) const ABSENCE: Duration = Duration::from_secs(20);

/// The limit of one call; none of our calls waits for a program.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// How often it is polled.
const POLL: Duration = Duration::from_millis(100);

/// How long to wait for a program's end beyond its own `stopwaitsecs`.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// The longest name. Supervisord sets no limit, but nobody chooses a longer one.
const LONGEST_NAME: usize = 255;

/// How much of supervisord's text about a program is shown.
const TEXT: usize = 400;

/// The fault codes of supervisord that venvguard handles.
const SHUTTING_DOWN: i64 = 6;
pub(super) const BAD_NAME: i64 = 10;
const ALREADY_STARTED: i64 = 60;
pub(super) const NOT_RUNNING: i64 = 70;

#[derive(Debug, thiserror::Error)]
pub(super) enum SupervisordError {
    #[error("no supervisord answers at {}: {source}", .socket.display())]
    Absent { socket: PathBuf, source: io::Error },
    #[error("the supervisord at {} cannot be trusted: {reason}", .socket.display())]
    NotTrusted { socket: PathBuf, reason: String },
    #[error("cannot query the supervisord at {}: {source}", .socket.display())]
    Http { socket: PathBuf, source: HttpError },
    #[error("the supervisord at {} does not understand {method}", .socket.display())]
    Malformed { socket: PathBuf, method: &'static str },
    #[error("supervisord refuses {method}: {}", file::printable_within(.text, TEXT))]
    Fault { method: &'static str, code: i64, text: String },
    #[error("supervisord knows no program {0}")]
    UnknownProgram(String),
    #[error("{program} did not stop within {} s (it is {state})", .limit.as_secs())]
    DoesNotStop { program: String, state: String, limit: Duration },
}

impl SupervisordError {
    /// Whether supervisord may just be starting or stopping.
    fn may_pass(&self) -> bool {
        match self {
            Self::Absent { .. } | Self::Fault { code: SHUTTING_DOWN, .. } => true,
            // It went away while handling the call.
            Self::Http { source: HttpError::Io(error), .. } => matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe
            ),
            _ => false,
        }
    }

    pub(super) fn is_fault(&self, wanted: i64) -> bool {
        matches!(self, Self::Fault { code, .. } if *code == wanted)
    }
}

impl From<SupervisordError> for ServiceError {
    fn from(error: SupervisordError) -> Self {
        Self::of_manager(error)
    }
}

/// Retries while supervisord may just be starting, at most for `patience`.
pub(super) fn patiently<T>(
    patience: Duration,
    ask: impl Fn() -> Result<T, SupervisordError>,
) -> Result<T, SupervisordError> {
    let mut answer = ask();
    wait_until(Deadline::after(patience), POLL, || {
        if !matches!(&answer, Err(error) if error.may_pass()) {
            return true;
        }
        answer = ask();
        false
    });
    answer
}

/// A program that supervisord knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Supervised {
    pub(super) name: String,
    pub(super) pid: Option<u32>,
    /// The command line, as its configuration writes it.
    pub(super) command: String,
}

/// A supervisord at its socket.
pub(super) struct Daemon<'a> {
    pub(super) root: &'a Root,
    pub(super) server: Server,
}

/// Supervisord's information about one program.
pub(super) struct State(pub(super) Value);

impl State {
    fn name(&self) -> &str {
        self.0.text("statename").unwrap_or("UNKNOWN")
    }

    fn is_at_rest(&self) -> bool {
        matches!(self.name(), "STOPPED" | "EXITED" | "FATAL" | "UNKNOWN")
    }

    fn pid(&self) -> Option<u32> {
        self.0.number("pid").and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0)
    }

    pub(super) fn condition(&self) -> Condition {
        let error = self.0.text("spawnerr").unwrap_or_default();
        let state = if error.is_empty() || self.name() == "RUNNING" {
            self.name().to_string()
        } else {
            format!("{} ({error})", self.name())
        };
        let state = file::printable_within(&state, TEXT);
        Condition {
            up: self.name() == "RUNNING",
            done: false,
            at_rest: self.is_at_rest(),
            failed: matches!(self.name(), "FATAL" | "EXITED" | "UNKNOWN" | "BACKOFF"),
            left_alone: None,
            state,
            main_pid: self.pid(),
            // Supervisord does not count restarts; a changed pid reveals them.
            restarts: 0,
        }
    }
}

impl<'a> Daemon<'a> {
    /// The supervisord that knows `program`, and the state of the program.
    pub(super) fn of(
        root: &'a Root,
        program: &str,
        patience: Duration,
    ) -> Result<(Self, State), SupervisordError> {
        // Ask all of them before waiting for one.
        patiently(patience, || {
            let mut complaint = SupervisordError::UnknownProgram(program.to_string());
            for server in configuration::servers(root) {
                let daemon = Self { root, server };
                match daemon.state(program) {
                    Ok(state) => return Ok((daemon, state)),
                    Err(error) if error.is_fault(BAD_NAME) => {}
                    Err(error) => complaint = error,
                }
            }
            Err(complaint)
        })
    }

    fn state(&self, program: &str) -> Result<State, SupervisordError> {
        self.call("supervisor.getProcessInfo", &[Value::Text(program.to_string())]).map(State)
    }

    pub(super) fn stop(&self, program: &str) -> Result<(), SupervisordError> {
        // Without waiting: a program that stops slowly would block the call.
        let arguments = [Value::Text(program.to_string()), Value::Truth(false)];
        match self.call("supervisor.stopProcess", &arguments) {
            Err(error) if !error.is_fault(NOT_RUNNING) && !error.may_pass() => Err(error),
            _ => self.await_rest(program),
        }
    }

    pub(super) fn start(&self, program: &str) -> Result<(), SupervisordError> {
        let name = || Value::Text(program.to_string());
        let start = || self.call("supervisor.startProcess", &[name(), Value::Truth(false)]);
        match patiently(ABSENCE, start) {
            // Supervisord started it first, or was itself restarted in between.
            Err(error) if !error.is_fault(ALREADY_STARTED) => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether a program has ended with one of its `exitcodes`. Supervisord restarts a program with
    /// `autorestart=true` on its own, so that it does not stay in this state.
    pub(super) fn has_ended_as_expected(&self, program: &str, state: &State) -> bool {
        let Some(status) = state.0.number("exitstatus").filter(|_| state.name() == "EXITED") else {
            return false;
        };
        let configuration = self.configuration().unwrap_or_default();
        match configuration.get(program).and_then(|own| own.list("exitcodes")) {
            Some(expected) => expected.contains(&Value::Number(status)),
            // A supervisord before 3.4 does not report this; the default then is 0.
            None => status == 0,
        }
    }

    fn await_rest(&self, program: &str) -> Result<(), SupervisordError> {
        let configuration = self.configuration().unwrap_or_default();
        let configured = configuration.get(program).and_then(|c| c.number("stopwaitsecs"));
        let configured = configured.and_then(|seconds| seconds.try_into().ok()).unwrap_or(10);
        let limit = Duration::from_secs(configured) + STOP_GRACE;
        let mut last = Ok(());
        wait_until(Deadline::after(limit), POLL, || match self.state(program) {
            Ok(state) if !state.is_at_rest() => {
                let (program, state) = (program.to_string(), state.name().to_string());
                last = Err(SupervisordError::DoesNotStop { program, state, limit });
                false
            }
            // A supervisord that went away takes its programs with it.
            other => {
                last = other.map(|_| ()).or_else(|e| if e.may_pass() { Ok(()) } else { Err(e) });
                true
            }
        });
        last
    }

    pub(super) fn programs(&self) -> Result<Vec<Supervised>, SupervisordError> {
        let configuration = self.configuration()?;
        let Value::List(states) = self.call("supervisor.getAllProcessInfo", &[])? else {
            return Err(self.malformed("supervisor.getAllProcessInfo"));
        };
        let known = states.into_iter().filter_map(|state| {
            let name = name_in(&state)?;
            let own = configuration.get(&name);
            let command = own.and_then(|own| own.text("command")).unwrap_or_default().to_string();
            Some(Supervised { pid: State(state).pid(), command, name })
        });
        Ok(known.collect())
    }

    /// The configuration of the programs by name.
    pub(super) fn configuration(&self) -> Result<HashMap<String, Value>, SupervisordError> {
        match self.call("supervisor.getAllConfigInfo", &[])? {
            Value::List(all) => {
                Ok(all.into_iter().filter_map(|one| Some((name_in(&one)?, one))).collect())
            }
            _ => Err(self.malformed("supervisor.getAllConfigInfo")),
        }
    }

    pub(super) fn call(
        &self,
        method: &'static str,
        arguments: &[Value],
    ) -> Result<Value, SupervisordError> {
        let mut connection = self.connect()?;
        let body = xml::call(method, arguments);
        let answer =
            http::post(&mut connection, self.server.user.as_ref(), &body).map_err(|source| {
                SupervisordError::Http { socket: self.server.socket.clone(), source }
            })?;
        match xml::reply(&answer).ok_or_else(|| self.malformed(method))? {
            Reply::Value(value) => Ok(value),
            Reply::Fault { code, text } => Err(SupervisordError::Fault { method, code, text }),
        }
    }

    /// Connects, and makes sure that root listens, according to the kernel. The owner of the
    /// socket's file proves less, since `chown=` in the configuration can change it.
    fn connect(&self) -> Result<Connection, SupervisordError> {
        let socket = &self.server.socket;
        let failed = |source: io::Error| {
            let socket = socket.clone();
            match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    SupervisordError::Absent { socket, source }
                }
                _ => SupervisordError::Http { socket, source: source.into() },
            }
        };
        let deadline = Deadline::after(CALL_LIMIT);
        let connection = Connection::open(&self.root.at(socket), deadline).map_err(failed)?;
        let peer = connection.peer().map_err(failed)?;
        let is_trusted = peer == 0 || peer == rustix::process::geteuid().as_raw();
        if !is_trusted && !weakened(Weakness::BelieveAnyListener) {
            let reason = format!("it runs as user {peer}, not as root");
            return Err(SupervisordError::NotTrusted { socket: socket.clone(), reason });
        }
        Ok(connection)
    }

    fn malformed(&self, method: &'static str) -> SupervisordError {
        SupervisordError::Malformed { socket: self.server.socket.clone(), method }
    }
}

/// The name of the program in a record of supervisord.
pub(super) fn name_in(record: &Value) -> Option<String> {
    program_name(record.text("group")?, record.text("name")?).ok()
}

/// A program's full name. A program that is alone in its group has a simple name, as in
/// supervisorctl.
pub(super) fn program_name(group: &str, name: &str) -> Result<String, NameError> {
    let full = if group == name { name.to_string() } else { format!("{group}:{name}") };
    // Refuse what supervisord 4 refuses itself, control characters, `*`, which stands for a
    // whole group in its calls, and anything that cannot be printed unescaped.
    let fits = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && file::printable(part) == part
            && !part.contains(|c: char| c.is_whitespace() || ":/*".contains(c))
    };
    if full.len() <= LONGEST_NAME && fits(group) && fits(name) {
        Ok(full)
    } else {
        let problem = "is not the name of a supervisord program (PROGRAM or GROUP:PROGRAM)";
        Err(NameError::new(full, problem))
    }
}
