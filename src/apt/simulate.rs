//! The actions of an upgrade that apt only simulates, for `venvguard plan`.

use std::time::Duration;

use super::protocol::is_package_name;
use super::{Action, AptGet, concerns_python};
use crate::host::command::CommandError;
use crate::python::is_debian_version;

/// Enough for a simulated dist-upgrade of a large system on a slow disk.
const LIMIT: Duration = Duration::from_secs(180);

/// What `apt dist-upgrade` would do now.
pub(crate) fn pending_upgrade(apt: &AptGet) -> Result<Vec<Action>, CommandError> {
    let said = apt.call("dist-upgrade").args(["--simulate", "-q"]).limit(LIMIT).run()?;
    Ok(simulated(&said.text()))
}

/// Reads what `apt-get --simulate` prints:
/// `Inst python3.13 [3.13.5-2] (3.13.5-2+deb13u5 Debian:13.2/stable [amd64])` and
/// `Remv python3.11 [3.11.2-6]`.
pub(super) fn simulated(output: &str) -> Vec<Action> {
    output
        .lines()
        .filter_map(action)
        .filter(|action| concerns_python(action.package.as_bytes()))
        .filter(|action| is_package_name(&action.package))
        .filter(|action| action.from.iter().chain(&action.to).all(|text| is_debian_version(text)))
        .collect()
}

fn action(line: &str) -> Option<Action> {
    let mut words = line.split(' ');
    let verb = words.next()?;
    let package = words.next()?.split(':').next()?.to_string();
    let mut from = None;
    let mut to = None;
    for word in words {
        if let Some(version) = word.strip_prefix('[').and_then(|word| word.strip_suffix(']')) {
            // A second pair of brackets names an architecture or temporarily broken packages.
            from = from.or(if to.is_none() { Some(version.to_string()) } else { None });
        } else if let Some(version) = word.strip_prefix('(') {
            to = to.or(Some(version.to_string()));
        }
    }
    match verb {
        "Inst" => Some(Action { package, from, to: Some(to?), unpacks: true }),
        "Remv" | "Purg" => Some(Action { package, from, to: None, unpacks: false }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installations_upgrades_and_removals_are_read() {
        let output = "NOTE: This is only a simulation!\n\
            Inst python3-minimal [3.11.2-1+b1] (3.13.5-1 Debian:13.2/stable [amd64]) []\n\
            Inst python3.13-minimal (3.13.5-2 Debian:13.2/stable [amd64])\n\
            Inst bash [5.2] (5.3 Debian:13.2/stable [amd64])\n\
            Conf python3-minimal (3.13.5-1 Debian:13.2/stable [amd64])\n\
            Remv python3.11 [3.11.2-6]\n";
        assert_eq!(simulated("Inst python3 (\u{1b}[2J Debian)\n"), []);
        let action = |package: &str, from: Option<&str>, to: Option<&str>| Action {
            package: package.into(),
            from: from.map(Into::into),
            to: to.map(Into::into),
            unpacks: to.is_some(),
        };
        assert_eq!(
            simulated(output),
            [
                action("python3-minimal", Some("3.11.2-1+b1"), Some("3.13.5-1")),
                action("python3.13-minimal", None, Some("3.13.5-2")),
                action("python3.11", Some("3.11.2-6"), None),
            ]
        );
    }
}
