//! The hooks in apt's configuration.

use crate::host::Program;
use crate::host::command::CommandError;

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
