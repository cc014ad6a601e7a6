//! Extended attributes, including access lists.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::XattrFlags;

/// The kernel's limit for a list of names and for a value.
const SIZE_LIMIT: usize = 64 << 10;

/// The value of the attribute that `get` reads. It is empty if there is none or if the file
/// system does not support attributes.
pub(super) fn value(
    get: impl FnOnce(&mut [u8]) -> rustix::io::Result<usize>,
) -> io::Result<Vec<u8>> {
    let mut value = vec![0; SIZE_LIMIT];
    match get(&mut value) {
        Ok(length) => value.truncate(length),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => value.clear(),
        Err(error) => return Err(error.into()),
    }
    Ok(value)
}

/// Copies the attributes that an owner can set from `from` to `to`; the others belong to root
/// or to the kernel.
pub(crate) fn copy(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let mut names = vec![0; SIZE_LIMIT];
    let length = match rustix::fs::flistxattr(&from, &mut names) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let is_owners =
        |name: &&[u8]| name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_");
    let names = names.get(..length).unwrap_or_default().split(|byte| *byte == 0);
    for name in names.filter(is_owners).map(OsStr::from_bytes) {
        let mut value = vec![0; SIZE_LIMIT];
        let length = rustix::fs::fgetxattr(&from, name, &mut value)?;
        let value = value.get(..length).unwrap_or_default();
        rustix::fs::fsetxattr(&to, name, value, XattrFlags::empty())?;
    }
    Ok(())
}

/// Lets one more user read a file that only its owner may read.
pub(crate) fn let_read(file: impl AsFd, uid: u32) -> io::Result<()> {
    const READ: u16 = 4;
    const NOBODY: u32 = u32::MAX;
    // `linux/posix_acl_xattr.h`: a version, then tag, permission and number of each entry: the
    // owner, the user, the owner's group, the mask, others.
    let entries: [(u16, u16, u32); 5] = [
        (0x01, READ, NOBODY),
        (0x02, READ, uid),
        (0x04, 0, NOBODY),
        (0x10, READ, NOBODY),
        (0x20, 0, NOBODY),
    ];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permission, number) in entries {
        list.extend(tag.to_le_bytes());
        list.extend(permission.to_le_bytes());
        list.extend(number.to_le_bytes());
    }
    Ok(rustix::fs::fsetxattr(file, "system.posix_acl_access", &list, XattrFlags::empty())?)
}
