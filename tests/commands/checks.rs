//! What an upgrade must leave as it was: checks that pass.

use super::system::System;
use super::{REVISION, system};

const NEXT_REVISION: &[&str] =
    &["python3.11-minimal 3.11.2-7 amd64 allowed < 3.11.2-8 amd64 allowed /x.deb"];

/// A check that notes its runs, and then runs this script.
fn check(system: &System, script: &str) -> String {
    let runs = system.path("/runs");
    system.script("/srv/check", &format!("echo run >>{runs}\n{script}"));
    system.path("/srv/check")
}

fn runs(system: &System) -> usize {
    system.read("/runs").lines().count()
}

/// The messages of an upgrade to another revision of Python, which breaks what `breaks` says.
fn upgrade(system: &System, list: &[&str], version: &str, breaks: impl Fn()) -> String {
    system.hook("pre-install", list).expect(0);
    breaks();
    system.install_python(version);
    system.hook("post-invoke", list).expect(0).stderr
}

#[test]
fn the_check_of_a_venv_without_services_is_run_before_and_after_an_upgrade() {
    let system = system();
    let check = check(&system, &format!("[ ! -e {} ]", system.path("/broken")));
    let state = || system.run(&["status", "--json"]).json()["venvs"][0]["state"].clone();
    system.run(&["register", "/srv/shop/venv", "--check", &check]).expect(0);

    let said = upgrade(&system, REVISION, "3.11.2-7", || system.write("/broken", ""));
    let told = "its check fails, and passed before the upgrade: ";
    assert!(said.contains("shop: failed: ") && said.contains(told), "{said}");
    assert_eq!(runs(&system), 3, "nothing starts that could pass it later");
    assert_eq!(state(), "check-fails");

    let said = upgrade(&system, NEXT_REVISION, "3.11.2-8", || ());
    assert!(said.contains("shop: note: its check failed before, and still does: "), "{said}");
    assert_eq!(state(), "check-fails");
    system.remove_file("/broken");
    assert_eq!(state(), "healthy");
}
