//! What keeps a service of this machine from being restarted unasked: `policy-rc.d`, which
//! packages' own scripts obey as well, and the settings of needrestart.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::Service;
use super::needrestart::Rules;
use crate::host::{Program, Root};

/// The administrator's program that says which services packages may start and stop.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// How long it, and logind, may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Its exit status for "do not" (`invoke-rc.d(8)`).
const FORBIDDEN: i32 = 101;

/// The restraints of a machine at one moment.
#[derive(Debug)]
pub(crate) struct Restraints<'a> {
    root: &'a Root,
    rules: Rules,
    has_policy: bool,
}

impl<'a> Restraints<'a> {
    pub(crate) fn look(root: &'a Root) -> Self {
        // They are about the system's services.
        if root.user().is_some() {
            return Self { root, rules: Rules::default(), has_policy: false };
        }
        let policy = root.at(POLICY).metadata();
        let is_program = |it: std::fs::Metadata| it.is_file() && it.permissions().mode() & 1 != 0;
        Self { root, rules: Rules::read(root), has_policy: policy.is_ok_and(is_program) }
    }

    /// Why this service must not be restarted unasked.
    pub(crate) fn on(&self, service: &Service) -> Option<String> {
        if self.has_policy && self.is_forbidden(service.name()) {
            return Some(format!("{POLICY} forbids it"));
        }
        let excludes = service.manager_key() == "systemd" && self.rules.exclude(service.name());
        excludes.then(|| "the configuration of needrestart excludes it".to_string())
    }

    /// Asks as `deb-systemd-invoke` does. A policy that fails forbids nothing.
    fn is_forbidden(&self, name: &str) -> bool {
        let program = Program::new(self.root.at(POLICY)).args([name, "restart"]);
        let finished = program.read_only().limit(LIMIT).finish();
        finished.is_ok_and(|finished| finished.status.code() == Some(FORBIDDEN))
    }
}

/// Whether the machine shuts down, or logind prepares for that: services are about to stop, and
/// systemd refuses to start them.
pub(crate) fn is_shutting_down(root: &Root) -> bool {
    if !root.runs_systemd() {
        return false;
    }
    let logind = ["org.freedesktop.login1", "/org/freedesktop/login1"];
    let answer = Program::named(root, "busctl")
        .arg("get-property")
        .args(logind)
        .args(["org.freedesktop.login1.Manager", "PreparingForShutdown"])
        .read_only()
        .limit(LIMIT)
        .run();
    let state = || Program::named(root, "systemctl").arg("is-system-running").read_only();
    let is_stopping =
        || state().limit(LIMIT).finish().is_ok_and(|it| it.text().trim() == "stopping");
    answer.is_ok_and(|answer| answer.text().trim() == "b true") || is_stopping()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root with a program that ends in this way.
    fn machine(path: &str, script: &str) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for path in ["usr/sbin", "usr/bin", "run/systemd/system"] {
            std::fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        std::fs::write(dir.path().join("script"), format!("#!/bin/sh\n{script}\n")).unwrap();
        // Written by another process: a file that a thread of ours holds open cannot be run.
        let install = Program::new("/usr/bin/install").arg("-m755");
        install.args([dir.path().join("script"), dir.path().join(path)]).run().unwrap();
        let root = Root::new(dir.path());
        (dir, root)
    }

    fn on(root: &Root, service: &str) -> Option<String> {
        Restraints::look(root).on(&service.parse().unwrap())
    }

    #[test]
    fn a_policy_forbids_what_it_answers_101_to() {
        let script = "[ \"$1 $2\" = 'web.service restart' ] && exit 101; exit 104";
        let (_dir, root) = machine("usr/sbin/policy-rc.d", script);
        assert_eq!(on(&root, "systemd:web").unwrap(), "/usr/sbin/policy-rc.d forbids it");
        assert_eq!(on(&root, "systemd:db"), None);
        let (_dir, root) = machine("usr/sbin/policy-rc.d", "exit 1");
        assert_eq!(on(&root, "systemd:web"), None, "it failed");
        let (dir, root) = machine("usr/sbin/policy-rc.d", "exit 101");
        assert!(on(&root, "runit:web").is_some());
        std::fs::remove_file(dir.path().join("usr/sbin/policy-rc.d")).unwrap();
        assert_eq!(on(&root, "systemd:web"), None);
    }

    #[test]
    fn what_needrestart_leaves_alone_is_not_restarted_either() {
        let (dir, root) = machine("usr/bin/x", "");
        std::fs::create_dir_all(dir.path().join("etc/needrestart")).unwrap();
        let text = "$nrconf{override_rc} = { qr(^web) => 0 };\n";
        std::fs::write(dir.path().join("etc/needrestart/needrestart.conf"), text).unwrap();
        assert!(on(&root, "systemd:web").unwrap().contains("needrestart"));
        assert_eq!(on(&root, "systemd:db"), None);
        assert_eq!(on(&root, "runit:web"), None, "needrestart knows units only");
    }

    #[test]
    fn logind_says_whether_the_machine_shuts_down() {
        for (answer, expected) in [("b true", true), ("b false", false), ("", false)] {
            let (_dir, root) = machine("usr/bin/busctl", &format!("echo '{answer}'"));
            assert_eq!(is_shutting_down(&root), expected, "{answer}");
        }
        let (_dir, root) = machine("usr/bin/busctl", "echo b true; exit 1");
        assert!(!is_shutting_down(&root));
        let (_dir, root) = machine("usr/bin/systemctl", "echo stopping; exit 1");
        assert!(is_shutting_down(&root), "logind has ended");
    }
}
