//! The controller: runs Ansible's programs, keeps a transcript, and reads their results.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{Host, mirror};
use crate::cases::Case;
use crate::guard::check_of;
use crate::machine::{Machine, Said, services_of};
use crate::prepare::Lab;
use crate::prepare::upgrade::Kind;

/// The controller's release is the first whose ansible-core is new enough for the collection.
pub(super) const RELEASE: Kind = Kind::TrixieRevision;

/// The tools that make a signed repository, too.
pub(super) const PACKAGES: &[&str] =
    &["ansible-core", "apt-utils", "gpg", "gpg-agent", "openssh-client"];

const DIRECTORY: &str = "/root/fleet";

const PREPARE: &str = r"
set -e
dpkg --install /extra/*.deb /package/venvguard_*.deb
mkdir -p /root/fleet /root/.ssh
ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
ansible-galaxy collection install /usr/share/venvguard/ansible
";

/// In check mode the role cannot ask apt about a package that is not on the machine yet, and another task reports it.
const REPORTED: &str = "Report the package that would be installed";
const INSTALLED: &str = "Install the package";

pub(crate) struct Controller {
    pub(crate) machine: Machine,
    pub(super) public_key: String,
    /// The public key of its mirror.
    pub(super) mirrors_key: String,
    transcript: Mutex<String>,
}

/// What became of a run of `ansible-playbook`.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) code: i32,
    pub(crate) text: String,
}

impl Controller {
    /// Boots it with a mirror of the packages in some directories.
    pub(super) fn boot(lab: &Lab, packages: &[&Path]) -> Result<Self> {
        let case = Case::guarded("controller", RELEASE, &[], |_| Ok(()));
        let case = Case { extra: PACKAGES, ..case };
        let machine = Machine::boot(lab, &case)?;
        machine.must(PREPARE)?;
        let public_key = machine.must("cat /root/.ssh/id_ed25519.pub")?;
        let mirrors_key = mirror::serve(&machine)?;
        mirror::publish(&machine, "debian", packages)?;
        Ok(Self { machine, public_key, mirrors_key, transcript: Mutex::default() })
    }

    /// Writes the inventory `hosts.yml`, and the keys of the machines: a machine with another key is refused.
    pub(super) fn write_inventory(&self, hosts: &[Host]) -> Result<()> {
        let mut inventory = BTreeMap::new();
        let mut known = String::new();
        for host in hosts {
            let key = host.machine.must("cat /etc/ssh/ssh_host_ed25519_key.pub")?;
            writeln!(known, "{} {}", host.address, key.trim())?;
            let sites = host.machine.sites.iter();
            let venvs: Vec<_> = sites
                .map(|site| {
                    let services = services_of(*site);
                    let units = services.iter().map(|service| format!("systemd:{}.service", service.name));
                    let units: Vec<_> = units.collect();
                    json!({"path": site.venv(), "name": site.name(), "services": units, "check": check_of(*site)})
                })
                .collect();
            inventory.insert(&host.name, json!({"ansible_host": host.address, "venvs": venvs}));
        }
        let of_all = json!({
            "ansible_user": "admin",
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_pipelining": true,
            "ansible_ssh_extra_args": "-o StrictHostKeyChecking=yes",
        });
        // JSON is YAML, too.
        let inventory = json!({"all": {"hosts": inventory, "vars": of_all}});
        self.write("hosts.yml", &serde_json::to_string_pretty(&inventory)?)?;
        self.machine.write("/root/.ssh/known_hosts", &known)
    }

    /// Writes a file in the directory in which Ansible runs.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<()> {
        self.machine.write(&format!("{DIRECTORY}/{name}"), text)
    }

    /// Reads a JSON file there.
    pub(crate) fn read_json(&self, name: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.machine.must(&format!("cat {DIRECTORY}/{name}"))?)?)
    }

    /// Runs a command of Ansible's, and keeps it with its output in the transcript.
    pub(crate) fn run(&self, command: &str) -> Result<Said> {
        let said = self.machine.run(&format!("cd {DIRECTORY} && {command}"))?;
        let mut transcript = self.transcript.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(transcript, "$ {command}\n{}# exit {}\n", said.text, said.code)?;
        Ok(said)
    }

    /// Runs a playbook on the whole inventory, or on what the arguments say.
    pub(crate) fn play(&self, arguments: &str) -> Result<Played> {
        let Said { code, text } =
            self.run(&format!("ansible-playbook -i hosts.yml {arguments}"))?;
        Ok(Played { code, text })
    }

    /// Runs a playbook, which must succeed.
    pub(crate) fn must_play(&self, arguments: &str) -> Result<Played> {
        let played = self.play(arguments)?;
        ensure!(played.code == 0, "ansible-playbook {arguments}: exit {}", played.code);
        Ok(played)
    }

    /// The commands that ran, what failed, the recaps, and what the report says: enough to quote.
    pub(super) fn highlights(&self) -> String {
        let is_one = |line: &&str| {
            ["$ ", "fatal: ", "web"].iter().any(|start| line.starts_with(start))
                || line.contains(" virtualenvs.")
                || line.contains(": the nearest version ")
        };
        self.transcript()
            .lines()
            .filter(is_one)
            .fold(String::new(), |text, line| text + line + "\n")
    }

    /// Everything that ran, with its output.
    pub(super) fn transcript(&self) -> String {
        self.transcript.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Played {
    /// The tasks that changed a host, or would change it.
    fn changes(&self, host: &str) -> Vec<&str> {
        let mut task = "";
        let mut changes = Vec::new();
        let marks = [format!("changed: [{host}]"), format!("changed: [{host} ->")];
        for line in self.text.lines() {
            if let Some((_, rest)) = line.split_once("TASK [") {
                task = rest.rsplit_once(']').map_or(rest, |(name, _)| name);
            } else if marks.iter().any(|mark| line.starts_with(mark))
                && changes.last() != Some(&task)
            {
                changes.push(task);
            }
        }
        changes
    }

    /// This run was in check mode, and says what the real run then does.
    pub(crate) fn announces(&self, real: &Self, host: &str) -> Result<()> {
        let (announced, done) = (self.changes(host), real.changes(host));
        ensure!(!done.is_empty(), "{host}: the real run changes nothing");
        let name = |task: &&str| task.replace(REPORTED, INSTALLED);
        let announced: Vec<_> = announced.iter().map(name).collect();
        ensure!(announced == done, "{host}: announced: {announced:?}; done: {done:?}");
        Ok(())
    }

    pub(crate) fn changes_nothing(&self, host: &str) -> Result<()> {
        let changes = self.changes(host);
        ensure!(changes.is_empty(), "{host}: {changes:?}");
        Ok(())
    }
}
