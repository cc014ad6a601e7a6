//! Finds the venvs below some directories.

use std::path::PathBuf;

use super::{AskError, Guard};
use crate::host::file::printable;
use crate::host::root::normal;
use crate::host::user;
use crate::repair;
use crate::store::{Registry, RegistryEntry, StoreError};
use crate::venv::{self, Venv};

/// A venv that was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) venv: Venv,
    pub(crate) is_registered: bool,
}

impl Guard {
    /// The venvs below some directories, or where venvs usually are.
    pub(crate) fn scan(&self, dirs: &[PathBuf]) -> Result<Vec<Found>, AskError> {
        Ok(found(&self.registry()?, self.venvs_below(dirs)?))
    }

    /// The same, and registers the venvs that can be guarded. Reports those that cannot be
    /// registered.
    pub(crate) fn scan_and_register(&self, dirs: &[PathBuf]) -> Result<Vec<Found>, AskError> {
        self.require_root()?;
        self.require_allowed()?;
        let _lock = self.lock()?;
        let mut registry = self.registry()?;
        let venvs = self.venvs_below(dirs)?;
        let is_own = |venv: &Venv| self.root.user().is_none_or(|uid| uid == venv.uid);
        for venv in venvs.iter().filter(|venv| venv.base.is_debian && is_own(venv)) {
            self.register_found(&mut registry, venv)?;
        }
        self.save_registered(&registry)?;
        Ok(found(&registry, venvs))
    }

    fn venvs_below(&self, dirs: &[PathBuf]) -> Result<Vec<Venv>, AskError> {
        let mut named = Vec::new();
        for dir in dirs {
            let path = self.path_from_here(dir).map(|path| normal(&path));
            let readable = path.and_then(|path| {
                std::fs::read_dir(self.root.at(&path))?;
                Ok(path)
            });
            let not_scanned = |source| AskError::NotScanned { path: dir.clone(), source };
            named.push(readable.map_err(not_scanned)?);
        }
        // An ordinary user's venvs are in their home.
        let home = self.root.user().map(|uid| vec![user::own_home(&self.root, uid)]);
        let dirs = home.as_ref().filter(|_| dirs.is_empty()).unwrap_or(&named);
        let found = venv::scan(&self.root, dirs).found.into_iter();
        let venvs = found.filter_map(|one| venv::inspect(&self.root, &one.path).ok());
        Ok(venvs.filter(|venv| !repair::is_ours_to_keep(&venv.path)).collect())
    }

    fn register_found(&self, registry: &mut Registry, venv: &Venv) -> Result<(), StoreError> {
        let entry = match registry.add(&venv.path, None, self.config.policy) {
            Ok(entry) => entry,
            Err(error) => {
                let path = printable(&venv.path);
                self.report.error(&format!("cannot register {path}: {error}"));
                return Ok(());
            }
        };
        repair::keep_recipe(&self.context(), entry, venv)?;
        self.note_package(&entry.name, venv);
        for reason in repair::not_exact(&self.context(), entry, venv) {
            self.report.note(&format!("{}: {reason}", entry.name));
        }
        Ok(())
    }
}

fn found(registry: &Registry, venvs: Vec<Venv>) -> Vec<Found> {
    let known: std::collections::HashSet<_> =
        registry.venvs.iter().map(RegistryEntry::path).collect();
    let found = |venv: Venv| Found { is_registered: known.contains(venv.path.as_path()), venv };
    venvs.into_iter().map(found).collect()
}
