//! Properties of names and tables as the kernel has them. See `crate::input`.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::file::printable;
use super::root::normal;
use super::*;
use crate::input::{is_harmless, near, near_text};

const TABLE: &[&str] = &[
    "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
     40 22 0:33 / /srv/a\\040b/my\\134data rw - tmpfs tmpfs rw\n",
];

const TABLE_WORDS: &[&str] = &["22 ", "1 ", "0:33 ", "/ ", "/srv", "\\040", "\\134", "\\", "\n", " ", "- ", "rw "];

const NAMES: &[&str] = &["/srv/shop/venv", "v\u{1b}[2Jx", "a\u{202e}b\u{61c}c\u{2028}d"];

const NAME_WORDS: &[&str] = &["/", "a", "..", ".", "\\", "\u{7f}", "\u{9b}", "\u{200f}", "\u{2069}", "é"];

proptest! {
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
    fn what_is_printed(bytes in near(NAMES, NAME_WORDS)) {
        let shown = printable(OsStr::from_bytes(&bytes));
        prop_assert!(is_harmless(&shown), "{:?}", shown);
        prop_assert_eq!(printable(&shown), shown.as_str(), "what is harmless stays as it is");
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
