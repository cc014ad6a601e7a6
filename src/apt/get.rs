//! How apt-get is called.

use std::path::PathBuf;

use crate::host::Program;

/// apt-get with the machine's own configuration and lists, or with private ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct AptGet {
    /// Read after the machine's configuration.
    pub(super) configuration: Option<PathBuf>,
}

impl AptGet {
    /// A call that waits for no lock: an apt run may be in progress, and holds them.
    pub(super) fn call(&self, command: &str) -> Program {
        let mut program = Program::new("/usr/bin/apt-get");
        if let Some(file) = &self.configuration {
            program = program.arg("--config-file").arg(file);
        }
        program.arg(command).args(["-o", "Debug::NoLocking=1"])
    }
}
