//! systemd, asked and told by `systemctl`: the system's, or for an ordinary user his own.

use std::collections::HashMap;
use std::time::Duration;

use super::condition::Condition;
use super::{Restart, ServiceError, last_lines};
use crate::host::command::CommandError;
use crate::host::file::printable;
use crate::host::{Program, Root, user};

/// systemd ends a stop and a start by itself (90 s each, unless the unit says otherwise);
/// this is for a unit that sets no limit.
pub(super) const RESTART_LIMIT: Duration = Duration::from_secs(300);

/// A question is answered within this, or PID 1 hangs.
const QUESTION_LIMIT: Duration = Duration::from_secs(25);

/// What a unit is asked for.
const PROPERTIES: [&str; 11] = [
    "LoadState",
    "ActiveState",
    "SubState",
    "Type",
    "MainPID",
    "NRestarts",
    "Result",
    "ExecMainStatus",
    "Job",
    "NeedDaemonReload",
    "InvocationID",
];

/// Whether systemd runs this machine (`sd_booted(3)`).
pub(super) fn is_running(root: &Root) -> bool {
    root.at("/run/systemd/system").is_dir()
}

/// How a unit is.
pub(super) fn condition(root: &Root, unit: &str) -> Result<Condition, ServiceError> {
    Ok(Unit::ask(root, unit)?.condition())
}

/// Restarts a unit. A oneshot that is not active is left alone: it is at work, or has ended
/// it, and doing it again is not ours to decide.
pub(super) fn restart(root: &Root, unit: &str) -> Result<Restart, ServiceError> {
    let before = Unit::ask(root, unit)?;
    let load = before.get("LoadState");
    if load != "loaded" {
        return Err(ServiceError::NotLoaded { unit: unit.to_string(), state: load.to_string() });
    }
    if before.get("Type") == "oneshot" && before.get("ActiveState") != "active" {
        return Ok(Restart::LeftAlone);
    }
    if before.get("NeedDaemonReload") == "yes" {
        systemctl(root)?.arg("daemon-reload").run()?;
    }
    // A unit that failed too often is refused until its counter is set back. The counter
    // also counts our own restarts, so it is set back for a running one too.
    systemctl(root)?.args(["reset-failed", "--", unit]).finish()?;
    match systemctl(root)?.limit(RESTART_LIMIT).args(["restart", "--", unit]).run() {
        // It was started and failed: how it is, and what it said, is for the caller to ask.
        Err(CommandError::Failed { .. }) if Unit::ask(root, unit)?.is_another_run(&before) => {
            Ok(Restart::Done)
        }
        Err(error) => Err(error.into()),
        Ok(_) => Ok(Restart::Done),
    }
}

/// Stops a unit. A oneshot is left alone: it ends by itself.
pub(super) fn stop(root: &Root, unit: &str) -> Result<Restart, ServiceError> {
    if Unit::ask(root, unit)?.get("Type") == "oneshot" {
        return Ok(Restart::LeftAlone);
    }
    systemctl(root)?.limit(RESTART_LIMIT).args(["stop", "--", unit]).run()?;
    Ok(Restart::Done)
}

/// The last lines that the unit's own processes left in the journal; those of the manager
/// about the unit, where its processes left none.
pub(super) fn last_words(root: &Root, unit: &str) -> Vec<String> {
    let ask = |selection: &[&str]| {
        Program::named(root, "journalctl")
            .asks()
            .limit(QUESTION_LIMIT)
            .args(["--no-pager", "--quiet", "--output=cat", "--lines=5"])
            .args(selection)
            .run()
            .map(|finished| last_lines(&finished.text()))
            .unwrap_or_default()
    };
    let (field, option) = match root.user() {
        None => ("_SYSTEMD_UNIT", "--unit"),
        Some(_) => ("_SYSTEMD_USER_UNIT", "--user-unit"),
    };
    let own = ask(&[&format!("{field}={unit}")]);
    if own.is_empty() { ask(&[&format!("{option}={unit}")]) } else { own }
}

pub(super) fn systemctl(root: &Root) -> Result<Program, ServiceError> {
    if !is_running(root) {
        return Err(ServiceError::NoSystemd);
    }
    let program = Program::named(root, "systemctl")
        .limit(QUESTION_LIMIT)
        .args(["--no-pager", "--no-ask-password"]);
    Ok(match root.user() {
        None => program,
        Some(uid) => program.arg("--user").env("XDG_RUNTIME_DIR", user::runtime(uid)),
    })
}

/// What `systemctl show` says of a unit.
pub(super) struct Unit(HashMap<String, String>);

impl Unit {
    fn ask(root: &Root, unit: &str) -> Result<Self, ServiceError> {
        let answer = systemctl(root)?
            .asks()
            .arg("show")
            .args(PROPERTIES.map(|property| format!("--property={property}")))
            .args(["--", unit])
            .run()?;
        Ok(Self::read(&answer.text()))
    }

    pub(super) fn read(answer: &str) -> Self {
        let properties = answer.lines().filter_map(|line| line.split_once('='));
        Self(properties.map(|(key, value)| (key.to_string(), value.to_string())).collect())
    }

    fn get(&self, property: &str) -> &str {
        self.0.get(property).map_or("", String::as_str)
    }

    fn number(&self, property: &str) -> Option<u32> {
        self.get(property).parse().ok()
    }

    /// Whether systemd started it between the two looks.
    fn is_another_run(&self, before: &Self) -> bool {
        let run = self.get("InvocationID");
        !run.is_empty() && run != before.get("InvocationID")
    }

    pub(super) fn condition(&self) -> Condition {
        let (active, sub) = (self.get("ActiveState"), self.get("SubState"));
        let is_queued = self.number("Job").is_some_and(|job| job != 0);
        // A oneshot without RemainAfterExit has done its work when it is inactive; it is
        // not up then, and nothing is wrong with it.
        let is_done = active == "inactive"
            && self.get("Type") == "oneshot"
            && self.get("Result") == "success";
        Condition {
            up: matches!(active, "active" | "reloading" | "refreshing"),
            done: is_done && !is_queued,
            settled: matches!(active, "failed" | "inactive") && !is_queued,
            failed: active == "failed",
            state: printable(self.words(active, sub)),
            main_pid: self.number("MainPID").filter(|pid| *pid != 0),
            restarts: self.number("NRestarts").unwrap_or(0),
        }
    }

    /// `active (running)`, `failed (exit-code, status 3)`, `not-found`: systemd's own words.
    fn words(&self, active: &str, sub: &str) -> String {
        match (self.get("LoadState"), active) {
            ("loaded", "failed" | "activating") if self.get("Result") != "success" => {
                let status = self.get("ExecMainStatus");
                let sub = if sub == active { String::new() } else { format!("{sub}: ") };
                format!("{active} ({sub}{}, status {status})", self.get("Result"))
            }
            ("loaded", _) => format!("{active} ({sub})"),
            (load, _) => load.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(properties: &str) -> Condition {
        Unit::read(properties).condition()
    }

    #[test]
    fn a_running_service_is_up() {
        // `systemctl show` of systemd 257.
        let condition = shown(
            "Type=simple\nMainPID=363\nResult=success\nNRestarts=0\nExecMainStatus=0\n\
             LoadState=loaded\nActiveState=active\nSubState=running\nJob=\nNeedDaemonReload=no\n",
        );
        assert_eq!(
            condition,
            Condition {
                up: true,
                done: false,
                settled: false,
                failed: false,
                state: "active (running)".into(),
                main_pid: Some(363),
                restarts: 0,
            }
        );
    }

    #[test]
    fn a_service_between_two_attempts_is_not_up_and_not_at_rest() {
        let condition = shown(
            "Type=simple\nMainPID=0\nResult=exit-code\nNRestarts=4\nExecMainStatus=3\n\
             LoadState=loaded\nActiveState=activating\nSubState=auto-restart\nJob=\n",
        );
        assert!(!condition.up && !condition.settled, "{condition:?}");
        assert_eq!(condition.state, "activating (auto-restart: exit-code, status 3)");
        assert_eq!((condition.main_pid, condition.restarts), (None, 4));
    }

    #[test]
    fn a_failed_service_is_at_rest_unless_a_job_waits_for_it() {
        let failed = "LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=signal\n\
                      ExecMainStatus=11\nType=simple\n";
        let condition = shown(failed);
        assert!(condition.settled && !condition.up);
        assert_eq!(condition.state, "failed (signal, status 11)");
        assert!(!shown(&format!("{failed}Job=211\n")).settled);
    }

    #[test]
    fn a_oneshot_that_ended_well_is_done_and_not_up() {
        let condition = shown(
            "LoadState=loaded\nActiveState=inactive\nSubState=dead\nType=oneshot\nResult=success\n",
        );
        assert!(condition.done && !condition.up);
    }

    #[test]
    fn a_unit_that_is_not_there_is_said_to_be_not_found() {
        let condition = shown("LoadState=not-found\nActiveState=inactive\nSubState=dead\n");
        assert_eq!(condition.state, "not-found");
        assert!(!condition.up && !condition.done);
    }

    /// A root whose systemctl notes how it was called and answers `shown`.
    fn machine(shown: &str) -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        std::fs::create_dir_all(at("run/systemd/system")).unwrap();
        std::fs::create_dir_all(at("usr/bin")).unwrap();
        std::fs::write(at("shown"), shown).unwrap();
        let script = format!(
            "#!/bin/sh\nshift 2\necho \"$@\" >>{folder}/calls\n\
             case $1 in\n\
             show) cat {folder}/shown; cat {folder}/calls | grep -c ^restart | sed s/^/InvocationID=/;;\n\
             reset-failed) exit 1;;\n\
             restart) grep -q FragmentPath=/bad {folder}/shown && exit 1;;\n\
             esac; exit 0\n",
            folder = folder.path().display()
        );
        std::fs::write(at("script"), script).unwrap();
        // Written by another process: a file that a thread of ours still holds open for
        // writing, or one of its children does, cannot be run.
        let install = Program::new("/usr/bin/install").arg("-m755");
        install.args([at("script"), at("usr/bin/systemctl")]).run().unwrap();
        let root = Root::new(folder.path());
        (folder, root)
    }

    #[test]
    fn a_restart_reloads_changed_units_and_forgives_past_failures() {
        let (folder, root) =
            machine("LoadState=loaded\nActiveState=failed\nNeedDaemonReload=yes\n");
        assert_eq!(restart(&root, "web.service").unwrap(), Restart::Done);
        let calls = std::fs::read_to_string(folder.path().join("calls")).unwrap();
        let calls: Vec<_> = calls.lines().skip(1).collect();
        assert_eq!(
            calls,
            ["daemon-reload", "reset-failed -- web.service", "restart -- web.service"]
        );
    }

    #[test]
    fn a_unit_that_is_masked_or_gone_is_not_restarted() {
        for state in ["masked", "not-found"] {
            let (folder, root) = machine(&format!("LoadState={state}\nActiveState=inactive\n"));
            let error = restart(&root, "web.service").unwrap_err().to_string();
            assert_eq!(error, format!("systemd cannot restart web.service: the unit is {state}"));
            let calls = std::fs::read_to_string(folder.path().join("calls")).unwrap();
            assert_eq!(calls.lines().count(), 1, "{calls}");
        }
    }

    #[test]
    fn a_oneshot_is_not_run_again_and_what_is_down_is_started() {
        for (shown, left) in [
            ("LoadState=loaded\nActiveState=activating\nType=oneshot\n", Restart::LeftAlone),
            ("LoadState=loaded\nActiveState=inactive\nType=oneshot\n", Restart::LeftAlone),
            ("LoadState=loaded\nActiveState=failed\nType=oneshot\n", Restart::LeftAlone),
            ("LoadState=loaded\nActiveState=active\nType=oneshot\n", Restart::Done),
            ("LoadState=loaded\nActiveState=inactive\n", Restart::Done),
            ("LoadState=loaded\nActiveState=active\n", Restart::Done),
        ] {
            let (_folder, root) = machine(shown);
            assert_eq!(restart(&root, "web.service").unwrap(), left, "{shown}");
        }
    }

    #[test]
    fn a_unit_that_fails_to_start_was_restarted_all_the_same() {
        let unit = "LoadState=loaded\nActiveState=active\nFragmentPath=";
        let (_folder, root) = machine(&format!("{unit}/bad\n"));
        assert_eq!(restart(&root, "web.service").unwrap(), Restart::Done);
    }

    #[test]
    fn a_machine_without_systemd_is_a_clear_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = condition(&Root::new(folder.path()), "web.service").unwrap_err();
        assert_eq!(error.to_string(), "systemd does not run this machine");
    }
}
