use std::path::Path;

use super::*;
use crate::service::discover::process::tests::FakeProc;

fn restart(root: &Root, unit: &str) -> Result<Outcome, ServiceError> {
    Systemd::System.restart(root, &[unit]).remove(0)
}

fn condition(root: &Root, unit: &str) -> Result<Condition, ServiceError> {
    Systemd::System.condition(root, unit)
}

fn is_left_alone(told: Result<Outcome, ServiceError>) -> bool {
    matches!(told.unwrap(), Outcome::LeftAlone(_))
}

/// A root whose systemctl records its arguments and answers `shown`.
fn machine(shown: &str) -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    std::fs::create_dir_all(at("run/systemd/system")).unwrap();
    std::fs::create_dir_all(at("usr/bin")).unwrap();
    std::fs::write(at("shown"), shown).unwrap();
    let script = format!(
        "#!/bin/sh\nshift 2\necho \"$@\" >>{dir}/calls\n\
         case $1 in\n\
         show) cat {dir}/shown; cat {dir}/calls | grep -c ^restart | sed s/^/InvocationID=/;;\n\
         reset-failed) exit 1;;\n\
         restart) grep -q FragmentPath=/bad {dir}/shown && exit 1;;\n\
         esac; exit 0\n",
        dir = dir.path().display()
    );
    install(dir.path(), &script);
    let root = Root::new(dir.path());
    (dir, root)
}

/// Makes a script the systemctl of a root.
fn install(root: &Path, script: &str) {
    std::fs::write(root.join("script"), script).unwrap();
    // Written by another process: a file that a thread of ours still holds open for
    // writing, or one of its children does, cannot be run.
    let install = Program::new("/usr/bin/install").arg("-m755");
    install.args([root.join("script"), root.join("usr/bin/systemctl")]).run().unwrap();
}

/// A root whose systemctl answers what is in `units` about each unit, and records its arguments.
fn machine_of(units: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
    let (dir, root) = machine("");
    let at = |path: &str| dir.path().join(path);
    std::fs::create_dir(at("units")).unwrap();
    for (unit, shown) in units {
        std::fs::write(at("units").join(unit), shown).unwrap();
    }
    let script = format!(
        "#!/bin/sh\nshift 2\necho \"$@\" >>{dir}/calls\nwhile [ $1 != -- ]; do shift; done; shift\n\
         first=1; for unit; do [ $first ] || echo; first=; cat {dir}/units/$unit || exit 1; done\n",
        dir = dir.path().display()
    );
    install(dir.path(), &script);
    (dir, root)
}

#[test]
fn a_unit_that_only_stops_with_another_one_restarts_on_its_own() {
    let (dir, root) = machine("");
    let script = "#!/bin/sh\ncase \"$*\" in\n\
         *ActiveState*) printf 'Id=b.service\\nActiveState=active\\n';;\n\
         *PropagatesStopTo*) printf 'Id=a.service\\nPropagatesStopTo=b.service\\n\\nId=b.service\\n';;\n\
         *) printf 'Id=a.service\\n\\nId=b.service\\n';;\nesac\n";
    install(dir.path(), script);
    let services = ["a.service", "b.service"];
    assert_eq!(related::independent(&root, &services).unwrap(), services);
    let stop_with = related::stop_with(&root, &services).unwrap();
    assert!(stop_with["a.service"].contains("b.service"), "{stop_with:?}");
}

#[test]
fn systemd_is_asked_about_several_units_at_once() {
    let web = "Id=web.service\nLoadState=loaded\nActiveState=active\nSubState=running\n";
    let db = "Id=db.service\nLoadState=loaded\nActiveState=failed\nSubState=failed\n";
    let (dir, root) = machine_of(&[("web.service", web), ("www.service", web), ("db.service", db)]);
    let asked = |names: &[&str]| {
        let _ = std::fs::remove_file(dir.path().join("calls"));
        let found = Systemd::System.conditions(&root, names, Deadline::never());
        let up = found.into_iter().map(|one| one.map(|one| (one.up, one.failed)).ok());
        let calls = std::fs::read_to_string(dir.path().join("calls")).unwrap();
        (up.collect::<Vec<_>>(), calls.lines().count())
    };
    let (up, failed) = (Some((true, false)), Some((false, true)));
    assert_eq!(asked(&["web.service", "db.service"]), (vec![up, failed], 1));
    assert_eq!(asked(&["db.service"]), (vec![failed], 1));
    // An alias is asked about again, and so is everything if the answer was cut off.
    assert_eq!(asked(&["db.service", "www.service"]), (vec![failed, up], 2));
    assert_eq!(asked(&["web.service", "gone.service"]), (vec![up, None], 3));
    let passed = Deadline::after(std::time::Duration::ZERO);
    assert!(Systemd::System.conditions(&root, &["www.service"], passed).is_empty());
}

#[test]
fn a_restart_reloads_changed_units_and_forgives_past_failures() {
    let (dir, root) = machine("LoadState=loaded\nActiveState=active\nNeedDaemonReload=yes\n");
    assert_eq!(restart(&root, "web.service").unwrap(), Outcome::Done);
    let calls = std::fs::read_to_string(dir.path().join("calls")).unwrap();
    let calls: Vec<_> = calls.lines().skip(1).collect();
    assert_eq!(calls, ["daemon-reload", "reset-failed -- web.service", "restart -- web.service"]);
}

#[test]
fn a_unit_that_is_down_is_only_started() {
    let (dir, root) = machine("LoadState=loaded\nActiveState=failed\n");
    assert_eq!(restart(&root, "web.service").unwrap(), Outcome::Done);
    let calls = std::fs::read_to_string(dir.path().join("calls")).unwrap();
    let calls: Vec<_> = calls.lines().skip(1).collect();
    assert_eq!(calls, ["reset-failed -- web.service", "start -- web.service"]);
}

#[test]
fn a_unit_that_is_masked_or_gone_is_not_restarted() {
    let (dir, root) = machine("LoadState=not-found\nActiveState=inactive\n");
    let error = restart(&root, "web.service").unwrap_err().to_string();
    assert_eq!(error, "systemd cannot restart web.service: the unit is not-found");
    let calls = std::fs::read_to_string(dir.path().join("calls")).unwrap();
    assert_eq!(calls.lines().count(), 1, "{calls}");
}

#[test]
fn units_that_systemd_refuses_to_restart_are_left_alone_with_the_reason() {
    let running = "ActiveState=active\nSubState=running\nMainPID=7\n";
    for (unit, shown, why) in [
        ("web.service", "LoadState=masked\n", "it is masked"),
        ("web.service", "LoadState=not-found\n", "its unit is not-found"),
        (
            "web.service",
            "LoadState=loaded\nRefuseManualStop=yes\n",
            "its unit has RefuseManualStop=yes",
        ),
        (
            "web.service",
            "LoadState=loaded\nRefuseManualStart=yes\nRefuseManualStop=no\n",
            "its unit has RefuseManualStart=yes",
        ),
        (
            "app@3-10.0.0.1:80-10.0.0.2:4711.service",
            "LoadState=loaded\nTriggeredBy=app.socket\nAccept=yes\n",
            "it serves a single connection of app.socket",
        ),
    ] {
        let (dir, root) = machine(&format!("{shown}{running}"));
        let found = condition(&root, unit).unwrap();
        assert_eq!(found.left_alone.as_deref(), Some(why));
        assert!(found.up && !found.is_restarted() && !found.is_brought_back(), "{found:?}");
        assert_eq!(restart(&root, unit).unwrap(), Outcome::LeftAlone(why.to_string()));
        let calls = std::fs::read_to_string(dir.path().join("calls")).unwrap();
        assert!(calls.lines().all(|call| call.starts_with("show")), "{calls}");
    }
}

#[test]
fn a_socket_that_hands_itself_over_does_not_keep_its_service_from_a_restart() {
    for (unit, accept) in [("web@blue.service", "no"), ("web.service", "yes")] {
        let (_dir, root) = machine(&format!(
            "LoadState=loaded\nActiveState=active\nTriggeredBy=web.socket web.timer\nAccept={accept}\n"
        ));
        assert_eq!(restart(&root, unit).unwrap(), Outcome::Done, "{unit}");
    }
}

#[test]
fn a_unit_that_remains_active_after_its_exit_is_not_run_again() {
    let exited =
        "LoadState=loaded\nActiveState=active\nSubState=exited\nMainPID=0\nResult=success\n";
    for more in ["Type=oneshot\n", "Type=simple\nTasksCurrent=[not set]\n"] {
        let (dir, root) = machine(&format!("{exited}{more}"));
        let found = condition(&root, "migrate.service").unwrap();
        assert!(!found.up && !found.is_brought_back(), "{found:?}");
        assert_eq!(found.state, "active (exited)");
        let done = restart(&root, "migrate.service").unwrap();
        let calls = std::fs::read_to_string(dir.path().join("calls")).unwrap();
        assert_eq!(done, Outcome::LeftAlone("it has ended".into()), "{calls}");
    }
    // `celery multi start` ends and leaves daemons; an init script's leave the unit, too.
    for more in ["Type=oneshot\nTasksCurrent=4\n", "Type=forking\nTasksCurrent=0\n"] {
        let (_dir, root) = machine(&format!("{exited}{more}"));
        assert!(condition(&root, "celery.service").unwrap().is_restarted(), "{more}");
        assert_eq!(restart(&root, "celery.service").unwrap(), Outcome::Done, "{more}");
    }
}

#[test]
fn units_that_are_left_alone_are_not_stopped_and_delay_no_swap() {
    let running = "ActiveState=active\nSubState=running\nMainPID=7\n";
    for (shown, is_stopped) in [
        ("LoadState=loaded\n", true),
        ("LoadState=loaded\nRefuseManualStop=yes\n", false),
        ("LoadState=masked\n", false),
        // Such as `celery multi start`, whose daemons are restarted after the swap.
        ("LoadState=loaded\nType=oneshot\nTasksCurrent=4\n", false),
    ] {
        let (dir, root) = machine(&format!("{running}{shown}"));
        let done = Systemd::System.stop(&root, &["web.service"]).remove(0);
        assert_eq!(is_left_alone(done), !is_stopped, "{shown}");
        let came_up = Systemd::System.came_up_again(&root, "web.service");
        assert_eq!(came_up, is_stopped, "{shown}");
        let calls = std::fs::read_to_string(dir.path().join("calls")).unwrap();
        assert_eq!(calls.contains("stop -- web.service"), is_stopped, "{calls}");
    }
}

#[test]
fn uncounted_tasks_of_a_unit_are_read_from_the_kernel() {
    let group = "system.slice/celery.service";
    for (file, content, is_over) in [
        (format!("sys/fs/cgroup/{group}/cgroup.events"), "populated 1\nfrozen 0\n", false),
        (format!("sys/fs/cgroup/{group}/cgroup.events"), "populated 0\nfrozen 0\n", true),
        (format!("sys/fs/cgroup/systemd/{group}/cgroup.procs"), "4711\n", false),
        (format!("sys/fs/cgroup/systemd/{group}/cgroup.procs"), "", true),
        ("sys/other".to_string(), "", true),
    ] {
        let (dir, root) = machine(&format!(
            "LoadState=loaded\nActiveState=active\nSubState=exited\nType=oneshot\n\
             TasksCurrent=[not set]\nControlGroup=/{group}\n"
        ));
        let path = dir.path().join(&file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        let found = condition(&root, "celery.service").unwrap();
        assert_eq!(found.left_alone.is_some(), is_over, "{file}: {content:?}");
    }
}

#[test]
fn a_oneshot_is_not_run_again_and_a_stopped_service_is_started() {
    for (shown, is_left) in [
        ("LoadState=loaded\nActiveState=activating\nType=oneshot\n", true),
        ("LoadState=loaded\nActiveState=inactive\nType=oneshot\n", true),
        ("LoadState=loaded\nActiveState=failed\nType=oneshot\n", true),
        ("LoadState=loaded\nActiveState=active\nSubState=running\nType=oneshot\n", false),
        ("LoadState=loaded\nActiveState=inactive\n", false),
        ("LoadState=loaded\nActiveState=active\n", false),
    ] {
        let (_dir, root) = machine(shown);
        assert_eq!(is_left_alone(restart(&root, "web.service")), is_left, "{shown}");
    }
}

#[test]
fn a_unit_that_fails_to_start_was_restarted_all_the_same() {
    let unit = "LoadState=loaded\nActiveState=active\nFragmentPath=";
    let (_dir, root) = machine(&format!("{unit}/bad\n"));
    assert_eq!(restart(&root, "web.service").unwrap(), Outcome::Done);
}

/// A root whose systemctl records its arguments and starts all units but `refused`.
fn machine_with_units(refused: &str) -> (tempfile::TempDir, Root) {
    let (dir, root) = machine("");
    let script = format!(
        "#!/bin/sh\nshift 2\necho \"$@\" >>{dir}/calls\n\
         verb=$1; shift 2\n\
         case $verb in\n\
         show) for unit; do :; done; cat {dir}/$unit;;\n\
         restart) for unit; do [ $unit = {refused} ] || echo InvocationID=new >>{dir}/$unit; done\n\
         [ {refused} = none ] || {{ echo \"Job for {refused} failed\" >&2; exit 1; }};;\n\
         esac; exit 0\n",
        dir = dir.path().display()
    );
    for unit in ["a.service", "b.service", "c.service"] {
        let shown = "LoadState=loaded\nActiveState=active\nSubState=running\nInvocationID=old\n";
        std::fs::write(dir.path().join(unit), shown).unwrap();
    }
    std::fs::write(dir.path().join("script"), script).unwrap();
    let install = Program::new("/usr/bin/install").arg("-m755");
    let (from, to) = (dir.path().join("script"), dir.path().join("usr/bin/systemctl"));
    install.args([from, to]).run().unwrap();
    (dir, root)
}

const UNITS: [&str; 3] = ["a.service", "b.service", "c.service"];

#[test]
fn several_units_are_restarted_by_one_call() {
    let (dir, root) = machine_with_units("none");
    let told = Systemd::System.restart(&root, &UNITS);
    assert!(told.iter().all(|one| *one.as_ref().unwrap() == Outcome::Done), "{told:?}");
    let calls = std::fs::read_to_string(dir.path().join("calls")).unwrap();
    let changes: Vec<_> = calls.lines().filter(|call| !call.starts_with("show")).collect();
    let units = UNITS.join(" ");
    assert_eq!(changes, [format!("reset-failed -- {units}"), format!("restart -- {units}")]);
}

#[test]
fn a_unit_that_is_not_restarted_is_known_among_others() {
    let (_dir, root) = machine_with_units("b.service");
    let told = Systemd::System.restart(&root, &UNITS);
    let failed: Vec<bool> = told.iter().map(Result::is_err).collect();
    assert_eq!(failed, [false, true, false], "{told:?}");
    assert!(told[1].as_ref().unwrap_err().to_string().contains("Job for b.service failed"));
}

#[test]
fn the_last_words_of_a_unit_are_those_of_its_last_run() {
    let older = "Traceback (most recent call last):\n  File \"x\", line 1\nKeyError: 'older'";
    let said = |systemd: Systemd, shown: &str, own: &str, about: &str| {
        let (dir, root) = machine(&format!("LoadState=loaded\nInvocationID=b2\n{shown}"));
        // The last value counts, and the script of `machine` writes one of its own.
        let shown = format!("#!/bin/sh\ncat {}/shown\n", dir.path().display());
        let journal = format!(
            "#!/bin/sh\ncase \"$*\" in\n\
             *_SYSTEMD_INVOCATION_ID=b2*) printf '%s' \"{own}\";;\n\
             *INVOCATION_ID=b2*) printf '%s' \"{about}\";;\n\
             *_UNIT=web.service*) cat {}/older;;\nesac\n",
            dir.path().display()
        );
        std::fs::write(dir.path().join("older"), older).unwrap();
        for (name, script) in [("systemctl", shown), ("journalctl", journal)] {
            let (from, to) = (dir.path().join("script"), dir.path().join("usr/bin").join(name));
            std::fs::write(&from, script).unwrap();
            Program::new("/usr/bin/install").arg("-m755").args([from, to]).run().unwrap();
        }
        systemd.last_words(&root, "web.service").last().cloned().unwrap_or_default()
    };
    let (system, failed) = (Systemd::System, "Main process exited");
    assert_eq!(said(system, "", "out of memory", failed), "out of memory");
    assert_eq!(said(system, "", "", failed), failed, "it wrote nothing");
    let repeated = "NRestarts=3\n";
    assert_eq!(said(system, repeated, "", "Started"), "KeyError: 'older'", "it failed before");
    assert_eq!(said(system, "", "", ""), "KeyError: 'older'", "its lines are not marked");
    assert_eq!(said(Systemd::User, "", "not its own", ""), "KeyError: 'older'");
}

#[test]
fn a_users_units_are_not_the_systems() {
    let machine = FakeProc::new();
    let own = "/user.slice/user-1000.slice/user@1000.service/app.slice/app.service";
    machine.process((5, 1), own, "/usr/bin/python3.13", "python3 x");
    machine.process((7, 1), "/system.slice/web.service", "/usr/bin/python3.13", "python3 x");
    let unit = "[Service]\nExecStart=/opt/v/bin/app\n";
    machine.write("etc/systemd/user/other.service", unit);
    machine.write("etc/systemd/system/off.service", unit);
    let (root, processes) = (machine.root(), Processes::look(&machine.root()));
    let found = Systemd::System.discover(&root, &processes);
    assert_eq!(found.members, HashMap::from([(7, "web.service".to_string())]));
    let named = ("off.service".to_string(), vec!["/opt/v/bin/app".into()]);
    assert_eq!(found.configured, [named, ("web.service".to_string(), vec![])]);
    assert_eq!(Systemd::User.discover(&root, &processes).members, HashMap::new());
}

#[test]
fn the_unit_that_runs_venvguard_is_not_restarted() {
    let machine = FakeProc::new();
    let (ours, other) = ("/system.slice/packagekit.service", "/system.slice/web.service");
    machine.process((std::process::id(), 1), ours, "/usr/sbin/venvguard", "venvguard hook");
    for (pid, cgroup) in [(7, ours), (8, other)] {
        machine.process((pid, 1), cgroup, "/usr/bin/python3.13", "/opt/v/bin/python x");
    }
    let (root, processes) = (machine.root(), Processes::look(&machine.root()));
    let found = Systemd::System.discover(&root, &processes);
    assert_eq!(found.members, HashMap::from([(8, "web.service".to_string())]));
}

#[test]
fn a_machine_without_systemd_is_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let error = condition(&Root::new(dir.path()), "web.service").unwrap_err();
    assert_eq!(error.to_string(), "systemd is not running on this machine");
}
