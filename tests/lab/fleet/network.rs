//! Cables between the controller and its machines: a pair of virtual interfaces each, in their network namespaces.

use std::process::Command;

use anyhow::Result;

use crate::child;
use crate::machine::Machine;

/// Connects a machine to the controller, and returns the controller's address on this cable and the machine's. They come
/// from a range that RFC 5737 reserves for documentation, four for each cable.
pub(super) fn plug(controller: &Machine, machine: &Machine, number: usize) -> Result<[String; 2]> {
    let end = format!("machine{number}");
    let addresses = [1, 2].map(|host| format!("192.0.2.{}", 4 * number + host));
    let namespace = machine.leader().to_string();
    let peer = ["peer", "name", "cable", "netns", &namespace];
    ip(controller, &[&["link", "add", "name", &end, "type", "veth"], &peer[..]].concat())?;
    for (machine, name, address) in
        [(controller, &*end, &addresses[0]), (machine, "cable", &addresses[1])]
    {
        ip(machine, &["address", "add", &format!("{address}/30"), "dev", name])?;
        ip(machine, &["link", "set", name, "up"])?;
    }
    Ok(addresses)
}

/// Runs this computer's `ip` in the network namespace of a machine, which has no such program.
fn ip(machine: &Machine, arguments: &[&str]) -> Result<()> {
    let leader = machine.leader().to_string();
    let mut command = Command::new("nsenter");
    child::output(command.args(["--target", &leader, "--net", "--", "ip"]).args(arguments))
        .map(drop)
}
