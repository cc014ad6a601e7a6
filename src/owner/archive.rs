//! Reading an archive of the owner, to keep a copy of it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Task, is_own, process};
use crate::host::clock::Deadline;
use crate::host::file::{self, Sparse, printable};
use crate::host::path_text::PathText;
use crate::host::user::User;
use crate::host::{Root, confine, hexadecimal};

/// The types of `/proc` and `/sys` in `statfs(2)`: their files have no defined length, and each
/// reader may see different content.
const PROC: u32 = 0x9fa0;
const SYS: u32 = 0x6265_6572;

/// Asks for the length and the SHA-256 of an archive.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Digest {
    pub(crate) path: PathText,
    /// The longest archive that is accepted.
    pub(crate) limit: u64,
}

impl Task for Digest {
    const NAME: &'static str = "digest";
    type Answer = (u64, String);

    fn perform(&self, root: &Root, deadline: Deadline) -> io::Result<(u64, String)> {
        let (mut file, length) = open(&root.at(&self.path.0), self.limit)?;
        let mut digest = Sha256::new();
        let mut left = length;
        let mut chunk = vec![0; 1 << 20];
        while left > 0 {
            let read = file.read(&mut chunk)?;
            let read = usize::try_from(left).map_or(read, |left| read.min(left));
            if read == 0 || deadline.has_passed() {
                return Err(io::Error::other("it became shorter or takes too long to read"));
            }
            digest.update(chunk.get(..read).unwrap_or_default());
            left = left.saturating_sub(read as u64);
        }
        Ok((length, hexadecimal(&digest.finalize())))
    }
}

/// Writes an archive to standard output, which root reads.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Send {
    pub(crate) path: PathText,
    pub(crate) limit: u64,
}

impl Send {
    pub(super) const NAME: &'static str = "send";

    pub(super) fn copy(&self, root: &Root, mut to: impl Write) -> io::Result<()> {
        let (file, length) = open(&root.at(&self.path.0), self.limit)?;
        io::copy(&mut file.take(length), &mut to).map(drop)
    }
}

/// Lets the owner send an archive, and writes it to a file. The owner's process does not get the
/// file itself, because it could continue to write to it.
pub(crate) fn send(
    root: &Root,
    owner: &User,
    limit: Duration,
    task: &Send,
    to: &File,
) -> io::Result<()> {
    if is_own(root, owner.uid) {
        return task.copy(root, Sparse::new(to, task.limit));
    }
    let input = serde_json::to_vec(task)?;
    let program = process(Send::NAME, input, limit).output_to(to.try_clone()?, task.limit);
    confine::confined(root, program, owner, &[], Path::new("/"))
        .run()
        .map(drop)
        .map_err(io::Error::other)
}

/// Opens a regular file and returns its length.
fn open(path: &Path, limit: u64) -> io::Result<(File, u64)> {
    let file = file::open_untrusted(path).map_err(io::Error::other)?;
    if [PROC, SYS].contains(&file::file_system(&file)?) {
        return Err(io::Error::other(format!("{} is not an archive", printable(path))));
    }
    let length = file.metadata()?.len();
    if length > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok((file, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_archive_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new("/");
        let path = directory.path().join("a-1-py3-none-any.whl");
        std::fs::write(&path, "abc").unwrap();
        let ask = |path: &Path, limit| {
            let task = Digest { path: path.into(), limit };
            task.perform(&root, Deadline::after(Duration::from_secs(9)))
        };
        let (length, hash) = ask(&path, 3).unwrap();
        assert_eq!((length, &hash[..16]), (3, "ba7816bf8f01cfea"));
        assert!(ask(&path, 2).is_err(), "it is longer than the limit");
        assert!(ask(directory.path(), 3).is_err());
        // qemu-user imitates some files of /proc, but not this one.
        for path in
            ["/proc/self/status", "/sys/kernel/mm/transparent_hugepage/enabled", "/dev/zero"]
        {
            assert!(ask(Path::new(path), 1 << 20).is_err(), "{path}");
        }
    }
}
