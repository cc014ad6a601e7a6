//! The user files and modified files of a venv, for display.

use std::io;

use serde::{Deserialize, Serialize};

use super::{ForeignKind, Layout, distributions, foreign_files, modified_files};
use crate::host::Root;
use crate::host::path_text::PathText;

/// How many files of each kind are listed, and how many bytes of paths.
const LISTED: usize = 10_000;
const BYTES: usize = 4 << 20;

/// The files of a venv that a rebuild carries over, relative to the venv.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Additions {
    /// The user files. Directories are listed only if empty; sockets and FIFOs are not listed.
    pub(crate) foreign: Vec<PathText>,
    /// Files that an installer wrote and a user modified.
    pub(crate) modified: Vec<PathText>,
    /// The number of files that are not listed.
    pub(crate) omitted: usize,
}

impl Additions {
    pub(crate) fn of(root: &Root, venv: &Layout) -> io::Result<Self> {
        let distributions = distributions(&root.at(venv.site_packages()))?;
        let found = foreign_files(root, venv, &distributions)?;
        let mut foreign = Vec::new();
        for (index, one) in found.iter().enumerate() {
            // The paths are sorted: the contents of a directory follow it.
            let is_empty =
                || found.get(index + 1).is_none_or(|next| !next.path.starts_with(&one.path));
            let is_told = match one.kind {
                ForeignKind::File | ForeignKind::Link | ForeignKind::Closed => true,
                ForeignKind::Directory => is_empty(),
                ForeignKind::Other => false,
            };
            if is_told {
                foreign.push(PathText(one.path.clone()));
            }
        }
        let modified = modified_files(root, venv, &distributions, None);
        let mut modified = modified.into_iter().map(|one| PathText(one.path)).collect();
        let omitted = shorten(&mut foreign) + shorten(&mut modified);
        Ok(Self { foreign, modified, omitted })
    }
}

/// Returns how many it drops.
fn shorten(paths: &mut Vec<PathText>) -> usize {
    let mut bytes = 0;
    let fits = |path: &&PathText| {
        bytes += path.0.as_os_str().len();
        bytes <= BYTES
    };
    let kept = paths.iter().take(LISTED).take_while(fits).count();
    let omitted = paths.len() - kept;
    paths.truncate(kept);
    omitted
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::python::Minor;
    use crate::venv::BaseLink;

    #[test]
    fn files_and_empty_directories_are_listed_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path().canonicalize().unwrap());
        let venv = crate::plan::samples::subject(BaseLink::Pinned, Minor::new(3, 11)).venv;
        let at = |path: &str| root.at(venv.path.join(path));
        for path in ["data/deep", "data/empty", "lib/python3.11/site-packages"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        fs::write(at("data/deep/file"), "").unwrap();
        let found = Additions::of(&root, &venv.layout()).unwrap();
        let expected = ["data/deep/file", "data/empty"].map(|path| Path::new(path).into());
        assert_eq!(found.foreign, expected);
        assert!(found.modified.is_empty(), "{found:?}");
    }
}
