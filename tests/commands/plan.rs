//! What a plan says about the services of a venv.

use super::processes::process;
use super::system::System;
use super::{MINOR_UPGRADE, REVISION, system};

/// The plan for a revision of Python, which apt's hook prints as well.
fn plan(system: &System) -> String {
    let text = system.run(&["plan", "--from", &system.list(REVISION)]).expect(0).stdout;
    let said = system.hook("pre-install", REVISION).expect(0).stderr;
    let decision = text.lines().find(|line| line.contains("shop (/srv/shop/venv)")).unwrap();
    assert!(said.contains(decision), "{decision}: {said}");
    text
}

#[test]
fn a_venv_without_services_is_named_as_such() {
    let system = system();
    system.run(&["register", "/srv/shop/venv"]).expect(0);
    let text = plan(&system);
    assert!(text.contains("is not changed; venvguard found no service that uses it\n"), "{text}");
}

#[test]
fn a_service_that_does_not_run_is_named() {
    let system = system();
    let shown = r"LoadState=loaded\nActiveState=inactive\nSubState=dead\nType=simple\n";
    system.make_dir("/run/systemd/system");
    system.script("/usr/bin/systemctl", &format!("printf '{shown}'"));
    let unit = "[Service]\nExecStart=/srv/shop/venv/bin/gunicorn app\n";
    system.write("/etc/systemd/system/shop.service", unit);
    system.run(&["register", "/srv/shop/venv"]).expect(0);
    let text = plan(&system);
    assert!(text.contains("is not changed; restarts no service\n"), "{text}");
    assert!(text.contains("systemd:shop.service does not run\n"), "{text}");
}

#[test]
fn a_unit_of_a_users_own_manager_is_named() {
    let system = system();
    system.write("/etc/passwd", "alice:x:1000:1000::/home/alice:/bin/sh\n");
    let (python, command) = ("/usr/bin/python3.11", "/srv/shop/venv/bin/python3 bot.py");
    process(&system, 70, "shop.service", python, command);
    let place = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/bot.service\n";
    system.write("/proc/70/cgroup", place);
    system.run(&["register", "/srv/shop/venv"]).expect(0);
    let text = plan(&system);
    assert!(text.contains("; restarts no service of the system\n"), "{text}");
    let told = "user:bot.service of alice is restarted through that user's own service manager\n";
    assert!(text.contains(told), "{text}");
    system.run(&["register", "/srv/shop/venv", "--restart", "list"]).expect(0);
    let told = "user:bot.service of alice keeps running in that user's own service manager\n";
    assert!(plan(&system).contains(told), "{}", plan(&system));
    // It is pinned, so that its units run what they ran before.
    system.run(&["register", "/srv/shop/venv", "--restart", "now", "--policy", "pin"]).expect(0);
    let text = system.run(&["plan", "--from", &system.list(MINOR_UPGRADE)]).expect(0).stdout;
    assert!(text.contains(told), "{text}");
}

#[test]
fn venvs_that_block_come_first_and_work_is_counted() {
    let system = system();
    system.make_venv("/srv/other/venv", "3.11", "/usr/bin/python3");
    system.run(&["register", "/srv/shop/venv", "--name", "allowed", "--policy", "pin"]).expect(0);
    system
        .run(&["register", "/srv/other/venv", "--name", "blocking", "--policy", "block"])
        .expect(0);
    let text = system.run(&["plan", "--from", &system.list(MINOR_UPGRADE)]).expect(3).stdout;
    let [blocking, allowed] = ["blocking (", "allowed ("].map(|name| text.find(name).unwrap());
    assert!(blocking < allowed, "{text}");
    assert!(text.contains("\nblock: ") && !text.contains("1 venv:"), "{text}");
    system.run(&["register", "/srv/other/venv", "--policy", "pin"]).expect(0);
    let text = system.run(&["plan", "--from", &system.list(MINOR_UPGRADE)]).expect(0).stdout;
    assert!(text.contains("\n2 venvs: 2 to pin\nrepair: "), "{text}");
}
