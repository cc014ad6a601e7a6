//! Programs of Debian that run Python within themselves: their module is built for one minor
//! version, whatever their venv links to. The package of `mod_wsgi`'s module allows only that one as the
//! default, so an upgrade brings a new module. That of uWSGI's allows any, and an upgrade may leave it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::process::Process;
use crate::host::Root;
use crate::python::Minor;

/// The links to the modules that are in use: to `mod_wsgi.so-3.13`, and to `python313_plugin.so`.
const APACHE: &str = "/usr/lib/apache2/modules/mod_wsgi.so";
const UWSGI: &str = "/usr/lib/uwsgi/plugins/python3_plugin.so";

/// A program that runs the code of a venv within itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Embedding {
    pub(crate) program: PathBuf,
    /// The minor version that its module is built for, if that is known.
    pub(crate) module: Option<Minor>,
}

/// A program that may run Python within itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Embeds {
    Apache,
    Uwsgi,
}

impl Embeds {
    /// The minor version that the installed module is built for.
    fn module(self, root: &Root) -> Option<Minor> {
        let link = match self {
            Self::Apache => APACHE,
            Self::Uwsgi => UWSGI,
        };
        let module = fs::read_link(root.at(link)).ok()?;
        let name = module.file_name()?.to_str()?;
        match self {
            Self::Apache => name.rsplit_once('-')?.1.parse().ok(),
            Self::Uwsgi => {
                let digits = name.strip_prefix("python")?.split('_').next()?;
                let (major, minor) = digits.split_at_checked(1)?;
                format!("{major}.{minor}").parse().ok()
            }
        }
    }
}

impl Process {
    /// The program of Debian that runs Python within this process, and what its module is for.
    pub(crate) fn embedding(&self, root: &Root) -> Option<Embedding> {
        let (embeds, exe) = (self.embeds_python()?, self.exe.as_ref()?);
        Some(Embedding { program: exe.path.clone(), module: embeds.module(root) })
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_to_a_module_says_which_python_it_is_for() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        for (embeds, link, module, minor) in [
            (Embeds::Apache, APACHE, "mod_wsgi.so-3.13", Some(Minor::new(3, 13))),
            (Embeds::Uwsgi, UWSGI, "python39_plugin.so", Some(Minor::new(3, 9))),
            (
                Embeds::Uwsgi,
                UWSGI,
                "/usr/lib/uwsgi/plugins/python314_plugin.so",
                Some(Minor::new(3, 14)),
            ),
            (Embeds::Apache, APACHE, "mod_wsgi.so", None),
            (Embeds::Uwsgi, UWSGI, "python_plugin.so", None),
        ] {
            let link = root.at(link);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(module, &link).unwrap();
            assert_eq!(embeds.module(&root), minor, "{module}");
        }
        assert_eq!(Embeds::Apache.module(&Root::new("/nonexistent")), None);
    }
}
