//! A stand-in for supervisord that listens on a socket and keeps its programs in memory.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;

use super::daemon::{BAD_NAME, NOT_RUNNING};
use crate::host::Root;

/// A root in which a supervisord listens.
pub(in crate::service) struct FakeSupervisord {
    dir: TempDir,
    told: Arc<Mutex<Vec<String>>>,
}

struct Program {
    group: String,
    name: String,
    state: String,
    exit_status: i32,
    pid: u32,
}

impl FakeSupervisord {
    /// Takes programs by group, name and state (`EXITED 3`: with the exit status); running ones
    /// have pids from 380.
    pub(in crate::service) fn start(programs: &[(&str, &str, &str)]) -> Self {
        Self::start_late(programs, Duration::ZERO)
    }

    pub(in crate::service) fn start_late(programs: &[(&str, &str, &str)], late: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        let socket = dir.path().join("run/supervisor.sock");
        let told = Arc::new(Mutex::new(Vec::new()));
        let mut programs: Vec<_> = programs
            .iter()
            .zip(380..)
            .map(|((group, name, state), pid)| {
                let (state, exit_status) = state.split_once(' ').unwrap_or((state, "0"));
                Program {
                    group: (*group).into(),
                    name: (*name).into(),
                    state: state.into(),
                    exit_status: exit_status.parse().unwrap(),
                    pid: if state == "RUNNING" { pid } else { 0 },
                }
            })
            .collect();
        let noted = told.clone();
        let mut listener = late.is_zero().then(|| UnixListener::bind(&socket).unwrap());
        std::thread::spawn(move || {
            #[expect(clippy::disallowed_methods, reason = "it imitates a slow server")]
            std::thread::sleep(late);
            let listener = listener.take().unwrap_or_else(|| UnixListener::bind(&socket).unwrap());
            for stream in listener.incoming().flatten() {
                answer(stream, &mut programs, &noted);
            }
        });
        Self { dir, told }
    }

    pub(in crate::service) fn root(&self) -> Root {
        Root::new(self.dir.path())
    }

    /// The calls that change something, in order.
    pub(in crate::service) fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }
}

fn answer(mut stream: UnixStream, programs: &mut [Program], told: &Mutex<Vec<String>>) {
    let mut request = String::new();
    let mut chunk = [0; 4096];
    while !request.contains("</methodCall>") {
        let read = stream.read(&mut chunk).unwrap_or(0);
        if read == 0 {
            return;
        }
        request.push_str(std::str::from_utf8(&chunk[..read]).unwrap());
    }
    // supervisord reads as many bytes of a body as the header declares, and none without it.
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let length = format!("Content-Length: {}", body.len());
    assert!(head.lines().any(|line| line == length), "{head}");
    let between = |from: &str, to: &str| {
        request.split_once(from).and_then(|(_, rest)| rest.split_once(to)).map(|(text, _)| text)
    };
    let method = between("<methodName>supervisor.", "<").unwrap();
    let wanted = between("<string>", "<").unwrap_or_default();
    let found = programs.iter_mut().find(|program| program.full_name() == wanted);
    let value = match (method, found) {
        ("getAllProcessInfo", _) => Ok(list(programs.iter().map(Program::state))),
        ("getAllConfigInfo", _) => Ok(list(programs.iter().map(Program::configuration))),
        (_, None) => Err((BAD_NAME, format!("BAD_NAME: {wanted}"))),
        ("getProcessInfo", Some(program)) => {
            let state = program.state();
            if program.state == "STOPPING" {
                program.state = "STOPPED".into();
            }
            Ok(state)
        }
        ("stopProcess", Some(program)) => {
            told.lock().unwrap().push(format!("stopProcess {wanted}"));
            if program.state == "RUNNING" {
                program.state = "STOPPING".into();
                Ok("<boolean>1</boolean>".into())
            } else {
                Err((NOT_RUNNING, format!("NOT_RUNNING: {wanted}")))
            }
        }
        ("startProcess", Some(program)) => {
            told.lock().unwrap().push(format!("startProcess {wanted}"));
            assert_ne!(program.state, "STOPPING");
            (program.state, program.pid) = ("RUNNING".into(), program.pid + 1000);
            Ok("<boolean>1</boolean>".into())
        }
        ("readProcessStdoutLog", Some(_)) => Ok(
            "<string>Traceback (most recent call last):\n\nImportError: HAS_TLSv1_3 \u{1b}[0m\n</string>"
                .into(),
        ),
        _ => Err((20, "NO_FILE".into())),
    };
    let body = match value {
        Ok(value) => format!("<params><param><value>{value}</value></param></params>"),
        Err((code, text)) => format!(
            "<fault><value><struct>{}{}</struct></value></fault>",
            member("faultCode", &format!("<int>{code}</int>")),
            member("faultString", &format!("<string>{text}</string>")),
        ),
    };
    let body = format!("<?xml version='1.0'?>\n<methodResponse>\n{body}\n</methodResponse>\n");
    let head =
        format!("HTTP/1.1 200 OK\r\nServer: Medusa/1.12\r\nContent-Length: {}\r\n\r\n", body.len());
    let _ = stream.write_all((head + &body).as_bytes());
}

fn list(values: impl Iterator<Item = String>) -> String {
    let values: Vec<_> = values.map(|value| format!("<value>{value}</value>")).collect();
    format!("<array><data>{}</data></array>", values.concat())
}

fn member(name: &str, value: &str) -> String {
    format!("<member><name>{name}</name><value>{value}</value></member>")
}

impl Program {
    fn full_name(&self) -> String {
        if self.group == self.name {
            self.name.clone()
        } else {
            format!("{}:{}", self.group, self.name)
        }
    }

    fn state(&self) -> String {
        let text = |name, text: &str| member(name, &format!("<string>{text}</string>"));
        let members = [
            text("name", &self.name),
            text("group", &self.group),
            text("statename", &self.state),
            text("spawnerr", ""),
            member("exitstatus", &format!("<int>{}</int>", self.exit_status)),
            member("pid", &format!("<int>{}</int>", self.pid)),
        ];
        format!("<struct>{}</struct>", members.concat())
    }

    fn configuration(&self) -> String {
        let text = |name, text: &str| member(name, &format!("<string>{text}</string>"));
        let members = [
            text("name", &self.name),
            text("group", &self.group),
            text("command", &format!("/opt/v/{}/bin/uwsgi --master", self.name)),
            member("stopwaitsecs", "<int>10</int>"),
            member("startsecs", "<int>2</int>"),
            member(
                "exitcodes",
                &list(["<int>0</int>", "<int>3</int>"].map(String::from).into_iter()),
            ),
        ];
        format!("<struct>{}</struct>", members.concat())
    }
}
