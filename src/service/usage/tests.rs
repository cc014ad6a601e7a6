use super::super::discover::process::tests::FakeProc;
use super::super::managers::FakeSupervisord;
use super::*;

const PYTHON: &str = "/usr/bin/python3.13";
const UNIT: &str = "/system.slice/web.service";

fn map(machine: &FakeProc, venvs: &[&str]) -> ServiceMap {
    let root = machine.root();
    ServiceMap::build(&root, venvs, &Processes::look(&root))
}

/// The services and pids that use a venv.
fn users(map: &ServiceMap, venv: &str) -> (Vec<String>, Vec<u32>) {
    let users = map.of(Path::new(venv));
    let services = users.services.iter().map(ToString::to_string).collect();
    (services, users.processes.iter().map(|user| user.process.id.pid).collect())
}

fn current(interpreter: &str) -> Current {
    Current { interpreter: Some(interpreter.into()), swapped: None }
}

fn web(pids: &[u32]) -> (Vec<String>, Vec<u32>) {
    (vec!["systemd:web.service".to_string()], pids.to_vec())
}

#[test]
fn a_process_that_runs_a_venvs_python_uses_it() {
    let machine = FakeProc::new();
    let gunicorn = "/opt/v/web/bin/python3 /opt/v/web/bin/gunicorn -w 2";
    machine.process((5, 1), UNIT, PYTHON, gunicorn);
    machine.process((6, 5), UNIT, PYTHON, gunicorn);
    machine.process((7, 1), UNIT, "/opt/v/copy/bin/python3 (deleted)", "renamed by its program");
    machine.process((8, 1), UNIT, PYTHON, "/usr/bin/python3 -u /opt/v/args/bin/app");
    machine.process((9, 1), UNIT, PYTHON, "celery: master");
    machine.write(
        "proc/9/maps",
        "1-2 r-xp 0 fe:00 1  /opt/v/maps/lib/python3.13/site-packages/x.so\n",
    );
    machine.process((10, 1), UNIT, PYTHON, "bin/python app.py");
    machine.link("proc/10/cwd", "/opt/v/relative");
    machine.process((11, 1), UNIT, "/opt/v/tool/bin/ruff", "ruff server");
    let venvs =
        ["web", "copy", "args", "maps", "relative", "tool", "none"].map(|v| format!("/opt/v/{v}"));
    let venvs: Vec<_> = venvs.iter().map(String::as_str).collect();
    let map = map(&machine, &venvs);
    for (venv, pids) in [
        ("web", &[5, 6][..]),
        ("copy", &[7]),
        ("args", &[8]),
        ("maps", &[9]),
        ("relative", &[10]),
        ("tool", &[11]),
    ] {
        assert_eq!(users(&map, &format!("/opt/v/{venv}")), web(pids), "{venv}");
    }
    assert_eq!(*map.of(Path::new("/opt/v/none")), VenvUsage::default());
    assert_eq!(*map.of(Path::new("/never/heard/of")), VenvUsage::default());
}

#[test]
fn a_common_prefix_does_not_make_the_same_venv() {
    let machine = FakeProc::new();
    machine.process((5, 1), UNIT, PYTHON, "/opt/v/web2/bin/python3 x");
    machine.write("etc/systemd/system/api.service", "[Service]\nExecStart=/opt/v/web2/bin/x\n");
    let map = map(&machine, &["/opt/v/web", "/opt/v/web2", "/opt/v"]);
    assert_eq!(users(&map, "/opt/v/web"), (vec![], vec![]));
    assert_eq!(users(&map, "/opt/v"), (vec![], vec![]));
    assert_eq!(users(&map, "/opt/v/web2").1, [5]);
}

#[test]
fn an_activated_environment_counts_only_where_it_decides() {
    let machine = FakeProc::new();
    let environ = "VIRTUAL_ENV=/opt/v/web\0PATH=/opt/v/web/bin:/usr/bin\0";
    for (pid, exe, command) in [
        (5, PYTHON, "python3 app.py"),
        (6, PYTHON, "/usr/bin/python3 /usr/bin/some-tool"),
        (7, "/usr/bin/bash", "-bash"),
        (8, "/usr/bin/uwsgi-core", "/usr/bin/uwsgi --module x"),
    ] {
        machine.process((pid, 1), UNIT, exe, command);
        machine.write(&format!("proc/{pid}/environ"), environ);
    }
    machine.process((9, 1), UNIT, PYTHON, "python app.py");
    machine.write("proc/9/environ", "PATH=/opt/v/path/bin:/usr/bin\0");
    machine.process((10, 1), UNIT, PYTHON, "python app.py");
    machine.write("proc/10/environ", "PATH=/usr/bin:/opt/v/path/bin\0");
    let map = map(&machine, &["/opt/v/web", "/opt/v/path"]);
    assert_eq!(users(&map, "/opt/v/web").1, [5, 8]);
    assert_eq!(users(&map, "/opt/v/path").1, [9]);
}

#[test]
fn looking_at_a_file_in_a_venv_is_not_using_it() {
    let machine = FakeProc::new();
    machine.process((5, 1), UNIT, "/usr/bin/vim", "vim /opt/v/web/bin/activate");
    machine.process((6, 1), UNIT, PYTHON, "/usr/bin/python3 /usr/bin/lint /opt/v/web/lib/x.py");
    assert_eq!(users(&map(&machine, &["/opt/v/web"]), "/opt/v/web"), (vec![], vec![]));
}

#[test]
fn a_unit_that_names_a_venv_uses_it_even_when_it_is_down() {
    let machine = FakeProc::new();
    machine
        .write("etc/systemd/system/web.service", "[Service]\nExecStart=/opt/v/web/bin/gunicorn\n");
    machine.write("etc/systemd/system/job@.service", "[Service]\nExecStart=/opt/v/%i/bin/job\n");
    machine.process(
        (5, 1),
        "/system.slice/system-job.slice/job@web.service",
        "/usr/bin/dash",
        "sh x",
    );
    let services = users(&map(&machine, &["/opt/v/web"]), "/opt/v/web").0;
    assert_eq!(services, ["systemd:job@web.service", "systemd:web.service"]);
}

#[test]
fn a_users_processes_are_seen_and_belong_to_no_service() {
    let machine = FakeProc::new();
    let own = "/user.slice/user-1000.slice/user@1000.service/app.slice/web.service";
    machine.process((5, 1), own, PYTHON, "/opt/v/web/bin/python3 x");
    let map = map(&machine, &["/opt/v/web"]);
    assert_eq!(users(&map, "/opt/v/web"), (vec![], vec![5]));
    assert_eq!(
        map.of(Path::new("/opt/v/web"))
            .processes
            .iter()
            .filter(|one| one.service.is_none())
            .count(),
        1
    );
}

#[test]
fn a_link_to_a_venv_is_the_venv() {
    let machine = FakeProc::new();
    machine.write("srv/releases/7/venv/pyvenv.cfg", "");
    machine.link("srv/current", "releases/7");
    machine.process((5, 1), UNIT, "/srv/releases/7/venv/bin/python3", "x");
    machine.process((6, 1), UNIT, PYTHON, "/srv/current/venv/bin/python3");
    assert_eq!(users(&map(&machine, &["/srv/current/venv"]), "/srv/current/venv").1, [5, 6]);
}

#[test]
fn a_child_of_supervisord_is_its_program_and_not_supervisords_unit() {
    let fake = FakeSupervisord::start(&[("pair", "dj", "RUNNING"), ("pair", "down", "STOPPED")]);
    let machine = FakeProc::new();
    let unit = "/system.slice/supervisor.service";
    let uwsgi = "/opt/v/dj/bin/python3 /opt/v/dj/bin/uwsgi --master";
    machine.process((51, 1), unit, PYTHON, "/usr/bin/python3 /usr/bin/supervisord -n");
    machine.process((380, 51), unit, "/opt/v/dj/bin/python3", uwsgi);
    machine.process((387, 380), unit, "/opt/v/dj/bin/python3", uwsgi);
    let processes = Processes::look(&machine.root());
    let venvs = ["/opt/v/dj", "/opt/v/down"];
    let map = ServiceMap::build(&fake.root(), venvs, &processes);
    assert_eq!(users(&map, "/opt/v/dj"), (vec!["supervisord:pair:dj".into()], vec![380, 387]));
    assert_eq!(users(&map, "/opt/v/down"), (vec!["supervisord:pair:down".into()], vec![]));
    assert_eq!(map.gaps, [""; 0]);
    // If supervisord cannot be queried, the only way is to restart it as a whole.
    let blind = ServiceMap::build(&machine.root(), venvs, &processes);
    assert_eq!(users(&blind, "/opt/v/dj").0, ["systemd:supervisor.service"]);
}

#[test]
fn a_child_of_runsv_is_its_service_and_not_runits_unit() {
    let machine = FakeProc::new();
    let unit = "/system.slice/runit.service";
    machine.process((4, 1), unit, "/usr/bin/runsvdir", "runsvdir -P /etc/service");
    for (pid, name) in [(5, "web"), (6, "runsvdir-app")] {
        let dir = machine.0.path().join("etc/sv").join(name);
        machine.write(&format!("etc/sv/{name}/run"), "#!/bin/sh\n# /opt/v/other/bin/x\nexec x\n");
        machine.link(&format!("etc/service/{name}"), &format!("../sv/{name}"));
        machine.process((pid, 4), unit, "/usr/bin/runsv", &format!("runsv {name}"));
        machine.write(&format!("proc/{pid}/status"), "Uid:\t0\t0\t0\t0\n");
        machine.link(&format!("proc/{pid}/cwd"), dir.to_str().unwrap());
    }
    machine.write("etc/sv/down/run", "#!/bin/sh\nexec chpst -u app /opt/v/down/bin/app\n");
    machine.link("etc/service/down", "../sv/down");
    // A `run` script that does not `exec`, and a worker below it.
    machine.process((10, 5), unit, "/usr/bin/dash", "/bin/sh ./run");
    machine.process((11, 10), unit, PYTHON, "/opt/v/web/bin/python3 x");
    machine.process((12, 11), unit, PYTHON, "/opt/v/web/bin/python3 x");
    // A user's own runit, which is a service of the system.
    machine.process((20, 6), unit, "/usr/bin/runsvdir", "runsvdir /home/app/service");
    machine.process((21, 20), unit, "/usr/bin/runsv", "runsv web");
    machine.write("proc/21/status", "Uid:\t1000\t1000\t1000\t1000\n");
    machine.process((22, 21), unit, PYTHON, "/opt/v/own/bin/python3 x");
    let map = map(&machine, &["/opt/v/web", "/opt/v/down", "/opt/v/own", "/opt/v/other"]);
    assert_eq!(users(&map, "/opt/v/web"), (vec!["runit:web".into()], vec![11, 12]));
    assert_eq!(users(&map, "/opt/v/down"), (vec!["runit:down".into()], vec![]));
    assert_eq!(users(&map, "/opt/v/own"), (vec![], vec![22]), "the manager of this one is unknown");
    assert_eq!(users(&map, "/opt/v/other"), (vec![], vec![]), "a comment");
}

#[test]
fn each_service_that_needs_a_restart_is_listed_once() {
    let machine = FakeProc::new();
    for pid in [5, 6] {
        machine.process(
            (pid, 1),
            UNIT,
            "/usr/bin/python3.13 (deleted)",
            "/opt/v/web/bin/python3 x",
        );
    }
    machine.process((7, 1), UNIT, PYTHON, "/opt/v/web/bin/python3 x");
    machine.process((8, 1), "/", "/usr/bin/python3.11", "/opt/v/web/bin/python3 x");
    let map = map(&machine, &["/opt/v/web"]);
    let reasons = needs_restart(map.of(Path::new("/opt/v/web")), &current(PYTHON));
    assert_eq!(
        reasons,
        [
            "pid 8 (/opt/v/web/bin/python3 x): it runs on /usr/bin/python3.11, but the venv now uses python3.13",
            "systemd:web.service (pids 5, 6): /usr/bin/python3.13 was replaced after the process started",
        ]
    );
    let web = BTreeSet::from(["systemd:web".parse().unwrap()]);
    assert_eq!(map.of(Path::new("/opt/v/web")).processes_of(&web).count(), 3);
}

#[test]
fn many_venvs_only_cost_an_index() {
    let machine = FakeProc::new();
    for pid in 1000..1300 {
        machine.process((pid, 1), UNIT, PYTHON, &format!("/srv/app{pid}/venv/bin/python3 x"));
    }
    let venvs: Vec<String> = (0..10_000).map(|n| format!("/srv/app{n}/venv")).collect();
    let root = machine.root();
    let map = ServiceMap::build(&root, &venvs, &Processes::look(&root));
    let used = venvs.iter().filter(|venv| !map.of(Path::new(venv)).processes.is_empty()).count();
    assert_eq!(used, 300);
}

#[test]
fn a_process_that_renamed_itself_is_found_when_its_tree_was_put_aside() {
    let run_from = |tree: &str| {
        let machine = FakeProc::new();
        let maps = format!("1-2 r-xp 0 fe:00 1  {tree}/lib/python3.11/site-packages/x.so\n");
        machine.process((9, 1), UNIT, "/usr/bin/python3.11", "gunicorn: master [app:app]");
        machine.write("proc/9/maps", &maps);
        // A worker that was started by hand.
        let session = "/user.slice/user-0.slice/session-1.scope";
        machine.process((10, 1), session, "/usr/bin/python3.11", "celery: worker");
        machine.write("proc/10/maps", &maps);
        let map = map(&machine, &["/opt/v/web"]);
        let users = map.of(Path::new("/opt/v/web"));
        let is_left =
            |user: &&VenvProcess| user.service.is_none() && user.stale(&current(PYTHON)).is_some();
        (users.processes.len(), users.processes.iter().filter(is_left).count())
    };
    assert_eq!(run_from("/opt/v/web"), (2, 1));
    assert_eq!(run_from("/opt/v/.web.venvguard-20261122T210208Z"), (2, 1));
    assert_eq!(run_from("/opt/v/.website.venvguard-20261122T210208Z"), (0, 0));
}

#[test]
fn a_path_that_leads_through_a_link_means_the_venv_behind_it() {
    let machine = FakeProc::new();
    machine.write("srv/cap/releases/7/venv/bin/gunicorn", "");
    machine.link("srv/cap/current", "releases/7");
    let unit = "[Service]\nExecStart=/srv/cap/current/venv/bin/gunicorn\n";
    machine.write("etc/systemd/system/web.service", unit);
    machine.process((5, 1), UNIT, PYTHON, "/srv/cap/current/venv/bin/python x");
    machine.link("proc/5/root", machine.0.path().to_str().unwrap());
    let venv = "/srv/cap/releases/7/venv";
    assert_eq!(users(&map(&machine, &[venv]), venv), web(&[5]));
    std::fs::remove_dir_all(machine.0.path().join("proc/5")).unwrap();
    assert_eq!(users(&map(&machine, &[venv]), venv), web(&[]));
}

#[test]
fn a_unit_with_a_root_of_its_own_uses_the_venv_that_is_bound_into_it() {
    let machine = FakeProc::new();
    let base = machine.0.path().to_str().unwrap().to_string();
    let jail = format!("{base}/srv/jail");
    machine.write("srv/jail/opt/e5/bin/app", "");
    machine.process((6, 1), UNIT, PYTHON, "/opt/e5/bin/python x");
    machine.link("proc/6/root", &jail);
    // A link in place of the mount.
    machine.write("srv/jail/srv/e4/bin/app", "");
    machine.link("srv/jail/opt/e4", "/srv/e4");
    machine.process((5, 1), UNIT, PYTHON, "/opt/e4/bin/python x");
    machine.link("proc/5/root", &jail);
    // A container with a venv at the same path, which is another one.
    machine.process((7, 1), "/system.slice/docker-0.scope", PYTHON, "/opt/e5/bin/python x");
    machine.link("proc/7/root", &jail);
    let map = map(&machine, &["/srv/jail/srv/e4", "/srv/jail/opt/e5", "/opt/e5"]);
    assert_eq!(users(&map, "/srv/jail/srv/e4"), web(&[5]));
    assert_eq!(users(&map, "/srv/jail/opt/e5"), web(&[6]));
    assert_eq!(users(&map, "/opt/e5"), (vec![], vec![]));
}

#[test]
fn a_unit_uses_a_venv_that_is_bound_into_its_view_even_when_it_is_down() {
    let machine = FakeProc::new();
    machine.write("srv/e4/venv/bin/python", "");
    let unit =
        "[Service]\nBindReadOnlyPaths=/srv/e4:/opt/e4\nExecStart=/opt/e4/venv/bin/python x\n";
    machine.write("etc/systemd/system/web.service", unit);
    let map = map(&machine, &["/srv/e4/venv", "/opt/e4/venv"]);
    assert_eq!(users(&map, "/srv/e4/venv"), web(&[]));
    assert_eq!(users(&map, "/opt/e4/venv"), (vec![], vec![]));
}

#[test]
fn a_unit_that_uses_a_disk_image_is_reported_as_not_looked_into() {
    let machine = FakeProc::new();
    for (unit, setting) in [
        ("image", "RootImage=/srv/app.raw"),
        ("mounts", "MountImages=/srv/venv.raw:/opt/venv"),
        ("reset", "RootImage=/srv/app.raw\nRootImage="),
    ] {
        let text = format!("[Service]\n{setting}\nExecStart=/opt/venv/bin/python x\n");
        machine.write(&format!("etc/systemd/system/{unit}.service"), text);
    }
    let map = map(&machine, &["/opt/venv"]);
    let gap = |unit, setting| format!("{unit}.service uses a disk image ({setting}=)");
    assert_eq!(map.gaps, [gap("image", "RootImage"), gap("mounts", "MountImages")]);
    assert_eq!(users(&map, "/opt/venv").0, ["systemd:mounts.service", "systemd:reset.service"]);
}

#[test]
fn what_cron_or_a_session_starts_belongs_to_no_service() {
    let machine = FakeProc::new();
    for (pid, unit) in [(5, "cron"), (6, "ssh"), (7, "system-getty.slice/getty@tty1")] {
        let cgroup = format!("/system.slice/{unit}.service");
        machine.process((pid, 1), &cgroup, PYTHON, "/opt/v/web/bin/python bot.py");
    }
    assert_eq!(users(&map(&machine, &["/opt/v/web"]), "/opt/v/web"), (vec![], vec![5, 6, 7]));
}

#[test]
fn apache_uses_the_venvs_that_its_configuration_gives_to_mod_wsgi() {
    let machine = FakeProc::new();
    let site = "WSGIDaemonProcess mw python-home=/srv/mw/venv\n";
    machine.write("etc/apache2/sites-available/mw.conf", site);
    machine.link("etc/apache2/sites-enabled/mw.conf", "../sites-available/mw.conf");
    machine.process((5, 1), "/system.slice/apache2.service", "/usr/sbin/apache2", "apache2 -k x");
    machine.write("proc/5/maps", "1-2 r-xp 0 fe:00 1  /usr/lib/x/libpython3.11.so.1.0\n");
    let map = map(&machine, &["/srv/mw/venv"]);
    let venv = "/srv/mw/venv";
    assert_eq!(users(&map, venv), (vec!["systemd:apache2.service".into()], vec![5]));
    let reasons = needs_restart(map.of(Path::new(venv)), &current(PYTHON));
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    let embedding = map.of(Path::new(venv)).embedding(&machine.root());
    assert_eq!(embedding.map(|one| one.program), Some("/usr/sbin/apache2".into()));
}

#[test]
fn a_process_that_is_older_than_its_venv_is_stale_whatever_it_has_mapped() {
    let machine = FakeProc::new();
    // Started 4960 seconds ago.
    machine.process((5, 1), UNIT, PYTHON, "/opt/v/web/bin/python3 x");
    let map = map(&machine, &["/opt/v/web"]);
    let user = &map.of(Path::new("/opt/v/web")).processes[0];
    let swapped =
        |seconds| Current { swapped: Some(Duration::from_secs(seconds)), ..current(PYTHON) };
    let reason = "it was started before the venv was replaced";
    assert_eq!(user.stale(&swapped(60)).as_deref(), Some(reason));
    assert_eq!(user.stale(&swapped(5000)), None);
    assert_eq!(user.stale(&swapped(4959)), None, "the clocks are not that exact");
    assert_eq!(user.stale(&current(PYTHON)), None);
}

#[test]
fn processes_of_no_venv_are_known_if_they_run_python() {
    let machine = FakeProc::new();
    let unit = "/system.slice/supervisor.service";
    machine.process((5, 1), unit, "/usr/bin/python3.13 (deleted)", "/usr/bin/python3 x");
    machine.process((6, 1), unit, "/usr/bin/bash", "bash");
    machine.process((7, 1), UNIT, PYTHON, "/opt/v/web/bin/python3 x");
    let map = map(&machine, &["/opt/v/web"]);
    let others: Vec<u32> = map.others.iter().map(|one| one.process.id.pid).collect();
    assert_eq!(others, [5]);
    assert_eq!(map.others[0].service, Some("systemd:supervisor".parse().unwrap()));
    assert!(map.others[0].stale(&Current::default()).is_some());
}

#[test]
fn a_worker_is_a_process_below_another_one_of_its_service() {
    let machine = FakeProc::new();
    machine.process((5, 1), UNIT, PYTHON, "/opt/v/web/bin/python3 x");
    machine.process((6, 5), UNIT, PYTHON, "/opt/v/web/bin/python3 x");
    machine.process((7, 1), "/system.slice/job.service", PYTHON, "/opt/v/web/bin/python3 x");
    let map = map(&machine, &["/opt/v/web"]);
    let lasting = |seconds| {
        map.of(Path::new("/opt/v/web")).with_lasting_workers(Duration::from_secs(seconds))
    };
    assert_eq!(lasting(60), BTreeSet::from(["systemd:web".parse().unwrap()]));
    assert_eq!(lasting(6000), BTreeSet::new(), "it is younger");
}
