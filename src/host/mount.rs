//! The table of mounts.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

const TABLE: &str = "/proc/self/mountinfo";

/// The mount points at a path and below it.
pub(crate) fn below(path: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(points(&std::fs::read(TABLE)?).filter(|point| point.starts_with(path)).collect())
}

/// The fifth field of each line, in which the kernel escapes blanks and backslashes as octal
/// numbers (see `proc_pid_mountinfo(5)`).
pub(super) fn points(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|field| PathBuf::from(OsString::from_vec(unescaped(field))))
}

fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let number = after
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        if let Some(byte) = number {
            bytes.push(byte);
            rest = after.get(3..).unwrap_or_default();
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let table = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
            40 22 0:33 / /srv/a\\040b/my\\134data rw - tmpfs tmpfs rw\n\
            41 22 0:34 / /srv/ab rw - tmpfs tmpfs rw\n";
        let found: Vec<PathBuf> = points(table).collect();
        assert_eq!(found, ["/", "/srv/a b/my\\data", "/srv/ab"].map(PathBuf::from));
        assert!(!found[2].starts_with("/srv/a"), "a sibling is not below");
        assert_eq!(below(Path::new("/proc")).unwrap().first(), Some(&"/proc".into()));
    }
}
