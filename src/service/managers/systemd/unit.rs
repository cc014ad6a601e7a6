//! One unit, as `systemctl show` describes it.

use std::collections::HashMap;

use super::systemctl::{SystemdError, systemctl};
use crate::host::Root;
use crate::host::clock::Deadline;
use crate::host::command::CommandError;
use crate::host::file::printable;
use crate::service::condition::Condition;
use crate::service::error::ServiceError;

/// The properties that are queried.
const PROPERTIES: [&str; 17] = [
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
    "Transient",
    "ControlGroup",
    "TriggeredBy",
    "RefuseManualStart",
    "RefuseManualStop",
];

/// The name under which [`Unit`] stores the socket of an instance that serves a single
/// connection; systemd has no such property.
const CONNECTION_OF: &str = "venvguard:ConnectionOf";

/// Whether there is a process in a control group or below it, in the unified hierarchy or in
/// systemd's own. A removed group has none.
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

/// The output of `systemctl show` for a unit.
pub(in crate::service) struct Unit(HashMap<String, String>);

/// The answer about some properties of some units.
fn show(root: &Root, properties: &[&str], units: &[&str]) -> Result<String, SystemdError> {
    let properties = properties.iter().map(|property| format!("--property={property}"));
    let program = systemctl(root)?.read_only().arg("show").args(properties);
    Ok(program.arg("--").args(units).run()?.text())
}

impl Unit {
    pub(super) fn ask(root: &Root, unit: &str) -> Result<Self, SystemdError> {
        Self::read(&show(root, &PROPERTIES, &[unit])?).completed(root, unit)
    }

    /// Asks about several units at once. The results are in their order; there are fewer if the
    /// deadline passes before all are known.
    pub(super) fn ask_all(
        root: &Root,
        units: &[&str],
        deadline: Deadline,
    ) -> Vec<Result<Self, ServiceError>> {
        let ask = |unit: &str| Ok(Self::ask(root, unit)?);
        let in_time = units.iter().take_while(|_| !deadline.has_passed());
        if units.len() < 2 {
            return in_time.map(|unit| ask(unit)).collect();
        }
        let text = match show(root, &[&PROPERTIES[..], &["Id"]].concat(), units) {
            Ok(text) => text,
            // systemctl may refuse one of them.
            Err(SystemdError::Command(CommandError::Failed { .. })) => String::new(),
            Err(error) => {
                let error = ServiceError::from(error);
                return units.iter().map(|_| Err(error.clone())).collect();
            }
        };
        let found: Vec<Self> = text.split("\n\n").map(Self::read).collect();
        if found.len() != units.len() {
            return in_time.map(|unit| ask(unit)).collect();
        }
        let complete = |(unit, found): (&&str, Self)| match found.get("Id") {
            id if id == *unit => Ok(found.completed(root, unit)?),
            // It is an alias.
            _ => ask(unit),
        };
        in_time.zip(found).map(complete).collect()
    }

    /// Adds what takes more questions.
    fn completed(self, root: &Root, unit: &str) -> Result<Self, SystemdError> {
        let mut found = self;
        // systemd does not count tasks if TasksAccounting= is off or the kernel's controller is
        // unavailable.
        if found.number("TasksCurrent").is_none() && found.get("SubState") == "exited" {
            let tasks = u32::from(is_populated(root, found.get("ControlGroup")));
            found.0.insert("TasksCurrent".to_string(), tasks.to_string());
        }
        // `Accept=yes` needs a template, and starts an instance of it for each connection.
        if unit.contains('@') {
            let sockets = found.get("TriggeredBy").split_whitespace().map(str::to_string);
            let sockets: Vec<String> = sockets.filter(|name| name.ends_with(".socket")).collect();
            for socket in sockets {
                if Self::read(&show(root, &["Accept"], &[&socket])?).is("Accept") {
                    found.0.insert(CONNECTION_OF.to_string(), socket);
                }
            }
        }
        Ok(found)
    }

    pub(super) fn read(answer: &str) -> Self {
        let properties = answer.lines().filter_map(|line| line.split_once('='));
        Self(properties.map(|(key, value)| (key.to_string(), value.to_string())).collect())
    }

    pub(super) fn get(&self, property: &str) -> &str {
        self.0.get(property).map_or("", String::as_str)
    }

    /// `systemctl show` writes every boolean as `yes` or `no`, however a unit file spells it.
    pub(super) fn is(&self, property: &str) -> bool {
        self.get(property) == "yes"
    }

    fn number(&self, property: &str) -> Option<u32> {
        self.get(property).parse().ok()
    }

    /// Whether systemd started it between the two queries.
    pub(super) fn is_another_run(&self, before: &Self) -> bool {
        let run = self.get("InvocationID");
        !run.is_empty() && run != before.get("InvocationID")
    }

    fn is_oneshot(&self) -> bool {
        self.get("Type") == "oneshot"
    }

    /// Why it is not stopped for a swap, if so. Units that are left alone keep running, and so do
    /// oneshots: once one is inactive, nothing shows that it left daemons behind and has to run
    /// again. systemd forgets a transient unit that has stopped, but restarts one that runs.
    pub(super) fn runs_on(&self) -> Option<String> {
        let why = if self.is_oneshot() {
            Some("it is a oneshot")
        } else {
            self.is("Transient").then_some("it is a transient unit")
        };
        self.left_alone().or_else(|| why.map(str::to_string))
    }

    fn is_active(&self) -> bool {
        matches!(self.get("ActiveState"), "active" | "reloading" | "refreshing")
    }

    /// Whether it is active only nominally (`RemainAfterExit=yes`): its program has ended and left
    /// no process behind. An init script's daemon may have left the unit.
    fn has_ended(&self) -> bool {
        let has_tasks = self.number("TasksCurrent").is_some_and(|tasks| tasks != 0);
        let (active, sub) = (self.get("ActiveState"), self.get("SubState"));
        (active, sub) == ("active", "exited") && self.get("Type") != "forking" && !has_tasks
    }

    /// Why venvguard must not restart it, if so: the restart would repeat its work, or systemd
    /// would refuse it.
    pub(super) fn left_alone(&self) -> Option<String> {
        let connection = self.get(CONNECTION_OF);
        let refusal =
            ["RefuseManualStart", "RefuseManualStop"].into_iter().find(|one| self.is(one));
        let is_gone = self.get("LoadState") != "loaded" && self.is_active();
        Some(match (self.get("LoadState"), refusal) {
            ("masked", _) => "it is masked".to_string(),
            (load, _) if is_gone => format!("its unit is {}", printable(load)),
            (_, Some(refusal)) => format!("its unit has {refusal}=yes"),
            _ if !connection.is_empty() => {
                format!("it serves a single connection of {}", printable(connection))
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

    pub(super) fn condition(&self) -> Condition {
        let (active, sub) = (self.get("ActiveState"), self.get("SubState"));
        let is_queued = self.number("Job").is_some_and(|job| job != 0);
        // A oneshot without RemainAfterExit has done its work when it is inactive; it is not up
        // then, which is not a failure.
        let is_done = active == "inactive" && self.is_oneshot() && self.get("Result") == "success";
        let has_ended = self.has_ended();
        let is_at_rest = has_ended || matches!(active, "failed" | "inactive");
        // Between two attempts. A loop that ends as intended has not failed.
        let is_retried = sub.starts_with("auto-restart") && self.get("Result") != "success";
        Condition {
            up: self.is_active() && !has_ended,
            done: is_done && !is_queued,
            at_rest: is_at_rest && !is_queued,
            failed: (active == "failed" || is_retried) && !self.is_oneshot(),
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
        assert!(condition.failed && !condition.at_rest);
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
    fn a_unit_that_systemd_forgets_when_it_stops_is_restarted_but_not_stopped() {
        let running = "LoadState=loaded\nActiveState=active\nSubState=running\nType=simple\n";
        let transient = format!("{running}Transient=yes\n");
        let runs_on = Unit::read(&transient).runs_on();
        assert_eq!(runs_on.as_deref(), Some("it is a transient unit"));
        assert!(shown(&transient).is_restarted());
        assert_eq!(Unit::read(running).runs_on(), None);
    }

    #[test]
    fn a_missing_unit_is_reported_as_not_found() {
        let condition = shown("LoadState=not-found\nActiveState=inactive\nSubState=dead\n");
        assert_eq!(condition.state, "not-found");
        assert!(!condition.up && !condition.done);
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
}
