//! Copies of the wheels and source archives of this machine that venvs were installed from:
//! such a file is often gone by the time it is needed.
//!
//! A copy is at `archives/UID/SHA256/NAME`. It belongs to root, and an access list lets the owner
//! of the venv read it for a rebuild. Nobody else may: the original may have been private.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::Store;
use crate::host::{fault, file, xattr};

/// Larger archives are not kept.
pub(crate) const LIMIT: u64 = 512 << 20;

/// The total length of all archives of one owner. Holes count: root reads them all.
pub(crate) const QUOTA: u64 = 512 << 20;

const DIR: &str = "archives";

impl Store {
    /// Keeps an archive of `length` bytes with this hash for an owner; `send` writes it.
    pub(crate) fn keep_archive(
        &self,
        uid: u32,
        (length, hash): (u64, &str),
        name: &str,
        send: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<()> {
        // The hash comes from the owner and becomes the name of a directory.
        let is_hash = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if hash.len() != 64 || !hash.bytes().all(is_hash) || name.contains('/') {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if self.kept_archive(uid, hash, name).is_some() {
            return Ok(());
        }
        let own = self.archives_of(uid);
        if length > LIMIT || used(&own).saturating_add(length) > QUOTA {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let dir = own.join(hash);
        fs::create_dir_all(self.dir())?;
        DirBuilder::new().mode(0o711).recursive(true).create(&dir)?;
        let (path, temporary) = (dir.join(name), dir.join(".new"));
        file::remove_if_there(&temporary)?;
        let result = (|| {
            fault::point("write an archive")?;
            let file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            send(&file)?;
            if file.metadata()?.len() != length {
                return Err(io::Error::other("it changed while it was being copied"));
            }
            file.set_permissions(Permissions::from_mode(0o400))?;
            // The file stays root's: its owner could make it longer.
            if rustix::process::geteuid().as_raw() != uid {
                xattr::let_read(&file, uid)?;
            }
            file.sync_all()?;
            file::rename(&temporary, &path)
        })();
        if result.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        result?;
        file::sync_dir(&own)
    }

    /// The path of the copy of an archive, if there is one.
    pub(crate) fn kept_archive(&self, uid: u32, hash: &str, name: &str) -> Option<PathBuf> {
        let is_hash = hash.bytes().all(|byte| byte.is_ascii_hexdigit()) && !hash.is_empty();
        let path = self.archives_of(uid).join(hash).join(name);
        (is_hash && path.symlink_metadata().is_ok_and(|found| found.is_file())).then_some(path)
    }

    /// Removes the archives that were kept before a moment and whose hashes no recipe names.
    pub(crate) fn prune_archives(
        &self,
        needed: &BTreeSet<String>,
        before: Timestamp,
    ) -> io::Result<()> {
        let before = crate::host::clock::system_time(before);
        for owner in entries(&self.dir().join(DIR)) {
            for archive in entries(&owner) {
                let name = archive.file_name().unwrap_or_default().to_string_lossy();
                let kept_at = archive.symlink_metadata().and_then(|found| found.modified());
                if needed.contains(&*name) || kept_at.is_ok_and(|at| at >= before) {
                    continue;
                }
                for file in entries(&archive) {
                    file::remove_if_there(&file)?;
                }
                fs::remove_dir(&archive)?;
            }
        }
        Ok(())
    }

    fn archives_of(&self, uid: u32) -> PathBuf {
        self.dir().join(DIR).join(uid.to_string())
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// The total length of all copies kept for an owner.
fn used(own: &Path) -> u64 {
    let files = entries(own).into_iter().flat_map(|dir| entries(&dir));
    files.filter_map(|file| Some(file.symlink_metadata().ok()?.size())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Root;

    const NAME: &str = "a-1-py3-none-any.whl";
    const HASH: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_copy_is_only_for_its_owner_and_is_removed_when_no_recipe_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(&Root::new(dir.path()));
        let uid = rustix::process::geteuid().as_raw();
        for _ in 0..2 {
            let send = |mut file: &File| io::Write::write_all(&mut file, b"abc");
            store.keep_archive(uid, (3, HASH), NAME, send).unwrap();
            let copy = store.kept_archive(uid, HASH, NAME).unwrap();
            assert_eq!(fs::read(&copy).unwrap(), b"abc");
            let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
            assert_eq!(mode(&copy), 0o400);
            assert_eq!(mode(copy.parent().unwrap().parent().unwrap()), 0o711);
        }
        assert_eq!(store.kept_archive(uid + 1, HASH, NAME), None);
        assert_eq!(store.kept_archive(uid, "..", NAME), None);
        let later = crate::host::clock::now() + std::time::Duration::from_secs(60);
        store.prune_archives(&BTreeSet::from([HASH.to_string()]), later).unwrap();
        store.prune_archives(&BTreeSet::new(), Timestamp::UNIX_EPOCH).unwrap();
        assert!(store.kept_archive(uid, HASH, NAME).is_some());
        store.prune_archives(&BTreeSet::new(), later).unwrap();
        assert_eq!(store.kept_archive(uid, HASH, NAME), None);
    }

    #[test]
    fn archives_that_are_too_large_or_change_their_length_are_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(&Root::new(dir.path()));
        let uid = rustix::process::geteuid().as_raw();
        let hash = |digit: &str| digit.repeat(64);
        // Nothing but a hole.
        let send = |file: &File| file.set_len(LIMIT);
        store.keep_archive(uid, (LIMIT, &hash("0")), NAME, send).unwrap();
        let error = store.keep_archive(uid, (1, &hash("2")), NAME, |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
        let other = uid + 1;
        assert!(store.keep_archive(other, (1, &hash("2")), NAME, |_| Ok(())).is_err());
        assert_eq!(store.kept_archive(other, &hash("2"), NAME), None);
    }

    #[test]
    fn an_invalid_hash_names_no_directory() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(&Root::new(dir.path().join("system")));
        let elsewhere = dir.path().join("elsewhere");
        for hash in [elsewhere.to_str().unwrap(), "../../x", "", "00", &"A".repeat(64)] {
            assert!(store.keep_archive(7, (0, hash), NAME, |_| Ok(())).is_err(), "{hash}");
        }
        assert!(store.keep_archive(7, (0, HASH), "../x", |_| Ok(())).is_err());
        assert!(!elsewhere.exists());
    }

    #[test]
    fn a_copy_belongs_to_root_and_one_user_may_read_it() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(&Root::new(dir.path()));
        store.keep_archive(4711, (0, HASH), NAME, |_| Ok(())).unwrap();
        let copy = store.kept_archive(4711, HASH, NAME).unwrap();
        let found = fs::metadata(&copy).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o7007), (0, 0));
        let mut list = [0; 64];
        let length = rustix::fs::getxattr(&copy, "system.posix_acl_access", &mut list).unwrap();
        assert!(list[..length].windows(4).any(|part| part == 4711_u32.to_le_bytes()));
    }
}
