//! Copies of the wheels and source archives of this machine that venvs were installed from:
//! such a file is often gone on the day on which it is needed.
//!
//! A copy lies at `archives/SHA256/NAME`. Whoever rebuilds the venv, its owner, has to
//! read it; nobody but root can list the folder, and so only who has the file knows the way.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::Store;
use crate::host::file;

/// What is larger is not kept.
const LIMIT: u64 = 1 << 30;

const FOLDER: &str = "archives";

impl Store {
    /// Copies a file called `name`, and tells its SHA-256.
    pub(crate) fn keep_archive(&self, mut archive: File, name: &str) -> io::Result<String> {
        if archive.metadata()?.len() > LIMIT {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut digest = Sha256::new();
        // It may grow meanwhile.
        io::copy(&mut archive.by_ref().take(LIMIT), &mut digest)?;
        let hash = format!("{:x}", digest.finalize());
        if self.kept_archive(&hash, name).is_none() {
            let all = self.folder().join(FOLDER);
            let folder = all.join(&hash);
            fs::create_dir_all(self.folder())?;
            DirBuilder::new().mode(0o711).recursive(true).create(&folder)?;
            archive.rewind()?;
            file::copy_atomically(&folder.join(name), &mut archive.take(LIMIT), 0o644)?;
            file::sync_folder(&all)?;
        }
        Ok(hash)
    }

    /// Where the copy of an archive is, if there is one.
    pub(crate) fn kept_archive(&self, hash: &str, name: &str) -> Option<PathBuf> {
        let path = self.folder().join(FOLDER).join(hash).join(name);
        path.is_file().then_some(path)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::host::Root;

    #[test]
    fn a_copy_is_found_by_its_hash_and_its_folder_cannot_be_listed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(&Root::new(folder.path()));
        let wheel = folder.path().join("a-1-py3-none-any.whl");
        fs::write(&wheel, "abc").unwrap();
        for _ in 0..2 {
            let hash =
                store.keep_archive(File::open(&wheel).unwrap(), "a-1-py3-none-any.whl").unwrap();
            assert!(hash.starts_with("ba7816bf8f01cfea"), "{hash}");
            let copy = store.kept_archive(&hash, "a-1-py3-none-any.whl").unwrap();
            assert_eq!(fs::read(&copy).unwrap(), b"abc");
            let mode =
                fs::metadata(copy.parent().unwrap().parent().unwrap()).unwrap().permissions();
            assert_eq!(mode.mode() & 0o7777, 0o711);
        }
        assert_eq!(store.kept_archive("00", "a-1-py3-none-any.whl"), None);
    }
}
