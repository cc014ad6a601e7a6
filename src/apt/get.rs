//! How apt-get is called.

use std::path::PathBuf;

use crate::host::Program;

/// apt-get with the machine's own configuration and lists, or with private ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct AptGet {
    /// Read after the machine's configuration.
    pub(super) configuration: Option<PathBuf>,
    /// The release that candidates come from, instead of the machine's (`-t`).
    pub(super) default_release: Option<String>,
}

impl AptGet {
    /// A call that waits for no lock: an apt run may be in progress, and holds them.
    pub(super) fn call(&self, command: &str) -> Program {
        let mut program = Program::new("/usr/bin/apt-get");
        if let Some(file) = &self.configuration {
            program = program.arg("--config-file").arg(file);
        }
        if let Some(release) = &self.default_release {
            program = program.arg("-o").arg(format!("APT::Default-Release={release}"));
        }
        program.arg(command).args(["-o", "Debug::NoLocking=1"])
    }
}
