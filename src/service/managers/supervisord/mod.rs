//! Supervisord, controlled by XML-RPC over its Unix socket.

mod configuration;
mod daemon;
#[cfg(test)]
pub(crate) mod fake;
mod http;
#[cfg(test)]
mod input;
mod xml;

use std::path::Path;
use std::time::Duration;

use self::daemon::{ABSENCE, Daemon, Supervised, SupervisordError, patiently, program_name};
use self::xml::Value;
use super::{Discovered, Manager, Outcome};
use crate::host::Root;
use crate::service::condition::Condition;
use crate::service::discover::command_line::paths;
use crate::service::discover::process::{Process, Processes};
use crate::service::error::{NameError, ServiceError};

/// A supervisord younger than this may not listen yet; venvguard waits that long for it.
const START: Duration = Duration::from_secs(10);

/// The reason not to start a program that has done its work again.
const HAS_ENDED: &str = "it has ended";

/// The supervisord of the system.
#[derive(Debug)]
pub(in crate::service) struct Supervisord;

impl Manager for Supervisord {
    fn key(&self) -> &'static str {
        "supervisord"
    }

    fn placeholder(&self) -> &'static str {
        "PROGRAM"
    }

    fn parse(&self, name: &str) -> Result<String, NameError> {
        let (group, program) = name.split_once(':').unwrap_or((name, name));
        program_name(group, program)
    }

    fn family(&self, name: &str) -> Option<String> {
        name.split_once(':').map(|(group, _)| group.to_string())
    }

    fn discover(&self, root: &Root, processes: &Processes) -> Discovered {
        let (programs, errors) = programs(root, patience(processes));
        let trees = programs.iter().filter_map(|one| Some((one.pid?, Some(one.name.clone()))));
        Discovered {
            trees: trees.collect(),
            configured: programs.into_iter().map(|one| (one.name, paths(&one.command))).collect(),
            gaps: errors.iter().map(ToString::to_string).collect(),
            ..Discovered::default()
        }
    }

    fn condition(&self, root: &Root, name: &str) -> Result<Condition, ServiceError> {
        Ok(condition(root, name)?)
    }

    fn stop(&self, root: &Root, names: &[&str]) -> Vec<Result<Outcome, ServiceError>> {
        names.iter().map(|name| Ok(stop(root, name)?)).collect()
    }

    fn start(&self, root: &Root, names: &[&str]) -> Vec<Result<Outcome, ServiceError>> {
        names.iter().map(|name| Ok(start(root, name)?)).collect()
    }

    fn restart(&self, root: &Root, names: &[&str]) -> Vec<Result<Outcome, ServiceError>> {
        names.iter().map(|name| Ok(restart(root, name)?)).collect()
    }

    fn log(&self, root: &Root, name: &str) -> String {
        log(root, name)
    }

    fn start_time(&self, root: &Root, name: &str) -> Duration {
        start_time(root, name)
    }
}

/// All programs of all supervisords, and the errors of those that could not be queried. One that
/// does not run has no programs; `patience` is the time that one has to appear.
fn programs(root: &Root, patience: Duration) -> (Vec<Supervised>, Vec<SupervisordError>) {
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

fn condition(root: &Root, program: &str) -> Result<Condition, SupervisordError> {
    let (daemon, state) = Daemon::of(root, program, Duration::ZERO)?;
    let condition = state.condition();
    if !daemon.has_ended_as_expected(program, &state) {
        return Ok(condition);
    }
    Ok(Condition { failed: false, left_alone: Some(HAS_ENDED.to_string()), ..condition })
}

/// Stops a program, or does nothing if it is at rest.
fn stop(root: &Root, program: &str) -> Result<Outcome, SupervisordError> {
    Daemon::of(root, program, ABSENCE)?.0.stop(program)?;
    Ok(Outcome::Done)
}

/// Starts a program if it is at rest, unless it has ended as its configuration expects: then it
/// has done its work.
fn start(root: &Root, program: &str) -> Result<Outcome, SupervisordError> {
    let (daemon, state) = Daemon::of(root, program, ABSENCE)?;
    if daemon.has_ended_as_expected(program, &state) {
        return Ok(Outcome::LeftAlone(HAS_ENDED.to_string()));
    }
    daemon.start(program)?;
    Ok(Outcome::Done)
}

/// The same for a program that may be running, which is stopped first.
fn restart(root: &Root, program: &str) -> Result<Outcome, SupervisordError> {
    let (daemon, state) = Daemon::of(root, program, ABSENCE)?;
    if daemon.has_ended_as_expected(program, &state) {
        return Ok(Outcome::LeftAlone(HAS_ENDED.to_string()));
    }
    daemon.stop(program)?;
    daemon.start(program)?;
    Ok(Outcome::Done)
}

/// How long a program must run before supervisord itself reports it as running.
fn start_time(root: &Root, program: &str) -> Duration {
    let configured = Daemon::of(root, program, Duration::ZERO)
        .ok()
        .and_then(|(daemon, _)| daemon.configuration().ok()?.get(program)?.number("startsecs"));
    Duration::from_secs(configured.and_then(|seconds| seconds.try_into().ok()).unwrap_or(1))
}

/// The end of a program's log.
fn log(root: &Root, program: &str) -> String {
    let Ok((daemon, _)) = Daemon::of(root, program, Duration::ZERO) else { return String::new() };
    // If stderr is redirected to stdout, only the latter has a log.
    ["supervisor.readProcessStderrLog", "supervisor.readProcessStdoutLog"]
        .into_iter()
        .filter_map(|method| {
            let tail = [Value::Text(program.to_string()), Value::Number(-16_000), Value::Number(0)];
            match daemon.call(method, &tail) {
                Ok(Value::Text(log)) => Some(log),
                _ => None,
            }
        })
        .find(|log| !log.trim().is_empty())
        .unwrap_or_default()
}

/// How long to wait for a supervisord that does not answer: not at all, unless one was just
/// started (an upgrade of its package does that in the middle of a transaction).
fn patience(processes: &Processes) -> Duration {
    let is_supervisord = |process: &&Process| {
        let words = process.arguments.iter().take(3).map(Path::new);
        words.filter_map(Path::file_name).any(|name| name == "supervisord")
    };
    let is_young = |process: &Process| processes.age(process) < START;
    if processes.iter().filter(is_supervisord).any(is_young) { START } else { Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::fake::FakeSupervisord;
    use super::*;

    #[test]
    fn programs_are_listed_with_their_pids_and_commands() {
        let fake = FakeSupervisord::start(&[("pair", "dj", "RUNNING"), ("solo", "solo", "FATAL")]);
        let (programs, _) = programs(&fake.root(), Duration::ZERO);
        let shown: Vec<_> = programs.iter().map(|p| (p.name.clone(), p.pid)).collect();
        let expected = [("pair:dj".to_string(), Some(380)), ("solo".into(), None)];
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
        assert_eq!(restart(&fake.root(), "pair:dj").unwrap(), Outcome::Done);
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
        assert_eq!(restart(&fake.root(), "dj").unwrap(), Outcome::Done);
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
            assert_eq!(restart == Outcome::LeftAlone(HAS_ENDED.into()), is_over, "{state}");
            assert_eq!(fake.told().is_empty(), is_over, "{:?}", fake.told());
            start(&fake.root(), "migrate").unwrap();
            assert_eq!(fake.told().is_empty(), is_over, "{:?}", fake.told());
        }
    }

    #[test]
    fn an_unknown_program_is_reported_as_unknown() {
        let fake = FakeSupervisord::start(&[("dj", "dj", "RUNNING")]);
        let error = restart(&fake.root(), "web").unwrap_err().to_string();
        assert_eq!(error, "supervisord knows no program web");
    }

    #[test]
    fn a_supervisord_that_is_just_restarting_is_waited_for() {
        let fake =
            FakeSupervisord::start_late(&[("dj", "dj", "RUNNING")], Duration::from_millis(400));
        assert!(condition(&fake.root(), "dj").is_err(), "a mere query does not wait");
        assert_eq!(restart(&fake.root(), "dj").unwrap(), Outcome::Done);
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
        let words = Supervisord.last_words(&fake.root(), "dj");
        assert_eq!(
            words,
            ["Traceback (most recent call last):", "ImportError: HAS_TLSv1_3 \u{fffd}[0m"]
        );
    }
}
