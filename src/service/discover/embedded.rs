//! Programs of Debian that run Python within themselves: their module is built for the default
//! minor version, whatever their venv links to.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::process::Process;

/// A program that may run Python within itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Embeds {
    Apache,
    Uwsgi,
}

impl Process {
    /// The program of Debian that runs Python within this process, if it is one.
    pub(crate) fn embeds_python(&self) -> Option<Embeds> {
        let exe = &self.exe.as_ref()?.path;
        let is_systems = [Path::new("/usr/sbin"), Path::new("/usr/bin")]
            .iter()
            .any(|dir| exe.parent() == Some(dir));
        let name = exe.file_name().filter(|_| is_systems)?;
        match name.as_bytes() {
            b"apache2" | b"httpd" => Some(Embeds::Apache),
            _ if is_uwsgi(name) => Some(Embeds::Uwsgi),
            _ => None,
        }
    }

    /// Whether its program, or what it calls itself, is uWSGI: Debian's, or one in a venv.
    pub(super) fn calls_itself_uwsgi(&self) -> bool {
        let called = self.arguments.iter().take(2).map(Path::new);
        let all = called.chain(self.exe.as_ref().map(|exe| exe.path.as_path()));
        all.filter_map(Path::file_name).any(is_uwsgi)
    }
}

fn is_uwsgi(name: &OsStr) -> bool {
    name.as_bytes().windows(5).any(|part| part == b"uwsgi")
}
