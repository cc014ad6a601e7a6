use rustix::fs::FileType;

use super::*;

/// A directory that stands for /proc, built process by process.
pub(in crate::service) struct FakeProc(pub(in crate::service) tempfile::TempDir);

impl FakeProc {
    pub(in crate::service) fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        machine.write("proc/1/cgroup", "0::/init.scope\n");
        machine.write("proc/uptime", "5000.12 9000.00\n");
        machine
    }

    pub(in crate::service) fn root(&self) -> Root {
        Root::new(self.0.path())
    }

    pub(in crate::service) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(in crate::service) fn link(&self, path: &str, target: &str) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
    }

    /// A process with its parent, cgroup, exe and command line.
    pub(in crate::service) fn process(
        &self,
        (pid, parent): (u32, u32),
        cgroup: &str,
        exe: &str,
        command: &str,
    ) {
        let stat = format!(
            "{pid} (a) b (x)) S {parent} 363 363 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 {} 1 2",
            4000 + pid
        );
        self.write(&format!("proc/{pid}/stat"), stat);
        self.write(&format!("proc/{pid}/status"), "Name:\tx\nUid:\t0\t33\t0\t0\nGid:\t0\n");
        self.write(&format!("proc/{pid}/cgroup"), format!("0::{cgroup}\n"));
        self.write(&format!("proc/{pid}/cmdline"), command.replace(' ', "\0") + "\0");
        self.link(&format!("proc/{pid}/exe"), exe);
    }
}

const PYTHON: &str = "/usr/bin/python3.13";

#[test]
fn a_process_that_cannot_be_inspected_delays_no_other() {
    let machine = FakeProc::new();
    for (pid, uid) in [(10, 33), (11, 1001), (12, 34), (13, 1001), (14, 0), (15, 0)] {
        machine.process((pid, 1), "/", PYTHON, "python3 x");
        machine.write(&format!("proc/{pid}/status"), format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n"));
    }
    // A FIFO that nobody writes to.
    for unreadable in ["proc/11/cmdline", "proc/14/cmdline"] {
        let path = machine.0.path().join(unreadable);
        std::fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, 0o600.into(), 0).unwrap();
    }
    let processes = Processes::look(&machine.root());
    let mut seen: Vec<u32> = processes.iter().map(|process| process.id.pid).collect();
    seen.sort_unstable();
    let rest: Vec<u32> = seen.iter().copied().filter(|pid| *pid != 13).collect();
    assert_eq!(rest, [10, 12, 15], "13 may have been read before 11");
    assert!(processes.gap().unwrap().contains("cannot inspect pid"));
}

#[test]
fn a_process_is_read_whole() {
    let machine = FakeProc::new();
    machine.process(
        (363, 1),
        "/system.slice/web.service",
        "/usr/bin/python3.13 (deleted)",
        "/opt/v/web/bin/python3 /opt/v/web/bin/gunicorn -w 2",
    );
    machine.write(
        "proc/363/environ",
        "PATH=/opt/v/web/bin:/usr/bin\0VIRTUAL_ENV=/opt/v/web\0PWD=/srv\0",
    );
    machine.link("proc/363/cwd", "/srv/web");
    machine.write(
        "proc/363/maps",
        "55d0-55d1 r--p 00000000 fe:00 123      /usr/bin/python3.13 (deleted)\n\
         55d1-55d2 r-xp 00001000 fe:00 123      /usr/bin/python3.13 (deleted)\n\
         55d2-55d3 rw-p 00000000 00:00 0        [heap]\n\
         7f00-7f01 r--p 00000000 fe:00 124      /usr/lib/x86_64-linux-gnu/libc.so.6\n\
         7f01-7f02 r--p 00000000 fe:00 125      /opt/my venv/lib/x.so\n\
         7f02-7f03 rw-s 00000000 00:01 126      /dev/zero (deleted)\n\
         7f03-7f04 rw-s 00000000 00:01 126      /memfd:x (deleted)\n",
    );
    let processes = Processes::look(&machine.root());
    let process = processes.get(363).unwrap();
    assert_eq!(process.id, ProcessId { pid: 363, started: 4363 });
    assert_eq!((process.parent, process.uid), (1, 33));
    assert_eq!(process.place, CgroupOwner::Unit("web.service".into()));
    assert_eq!(process.exe, Some(MappedFile { path: PYTHON.into(), deleted: true }));
    assert_eq!(process.virtual_env.as_deref(), Some(Path::new("/opt/v/web")));
    assert_eq!(process.dirs, ["/srv/web", "/srv"].map(PathBuf::from));
    let mapped = [(PYTHON, true), ("/opt/my venv/lib/x.so", false)];
    assert_eq!(
        process.mapped,
        mapped.map(|(path, deleted)| MappedFile { path: path.into(), deleted })
    );
    assert_eq!(process.describe(), "pid 363 (/opt/v/web/bin/python3 /opt/v/web/bin/gunicorn …)");
    assert_eq!(processes.age(process), Duration::from_millis(5_000_120 - 43_630));
}

#[test]
fn kernel_threads_and_ended_processes_are_skipped() {
    let machine = FakeProc::new();
    machine
        .write("proc/2/stat", "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 3 0 0");
    machine.write("proc/2/status", "Uid:\t0\t0\t0\t0\n");
    machine.write("proc/9/stat", "9 (python3) Z 1 9 9 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 3 0 0");
    machine.write("proc/9/status", "Uid:\t0\t0\t0\t0\n");
    machine.write("proc/10/stat", "garbage");
    assert_eq!(Processes::look(&machine.root()).iter().count(), 0);
}

#[test]
fn a_process_with_another_root_is_not_ours() {
    let machine = FakeProc::new();
    for pid in [5, 6] {
        machine.process((pid, 1), "/", PYTHON, "python3");
    }
    machine.link("proc/5/root", "/usr");
    machine.link("proc/6/root", machine.0.path().to_str().unwrap());
    let processes = Processes::look(&machine.root());
    assert!(processes.get(5).is_none() && processes.get(6).is_some());
}

#[test]
fn a_survivor_is_the_same_process_and_not_the_same_pid() {
    let machine = FakeProc::new();
    machine.process((5, 1), "/", PYTHON, "python3");
    machine.process((6, 1), "/", PYTHON, "python3");
    machine.process((7, 1), "/", PYTHON, "python3");
    let root = machine.root();
    let before = Processes::look(&root);
    let ids: Vec<_> = before.iter().map(|process| process.id).collect();
    let later = "5 (x) S 1 5 5 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 99999 1 2";
    machine.write("proc/5/stat", later);
    std::fs::remove_dir_all(machine.0.path().join("proc/6")).unwrap();
    let left = await_gone(&root, &ids, Duration::ZERO);
    assert_eq!(left, [ProcessId { pid: 7, started: 4007 }]);
}

#[test]
fn hostile_processes_are_read_without_harm() {
    let machine = FakeProc::new();
    machine.process((5, 5), "/", "/home/bob/python3 (deleted)", "\u{1b}[2Jpython3 \n");
    machine.write("proc/5/cmdline", vec![b'a'; 1 << 20]);
    machine.write("proc/5/maps", "///\n/ (deleted)\nx\n\u{0}");
    machine.write("proc/5/environ", vec![b'='; 1 << 20]);
    let processes = Processes::look(&machine.root());
    let process = processes.get(5).unwrap();
    assert_eq!(process.arguments[0].len() as u64, ARGUMENTS_LIMIT);
    assert!(!process.describe().contains('\u{1b}') && process.describe().len() < 200);
    assert_eq!(processes.lineage(process).count(), 64, "its own parent: the walk ends");
}
