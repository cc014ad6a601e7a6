//! The cases, a file for each kind of upgrade.

mod article;
mod block;
mod built;
mod checks;
mod copied;
mod crash;
pub(crate) mod decision;
mod doctor;
mod downtime;
mod errors;
mod faults;
mod foreign;
mod front_ends;
mod halfway;
mod harmless;
mod hold;
mod inodes;
mod kinds;
mod layouts;
mod libraries;
mod live;
mod many;
mod metrics;
pub(crate) mod minor;
mod package;
mod pinned;
mod power;
mod question;
mod rehearsal;
mod rolling;
mod runit;
mod running;
mod services;
mod shared;
mod unattended;
mod users;

use anyhow::Result;

use crate::machine::Machine;
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

/// Half a case, one trial: a machine with these sites and this upgrade, and the test to run on it.
pub(crate) struct Case {
    pub(crate) subject: &'static str,
    pub(crate) half: Half,
    pub(crate) upgrade: Kind,
    pub(crate) sites: &'static [Site],
    /// Debian packages that lie in `/extra`; those of the next release, which an upgrade to it needs, are in a repository.
    pub(crate) extra: &'static [&'static str],
    pub(crate) run: fn(&Machine) -> Result<()>,
}

/// Each case runs without venvguard and with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Half {
    Unguarded,
    Guarded,
}

impl Case {
    /// A case that runs with venvguard only.
    pub(crate) fn guarded(
        subject: &'static str,
        upgrade: Kind,
        sites: &'static [Site],
        run: fn(&Machine) -> Result<()>,
    ) -> Self {
        Self { subject, half: Half::Guarded, upgrade, sites, extra: &[], run }
    }

    /// The name of the trial, for filters.
    pub(crate) fn name(&self) -> String {
        let half = match self.half {
            Half::Unguarded => "unguarded",
            Half::Guarded => "guarded",
        };
        format!("{}::{half}", self.subject)
    }
}

pub(crate) fn all() -> Vec<Case> {
    [
        article::cases(),
        copied::cases(),
        checks::cases(),
        running::cases(),
        services::cases(),
        rolling::cases(),
        shared::cases(),
        runit::cases(),
        minor::cases(),
        built::cases(),
        downtime::cases(),
        errors::cases(),
        rehearsal::cases(),
        question::cases(),
        block::cases(),
        halfway::cases(),
        harmless::cases(),
        hold::cases(),
        package::cases(),
        pinned::cases(),
        crash::cases(),
        decision::cases(),
        power::cases(),
        doctor::cases(),
        faults::cases(),
        foreign::cases(),
        front_ends::cases(),
        inodes::cases(),
        kinds::cases(),
        layouts::cases(),
        libraries::cases(),
        live::cases(),
        many::cases(),
        metrics::cases(),
        crate::hostile::cases(),
        users::cases(),
        unattended::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
