//! Properties of apt's output. See `crate::input`.

use proptest::prelude::*;

use super::simulate::simulated;
use super::*;
use crate::input::{bulky, few, is_harmless, near, near_text};
use crate::python::{Interpreters, Version, is_debian_version};

const LIST: &[&str] = &[
    "VERSION 3\nAPT::Architecture=amd64\nquiet=1\n\nfpy 1.0-1 amd64 allowed < 1.1-1 amd64 allowed /t/fpy_1.1-1_amd64.deb\n\
     python3-minimal 3.11.2-1+b1 amd64 allowed < 3.13.5-1 amd64 allowed /var/cache/a b.deb\n\
     python3.13-minimal - - none < 3.13.5-2 amd64 allowed /x.deb\n\
     python3.11-minimal 3.11.2-6 amd64 allowed > - - none **REMOVE**\n\
     python3.13-minimal - - none < 3.13.5-2 amd64 allowed **CONFIGURE**\n",
    "VERSION 3\nDebug::pkgDPkgPM=1\n\npython3 3.11 amd64 none = 3.11 amd64 none **ERROR**\n",
];

const LIST_WORDS: &[&str] = &[
    "VERSION 3\n",
    "VERSION 2\n",
    "APT::Architecture=amd64\n",
    "Debug::pkgDPkgPM=1",
    "\n",
    "\n\n",
    "python3",
    "python3.13",
    "python3-minimal",
    "libpython3.13-stdlib",
    ".",
    "-",
    "<",
    ">",
    "=",
    " ",
    " - - none ",
    " amd64 allowed ",
    "3.13.5-2",
    "1:3.11~rc1+b1",
    "/x.deb\n",
    "**REMOVE**\n",
    "**CONFIGURE**\n",
    "**ERROR**\n",
];

const SIMULATION: &[&str] = &["NOTE: This is only a simulation!\n\
     Inst python3-minimal [3.11.2-1+b1] (3.13.5-1 Debian:13.2/stable [amd64]) []\n\
     Inst python3.13-minimal (3.13.5-2 Debian:13.2/stable [amd64])\n\
     Conf python3-minimal (3.13.5-1 Debian:13.2/stable [amd64])\nRemv python3.11 [3.11.2-6]\n"];

const SIMULATION_WORDS: &[&str] = &[
    "Inst ",
    "Remv ",
    "Purg ",
    "Conf ",
    "python3",
    "python3.13-minimal",
    ":amd64",
    " [",
    "] ",
    " (",
    ") ",
    "3.13.5-2",
    "\n",
    " ",
    "Debian:13.2/stable",
];

const VERSIONS: &[&str] =
    &["3.11.2-6+deb12u6", "1:3.13.5-2", "3.14.0~rc1-1", "3.12.3+dfsg-1ubuntu9"];

const VERSION_WORDS: &[&str] = &[
    "3", ".", "13", "0", "~", "rc1", "+", "dfsg", "-", "1", ":", "ubuntu", "deb13u5", "999", "255",
];

/// Kept actions can be printed and compared, whatever the list contained.
fn assert_kept_is_harmless(actions: &[Action]) {
    for action in actions {
        assert!(action.is_on_python(), "{action:?}");
        let texts = [Some(&action.package), action.from.as_ref(), action.to.as_ref()];
        for text in texts.into_iter().flatten() {
            assert!(is_harmless(text) && !text.contains(' '), "{action:?}");
        }
    }
    let after = predict(&Interpreters::default(), actions);
    let _ = changes(&Interpreters::default(), &after).iter().map(ToString::to_string).count();
}

/// Only text in the alphabet gets as far as a comparison.
fn debian_version() -> impl Strategy<Value = String> {
    near_text(VERSIONS, VERSION_WORDS)
        .prop_map(|text| text.chars().filter(|c| is_debian_version(&c.to_string())).collect())
}

proptest! {
    #[test]
    fn apts_list(bytes in near(LIST, LIST_WORDS)) {
        if let Ok(transaction) = Transaction::read(bytes.as_slice()) {
            prop_assert!(bytes.starts_with(b"VERSION 3"));
            prop_assert!(transaction.actions.len() <= bytes.len() / 16);
            assert_kept_is_harmless(&transaction.actions);
        }
    }

    #[test]
    fn apts_simulation(text in near_text(SIMULATION, SIMULATION_WORDS)) {
        assert_kept_is_harmless(&simulated(&text).actions);
    }

    #[test]
    fn debian_versions(one in debian_version()) {
        let _ = Version::of_package(&format!("{one}\u{fffd}"));
        if let Ok(version) = Version::of_package(&one) {
            let text = version.to_string();
            prop_assert!(is_harmless(&text), "{:?}", text);
            prop_assert_eq!(Version::of_package(&text), Ok(version.clone()));
            prop_assert_eq!(text.parse(), Ok(version));
        }
    }
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn long_lists(list in bulky(LIST_WORDS), simulation in bulky(SIMULATION_WORDS)) {
        let _ = Transaction::read(list.as_slice());
        simulated(&crate::input::lossy(simulation));
    }
}
