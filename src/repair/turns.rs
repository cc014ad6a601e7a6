//! The turns in which services restart, so that others of the same kind serve meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Context;
use super::job::Job;
use crate::service::Service;

/// Services that restart one after another.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Turns {
    pub(super) first: Vec<Service>,
    /// The services of each later turn.
    pub(super) later: Vec<Vec<Service>>,
    pub(super) pause: Duration,
}

impl Turns {
    /// All services in one turn.
    pub(super) fn at_once(services: &[Service]) -> Self {
        Self { first: services.to_vec(), ..Self::default() }
    }

    /// The instances of a template unit, and the programs of a group, one in each turn. Everything
    /// else belongs to the first turn, in which systemd knows the order.
    pub(super) fn of(services: &[Service], pause: Duration) -> Self {
        let mut families: BTreeMap<(&str, String), Vec<&Service>> = BTreeMap::new();
        let mut first = Vec::new();
        for service in services {
            match service.family() {
                Some(family) => {
                    families.entry((service.manager_key(), family)).or_default().push(service);
                }
                None => first.push(service.clone()),
            }
        }
        let mut later: Vec<Vec<Service>> = Vec::new();
        for mut family in families.into_values() {
            // `web@2` comes before `web@10`.
            family.sort_by_key(|service| (service.name().len(), service.name()));
            let mut family = family.into_iter().cloned();
            first.extend(family.next());
            for (turn, service) in family.enumerate() {
                match later.get_mut(turn) {
                    Some(services) => services.push(service),
                    None => later.push(vec![service]),
                }
            }
        }
        first.sort();
        Self { first, later, pause }
    }
}

/// The pause between the turns of a venv's services, if they restart in turns.
pub(super) fn pause(context: &Context, job: &Job) -> Option<Duration> {
    let pause = job.entry.rolling.as_ref().or(context.config.rolling.as_ref())?.time?;
    (!Turns::of(job.services(), pause).later.is_empty()).then_some(pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(services: &[&str]) -> Vec<Vec<String>> {
        let services: Vec<Service> = services.iter().map(|one| one.parse().unwrap()).collect();
        let turns = Turns::of(&services, Duration::ZERO);
        let named = |turn: Vec<Service>| turn.iter().map(ToString::to_string).collect();
        std::iter::once(turns.first).chain(turns.later).map(named).collect()
    }

    #[test]
    fn instances_and_pools_restart_one_after_another_and_others_in_the_first_turn() {
        let services = [
            "supervisord:pool:w1",
            "supervisord:pool:w2",
            "supervisord:single",
            "systemd:db.service",
            "systemd:web@1",
            "systemd:web@10",
            "systemd:web@2",
            "runit:web",
        ];
        let expected = [
            &[
                "runit:web",
                "supervisord:pool:w1",
                "supervisord:single",
                "systemd:db.service",
                "systemd:web@1.service",
            ][..],
            &["supervisord:pool:w2", "systemd:web@2.service"],
            &["systemd:web@10.service"],
        ];
        assert_eq!(turns(&services), expected);
        assert_eq!(turns(&["systemd:web", "systemd:db"]).len(), 1);
        assert_eq!(turns(&[]), [[""; 0]]);
    }

    #[test]
    fn instances_of_two_templates_share_the_turns() {
        let services = ["systemd:a@x", "systemd:b@x", "systemd:a@y", "systemd:b@y"];
        let expected = [
            ["systemd:a@x.service", "systemd:b@x.service"],
            ["systemd:a@y.service", "systemd:b@y.service"],
        ];
        assert_eq!(turns(&services), expected);
    }
}
