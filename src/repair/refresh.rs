//! New copies of the interpreter for a venv that holds copies, within the same minor version.
//!
//! `python -m venv --upgrade` is no way: it replaces one of three files, changes the cfg
//! first, and fails on a running one.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};

use crate::host::{Folder, Root, fault, folder};
use crate::python::{self, Interpreter};
use crate::venv::Venv;

const CFG_LIMIT: u64 = 64 << 10;

/// Replaces every copied interpreter by the one that is installed now, then the version in
/// `pyvenv.cfg`. Each file is replaced by a rename: a running process keeps the old one.
pub(crate) fn refresh(root: &Root, venv: &Venv, interpreter: &Interpreter) -> io::Result<()> {
    let source = root.at(python::path_of(interpreter.version.minor()));
    let bin = folder::reach(&root.at(&venv.path).join("bin"), OFlags::RDONLY)?;
    for copy in &venv.base.copies {
        let temporary = format!(".{}.venvguard", copy.name.display());
        let mode = rustix::fs::statat(&bin, &copy.name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode & 0o777;
        let mut new = create(&bin, Path::new(&temporary))?;
        io::copy(&mut File::open(&source)?, &mut new)?;
        finish(&bin, new, venv, mode, Path::new(&temporary), &copy.name)?;
    }
    rustix::fs::fsync(&bin)?;
    update_cfg(root, venv, interpreter)
}

/// Sets `version` and `version_info`, and leaves every other byte as it is. Without a cfg
/// (virtualenv before 20) there is nothing to do.
fn update_cfg(root: &Root, venv: &Venv, interpreter: &Interpreter) -> io::Result<()> {
    let name = Path::new("pyvenv.cfg");
    let old = match Folder::open(&root.at(&venv.path))?.read(name, CFG_LIMIT) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(io::Error::other(error)),
    };
    let new = with_version(&old, &interpreter.version.to_string());
    if new == old {
        return Ok(());
    }
    let folder = folder::reach(&root.at(&venv.path), OFlags::RDONLY)?;
    let mode = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode & 0o777;
    let temporary = Path::new(".pyvenv.cfg.venvguard");
    let mut file = create(&folder, temporary)?;
    file.write_all(&new)?;
    finish(&folder, file, venv, mode, temporary, name)?;
    rustix::fs::fsync(&folder)?;
    Ok(())
}

fn create(folder: &OwnedFd, temporary: &Path) -> io::Result<File> {
    fault::point("write a copy")?;
    // A leftover of a crash.
    let _ = rustix::fs::unlinkat(folder, temporary, AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(folder, temporary, flags, Mode::from_raw_mode(0o600))?))
}

/// Gives the file its owner, mode and name.
fn finish(
    folder: &OwnedFd,
    file: File,
    venv: &Venv,
    mode: u32,
    temporary: &Path,
    name: &Path,
) -> io::Result<()> {
    rustix::fs::fchown(&file, Some(Uid::from_raw(venv.uid)), Some(Gid::from_raw(venv.gid)))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
    file.sync_all()?;
    drop(file);
    fault::point("replace a copy")?;
    rustix::fs::renameat(folder, temporary, folder, name)?;
    Ok(())
}

/// `version = 3.13.5` and `version_info = 3.13.5.final.0` (virtualenv, uv) with a new version.
fn with_version(cfg: &[u8], version: &str) -> Vec<u8> {
    let mut result = Vec::with_capacity(cfg.len());
    for line in cfg.split_inclusive(|byte| *byte == b'\n') {
        let text = String::from_utf8_lossy(line);
        let replaced = text.split_once('=').and_then(|(key, value)| {
            let value = value.trim();
            let new = match key.trim() {
                "version_info" if value.split('.').count() > 3 => {
                    let tail: Vec<&str> = value.splitn(4, '.').collect();
                    format!("{version}.{}", tail.get(3)?)
                }
                "version" | "version_info" => version.to_string(),
                _ => return None,
            };
            let end = if text.ends_with('\n') { "\n" } else { "" };
            Some(format!("{key}= {new}{end}"))
        });
        match replaced {
            Some(line) => result.extend_from_slice(line.as_bytes()),
            None => result.extend_from_slice(line),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_version_changes() {
        let cfg = b"home = /usr/bin\nversion = 3.13.5\nversion_info = 3.13.5.final.0\nprompt = my=version\nx";
        assert_eq!(
            String::from_utf8(with_version(cfg, "3.13.15")).unwrap(),
            "home = /usr/bin\nversion = 3.13.15\nversion_info = 3.13.15.final.0\nprompt = my=version\nx"
        );
        let uv = b"uv = 0.9.1\nversion_info = 3.13.5\n";
        assert_eq!(with_version(uv, "3.13.15"), b"uv = 0.9.1\nversion_info = 3.13.15\n");
    }
}
