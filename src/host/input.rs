//! Properties of names and tables as the kernel has them. See `crate::input`.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::access::{self, Access, Trusted, Writer};
use super::file::printable;
use super::root::normal;
use super::*;
use crate::input::{is_harmless, near, near_text};

/// `user::rwx`, `user:1001:rw-`, `group::r-x`, `mask::rwx`, `other::r-x`, as text where it is one.
const LISTS: &[&str] = &[
    "\u{2}\0\0\0\u{1}\0\u{7}\0\0\0\0\0\u{2}\0\u{6}\0\u{4}\0\u{3}\0\u{4}\0\u{5}\0\0\0\0\0\u{10}\0\u{7}\0\0\0\0\0 \0\u{5}\0\0\0\0\0",
];

const LIST_WORDS: &[&str] = &[
    "\u{2}\0\0\0",
    "\u{1}\0",
    "\u{2}\0",
    "\u{4}\0",
    "\u{8}\0",
    "\u{10}\0",
    " \0",
    "\u{7}\0",
    "\u{5}\0",
    "\0\0\0\0",
];

/// An entry of a list: its tag, its permissions and its id.
fn list_entry() -> impl Strategy<Value = (u16, u16, u32)> {
    (select(&[1_u16, 2, 4, 8, 16, 32][..]), 0..8_u16, 0..5_u32)
}

const TABLE: &[&str] = &["22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
     40 22 0:33 / /srv/a\\040b/my\\134data rw - tmpfs tmpfs rw\n"];

const TABLE_WORDS: &[&str] =
    &["22 ", "1 ", "0:33 ", "/ ", "/srv", "\\040", "\\134", "\\", "\n", " ", "- ", "rw "];

const URLS: &[&str] =
    &["error: https://user:pass@x.org/simple failed\nlib @ git+https://token@x.org/lib.git@4f2a"];

const URL_WORDS: &[&str] =
    &["://", "https", ":", "@", "/", "user", "?", "#", " ", "\n", "é", "[::1]"];

const NAMES: &[&str] = &["/srv/shop/venv", "v\u{1b}[2Jx", "a\u{202e}b\u{61c}c\u{2028}d"];

const NAME_WORDS: &[&str] =
    &["/", "a", "..", ".", "\\", "\u{7f}", "\u{9b}", "\u{200f}", "\u{2069}", "é"];

proptest! {
    #[test]
    fn an_access_list(bytes in near(LISTS, LIST_WORDS)) {
        if let Ok(list) = access::AccessList::parse(&bytes) {
            let (own, inherited) = (list.clone(), list);
            let access = Access { uid: 0, gid: 0, mode: 0o755, own, inherited };
            let writer = access.writer(Trusted::ROOT_ALONE);
            prop_assert!(!matches!(writer, Some(Writer::Owner(_) | Writer::User(0))), "{:?}", writer);
            prop_assert_eq!(writer, access.heir(Trusted::ROOT_ALONE));
        }
    }

    #[test]
    fn a_list_grants_writing_to_the_same_users_as_in_the_kernel(
        entries in vec(list_entry(), 0..8), gid in 0..5_u32, mode in 0..0o1000_u32,
    ) {
        let list = access::AccessList::parse(&access::samples::list(&entries)).unwrap();
        let access = Access { uid: 0, gid, mode, own: list, ..Access::default() };
        let trusted = Trusted { users: &[1], groups: &[0, 1] };
        let is_masked = entries.iter().find(|one| one.0 == 16).is_some_and(|one| one.1 & 2 == 0);
        let others = entries.iter().any(|&(tag, permissions, id)| permissions & 2 != 0 && match tag {
            2 | 8 => id > 1 && !is_masked,
            4 => gid > 1 && !is_masked,
            32 => true,
            _ => false,
        });
        let by_mode = mode & 2 != 0 || entries.is_empty() && mode & 0o20 != 0 && gid > 1;
        prop_assert_eq!(access.writer(trusted).is_some(), others || by_mode);
    }

    #[test]
    fn the_kernels_table(bytes in near(TABLE, TABLE_WORDS)) {
        let length: usize = mount::points(&bytes).map(|point| point.as_os_str().len()).sum();
        prop_assert!(length <= bytes.len());
    }

    #[test]
    fn a_mount_point_is_read_as_the_kernel_writes_it(name in vec(1..=255_u8, 1..20)) {
        let mut written = String::from("/");
        let mut bytes = b"/".to_vec();
        for byte in name {
            match byte {
                b' ' | b'\t' | b'\n' | b'\\' => write!(written, "\\{byte:03o}").unwrap(),
                byte if byte.is_ascii() => written.push(char::from(byte)),
                _ => continue,
            }
            bytes.push(byte);
        }
        let line = format!("40 22 0:33 / {written} rw - tmpfs tmpfs rw\n");
        prop_assert!(mount::points(line.as_bytes()).eq([Path::new(OsStr::from_bytes(&bytes))]));
    }

    #[test]
    fn printed_names(bytes in near(NAMES, NAME_WORDS)) {
        let shown = printable(OsStr::from_bytes(&bytes));
        prop_assert!(is_harmless(&shown), "{:?}", shown);
        prop_assert_eq!(printable(&shown), shown.as_str(), "harmless text is unchanged");
    }

    #[test]
    fn credentials_in_urls(text in near_text(URLS, URL_WORDS)) {
        let shown = redacted(&text);
        prop_assert!(shown.len() <= text.len() + 8 * text.matches("://").count());
        prop_assert_eq!(shown.matches("://").count(), text.matches("://").count());
    }

    #[test]
    fn no_password_is_left_in_a_url(
        name in "[a-z%@]{0,6}", secret in "[A-Z0-9%:@'!]{1,9}Z", rest in "[a-z@/?&=]{0,12}",
    ) {
        let shown = redacted(&format!("get https://{name}:{secret}@x.org/{rest} now"));
        prop_assert!(!shown.contains(&secret), "{}", shown);
        let end = format!("@x.org/{rest} now");
        prop_assert!(shown.ends_with(&end), "{}", shown);
    }

    #[test]
    fn paths_without_dots(text in near_text(NAMES, NAME_WORDS)) {
        let path = Path::new("/").join(&text);
        let result = normal(&path);
        prop_assert!(result.is_absolute() && !result.components().any(|part| part.as_os_str() == ".."));
        prop_assert_eq!(normal(&result), result.clone());
        let root = Root::new("/box");
        prop_assert!(normal(&root.at(&result)).starts_with("/box"));
    }

    #[test]
    fn every_deadline_is_a_point_in_time(seconds: u64) {
        prop_assert_eq!(clock::Deadline::after(Duration::from_secs(seconds)).has_passed(), seconds == 0);
    }
}
