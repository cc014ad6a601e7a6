use std::collections::BTreeMap;
use std::path::PathBuf;

use super::super::supervised::give;
use super::super::{Manager, Outcome};
use super::*;
use crate::host::clock::{Deadline, wait_until};
use crate::service::condition::Condition;
use crate::service::discover::process::Processes;
use crate::service::discover::process::tests::FakeProc;

/// A machine whose `sv` records its commands. It answers with the content of `state/NAME`,
/// which an order replaces by `after/NAME`, if that exists.
fn machine(states: &[(&str, &str, &str)]) -> FakeProc {
    let machine = FakeProc::new();
    let dir = machine.0.path().display();
    let script = format!(
        "#!/bin/sh\ncase $1 in\n\
         status) cat {dir}/state/${{2##*/}};;\n\
         -w) echo \"$@\" >>{dir}/calls; shift 3\n\
         for one; do mv {dir}/after/${{one##*/}} {dir}/state/ || exit=1; done; exit $exit;;\n\
         esac\n"
    );
    machine.write("script", script);
    std::fs::create_dir_all(machine.0.path().join("usr/bin")).unwrap();
    let install = Program::new("/usr/bin/install").arg("-m755");
    let files = ["script", "usr/bin/sv"].map(|file| machine.0.path().join(file));
    install.args(files).run().unwrap();
    for (name, before, after) in states {
        let line = |state: &str| {
            let (word, rest) = state.split_once(": ").unwrap();
            format!("{word}: /etc/service/{name}: {rest}\n")
        };
        machine.write(&format!("etc/sv/{name}/run"), "#!/bin/sh\nexec /opt/v/bin/app\n");
        machine.link(&format!("etc/service/{name}"), &format!("../sv/{name}"));
        machine.write(&format!("state/{name}"), line(before));
        if !after.is_empty() {
            machine.write(&format!("after/{name}"), line(after));
        }
    }
    machine
}

fn shown(state: &str) -> Condition {
    let machine = machine(&[("web", state, "")]);
    Runit.condition(&machine.root(), "web").unwrap()
}

#[test]
fn the_states_of_sv_are_understood() {
    // `sv status` of runit 2.1.2.
    for (state, up, at_work, pid, words) in [
        ("run: (pid 7) 5s", true, true, Some(7), "run"),
        ("run: (pid 7) 5s; run: log: (pid 6) 5s, got TERM", true, true, Some(7), "run"),
        ("run: (pid 7) 0s, normally down", true, true, Some(7), "run, normally down"),
        ("run: (pid 7) 3s, got TERM", false, true, Some(7), "run, got TERM"),
        ("run: (pid 7) 3s, want down, got TERM", false, false, Some(7), "run, want down, got TERM"),
        ("finish: (pid 7) 1s", false, true, None, "finish"),
        ("finish: (pid 7) 1s, want down", false, false, None, "finish, want down"),
        ("down: 1s, normally up, want up", false, true, None, "down, normally up, want up"),
        ("down: 5s, normally up", false, false, None, "down, normally up"),
        ("down: 5s", false, false, None, "down"),
    ] {
        let found = shown(state);
        assert_eq!((found.up, found.is_at_work()), (up, at_work), "{state}: {found:?}");
        assert_eq!((found.main_pid, found.state.as_str()), (pid, words), "{state}");
        assert_eq!(found.is_brought_back(), at_work, "a stopped service stays stopped: {state}");
    }
    for (state, why) in [
        ("run: (pid 7) 5s, paused", "it is paused"),
        ("run: (pid 7) 5s, normally down, want down", "it runs once"),
        ("fail: runsv not running", "runsv not running"),
    ] {
        assert_eq!(shown(state).left_alone.as_deref(), Some(why), "{state}");
    }
}

#[test]
fn a_service_that_cannot_be_queried_is_an_error() {
    let machine = machine(&[("web", "run: (pid 7) 5s", "")]);
    let root = machine.root();
    let error = |name| Runit.condition(&root, name).unwrap_err().to_string();
    assert_eq!(error("api"), "runit knows no service api");
    machine.write("state/web", "run: web: (pid 7) \u{1b}[2J\n");
    assert!(error("web").starts_with("sv does not report the state of web: run: web: (pid 7) "));
    assert!(!error("web").contains('\u{1b}'));
}

#[test]
fn several_services_get_an_order_in_one_call_and_have_their_own_results() {
    let machine = machine(&[
        ("done", "run: (pid 7) 5s", "run: (pid 8) 0s"),
        ("fails", "run: (pid 9) 5s", "down: 1s, normally up, want up"),
        ("gone", "fail: runsv not running", ""),
        ("stuck", "run: (pid 10) 5s", "run: (pid 10) 50s, got TERM"),
    ]);
    let names = ["done", "fails", "gone", "nix", "stuck"];
    let told = give::<Runit>(Order::Restart, &machine.root(), &names, Duration::ZERO);
    let told: Vec<String> = told
        .into_iter()
        .map(|one| one.map_or_else(|error| error.to_string(), |done| format!("{done:?}")))
        .collect();
    assert_eq!(
        told,
        [
            "Done",
            "Done",
            r#"LeftAlone("runsv not running")"#,
            "runit knows no service nix",
            "stuck did not stop within 0 s (it is run, got TERM)",
        ]
    );
    let calls = std::fs::read_to_string(machine.0.path().join("calls")).unwrap();
    assert_eq!(calls, "-w 1 restart /etc/service/done /etc/service/fails /etc/service/stuck\n");
}

#[test]
fn a_stopped_service_must_be_down() {
    let ending = "run: (pid 7) 50s, want down, got TERM";
    for (after, is_done) in
        [("down: 0s, normally up", true), ("finish: (pid 8) 1s, want down", false), (ending, false)]
    {
        let machine = machine(&[("web", "run: (pid 7) 5s", after)]);
        assert_eq!(
            give::<Runit>(Order::Stop, &machine.root(), &["web"], Duration::ZERO)[0].is_ok(),
            is_done,
            "{after}"
        );
    }
    // It is down as soon as it ends, and nothing else would start it then.
    let machine = machine(&[("web", ending, "run: (pid 7) 50s, got TERM")]);
    assert_eq!(Runit.start(&machine.root(), &["web"])[0].as_ref().unwrap(), &Outcome::Done);
}

#[test]
fn a_service_that_takes_its_time_to_stop_is_waited_for() {
    let machine = machine(&[("web", "run: (pid 7) 5s", "finish: (pid 8) 1s, want down")]);
    let state = machine.0.path().join("state/web");
    let root = machine.root();
    std::thread::scope(|scope| {
        let told = scope.spawn(|| Runit.stop(&root, &["web"]).remove(0));
        let asked = Deadline::after(Duration::from_secs(10));
        wait_until(asked, Duration::from_millis(100), || {
            std::fs::read_to_string(&state).is_ok_and(|text| text.starts_with("finish"))
        });
        std::fs::write(&state, "down: /etc/service/web: 0s, normally up\n").unwrap();
        assert_eq!(told.join().unwrap().unwrap(), Outcome::Done);
    });
}

#[test]
fn the_last_words_are_those_in_the_log() {
    let machine = machine(&[("web", "run: (pid 7) 5s", ""), ("api", "run: (pid 8) 5s", "")]);
    machine.write("etc/sv/web/log/main/current", "one\nImportError: x\n\n");
    machine.write("var/log/api/current", "Killed\n");
    assert_eq!(Runit.last_words(&machine.root(), "web"), ["one", "ImportError: x"]);
    assert_eq!(Runit.last_words(&machine.root(), "api"), ["Killed"]);
}

#[test]
fn a_child_of_runsv_is_its_service() {
    let machine = machine(&[("web", "run: (pid 7) 5s", ""), ("off", "down: 5s", "")]);
    let sv = |name: &str| machine.0.path().join("etc/sv").join(name);
    let runsv = |pid: u32, name: &str, dir: &Path, uid: u32| {
        machine.process((pid, 1), "/system.slice/runit.service", "/usr/bin/runsv", name);
        machine.write(&format!("proc/{pid}/status"), format!("Uid:\t{uid}\t{uid}\t0\t0\n"));
        machine.link(&format!("proc/{pid}/cwd"), dir.to_str().unwrap());
    };
    runsv(5, "runsv web", &sv("web"), 0);
    // A user's own, and one of the same name in another directory.
    runsv(6, "runsv web", &sv("web"), 1000);
    std::fs::create_dir_all(machine.0.path().join("home/app/sv/web")).unwrap();
    runsv(7, "runsv web", &machine.0.path().join("home/app/sv/web"), 0);
    let root = machine.root();
    let found = Runit.discover(&root, &Processes::look(&root));
    let trees: BTreeMap<_, _> = found.trees.into_iter().collect();
    let web = Some("web".to_string());
    assert_eq!(trees, BTreeMap::from([(5, web), (6, None), (7, None)]));
    let app = vec![PathBuf::from("/opt/v/bin/app")];
    let services = ["off", "web"].map(|name| (name.to_string(), app.clone()));
    assert_eq!(found.configured, services);
}

#[test]
fn a_name_is_one_that_a_directory_of_runit_can_have() {
    for name in ["web", "my-app_2", "getty@tty1", "a:b"] {
        assert_eq!(Runit.parse(name).unwrap(), name);
    }
    for name in ["", "-x", ".x", "..", "a/b", "a b", "a\n", "*", "a\u{202e}b"] {
        let error = Runit.parse(name).unwrap_err().to_string();
        assert!(error.ends_with("is not the name of a runit service"), "{error}");
    }
    assert!(Runit.parse(&"a".repeat(256)).is_err());
}
