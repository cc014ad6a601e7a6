//! Supervisord, asked and told by XML-RPC over its Unix socket.

mod configuration;
#[cfg(test)]
pub(crate) mod fake;
mod http;
#[cfg(test)]
mod input;
mod xml;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use self::configuration::Server;
use self::http::HttpError;
use self::xml::{Reply, Value};
use crate::host::clock::{Deadline, wait_until};
use crate::host::fault::{Weakness, weakened};
use crate::host::socket::Connection;
use crate::host::{Root, file};
use crate::service::condition::Condition;
use crate::service::{Restart, Service, ServiceError, last_lines};

/// One call; none that we make waits for a program.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// How long a supervisord that is not there is waited for. Its package's upgrade restarts
/// it in the midst of a transaction, which takes two to three seconds and longer where
/// programs stop slowly.
const ABSENCE: Duration = Duration::from_secs(20);

/// How often it is asked while something is waited for.
const POLL: Duration = Duration::from_millis(100);

/// How long beyond its own `stopwaitsecs` a program's end is waited for.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// So much of what supervisord says about a program is shown.
const TEXT: usize = 400;

/// Faults of supervisord's that mean something to us.
const SHUTTING_DOWN: i64 = 6;
const BAD_NAME: i64 = 10;
const ALREADY_STARTED: i64 = 60;
const NOT_RUNNING: i64 = 70;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SupervisordError {
    #[error("no supervisord answers at {}: {source}", .socket.display())]
    Absent { socket: PathBuf, source: io::Error },
    #[error("the supervisord at {} cannot be trusted: {reason}", .socket.display())]
    NotTrusted { socket: PathBuf, reason: String },
    #[error("the supervisord at {} cannot be asked: {source}", .socket.display())]
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
            // It went away with the call in its hands.
            Self::Http { source: HttpError::Io(error), .. } => matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe
            ),
            _ => false,
        }
    }

    fn is_fault(&self, wanted: i64) -> bool {
        matches!(self, Self::Fault { code, .. } if *code == wanted)
    }
}

/// A program that supervisord knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Supervised {
    pub(crate) service: Service,
    pub(crate) pid: Option<u32>,
    /// The command line, as its configuration writes it.
    pub(crate) command: String,
}

/// All programs of all supervisords, and which of these could not be asked. One that does
/// not run has none; one that is waited for has `patience` to appear.
pub(crate) fn programs(
    root: &Root,
    patience: Duration,
) -> (Vec<Supervised>, Vec<SupervisordError>) {
    let (mut programs, mut errors) = (Vec::new(), Vec::new());
    for server in configuration::servers(root) {
        let daemon = Daemon { root, server };
        match patiently(patience, || daemon.programs()) {
            Ok(found) => programs.extend(found),
            Err(SupervisordError::Absent { .. }) if patience.is_zero() => {}
            Err(error) => errors.push(error),
        }
    }
    (programs, errors)
}

/// How a program is.
pub(crate) fn condition(root: &Root, program: &str) -> Result<Condition, ServiceError> {
    let (daemon, state) = Daemon::of(root, program, Duration::ZERO)?;
    let condition = state.condition();
    if !daemon.has_ended_as_expected(program, &state) {
        return Ok(condition);
    }
    Ok(Condition { failed: false, left_alone: Some("it has ended".to_string()), ..condition })
}

/// Stops a program, or does nothing where it is at rest.
pub(crate) fn stop(root: &Root, program: &str) -> Result<Restart, ServiceError> {
    Daemon::of(root, program, ABSENCE)?.0.stop(program)?;
    Ok(Restart::Done)
}

/// Stops and starts a program, or starts it where it is at rest; but one that has ended as its
/// configuration expects has done its work.
pub(crate) fn restart(root: &Root, program: &str) -> Result<Restart, ServiceError> {
    let (daemon, state) = Daemon::of(root, program, ABSENCE)?;
    if daemon.has_ended_as_expected(program, &state) {
        return Ok(Restart::LeftAlone);
    }
    daemon.stop(program)?;
    let name = || Value::Text(program.to_string());
    let start = || daemon.call("supervisor.startProcess", &[name(), Value::Truth(false)]);
    match patiently(ABSENCE, start) {
        // Supervisord itself was quicker, or was itself restarted meanwhile.
        Err(error) if !error.is_fault(ALREADY_STARTED) => Err(error.into()),
        _ => Ok(Restart::Done),
    }
}

/// How long a program has to run before supervisord itself calls it running.
pub(crate) fn start_time(root: &Root, program: &str) -> Duration {
    let configured = Daemon::of(root, program, Duration::ZERO)
        .ok()
        .and_then(|(daemon, _)| daemon.configuration().ok()?.get(program)?.number("startsecs"));
    Duration::from_secs(configured.and_then(|seconds| seconds.try_into().ok()).unwrap_or(1))
}

/// The last lines of a program's log.
pub(crate) fn last_words(root: &Root, program: &str) -> Vec<String> {
    let Ok((daemon, _)) = Daemon::of(root, program, Duration::ZERO) else { return Vec::new() };
    // Where stderr goes with stdout, only the latter has a log.
    ["supervisor.readProcessStderrLog", "supervisor.readProcessStdoutLog"]
        .into_iter()
        .filter_map(|method| {
            let tail = [Value::Text(program.to_string()), Value::Number(-2000), Value::Number(0)];
            match daemon.call(method, &tail) {
                Ok(Value::Text(log)) => Some(last_lines(&log)),
                _ => None,
            }
        })
        .find(|lines| !lines.is_empty())
        .unwrap_or_default()
}

/// Asks again while supervisord may just be starting, for as long as `patience` lasts.
fn patiently<T>(
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

/// A supervisord at its socket.
struct Daemon<'a> {
    root: &'a Root,
    server: Server,
}

/// What supervisord tells of one program.
struct State(Value);

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

    fn condition(&self) -> Condition {
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
            failed: matches!(self.name(), "FATAL" | "EXITED" | "UNKNOWN"),
            left_alone: None,
            state,
            main_pid: self.pid(),
            // Supervisord keeps no count; a changed pid tells.
            restarts: 0,
        }
    }
}

impl<'a> Daemon<'a> {
    /// The supervisord that knows `program`, and how the program is.
    fn of(
        root: &'a Root,
        program: &str,
        patience: Duration,
    ) -> Result<(Self, State), SupervisordError> {
        // All are asked before one of them is waited for.
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

    fn stop(&self, program: &str) -> Result<(), SupervisordError> {
        // Without waiting: the end of a program that stops slowly would hold the call up.
        let arguments = [Value::Text(program.to_string()), Value::Truth(false)];
        match self.call("supervisor.stopProcess", &arguments) {
            Err(error) if !error.is_fault(NOT_RUNNING) && !error.may_pass() => Err(error),
            _ => self.await_rest(program),
        }
    }

    /// Whether a program has ended with one of its `exitcodes`. Supervisord starts one with
    /// `autorestart=true` again by itself, so that it does not stay in this state.
    fn has_ended_as_expected(&self, program: &str, state: &State) -> bool {
        let Some(status) = state.0.number("exitstatus").filter(|_| state.name() == "EXITED") else {
            return false;
        };
        let configuration = self.configuration().unwrap_or_default();
        match configuration.get(program).and_then(|own| own.list("exitcodes")) {
            Some(expected) => expected.contains(&Value::Number(status)),
            // A supervisord before 3.4 does not tell; then 0 is expected by default.
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

    fn programs(&self) -> Result<Vec<Supervised>, SupervisordError> {
        let configuration = self.configuration()?;
        let Value::List(states) = self.call("supervisor.getAllProcessInfo", &[])? else {
            return Err(self.malformed("supervisor.getAllProcessInfo"));
        };
        let known = states.into_iter().filter_map(|state| {
            let service = service(&state)?;
            let own = configuration.get(service.name());
            let command = own.and_then(|own| own.text("command")).unwrap_or_default().to_string();
            Some(Supervised { pid: State(state).pid(), command, service })
        });
        Ok(known.collect())
    }

    /// The programs' configuration, by their names.
    fn configuration(&self) -> Result<HashMap<String, Value>, SupervisordError> {
        match self.call("supervisor.getAllConfigInfo", &[])? {
            Value::List(all) => Ok(all
                .into_iter()
                .filter_map(|one| Some((service(&one)?.name().to_string(), one)))
                .collect()),
            _ => Err(self.malformed("supervisor.getAllConfigInfo")),
        }
    }

    fn call(&self, method: &'static str, arguments: &[Value]) -> Result<Value, SupervisordError> {
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

    /// Connects, and makes sure that root listens. The kernel tells who does; who owns the
    /// socket's file says less, since `chown=` in the configuration may give it away.
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

/// Which service a record of supervisord's is about.
fn service(record: &Value) -> Option<Service> {
    Service::program(record.text("group")?, record.text("name")?).ok()
}

#[cfg(test)]
mod tests {
    use super::fake::FakeSupervisord;
    use super::*;

    #[test]
    fn programs_are_told_with_their_pids_and_commands() {
        let fake = FakeSupervisord::start(&[("pair", "dj", "RUNNING"), ("solo", "solo", "FATAL")]);
        let (programs, _) = programs(&fake.root(), Duration::ZERO);
        let shown: Vec<_> = programs.iter().map(|p| (p.service.to_string(), p.pid)).collect();
        let expected =
            [("supervisord:pair:dj".to_string(), Some(380)), ("supervisord:solo".into(), None)];
        assert_eq!(shown, expected);
        assert_eq!(programs[0].command, "/opt/v/dj/bin/uwsgi --master");
    }

    #[test]
    fn no_supervisord_has_no_programs() {
        let dir = tempfile::tempdir().unwrap();
        let (programs, errors) = programs(&Root::new(dir.path()), Duration::ZERO);
        assert!(programs.is_empty() && errors.is_empty());
    }

    #[test]
    fn a_program_is_stopped_to_its_end_and_started() {
        let fake = FakeSupervisord::start(&[("pair", "dj", "RUNNING")]);
        assert_eq!(restart(&fake.root(), "pair:dj").unwrap(), Restart::Done);
        assert_eq!(
            fake.told(),
            ["stopProcess pair:dj", "startProcess pair:dj"],
            "only these change anything"
        );
        let condition = condition(&fake.root(), "pair:dj").unwrap();
        assert!(condition.up && condition.main_pid != Some(380), "{condition:?}");
    }

    #[test]
    fn a_program_that_gave_up_is_started() {
        let fake = FakeSupervisord::start(&[("dj", "dj", "FATAL")]);
        assert_eq!(restart(&fake.root(), "dj").unwrap(), Restart::Done);
        assert_eq!(fake.told(), ["stopProcess dj", "startProcess dj"]);
    }

    #[test]
    fn a_program_that_ended_as_expected_is_not_started_again() {
        // The fake expects 0 and 3.
        for (state, is_over) in [("EXITED", true), ("EXITED 3", true), ("EXITED 1", false)] {
            let fake = FakeSupervisord::start(&[("migrate", "migrate", state)]);
            let condition = condition(&fake.root(), "migrate").unwrap();
            assert_eq!(condition.is_brought_back(), !is_over, "{condition:?}");
            assert!(!condition.is_restarted());
            let restart = restart(&fake.root(), "migrate").unwrap();
            assert_eq!(restart == Restart::LeftAlone, is_over, "{state}");
            assert_eq!(fake.told().is_empty(), is_over, "{:?}", fake.told());
        }
    }

    #[test]
    fn an_unknown_program_is_said_to_be_unknown() {
        let fake = FakeSupervisord::start(&[("dj", "dj", "RUNNING")]);
        let error = restart(&fake.root(), "web").unwrap_err().to_string();
        assert_eq!(error, "supervisord knows no program web");
    }

    #[test]
    fn a_supervisord_that_is_just_restarting_is_waited_for() {
        let fake =
            FakeSupervisord::start_late(&[("dj", "dj", "RUNNING")], Duration::from_millis(400));
        assert!(condition(&fake.root(), "dj").is_err(), "a mere question does not wait");
        assert_eq!(restart(&fake.root(), "dj").unwrap(), Restart::Done);
    }

    #[test]
    fn a_supervisord_that_is_away_does_not_hide_another_one() {
        let fake = FakeSupervisord::start(&[("dj", "dj", "RUNNING")]);
        let root = fake.root();
        std::fs::create_dir_all(root.at("/etc/supervisor")).unwrap();
        for (path, socket) in
            [("/etc/supervisor/supervisord.conf", "gone"), ("/etc/supervisord.conf", "supervisor")]
        {
            let text = format!("[unix_http_server]\nfile=/run/{socket}.sock\n");
            std::fs::write(root.at(path), text).unwrap();
        }
        assert!(condition(&root, "dj").unwrap().up);
        assert_eq!(programs(&root, Duration::ZERO).0.len(), 1);
    }

    #[test]
    fn the_last_words_of_a_program_are_those_in_its_log() {
        let fake = FakeSupervisord::start(&[("dj", "dj", "FATAL")]);
        let words = last_words(&fake.root(), "dj");
        assert_eq!(
            words,
            ["Traceback (most recent call last):", "ImportError: HAS_TLSv1_3 \u{fffd}[0m"]
        );
    }
}
