//! Settles the venvs that ordinary users have registered, after the system's.
//!
//! A process of the user does all work on their files: this program once more, started as the user
//! by the launcher, for a limited time and without anything inherited from root. Root opens none of
//! their files, not even to see whether they have a venv. It does not trust the output of the
//! process, and only shows it, escaped and truncated.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::{Guard, GuardError};
use crate::host::clock::Deadline;
use crate::host::command::{CommandError, Finished};
use crate::host::file::printable;
use crate::host::user::{self, User};
use crate::host::{Program, Root, audit, confine, parallel};
use crate::inventory::{self, Inventory, Unmanaged, report_unmanaged};
use crate::plan::{RepairFor, RestartMode, Wish};
use crate::python::Interpreters;
use crate::repair::{self, Job};
use crate::report::Report;
use crate::service::{self, Outcome, Service};
use crate::store::RegistryEntry;

/// The command that does one user's share.
const COMMAND: &str = "settle-own";

/// The command that restarts units of one user.
const RESTART: &str = "restart-own";

/// How many units of one user are restarted at most.
const UNITS: usize = 64;

/// How long a unit of a user may take to come up, and must stay up.
const UNIT_PATIENCE: Duration = Duration::from_secs(30);
const UNIT_STABLE: Duration = Duration::from_secs(1);

/// How many users are served at the same time.
const AT_ONCE: usize = 2;

/// How many users are served at most. On a machine with more accounts the administrator names them.
const MOST: usize = 256;

/// How many lines of the output of one user's process are shown, and how many characters of each.
const LINES: usize = 40;
const LENGTH: usize = 400;

impl Guard {
    /// Whether this user may register venvs of their own.
    pub(super) fn is_allowed(&self, person: &User) -> bool {
        let users = &self.config.users;
        let is_named = |name: &String| match name.strip_prefix('@') {
            Some(group) => user::is_in_group(&self.root, person, group),
            None => *name == person.name,
        };
        users.enabled && users.allow.as_ref().is_none_or(|allow| allow.iter().any(is_named))
    }

    /// Settles the venvs of each user who may have some, as that user. A failure there does not
    /// affect the system's venvs.
    pub(super) fn settle_users(&self) {
        if !self.root.is_system() || self.root.user().is_some() || !self.config.users.enabled {
            return;
        }
        let mut people = self.eligible_users();
        if people.len() > MOST {
            self.report.error(&format!(
                "{} users may have venvs of their own, but only {MOST} are served; name the users in users.allow",
                people.len()
            ));
            people.truncate(MOST);
        }
        let deadline = Deadline::after(Duration::from_secs(self.config.users.total_time_limit));
        let is_in_time = parallel::map(people, AT_ONCE, |person| {
            let is_in_time = !deadline.has_passed();
            if is_in_time {
                self.settle_user(&person, deadline);
            }
            is_in_time
        });
        let left = is_in_time.iter().filter(|is_in_time| !**is_in_time).count();
        if left > 0 {
            self.report
                .error(&format!("skipped the venvs of {left} users: `users.total-time-limit` has passed; `venvguard resume`, run as each of them, repairs them"));
        }
    }

    /// The users that the hook serves: people, and users that are named in the configuration.
    fn eligible_users(&self) -> Vec<User> {
        let named = self.config.users.allow.iter().flatten();
        let named = named.filter_map(|name| user::by_name(&self.root, name));
        let mut people: Vec<User> = user::people(&self.root).into_iter().chain(named).collect();
        people.retain(|person| person.uid != 0 && self.is_allowed(person));
        people.sort_by_key(|person| person.uid);
        people.dedup_by_key(|person| person.uid);
        people
    }

    /// Whether the hook serves this user.
    pub(super) fn is_eligible(&self, uid: u32) -> bool {
        self.eligible_users().iter().any(|person| person.uid == uid)
    }

    /// Restarts services that still run old code of venvs that the upgrade did not harm, if these
    /// venvs are `meant`, by their ids. Returns whether all is well.
    pub(super) fn restart_outdated(
        &self,
        meant: impl Fn(&str) -> bool,
    ) -> Result<bool, GuardError> {
        let now = self.interpreters()?;
        let mut inventory = self.inventory()?;
        let mut decisions = self.propose_repair(&inventory, &now, Wish::default(), RepairFor::Hook);
        decisions.retain(|decision| meant(&decision.id));
        self.note_waiting(&decisions);
        let jobs = Job::all(inventory.present(), &decisions);
        let (context, at_once) = (self.context(), self.config.at_once(None));
        let outcomes = repair::execute(&context, &mut inventory.registry, &now, &jobs, at_once);
        Ok(self.judge(&outcomes))
    }

    fn settle_user(&self, person: &User, deadline: Deadline) {
        let message = &format!("settling the venvs of {0}, as {0}", printable(&person.name));
        audit::Line { action: "user", message, ..Default::default() }.write(&self.root);
        let late = "the repair of their venvs takes too long; `venvguard resume`, run as that user, finishes it";
        self.run_as(person, &[COMMAND.to_string()], deadline.left(), late);
    }

    /// Restarts the units of users that still run old code of some venvs, each through its user's
    /// own manager, as that user. What fails is reported and undoes no repair: any user
    /// can run a venv of root's. Returns how many processes are left.
    pub(super) fn restart_units_of_users(
        &self,
        inventory: &mut Inventory,
        ids: &[&str],
        now: &Interpreters,
    ) -> usize {
        let context = self.context();
        if self.root.is_system() && self.root.user().is_none() {
            let units = inventory::stale_units_of_users(&context, inventory, ids, now);
            if !units.is_empty() && !service::is_shutting_down(&self.root) {
                self.restart_units(units);
                inventory.forget_users();
            }
        }
        report_unmanaged(&context, inventory, ids, now, Unmanaged::UnitsOfUsers)
    }

    /// The same after a transaction: only where services are restarted unasked.
    pub(super) fn restart_units_of_users_unasked(
        &self,
        inventory: &mut Inventory,
        now: &Interpreters,
    ) {
        let is_meant = |entry: &RegistryEntry| {
            let mode = entry.restart.unwrap_or(self.config.restart);
            entry.policy.acts() && mode == RestartMode::Now
        };
        let meant = inventory.present().filter(|(entry, _)| is_meant(entry));
        let ids: Vec<String> = meant.map(|(entry, _)| entry.id.clone()).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        self.restart_units_of_users(inventory, &ids, now);
    }

    fn restart_units(&self, units: BTreeMap<u32, BTreeSet<String>>) {
        let deadline = Deadline::after(Duration::from_secs(self.config.users.total_time_limit));
        for (uid, units) in units {
            let person = user::by_uid(&self.root, uid);
            let Some(person) = person.filter(|_| !deadline.has_passed()) else { continue };
            let units: Vec<String> = units.into_iter().take(UNITS).collect();
            let (name, names) = (printable(&person.name), units.join(", "));
            let message = &format!("restarting {names} of {name}, as {name}");
            audit::Line { action: "user", message, ..Default::default() }.write(&self.root);
            let command = [RESTART, "--"].map(str::to_string);
            let late =
                format!("the restart of {names} takes too long; check these units as that user");
            self.run_as(&person, &[&command[..], &units].concat(), deadline.left(), &late);
        }
    }

    /// Runs this program as a user for a limited time, and shows what it says. After that time, `late`
    /// says what is unfinished.
    fn run_as(&self, person: &User, command: &[String], limit: Duration, late: &str) {
        let limit = Duration::from_secs(self.config.users.time_limit).min(limit);
        let program = Program::new("/proc/self/exe").args(command).limit(limit);
        let home: &Path = &person.home;
        match confine::confined(&self.root, program, person, &[], home).finish() {
            Ok(finished) => {
                for message in messages(&finished) {
                    self.report.note(&format!("user {}: {message}", printable(&person.name)));
                }
            }
            Err(CommandError::TimedOut { limit, .. } | CommandError::Unkillable { limit, .. }) => {
                let (name, seconds) = (printable(&person.name), limit.as_secs());
                self.report.error(&format!("user {name}: {late} (limit: {seconds} s)"));
            }
            Err(error) => {
                self.report.error(&format!("user {}: {error}", printable(&person.name)));
            }
        }
    }
}

/// Restarts units of the user that runs this process, and waits until they are up. Returns whether
/// all are.
pub(crate) fn restart_own(root: &Root, report: &Report, units: &[String]) -> bool {
    let named = units.iter().filter_map(|unit| format!("user:{unit}").parse().ok());
    let services: Vec<Service> = named.collect();
    let mut all_good = services.len() == units.len();
    for (service, told) in service::restart_all(root, &services) {
        let up = told.map_err(|error| error.to_string()).and_then(|outcome| match outcome {
            Outcome::LeftAlone(why) => Ok(format!("{service} is left alone: {why}")),
            Outcome::Done => service::await_up(root, &service, UNIT_PATIENCE, UNIT_STABLE)
                .map(|()| format!("restarted {service}"))
                .map_err(|error| error.to_string()),
        });
        all_good &= up.is_ok();
        match up {
            Ok(words) => report.note(&words),
            Err(error) => report.error(&format!("cannot restart {service}: {error}")),
        }
    }
    all_good
}

/// The output of a process of ours, safe to show: an indented line belongs to the one before it.
pub(super) fn messages(finished: &Finished) -> Vec<String> {
    let said = [&finished.errors[..], &finished.output[..]].map(String::from_utf8_lossy).concat();
    let mut lines = said.lines().filter(|line| !line.trim().is_empty());
    let mut messages: Vec<String> = Vec::new();
    for line in lines.by_ref().take(LINES) {
        let shown = printable(line.chars().take(LENGTH).collect::<String>());
        match messages.last_mut().filter(|_| line.starts_with(' ')) {
            Some(message) => message.extend(["\n", &shown]),
            None => messages.push(shown),
        }
    }
    let more = lines.count();
    if more > 0 {
        messages.push(format!("… and {more} more lines"));
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_of_a_users_process_is_escaped_and_truncated() {
        let script = "printf 'a\\033[2J\\n    b\\n' >&2; yes | head -n 1000";
        let said = Program::new("/bin/sh").args(["-c", script]).run().unwrap();
        let messages = messages(&said);
        assert_eq!(messages[0], "a\\u{1b}[2J\n    b");
        assert_eq!(messages.len(), LINES, "{messages:?}");
        assert_eq!(messages.last().unwrap(), "… and 962 more lines");
    }

    #[test]
    fn the_administrator_says_which_users_are_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "etc/passwd",
            "ann:x:1001:1001::/home/ann:/bin/sh\nbob:x:1002:50::/home/bob:/bin/sh\n",
        );
        write("etc/group", "dev:x:50:\nadm:x:51:ann\n");
        let allowed = |config: &str| {
            write("etc/venvguard/config.toml", config);
            let guard = Guard::open(Root::new(dir.path()), Report::for_command()).unwrap();
            let people = user::people(&guard.root);
            let names = people.into_iter().filter(|one| guard.is_allowed(one)).map(|one| one.name);
            names.collect::<Vec<_>>()
        };
        assert_eq!(allowed(""), ["ann", "bob"]);
        assert_eq!(allowed("users.enabled = false\nusers.allow = [\"ann\"]\n"), [""; 0]);
        assert_eq!(allowed("[users]\nallow = []\n"), [""; 0]);
        assert_eq!(allowed("[users]\nallow = [\"bob\"]\n"), ["bob"]);
        assert_eq!(allowed("[users]\nallow = [\"@adm\"]\n"), ["ann"]);
        assert_eq!(
            allowed("[users]\nallow = [\"@dev\", \"eve\"]\n"),
            ["bob"],
            "their primary group counts"
        );
    }
}
