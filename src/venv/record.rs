//! The files that an installer recorded: `RECORD`, and the list that preceded it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// A file that an installer wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordEntry {
    /// As recorded: relative to site-packages, often with `..` (a console script
    /// is `../../../bin/x`), seldom absolute.
    pub(crate) path: PathBuf,
    /// `sha256=…` in URL-safe base64; `None` for files that are created later, such as `.pyc`
    /// files.
    pub(crate) hash: Option<String>,
}

/// How deep to search for packages below a directory without `__init__.py`:
/// `google/cloud/storage`.
const NAMESPACE_DEPTH: usize = 3;

/// A RECORD has at least sixty bytes per line, so the largest one that is read has fewer lines;
/// one with short lines would take forty times its size in memory.
const ENTRIES_LIMIT: usize = 1 << 20;

/// Reads a RECORD: lines of path, hash and size, as comma-separated values.
pub(super) fn record(bytes: &[u8]) -> Vec<RecordEntry> {
    let lines = bytes.split(|byte| *byte == b'\n');
    lines.filter_map(|line| entry(line.trim_ascii_end())).take(ENTRIES_LIMIT).collect()
}

fn entry(line: &[u8]) -> Option<RecordEntry> {
    let (path, rest) = if let Some(quoted) = line.strip_prefix(b"\"") {
        unquoted(quoted)?
    } else {
        let comma = line.iter().position(|byte| *byte == b',').unwrap_or(line.len());
        let (path, rest) = line.split_at(comma);
        (path.to_vec(), rest)
    };
    if path.is_empty() {
        return None;
    }
    let hash = rest.split(|byte| *byte == b',').nth(1).filter(|hash| !hash.is_empty());
    Some(RecordEntry {
        path: PathBuf::from(std::ffi::OsString::from_vec(path)),
        hash: hash.map(|hash| String::from_utf8_lossy(hash).into_owned()),
    })
}

/// A quoted value, in which quotes are doubled, and the rest.
fn unquoted(quoted: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut value = Vec::new();
    let mut rest = quoted;
    loop {
        let (byte, after) = rest.split_first()?;
        match (byte, after) {
            (b'"', [b'"', beyond @ ..]) => {
                value.push(b'"');
                rest = beyond;
            }
            (b'"', _) => return Some((value, after)),
            (byte, _) => {
                value.push(*byte);
                rest = after;
            }
        }
    }
}

/// Reads an `installed-files.txt`: paths relative to its directory.
pub(super) fn installed_files(bytes: &[u8], info: &Path) -> Vec<RecordEntry> {
    bytes
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
        .map(|line| Path::new(OsStr::from_bytes(line)))
        .map(|path| RecordEntry {
            path: path.strip_prefix("..").map_or_else(|_| info.join(path), Path::to_path_buf),
            hash: None,
        })
        .collect()
}

/// The modules that can be imported from these files, only the top of each tree: packages,
/// single modules, extension modules. A name with one leading underscore counts (a new
/// interpreter breaks `_cffi_backend` first), a name with two is internal to an installer.
/// For a directory without `__init__.py` the packages below it count: the directory itself
/// can always be imported and proves nothing.
pub(super) fn top_level_modules(entries: &[RecordEntry]) -> Vec<String> {
    let mut modules = BTreeSet::new();
    // The directories with an `__init__`, by their names.
    let mut packages: BTreeSet<Vec<&str>> = BTreeSet::new();
    for entry in entries {
        let Some(names) = names(&entry.path) else { continue };
        let Some((file, dirs)) = names.split_last() else { continue };
        let Some(module) = module(file) else { continue };
        if !dirs.iter().all(|dir| is_identifier(dir)) {
            continue;
        }
        if module == "__init__" {
            // Deeper files never count, and a path of a million directories would take hours.
            if dirs.len() <= NAMESPACE_DEPTH {
                packages.insert(dirs.to_vec());
            }
        } else if dirs.is_empty() && is_identifier(module) && !module.starts_with("__") {
            modules.insert(module.to_string());
        }
    }
    for dirs in &packages {
        let is_inner = (1..dirs.len())
            .any(|length| dirs.get(..length).is_some_and(|outer| packages.contains(outer)));
        let private = dirs.iter().any(|dir| dir.starts_with("__"));
        if !is_inner && !private && !dirs.is_empty() {
            modules.insert(dirs.join("."));
        }
    }
    modules.into_iter().collect()
}

/// The names in a path that stays in site-packages.
fn names(path: &Path) -> Option<Vec<&str>> {
    path.components()
        .map(|component| match component {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect()
}

/// The module in a file: `a.py`, `a.so`, `a.abi3.so`, `a.cpython-311-x86_64-linux-gnu.so`.
fn module(file: &str) -> Option<&str> {
    let (name, ending) = file.split_once('.')?;
    match ending.rsplit_once('.') {
        None if ending == "py" || ending == "so" => Some(name),
        Some((tag, "so")) if tag == "abi3" || tag.starts_with("cpython-") => Some(name),
        _ => None,
    }
}

/// Whether Python can import something by this name.
pub(super) fn is_identifier(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|first| first.is_alphabetic() || first == '_')
        && characters.all(|character| character.is_alphanumeric() || character == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(paths: &[&str]) -> Vec<String> {
        top_level_modules(&record(paths.join(",,\n").as_bytes()))
    }

    #[test]
    fn a_record_is_read_with_its_quotes() {
        let entries = record(
            b"a/b.py,sha256=x_-,12\r\n\"c,\"\"d.py\",sha256=y,1\n../../../bin/a,,\n\n\"broken\na.pyc\n",
        );
        let told: Vec<_> = entries
            .iter()
            .map(|entry| (entry.path.to_str().unwrap(), entry.hash.as_deref()))
            .collect();
        assert_eq!(
            told,
            [
                ("a/b.py", Some("sha256=x_-")),
                ("c,\"d.py", Some("sha256=y")),
                ("../../../bin/a", None),
                ("a.pyc", None)
            ]
        );
    }

    #[test]
    fn the_older_list_is_relative_to_its_own_directory() {
        let entries = installed_files(
            b"../a/__init__.py\nPKG-INFO\n../../../../bin/a\n",
            Path::new("a.egg-info"),
        );
        let paths: Vec<_> = entries.iter().map(|entry| entry.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["a/__init__.py", "a.egg-info/PKG-INFO", "../../../bin/a"]);
    }

    #[test]
    fn modules_packages_and_extensions_are_imported_by_their_top_level_names() {
        assert_eq!(
            modules(&[
                "six.py",
                "flask/__init__.py",
                "flask/app.py",
                "flask/json/__init__.py",
                "_cffi_backend.cpython-311-x86_64-linux-gnu.so",
                "fast.abi3.so",
                "old.so",
                "cython/__init__.cpython-311-x86_64-linux-gnu.so",
            ]),
            ["_cffi_backend", "cython", "fast", "flask", "old", "six"]
        );
    }

    #[test]
    fn the_packages_in_a_namespace_are_imported() {
        assert_eq!(
            modules(&[
                "google/cloud/storage/__init__.py",
                "google/cloud/storage/blob/__init__.py",
                "google/auth/__init__.py",
                "google/loose.py",
                "a/b/c/d/__init__.py",
            ]),
            ["google.auth", "google.cloud.storage"]
        );
    }

    #[test]
    fn an_endless_path_takes_linear_time() {
        let deep = format!("{}__init__.py", "a/".repeat(1 << 20));
        assert_eq!(modules(&[&deep, "b.py"]), ["b"]);
    }

    #[test]
    fn other_files_are_not_imported() {
        assert_eq!(
            modules(&[
                "../../../bin/flask",
                "../x/__init__.py",
                "/etc/x.py",
                "flask-3.0.dist-info/METADATA",
                "flask-3.0.dist-info/licenses/x.py",
                "__pycache__/six.cpython-311.pyc",
                "__editable___a_1_finder.py",
                "a-b.py",
                "1a.py",
                "libfoo.so.1",
                "foo.libs/libgfortran-040039e1.so.5.0.0",
                "a.pth",
                "data.txt",
            ]),
            [""; 0]
        );
    }
}
