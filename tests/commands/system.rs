//! A directory that stands in for a Debian system, and ways to run the program on it.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub(crate) struct System {
    dir: tempfile::TempDir,
}

/// The output and exit code of a run.
pub(crate) struct Said {
    code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    pub(crate) fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Self {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

pub(crate) struct Journal(UnixDatagram);

impl Journal {
    /// The lines since the last call, each with all its fields as text.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut datagram = vec![0; 64 << 10];
        std::iter::from_fn(|| {
            let length = self.0.recv(&mut datagram).ok()?;
            Some(String::from_utf8_lossy(&datagram[..length]).into_owned())
        })
        .collect()
    }
}

impl System {
    /// A system whose default Python has this Debian version.
    pub(crate) fn with_python(version: &str) -> Self {
        let system = Self { dir: tempfile::tempdir().unwrap() };
        system.install_python(version);
        system.make_default(minor(version));
        system
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(path.trim_start_matches('/'))
    }

    pub(crate) fn write(&self, path: &str, content: &str) {
        self.write_bytes(path, content.as_bytes());
    }

    pub(crate) fn write_bytes(&self, path: &str, content: &[u8]) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    /// The real location of a path.
    pub(crate) fn path(&self, path: &str) -> String {
        self.at(path).display().to_string()
    }

    /// A shell script that stands for a program.
    pub(crate) fn script(&self, path: &str, script: &str) {
        self.write("/script", &format!("#!/bin/sh\n{script}\n"));
        // Written by another process: see the tests of systemd.
        let to = self.path(path);
        Self::shell(&format!("install -D -m755 {} {to}", self.path("/script")));
    }

    pub(crate) fn make_dir(&self, path: &str) {
        fs::create_dir_all(self.at(path)).unwrap();
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.at(path).exists()
    }

    pub(crate) fn remove(&self, path: &str) {
        fs::remove_dir_all(self.at(path)).unwrap();
    }

    pub(crate) fn remove_file(&self, path: &str) {
        fs::remove_file(self.at(path)).unwrap();
    }

    pub(crate) fn set_mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.at(path), PermissionsExt::from_mode(mode)).unwrap();
    }

    /// Lets the system's journal listen from now on.
    pub(crate) fn journal(&self) -> Journal {
        self.make_dir("/run/systemd/journal");
        let socket = UnixDatagram::bind(self.at("/run/systemd/journal/socket")).unwrap();
        socket.set_nonblocking(true).unwrap();
        Journal(socket)
    }

    /// Runs a command that a hint names.
    #[track_caller]
    pub(crate) fn shell(command: &str) {
        assert!(Command::new("sh").args(["-ec", command]).status().unwrap().success(), "{command}");
    }

    pub(crate) fn link(&self, path: &str) -> String {
        fs::read_link(self.at(path)).unwrap().display().to_string()
    }

    pub(crate) fn relink(&self, path: &str, target: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        symlink(target, path).unwrap();
    }

    pub(crate) fn install_python(&self, version: &str) {
        self.python(version, "installed");
    }

    /// Leaves Python as dpkg does when it dies between unpacking and configuring.
    pub(crate) fn unpack_python(&self, version: &str) {
        self.python(version, "unpacked");
    }

    fn python(&self, version: &str, status: &str) {
        let minor = minor(version);
        let package = format!("python{minor}-minimal");
        self.write(&format!("/usr/bin/python{minor}"), version);
        self.write(
            &format!("/var/lib/dpkg/info/{package}.list"),
            &format!("/.\n/usr\n/usr/bin\n/usr/bin/python{minor}\n"),
        );
        let others = self.packages_without(&package);
        self.write(
            "/var/lib/dpkg/status",
            &format!(
                "{others}Package: {package}\nStatus: install ok {status}\nArchitecture: amd64\nVersion: {version}\n\n"
            ),
        );
    }

    /// Removes Python as `dpkg --remove` does.
    pub(crate) fn remove_python(&self, minor: &str) {
        let package = format!("python{minor}-minimal");
        fs::remove_file(self.at(&format!("/usr/bin/python{minor}"))).unwrap();
        fs::remove_file(self.at(&format!("/var/lib/dpkg/info/{package}.list"))).unwrap();
        self.write("/var/lib/dpkg/status", &self.packages_without(&package));
    }

    /// dpkg's stanzas of all packages except one.
    fn packages_without(&self, package: &str) -> String {
        fs::read_to_string(self.at("/var/lib/dpkg/status"))
            .unwrap_or_default()
            .split("\n\n")
            .filter(|stanza| {
                !stanza.trim().is_empty() && !stanza.contains(&format!("Package: {package}\n"))
            })
            .map(|stanza| stanza.trim().to_string() + "\n\n")
            .collect()
    }

    pub(crate) fn make_default(&self, minor: &str) {
        self.relink("/usr/bin/python3", &format!("python{minor}"));
    }

    /// A venv as `python3 -m venv` leaves it, linked to `interpreter`.
    pub(crate) fn make_venv(&self, path: &str, minor: &str, interpreter: &str) {
        self.write(&format!("{path}/lib/python{minor}/site-packages/app.py"), "");
        self.write(
            &format!("{path}/pyvenv.cfg"),
            "home = /usr/bin\ninclude-system-site-packages = false\n",
        );
        self.relink(&format!("{path}/bin/python3"), interpreter);
        self.relink(&format!("{path}/bin/python"), "python3");
    }

    /// A file that holds apt's list with these actions.
    pub(crate) fn list(&self, actions: &[&str]) -> String {
        self.write("/list", &text(actions));
        self.at("/list").display().to_string()
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        self.start(arguments, Stdio::null())
    }

    /// Runs a command with this text as its standard input.
    pub(crate) fn input(&self, command: &str, text: &str, arguments: &[&str]) -> Said {
        let path = self.dir.path().join("input");
        fs::write(&path, text).unwrap();
        self.start(&[&[command], arguments].concat(), fs::File::open(path).unwrap().into())
    }

    /// Runs a command with this descriptor as its standard input.
    pub(crate) fn with_input(&self, arguments: &[&str], input: OwnedFd) -> Said {
        self.start(arguments, input.into())
    }

    pub(crate) fn hook(&self, moment: &str, actions: &[&str]) -> Said {
        self.hook_with(moment, &text(actions))
    }

    pub(crate) fn hook_with(&self, moment: &str, list: &str) -> Said {
        self.hook_in(&[], moment, list)
    }

    /// Runs a hook with these variables in its environment.
    pub(crate) fn hook_in(&self, variables: &[(&str, &str)], moment: &str, list: &str) -> Said {
        let path = self.dir.path().join("input");
        fs::write(&path, list).unwrap();
        let mut program = self.program(&["hook", moment]);
        let program = program.envs(variables.iter().copied());
        Said::of(&program.stdin(fs::File::open(path).unwrap()).output().unwrap())
    }

    /// Runs the program with these variables; without `--root` if the arguments begin with `--`.
    pub(crate) fn run_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Said {
        let mut program = match arguments {
            ["--", ..] => {
                let mut program = Command::new(env!("CARGO_BIN_EXE_venvguard"));
                program.args(arguments).env_clear();
                program
            }
            _ => self.program(arguments),
        };
        Said::of(&program.envs(variables.iter().copied()).output().unwrap())
    }

    /// Runs the program with its standard output redirected.
    pub(crate) fn run_into(&self, arguments: &[&str], output: Stdio) -> Said {
        let child = self.program(arguments).stdout(output).stderr(Stdio::piped()).spawn();
        Said::of(&child.unwrap().wait_with_output().unwrap())
    }

    fn start(&self, arguments: &[&str], input: Stdio) -> Said {
        Said::of(&self.program(arguments).stdin(input).output().unwrap())
    }

    fn program(&self, arguments: &[&str]) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_venvguard"));
        program.arg("--root").arg(self.at("/")).args(arguments).env_clear().stdin(Stdio::null());
        program
    }

    /// All files that venvguard keeps, with their content.
    pub(crate) fn state(&self) -> Vec<(PathBuf, String)> {
        let mut files = Vec::new();
        collect(&self.at("/var/lib/venvguard"), &mut files);
        files.sort();
        files
    }
}

fn collect(dir: &Path, files: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push((path.clone(), fs::read_to_string(&path).unwrap()));
        }
    }
}

fn text(actions: &[&str]) -> String {
    format!("VERSION 3\nAPT::Architecture=amd64\n\n{}\n", actions.join("\n"))
}

/// `3.11` of `3.11.2-6`.
fn minor(version: &str) -> &str {
    let end = version.match_indices('.').nth(1).unwrap().0;
    &version[..end]
}
