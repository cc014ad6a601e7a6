//! Whether a file that a person names is a requirements file, as far as that can be told without
//! pip: each line has to look like a requirement, an option, a URL or a path.

use std::path::{Path, PathBuf};

use crate::host::ReadError;
use crate::host::file::{printable, read_untrusted};

const LIMIT: u64 = 4 << 20;

/// Why a file is no requirements file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequirementsError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{} is not a requirements file: it is not text", printable(.path))]
    NotText { path: PathBuf },
    #[error("{} is not a requirements file: line {line} is {text:?}", printable(.path))]
    NotARequirement { path: PathBuf, line: usize, text: String },
}

/// Refuses a file that no installer would read as requirements.
pub(crate) fn require_requirements(path: &Path) -> Result<(), RequirementsError> {
    let bytes = read_untrusted(path, LIMIT)?;
    let path = || path.to_path_buf();
    let text =
        std::str::from_utf8(&bytes).map_err(|_| RequirementsError::NotText { path: path() })?;
    let mut continues = false;
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        if !continues && !looks_right(line.trim()) {
            let (line, text) = (index + 1, line.trim().chars().take(80).collect());
            return Err(RequirementsError::NotARequirement { path: path(), line, text });
        }
        continues = line.ends_with('\\');
    }
    Ok(())
}

fn looks_right(line: &str) -> bool {
    let is_path_or_url = line.contains('/') && !line.contains(['<', '{', '"']);
    if line.is_empty() || line.starts_with(['#', '-', '$']) || is_path_or_url {
        return true;
    }
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let rest = line.trim_start_matches(is_of_name);
    let has_name = rest.len() < line.len() && line.starts_with(|c: char| c.is_ascii_alphanumeric());
    let rest = rest.trim_start();
    // `name = "x"` is TOML.
    let is_assignment = rest.starts_with('=') && !rest.starts_with("==");
    let follows = ["[", "=", "<", ">", "!", "~", "@", ";", "(", "#", "\\", "--"];
    has_name && !is_assignment && (rest.is_empty() || follows.iter().any(|it| rest.starts_with(it)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8]) -> Result<(), String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("requirements.txt");
        std::fs::write(&path, bytes).unwrap();
        require_requirements(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn whatever_pip_reads_is_accepted() {
        let text = "\u{feff}# frozen\n\nflask==3.0.3 \\\n    --hash=sha256:00\nDjango >= 4, < 5\n\
            -r base.txt\n--index-url https://example.org/simple\nrequests[socks]; python_version > '3'\n\
            ./wheels/own-1.0-py3-none-any.whl\ngit+https://example.org/x.git#egg=x\n${PKG}\n\
            own @ https://example.org/own.whl\nidna # a comment\nzope.interface~=6.0\nx (>1)\n";
        assert_eq!(check(text.as_bytes()), Ok(()));
        assert_eq!(check(b""), Ok(()));
    }

    #[test]
    fn other_files_are_refused_with_their_line() {
        for (bytes, why) in [
            (&b"[project]\nname = \"x\"\n"[..], "line 1 is \"[project]\""),
            (b"name = \"x\"\n", "line 1"),
            (b"flask\n{\"a\": 1}\n", "line 2"),
            (b"#!/bin/sh\nexec python app.py\n", "line 2 is \"exec python app.py\""),
            (b"<html>\n", "line 1"),
            (b"PK\x03\x04\xff\xfe", "not text"),
        ] {
            let said = check(bytes).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
        assert!(require_requirements(Path::new("/proc")).is_err(), "a directory is not read");
    }
}
