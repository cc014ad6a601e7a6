//! Whether apt and dpkg call venvguard, and when.

use super::Finding;
use crate::host::Program;
use crate::host::Root;
use crate::host::access::{Access, Trusted};

/// What apt is to call, at which event.
const HOOKS: [(&str, &str, &str); 3] = [
    ("DPkg::Pre-Invoke", "venvguard hook pre-invoke", "before dpkg"),
    ("DPkg::Pre-Install-Pkgs", "venvguard hook pre-install", "with its list of packages"),
    ("DPkg::Post-Invoke", "venvguard hook post-invoke", "after dpkg"),
];

const SNIPPET: &str = "/etc/apt/apt.conf.d/50venvguard";

pub(super) fn findings(root: &Root) -> Vec<Finding> {
    // A directory that stands for a system has no apt of its own to ask.
    if !root.is_system() {
        return Vec::new();
    }
    let mut findings = match Program::new("/usr/bin/apt-config").arg("dump").read_only().run() {
        Ok(finished) => of_configuration(&finished.text()),
        Err(error) => vec![Finding::fault(
            format!("apt's configuration cannot be read: {error}"),
            "mend what `apt-config dump` complains about",
        )],
    };
    findings.extend(of_program());
    findings.extend(of_trigger(root));
    findings.extend(of_holds());
    findings
}

/// `apt-config dump` has a line for each hook, in the order in which they are called.
fn of_configuration(dump: &str) -> Vec<Finding> {
    let hooks = |event: &str| -> Vec<String> {
        let prefix = format!("{event}::");
        let lines = dump.lines().filter(|line| line.starts_with(&prefix));
        lines.map(str::to_string).collect()
    };
    let mut findings: Vec<Finding> = HOOKS
        .iter()
        .filter(|(event, command, _)| !hooks(event).iter().any(|hook| hook.contains(command)))
        .map(|(event, _, when)| {
            Finding::fault(
                format!("apt does not call venvguard {when} ({event}): nothing is guarded"),
                format!("`venvguard generate apt-hook >{SNIPPET}`"),
            )
        })
        .collect();
    let after = hooks("DPkg::Post-Invoke");
    let place = |name: &str| after.iter().position(|hook| hook.contains(name));
    if let (Some(ours), Some(theirs)) = (place("venvguard"), place("needrestart")) {
        if theirs < ours {
            findings.push(Finding::fault(
                "needrestart restarts services before venvguard has repaired their venvs",
                "`mv $(grep -l lib/needrestart /etc/apt/apt.conf.d/*) /etc/apt/apt.conf.d/99needrestart`",
            ));
        }
    }
    findings
}

/// Root runs it: nobody else may change it.
fn of_program() -> Option<Finding> {
    let path = "/usr/sbin/venvguard";
    let Ok(access) = std::fs::File::open(path).and_then(|program| Access::of(&program)) else {
        return Some(Finding::fault(
            format!("{path}, which apt calls, is not there"),
            "install the package again",
        ));
    };
    access.writer(Trusted::ROOT_ALONE).map(|_| {
        Finding::fault(
            format!("others than root can change {path}, which root runs"),
            format!("`chown root:root {path} && chmod 755 {path}`"),
        )
    })
}

/// What lets dpkg tell of an upgrade that apt did not make.
fn of_trigger(root: &Root) -> Option<Finding> {
    let triggers =
        std::fs::read_to_string(root.at("/var/lib/dpkg/triggers/File")).unwrap_or_default();
    let is_there =
        triggers.lines().any(|line| line.ends_with(" venvguard") || line.contains(" venvguard/"));
    (!is_there).then(|| {
        Finding::note(
            "dpkg does not tell venvguard of an upgrade that was made without apt (it is not installed as a package)",
        )
    })
}

fn of_holds() -> Option<Finding> {
    let held = Program::new("/usr/bin/apt-mark").arg("showhold").read_only().run().ok()?.text();
    let held: Vec<&str> = held.lines().filter(|name| name.contains("python3")).collect();
    (!held.is_empty()).then(|| {
        Finding::note(format!("on hold, so that no upgrade changes it: {}", held.join(" ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(post: &[&str]) -> String {
        let hook = |line: &str| format!("DPkg::Post-Invoke:: \"{line}\";\n");
        "DPkg::Pre-Invoke:: \"x /usr/sbin/venvguard hook pre-invoke || true\";\n\
         DPkg::Pre-Install-Pkgs:: \"/usr/sbin/venvguard hook pre-install\";\n"
            .to_string()
            + &post.iter().map(|line| hook(line)).collect::<String>()
    }

    #[test]
    fn hooks_that_are_not_there_or_come_late_are_found() {
        let (ours, theirs) = ("/usr/sbin/venvguard hook post-invoke", "/usr/lib/needrestart/x");
        assert_eq!(of_configuration(&dump(&[ours])), []);
        assert_eq!(of_configuration(&dump(&[ours, theirs])), []);
        let [late] = &of_configuration(&dump(&[theirs, ours]))[..] else { panic!() };
        assert!(late.what.contains("before venvguard"), "{late:?}");
        let [gone] = &of_configuration(&dump(&[theirs]))[..] else { panic!() };
        assert!(gone.what.contains("after dpkg"), "{gone:?}");
        assert_eq!(of_configuration("").len(), 3);
    }
}
