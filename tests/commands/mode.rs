//! Who answers apt: the policies, or a mode that somebody sets.

use std::io::Read;
use std::process::{Command, Stdio};

use super::system::{Said, System};
use super::{MINOR_UPGRADE, REVISION, system};

/// apt's list for these actions, with a line of its configuration.
fn list(option: &str, actions: &[&str]) -> String {
    format!("VERSION 3\n{option}\n\n{}\n", actions.join("\n"))
}

fn gate(system: &System, variables: &[(&str, &str)], option: &str, actions: &[&str]) -> Said {
    system.hook_in(variables, "pre-install", &list(option, actions))
}

const NO_OPTION: &str = "APT::Architecture=amd64";

#[test]
fn an_upgrade_that_is_allowed_goes_on_in_spite_of_a_policy() {
    let system = system();
    system.run(&["register", "/srv/shop/venv", "--policy", "block"]).expect(0);
    let allow = [("VENVGUARD_MODE", "allow")];
    for said in [
        gate(&system, &allow, NO_OPTION, MINOR_UPGRADE).expect(0),
        gate(&system, &[], "VenvGuard::Mode=allow", MINOR_UPGRADE).expect(0),
    ] {
        assert!(
            said.stderr.contains("continues although these venvs block it: shop"),
            "{}",
            said.stderr
        );
    }
    let history = system.run(&["history", "--json"]).expect(0).json();
    assert_eq!(history["events"][0]["what"], "allowed");
    system.write("/etc/venvguard/config.toml", "mode = \"allow\"\n");
    gate(&system, &[], NO_OPTION, MINOR_UPGRADE).expect(0);
}

#[test]
fn a_machine_that_blocks_everything_lets_no_upgrade_of_a_venvs_python_pass() {
    let system = system();
    system.run(&["register", "/srv/shop/venv"]).expect(0);
    system.write("/etc/venvguard/config.toml", "mode = \"block\"\n");
    for actions in [MINOR_UPGRADE, REVISION] {
        let said = gate(&system, &[], NO_OPTION, actions).expect(10);
        assert!(said.stderr.contains("VenvGuard::Mode=auto"), "{}", said.stderr);
    }
    assert_eq!(system.link("/srv/shop/venv/bin/python3"), "/usr/bin/python3", "it was pinned");
    let history = system.run(&["history", "--json"]).expect(0).json();
    assert_eq!(history["events"][0]["what"], "blocked");
    // The hint is true.
    gate(&system, &[], "VenvGuard::Mode=auto", REVISION).expect(0);
}

#[test]
fn an_unknown_mode_is_reported_and_ignored() {
    let system = system();
    system.run(&["register", "/srv/shop/venv", "--policy", "block"]).expect(0);
    let said = gate(&system, &[("VENVGUARD_MODE", "alow")], NO_OPTION, REVISION).expect(10);
    let expected = "VENVGUARD_MODE is \"alow\", which is not ask, auto, allow or block";
    assert!(said.stderr.contains(expected), "{}", said.stderr);
    // The next one counts, and an empty one is none.
    gate(&system, &[("VENVGUARD_MODE", "x")], "VenvGuard::Mode=allow", REVISION).expect(0);
    gate(&system, &[("VENVGUARD_MODE", "")], "VenvGuard::Mode=allow", REVISION).expect(0);
}

#[test]
fn a_release_upgrade_is_not_blocked_but_its_removals_are() {
    let system = system();
    system.run(&["register", "/srv/shop/venv", "--policy", "block"]).expect(0);
    let release = [("RELEASE_UPGRADE_IN_PROGRESS", "1")];
    let said = gate(&system, &release, NO_OPTION, MINOR_UPGRADE).expect(0);
    assert!(
        said.stderr.contains("continues although these venvs block it: shop"),
        "{}",
        said.stderr
    );
    let removal = ["python3.11-minimal 3.11.2-6 amd64 allowed > - - none **REMOVE**"];
    gate(&system, &release, NO_OPTION, &removal).expect(10);
}

#[test]
fn an_allowed_removal_goes_on_although_a_venv_cannot_be_moved() {
    // Only an ordinary user's build command may lie in a temporary directory.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let system = system();
    system.install_python("3.13.5-2");
    system.make_default("3.13");
    system.make_venv("/srv/old/venv", "3.11", "/usr/bin/python3.11");
    system.script("/usr/bin/false", "exit 1");
    System::shell(&format!("chown -R 1000:1000 {}", system.path("/srv/old")));
    system
        .run(&["register", "/srv/old/venv", "--name", "old", "--build-command", "/usr/bin/false"])
        .expect(0);
    let removal = ["python3.11-minimal 3.11.2-6 amd64 allowed > - - none **REMOVE**"];
    let said = gate(&system, &[], NO_OPTION, &removal).expect(10);
    let why = "old cannot be moved to the interpreter that remains";
    assert!(said.stderr.contains(&format!("dpkg was not started: {why}")), "{}", said.stderr);
    let said = gate(&system, &[("VENVGUARD_MODE", "allow")], NO_OPTION, &removal).expect(0);
    assert!(said.stderr.contains(&format!("although {why}")), "{}", said.stderr);
    let history = system.run(&["history", "--json"]).expect(0).json();
    let events = history["events"].as_array().unwrap();
    assert_eq!(events.last().unwrap()["what"], "allowed", "{events:?}");
}

#[test]
fn an_upgrade_waits_for_another_venvguard() {
    let system = system();
    system.run(&["register", "/srv/shop/venv", "--policy", "block"]).expect(0);
    let script = format!("flock {} sh -c 'echo; exec sleep 1'", system.path("/run/venvguard/lock"));
    let mut other =
        Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    // It has the lock once it writes.
    other.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let said = gate(&system, &[], NO_OPTION, MINOR_UPGRADE).expect(10);
    assert!(said.stderr.contains("waiting for another venvguard"), "{}", said.stderr);
    assert!(other.wait().unwrap().success());
}

#[test]
fn the_process_that_rehearses_a_run_leaves_the_prefix_to_the_one_that_started_it() {
    let said = system().hook_with("rehearse", "VERSION 2\n\n").expect(0);
    let told = "error: cannot rehearse this upgrade: apt's list begins with \"VERSION 2\"";
    assert!(said.stderr.starts_with(told), "{}", said.stderr);
}
