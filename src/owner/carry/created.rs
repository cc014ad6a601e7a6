//! What the creator of a venv writes, but the creator of the other tree does not: virtualenv's
//! `activate_this.py`, for example, which applications execute.

use std::path::Path;

use super::{Work, stat};
use crate::owner::copy::Copier;
use crate::venv;

impl Work<'_> {
    pub(super) fn created(&mut self, copier: &mut Copier) -> std::io::Result<()> {
        let entries = self.from.dir("bin").and_then(|bin| bin.entries()).unwrap_or_default();
        let in_bin = |name: &Path| Path::new("bin").join(name);
        for entry in entries.into_iter().filter(|entry| entry.kind.is_file()) {
            let path = in_bin(Path::new(&entry.name));
            let done = if venv::is_creators_script(&entry.name) {
                self.script(copier, &path)
            } else if let Some((program, alias)) = self.alias(&entry.name) {
                self.second_name(&in_bin(program.as_ref()), &in_bin(alias.as_ref()))
            } else {
                Ok(())
            };
            if let Err(error) = done {
                self.failed(&path, &error)?;
            }
        }
        Ok(())
    }

    /// A script that the other tree lacks, for the library of the other tree.
    fn script(&self, copier: &mut Copier, path: &Path) -> std::io::Result<()> {
        if stat(self.to, path).is_ok() {
            return Ok(());
        }
        let adapted = self.adapted(path, &stat(self.from, path)?);
        copier.copy(path, path, false, adapted.instead.as_ref())
    }

    /// virtualenv gives pip more names than pip itself does: `pip-3.11`.
    fn alias(&self, name: &std::ffi::OsStr) -> Option<(String, String)> {
        let (name, old) = (name.to_str()?, self.task.from.site.to_string());
        let program = name.strip_suffix(&old)?.trim_end_matches('-');
        let is_seed = ["pip", "wheel", "easy_install"].contains(&program);
        let alias = name.replace(&old, &self.task.minor.to_string());
        is_seed.then(|| (program.to_string(), alias))
    }

    fn second_name(&self, program: &Path, alias: &Path) -> std::io::Result<()> {
        if stat(self.to, program).is_err() || stat(self.to, alias).is_ok() {
            return Ok(());
        }
        Copier::new(self.to, self.to, !self.task.is_ahead()).copy(program, alias, false, None)
    }
}
