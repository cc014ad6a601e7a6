//! The hooks in apt's configuration.

use crate::host::Program;
use crate::host::command::CommandError;

/// The events at which apt must call venvguard, each with the command and, in words, the moment.
const CALLS: [(&str, &str, &str); 3] = [
    ("DPkg::Pre-Invoke", "venvguard hook pre-invoke", "before dpkg"),
    ("DPkg::Pre-Install-Pkgs", "venvguard hook pre-install", "with its list of packages"),
    ("DPkg::Post-Invoke", "venvguard hook post-invoke", "after dpkg"),
];

/// The commands that apt calls at its events, in order.
#[derive(Debug, Default)]
pub(crate) struct Hooks {
    dump: String,
}

impl Hooks {
    pub(crate) fn configured() -> Result<Self, CommandError> {
        let finished = Program::new("/usr/bin/apt-config").arg("dump").read_only().run()?;
        Ok(Self::of_dump(&finished.text()))
    }

    /// `apt-config dump` has a line for each hook, in the order in which apt calls them.
    pub(crate) fn of_dump(dump: &str) -> Self {
        Self { dump: dump.to_string() }
    }

    /// The events at which apt does not call venvguard, and the moments in words.
    pub(crate) fn missing(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let missing =
            CALLS.iter().filter(|(event, command, _)| self.place(event, command).is_none());
        missing.map(|(event, _, moment)| (*event, *moment))
    }

    /// The position, among an event's hooks, of the first one that contains a command.
    pub(crate) fn place(&self, event: &str, command: &str) -> Option<usize> {
        let prefix = format!("{event}::");
        let mut hooks = self.dump.lines().filter(|line| line.starts_with(&prefix));
        hooks.position(|hook| hook.contains(command))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_has_a_position_among_those_of_its_event() {
        let hooks = Hooks::of_dump(
            "APT::Architecture \"amd64\";\nDPkg::Post-Invoke \"\";\n\
             DPkg::Pre-Invoke:: \"one\";\nDPkg::Post-Invoke:: \"two\";\n\
             DPkg::Post-Invoke:: \"three\";\nDPkg::Post-Invoke:: \"three again\";\n",
        );
        let place = |command| hooks.place("DPkg::Post-Invoke", command);
        assert_eq!(["one", "two", "three", "DPkg"].map(place), [None, Some(0), Some(1), Some(0)]);
        assert_eq!(Hooks::default().place("DPkg::Post-Invoke", ""), None);
    }
}
