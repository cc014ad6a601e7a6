//! Groups of venvs whose services are stopped and restarted together. Venvs that share a service
//! form a group, so that the service restarts once for all of them; and so do venvs of which one's
//! service stops with another's. Venvs that only need a restart form another group, so that systemd
//! restarts them in one transaction, in its own order. Only services that restart in turns wait for
//! theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use super::Context;
use super::adopt::{Pinned, Ready, Repair, RepairResult, RestartScope};
use super::halt::each_once;
use super::job::{Done, Job};
use super::not_rebuilt::NotRebuilt;
use super::restart::{Proof, Restarted, tell};
use super::swap::{Rebuilt, swap_in};
use crate::host::parallel::{self, Permit};
use crate::plan::{Remedy, Until};
use crate::service::{self, Processes, Service, ServiceMap};

/// The groups of a run, each with the repairs that are ready.
pub(super) struct Groups<'a, 'r> {
    group_of: Vec<usize>,
    waiting: Mutex<BTreeMap<usize, BTreeMap<usize, Member<'a, 'r>>>>,
}

type Member<'a, 'r> = (Repair<'a, 'r>, Ready);

impl<'a, 'r> Groups<'a, 'r> {
    pub(super) fn of(context: &Context, jobs: &[Job]) -> Self {
        let services = jobs.iter().filter(|job| is_restarted(job)).flat_map(Job::services);
        let services: BTreeSet<&Service> = services.collect();
        let services: Vec<Service> = services.into_iter().cloned().collect();
        // What cannot be asked now is asked again, and reported, when the services stop.
        let stop_with = match services.as_slice() {
            [] | [_] => BTreeMap::new(),
            several => service::stop_with(context.root, several).unwrap_or_default(),
        };
        Self { group_of: groups(jobs, &stop_with), waiting: Mutex::default() }
    }

    /// Adds a repair, by the index of its job. Returns the whole group, in the order of the jobs,
    /// once it is complete.
    pub(super) fn join(&self, index: usize, repair: Member<'a, 'r>) -> Option<Vec<Member<'a, 'r>>> {
        let group = *self.group_of.get(index)?;
        let size = self.group_of.iter().filter(|other| **other == group).count();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let members = waiting.entry(group).or_default();
        members.insert(index, repair);
        if members.len() < size {
            return None;
        }
        waiting.remove(&group).map(|members| members.into_values().collect())
    }
}

/// The number of each job's group, in the order of the jobs. `stop_with` names the units that stop
/// with each service.
fn groups(jobs: &[Job], stop_with: &BTreeMap<String, BTreeSet<String>>) -> Vec<usize> {
    let mut groups: Vec<usize> = (0..jobs.len()).collect();
    let join = |groups: &mut [usize], one: usize, other: usize| {
        let (to, from) = (one.min(other), one.max(other));
        groups.iter_mut().filter(|group| **group == from).for_each(|group| *group = to);
    };
    let mut first_with: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, job) in jobs.iter().enumerate().filter(|(_, job)| is_restarted(job)) {
        let own = job.services().iter().map(Service::name);
        let others = own.clone().filter_map(|name| stop_with.get(name)).flatten();
        for name in own.chain(others.map(String::as_str)) {
            let first = *first_with.entry(name).or_insert(index);
            // Both are indices of jobs, and there is a group for each.
            let (one, other) = (groups[first], groups[index]);
            join(&mut groups, one, other);
        }
    }
    let mut only_restarts: BTreeMap<usize, bool> = BTreeMap::new();
    for (job, group) in jobs.iter().zip(&groups) {
        let is_restart = job.decision.remedy == Remedy::Restart && !job.services().is_empty();
        *only_restarts.entry(*group).or_insert(true) &= is_restart;
    }
    let mut only_restarts =
        only_restarts.into_iter().filter_map(|(group, only)| only.then_some(group));
    if let Some(first) = only_restarts.next() {
        only_restarts.for_each(|other| join(&mut groups, first, other));
    }
    groups
}

/// Whether the services of a venv are restarted once its repair is ready.
fn is_restarted(job: &Job) -> bool {
    matches!(
        job.decision.remedy,
        Remedy::Restart | Remedy::Refresh | Remedy::Rebuild { .. } | Remedy::Pin { .. }
    )
}

/// What a repair waits for after the swap.
enum Waiting {
    Ended(RepairResult),
    Restart,
    Refreshed,
    Swapped(Rebuilt),
    NotSwapped(NotRebuilt),
    NotBuilt(NotRebuilt),
    FallBack(String),
    Pinned(Pinned),
}

/// Finishes repairs that are ready: swaps the prepared trees in while the services are stopped,
/// restarts all services, and tests the venvs, `at_once` at a time. The permit is for the swaps.
pub(super) fn finish<'w, 'a, 'r>(
    repairs: Vec<(&'w Repair<'a, 'r>, Ready)>,
    at_once: usize,
    permit: Permit,
) -> Vec<(&'w Repair<'a, 'r>, RepairResult)> {
    let Some(context) = repairs.first().map(|(repair, _)| repair.context) else {
        return Vec::new();
    };
    look_at_users(&repairs);
    let waiting = swap(context, repairs);
    drop(permit);
    let proofs = restart(context, &waiting, at_once);
    let mut steps: Vec<_> = waiting.into_iter().zip(proofs).collect();
    steps.sort_by_key(|((repair, one), _)| one.rank(repair));
    let mut results = Vec::new();
    let mut went_back = Vec::new();
    for ((repair, one), proof) in steps {
        let proof = proof.unwrap_or_else(|| Ok(Restarted::default()));
        // Swapping a venv back restarts the services that it shares: test again what failed.
        let proof = if went_back.is_empty() { proof } else { proof.or_else(|_| repair.restart()) };
        let is_swap = matches!(one, Waiting::Swapped(_) | Waiting::NotSwapped(_));
        let result = match one {
            Waiting::Ended(result) => result,
            Waiting::Restart => Repair::restarted(proof),
            Waiting::Refreshed => Repair::refreshed(proof),
            Waiting::Swapped(Rebuilt { swap, notes }) => repair.prove(swap, notes, proof),
            Waiting::NotSwapped(error) | Waiting::NotBuilt(error) => repair.not_rebuilt(error),
            Waiting::FallBack(because) => {
                repair.fall_back(because, Until::Rebuilt, RestartScope::Stopped)
            }
            Waiting::Pinned(pinned) => {
                let stopped = pinned.scope == RestartScope::Stopped;
                repair.pinned(pinned, if stopped { repair.restart_down() } else { proof })
            }
        };
        if is_swap && !matches!(result.done, Done::Rebuilt { .. }) {
            went_back.push(results.len());
        }
        results.push((repair, repair.with_left_alone(result)));
    }
    // The service of a venv that went back may have failed because of one that went back later.
    went_back.pop();
    let tested = results.into_iter().enumerate().map(|(index, (repair, result))| {
        let is_meant = went_back.contains(&index);
        (repair, if is_meant { repair.test_again(result) } else { result })
    });
    tested.collect()
}

impl Waiting {
    /// What is finished first: what was not swapped, and of the others those that can go back. A venv
    /// whose old interpreter is gone stays with its new tree if that works once the others are
    /// back. What is only restarted comes last.
    fn rank(&self, repair: &Repair) -> u8 {
        match self {
            Self::Ended(_) | Self::NotSwapped(_) | Self::NotBuilt(_) | Self::FallBack(_) => 0,
            Self::Swapped(_) if repair.now.get(repair.job.venv.site).is_some() => 1,
            Self::Swapped(_) => 2,
            Self::Restart | Self::Refreshed | Self::Pinned(_) => 3,
        }
    }
}

/// Restarts the services of all repairs that wait for it, each service once, and waits until they
/// are up. The result has an element for each repair.
fn restart(
    context: &Context,
    waiting: &[(&Repair, Waiting)],
    at_once: usize,
) -> Vec<Option<Result<Restarted, String>>> {
    let is_waiting = |one: &Waiting| match one {
        Waiting::Restart | Waiting::Refreshed | Waiting::Swapped(_) => true,
        Waiting::Pinned(pinned) => pinned.scope == RestartScope::All,
        _ => false,
    };
    let to_prove: Vec<Option<Proof>> = waiting
        .iter()
        .map(|(repair, one)| is_waiting(one).then(|| repair.proof_of_all()))
        .collect();
    let first = to_prove.iter().flatten().flat_map(|one| &one.turns.first);
    let told = tell(context, &each_once(first));
    for (repair, _) in waiting.iter().filter(|(_, one)| matches!(one, Waiting::NotSwapped(_))) {
        // They were stopped for nothing. What cannot be started is reported at the end.
        let _ = repair.halt.borrow().start_what_is_left(context.root);
    }
    let prove = |one: Proof| {
        let own = |(service, _): &&(Service, _)| one.job.services().contains(service);
        one.prove(context, told.iter().filter(own).cloned().collect())
    };
    parallel::map(to_prove, at_once, |one| one.map(prove))
}

/// Finds what runs out of the venvs, where that is not known yet, with one look at all processes.
fn look_at_users(repairs: &[(&Repair, Ready)]) {
    let unknown = |(repair, ready): &&(&Repair, Ready)| {
        let is_asked = !matches!(ready, Ready::Ended(_)) && !repair.job.services().is_empty();
        is_asked && repair.users.get().is_none()
    };
    let unknown: Vec<&Repair> = repairs.iter().filter(unknown).map(|(repair, _)| *repair).collect();
    let Some(root) = unknown.first().map(|repair| repair.context.root) else { return };
    let paths = unknown.iter().map(|repair| repair.job.entry.path());
    let map = ServiceMap::build(root, paths, &Processes::look(root));
    for repair in unknown {
        let _ = repair.users.set(map.of(repair.job.entry.path()).clone());
    }
}

fn swap<'w, 'a, 'r>(
    context: &Context,
    repairs: Vec<(&'w Repair<'a, 'r>, Ready)>,
) -> Vec<(&'w Repair<'a, 'r>, Waiting)> {
    let (mut swaps, mut notes) = (Vec::new(), Vec::new());
    let waiting: Vec<_> = repairs
        .into_iter()
        .map(|(repair, ready)| {
            let one = match ready {
                Ready::Ended(result) => Some(Waiting::Ended(result)),
                Ready::Restart => Some(Waiting::Restart),
                Ready::Refreshed => Some(Waiting::Refreshed),
                Ready::NotBuilt(error) => Some(Waiting::NotBuilt(error)),
                Ready::FallBack(because) => Some(Waiting::FallBack(because)),
                Ready::Pinned(pinned) => Some(Waiting::Pinned(pinned)),
                Ready::Swap { prepared, notes: own } => {
                    swaps.push(repair.swap_in(prepared));
                    notes.push(own);
                    None
                }
            };
            (repair, one)
        })
        .collect();
    let mut swapped = swap_in(context, swaps).into_iter().zip(notes).map(|(result, notes)| {
        result.map_or_else(Waiting::NotSwapped, |built| {
            Waiting::Swapped(Rebuilt { notes: [notes, built.notes].concat(), ..built })
        })
    });
    let waiting = waiting.into_iter();
    waiting.filter_map(|(repair, one)| Some((repair, one.or_else(|| swapped.next())?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Decision, Policy, Target, samples};
    use crate::python::Minor;
    use crate::store::Registry;
    use crate::venv::BaseLink;

    fn job(remedy: Remedy, services: &[&str]) -> Job {
        let venv = samples::subject(BaseLink::Followed, Minor::new(3, 11)).venv;
        let mut registry = Registry::default();
        let entry = registry.add(&venv.path, None, Policy::Auto).unwrap().clone();
        let services = services.iter().map(|name| name.parse().unwrap()).collect();
        Job { decision: Decision { remedy, services, ..samples::decision() }, entry, venv }
    }

    #[test]
    fn venvs_that_share_a_service_and_venvs_that_only_restart_form_groups() {
        let target = Target { minor: Minor::new(3, 13), follows: true, copies: false };
        let rebuild = || Remedy::Rebuild { target, relax: None };
        let pin = Remedy::Pin { to: target.minor, until: Until::Rebuilt, outdated: false };
        let jobs = [
            job(Remedy::Restart, &["systemd:a"]),
            job(rebuild(), &["systemd:web", "systemd:apache2"]),
            job(Remedy::Restart, &["systemd:b"]),
            job(Remedy::Refresh, &["systemd:apache2"]),
            job(rebuild(), &["systemd:alone"]),
            job(Remedy::Restart, &["systemd:web"]),
            job(rebuild(), &[]),
            job(Remedy::Restart, &[]),
            job(Remedy::None, &["systemd:alone"]),
            job(pin, &["systemd:alone"]),
        ];
        assert_eq!(groups(&jobs, &BTreeMap::new()), [0, 1, 0, 1, 4, 1, 6, 7, 8, 4]);
        assert_eq!(groups(&[], &BTreeMap::new()), [0; 0]);
    }

    #[test]
    fn venvs_whose_services_stop_together_form_a_group() {
        let jobs = ["systemd:site", "systemd:alone", "systemd:worker"]
            .map(|service| job(Remedy::Refresh, &[service]));
        let with = BTreeSet::from(["worker.service".to_string()]);
        let stop_with = BTreeMap::from([("site.service".to_string(), with)]);
        assert_eq!(groups(&jobs, &stop_with), [0, 1, 0]);
    }

    #[test]
    fn a_later_service_joins_two_groups() {
        let jobs = [
            job(Remedy::Refresh, &["systemd:a"]),
            job(Remedy::Refresh, &["systemd:b"]),
            job(Remedy::Refresh, &["systemd:b", "systemd:a"]),
        ];
        assert_eq!(groups(&jobs, &BTreeMap::new()), [0, 0, 0]);
    }
}
