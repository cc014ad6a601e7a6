//! Adds the venvs declared in files to those registered by hand.

use std::collections::HashSet;

use crate::host::file::printable;
use crate::repair::Context;
use crate::store::{Registry, StoreError};

/// The registry, with the venvs that are declared now. A file that cannot be read is reported,
/// and the venvs that it declared before stay registered.
pub(crate) fn registry(context: &Context) -> Result<Registry, StoreError> {
    let Context { root, store, config, report } = *context;
    let mut registry = store.registry()?;
    if root.user().is_some() {
        return Ok(registry);
    }
    let mut stay = HashSet::new();
    for declaration in store.declarations() {
        let declaration = match declaration {
            Ok(declaration) => declaration,
            Err((file, error)) => {
                report.error(&format!(
                    "cannot read a declaration, so its venvs stay registered as before: {error}"
                ));
                let venvs = registry.venvs.iter();
                let its = venvs.filter(|entry| entry.declared_in() == Some(&file));
                stay.extend(its.map(|entry| entry.id.clone()));
                continue;
            }
        };
        for path in declaration.venvs(root) {
            match registry.declare(&path, &declaration, config.policy) {
                Ok(entry) => drop(stay.insert(entry.id.clone())),
                Err(error) => report.error(&format!(
                    "{}: {} cannot be guarded: {error}",
                    printable(&declaration.file),
                    printable(&path)
                )),
            }
        }
    }
    // Keep venvs that a repair is still concerned with.
    registry.venvs.retain(|entry| {
        let is_free = entry.previous_trees.is_empty()
            && !store.has_journal(&entry.id)
            && !store.has_prepared(&entry.id);
        entry.declared_in().is_none() || stay.contains(&entry.id) || !is_free
    });
    Ok(registry)
}
