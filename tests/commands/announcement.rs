//! The line that apt shows before it asks whether to continue.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use super::system::System;
use super::{MINOR_UPGRADE, NO_PYTHON, REVISION, system};

/// Talks to the hook as apt does before its question, and returns the line that the hook prints.
fn shown(system: &System, actions: &[&str]) -> String {
    let (mut apt, hook) = UnixStream::pair().unwrap();
    let packages: Vec<String> = actions.iter().map(|action| package(action)).collect();
    for (method, parameters) in [
        ("hello", r#""versions":["0.1","0.2"]"#.to_string()),
        (
            "install.statistics",
            format!("\"command\":\"upgrade\",\"packages\":[{}]", packages.join(",")),
        ),
        ("bye", String::new()),
    ] {
        let method = format!("org.debian.apt.hooks.{method}");
        writeln!(
            apt,
            "{{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"{method}\",\"params\":{{{parameters}}}}}\n"
        )
        .unwrap();
    }
    apt.shutdown(Shutdown::Write).unwrap();
    let said = system.with_input(&["hook", "statistics"], OwnedFd::from(hook)).expect(0);
    let mut answer = String::new();
    apt.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\"version\":\"0.2\"") && answer.ends_with("\n\n"), "{answer}");
    assert_eq!(said.stderr, "");
    said.stdout
}

/// A package as apt describes it, from a line of the list that dpkg's hook gets.
fn package(line: &str) -> String {
    let fields: Vec<&str> = line.split(' ').collect();
    let [name, current, _, _, _, new, .., action] = fields[..] else { panic!("{line}") };
    let version = |which: &str, text: &str| match text {
        "-" => None,
        text => Some(format!("\"{which}\":{{\"version\":\"{text}\"}}")),
    };
    let mode = if action == "**REMOVE**" { "deinstall" } else { "upgrade" };
    let versions: Vec<String> =
        [version("current", current), version("install", new)].into_iter().flatten().collect();
    format!("{{\"name\":\"{name}\",\"mode\":\"{mode}\",\"versions\":{{{}}}}}", versions.join(","))
}

#[test]
fn apt_shows_what_will_be_done_before_it_asks() {
    let system = system();
    system.run(&["register", "/srv/shop/venv"]).expect(0);
    // There is no installer for a rebuild.
    assert_eq!(
        shown(&system, MINOR_UPGRADE),
        "venvguard: 1 venv: 1 to pin; not ready: shop (see `venvguard plan`)\n"
    );
    assert_eq!(shown(&system, REVISION), "venvguard: 1 venv: 1 to restart\n");
    assert_eq!(shown(&system, NO_PYTHON), "");
    system.run(&["register", "--policy", "block", "/srv/shop/venv"]).expect(0);
    assert_eq!(
        shown(&system, MINOR_UPGRADE),
        "venvguard: this upgrade is blocked because of shop: see `venvguard plan`\n"
    );
    system.run(&["register", "--policy", "ignore", "/srv/shop/venv"]).expect(0);
    assert_eq!(shown(&system, MINOR_UPGRADE), "");
}

#[test]
fn apt_goes_on_if_venvguard_cannot_tell() {
    let system = system();
    system.run(&["register", "/srv/shop/venv"]).expect(0);
    system.write("/etc/venvguard/config.toml", "policy = 7\n");
    assert_eq!(shown(&system, MINOR_UPGRADE), "", "the gate reports the error");
}
