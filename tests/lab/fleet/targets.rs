//! The integration targets of the collection, on a machine over ssh. ansible-test runs them on the computer it runs on.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::json;

use super::Fleet;

pub(super) fn run(fleet: &Fleet) -> Result<()> {
    let (controller, host) = (&fleet.controller, &fleet.hosts[0]);
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    let targets = checkout.join("hooks/ansible/tests/integration/targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&targets)? {
        let entry = entry?;
        if !fs::read_to_string(entry.path().join("aliases"))?.contains("hidden") {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    ensure!(!names.is_empty(), "there are no targets");
    // The targets run a script of their own on the host, by the path that it has on the controller.
    for machine in [&controller.machine, &host.machine] {
        machine.copy(&targets, "/targets")?;
    }
    host.machine.must("dpkg --install /package/venvguard_*.deb && mkdir /output")?;
    let plays = names.iter().map(|name| {
        json!({
            "name": format!("Run the target {name}"),
            "hosts": host.name,
            "become": true,
            "vars": {"output_dir": "/output", "venvguard_program": "/usr/sbin/venvguard"},
            "roles": [name],
        })
    });
    controller.write("targets.yml", &serde_json::to_string_pretty(&plays.collect::<Vec<_>>())?)?;
    let said =
        controller.run("ANSIBLE_ROLES_PATH=/targets ansible-playbook -i hosts.yml targets.yml")?;
    ensure!(said.code == 0, "the targets fail");
    for name in names {
        ensure!(said.text.contains(&format!("PLAY [Run the target {name}]")), "{name} did not run");
    }
    Ok(())
}
