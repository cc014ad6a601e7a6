//! systemd, asked and told by `systemctl`: the system's, or for an ordinary user his own.

use std::collections::HashMap;
use std::time::Duration;

use crate::host::command::CommandError;
use crate::host::file::printable;
use crate::host::{Program, Root, user};
use crate::service::condition::Condition;
use crate::service::{Restart, ServiceError, last_lines};

/// systemd ends a stop and a start by itself (90 s each, unless the unit says otherwise);
/// this is for a unit that sets no limit.
pub(crate) const RESTART_LIMIT: Duration = Duration::from_secs(300);

/// A question is answered within this, or PID 1 hangs.
const QUESTION_LIMIT: Duration = Duration::from_secs(25);

/// What a unit is asked for.
const PROPERTIES: [&str; 16] = [
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
    "TasksCurrent",
    "ControlGroup",
    "TriggeredBy",
    "RefuseManualStart",
    "RefuseManualStop",
];

/// Under this name [`Unit`] notes the socket that an instance serves one connection of;
/// systemd has no such property.
const CONNECTION_OF: &str = "venvguard:ConnectionOf";

/// Whether systemd runs this machine (`sd_booted(3)`).
pub(crate) fn is_running(root: &Root) -> bool {
    root.at("/run/systemd/system").is_dir()
}

/// How a unit is.
pub(crate) fn condition(root: &Root, unit: &str) -> Result<Condition, ServiceError> {
    Ok(Unit::ask(root, unit)?.condition())
}

/// Restarts a unit, unless that is not ours to do.
pub(crate) fn restart(root: &Root, unit: &str) -> Result<Restart, ServiceError> {
    let before = Unit::ask(root, unit)?;
    if before.left_alone().is_some() {
        return Ok(Restart::LeftAlone);
    }
    let load = before.get("LoadState");
    if load != "loaded" {
        return Err(ServiceError::NotLoaded { unit: unit.to_string(), state: load.to_string() });
    }
    if before.is("NeedDaemonReload") {
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

/// Stops a unit, unless [`Unit::is_stopped`] says otherwise.
pub(crate) fn stop(root: &Root, unit: &str) -> Result<Restart, ServiceError> {
    if !Unit::ask(root, unit)?.is_stopped() {
        return Ok(Restart::LeftAlone);
    }
    systemctl(root)?.limit(RESTART_LIMIT).args(["stop", "--", unit]).run()?;
    Ok(Restart::Done)
}

/// Whether a unit runs, though it was told to stop.
pub(crate) fn came_up_again(root: &Root, unit: &str) -> Result<bool, ServiceError> {
    let unit = Unit::ask(root, unit)?;
    let condition = unit.condition();
    Ok(unit.is_stopped() && (condition.up || condition.main_pid.is_some()))
}

/// The last lines that the unit's own processes left in the journal; those of the manager
/// about the unit, where its processes left none.
pub(crate) fn last_words(root: &Root, unit: &str) -> Vec<String> {
    let ask = |selection: &[&str]| {
        Program::named(root, "journalctl")
            .read_only()
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

pub(crate) fn systemctl(root: &Root) -> Result<Program, ServiceError> {
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

/// Whether a process is in a control group or below it, in the unified hierarchy or in
/// systemd's own. A group that is gone has none.
fn is_populated(root: &Root, group: &str) -> bool {
    let group = group.trim_start_matches('/');
    if group.is_empty() {
        return false;
    }
    let read = |hierarchy: &str, file: &str| {
        std::fs::read_to_string(root.at(hierarchy).join(group).join(file)).ok()
    };
    match read("/sys/fs/cgroup", "cgroup.events") {
        Some(events) => events.lines().any(|line| line == "populated 1"),
        None => read("/sys/fs/cgroup/systemd", "cgroup.procs")
            .is_some_and(|pids| !pids.trim().is_empty()),
    }
}

/// What `systemctl show` says of a unit.
pub(crate) struct Unit(HashMap<String, String>);

impl Unit {
    fn ask(root: &Root, unit: &str) -> Result<Self, ServiceError> {
        let show = |properties: &[&str], unit: &str| -> Result<Self, ServiceError> {
            let properties = properties.iter().map(|property| format!("--property={property}"));
            let program = systemctl(root)?.read_only().arg("show").args(properties);
            Ok(Self::read(&program.args(["--", unit]).run()?.text()))
        };
        let mut found = show(&PROPERTIES, unit)?;
        // systemd counts no tasks where TasksAccounting= is off, or the kernel's controller is
        // not at hand.
        if found.number("TasksCurrent").is_none() && found.get("SubState") == "exited" {
            let tasks = u32::from(is_populated(root, found.get("ControlGroup")));
            found.0.insert("TasksCurrent".to_string(), tasks.to_string());
        }
        // `Accept=yes` needs a template, and starts an instance of it for each connection.
        if unit.contains('@') {
            let sockets = found.get("TriggeredBy").split_whitespace().map(str::to_string);
            let sockets: Vec<String> = sockets.filter(|name| name.ends_with(".socket")).collect();
            for socket in sockets {
                if show(&["Accept"], &socket)?.is("Accept") {
                    found.0.insert(CONNECTION_OF.to_string(), socket);
                }
            }
        }
        Ok(found)
    }

    pub(crate) fn read(answer: &str) -> Self {
        let properties = answer.lines().filter_map(|line| line.split_once('='));
        Self(properties.map(|(key, value)| (key.to_string(), value.to_string())).collect())
    }

    fn get(&self, property: &str) -> &str {
        self.0.get(property).map_or("", String::as_str)
    }

    /// `systemctl show` writes every boolean as `yes` or `no`, however a unit file spells it.
    fn is(&self, property: &str) -> bool {
        self.get(property) == "yes"
    }

    fn number(&self, property: &str) -> Option<u32> {
        self.get(property).parse().ok()
    }

    /// Whether systemd started it between the two looks.
    fn is_another_run(&self, before: &Self) -> bool {
        let run = self.get("InvocationID");
        !run.is_empty() && run != before.get("InvocationID")
    }

    fn is_oneshot(&self) -> bool {
        self.get("Type") == "oneshot"
    }

    /// Whether it is stopped for a swap. What is left alone runs on, and so does a oneshot: once
    /// it is inactive, nothing tells that it left daemons behind and has to be run again.
    fn is_stopped(&self) -> bool {
        self.left_alone().is_none() && !self.is_oneshot()
    }

    fn is_active(&self) -> bool {
        matches!(self.get("ActiveState"), "active" | "reloading" | "refreshing")
    }

    /// Whether it is active by its word alone (`RemainAfterExit=yes`): what it ran has ended,
    /// and left no process behind. An init script's daemon may have left the unit.
    fn has_ended(&self) -> bool {
        let has_tasks = self.number("TasksCurrent").is_some_and(|tasks| tasks != 0);
        let (active, sub) = (self.get("ActiveState"), self.get("SubState"));
        (active, sub) == ("active", "exited") && self.get("Type") != "forking" && !has_tasks
    }

    /// Why a restart is not ours to make: it would do some work a second time, or systemd
    /// would refuse it.
    fn left_alone(&self) -> Option<String> {
        let connection = self.get(CONNECTION_OF);
        let refusal =
            ["RefuseManualStart", "RefuseManualStop"].into_iter().find(|one| self.is(one));
        let is_gone = self.get("LoadState") != "loaded" && self.is_active();
        Some(match (self.get("LoadState"), refusal) {
            ("masked", _) => "it is masked".to_string(),
            (load, _) if is_gone => format!("its unit is {}", printable(load)),
            (_, Some(refusal)) => format!("its unit has {refusal}=yes"),
            _ if !connection.is_empty() => {
                format!("it serves one connection of {}", printable(connection))
            }
            _ if self.has_ended() => "it has ended".to_string(),
            _ if self.is_oneshot() && !self.is_active() => {
                let is_over = matches!(self.get("ActiveState"), "inactive" | "failed");
                let word = if is_over { "that has ended" } else { "at work" };
                format!("it is a oneshot {word}")
            }
            _ => return None,
        })
    }

    pub(crate) fn condition(&self) -> Condition {
        let (active, sub) = (self.get("ActiveState"), self.get("SubState"));
        let is_queued = self.number("Job").is_some_and(|job| job != 0);
        // A oneshot without RemainAfterExit has done its work when it is inactive; it is
        // not up then, and nothing is wrong with it.
        let is_done = active == "inactive" && self.is_oneshot() && self.get("Result") == "success";
        let has_ended = self.has_ended();
        let is_at_rest = has_ended || matches!(active, "failed" | "inactive");
        Condition {
            up: self.is_active() && !has_ended,
            done: is_done && !is_queued,
            at_rest: is_at_rest && !is_queued,
            failed: active == "failed" && !self.is_oneshot(),
            left_alone: self.left_alone(),
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
                at_rest: false,
                failed: false,
                left_alone: None,
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
        assert!(!condition.up && !condition.at_rest, "{condition:?}");
        assert_eq!(condition.state, "activating (auto-restart: exit-code, status 3)");
        assert_eq!((condition.main_pid, condition.restarts), (None, 4));
    }

    #[test]
    fn a_failed_service_is_at_rest_unless_a_job_waits_for_it() {
        let failed = "LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=signal\n\
                      ExecMainStatus=11\nType=simple\n";
        let condition = shown(failed);
        assert!(condition.at_rest && !condition.up);
        assert_eq!(condition.state, "failed (signal, status 11)");
        assert!(!shown(&format!("{failed}Job=211\n")).at_rest);
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
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        std::fs::create_dir_all(at("run/systemd/system")).unwrap();
        std::fs::create_dir_all(at("usr/bin")).unwrap();
        std::fs::write(at("shown"), shown).unwrap();
        let script = format!(
            "#!/bin/sh\nshift 2\necho \"$@\" >>{dir}/calls\n\
             case $1 in\n\
             show) cat {dir}/shown; cat {dir}/calls | grep -c ^restart | sed s/^/InvocationID=/;;\n\
             reset-failed) exit 1;;\n\
             restart) grep -q FragmentPath=/bad {dir}/shown && exit 1;;\n\
             esac; exit 0\n",
            dir = dir.path().display()
        );
        std::fs::write(at("script"), script).unwrap();
        // Written by another process: a file that a thread of ours still holds open for
        // writing, or one of its children does, cannot be run.
        let install = Program::new("/usr/bin/install").arg("-m755");
        install.args([at("script"), at("usr/bin/systemctl")]).run().unwrap();
        let root = Root::new(dir.path());
        (dir, root)
    }

    #[test]
    fn a_restart_reloads_changed_units_and_forgives_past_failures() {
        let (dir, root) = machine("LoadState=loaded\nActiveState=failed\nNeedDaemonReload=yes\n");
        assert_eq!(restart(&root, "web.service").unwrap(), Restart::Done);
        let calls = std::fs::read_to_string(dir.path().join("calls")).unwrap();
        let calls: Vec<_> = calls.lines().skip(1).collect();
        assert_eq!(
            calls,
            ["daemon-reload", "reset-failed -- web.service", "restart -- web.service"]
        );
    }

    #[test]
    fn a_unit_that_is_masked_or_gone_is_not_restarted() {
        let (dir, root) = machine("LoadState=not-found\nActiveState=inactive\n");
        let error = restart(&root, "web.service").unwrap_err().to_string();
        assert_eq!(error, "systemd cannot restart web.service: the unit is not-found");
        let calls = std::fs::read_to_string(dir.path().join("calls")).unwrap();
        assert_eq!(calls.lines().count(), 1, "{calls}");
    }

    #[test]
    fn what_systemd_refuses_to_restart_is_left_alone_with_the_reason() {
        let running = "ActiveState=active\nSubState=running\nMainPID=7\n";
        for (unit, shown, why) in [
            ("web.service", "LoadState=masked\n", "it is masked"),
            ("web.service", "LoadState=not-found\n", "its unit is not-found"),
            (
                "web.service",
                "LoadState=loaded\nRefuseManualStop=yes\n",
                "its unit has RefuseManualStop=yes",
            ),
            (
                "web.service",
                "LoadState=loaded\nRefuseManualStart=yes\nRefuseManualStop=no\n",
                "its unit has RefuseManualStart=yes",
            ),
            (
                "app@3-10.0.0.1:80-10.0.0.2:4711.service",
                "LoadState=loaded\nTriggeredBy=app.socket\nAccept=yes\n",
                "it serves one connection of app.socket",
            ),
        ] {
            let (dir, root) = machine(&format!("{shown}{running}"));
            let found = condition(&root, unit).unwrap();
            assert_eq!(found.left_alone.as_deref(), Some(why));
            assert!(found.up && !found.is_restarted() && !found.is_brought_back(), "{found:?}");
            assert_eq!(restart(&root, unit).unwrap(), Restart::LeftAlone);
            let calls = std::fs::read_to_string(dir.path().join("calls")).unwrap();
            assert!(calls.lines().all(|call| call.starts_with("show")), "{calls}");
        }
    }

    #[test]
    fn a_socket_that_hands_itself_over_does_not_keep_its_service_from_a_restart() {
        for (unit, accept) in [("web@blue.service", "no"), ("web.service", "yes")] {
            let (_dir, root) = machine(&format!(
                "LoadState=loaded\nActiveState=active\nTriggeredBy=web.socket web.timer\nAccept={accept}\n"
            ));
            assert_eq!(restart(&root, unit).unwrap(), Restart::Done, "{unit}");
        }
    }

    #[test]
    fn a_unit_that_remains_active_after_its_exit_is_not_run_again() {
        let exited =
            "LoadState=loaded\nActiveState=active\nSubState=exited\nMainPID=0\nResult=success\n";
        for more in ["Type=oneshot\n", "Type=simple\nTasksCurrent=[not set]\n"] {
            let (dir, root) = machine(&format!("{exited}{more}"));
            let found = condition(&root, "migrate.service").unwrap();
            assert!(!found.up && !found.is_brought_back(), "{found:?}");
            assert_eq!(found.state, "active (exited)");
            let done = restart(&root, "migrate.service").unwrap();
            let calls = std::fs::read_to_string(dir.path().join("calls")).unwrap();
            assert_eq!(done, Restart::LeftAlone, "{calls}");
        }
        // `celery multi start` ends and leaves daemons; an init script's leave the unit, too.
        for more in ["Type=oneshot\nTasksCurrent=4\n", "Type=forking\nTasksCurrent=0\n"] {
            let (_dir, root) = machine(&format!("{exited}{more}"));
            assert!(condition(&root, "celery.service").unwrap().is_restarted(), "{more}");
            assert_eq!(restart(&root, "celery.service").unwrap(), Restart::Done, "{more}");
        }
    }

    #[test]
    fn what_is_left_alone_is_not_stopped_either_and_holds_no_swap_up() {
        let running = "ActiveState=active\nSubState=running\nMainPID=7\n";
        for (shown, is_stopped) in [
            ("LoadState=loaded\n", true),
            ("LoadState=loaded\nRefuseManualStop=yes\n", false),
            ("LoadState=masked\n", false),
            // Such as `celery multi start`, whose daemons are restarted after the swap.
            ("LoadState=loaded\nType=oneshot\nTasksCurrent=4\n", false),
        ] {
            let (dir, root) = machine(&format!("{running}{shown}"));
            let done = stop(&root, "web.service").unwrap();
            assert_eq!(done == Restart::Done, is_stopped, "{shown}");
            assert_eq!(came_up_again(&root, "web.service").unwrap(), is_stopped, "{shown}");
            let calls = std::fs::read_to_string(dir.path().join("calls")).unwrap();
            assert_eq!(calls.contains("stop -- web.service"), is_stopped, "{calls}");
        }
    }

    #[test]
    fn a_unit_whose_tasks_systemd_does_not_count_is_asked_from_the_kernel() {
        let group = "system.slice/celery.service";
        for (file, content, is_over) in [
            (format!("sys/fs/cgroup/{group}/cgroup.events"), "populated 1\nfrozen 0\n", false),
            (format!("sys/fs/cgroup/{group}/cgroup.events"), "populated 0\nfrozen 0\n", true),
            (format!("sys/fs/cgroup/systemd/{group}/cgroup.procs"), "4711\n", false),
            (format!("sys/fs/cgroup/systemd/{group}/cgroup.procs"), "", true),
            ("sys/other".to_string(), "", true),
        ] {
            let (dir, root) = machine(&format!(
                "LoadState=loaded\nActiveState=active\nSubState=exited\nType=oneshot\n\
                 TasksCurrent=[not set]\nControlGroup=/{group}\n"
            ));
            let path = dir.path().join(&file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
            let found = condition(&root, "celery.service").unwrap();
            assert_eq!(found.left_alone.is_some(), is_over, "{file}: {content:?}");
        }
    }

    #[test]
    fn a_oneshot_that_failed_is_not_brought_back() {
        let at_work = shown("LoadState=loaded\nActiveState=activating\nType=oneshot\n");
        assert_eq!(at_work.left_alone.as_deref(), Some("it is a oneshot at work"));
        let failed =
            shown("LoadState=loaded\nActiveState=failed\nType=oneshot\nResult=exit-code\n");
        assert!(!failed.is_brought_back() && !failed.failed, "{failed:?}");
        assert!(shown("LoadState=loaded\nActiveState=failed\nType=simple\n").is_brought_back());
    }

    #[test]
    fn a_oneshot_is_not_run_again_and_what_is_down_is_started() {
        for (shown, left) in [
            ("LoadState=loaded\nActiveState=activating\nType=oneshot\n", Restart::LeftAlone),
            ("LoadState=loaded\nActiveState=inactive\nType=oneshot\n", Restart::LeftAlone),
            ("LoadState=loaded\nActiveState=failed\nType=oneshot\n", Restart::LeftAlone),
            (
                "LoadState=loaded\nActiveState=active\nSubState=running\nType=oneshot\n",
                Restart::Done,
            ),
            ("LoadState=loaded\nActiveState=inactive\n", Restart::Done),
            ("LoadState=loaded\nActiveState=active\n", Restart::Done),
        ] {
            let (_dir, root) = machine(shown);
            assert_eq!(restart(&root, "web.service").unwrap(), left, "{shown}");
        }
    }

    #[test]
    fn a_unit_that_fails_to_start_was_restarted_all_the_same() {
        let unit = "LoadState=loaded\nActiveState=active\nFragmentPath=";
        let (_dir, root) = machine(&format!("{unit}/bad\n"));
        assert_eq!(restart(&root, "web.service").unwrap(), Restart::Done);
    }

    #[test]
    fn a_machine_without_systemd_is_a_clear_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = condition(&Root::new(dir.path()), "web.service").unwrap_err();
        assert_eq!(error.to_string(), "systemd does not run this machine");
    }
}
