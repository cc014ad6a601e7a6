//! What a completion offers besides the words of the program itself.

use std::collections::BTreeSet;

use clap_complete::engine::CompletionCandidate;

use crate::host::Root;
use crate::store::{RegistryEntry, Store};

/// The names of the caller's venvs and of root's, which `sudo` is for.
pub(super) fn venvs() -> Vec<CompletionCandidate> {
    candidates(|entry| vec![entry.name.clone()])
}

/// The previous environments, as `rollback --to` takes them.
pub(super) fn previous_trees() -> Vec<CompletionCandidate> {
    candidates(|entry| {
        let names = entry.previous_trees.latest_first().filter_map(|one| one.path().file_name());
        names.map(|name| name.to_string_lossy().into_owned()).collect()
    })
}

fn candidates(of: impl Fn(&RegistryEntry) -> Vec<String>) -> Vec<CompletionCandidate> {
    let roots = [Root::of_caller("/"), Root::new("/")];
    let registries = roots.iter().filter_map(|root| Store::new(root).registry().ok());
    let found: BTreeSet<String> = registries
        .flat_map(|registry| registry.venvs.iter().flat_map(&of).collect::<Vec<_>>())
        .collect();
    found.into_iter().map(CompletionCandidate::new).collect()
}
