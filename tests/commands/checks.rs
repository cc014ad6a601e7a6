//! What an upgrade must leave as it was: checks that pass.

use super::processes::{restarts, served};
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

#[test]
fn the_status_names_the_known_cause_of_a_check_that_fails() {
    let system = system();
    let broken = system.path("/broken");
    let sample = include_str!("../../src/diagnose/failure/samples/known/externally-managed.txt");
    system.write("/failure", sample);
    let failure = system.path("/failure");
    let check = check(&system, &format!("[ -e {broken} ] || exit 0; cat {failure} >&2; exit 1"));
    system.run(&["register", "/srv/shop/venv", "--check", &check]).expect(0);
    upgrade(&system, REVISION, "3.11.2-7", || system.write("/broken", ""));
    let status = system.run(&["status", "--json"]).expect(3).json();
    let reasons = status["venvs"][0]["reasons"].to_string();
    assert!(reasons.contains("likely cause: ") && reasons.contains("; fix: "), "{reasons}");
}

#[test]
fn a_check_that_failed_before_the_upgrade_is_tried_once_and_not_blamed_on_it() {
    let system = served();
    restarts(&system, "70", "restarted");
    let check = check(&system, "exit 1");
    system.run(&["register", "/srv/shop/venv", "--check", &check]).expect(3);
    let said = upgrade(&system, REVISION, "3.11.2-7", || ());
    assert!(said.contains("its check failed before, and still does: "), "{said}");
    assert_eq!(runs(&system), 3, "at the registration, before the upgrade, and after it");
    assert_eq!(system.read("/calls"), "restarted\n");
    let status = || {
        let status = system.run(&["status", "--json"]).expect(0).json();
        assert_eq!(status["venvs"][0]["state"], "healthy", "{status}");
        status["venvs"][0]["reasons"].to_string()
    };
    let told = "its check failed before and after the last upgrade or repair (";
    for _ in 0..2 {
        assert!(status().contains(told), "{}", status());
    }
    system.script("/srv/check", "exit 0");
    assert_eq!(status(), "[]");
}

/// A system whose service is restarted by an upgrade; the script of its check can read `$runs`, the
/// number of runs since the restart, and create `$down`, which stops the service.
fn upgraded(script: &str) -> (System, String) {
    let system = served();
    let [proc, calls, down, count] =
        ["/proc", "/calls", "/down", "/count"].map(|one| system.path(one));
    system.write("/etc/venvguard/config.toml", "stable-for = 0\nservice-timeout = 20\n");
    system.script(
        "/usr/bin/systemctl",
        &format!(
            "case \"$*\" in *restart*) rm -rf {proc}/70; echo x >>{calls};; esac
             state=active; [ ! -e {down} ] || state=failed
             printf 'LoadState=loaded\\nActiveState=%s\\nSubState=running\\nType=simple\\n' $state"
        ),
    );
    let script = format!(
        "[ -e {calls} ] || exit 0
         echo x >>{count}; runs=$(wc -l <{count}); down={down}
         {script}"
    );
    let check = check(&system, &script);
    system.run(&["register", "/srv/shop/venv", "--check", &check]).expect(0);
    let said = upgrade(&system, REVISION, "3.11.2-7", || ());
    (system, said)
}

#[test]
fn a_check_is_repeated_while_its_service_is_up() {
    let (system, said) = upgraded("[ $runs -gt 2 ]");
    assert!(!said.contains("check"), "{said}");
    assert_eq!(system.read("/count").lines().count(), 3);
}

#[test]
fn a_check_is_not_repeated_once_its_service_is_down() {
    let (system, said) = upgraded("touch $down; exit 1");
    assert!(said.contains("its check fails, and passed before the upgrade: "), "{said}");
    assert_eq!(system.read("/count").lines().count(), 1);
}

/// The owner of a directory on the way puts the venv of another user at the path, to have the check
/// run as that user, and takes it away again.
#[test]
fn no_check_runs_as_the_owner_of_a_venv_that_somebody_else_can_replace() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let system = system();
    let own = |path: &str| System::shell(&format!("chown -R 1001:1001 {}", system.path(path)));
    system.write("/ran-as", "");
    system.set_mode("/ran-as", 0o666);
    let check = check(&system, &format!("id -u >>{}", system.path("/ran-as")));
    system.make_venv("/srv/mallory/app/venv", "3.11", "/usr/bin/python3");
    own("/srv/mallory");
    for path in ["/", "/srv", "/runs"] {
        System::shell(&format!("touch {0}; chmod a+rwX {0}", system.path(path)));
    }
    system
        .run(&["register", "/srv/mallory/app/venv", "--name", "hers", "--check", &check])
        .expect(0);
    assert_eq!(system.read("/ran-as"), "1001\n");
    system.make_venv("/srv/roots/venv", "3.11", "/usr/bin/python3");
    let (app, roots) = (system.path("/srv/mallory/app"), system.path("/srv/roots"));
    System::shell(&format!("mv {app} {app}-kept; ln -s {roots} {app}"));
    system.hook("pre-install", REVISION).expect(0);
    assert_eq!(system.read("/ran-as"), "1001\n");
}
