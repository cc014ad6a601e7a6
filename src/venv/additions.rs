//! What is somebody's own in a venv, for people to read.

use std::io;
use std::path::PathBuf;

use super::{ForeignKind, Venv, distributions, foreign_files, modified_files};
use crate::host::Root;

/// The files of a venv that a rebuild carries over, relative to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Additions {
    /// What no installer wrote. Of folders the empty ones alone, and no socket or FIFO.
    pub(crate) foreign: Vec<PathBuf>,
    /// What an installer wrote and somebody changed.
    pub(crate) modified: Vec<PathBuf>,
}

impl Additions {
    pub(crate) fn of(root: &Root, venv: &Venv) -> io::Result<Self> {
        let distributions = distributions(&root.at(venv.site_packages()))?;
        let found = foreign_files(root, venv, &distributions)?;
        let mut foreign = Vec::new();
        for (index, one) in found.iter().enumerate() {
            // They are sorted: what is in a folder comes next.
            let is_empty =
                || found.get(index + 1).is_none_or(|next| !next.path.starts_with(&one.path));
            let is_told = match one.kind {
                ForeignKind::File | ForeignKind::Link => true,
                ForeignKind::Folder => is_empty(),
                ForeignKind::Other => false,
            };
            if is_told {
                foreign.push(one.path.clone());
            }
        }
        let modified = modified_files(root, venv, &distributions);
        Ok(Self { foreign, modified: modified.into_iter().map(|one| one.path).collect() })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::python::Minor;
    use crate::venv::Link;

    #[test]
    fn files_and_empty_folders_are_told_and_no_folder_twice() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path().canonicalize().unwrap());
        let venv = crate::plan::samples::subject(Link::Pinned, Minor::new(3, 11)).venv;
        let at = |path: &str| root.at(venv.path.join(path));
        for path in ["data/deep", "data/empty", "lib/python3.11/site-packages"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        fs::write(at("data/deep/file"), "").unwrap();
        let found = Additions::of(&root, &venv).unwrap();
        assert_eq!(found.foreign, [Path::new("data/deep/file"), Path::new("data/empty")]);
        assert!(found.modified.is_empty(), "{found:?}");
    }
}
