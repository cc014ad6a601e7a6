//! Processes that run code that was replaced, and services that nobody restarts unasked.

use super::system::System;
use super::{MINOR_UPGRADE, REVISION, system};

/// A process of a unit, started long ago.
pub(super) fn process(system: &System, pid: u32, unit: &str, exe: &str, command: &str) {
    let dir = format!("/proc/{pid}");
    let stat =
        format!("{pid} (x) S 1 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 {} 0 0", 1000 + pid);
    system.write(&format!("{dir}/stat"), &stat);
    system.write(&format!("{dir}/status"), "Uid:\t0\t0\t0\t0\n");
    system.write(&format!("{dir}/cgroup"), &format!("0::/system.slice/{unit}\n"));
    system.write(&format!("{dir}/cmdline"), &format!("{}\0", command.replace(' ', "\0")));
    system.relink(&format!("{dir}/exe"), exe);
    system.write("/proc/uptime", "5000.00 9000.00\n");
    system.write("/proc/1/cgroup", "0::/init.scope\n");
}

/// A system on which every unit runs, and a service of the venv.
pub(super) fn served() -> System {
    let system = system();
    let shown = r"LoadState=loaded\nActiveState=active\nSubState=running\nType=simple\n";
    system.make_dir("/run/systemd/system");
    system.write("/usr/bin/systemctl", &format!("#!/bin/sh\nprintf '{shown}'\n"));
    system.set_mode("/usr/bin/systemctl", 0o755);
    process(
        &system,
        70,
        "shop.service",
        "/usr/bin/python3.11",
        "/srv/shop/venv/bin/python3 app.py",
    );
    system.run(&["register", "/srv/shop/venv"]).expect(0);
    system
}

/// A systemctl whose restarts end these processes, a pattern of pids, and are noted in `/calls` as
/// this word of a shell.
pub(super) fn restarts(system: &System, pids: &str, word: &str) {
    let shown = r"LoadState=loaded\nActiveState=active\nSubState=running\nType=simple\n";
    let (proc, calls) = (system.path("/proc"), system.path("/calls"));
    system.script(
        "/usr/bin/systemctl",
        &format!(
            "case \"$*\" in *restart*) rm -rf {proc}/{pids}; echo {word} >>{calls};; esac\nprintf '{shown}'"
        ),
    );
    system.write("/etc/venvguard/config.toml", "stable-for = 0\n");
}

#[test]
fn every_process_that_runs_replaced_code_is_listed() {
    let system = served();
    let said = system.run(&["processes"]).expect(0);
    assert!(said.stderr.contains("no process runs code that was replaced"), "{}", said.stderr);
    let gone = "/usr/bin/python3.11 (deleted)";
    process(&system, 71, "shop.service", gone, "/srv/shop/venv/bin/python3 \u{1b}[2J");
    process(&system, 72, "supervisor.service", gone, "/usr/bin/python3 /usr/bin/supervisord");
    process(&system, 73, "cron.service", gone, "/usr/bin/python3 job.py");
    let said = system.run(&["processes"]).expect(3);
    let rows: Vec<&str> = said.stdout.lines().skip(1).collect();
    assert_eq!(rows.len(), 3, "{}", said.stdout);
    assert!(rows[0].starts_with("71") && rows[0].contains("systemd:shop.service"), "{}", rows[0]);
    assert!(rows[1].contains("systemd:supervisor.service"), "{}", rows[1]);
    assert!(rows[2].contains("cron.service") && !rows[2].contains("systemd:"), "{}", rows[2]);
    assert!(!said.stdout.contains('\u{1b}'), "{:?}", said.stdout);
    let json = system.run(&["processes", "--json"]).expect(3).json();
    assert_eq!((json["schema_version"].as_u64(), json["skipped"].as_u64()), (Some(1), Some(0)));
    let first = &json["processes"][0];
    assert_eq!(first["venvs"][0], "shop");
    assert_eq!(first["service"]["name"], "shop.service");
    let reason = "/usr/bin/python3.11 was replaced after the process started";
    assert_eq!(first["reason"], reason);
    assert!(first["since"].as_str().unwrap().ends_with('Z'), "{first}");
    let status = system.run(&["status", "--json"]).expect(3).json();
    let venv = &status["venvs"][0];
    assert_eq!(venv["state"], "restart-needed");
    let (found, process) = (&venv["services_found"][0], &venv["processes"][1]);
    assert_eq!((&found["name"], &found["evidence"]), (&"shop.service".into(), &"process".into()));
    assert_eq!(
        (process["pid"].as_u64(), &process["service"]),
        (Some(71), &"systemd:shop.service".into())
    );
    // The venv is removed, and its process is not.
    std::fs::remove_dir_all(system.path("/srv/shop/venv")).unwrap();
    let said = system.run(&["processes"]).expect(3);
    assert!(said.stdout.lines().any(|row| row.starts_with("71")), "{}", said.stdout);
}

#[test]
fn a_service_that_is_not_restarted_unasked_keeps_its_venv_on_the_old_python() {
    let system = served();
    // No installer can rebuild it.
    let plan = |list: &[&str]| {
        let code = if list == MINOR_UPGRADE { 3 } else { 0 };
        let list = system.list(list);
        system.run(&["plan", "--from", &list]).expect(code).stdout
    };
    let now = plan(REVISION);
    assert!(now.contains("; restarts systemd:shop.service"), "{now}");
    for (setting, why) in [
        ("--restart=list", "systemd:shop.service is not restarted: its restart mode is \"list\""),
        ("--restart=never", "systemd:shop.service is not restarted: its restart mode is \"never\""),
    ] {
        system.run(&["register", "/srv/shop/venv", setting]).expect(0);
        let text = plan(MINOR_UPGRADE);
        assert!(text.contains("is pinned to /usr/bin/python3.11") && text.contains(why), "{text}");
        let text = plan(REVISION);
        assert!(text.contains("; restarts no service") && text.contains(why), "{text}");
    }
    let json = system.run(&["show", "shop", "--json"]).expect(0).json();
    assert_eq!(json["venvs"][0]["restart"], "never");
    // What is old counts as healthy in this mode, and is named.
    process(
        &system,
        71,
        "shop.service",
        "/usr/bin/python3.11 (deleted)",
        "/srv/shop/venv/bin/python3 x",
    );
    let status = system.run(&["status", "--json"]).expect(0).json();
    assert_eq!(status["venvs"][0]["state"], "healthy");
    assert_eq!(status["venvs"][0]["reasons"].as_array().unwrap().len(), 1, "{status}");
    system.run(&["processes"]).expect(3);
}

#[test]
fn the_configuration_and_the_machine_keep_services_from_being_restarted() {
    let system = served();
    let list = system.list(REVISION);
    let plan = || system.run(&["plan", "--from", &list]).expect(0).stdout;
    assert!(plan().contains("; restarts systemd:shop.service"), "{}", plan());
    system.write("/etc/venvguard/config.toml", "restart = \"list\"\n");
    assert!(plan().contains("its restart mode is \"list\""), "{}", plan());
    system.run(&["register", "/srv/shop/venv", "--restart=now"]).expect(0);
    assert!(plan().contains("; restarts systemd:shop.service"), "its own mode: {}", plan());
    system.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n");
    system.set_mode("/usr/sbin/policy-rc.d", 0o755);
    assert!(plan().contains("/usr/sbin/policy-rc.d forbids it"), "{}", plan());
    // Somebody who asks for it is not kept from it.
    let dry = system.run(&["rebuild", "shop", "--dry-run"]);
    assert!(!dry.stdout.contains("policy-rc.d"), "{}", dry.stdout);
}

#[test]
fn a_restart_is_asked_for_by_name_or_for_all_that_run_replaced_code() {
    let system = served();
    let said = system.run(&["restart", "--all", "--dry-run"]).expect(0);
    assert!(said.stderr.contains("nothing to do"), "{}", said.stderr);
    let named = system.run(&["restart", "shop", "--dry-run"]).expect(0);
    assert!(named.stdout.contains("; restarts systemd:shop.service"), "{}", named.stdout);
    let gone = "/usr/bin/python3.11 (deleted)";
    process(&system, 71, "shop.service", gone, "/srv/shop/venv/bin/python3 x");
    system.run(&["register", "/srv/shop/venv", "--restart=never"]).expect(0);
    let json = system.run(&["restart", "--all", "--dry-run", "--json"]).expect(0).json();
    let venv = &json["venvs"][0];
    assert_eq!((&venv["name"], &venv["remedy"]), (&"shop".into(), &"restart".into()), "{json}");
    assert_eq!(venv["services"][0]["name"], "shop.service");
    system.run(&["restart"]).expect(2);
}

#[test]
fn the_check_is_run_before_dpkg_and_its_result_is_kept_for_the_repair() {
    let system = served();
    system.run(&["register", "/srv/shop/venv", "--check", "false"]).expect(3);
    system.hook("pre-install", REVISION).expect(0);
    let record = system.read("/var/lib/venvguard/transaction.json");
    assert!(record.contains("\"failed\"") && record.contains("false exited 1"), "{record}");
    // The hooks run twice under unattended-upgrades.
    system.run(&["register", "/srv/shop/venv", "--check", "true"]).expect(0);
    system.hook("pre-install", REVISION).expect(0);
    assert_eq!(system.read("/var/lib/venvguard/transaction.json").matches("failed").count(), 1);
}

#[test]
fn the_service_of_a_venv_that_its_package_replaces_is_restarted_after_the_upgrade() {
    let system = served();
    restarts(&system, "70", "restarted");
    system.write(
        "/var/lib/dpkg/info/shop.list",
        "/srv/shop/venv/pyvenv.cfg\n/srv/shop/venv/bin/python3\n",
    );
    let said = system.hook("pre-install", MINOR_UPGRADE).expect(0).stderr;
    assert!(said.contains("it belongs to the package shop, which replaces it"), "{said}");
    system.install_python("3.13.5-2");
    system.make_default("3.13");
    system.remove("/srv/shop/venv");
    system.make_venv("/srv/shop/venv", "3.13", "/usr/bin/python3");
    let said = system.hook("post-invoke", &[]).expect(0).stderr;
    assert!(said.contains("restarted systemd:shop.service"), "{said}");
    assert_eq!(system.read("/calls"), "restarted\n");
    assert_eq!(system.link("/srv/shop/venv/bin/python3"), "/usr/bin/python3");
    let status = system.run(&["status", "--json"]).expect(0).json();
    assert_eq!(status["venvs"][0]["state"], "healthy", "{status}");
}

#[test]
fn a_venv_that_a_program_of_debian_runs_on_another_python_is_orphaned() {
    let system = served();
    let (plugins, site) = ("/usr/lib/uwsgi/plugins", "/srv/shop/venv");
    let command = format!("/usr/bin/uwsgi --virtualenv {site}");
    process(&system, 71, "uwsgi.service", "/usr/bin/uwsgi-core", &command);
    system.make_dir(plugins);
    for (plugin, code, state) in
        [("python311_plugin.so", 0, "healthy"), ("python313_plugin.so", 3, "orphaned")]
    {
        system.relink(&format!("{plugins}/python3_plugin.so"), plugin);
        let status = system.run(&["status", "--json"]).expect(code).json();
        let venv = &status["venvs"][0];
        assert_eq!(venv["state"], state, "{plugin}: {status}");
        let told = "/usr/bin/uwsgi-core runs the venv's code with Python 3.13, but its distributions are for 3.11";
        assert_eq!(venv["reasons"][0] == told, code == 3, "{status}");
    }
}
