//! Finds out what `plan` needs to know about the venvs, and lets it decide. Changes nothing.

use std::collections::BTreeMap;
use std::path::Path;

use super::Guard;
use crate::apt::{Action, RemovedLibraries, pip_wheel};
use crate::inventory::{
    Asked, Inventory, declared_services, facts, healths, lost_libraries, subject,
};
use crate::plan::{
    self, Decision, Facts, Phase, Plan, Questions, RepairFor, Request, State, Subject, Target, Wish,
};
use crate::python::{Interpreters, Minor};
use crate::repair::{self, Job, Next, RollbackError};
use crate::store::{RegistryEntry, TransactionRecord};
use crate::venv::Venv;

impl Guard {
    /// Decides about every venv for the `actions` of an upgrade from `before` to the predicted
    /// `after` that removes some libraries.
    pub(super) fn propose_before_dpkg(
        &self,
        inventory: &Inventory,
        (before, after): (&Interpreters, &Interpreters),
        actions: &[Action],
        removed: &RemovedLibraries,
        record: Option<&TransactionRecord>,
    ) -> Plan {
        let lost = if removed.is_empty() {
            BTreeMap::new()
        } else {
            lost_libraries(&self.context(), inventory, removed)
        };
        let subjects = inventory.subjects(&self.config);
        let next = |minor| {
            let interpreter = after.get(minor)?.package.clone();
            Some(Next { interpreter, pip_wheel: pip_wheel(actions).map(str::to_string) })
        };
        let asked = asked_by_upgrade(&subjects, (before, after), next);
        let mut facts = facts(&self.context(), inventory, &asked, record);
        for (id, lost) in lost {
            facts.entry(id).or_default().lost = lost;
        }
        self.add_what_breaks(inventory, after, &mut facts);
        plan::upgrade(&subjects, &facts, before, after, Phase::BeforeDpkg)
    }

    /// Decides about every venv after an upgrade from `before` to `now`.
    pub(super) fn propose_after_dpkg(
        &self,
        inventory: &Inventory,
        before: &Interpreters,
        now: &Interpreters,
        record: Option<&TransactionRecord>,
    ) -> Plan {
        let subjects = inventory.subjects(&self.config);
        let asked = asked_by_upgrade(&subjects, (before, now), |_| None);
        let facts = facts(&self.context(), inventory, &asked, record);
        plan::upgrade(&subjects, &facts, before, now, Phase::AfterDpkg)
    }

    /// Adds what a rehearsal has found about venvs that stay on their own minor versions.
    fn add_what_breaks(
        &self,
        inventory: &Inventory,
        after: &Interpreters,
        facts: &mut BTreeMap<String, Facts>,
    ) {
        if !self.store.has_rehearsals() {
            return;
        }
        for (entry, venv) in inventory.present() {
            let Some(own) = after.get(venv.site) else { continue };
            let breaks = repair::breaks(&self.context(), entry, venv, &own.package);
            if !breaks.is_empty() {
                facts.entry(entry.id.clone()).or_default().breaks = breaks;
            }
        }
    }

    /// Decides how to repair every venv that is not healthy.
    pub(super) fn propose_repair(
        &self,
        inventory: &Inventory,
        now: &Interpreters,
        wish: Wish,
        whom: RepairFor,
    ) -> Vec<Decision> {
        let healths = healths(&self.context(), inventory, now);
        let subjects: Vec<(Subject, State)> = inventory
            .entries()
            .zip(healths)
            .filter_map(|((entry, venv), health)| {
                Some((subject(&self.config, entry, venv.as_ref().ok()?), health.state))
            })
            .collect();
        let asked: Vec<Asked> = subjects
            .iter()
            .map(|(subject, state)| {
                asked(subject, plan::questions_of_repair(subject, *state, whom), now, wish)
            })
            .collect();
        let facts = facts(&self.context(), inventory, &asked, None);
        let none = Facts::default();
        subjects
            .iter()
            .filter_map(|(subject, state)| {
                let facts = facts.get(&subject.id).unwrap_or(&none);
                plan::repair(subject, *state, facts, now, wish, whom)
            })
            .collect()
    }

    /// Decides about the rebuilds that somebody asks for.
    pub(super) fn propose_rebuilds(
        &self,
        inventory: &Inventory,
        ids: &[&str],
        now: &Interpreters,
        wish: Wish,
    ) -> Vec<Decision> {
        let questions = Questions { readiness: true, services: true };
        self.propose_requests(inventory, ids, now, Request::Rebuild(wish), questions)
    }

    /// Decides about the restarts that somebody asks for.
    pub(super) fn propose_restarts(
        &self,
        inventory: &Inventory,
        ids: &[&str],
        now: &Interpreters,
    ) -> Vec<Decision> {
        let questions = Questions { readiness: false, services: true };
        self.propose_requests(inventory, ids, now, Request::Restart, questions)
    }

    fn propose_requests(
        &self,
        inventory: &Inventory,
        ids: &[&str],
        now: &Interpreters,
        request: Request,
        questions: Questions,
    ) -> Vec<Decision> {
        let wish = match request {
            Request::Rebuild(wish) => wish,
            _ => Wish::default(),
        };
        let subjects: Vec<Subject> = ids
            .iter()
            .filter_map(|id| inventory.get(id))
            .map(|(entry, venv)| subject(&self.config, entry, venv))
            .collect();
        let asked: Vec<Asked> = subjects
            .iter()
            .filter(|subject| subject.venv.base.is_debian || !questions.readiness)
            .map(|subject| asked(subject, questions, now, wish))
            .collect();
        let facts = facts(&self.context(), inventory, &asked, None);
        let none = Facts::default();
        subjects
            .iter()
            .map(|subject| {
                let facts = facts.get(&subject.id).unwrap_or(&none);
                plan::request(subject, request, facts, now)
            })
            .collect()
    }

    /// Decides about the rollback to a previous environment that somebody asks for, the latest or
    /// the one that is `wanted`.
    pub(super) fn propose_rollback(
        &self,
        inventory: &Inventory,
        entry: &RegistryEntry,
        now: &Interpreters,
        wanted: Option<&Path>,
    ) -> Result<Job, RollbackError> {
        let context = self.context();
        let (previous, tree) = repair::previous_environment(&context, now, entry, wanted)?;
        let questions = Questions { readiness: false, services: true };
        let asked = Asked { id: entry.id.clone(), questions, target: None, next: None };
        let known = facts(&context, inventory, &[asked], None).remove(&entry.id);
        // The directory in place may no longer be a venv, which is a reason to roll back. Then only
        // the declared services are known to run out of it.
        let facts = known.unwrap_or_else(|| declared_services(&context, entry));
        let venv = Venv { path: entry.path().to_path_buf(), ..tree.clone() };
        let (identity, followed) = (previous.identity, previous.followed);
        let request = Request::Restore { tree: &tree, identity, followed };
        let subject = subject(&self.config, entry, &venv);
        let decision = plan::request(&subject, request, &facts, now);
        Ok(Job { decision, entry: entry.clone(), venv })
    }
}

/// What an upgrade asks about each venv. `next` is the interpreter of a minor version, if that is not
/// installed yet.
fn asked_by_upgrade(
    subjects: &[Subject],
    (before, after): (&Interpreters, &Interpreters),
    next: impl Fn(Minor) -> Option<Next>,
) -> Vec<Asked> {
    let asked = |subject: &Subject| {
        let target = plan::target(subject, before, after);
        let questions = plan::questions(subject, before, after);
        Asked { id: subject.id.clone(), questions, target, next: target.and_then(&next) }
    };
    subjects.iter().map(asked).collect()
}

/// The questions about a venv that is rebuilt as somebody wishes.
fn asked(subject: &Subject, questions: Questions, now: &Interpreters, wish: Wish) -> Asked {
    let target = Target::asked_for(&subject.venv, subject.follows(), now, wish.python);
    let target = target.map(|target| target.minor);
    Asked { id: subject.id.clone(), questions, target, next: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apt::samples::system;
    use crate::host::{Program, Root};
    use crate::plan::Policy;
    use crate::report::Report;
    use crate::store::Registry;
    use crate::venv::BaseLink;

    /// A machine whose systemctl knows units in some states, and a venv that declares them all.
    fn machine(states: &[(&str, &str)]) -> (tempfile::TempDir, Guard, Inventory) {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        for path in ["run/systemd/system", "usr/bin", "proc", "units"] {
            std::fs::create_dir_all(base.join(path)).unwrap();
        }
        for (unit, shown) in states {
            let text = format!("LoadState=loaded\nType=simple\n{shown}");
            std::fs::write(base.join("units").join(unit), text).unwrap();
        }
        let script =
            format!("#!/bin/sh\nfor unit; do :; done\ncat {}/units/\"$unit\"\n", base.display());
        std::fs::write(base.join("script"), script).unwrap();
        let install = Program::new("/usr/bin/install").arg("-m755");
        install.args([base.join("script"), base.join("usr/bin/systemctl")]).run().unwrap();
        let guard = Guard::open(Root::new(base), Report::for_command()).unwrap();
        let venv = plan::samples::subject(BaseLink::Pinned, crate::python::Minor::new(3, 11)).venv;
        let mut registry = Registry::default();
        let entry = registry.add(&venv.path, None, Policy::Auto).unwrap();
        entry.services =
            states.iter().map(|(unit, _)| format!("systemd:{unit}").parse().unwrap()).collect();
        (dir, guard, Inventory::new(registry, vec![Ok(venv)]))
    }

    #[test]
    fn a_unit_that_failed_before_the_transaction_is_not_started() {
        let (_dir, guard, inventory) = machine(&[
            ("broken.service", "ActiveState=failed\nSubState=failed\n"),
            ("ended.service", "ActiveState=active\nSubState=exited\nType=oneshot\n"),
            ("late.service", "ActiveState=activating\nSubState=auto-restart\n"),
            ("masked.service", "ActiveState=active\nSubState=running\nLoadState=masked\n"),
            ("stopped.service", "ActiveState=inactive\nSubState=dead\n"),
            ("web.service", "ActiveState=active\nSubState=running\n"),
        ]);
        let names = |decision: &Decision| -> Vec<String> {
            decision.services.iter().map(|service| service.name().to_string()).collect()
        };
        let (before, after) = (system(&["3.11.2-6"]), system(&["3.11.2-7"]));
        let at_work = ["late.service", "web.service"];
        let (versions, none) = ((&before, &after), RemovedLibraries::default());
        let plan = guard.propose_before_dpkg(&inventory, versions, &[], &none, None);
        assert_eq!(names(&plan.decisions[0]), at_work);
        let services = |record: Option<&TransactionRecord>| {
            let plan = guard.propose_after_dpkg(&inventory, &before, &after, record);
            names(&plan.decisions[0])
        };
        let record = TransactionRecord::new(BTreeMap::new(), BTreeMap::new());
        assert_eq!(services(Some(&record)), at_work);
        // Without a record, the upgrade may be the reason for the failure.
        let and_failed = ["broken.service", "late.service", "web.service"];
        assert_eq!(services(None), and_failed);
        let (id, wish) = (inventory.registry.venvs[0].id.clone(), Wish::default());
        let asked = guard.propose_rebuilds(&inventory, &[&id], &before, wish);
        assert_eq!(names(&asked[0]), and_failed);
    }
}
