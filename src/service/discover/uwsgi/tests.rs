use super::super::process::tests::FakeProc;
use super::*;

fn found(machine: &FakeProc, pid: u32) -> Vec<PathBuf> {
    let (root, processes) = (machine.root(), Processes::look(&machine.root()));
    venvs(&root, processes.get(pid).unwrap(), &processes)
}

const UWSGI: &str = "/usr/bin/uwsgi-core";

#[test]
fn a_command_line_names_its_venv() {
    for command in [
        "uwsgi --virtualenv /opt/v/dj --die-on-term",
        "uwsgi --home=/opt/v/dj",
        "uwsgi -H /opt/v/dj",
        "uwsgi --venv dj",
        "uwsgi --pyhome ../v/dj/",
    ] {
        let machine = FakeProc::new();
        machine.process((5, 1), "/", UWSGI, command);
        machine.link("proc/5/cwd", "/opt/v");
        assert_eq!(found(&machine, 5), [Path::new("/opt/v/dj")], "{command}");
    }
}

#[test]
fn a_vassals_ini_is_found_in_its_emperors_directory() {
    let machine = FakeProc::new();
    let emperor = "uwsgi --plugin python3 --emperor /etc/vassals --die-on-term";
    machine.process((5, 1), "/", UWSGI, emperor);
    machine.process((6, 5), "/", UWSGI, "/usr/bin/uwsgi-core --ini deb.ini");
    machine.process((7, 6), "/", UWSGI, "/usr/bin/uwsgi-core --ini deb.ini");
    machine.link("proc/6/cwd", "/srv/dj");
    machine.link("proc/7/cwd", "/srv/dj");
    machine.write(
        "srv/vassals-available/deb.ini",
        "[uwsgi]\nplugin = python3\nvirtualenv = /opt/v/dj\n",
    );
    machine.link("etc/vassals/deb.ini", "/srv/vassals-available/deb.ini");
    assert_eq!(found(&machine, 6), [Path::new("/opt/v/dj")]);
    assert_eq!(found(&machine, 7), [Path::new("/opt/v/dj")], "its worker too");
    assert_eq!(found(&machine, 5).len(), 0);
}

#[test]
fn variables_in_an_ini_are_expanded() {
    let text = "[uwsgi]\nbase = /srv/apps\napp = %(base)/%n\nhome = %(app)/venv\nvenv = %d../v\n\
                # home = /not/this\nchdir = /nor/this\n";
    let venvs = in_text(text, Path::new("/etc/uwsgi/shop.ini"));
    assert_eq!(venvs, ["/srv/apps/shop/venv", "/etc/uwsgi/../v"].map(PathBuf::from));
}

#[test]
fn hostile_files_do_no_harm() {
    let machine = FakeProc::new();
    machine.process(
        (5, 1),
        "/",
        UWSGI,
        "uwsgi --ini /srv/loop.ini --ini=/srv/directory.ini x.ini -H",
    );
    machine.link("srv/loop.ini", "loop.ini");
    std::fs::create_dir(machine.0.path().join("srv/directory.ini")).unwrap();
    assert_eq!(found(&machine, 5).len(), 0);
    let bomb = "a = %(a)%(a)%(a)%(a)%(a)%(a)\nhome = %(a)\n";
    assert!(in_text(bomb, Path::new("/x.ini"))[0].as_os_str().len() <= LONGEST);
    let deep = PathBuf::from(format!("/{}x.ini", "d/".repeat(2000)));
    let lines = format!("H={}\n", "%d".repeat(2000)).repeat(1000);
    let length: usize = in_text(&lines, &deep).iter().map(|venv| venv.as_os_str().len()).sum();
    assert!(length <= VENVS * LONGEST, "{length}");
}

#[test]
fn every_form_of_settings_names_its_venv() {
    for (command, file, text) in [
        ("uwsgi --yaml /srv/app.yaml", "srv/app.yaml", "uwsgi:\n  virtualenv: /opt/v/dj\n"),
        ("uwsgi /srv/app.yml", "srv/app.yml", "uwsgi:\n  - home: '/opt/v/dj' # the app's\n"),
        (
            "uwsgi --xml /srv/app.xml",
            "srv/app.xml",
            "<uwsgi><virtualenv>/opt/v/dj</virtualenv></uwsgi>",
        ),
        (
            "uwsgi -x/srv/app.xml",
            "srv/app.xml",
            "<?xml version='1.0'?><a><uwsgi id='x'><home> /opt/v/dj </home></uwsgi></a>",
        ),
        (
            "uwsgi --json /srv/app.json",
            "srv/app.json",
            r#"{"uwsgi": {"master": true, "virtualenv": ["%(x)/dj"], "set-ph": "x=/opt/v"}}"#,
        ),
        ("uwsgi -H/opt/v/dj", "srv/x", ""),
        ("uwsgi --ini /srv/a.ini", "srv/a.ini", "[uwsgi]\nini = /srv/common.ini\n"),
        ("uwsgi /srv/a.ini:prod", "srv/a.ini", "[prod]\ninclude = %dcommon.ini\n"),
        (
            "uwsgi --ini /srv/a.ini",
            "srv/a.ini",
            "[uwsgi]\nset-placeholder = base=/opt/v\nvirtualenv = %(base)/dj\n",
        ),
        (
            "uwsgi --set-ph base=/opt/v --ini /srv/a.ini",
            "srv/a.ini",
            "[uwsgi]\nvirtualenv = %(base)/dj\n",
        ),
        (
            "uwsgi --ini /srv/a.ini",
            "srv/a.ini",
            "[uwsgi]\nfor = dj\nvirtualenv = /opt/v/%(_)\nendfor =\n",
        ),
    ] {
        let machine = FakeProc::new();
        machine.process((5, 1), "/", UWSGI, command);
        machine.write(file, text);
        machine.write("srv/common.ini", "[uwsgi]\nvirtualenv = /opt/v/dj\n");
        assert_eq!(found(&machine, 5), [Path::new("/opt/v/dj")], "{command}: {text:?}");
    }
}

#[test]
fn a_loop_names_a_venv_for_each_word() {
    let text = "[uwsgi]\nall = a b\nfor = %(all) c\nhome = /opt/%(_)\nendfor =\nhome = /opt/d\n";
    let venvs = ["/opt/a", "/opt/b", "/opt/c", "/opt/d"].map(PathBuf::from);
    assert_eq!(in_text(text, Path::new("/x.ini")), venvs);
}

#[test]
fn files_that_include_each_other_terminate() {
    let machine = FakeProc::new();
    machine.process((5, 1), "/", UWSGI, "uwsgi --ini /srv/a.ini");
    let include = "ini = /srv/a.ini\nxml = /srv/b.xml\n".repeat(1000);
    machine.write("srv/a.ini", format!("[uwsgi]\nhome = /opt/v\nfor = a b c\n{include}"));
    machine.write("srv/b.xml", "<uwsgi><ini>/srv/a.ini</ini></uwsgi>");
    assert_eq!(found(&machine, 5), [Path::new("/opt/v")]);
    for (name, text) in [
        ("x.json", "[".repeat(1 << 20)),
        ("x.json", r#"{"uwsgi": {"home": {"a": "/opt/v"}}, "x": "y"}"#.to_string()),
        ("x.xml", "<uwsgi>".repeat(100_000)),
        ("x.xml", "<!DOCTYPE a [<!ENTITY x '/opt/v'>]><uwsgi><home>&x;</home></uwsgi>".into()),
        ("x.yaml", ":".repeat(1 << 20)),
    ] {
        assert!(in_text(&text, Path::new(name)).is_empty(), "{name}");
    }
    let long = "for = ".to_string() + &"w ".repeat(1000) + "\nhome = /opt/%(_)\n";
    assert_eq!(in_text(&long, Path::new("/x.ini")).len(), TIMES);
}
