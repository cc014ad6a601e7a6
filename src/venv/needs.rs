//! The libraries of the system that the extension modules of a venv need.

use std::collections::BTreeSet;
use std::io;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::distribution::open;
use super::{Distribution, distributions};
use crate::host::Dir;
use crate::host::clock::Deadline;
use crate::host::path_text::PathText;
use crate::python::needed_libraries;

/// The most needs that are named.
const NEEDS_LIMIT: usize = 10;

/// An extension module that needs a library of the system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Need {
    pub(crate) distribution: String,
    pub(crate) version: Option<String>,
    /// Relative to site-packages.
    pub(crate) module: PathText,
    pub(crate) library: String,
}

/// Finds out which distributions need some libraries: one module for each distribution and library.
/// A library that a distribution brings itself is not the system's.
pub(crate) fn needs(
    site_packages: &Path,
    libraries: &BTreeSet<String>,
    deadline: Deadline,
) -> io::Result<Vec<Need>> {
    let site = open(site_packages)?;
    let mut binaries: Vec<(Distribution, Vec<PathBuf>)> = Vec::new();
    for distribution in distributions(site_packages)? {
        let record = distribution.record(site_packages).ok().flatten().unwrap_or_default();
        let files = record.into_iter().map(|entry| entry.path).filter(|path| is_binary(path));
        binaries.push((distribution, files.collect()));
    }
    let brought: BTreeSet<&str> = binaries
        .iter()
        .flat_map(|(_, files)| files)
        .filter_map(|file| file.file_name()?.to_str())
        .collect();
    let mut needs: Vec<Need> = Vec::new();
    for (distribution, files) in &binaries {
        let mut known = BTreeSet::new();
        for file in files {
            if deadline.has_passed() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            for library in needed(&site, file) {
                let is_systems = !brought.contains(library.as_str());
                if is_systems && libraries.contains(&library) && known.insert(library.clone()) {
                    needs.push(Need {
                        distribution: distribution.name.clone(),
                        version: distribution.version.clone(),
                        module: file.as_path().into(),
                        library,
                    });
                }
                if needs.len() == NEEDS_LIMIT {
                    return Ok(needs);
                }
            }
        }
    }
    Ok(needs)
}

/// Whether a recorded file is an extension module or a library below site-packages.
fn is_binary(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_below = path.components().all(|part| matches!(part, Component::Normal(_)));
    let is_module = path.extension().is_some_and(|extension| extension == "so");
    is_below && (is_module || name.contains(".so."))
}

/// What a module needs; nothing if it cannot be read.
fn needed(site: &Dir, file: &Path) -> Vec<String> {
    let (Some(dir), Some(name)) = (file.parent(), file.file_name()) else { return Vec::new() };
    let opened = site.below(dir).ok().and_then(|dir| dir.file(name).ok());
    opened.and_then(|opened| needed_libraries(opened, file).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::python::sample;

    #[test]
    fn a_module_that_needs_a_library_of_the_system_is_named_with_its_distribution() {
        let dir = tempfile::tempdir().unwrap();
        let site = dir.path().canonicalize().unwrap().join("lib/python3.13/site-packages");
        let write = |path: &str, bytes: &[u8]| {
            let path = site.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        let metadata = |name: &str| format!("Metadata-Version: 2.1\nName: {name}\nVersion: 2.9\n");
        let module = |library: &[u8]| sample::linked(None, b"", b"", library);
        write("psycopg2-2.9.dist-info/METADATA", metadata("psycopg2").as_bytes());
        write(
            "psycopg2-2.9.dist-info/RECORD",
            b"psycopg2/_a.so,,\npsycopg2/_b.so,,\npsycopg2/x.py,,\n",
        );
        write("psycopg2/_a.so", &module(b"libpq.so.5"));
        write("psycopg2/_b.so", &module(b"libpq.so.5"));
        write("own-2.9.dist-info/METADATA", metadata("own").as_bytes());
        write(
            "own-2.9.dist-info/RECORD",
            b"own/_c.so,,\nown.libs/libz.so.1,,\n../../../bin/x.so,,\n",
        );
        write("own/_c.so", &module(b"libz.so.1"));
        write("own.libs/libz.so.1", &module(b"libc.so.6"));
        let libraries: BTreeSet<String> = ["libpq.so.5", "libz.so.1"].map(String::from).into();
        let deadline = Deadline::after(Duration::from_secs(60));
        let needs = needs(&site, &libraries, deadline).unwrap();
        let need = Need {
            distribution: "psycopg2".into(),
            version: Some("2.9".into()),
            module: Path::new("psycopg2/_a.so").into(),
            library: "libpq.so.5".into(),
        };
        assert_eq!(needs, [need]);
    }
}
