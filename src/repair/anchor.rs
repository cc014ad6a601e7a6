//! Pinning a followed venv to the interpreter of its own minor version, and letting it go.
//!
//! Only a link changes: `bin/python3 -> /usr/bin/python3` becomes
//! `bin/python3 -> /usr/bin/python3.11`. While both lead to the same program this is no
//! change at all, which is why it is done *before* dpkg moves the default.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid};

use crate::host::Root;
use crate::python::{self, Minor};
use crate::venv::Venv;

/// Makes a venv that follows the default interpreter stay with `minor`.
pub(crate) fn pin(root: &Root, venv: &Venv, minor: Minor) -> io::Result<()> {
    relink(root, venv, |target| target == Path::new(python::DEFAULT), &python::path_of(minor))
}

/// Makes a venv that was pinned to `minor` follow the default interpreter again.
pub(crate) fn follow(root: &Root, venv: &Venv, minor: Minor) -> io::Result<()> {
    let pinned = python::path_of(minor);
    relink(root, venv, |target| target == pinned, Path::new(python::DEFAULT))
}

/// Replaces every link in `bin` whose target is wanted, each by a rename.
fn relink(root: &Root, venv: &Venv, wanted: impl Fn(&Path) -> bool, to: &Path) -> io::Result<()> {
    let bin = root.at(&venv.path).join("bin");
    let folder = open_bin(&bin)?;
    for name in interpreter_names(&bin)? {
        let Ok(target) = rustix::fs::readlinkat(&folder, &name, Vec::new()) else { continue };
        let target = PathBuf::from(std::ffi::OsStr::from_bytes(target.as_bytes()));
        if !wanted(&target) {
            continue;
        }
        let temporary = PathBuf::from(format!(".{}.venvguard", name.display()));
        // A leftover of a crash between the next two calls.
        let _ = rustix::fs::unlinkat(&folder, &temporary, AtFlags::empty());
        rustix::fs::symlinkat(to, &folder, &temporary)?;
        rustix::fs::chownat(
            &folder,
            &temporary,
            Some(Uid::from_raw(venv.uid)),
            Some(Gid::from_raw(venv.gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
        rustix::fs::renameat(&folder, &temporary, &folder, &name)?;
    }
    rustix::fs::fsync(&folder)?;
    Ok(())
}

/// Opens a venv's `bin` without following a link anywhere on the way.
pub(super) fn open_bin(bin: &Path) -> io::Result<std::os::fd::OwnedFd> {
    rustix::fs::openat2(
        rustix::fs::CWD,
        bin,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS,
    )
    .map_err(|error| {
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("{}: {error}", crate::host::file::printable(bin)))
    })
}

/// `python`, `python3`, `python3.11`: the names in `bin` that stand for an interpreter.
pub(super) fn interpreter_names(bin: &Path) -> io::Result<Vec<PathBuf>> {
    let mut names: Vec<PathBuf> = fs::read_dir(bin)?
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .filter(|name| {
            name.to_str().is_some_and(|name| {
                matches!(name, "python" | "python3") || Minor::of_program(name).is_some()
            })
        })
        .map(PathBuf::from)
        .collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test prepares its own folders")]
mod tests {
    use super::*;
    use crate::venv::{Base, Flavour, Link};
    use std::os::unix::fs::{MetadataExt, symlink};

    const OLD: Minor = Minor::new(3, 11);

    /// A venv as `python3 -m venv` makes it, and what its links say.
    fn venv(folder: &Path) -> Venv {
        let path = folder.canonicalize().unwrap().join("venv");
        fs::create_dir_all(path.join("bin")).unwrap();
        symlink("python3", path.join("bin/python")).unwrap();
        symlink("/usr/bin/python3", path.join("bin/python3")).unwrap();
        symlink("python3", path.join("bin/python3.11")).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        Venv {
            path,
            flavour: Flavour::Venv,
            base: Base {
                link: Link::Followed,
                path: python::DEFAULT.into(),
                minor: Some(OLD),
                version: None,
                copies: Vec::new(),
                ours: true,
            },
            site: OLD,
            uid: metadata.uid(),
            gid: metadata.gid(),
            mode: 0o755,
            system_site_packages: false,
            prompt: None,
        }
    }

    fn links(venv: &Venv) -> Vec<String> {
        ["python", "python3", "python3.11"]
            .map(|name| {
                fs::read_link(venv.path.join("bin").join(name)).unwrap().display().to_string()
            })
            .to_vec()
    }

    #[test]
    fn pinning_changes_the_one_link_that_leaves_the_venv_and_following_changes_it_back() {
        let folder = tempfile::tempdir().unwrap();
        let venv = venv(folder.path());
        let root = Root::new("/");
        let before = links(&venv);
        pin(&root, &venv, OLD).unwrap();
        assert_eq!(links(&venv), ["python3", "/usr/bin/python3.11", "python3"]);
        pin(&root, &venv, OLD).unwrap();
        follow(&root, &venv, OLD).unwrap();
        assert_eq!(links(&venv), before);
        assert_eq!(fs::read_dir(venv.path.join("bin")).unwrap().count(), 3, "nothing is left over");
    }

    #[test]
    fn a_bin_that_is_a_link_is_not_entered() {
        let folder = tempfile::tempdir().unwrap();
        let venv = venv(folder.path());
        fs::rename(venv.path.join("bin"), venv.path.join("real")).unwrap();
        symlink("real", venv.path.join("bin")).unwrap();
        assert!(pin(&Root::new("/"), &venv, OLD).is_err());
    }
}
