//! The names of trees beside a venv.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::host::{Root, clock};
use crate::venv::{ASIDE, Flavour, Venv, venv_of_aside};

/// `.NAME.venvguard-TIME` on the venv's own file system: the path at which the new tree is built,
/// and at which the old one lies after the swap. Nothing has this name yet.
pub(super) fn aside(root: &Root, venv: &Venv) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(name_of(&venv.path));
    name.push(format!("{ASIDE}{}", clock::now().strftime("%Y%m%dT%H%M%SZ")));
    let mut aside = dir_for_asides(root, venv).join(&name);
    while aside.symlink_metadata().is_ok() {
        name.push("+");
        aside.set_file_name(&name);
    }
    aside
}

/// The directory that the venv lies in; for a venv created by pipx, the one above it, if it is on
/// the same file system. pipx takes every directory beside its venvs for another venv: it would
/// list, upgrade and recreate it.
fn dir_for_asides<'a>(root: &Root, venv: &'a Venv) -> &'a Path {
    let beside = venv.path.parent().unwrap_or(Path::new("/"));
    let device = |path: &Path| Some(root.at(path).symlink_metadata().ok()?.dev());
    beside
        .parent()
        .filter(|above| venv.flavour == Flavour::Pipx && device(above) == device(beside))
        .unwrap_or(beside)
}

/// The name of a tree that was put aside, relative to the directory that its venv lies in.
pub(super) fn from_beside(venv: &Path, aside: &Path) -> PathBuf {
    if aside.parent() == venv.parent() {
        name_of(aside).to_path_buf()
    } else {
        Path::new("..").join(name_of(aside))
    }
}

/// Whether a directory is a tree that venvguard put aside, and not a venv of its own.
pub(crate) fn is_ours_to_keep(path: &Path) -> bool {
    venv_of_aside(path).is_some()
}

/// The last component of a path.
pub(super) fn name_of(path: &Path) -> &Path {
    path.file_name().map_or(Path::new(""), Path::new)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::plan::samples;
    use crate::python::Minor;
    use crate::venv::BaseLink;

    #[test]
    fn a_tree_aside_is_recognized_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let venv = dir.path().canonicalize().unwrap().join("venvs/app");
        fs::create_dir_all(&venv).unwrap();
        let sample = samples::subject(BaseLink::Pinned, Minor::new(3, 11)).venv;
        let mut subject = Venv { path: venv.clone(), ..sample };
        let aside = |subject: &Venv| aside(&Root::new("/"), subject);
        let first = aside(&subject);
        assert_eq!(first.parent(), venv.parent());
        assert!(is_ours_to_keep(&first) && !is_ours_to_keep(&venv));
        fs::create_dir(&first).unwrap();
        assert_ne!(aside(&subject), first, "a tree that is kept is not overwritten");
        subject.flavour = Flavour::Pipx;
        assert_eq!(aside(&subject).parent(), venv.parent().unwrap().parent());
    }
}
