//! The interpreters in a venv's `bin`: links that are pinned and unpinned, copies that are
//! refreshed.
//!
//! Each is replaced by a rename, so that `bin/python` works at every instant and a running process
//! keeps its file. The copies are replaced together, once all are on the disk.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use serde::{Deserialize, Serialize};

use super::Task;
use crate::host::clock::Deadline;
use crate::host::file::printable;
use crate::host::path_text::PathText;
use crate::host::{Dir, Root, fault, parallel};
use crate::python::{Minor, Version, path_of};

const CFG_LIMIT: u64 = 64 << 10;

/// Changes the targets of links in `bin`. A link with neither the old nor the new target was
/// made by the user, and stays.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Relink {
    pub(crate) venv: PathText,
    pub(crate) names: Vec<RelinkedName>,
}

/// A link with its old and its new target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RelinkedName {
    pub(crate) name: PathText,
    pub(crate) from: PathText,
    pub(crate) to: PathText,
}

impl Task for Relink {
    const NAME: &'static str = "relink";
    /// Each waits for the disk, and the file system syncs the changes of several together.
    const AT_ONCE: usize = 32;
    /// How many links have the new target.
    type Answer = usize;

    fn perform(&self, root: &Root, _: Deadline) -> io::Result<usize> {
        let top = Dir::open(&root.at(&self.venv.0))?;
        let bin = own_dir(&top, "bin")?;
        let mut changed = 0;
        for RelinkedName { name, from, to } in &self.names {
            let Ok(found) = bin.read_link(&name.0) else { continue };
            if found == to.0 {
                changed += 1;
                continue;
            }
            if found != from.0 {
                continue;
            }
            let stat = bin.stat(&name.0)?;
            let temporary = PathBuf::from(format!(".{}.venvguard", name.0.display()));
            // A leftover of an interruption between the next two calls.
            bin.unlink(&temporary)?;
            fault::point("make a link")?;
            rustix::fs::symlinkat(&to.0, bin.descriptor(), &temporary)?;
            let made = bin.stat(&temporary)?;
            if (made.st_uid, made.st_gid) != (stat.st_uid, stat.st_gid) {
                // Only root can; for others the owner of a link does not matter.
                let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
                let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
                let _ =
                    rustix::fs::chownat(bin.descriptor(), &temporary, Some(uid), Some(gid), flags);
            }
            fault::point("replace a link")?;
            bin.rename(&temporary, &name.0)?;
            changed += 1;
        }
        bin.sync()?;
        Ok(changed)
    }
}

/// Replaces copies of an interpreter with the one that is installed now, then updates the version
/// in `pyvenv.cfg`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refresh {
    pub(crate) venv: PathText,
    /// The names of the copies in `bin`.
    pub(crate) copies: Vec<PathText>,
    pub(crate) minor: Minor,
    pub(crate) version: Version,
}

impl Task for Refresh {
    const NAME: &'static str = "refresh";
    type Answer = ();

    fn perform(&self, root: &Root, _: Deadline) -> io::Result<()> {
        let top = Dir::open(&root.at(&self.venv.0))?;
        let bin = own_dir(&top, "bin")?;
        let source = root.at(path_of(self.minor));
        let copy = |new: &mut File| io::copy(&mut File::open(&source)?, new).map(drop);
        let names = self.copies.iter().map(|copy| copy.0.as_path());
        replace_all(&bin, names.map(|name| Replacement::write(&bin, name, copy)))?;
        let name = Path::new("pyvenv.cfg");
        // virtualenv before 20 wrote none.
        let old = match top.read(name, CFG_LIMIT) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(io::Error::other(error)),
        };
        let new = with_version(&old, &self.version.to_string());
        if new != old {
            let write = |file: &mut File| file.write_all(&new);
            replace_all(&top, [Replacement::write(&top, name, write)])?;
        }
        Ok(())
    }
}

/// Opens a directory of the tree that belongs to this process's user: nobody else changes it.
fn own_dir(top: &Dir, name: &str) -> io::Result<Dir> {
    let dir = top.dir(name)?;
    if dir.own_stat()?.st_uid == top.own_stat()?.st_uid {
        return Ok(dir);
    }
    let path = printable(dir.path());
    Err(io::Error::other(format!("{path} does not belong to the venv's owner")))
}

/// A new file beside the one that it replaces, with the same owner and mode. It is removed unless
/// it gets there.
struct Replacement<'a> {
    dir: &'a Dir,
    name: &'a Path,
    temporary: PathBuf,
    file: File,
}

impl<'a> Replacement<'a> {
    fn write(
        dir: &'a Dir,
        name: &'a Path,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<Self> {
        let stat = dir.stat(name)?;
        let temporary = PathBuf::from(format!(".{}.venvguard", name.display()));
        fault::point("write a copy")?;
        // A leftover of an interruption.
        dir.unlink(&temporary)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let (flags, mode) = (flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o600));
        let file = File::from(rustix::fs::openat(dir.descriptor(), &temporary, flags, mode)?);
        let mut new = Self { dir, name, temporary, file };
        write(&mut new.file)?;
        let created = rustix::fs::fstat(&new.file)?;
        if (created.st_uid, created.st_gid) != (stat.st_uid, stat.st_gid) {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            // Only root can; the files of the owner's own process belong to them anyway.
            let _ = rustix::fs::fchown(&new.file, Some(uid), Some(gid));
        }
        rustix::fs::fchmod(&new.file, Mode::from_raw_mode(stat.st_mode & 0o777))?;
        Ok(new)
    }
}

impl Drop for Replacement<'_> {
    fn drop(&mut self) {
        let _ = self.dir.unlink(&self.temporary);
    }
}

/// Puts files of one directory in place once all are written, and waits until the disk has that.
fn replace_all<'a>(
    dir: &Dir,
    new: impl IntoIterator<Item = io::Result<Replacement<'a>>>,
) -> io::Result<()> {
    let new: Vec<Replacement> = new.into_iter().collect::<io::Result<_>>()?;
    // The file system syncs several together.
    let synced = parallel::map(&new, new.len(), |one| one.file.sync_all());
    synced.into_iter().collect::<io::Result<()>>()?;
    for Replacement { name, temporary, .. } in &new {
        fault::point("replace a copy")?;
        dir.rename(temporary, name)?;
    }
    dir.sync()
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
    use std::fs;

    use super::*;

    #[test]
    fn all_copies_are_replaced_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path().canonicalize().unwrap());
        let (system, bin) = (root.at("/usr/bin"), root.at("/srv/venv/bin"));
        fs::create_dir_all(&system).unwrap();
        fs::create_dir_all(&bin).unwrap();
        fs::write(system.join("python3.11"), "new").unwrap();
        fs::write(bin.join("python3"), "old").unwrap();
        let refresh = |names: &[&str]| {
            let task = Refresh {
                venv: PathText("/srv/venv".into()),
                copies: names.iter().map(|name| PathText(name.into())).collect(),
                minor: Minor::new(3, 11),
                version: "3.11.9".parse().unwrap(),
            };
            task.perform(&root, Deadline::never())
        };
        let content = |name: &str| fs::read_to_string(bin.join(name)).unwrap();
        assert!(refresh(&["python3", "python"]).is_err(), "there is no `python`");
        assert_eq!(content("python3"), "old");
        fs::write(bin.join("python"), "old").unwrap();
        refresh(&["python3", "python"]).unwrap();
        assert_eq!(["python3", "python"].map(content), ["new", "new"]);
        assert_eq!(fs::read_dir(&bin).unwrap().count(), 2, "nothing is left over");
    }

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
