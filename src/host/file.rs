//! Reading files that others wrote, and writing so that a crash leaves the old or the new file.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::access::{Access, Trusted, Writer};
use super::fault::{self, Weakness, weakened};

/// Distinguishes one file from another at the same path, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct FileIdentity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size: u64,
    /// Nanoseconds since the epoch; `ctime` cannot be set back by the file's owner.
    pub(crate) changed: i64,
}

impl From<&fs::Metadata> for FileIdentity {
    fn from(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed: metadata
                .ctime()
                .saturating_mul(1_000_000_000)
                .saturating_add(metadata.ctime_nsec()),
        }
    }
}

impl From<&rustix::fs::Stat> for FileIdentity {
    fn from(stat: &rustix::fs::Stat) -> Self {
        let nanoseconds = i64::try_from(stat.st_ctime_nsec).unwrap_or(0);
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            changed: stat.st_ctime.saturating_mul(1_000_000_000).saturating_add(nanoseconds),
        }
    }
}

/// Why a file that another user wrote was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("{path}: {source}", path = printable(.path))]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is not a regular file", path = printable(.path))]
    NotRegular { path: PathBuf },
    #[error("{path} is larger than {limit} bytes", path = printable(.path))]
    TooLarge { path: PathBuf, limit: u64 },
    #[error("{path} cannot be trusted: {reason}", path = printable(.path))]
    NotOurs { path: PathBuf, reason: String },
}

impl ReadError {
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// The type of the file system that an open file is on. The field's type differs between
/// architectures, but each file system has a number of 32 bits.
pub(crate) fn file_system(file: impl AsFd) -> io::Result<u32> {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::unnecessary_cast,
        reason = "the upper half is only a sign"
    )]
    Ok(rustix::fs::fstatfs(file)?.f_type as u32)
}

/// Opens a regular file of an untrusted user: the last name is not followed if it is a link,
/// and a FIFO or a device neither blocks nor is read.
pub(crate) fn open_untrusted(path: &Path) -> Result<File, ReadError> {
    let io = |source| ReadError::Io { path: path.to_path_buf(), source };
    let opened =
        rustix::fs::open(path, untrusted(), Mode::empty()).map_err(|error| match error {
            rustix::io::Errno::LOOP | rustix::io::Errno::NXIO => {
                ReadError::NotRegular { path: path.to_path_buf() }
            }
            other => io(other.into()),
        })?;
    let file = File::from(opened);
    if file.metadata().map_err(io)?.is_file() || weakened(Weakness::ReadAnything) {
        Ok(file)
    } else {
        Err(ReadError::NotRegular { path: path.to_path_buf() })
    }
}

/// The flags for opening an untrusted user's file.
pub(super) fn untrusted() -> OFlags {
    let mut flags = OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    flags.set(OFlags::NOFOLLOW, !weakened(Weakness::FollowLinks));
    flags.set(OFlags::NONBLOCK, !weakened(Weakness::ReadAnything));
    flags
}

/// Reads a whole regular file of at most `limit` bytes.
pub(crate) fn read_untrusted(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    read_open(open_untrusted(path)?, path, limit)
}

/// Like [`read_untrusted`], for a file that venvguard obeys: it and its directory must belong
/// to root or to the current user, and nobody else may write to either.
pub(crate) fn read_own(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let io = |path: &Path, source| ReadError::Io { path: path.to_path_buf(), source };
    require_trusted(dir, &open_dir(dir).map_err(|error| io(dir, error))?)?;
    let file = open_untrusted(path)?;
    require_trusted(path, &file)?;
    read_open(file, path, limit)
}

/// Opens a directory to check its permissions. If the user may not list it, it is opened with
/// `O_PATH`.
pub(super) fn open_dir(path: &Path) -> io::Result<File> {
    let open = |access| {
        rustix::fs::open(path, access | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    };
    let opened = match open(OFlags::RDONLY) {
        Err(rustix::io::Errno::ACCESS) => open(OFlags::PATH),
        opened => opened,
    };
    Ok(opened?.into())
}

/// Refuses a file that another user could write to.
pub(super) fn require_trusted(path: &Path, file: &File) -> Result<(), ReadError> {
    let access =
        Access::of(file).map_err(|source| ReadError::Io { path: path.to_path_buf(), source })?;
    let me = [rustix::process::geteuid().as_raw()];
    let trusted = Trusted { users: &me, groups: &[] };
    let reason = match (access.writer(trusted), access.heir(trusted)) {
        (Some(Writer::Owner(owner)), _) => format!("it belongs to user {owner}"),
        _ if weakened(Weakness::ObeyAnybody) => return Ok(()),
        (Some(writer), _) => format!(
            "users other than its owner can write to it ({writer}; its mode is {:o})",
            access.mode
        ),
        (None, Some(heir)) => {
            format!("its default access list lets {heir} write to new files in it")
        }
        (None, None) => return Ok(()),
    };
    Err(ReadError::NotOurs { path: path.to_path_buf(), reason })
}

/// The most memory to reserve for a file that may turn out to be shorter.
const FIRST_BUFFER: usize = 1 << 20;

/// Reads an open file of at most `limit` bytes.
pub(crate) fn read_open(file: File, path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    let limit = at_most(limit);
    // Do not read up to the limit only to fail.
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    if length > limit {
        return Err(ReadError::TooLarge { path: path.to_path_buf(), limit });
    }
    // One more byte: then the end is seen without a larger buffer.
    let capacity = usize::try_from(length).unwrap_or(0).min(FIRST_BUFFER) + 1;
    let mut bytes = Vec::with_capacity(capacity);
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|source| ReadError::Io { path: path.to_path_buf(), source })?;
    if bytes.len() as u64 > limit {
        return Err(ReadError::TooLarge { path: path.to_path_buf(), limit });
    }
    Ok(bytes)
}

/// How much of a file to read where `limit` is allowed.
pub(super) fn at_most(limit: u64) -> u64 {
    if weakened(Weakness::ReadWithoutEnd) { u64::MAX } else { limit }
}

/// Replaces `path` by `bytes`: temporary file in the same directory, sync, rename, sync the
/// directory.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let temporary = dir.join(name);
    // A leftover of a crashed writer. All callers hold the lock except `hook trigger`: if two of
    // those run at the same time, the slower one fails, but the other has already set the mark.
    remove_if_there(&temporary)?;
    let result = (|| {
        fault::point("write")?;
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        drop(file);
        rename(&temporary, path)
    })();
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// Renames a file within its directory so that the new name survives a power loss.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fault::point("rename")?;
    fs::rename(from, to)?;
    fault::point("sync")?;
    sync_dir(to.parent().unwrap_or(Path::new("/")))
}

/// Writes to a file up to a limit; zeros become a hole, and more than the limit is an error.
#[derive(Debug)]
pub(crate) struct Sparse<'a> {
    file: &'a File,
    at: u64,
    limit: u64,
}

impl<'a> Sparse<'a> {
    pub(crate) fn new(file: &'a File, limit: u64) -> Self {
        Self { file, at: 0, limit }
    }
}

impl io::Write for Sparse<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let end = self.at.saturating_add(bytes.len() as u64);
        if end > self.limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if bytes.iter().any(|byte| *byte != 0) {
            self.file.write_all_at(bytes, self.at)?;
        }
        self.at = end;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Sparse<'_> {
    fn drop(&mut self) {
        // Trailing zeros count as well. If this fails, the reader notices the short file.
        let _ = self.file.set_len(self.at);
    }
}

/// Gives a file a second name, replacing whatever had that name. The file is kept when another
/// one takes its first name.
pub(crate) fn keep(path: &Path, second: &Path) -> io::Result<()> {
    let temporary = second.with_extension("new");
    remove_if_there(&temporary)?;
    fault::point("link")?;
    fs::hard_link(path, &temporary)?;
    fs::rename(&temporary, second)?;
    // If both already name the same file, a rename does nothing.
    remove_if_there(&temporary)
}

/// Sets the time of a file to now, creating it if necessary. It is not synced.
pub(crate) fn touch(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(0o644))?);
    file.set_modified(super::clock::system_time(super::clock::now()))
}

/// Makes new files writable only by their owner by default.
pub(crate) fn usual_umask() {
    rustix::process::umask(Mode::from_raw_mode(0o022));
}

/// Makes a rename or removal in `dir` survive a power loss.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Removes a file; a missing file is no error.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    fault::point("remove")?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A name that is safe to show: control characters and invalid UTF-8 are escaped.
pub(crate) fn printable(name: impl AsRef<std::ffi::OsStr>) -> String {
    let mut shown = String::new();
    for chunk in name.as_ref().as_bytes().utf8_chunks() {
        for character in chunk.valid().chars() {
            let is_dangerous = character.is_control() || is_bidirectional(character);
            if is_dangerous && !weakened(Weakness::PrintRaw) {
                shown.extend(character.escape_default());
            } else {
                shown.push(character);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

/// Like [`printable`], for the beginning of a text: at most `limit` bytes as shown, and no escape
/// is cut in two. The output of a child or the content of a file may be endless.
pub(crate) fn printable_within(text: &str, limit: usize) -> String {
    let mut shown = String::new();
    let mut buffer = [0; 4];
    for character in text.chars() {
        let one = printable(&*character.encode_utf8(&mut buffer));
        if shown.len() + one.len() > limit {
            return shown + CUT;
        }
        shown += &one;
    }
    shown
}

/// The beginning of a text, at most `limit` bytes.
pub(crate) fn within(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_string();
    }
    let mut end = limit.saturating_sub(CUT.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_string() + CUT
}

/// Marks the place where a text was cut short.
const CUT: &str = "…";

/// Characters that reorder or break a line on the terminal and could forge a message.
fn is_bidirectional(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn a_link_a_fifo_and_a_directory_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .unwrap();
        for path in [link.as_path(), fifo.as_path(), dir.path()] {
            assert!(
                matches!(read_untrusted(path, 10), Err(ReadError::NotRegular { .. })),
                "{}",
                path.display()
            );
        }
    }

    #[test]
    fn stat_and_metadata_give_the_same_identity() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "12345").unwrap();
        let stat = rustix::fs::stat(&path).unwrap();
        assert_eq!(FileIdentity::from(&stat), FileIdentity::from(&fs::metadata(&path).unwrap()));
    }

    #[test]
    fn a_file_that_an_access_list_lets_others_write_is_not_obeyed() {
        use super::super::access::samples::{give_access, give_default, naming};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        write_atomically(&path, b"jobs = 1", 0o644).unwrap();
        assert_eq!(read_own(&path, 10).unwrap(), b"jobs = 1");
        if !give_access(&path, &naming(54_321, 7, 7)) {
            return;
        }
        let error = read_own(&path, 10).unwrap_err().to_string();
        assert!(error.contains("can write to it (user 54321;"), "{error}");
        assert!(give_access(&path, &naming(54_321, 5, 5)));
        assert_eq!(read_own(&path, 10).unwrap(), b"jobs = 1");
        assert!(give_default(dir.path(), &naming(54_321, 7, 7)));
        let error = read_own(&path, 10).unwrap_err().to_string();
        assert!(error.contains("lets user 54321 write to new files in it"), "{error}");
    }

    #[test]
    fn a_file_over_the_limit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read_untrusted(&path, 5).unwrap(), b"12345");
        assert!(matches!(read_untrusted(&path, 4), Err(ReadError::TooLarge { limit: 4, .. })));
    }

    #[test]
    fn an_atomic_write_replaces_the_file_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registry.json");
        fs::write(dir.path().join(".registry.json.new"), "half").unwrap();
        fs::write(&path, "old").unwrap();
        write_atomically(&path, b"new", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_text_is_cut_between_characters_and_between_escapes() {
        assert_eq!(within("Ünïcode", 100), "Ünïcode");
        for limit in 3..12 {
            let cut = within("ÜÜÜÜÜÜÜÜÜÜ", limit);
            assert!(cut.len() <= limit && cut.ends_with('…'), "{cut}");
            let cut = printable_within("\x1b\x1b\x1b", limit);
            assert_eq!(cut, "\\u{1b}".repeat(limit / 6) + "…");
        }
        assert_eq!(printable_within("a\x1bb\n", 9), "a\\u{1b}b…");
        assert_eq!(printable_within("a\x1bb\n", 10), "a\\u{1b}b\\n");
    }

    #[test]
    fn terminal_escapes_do_not_reach_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
        assert_eq!(printable(std::ffi::OsStr::from_bytes(b"v\xff")), "v\\xff");
        assert_eq!(printable("Ünïcode ok"), "Ünïcode ok");
    }
}
