//! s6, controlled by `s6-svc`: a service is a directory below that of an `s6-svscan`.

use std::path::Path;
use std::time::Duration;

use super::Order;
use super::supervised::{State, Supervisor, SupervisorError};
use crate::host::{Program, Root};

/// How long its programs may take; they normally answer immediately.
const LIMIT: Duration = Duration::from_secs(15);

/// What is asked of a service, each answered by a word.
const QUESTIONS: &str = "up,wantedup,paused,pid";

/// The s6 of the system.
#[derive(Debug)]
pub(super) struct S6;

impl Supervisor for S6 {
    const KEY: &'static str = "s6";
    const NO_NAME: &'static str = "is not the name of an s6 service";
    /// Those of `s6-linux-init` and `s6-overlay` 3, of `s6-overlay` 2, and of `OpenRC`.
    const DIRS: &'static [&'static str] =
        &["/run/service", "/run/s6/services", "/run/openrc/s6-scan"];
    const PROGRAM: &'static str = "s6-supervise";

    fn ask(root: &Root, name: &str, dir: &Path) -> Result<State, SupervisorError> {
        let asked = Program::named(root, "s6-svstat").limit(LIMIT).read_only();
        let answer = asked.args(["-o", QUESTIONS]).arg(dir).finish()?.text();
        let (program, name) = ("s6-svstat", name.to_string());
        read(&answer, dir).ok_or(SupervisorError::Unintelligible { program, name, answer })
    }

    /// It does not wait: its programs for that need a directory of events, which need not exist.
    fn tell(order: Order, root: &Root, states: &[&State]) -> Result<(), SupervisorError> {
        let tell = |state: &&State| {
            let option = match order {
                Order::Stop => "-d",
                // This ends a process, and starts nothing that is down.
                Order::Restart if state.runs => "-r",
                Order::Start | Order::Restart => "-u",
            };
            Program::named(root, "s6-svc").limit(LIMIT).arg(option).arg(&state.dir).run()
        };
        let told: Vec<_> = states.iter().map(tell).collect();
        Ok(told.into_iter().try_for_each(|one| one.map(drop))?)
    }
}

/// Reads an answer such as `true true false 123`.
fn read(answer: &str, dir: &Path) -> Option<State> {
    let words: Vec<&str> = answer.split_whitespace().collect();
    let state = |runs, wants_up, left_alone: Option<&str>, words: &str| State {
        dir: dir.to_path_buf(),
        pid: None,
        runs,
        wants_up,
        // Or it runs once (`s6-svc -o`), which cannot be told from an end that takes its time.
        is_ending: runs && !wants_up,
        left_alone: left_alone.map(str::to_string),
        words: words.to_string(),
    };
    let [up, wanted, paused, pid] = words.as_slice() else {
        let is_over = answer.contains("s6-supervise not running");
        let why = "s6-supervise not running";
        return is_over.then(|| state(false, false, Some(why), "not supervised"));
    };
    let (up, wanted, paused) = (up.parse().ok()?, wanted.parse().ok()?, paused.parse().ok()?);
    let words = match (up, wanted) {
        (true, true) => "up",
        (true, false) => "up, wanted down",
        (false, true) => "down, wanted up",
        (false, false) => "down",
    };
    let paused = (up && paused).then_some("it is paused");
    // The pid is -1 if there is none.
    Some(State { pid: pid.parse().ok(), ..state(up, wanted, paused, words) })
}

#[cfg(test)]
mod tests {
    use super::super::supervised::give;
    use super::super::{Manager, Outcome};
    use super::*;
    use crate::host::clock::{Deadline, wait_until};
    use crate::service::discover::process::Processes;
    use crate::service::discover::process::tests::FakeProc;

    /// A machine whose `s6-svstat` answers with the content of `state/NAME`, which an order of `s6-svc`
    /// replaces by that of `after/NAME`.
    fn machine(states: &[(&str, &str, &str)]) -> FakeProc {
        let machine = FakeProc::new();
        let dir = machine.0.path().display();
        std::fs::create_dir_all(machine.0.path().join("usr/bin")).unwrap();
        let asked = format!("#!/bin/sh\ncat {dir}/state/${{3##*/}}\n");
        let told = format!(
            "#!/bin/sh\necho \"$@\" >>{dir}/calls; mv {dir}/after/${{2##*/}} {dir}/state/\n"
        );
        for (program, script) in [("s6-svstat", asked), ("s6-svc", told)] {
            machine.write(program, script);
            let files = [program.into(), format!("usr/bin/{program}")];
            let files = files.map(|file| machine.0.path().join(file));
            Program::new("/usr/bin/install").arg("-m755").args(files).run().unwrap();
        }
        for (name, before, after) in states {
            machine.write(&format!("run/service/{name}/run"), "#!/bin/sh\nexec /opt/v/bin/app\n");
            machine.write(&format!("state/{name}"), before);
            machine.write(&format!("after/{name}"), after);
        }
        machine
    }

    #[test]
    fn a_supervisor_that_notices_an_order_late_is_waited_for() {
        let down = "false false false -1\n";
        let machine = machine(&[("web", down, down)]);
        let (root, after) = (machine.root(), machine.0.path().join("after/web"));
        std::thread::scope(|scope| {
            let told = scope.spawn(|| S6.start(&root, &["web"]).remove(0));
            let asked = Deadline::after(Duration::from_secs(10));
            wait_until(asked, Duration::from_millis(10), || !after.exists());
            machine.write("state/web", "true true false 9\n");
            assert_eq!(told.join().unwrap().unwrap(), Outcome::Done);
        });
    }

    #[test]
    fn the_states_of_s6_svstat_are_understood() {
        // `s6-svstat -o up,wantedup,paused,pid` of s6 2.13.
        for (answer, up, at_work, pid, words) in [
            ("true true false 9\n", true, true, Some(9), "up"),
            ("true false false 9\n", false, false, Some(9), "up, wanted down"),
            ("false true false -1\n", false, true, None, "down, wanted up"),
            ("false false false -1\n", false, false, None, "down"),
        ] {
            let machine = machine(&[("web", answer, "")]);
            let found = S6.condition(&machine.root(), "web").unwrap();
            assert_eq!((found.up, found.is_at_work()), (up, at_work), "{answer}: {found:?}");
            assert_eq!((found.main_pid, found.state.as_str()), (pid, words), "{answer}");
            assert_eq!(found.left_alone, None, "{answer}");
        }
        let gone = "s6-svstat: fatal: unable to read status for x: s6-supervise not running\n";
        for (answer, why) in
            [("true true true 9\n", "it is paused"), (gone, "s6-supervise not running")]
        {
            let machine = machine(&[("web", answer, "")]);
            let found = S6.condition(&machine.root(), "web").unwrap();
            assert_eq!(found.left_alone.as_deref(), Some(why), "{answer}");
        }
        let machine = machine(&[("web", "true maybe", "")]);
        let error = |name| S6.condition(&machine.root(), name).unwrap_err().to_string();
        assert_eq!(error("web"), "s6-svstat does not report the state of web: true maybe");
        assert_eq!(error("api"), "s6 knows no service api");
    }

    #[test]
    fn a_service_that_is_down_is_started_and_one_that_runs_is_restarted() {
        let machine = machine(&[
            ("down", "false false false -1", "true true false 8"),
            ("runs", "true true false 7", "true true false 9"),
            ("stuck", "true true false 10", "true true false 10"),
        ]);
        let told =
            give::<S6>(Order::Restart, &machine.root(), &["down", "runs", "stuck"], Duration::ZERO);
        assert_eq!(told[0].as_ref().unwrap(), &Outcome::Done);
        assert_eq!(told[1].as_ref().unwrap(), &Outcome::Done);
        assert_eq!(
            told[2].as_ref().unwrap_err().to_string(),
            "stuck did not stop within 0 s (it is up)"
        );
        let calls = std::fs::read_to_string(machine.0.path().join("calls")).unwrap();
        assert_eq!(calls, "-u /run/service/down\n-r /run/service/runs\n-r /run/service/stuck\n");
    }

    #[test]
    fn a_child_of_s6_supervise_is_its_service() {
        let machine = machine(&[("web", "true true false 7", "")]);
        machine.process(
            (5, 1),
            "/system.slice/s6.service",
            "/usr/bin/s6-supervise",
            "s6-supervise web",
        );
        machine.write("proc/5/status", "Uid:\t0\t0\t0\t0\n");
        let web = machine.0.path().join("run/service/web");
        machine.link("proc/5/cwd", web.to_str().unwrap());
        let root = machine.root();
        let found = S6.discover(&root, &Processes::look(&root));
        assert_eq!(found.trees.into_iter().collect::<Vec<_>>(), [(5, Some("web".to_string()))]);
        assert_eq!(found.configured, [("web".to_string(), vec!["/opt/v/bin/app".into()])]);
    }
}
