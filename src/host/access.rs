//! Who can write to a file or a directory: its mode and its access lists (`acl(5)`), judged
//! together. With an access list, the group bits of the mode are only the list's mask.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

use super::{descriptor, xattr};

/// What the kernel stores for a file or a directory itself.
const ACCESS: &str = "system.posix_acl_access";
/// The list that a directory hands down to everything made in it.
const DEFAULT: &str = "system.posix_acl_default";

/// The version in front of a list, and the length of one entry (`linux/posix_acl_xattr.h`).
const VERSION: u32 = 2;
const ENTRY_LENGTH: usize = 8;

/// `w` in the permissions of an entry.
const WRITE: u16 = 0o2;

/// The user or group that an entry of a list names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Owner,
    User(u32),
    OwningGroup,
    Group(u32),
    Mask,
    Others,
}

/// The entries of an access list and whether each may write. It is empty if a file has no list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AccessList(Vec<(Subject, bool)>);

/// An access list that cannot come from a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its access list cannot be read")]
pub(crate) struct Malformed;

impl AccessList {
    /// Reads the value of an extended attribute; each entry has eight bytes.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let (version, entries) = bytes.split_first_chunk().ok_or(Malformed)?;
        if u32::from_le_bytes(*version) != VERSION || entries.len() % ENTRY_LENGTH != 0 {
            return Err(Malformed);
        }
        entries.chunks_exact(ENTRY_LENGTH).map(entry).collect::<Result<_, _>>().map(Self)
    }

    /// The first one to whom an entry gives `w` after the mask is applied. The caller judges the
    /// owner, who can change every list.
    fn writer(&self, group: u32, trusted: Trusted) -> Option<Writer> {
        let mask = self.0.iter().find(|(subject, _)| *subject == Subject::Mask);
        let masked = mask.is_some_and(|(_, may_write)| !may_write);
        self.0.iter().filter(|(_, may_write)| *may_write).find_map(|(subject, _)| match *subject {
            Subject::Others => Some(Writer::Everybody),
            Subject::User(uid) if !masked && !trusted.has_user(uid) => Some(Writer::User(uid)),
            Subject::Group(gid) if !masked && !trusted.has_group(gid) => Some(Writer::Group(gid)),
            Subject::OwningGroup if !masked && !trusted.has_group(group) => {
                Some(Writer::Group(group))
            }
            _ => None,
        })
    }
}

fn entry(bytes: &[u8]) -> Result<(Subject, bool), Malformed> {
    let &[t0, t1, p0, p1, i0, i1, i2, i3] = bytes else { return Err(Malformed) };
    let (permissions, id) = (u16::from_le_bytes([p0, p1]), u32::from_le_bytes([i0, i1, i2, i3]));
    let subject = match u16::from_le_bytes([t0, t1]) {
        0x01 => Subject::Owner,
        0x02 => Subject::User(id),
        0x04 => Subject::OwningGroup,
        0x08 => Subject::Group(id),
        0x10 => Subject::Mask,
        0x20 => Subject::Others,
        _ => return Err(Malformed),
    };
    if permissions > 0o7 { Err(Malformed) } else { Ok((subject, permissions & WRITE != 0)) }
}

/// Who may write. Root always may, its group only where `groups` names it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trusted<'a> {
    pub(crate) users: &'a [u32],
    pub(crate) groups: &'a [u32],
}

impl Trusted<'_> {
    /// Root, and the members of its group.
    pub(crate) const ROOT: Trusted<'static> = Trusted { users: &[], groups: &[0] };
    /// Root, and no group.
    pub(crate) const ROOT_ALONE: Trusted<'static> = Trusted { users: &[], groups: &[] };

    fn has_user(self, uid: u32) -> bool {
        uid == 0 || self.users.contains(&uid)
    }

    fn has_group(self, gid: u32) -> bool {
        self.groups.contains(&gid)
    }
}

/// An untrusted user or group that can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writer {
    /// The owner, who can give themselves every right.
    Owner(u32),
    User(u32),
    Group(u32),
    Everybody,
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner(uid) => write!(f, "its owner, user {uid},"),
            Self::User(uid) => write!(f, "user {uid}"),
            Self::Group(gid) => write!(f, "group {gid}"),
            Self::Everybody => f.write_str("everybody"),
        }
    }
}

/// Everything that decides who can write to a file or a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The permissions, without the kind of the file.
    pub(crate) mode: u32,
    /// Its own access list.
    pub(crate) own: AccessList,
    /// What it hands down, if it is a directory.
    pub(crate) inherited: AccessList,
}

impl Access {
    /// Reads it from a path; a link is not followed.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Self::of(&File::from(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Reads it from an open file.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        // fgetxattr(2) refuses a descriptor that was opened as a path. Its name in /proc leads to
        // the very same file.
        let name = descriptor::path(file);
        let attribute = |key: &str| {
            xattr::value(|buffer| match rustix::fs::fgetxattr(file, key, &mut *buffer) {
                Err(rustix::io::Errno::BADF) => rustix::fs::getxattr(&name, key, buffer),
                value => value,
            })
        };
        Self::with(&rustix::fs::fstat(file)?, attribute)
    }

    /// Reads it for a name in an open directory whose `stat` is fresh; a link is not followed.
    pub(super) fn of_name(
        dir: &impl AsRawFd,
        name: &OsStr,
        stat: &rustix::fs::Stat,
    ) -> io::Result<Self> {
        let path = descriptor::path(dir).join(name);
        Self::with(stat, |key| xattr::value(|buffer| rustix::fs::lgetxattr(&path, key, buffer)))
    }

    fn with(
        stat: &rustix::fs::Stat,
        attribute: impl Fn(&str) -> io::Result<Vec<u8>>,
    ) -> io::Result<Self> {
        let list = |key, is_wanted: bool| {
            let bytes = if is_wanted { attribute(key)? } else { Vec::new() };
            AccessList::parse(&bytes).map_err(io::Error::other)
        };
        // Without `w` in its mask, a list lets nobody named in it write.
        let may_name_writers = stat.st_mode & 0o020 != 0;
        Ok(Self {
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: stat.st_mode & 0o7777,
            own: list(ACCESS, may_name_writers)?,
            inherited: list(DEFAULT, FileType::from_raw_mode(stat.st_mode).is_dir())?,
        })
    }

    /// The first untrusted user or group that can write to it or owns it.
    pub(crate) fn writer(&self, trusted: Trusted) -> Option<Writer> {
        if !trusted.has_user(self.uid) {
            return Some(Writer::Owner(self.uid));
        }
        if self.mode & 0o002 != 0 {
            return Some(Writer::Everybody);
        }
        if !self.own.0.is_empty() {
            return self.own.writer(self.gid, trusted);
        }
        let by_group = self.mode & 0o020 != 0 && !trusted.has_group(self.gid);
        by_group.then_some(Writer::Group(self.gid))
    }

    /// The first untrusted user or group that can write to files made in this directory by others.
    /// The sticky bit does not prevent that.
    pub(crate) fn heir(&self, trusted: Trusted) -> Option<Writer> {
        self.inherited.writer(self.gid, trusted)
    }

    /// Whether an access list may be the reason why a user can write.
    pub(crate) fn has_list(&self) -> bool {
        !self.own.0.is_empty() || !self.inherited.0.is_empty()
    }

    /// The first writer or heir.
    pub(crate) fn other(&self, trusted: Trusted) -> Option<Writer> {
        self.writer(trusted).or_else(|| self.heir(trusted))
    }
}

#[cfg(test)]
pub(crate) mod samples {
    //! Access lists as the kernel stores them.

    use super::*;

    /// Entries of tag, permissions and id.
    pub(crate) fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(permissions.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    /// `user::rwx,user:ID:PERMISSIONS,group::r-x,mask::MASK,other::r-x`
    pub(crate) fn naming(uid: u32, permissions: u16, mask: u16) -> Vec<u8> {
        let nobody = u32::MAX;
        list(&[
            (0x01, 7, nobody),
            (0x02, permissions, uid),
            (0x04, 5, nobody),
            (0x10, mask, nobody),
            (0x20, 5, nobody),
        ])
    }

    /// Gives a file or a directory a list; false where its file system knows none.
    pub(crate) fn give(path: &Path, key: &str, list: &[u8]) -> bool {
        use rustix::fs::XattrFlags;
        match rustix::fs::setxattr(path, key, list, XattrFlags::empty()) {
            Ok(()) => true,
            Err(rustix::io::Errno::NOTSUP) => false,
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }

    pub(crate) fn give_access(path: &Path, list: &[u8]) -> bool {
        give(path, ACCESS, list)
    }

    pub(crate) fn give_default(path: &Path, list: &[u8]) -> bool {
        give(path, DEFAULT, list)
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{give_access, give_default, list, naming};
    use super::*;

    const NOBODY: u32 = u32::MAX;
    const WEB: Trusted<'static> = Trusted { users: &[1000], groups: &[0, 100] };

    fn access(mode: u32, own: &[u8], inherited: &[u8]) -> Access {
        Access {
            uid: 0,
            gid: 0,
            mode,
            own: AccessList::parse(own).unwrap(),
            inherited: AccessList::parse(inherited).unwrap(),
        }
    }

    #[test]
    fn a_mode_without_a_list_decides_alone() {
        let of = |uid, gid, mode| Access { uid, gid, ..access(mode, &[], &[]) }.other(WEB);
        assert_eq!(of(0, 0, 0o775), None);
        assert_eq!(of(1000, 100, 0o775), None);
        assert_eq!(of(1001, 100, 0o755), Some(Writer::Owner(1001)));
        assert_eq!(of(0, 101, 0o775), Some(Writer::Group(101)));
        assert_eq!(of(0, 101, 0o755), None);
        assert_eq!(of(0, 0, 0o757), Some(Writer::Everybody));
        assert_eq!(access(0o775, &[], &[]).other(Trusted::ROOT_ALONE), Some(Writer::Group(0)));
    }

    #[test]
    fn a_named_user_writes_only_through_the_mask() {
        let of = |uid, permissions, mask: u16| {
            let mode = 0o705 | (u32::from(mask) << 3);
            access(mode, &naming(uid, permissions, mask), &[]).other(WEB)
        };
        assert_eq!(of(1001, 7, 7), Some(Writer::User(1001)));
        assert_eq!(of(1001, 7, 5), None);
        assert_eq!(of(1001, 5, 7), None);
        assert_eq!(of(1000, 7, 7), None, "the owner of the venv");
        assert_eq!(of(0, 7, 7), None, "root");
    }

    #[test]
    fn a_named_group_and_the_owning_group_write_by_their_entries() {
        let groups = |owning, named, gid| {
            let entries = [(1, 7, NOBODY), (4, owning, NOBODY), (8, named, gid), (0x10, 7, NOBODY)];
            list(&entries)
        };
        let of = |own: Vec<u8>, gid| Access { gid, ..access(0o775, &own, &[]) }.other(WEB);
        assert_eq!(of(groups(5, 7, 101), 0), Some(Writer::Group(101)));
        assert_eq!(of(groups(5, 7, 100), 0), None);
        assert_eq!(of(groups(7, 5, 101), 102), Some(Writer::Group(102)));
        assert_eq!(of(groups(5, 5, 101), 102), None, "the group bits are the mask alone");
        // Without a mask there is no named entry, and the owning group's entry is its right.
        let minimal = list(&[(1, 7, NOBODY), (4, 6, NOBODY), (0x20, 4, NOBODY)]);
        assert_eq!(of(minimal, 101), Some(Writer::Group(101)));
    }

    #[test]
    fn a_list_that_is_handed_down_counts_as_well() {
        assert_eq!(access(0o1777, &[], &naming(1001, 7, 7)).heir(WEB), Some(Writer::User(1001)));
        assert_eq!(access(0o755, &[], &naming(1001, 7, 5)).other(WEB), None);
        let everybody = list(&[(1, 7, NOBODY), (4, 5, NOBODY), (0x20, 7, NOBODY)]);
        assert_eq!(access(0o755, &[], &everybody).other(WEB), Some(Writer::Everybody));
    }

    #[test]
    fn a_list_that_no_kernel_wrote_is_refused() {
        for bytes in [
            &b"\x02"[..],
            b"\x01\0\0\0",
            b"\x02\0\0\0\x01\0\x07\0",
            b"\x02\0\0\0\x03\0\x07\0\0\0\0\0",
            b"\x02\0\0\0\x01\0\x08\0\0\0\0\0",
        ] {
            assert_eq!(AccessList::parse(bytes), Err(Malformed), "{bytes:?}");
        }
        assert_eq!(AccessList::parse(b"\x02\0\0\0"), Ok(AccessList::default()));
        assert_eq!(AccessList::parse(b""), Ok(AccessList::default()));
    }

    #[test]
    fn lists_are_read_by_path_by_descriptor_and_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("module.py");
        std::fs::write(&path, "").unwrap();
        std::os::unix::fs::symlink("module.py", dir.path().join("link")).unwrap();
        let me = rustix::process::geteuid().as_raw();
        let trusted = Trusted { users: &[me], groups: &[] };
        assert_eq!(Access::at(&path).unwrap().other(trusted), None);
        if !give_access(&path, &naming(54_321, 7, 7)) {
            return;
        }
        let writer = Some(Writer::User(54_321));
        assert_eq!(Access::at(&path).unwrap().other(trusted), writer);
        let file = File::open(&path).unwrap();
        assert_eq!(Access::of(&file).unwrap().other(trusted), writer);
        let open = File::open(dir.path()).unwrap();
        let name = OsStr::new("module.py");
        let stat = rustix::fs::stat(&path).unwrap();
        assert_eq!(Access::of_name(&open, name, &stat).unwrap().other(trusted), writer);
        let link = Access::at(&dir.path().join("link")).unwrap();
        assert_eq!((link.mode, &link.own), (0o777, &AccessList::default()), "the link itself");
        assert_eq!(Access::at(dir.path()).unwrap().other(trusted), None);
        assert!(give_default(dir.path(), &naming(54_321, 7, 7)));
        assert_eq!(Access::at(dir.path()).unwrap().other(trusted), writer);
    }
}
