//! Fleets: several machines of the lab, and a controller that manages them with the Ansible collection over ssh.
//!
//! The controller is a machine of its own, with Debian's ansible-core and the collection from venvguard's package. Cables
//! lead from its network namespace to those of the others, so that nothing of this computer's network changes.
//! `tests/run --fleet` runs these trials.

mod controller;
mod mirror;
mod network;
mod repository;
mod story;
mod targets;

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use libtest_mimic::Failed;

use crate::cases::Case;
use crate::machine::Machine;
use crate::prepare::Lab;
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;
use crate::timed;
use controller::{Controller, PACKAGES as OF_CONTROLLER, RELEASE};

/// A trial with a fleet; it takes minutes, and so runs only on request.
#[derive(Clone, Copy)]
pub(crate) struct Trial {
    pub(crate) name: &'static str,
    /// The sites of each machine.
    sites: &'static [&'static [Site]],
    run: fn(&Fleet) -> Result<()>,
}

pub(crate) fn all() -> Vec<Trial> {
    vec![
        Trial { name: "fleet_upgraded_in_waves", sites: &story::SITES, run: story::run },
        Trial { name: "fleet_from_a_repository", sites: &[&[]], run: repository::run },
        Trial { name: "fleet_integration_targets", sites: &[&[]], run: targets::run },
    ]
}

/// A controller and its machines.
pub(crate) struct Fleet {
    pub(crate) controller: Controller,
    pub(crate) hosts: Vec<Host>,
    /// The directory of venvguard's package.
    package: PathBuf,
}

/// A machine that is managed.
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) machine: Machine,
    /// Its address, and the controller's on the same cable.
    pub(crate) address: String,
    pub(crate) controllers_address: String,
}

/// The upgrade of every machine.
const UPGRADE: Kind = Kind::BookwormMinor;

/// What an administrator installs on a machine that Ansible manages.
const PACKAGES: &[&str] = &["openssh-server", "python3-apt", "sudo"];

const PREPARE: &str = r"
set -e
dpkg --install /extra/*.deb
mkdir -p /etc/apt/keyrings
useradd --create-home --shell /bin/sh admin
echo 'admin ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/admin
install -d -o admin -g admin -m 700 /home/admin/.ssh
rm /etc/apt/sources.list /etc/apt/sources.list.d/newer.list
";

/// A fleet takes no more memory than three machines that use all of their room: its machines write little.
pub(crate) const COUNTS_AS: usize = 3;

/// As many as keep two cores busy.
const PREPARED_AT_ONCE: usize = 3;

impl Trial {
    /// Downloads and builds what its machines need.
    pub(crate) fn prepare(self, lab: &Lab) -> Result<()> {
        lab.extra(UPGRADE.suite(), PACKAGES)?;
        lab.newer(UPGRADE, PACKAGES)?;
        lab.extra(RELEASE.suite(), OF_CONTROLLER)?;
        for site in self.sites.iter().copied().flatten() {
            lab.site(UPGRADE.suite(), *site)?;
        }
        lab.package().map(drop)
    }

    /// Boots the machines and runs the trial; a failure includes the logs of all of them.
    pub(crate) fn perform(self, lab: &Lab, nocapture: bool) -> Result<(), Failed> {
        let (fleet, outcome) = timed(lab, self.name, || self.boot(lab), self.run, Fleet::used)?;
        match (nocapture, outcome.is_ok()) {
            (true, true) => println!("{}", fleet.controller.transcript()),
            (false, true) => println!("{}", fleet.controller.highlights()),
            _ => {}
        }
        outcome.map_err(|error| format!("{}\n{error:#}", fleet.report()).into())
    }

    fn boot(self, lab: &Lab) -> Result<Fleet> {
        let newer = lab.newer(UPGRADE, PACKAGES)?.context("no packages of the next release")?;
        let controller = Controller::boot(lab, &[&lab.upgrade(UPGRADE)?.repository, &newer])?;
        // A machine ends with the thread that booted it, so this one boots them all.
        let boot = |(number, sites)| Host::boot(lab, &controller, number, sites);
        let hosts: Vec<_> =
            self.sites.iter().copied().enumerate().map(boot).collect::<Result<_>>()?;
        for some in hosts.chunks(PREPARED_AT_ONCE) {
            std::thread::scope(|scope| {
                let controller = &controller;
                let prepare = |host| scope.spawn(move || Host::prepare(host, controller));
                let threads: Vec<_> = some.iter().map(prepare).collect();
                let mut ended = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
                ended
                    .try_for_each(|result| result.map_err(|_| anyhow!("a preparation panicked"))?)
            })?;
        }
        controller.write_inventory(&hosts)?;
        Ok(Fleet { controller, hosts, package: lab.package()? })
    }
}

impl Host {
    fn boot(
        lab: &Lab,
        controller: &Controller,
        number: usize,
        sites: &'static [Site],
    ) -> Result<Self> {
        let case = Case::guarded("fleet", UPGRADE, sites, |_| Ok(()));
        let case = Case { extra: PACKAGES, ..case };
        let machine = Machine::boot(lab, &case)?;
        let [controllers_address, address] = network::plug(&controller.machine, &machine, number)?;
        Ok(Self { name: format!("web{}", number + 1), machine, address, controllers_address })
    }

    /// Makes it one that Ansible can manage.
    fn prepare(&self, controller: &Controller) -> Result<()> {
        self.machine.must(PREPARE)?;
        self.machine.write("/home/admin/.ssh/authorized_keys", &controller.public_key)?;
        self.machine.write("/etc/apt/keyrings/mirror.asc", &controller.mirrors_key)?;
        let source = format!(
            "deb [signed-by=/etc/apt/keyrings/mirror.asc] http://{}:8000/debian stable main\n",
            self.controllers_address
        );
        self.machine.write("/etc/apt/sources.list", &source)?;
        self.machine.must("apt-get -qq update")?;
        self.machine.wait_until_all_serve()
    }
}

impl Fleet {
    /// The size of everything that the machines have written, in MiB.
    fn used(&self) -> Result<u64> {
        let machines = self.hosts.iter().map(|host| &host.machine);
        machines.chain([&self.controller.machine]).map(Machine::used).sum()
    }

    /// The logs to read when a trial has failed.
    fn report(&self) -> String {
        let hosts = self.hosts.iter();
        let logs = hosts.map(|host| format!("=== {}\n{}", host.name, host.machine.report()));
        format!("{}{}", logs.collect::<String>(), self.controller.transcript())
    }
}
