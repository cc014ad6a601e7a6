//! Checks whether and when apt and dpkg call venvguard.

use super::Finding;
use crate::apt::{Hold, Hooks, marks};
use crate::host::Root;
use crate::host::access::{Access, Trusted};

const SNIPPET: &str = "/etc/apt/apt.conf.d/50venvguard";

pub(super) fn findings(root: &Root) -> Vec<Finding> {
    // A directory that stands for a system has no apt of its own to ask.
    if !root.is_system() {
        return Vec::new();
    }
    let mut findings = match Hooks::configured() {
        Ok(hooks) => of_hooks(&hooks),
        Err(error) => vec![Finding::fault(
            format!("cannot read apt's configuration: {error}"),
            "fix what `apt-config dump` complains about",
        )],
    };
    findings.extend(of_program());
    findings.extend(of_trigger(root));
    findings.extend(of_holds());
    findings.extend(of_our_hold(root));
    findings
}

fn of_hooks(hooks: &Hooks) -> Vec<Finding> {
    let mut findings: Vec<Finding> = hooks
        .missing()
        .map(|(event, when)| {
            Finding::fault(
                format!("apt does not call venvguard {when} ({event}): nothing is guarded"),
                format!("`venvguard generate apt-hook >{SNIPPET}`"),
            )
        })
        .collect();
    let place = |name: &str| hooks.place("DPkg::Post-Invoke", name);
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

/// Root runs the program, so nobody else may change it.
fn of_program() -> Option<Finding> {
    let path = "/usr/sbin/venvguard";
    let Ok(access) = std::fs::File::open(path).and_then(|program| Access::of(&program)) else {
        return Some(Finding::fault(
            format!("{path}, which apt calls, does not exist"),
            "reinstall the package",
        ));
    };
    access.writer(Trusted::ROOT_ALONE).map(|_| {
        Finding::fault(
            format!("users other than root can change {path}, which root runs"),
            format!("`chown root:root {path} && chmod 755 {path}`"),
        )
    })
}

/// The trigger by which dpkg notifies venvguard of upgrades made without apt.
fn of_trigger(root: &Root) -> Option<Finding> {
    let triggers =
        std::fs::read_to_string(root.at("/var/lib/dpkg/triggers/File")).unwrap_or_default();
    let is_there =
        triggers.lines().any(|line| line.ends_with(" venvguard") || line.contains(" venvguard/"));
    (!is_there).then(|| {
        Finding::note(
            "dpkg does not notify venvguard of upgrades made without apt (venvguard is not installed as a package)",
        )
    })
}

fn of_holds() -> Option<Finding> {
    let mut held = marks::held().ok()?;
    held.retain(|name| name.contains("python3"));
    (!held.is_empty()).then(|| {
        Finding::note(format!("packages on hold, which no upgrade changes: {}", held.join(" ")))
    })
}

/// Our own hold, which keeps security updates back, too.
fn of_our_hold(root: &Root) -> Option<Finding> {
    match Hold::read(root) {
        Ok(hold) => hold.map(|hold| {
            let (since, packages) = (hold.since, hold.packages.join(" "));
            Finding::note(format!(
                "Python has received no updates since {since:.0}, security updates included: `venvguard hold` holds {packages}"
            ))
        }),
        Err(error) => Some(Finding::fault(error.to_string(), "move that file away")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hooks(post: &[&str]) -> Hooks {
        let hook = |line: &str| format!("DPkg::Post-Invoke:: \"{line}\";\n");
        let before = "DPkg::Pre-Invoke:: \"x /usr/sbin/venvguard hook pre-invoke || true\";\n\
         DPkg::Pre-Install-Pkgs:: \"/usr/sbin/venvguard hook pre-install\";\n";
        let after: String = post.iter().map(|line| hook(line)).collect();
        Hooks::of_dump(&format!("{before}{after}"))
    }

    #[test]
    fn missing_and_late_hooks_are_found() {
        let (ours, theirs) = ("/usr/sbin/venvguard hook post-invoke", "/usr/lib/needrestart/x");
        assert_eq!(of_hooks(&hooks(&[ours])), []);
        assert_eq!(of_hooks(&hooks(&[ours, theirs])), []);
        let [late] = &of_hooks(&hooks(&[theirs, ours]))[..] else { panic!() };
        assert!(late.what.contains("before venvguard"), "{late:?}");
        let [gone] = &of_hooks(&hooks(&[theirs]))[..] else { panic!() };
        assert!(gone.what.contains("after dpkg"), "{gone:?}");
        assert_eq!(of_hooks(&Hooks::default()).len(), 3);
    }
}
