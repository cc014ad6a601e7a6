//! Finds the registered venvs that the words of a command stand for.

use std::io;

use crate::host::root::normal;
use crate::host::spelling::nearest;
use crate::store::{Registry, RegistryEntry};

/// Why the words do not name registered venvs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChoiceError {
    #[error("no registered venv has the name or path {word:?} {hint}", hint = hint(.meant.as_ref()))]
    Nothing { word: String, meant: Option<String> },
    #[error("{word:?} is not a name, path or glob: {error}")]
    Malformed { word: String, error: glob::PatternError },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The entries that names, paths, ids or globs stand for, at least one for each.
pub(super) fn chosen<'a>(
    registry: &'a Registry,
    wanted: &[String],
) -> Result<Vec<&'a RegistryEntry>, ChoiceError> {
    let mut entries: Vec<&RegistryEntry> = Vec::new();
    for word in wanted {
        let found = matching(registry, word)?;
        if found.is_empty() {
            let names = registry.venvs.iter().map(|entry| entry.name.as_str());
            let meant = nearest(word, names).map(str::to_owned);
            return Err(ChoiceError::Nothing { word: word.clone(), meant });
        }
        for entry in found {
            if !entries.iter().any(|known| known.id == entry.id) {
                entries.push(entry);
            }
        }
    }
    Ok(entries)
}

fn hint(meant: Option<&String>) -> String {
    meant.map_or_else(
        || "(see `venvguard list`)".to_string(),
        |name| format!("(did you mean {name:?}?)"),
    )
}

fn matching<'a>(registry: &'a Registry, word: &str) -> Result<Vec<&'a RegistryEntry>, ChoiceError> {
    let exact: Vec<&RegistryEntry> =
        registry.venvs.iter().filter(|entry| entry.name == word || entry.id == word).collect();
    if !exact.is_empty() {
        return Ok(exact);
    }
    let path = std::path::absolute(word)?;
    let real = path.canonicalize().unwrap_or_else(|_| normal(&path));
    let at_path: Vec<&RegistryEntry> =
        registry.venvs.iter().filter(|entry| entry.path() == real).collect();
    if !at_path.is_empty() {
        return Ok(at_path);
    }
    let pattern = glob::Pattern::new(word)
        .map_err(|error| ChoiceError::Malformed { word: word.to_string(), error })?;
    let options = glob::MatchOptions { require_literal_separator: true, ..Default::default() };
    Ok(registry
        .venvs
        .iter()
        .filter(|entry| {
            pattern.matches_path_with(entry.path(), options)
                || pattern.matches_with(&entry.name, options)
        })
        .collect())
}
