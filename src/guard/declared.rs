//! What is declared in files, beside what was registered by hand.

use std::collections::HashSet;

use super::Guard;
use crate::host::file::printable;
use crate::store::{Registry, StoreError};

impl Guard {
    /// The registry, with what is declared now. A file that cannot be read is told, and the
    /// venvs that it declared stay as they are.
    pub(crate) fn registry(&self) -> Result<Registry, StoreError> {
        let mut registry = self.store.registry()?;
        if self.root.user().is_some() {
            return Ok(registry);
        }
        let mut stay = HashSet::new();
        for declaration in self.store.declarations() {
            let declaration = match declaration {
                Ok(declaration) => declaration,
                Err((file, error)) => {
                    self.report.error(&format!("what it declares is left as it is: {error}"));
                    let venvs = registry.venvs.iter();
                    let its = venvs.filter(|entry| entry.declared_in() == Some(&file));
                    stay.extend(its.map(|entry| entry.id.clone()));
                    continue;
                }
            };
            for path in declaration.venvs(&self.root) {
                match registry.declare(&path, &declaration, self.config.policy) {
                    Ok(entry) => drop(stay.insert(entry.id.clone())),
                    Err(error) => self.report.error(&format!(
                        "{}: {} cannot be guarded: {error}",
                        printable(&declaration.file),
                        printable(&path)
                    )),
                }
            }
        }
        // What a repair has to do with is not forgotten.
        registry.venvs.retain(|entry| {
            let is_free = entry.previous_trees.is_empty() && !self.store.has_journal(&entry.id);
            entry.declared_in().is_none() || stay.contains(&entry.id) || !is_free
        });
        Ok(registry)
    }
}
