//! Properties of the readers of interpreters. See `crate::input`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::elf::sample::linked;
use super::*;
use crate::input::{bulky, few, is_harmless, near, near_text};

const STATUS: &[&str] = &[
    "Package: python3.11-minimal\nStatus: install ok installed\nArchitecture: amd64\nVersion: 3.11.2-6\n\n\
     Package: python3\nStatus: install reinstreq half-configured\nArchitecture: amd64\nVersion: 3.11.2-1+b1\n\
     Description: text\n Package: not-this\n .\n more\n\n",
];

const STATUS_WORDS: &[&str] = &[
    "Package: ",
    "Package:",
    "python3",
    "python3.11-minimal",
    "libpython3.13-stdlib",
    "\n",
    "\n\n",
    "Status: ",
    "install ok installed",
    "deinstall ok config-files",
    "install reinstreq",
    "Architecture: ",
    "amd64",
    "Version: ",
    "3.11.2-6",
    " ",
    ":",
];

const PROGRAMS: &[&str] = &["python3.11", "python3", "python3.011", "python255.255"];

const PROGRAM_WORDS: &[&str] = &[
    "python",
    "3",
    ".",
    "11",
    "0",
    "256",
    "+3",
    "-",
    "/usr/bin/",
    "/bin/",
    "lib",
    "t64",
    "-minimal",
];

/// A python binary with typical content, with some bytes changed: most changes are in its
/// tables, where one number leads to another place in the file.
fn binary() -> impl Strategy<Value = Vec<u8>> {
    let changes =
        vec((any::<Index>(), any::<bool>(), prop_oneof![Just(0), Just(0xff), any::<u8>()]), 0..12);
    let hexversion = proptest::option::of(any::<u64>());
    let contents =
        (hexversion, vec(any::<u8>(), 0..40), "[a-z.0-9]{0,20}", "(\0|3\\.[0-9.]{2,8}|rc1){0,6}");
    (contents, changes, any::<Option<Index>>()).prop_map(|(contents, changes, cut)| {
        let (hexversion, build_id, needed, rodata) = contents;
        let mut bytes = linked(hexversion, rodata.as_bytes(), &build_id, needed.as_bytes());
        let length = bytes.len();
        for (at, in_tables, value) in changes {
            // The section headers are at the end, 64 bytes each.
            let at =
                if in_tables { length - 1 - at.index(600.min(length)) } else { at.index(length) };
            bytes[at] = value;
        }
        if let Some(cut) = cut.filter(|cut| cut.index(4) == 0) {
            bytes.truncate(cut.index(length));
        }
        bytes
    })
}

fn read(bytes: &[u8]) -> Result<Binary, ElfError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    read_opened(file, Path::new("python"))
}

proptest! {
    #[test]
    fn binaries(bytes in binary()) {
        if let Ok(Binary { version, build_id, .. }) = read(&bytes) {
            if let Some(version) = version {
                prop_assert_eq!(version.to_string().parse(), Ok(version));
            }
            if let Some(BuildId(id)) = build_id {
                prop_assert!(id.len() <= 128 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
            }
        }
    }

    #[test]
    fn noise_for_a_binary(front in "\x7fELF[\x01\x02][\x01\x02]\x01", noise in vec(any::<u8>(), 0..600)) {
        let _ = read(&[front.as_bytes(), &noise].concat());
    }

    #[test]
    fn dpkgs_status(bytes in near(STATUS, STATUS_WORDS)) {
        let mut found = BTreeMap::new();
        dpkg::stanzas(bytes.as_slice(), &|name| name.starts_with("python3"), &mut found).unwrap();
        for (name, entry) in found {
            prop_assert!(name.starts_with("python3"));
            let (package, state) = (name, format!("{entry:?}"));
            let told = dpkg::Unsettled { package, state };
            prop_assert!(is_harmless(&told.to_string()));
        }
    }

    #[test]
    fn names_of_interpreters(name in near_text(PROGRAMS, PROGRAM_WORDS)) {
        if let Some(minor) = Minor::of_program(&name) {
            prop_assert_eq!(minor.program(), name.as_str(), "no other name belongs to the same interpreter");
        }
        if let Some(minor) = debian_minor(Path::new(&name)) {
            prop_assert!(Path::new(&name).ends_with(minor.program()));
        }
    }

    #[test]
    fn versions(major: u8, minor: u8, patch: u8, release in "((a|b|rc)[0-9]{1,3})?") {
        let text = format!("{major}.{minor}.{patch}{release}");
        let version: Version = text.parse().unwrap();
        prop_assert_eq!(version.minor(), Minor::new(major, minor));
        prop_assert_eq!(version.to_string(), text);
        let json = serde_json::to_string(&version).unwrap();
        prop_assert_eq!(serde_json::from_str::<Version>(&json).unwrap(), version);
    }
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn a_long_status(bytes in bulky(STATUS_WORDS)) {
        dpkg::stanzas(bytes.as_slice(), &|_| true, &mut BTreeMap::new()).unwrap();
    }
}
