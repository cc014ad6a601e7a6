//! All registered venvs, looked at.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::path::PathBuf;

use super::{Guard, GuardError};
use crate::apt::changes;
use crate::host::user;
use crate::plan::{self, Decision, Effect, Phase, Plan, Policy, Readiness, Remedy, Subject};
use crate::python::{self, Interpreters};
use crate::repair::{self, Job, Looked, Target};
use crate::service::{self, Condition, Processes, Service, ServiceMap};
use crate::store::{Registry, RegistryEntry, TransactionRecord};
use crate::venv::{self, NotAVenv, Venv};

/// The registry, and each venv in it as it stands on disk, in the same order.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) registry: Registry,
    pub(crate) venvs: Vec<Result<Venv, NotAVenv>>,
}

impl Survey {
    pub(crate) fn entries(
        &self,
    ) -> impl Iterator<Item = (&RegistryEntry, &Result<Venv, NotAVenv>)> {
        self.registry.venvs.iter().zip(&self.venvs)
    }

    /// A venv by its id, if it is one.
    pub(crate) fn get(&self, id: &str) -> Option<(&RegistryEntry, &Venv)> {
        self.entries()
            .find_map(|(entry, venv)| (entry.id == id).then_some((entry, venv.as_ref().ok()?)))
    }

    /// The repair that a decision asks for.
    pub(crate) fn job(
        &self,
        plan: &Plan,
        decision: &Decision,
        transaction: Option<&TransactionRecord>,
        running: &BTreeMap<String, Vec<Service>>,
        now: &Interpreters,
    ) -> Option<Job> {
        let (entry, venv) = self.get(&decision.id)?;
        let were_up = transaction.map(|record| record.services_of(&entry.id)).unwrap_or_default();
        let mut services = were_up.to_vec();
        for service in running.get(&entry.id).into_iter().flatten() {
            if !services.contains(service) {
                services.push(service.clone());
            }
        }
        let follows = entry.pin.is_some() || venv.follows();
        // A venv whose own minor version stays is made again for that one.
        let own = (decision.effect == Effect::Stale).then_some(venv.site);
        let target = match own {
            Some(minor) => Target::asked_for(venv, follows, now, Some(minor)),
            None => Target::of_default(venv, follows, now),
        };
        // A rebuild was wanted, and is not ready.
        let instead = decision.remedy == Remedy::Pin && entry.policy != Policy::Pin;
        Some(Job {
            entry: entry.clone(),
            venv: venv.clone(),
            remedy: decision.remedy,
            because: instead.then(|| decision.reasons.join("; ")),
            follows,
            target,
            is_outdated: plan
                .changes
                .iter()
                .any(|one| one.interpreter == python::path_of(venv.site)),
            services,
            were_up: were_up.to_vec(),
        })
    }
}

fn subject(entry: &RegistryEntry, venv: &Venv) -> Subject {
    Subject {
        id: entry.id.clone(),
        name: entry.name.clone(),
        policy: entry.policy,
        venv: venv.clone(),
        pinned: entry.pin.is_some(),
    }
}

/// The venvs that one thread looks at before it asks for more.
const CHUNK: usize = 256;

impl Guard {
    /// Looks at every registered venv, on all cores.
    pub(crate) fn survey(&self, registry: Registry) -> Survey {
        let entries = &registry.venvs;
        let chunks: Vec<&[RegistryEntry]> = entries.chunks(CHUNK).collect();
        let look = |chunk: &[RegistryEntry]| -> Vec<Result<Venv, NotAVenv>> {
            chunk.iter().map(|entry| self.look_at(entry)).collect()
        };
        let venvs = if chunks.len() < 2 {
            look(entries)
        } else {
            let next = std::sync::atomic::AtomicUsize::new(0);
            let mut found: Vec<(usize, Vec<Result<Venv, NotAVenv>>)> =
                std::thread::scope(|scope| {
                    let workers: Vec<_> = (0..self.jobs(None))
                        .map(|_| {
                            scope.spawn(|| {
                                let mut found = Vec::new();
                                loop {
                                    let index =
                                        next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                                    let Some(chunk) = chunks.get(index) else { return found };
                                    found.push((index, look(chunk)));
                                }
                            })
                        })
                        .collect();
                    workers
                        .into_iter()
                        .flat_map(|worker| {
                            worker.join().unwrap_or_else(|panic| resume_unwind(panic))
                        })
                        .collect()
                });
            found.sort_by_key(|(index, _)| *index);
            found.into_iter().flat_map(|(_, venvs)| venvs).collect()
        };
        Survey { registry, venvs }
    }

    /// Looks at one registered venv. What is said of it has to be true still: in the registry
    /// of an ordinary user he may have written anything.
    fn look_at(&self, entry: &RegistryEntry) -> Result<Venv, NotAVenv> {
        let venv = venv::inspect(&self.root, entry.path())?;
        match self.refusal(entry, &venv) {
            None => Ok(venv),
            Some(why) => Err(NotAVenv::Refused(why)),
        }
    }

    /// Why a venv cannot be guarded for whom we work. An ordinary user has to own it, and what
    /// is restarted for it has to be his.
    pub(crate) fn refusal(&self, entry: &RegistryEntry, venv: &Venv) -> Option<String> {
        if self.root.user().is_some_and(|uid| uid != venv.uid) {
            let owner = user::name(&self.root, venv.uid);
            return Some(format!(
                "it belongs to {owner}, and only its owner or root can have it guarded"
            ));
        }
        let refused = |service| service::require_trusted(&self.root, service).err();
        entry.services.iter().find_map(refused).map(|error| error.to_string())
    }

    /// Looks through the venvs that have to be rebuilt, those of each owner by one process.
    fn look_through_orphans(
        &self,
        survey: &Survey,
        before: &Interpreters,
        after: &Interpreters,
    ) -> BTreeMap<String, Looked> {
        let wants_rebuild = |entry: &RegistryEntry, venv: &Venv| match plan::assess(
            &subject(entry, venv),
            before,
            after,
        )
        .effect
        {
            Effect::Orphaned | Effect::Stranded => true,
            Effect::Stale => entry.policy == Policy::Rebuild,
            Effect::None | Effect::RestartOnly => false,
        };
        let (ids, venvs): (Vec<String>, Vec<&Venv>) = survey
            .entries()
            .filter_map(|(entry, venv)| Some((entry, venv.as_ref().ok()?)))
            .filter(|(entry, venv)| wants_rebuild(entry, venv))
            .map(|(entry, venv)| (entry.id.clone(), venv))
            .unzip();
        ids.into_iter().zip(repair::look_through(&self.root, &venvs)).collect()
    }

    /// What the change from `before` to `after` does to every venv, and what is to be done.
    pub(crate) fn plan(
        &self,
        survey: &Survey,
        before: &Interpreters,
        after: &Interpreters,
        phase: Phase,
    ) -> Plan {
        let mut looked = self.look_through_orphans(survey, before, after);
        let decisions = survey
            .entries()
            .filter_map(|(entry, venv)| {
                let venv = venv.as_ref().ok()?;
                let subject = subject(entry, venv);
                let assessment = plan::assess(&subject, before, after);
                let readiness = match looked.remove(&entry.id) {
                    Some(looked) => {
                        repair::readiness(&self.context(), entry, venv, after.default, looked)
                    }
                    None => Readiness::Ready,
                };
                Some(plan::decide(&subject, assessment, &readiness, before, after, phase))
            })
            .collect();
        Plan { changes: changes(before, after), decisions }
    }

    /// What is to be restarted for some venvs that a person repairs, or an upgrade of which
    /// nothing was recorded: what runs, and what failed (see [`Condition::is_brought_back`]).
    pub(crate) fn running_services(
        &self,
        survey: &Survey,
        ids: &[&str],
    ) -> BTreeMap<String, Vec<Service>> {
        self.services_of(survey, ids, |name, service, condition| {
            self.tell_of_left_alone(name, service, condition);
            condition.is_brought_back()
        })
    }

    /// What is to be restarted after a transaction whose record names what was up before it:
    /// beside that only what runs now. A service that had failed before stays as it was.
    pub(super) fn services_after(
        &self,
        survey: &Survey,
        ids: &[&str],
        record: Option<&TransactionRecord>,
    ) -> BTreeMap<String, Vec<Service>> {
        if record.is_none() {
            return self.running_services(survey, ids);
        }
        self.services_of(survey, ids, |name, service, condition| {
            self.tell_of_left_alone(name, service, condition);
            condition.is_restarted()
        })
    }

    /// What runs now: before a transaction, when nothing can have failed because of it yet, and
    /// where a restart is only for what still runs old code.
    pub(super) fn services_at_work(
        &self,
        survey: &Survey,
        ids: &[&str],
    ) -> BTreeMap<String, Vec<Service>> {
        self.services_of(survey, ids, |_, _, condition| condition.is_restarted())
    }

    /// Names what runs on and is not restarted, and why.
    fn tell_of_left_alone(&self, name: &str, service: &Service, condition: &Condition) {
        if let Some(why) = condition.left_alone.as_ref().filter(|_| condition.is_at_work()) {
            self.report.note(&format!("{name}: {service} is left alone: {why}"));
        }
    }

    /// The services of some venvs, declared or found, that `is_meant`.
    fn services_of(
        &self,
        survey: &Survey,
        ids: &[&str],
        is_meant: impl Fn(&str, &Service, &Condition) -> bool,
    ) -> BTreeMap<String, Vec<Service>> {
        let chosen: Vec<(&RegistryEntry, &Venv)> =
            ids.iter().filter_map(|id| survey.get(id)).collect();
        if chosen.is_empty() {
            return BTreeMap::new();
        }
        let processes = Processes::look(&self.root);
        let paths: Vec<PathBuf> = chosen.iter().map(|(_, venv)| venv.path.clone()).collect();
        let map = ServiceMap::build(&self.root, paths, &processes);
        for gap in &map.gaps {
            self.report.note(&format!("some services may be overlooked: {gap}"));
        }
        chosen
            .into_iter()
            .map(|(entry, venv)| {
                let mut services: Vec<Service> = entry.services.clone();
                // What was declared wins: then nothing else is restarted.
                if services.is_empty() {
                    services.extend(map.of(&venv.path).services.iter().cloned());
                }
                services.retain(|service| match service::condition(&self.root, service) {
                    Ok(condition) => is_meant(&entry.name, service, &condition),
                    Err(error) => {
                        self.report.error(&format!("{service} will not be restarted: {error}"));
                        false
                    }
                });
                (entry.id.clone(), services)
            })
            .collect()
    }

    /// Names the processes that still run old code and that no service manager can restart, and
    /// says how many there are.
    pub(crate) fn tell_of_processes_left(
        &self,
        survey: &Survey,
        ids: &[&str],
        now: &Interpreters,
    ) -> usize {
        let mut count = 0;
        let chosen: Vec<(&RegistryEntry, &Venv)> =
            ids.iter().filter_map(|id| survey.get(id)).collect();
        let paths = chosen.iter().map(|(_, venv)| &venv.path);
        let map = ServiceMap::build(&self.root, paths, &Processes::look(&self.root));
        for (entry, venv) in chosen {
            let interpreter = venv.runs(now).map(python::path_of);
            for process in map.of(&venv.path).unmanaged(interpreter.as_deref()) {
                self.report.note(&format!("{}: restart this yourself: {process}", entry.name));
                count += 1;
            }
        }
        count
    }

    pub(super) fn is_up(&self, service: &Service) -> bool {
        service::condition(&self.root, service).is_ok_and(|condition| condition.up)
    }

    /// The registry, looked at.
    pub(crate) fn look(&self) -> Result<Survey, GuardError> {
        Ok(self.survey(self.registry()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Program, Root};
    use crate::report::Report;
    use crate::venv::BaseLink;

    /// A machine whose systemctl knows units in some states, and a venv that declares them all.
    fn machine(states: &[(&str, &str)]) -> (tempfile::TempDir, Guard, Survey) {
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
        (dir, guard, Survey { registry, venvs: vec![Ok(venv)] })
    }

    #[test]
    fn a_unit_that_failed_before_the_transaction_is_not_started() {
        let (_dir, guard, survey) = machine(&[
            ("broken.service", "ActiveState=failed\nSubState=failed\n"),
            ("ended.service", "ActiveState=active\nSubState=exited\nType=oneshot\n"),
            ("late.service", "ActiveState=activating\nSubState=auto-restart\n"),
            ("masked.service", "ActiveState=active\nSubState=running\nLoadState=masked\n"),
            ("stopped.service", "ActiveState=inactive\nSubState=dead\n"),
            ("web.service", "ActiveState=active\nSubState=running\n"),
        ]);
        let id = survey.registry.venvs[0].id.clone();
        let names = |found: BTreeMap<String, Vec<Service>>| -> Vec<String> {
            found[&id].iter().map(|service| service.name().to_string()).collect()
        };
        let ids = [id.as_str()];
        let record = TransactionRecord::new(BTreeMap::new());
        let at_work = ["late.service", "web.service"];
        assert_eq!(names(guard.services_at_work(&survey, &ids)), at_work);
        assert_eq!(names(guard.services_after(&survey, &ids, Some(&record))), at_work);
        // Nothing was recorded: the upgrade may be why it failed.
        let and_failed = ["broken.service", "late.service", "web.service"];
        assert_eq!(names(guard.services_after(&survey, &ids, None)), and_failed);
        assert_eq!(names(guard.running_services(&survey, &ids)), and_failed);
    }
}
