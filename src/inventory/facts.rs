//! Finds out what a decision needs to know about a venv: whether it can be rebuilt, and which
//! services use it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Inventory, services_of};
use crate::host::clock::Deadline;
use crate::host::{parallel, user};
use crate::plan::{Facts, Questions};
use crate::python::Minor;
use crate::repair::{self, Context, Next};
use crate::service::{
    self, CgroupOwner, Condition, Embedding, Restraints, Service, ServiceMap, VenvProcess,
    VenvUsage,
};
use crate::store::{RegistryEntry, TransactionRecord};
use crate::venv::Venv;

/// The most mentions of one venv that a decision names.
const MENTIONS: usize = 5;

/// The questions about one venv, and the minor version that a rebuild of it would be for.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) id: String,
    pub(crate) questions: Questions,
    pub(crate) target: Option<Minor>,
    /// Its interpreter, if that is not installed yet.
    pub(crate) next: Option<Next>,
}

/// The answers, by the venvs' ids. `record` lists the services that ran before the transaction.
pub(crate) fn facts(
    context: &Context,
    inventory: &Inventory,
    asked: &[Asked],
    record: Option<&TransactionRecord>,
) -> BTreeMap<String, Facts> {
    let mut facts: BTreeMap<String, Facts> = BTreeMap::new();
    let rebuilt: Vec<(&Asked, &RegistryEntry, &Venv)> = asked
        .iter()
        .filter(|one| one.questions.readiness)
        .filter_map(|one| inventory.get(&one.id).map(|(entry, venv)| (one, entry, venv)))
        .collect();
    let venvs: Vec<&Venv> = rebuilt.iter().map(|(_, _, venv)| *venv).collect();
    let looked = rebuilt.iter().zip(repair::look_through(context.root, &venvs));
    let at_once = context.config.at_once(None);
    let readiness = parallel::map(looked, at_once, |((one, entry, venv), looked)| {
        let target = (one.target, one.next.as_ref());
        (&one.id, repair::readiness(context, entry, venv, target, looked))
    });
    for (id, readiness) in readiness {
        facts.entry(id.clone()).or_default().readiness = Some(readiness);
    }
    // Only a rebuild for another minor version removes what files may name.
    let moved: Vec<_> = rebuilt
        .iter()
        .filter(|(one, _, venv)| one.target.is_some_and(|target| target != venv.site))
        .collect();
    let paths: Vec<_> = moved.iter().map(|(.., venv)| (venv.path.as_path(), venv.site)).collect();
    for ((one, ..), mut found) in moved.iter().zip(repair::mentions(context.root, &paths)) {
        found.truncate(MENTIONS);
        facts.entry(one.id.clone()).or_default().mentions = found;
    }
    let served: Vec<(&RegistryEntry, &Venv)> = asked
        .iter()
        .filter(|one| one.questions.services)
        .filter_map(|one| inventory.get(&one.id))
        .collect();
    if served.is_empty() {
        return facts;
    }
    let restraints = Restraints::look(context.root);
    let is_shutting_down = service::is_shutting_down(context.root);
    let map = inventory.users(context.root);
    for (id, Served { services, embedded_in, units_of_users }) in
        self::served(context, map, &served)
    {
        let restrained = services.iter().filter(|(_, condition)| condition.is_restarted());
        let restrained =
            restrained.filter_map(|(one, _)| Some((one.clone(), restraints.on(one)?))).collect();
        let were_up = record.map(|record| record.services_of(&id).to_vec());
        let check_before = record.and_then(|record| record.checks.get(&id).cloned());
        let fact = facts.entry(id).or_default();
        let known = std::mem::take(fact);
        *fact = Facts {
            services,
            units_of_users,
            were_up,
            check_before,
            restrained,
            is_shutting_down,
            embedded_in,
            ..known
        };
    }
    facts
}

/// What runs out of a venv.
struct Served {
    services: Vec<(Service, Condition)>,
    embedded_in: Option<Embedding>,
    units_of_users: BTreeSet<(String, String)>,
}

/// The services declared for a path that may no longer be a venv.
pub(crate) fn declared_services(context: &Context, entry: &RegistryEntry) -> Facts {
    let known = with_conditions(context, &entry.services);
    let known = |one: &Service| Some((one.clone(), known.get(one)?.clone()));
    Facts { services: entry.services.iter().filter_map(known).collect(), ..Facts::default() }
}

/// The conditions of those services that can be asked about. Reports the others.
fn with_conditions(context: &Context, services: &[Service]) -> BTreeMap<Service, Condition> {
    let found = service::conditions(context.root, services, Deadline::never());
    let known = found.into_iter().filter_map(|(service, condition)| match condition {
        Ok(condition) => Some((service, condition)),
        Err(error) => {
            context.report.error(&format!(
                "cannot query {service}, so venvguard does not restart it: {error}"
            ));
            None
        }
    });
    known.collect()
}

/// The services of some venvs, declared or found, and the condition of each.
fn served(
    context: &Context,
    map: &ServiceMap,
    venvs: &[(&RegistryEntry, &Venv)],
) -> BTreeMap<String, Served> {
    for gap in &map.gaps {
        context.report.note(&format!("venvguard may have missed services: {gap}"));
    }
    let all = venvs.iter().flat_map(|(entry, venv)| services_of(entry, map.of(&venv.path)));
    let known = with_conditions(context, &all.cloned().collect::<Vec<_>>());
    venvs
        .iter()
        .map(|(entry, venv)| {
            let usage = map.of(&venv.path);
            let services = services_of(entry, usage).into_iter();
            let services = services.filter_map(|one| Some((one.clone(), known.get(one)?.clone())));
            let embedded_in = usage.embedding(context.root);
            let (services, units_of_users) = (services.collect(), units_of_users(context, usage));
            (entry.id.clone(), Served { services, embedded_in, units_of_users })
        })
        .collect()
}

/// The units of users' own service managers that run out of a venv of root's, each after its user.
fn units_of_users(context: &Context, usage: &VenvUsage) -> BTreeSet<(String, String)> {
    if context.root.user().is_some() {
        return BTreeSet::new();
    }
    let unit = |user: &VenvProcess| match &user.process.place {
        CgroupOwner::UserUnit { uid, unit } if user.service.is_none() => {
            Some((user::name(context.root, *uid), unit.clone()))
        }
        _ => None,
    };
    usage.processes.iter().filter_map(unit).collect()
}
