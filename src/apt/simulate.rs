//! The actions of an upgrade that apt only simulates, for `venvguard plan`.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Action, AptGet, Transaction};
use crate::host::command::CommandError;

/// Enough for a simulated dist-upgrade of a large system on a slow disk.
const LIMIT: Duration = Duration::from_secs(180);

/// What `apt dist-upgrade` would do now.
pub(crate) fn pending_upgrade(apt: &AptGet) -> Result<Transaction, CommandError> {
    let said = apt.call("dist-upgrade").args(["--simulate", "-q"]).limit(LIMIT).run()?;
    Ok(simulated(&said.text()))
}

/// Reads what `apt-get --simulate` prints:
/// `Inst python3.13 [3.13.5-2] (3.13.5-2+deb13u5 Debian:13.2/stable [amd64])` and
/// `Remv python3.11 [3.11.2-6]`.
pub(super) fn simulated(output: &str) -> Transaction {
    let all: Vec<Action> = output.lines().filter_map(action).collect();
    let installed: BTreeSet<&str> =
        all.iter().filter(|one| one.unpacks).map(|one| one.package.as_str()).collect();
    // There is no archive in which to look for the same libraries under another name. Debian renames
    // most by this suffix; a package of another architecture has a colon in its name.
    let is_gone = |name: &str| !name.contains(':') && !installed.contains(&*format!("{name}t64"));
    let removed = all.iter().filter(|one| !one.unpacks && is_gone(&one.package));
    let removed = removed.map(|one| one.package.clone()).collect();
    let actions = all.into_iter().map(without_architecture).filter(Action::is_on_python).collect();
    Transaction { actions, removed, ..Transaction::default() }
}

fn without_architecture(action: Action) -> Action {
    let package = action.package.split(':').next().unwrap_or_default().to_string();
    Action { package, ..action }
}

fn action(line: &str) -> Option<Action> {
    let mut words = line.split(' ');
    let verb = words.next()?;
    let package = words.next()?.to_string();
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
    fn removals_are_read_unless_the_package_is_renamed() {
        let output = "Remv libpq5 [15.6-0+deb12u1]\nRemv libtiff5:i386 [4.5]\n\
            Remv libssl3 [3.0.15]\nInst libssl3t64 (3.5.1 Debian:13.2/stable [amd64])\n";
        assert_eq!(simulated(output).removed, BTreeSet::from(["libpq5".to_string()]));
    }

    #[test]
    fn installations_upgrades_and_removals_are_read() {
        let output = "NOTE: This is only a simulation!\n\
            Inst python3-minimal [3.11.2-1+b1] (3.13.5-1 Debian:13.2/stable [amd64]) []\n\
            Inst python3.13-minimal (3.13.5-2 Debian:13.2/stable [amd64])\n\
            Inst bash [5.2] (5.3 Debian:13.2/stable [amd64])\n\
            Conf python3-minimal (3.13.5-1 Debian:13.2/stable [amd64])\n\
            Remv python3.11 [3.11.2-6]\n";
        assert_eq!(simulated("Inst python3 (\u{1b}[2J Debian)\n").actions, []);
        let action = |package: &str, from: Option<&str>, to: Option<&str>| Action {
            package: package.into(),
            from: from.map(Into::into),
            to: to.map(Into::into),
            unpacks: to.is_some(),
        };
        assert_eq!(
            simulated(output).actions,
            [
                action("python3-minimal", Some("3.11.2-1+b1"), Some("3.13.5-1")),
                action("python3.13-minimal", None, Some("3.13.5-2")),
                action("python3.11", Some("3.11.2-6"), None),
            ]
        );
    }
}
