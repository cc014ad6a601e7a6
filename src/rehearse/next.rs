//! Unpacks the packages of the next system.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::io::Errno;

use crate::host::command::CommandError;
use crate::host::confine::{self, LAUNCHER_FAILED};
use crate::host::file::printable;
use crate::host::overlay::Overlay;
use crate::host::user::User;
use crate::host::{Program, Root, tree};
use crate::python::{self, Interpreters};
use crate::repair::System;

/// Only root may enter it: the packages contain programs that run as root, and those in there are
/// not upgraded.
const PLACE: &str = "/var/cache/venvguard/next";

/// How the paths of Python's modules begin.
const MODULES: &[u8] = b"/usr/lib/python3";

/// The directories of a system that packages of Python and of libraries install into. A venv, its
/// stage and its sources are elsewhere, because nothing in these can be written to.
const MERGED: [&str; 8] = ["usr", "etc", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// Many times what one package takes on a slow disk.
const LIMIT: Duration = Duration::from_secs(120);

/// The largest package that is unpacked, in bytes; a larger one has nothing to do with Python.
const LARGEST: u64 = 2 << 30;

/// Why the next system cannot be made visible.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NextError {
    #[error("{path}: {source}", path = printable(.path))]
    Io { path: PathBuf, source: io::Error },
    #[error("cannot unpack {package}: {source}")]
    Unpack { package: String, source: CommandError },
    #[error("cannot index the libraries of the next system: {0}")]
    Libraries(CommandError),
    /// The kernel or the container forbids the mounts.
    #[error("no program can see the next system: {0}")]
    NotShown(String),
}

/// The unpacked packages, until it is dropped.
#[derive(Debug)]
pub(crate) struct NextSystem {
    place: PathBuf,
    system: System,
}

impl NextSystem {
    /// Unpacks these archives, and hides the modules of the packages that are `removed`. `after` are
    /// the interpreters that the upgrade leaves; the builds of the unpacked ones are read from their
    /// files.
    pub(crate) fn unpack(
        root: &Root,
        archives: &[PathBuf],
        removed: &BTreeSet<String>,
        after: &Interpreters,
    ) -> Result<Self, NextError> {
        let place = root.at(PLACE);
        let io = |path: &Path| {
            let path = path.to_path_buf();
            move |source| NextError::Io { path, source }
        };
        sweep(root).map_err(io(&place))?;
        DirBuilder::new().mode(0o700).recursive(true).create(&place).map_err(io(&place))?;
        // From here on, dropping it removes what there is.
        let system = System::installed(after);
        let mut next = Self { place, system };
        let files = next.place.join("files");
        make_skeleton(root, &files).map_err(io(&files))?;
        for archive in archives {
            next.unpack_one(root, archive, &files)?;
        }
        hide_modules(root, &files, removed).map_err(io(&files))?;
        next.system.seen_through = layers(root, &files);
        next.index_libraries(root, &files)?;
        for (minor, interpreter) in &mut next.system.interpreters.installed {
            if interpreter.build_id.is_none() {
                let file = files.join("usr/bin").join(minor.program());
                interpreter.build_id = python::read_binary(&file).unwrap_or_default().build_id;
            }
        }
        next.system.unpacked = Some(Root::new(files));
        Ok(next)
    }

    pub(crate) fn system(&self) -> &System {
        &self.system
    }

    /// `dpkg-deb --extract` would replace the link `/lib` of a merged `/usr` by a directory.
    fn unpack_one(&self, root: &Root, archive: &Path, files: &Path) -> Result<(), NextError> {
        let content = self.place.join("content.tar");
        let failed = |source| NextError::Unpack {
            package: printable(archive.file_name().unwrap_or_default()),
            source,
        };
        let file = File::create(&content)
            .map_err(|source| NextError::Io { path: content.clone(), source })?;
        let list = Program::named(root, "dpkg-deb").arg("--fsys-tarfile").arg(archive);
        list.output_to(file, LARGEST).limit(LIMIT).run().map_err(failed)?;
        let unpack = Program::named(root, "tar").args(["--extract", "--keep-directory-symlink"]);
        let unpack = unpack.arg("--directory").arg(files).arg("--file").arg(&content).limit(LIMIT);
        // tar follows links to directories, wherever an archive points them.
        let writes = vec![files.to_path_buf()];
        let unpack = confine::confined_to(root, unpack, &as_root(), &[], Path::new("/"), writes);
        unpack.run().map_err(failed)?;
        Ok(())
    }

    /// The loader finds the libraries of the next system only in an index that lists them.
    fn index_libraries(&self, root: &Root, files: &Path) -> Result<(), NextError> {
        // Neither links in the merged directories nor ldconfig's own cache can be written.
        let program = Program::named(root, "ldconfig").args(["-X", "-i", "-C"]);
        let program = program.arg(files.join("etc/ld.so.cache")).limit(LIMIT);
        let writes = vec![files.join("etc")];
        let layers = &self.system.seen_through;
        let indexed =
            confine::confined_to(root, program, &as_root(), layers, Path::new("/"), writes);
        match indexed.run() {
            Ok(_) => Ok(()),
            // The launcher fails if the kernel or the container forbids the mounts.
            Err(CommandError::Failed { status, complaint, .. })
                if status.0.code() == Some(LAUNCHER_FAILED) =>
            {
                Err(NextError::NotShown(complaint))
            }
            Err(error) => Err(NextError::Libraries(error)),
        }
    }
}

impl Drop for NextSystem {
    fn drop(&mut self) {
        // What cannot be removed now, the next run removes.
        let _ = remove(&self.place);
    }
}

fn as_root() -> User {
    User { name: "root".into(), uid: 0, gid: 0, home: "/root".into() }
}

/// Removes what an interrupted rehearsal left.
pub(crate) fn sweep(root: &Root) -> io::Result<()> {
    remove(&root.at(PLACE))
}

fn remove(place: &Path) -> io::Result<()> {
    match fs::remove_dir_all(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The top of a file system: links as on the installed one, and `/etc` for the index.
fn make_skeleton(root: &Root, files: &Path) -> io::Result<()> {
    fs::create_dir_all(files.join("etc"))?;
    for name in MERGED {
        let Ok(target) = fs::read_link(root.at("/").join(name)) else { continue };
        // A link from the root of the system must not lead out of this one.
        let target = target.strip_prefix("/").unwrap_or(&target);
        if target.components().all(|part| matches!(part, Component::Normal(_))) {
            // tar would replace a link that leads nowhere by a directory.
            fs::create_dir_all(files.join(target))?;
            symlink(target, files.join(name))?;
        }
    }
    Ok(())
}

/// Hides the modules of packages: an overlay shows nothing where a device 0/0 is in front.
fn hide_modules(root: &Root, files: &Path, packages: &BTreeSet<String>) -> io::Result<()> {
    let listed = python::files_of(root, packages).into_iter().map(|(path, _)| path);
    let listed: BTreeSet<PathBuf> =
        listed.filter(|path| path.as_os_str().as_bytes().starts_with(MODULES)).collect();
    let gone: BTreeSet<&Path> =
        listed.iter().map(PathBuf::as_path).filter(|path| is_gone(root, path, &listed)).collect();
    for path in &gone {
        // A directory hides what is in it.
        let Some(parent) = path.parent().filter(|parent| !gone.contains(parent)) else { continue };
        let place = |path: &Path| files.join(path.strip_prefix("/").unwrap_or(path));
        if place(path).symlink_metadata().is_ok() {
            // The next system has it again, of another package.
            continue;
        }
        fs::create_dir_all(place(parent))?;
        match mknodat(CWD, place(path), FileType::CharacterDevice, Mode::empty(), 0) {
            // A container may forbid devices, and so does an overlay. Then these modules seem to stay.
            Ok(()) | Err(Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether dpkg removes what is at a path: a file that is listed, or a directory in which it leaves
/// nothing but compiled modules.
fn is_gone(root: &Root, path: &Path, listed: &BTreeSet<PathBuf>) -> bool {
    if !listed.contains(path) {
        return path.file_name().is_some_and(|name| name == "__pycache__");
    }
    let mut entries = fs::read_dir(root.at(path)).into_iter().flatten().flatten();
    !is_dir(&root.at(path)) || entries.all(|one| is_gone(root, &path.join(one.file_name()), listed))
}

/// Whether it is a directory, and no link to one.
fn is_dir(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_dir())
}

fn layers(root: &Root, files: &Path) -> Vec<Overlay> {
    let layer = |name: &str| {
        let (from, to) = (files.join(name), root.at("/").join(name));
        let identity = tree::identity(&from).filter(|_| is_dir(&from) && is_dir(&to))?;
        Some(Overlay::merge(&from, &to, identity))
    };
    MERGED.into_iter().filter_map(layer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unpacked_stays_below_the_next_system() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        fs::create_dir_all(root.at("/usr/lib64")).unwrap();
        symlink("/usr/lib64", root.at("/lib64")).unwrap();
        symlink("usr/lib", root.at("/lib")).unwrap();
        symlink("../elsewhere", root.at("/sbin")).unwrap();
        let files = root.at("/files");
        make_skeleton(&root, &files).unwrap();
        for (name, target) in [("lib64", "usr/lib64"), ("lib", "usr/lib")] {
            assert_eq!(fs::read_link(files.join(name)).unwrap(), Path::new(target));
            assert!(files.join(target).is_dir(), "{target}");
        }
        assert!(files.join("sbin").symlink_metadata().is_err());
    }

    #[test]
    fn the_modules_of_removed_packages_are_hidden() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let write = |path: &str, text: &str| {
            let path = root.at(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let lib = "/usr/lib/python3.11";
        let list = ["distutils", "distutils/util.py", "lib2to3", "lib2to3/main.py", "moved.py"];
        let list = list.map(|name| format!("{lib}/{name}\n")).concat();
        write(
            "/var/lib/dpkg/info/python3-distutils.list",
            &format!("/usr\n/usr/lib\n{lib}\n{list}/usr/share/doc/x\n"),
        );
        for name in ["distutils/__init__.py", "distutils/util.py", "lib2to3/main.py", "moved.py"] {
            write(&format!("{lib}/{name}"), "");
        }
        write(&format!("{lib}/lib2to3/__pycache__/main.cpython-311.pyc"), "");
        let files = root.at("/files");
        write("/files/usr/lib/python3.11/moved.py", "");
        let packages = BTreeSet::from(["python3-distutils".to_string()]);
        hide_modules(&root, &files, &packages).unwrap();
        let found = |name: &str| {
            let kind = files.join("usr/lib/python3.11").join(name).symlink_metadata();
            kind.map(|found| found.file_type()).ok()
        };
        assert!(found("moved.py").unwrap().is_file());
        assert!(found("distutils").unwrap().is_dir(), "another package's module is in it");
        assert_eq!(found("distutils/__init__.py"), None);
        // Devices need a right that a test may not have.
        if let Some(hidden) = found("lib2to3") {
            use std::os::unix::fs::FileTypeExt;
            assert!(hidden.is_char_device());
            assert!(found("distutils/util.py").unwrap().is_char_device());
        }
    }
}
