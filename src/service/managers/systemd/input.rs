//! Properties of the reader of systemctl's output. See `crate::input`.

use proptest::prelude::*;

use super::last_lines;
use super::unit::Unit;
use crate::input::{is_harmless, near_text};

const SHOWN: &[&str] = &[
    "Type=simple\nMainPID=363\nResult=success\nNRestarts=0\nExecMainStatus=0\nLoadState=loaded\n\
     ActiveState=active\nSubState=running\nJob=\nNeedDaemonReload=no\n",
    "LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=signal\nExecMainStatus=11\nType=oneshot\n",
];

const SHOWN_WORDS: &[&str] = &[
    "LoadState=",
    "ActiveState=",
    "SubState=",
    "Type=",
    "MainPID=",
    "NRestarts=",
    "Result=",
    "Job=",
    "loaded",
    "active",
    "failed",
    "inactive",
    "oneshot",
    "success",
    "0",
    "363",
    "\n",
    "=",
    "4294967296",
    "-1",
];

proptest! {
    #[test]
    fn what_systemctl_shows(text in near_text(SHOWN, SHOWN_WORDS)) {
        let condition = Unit::read(&text).condition();
        prop_assert!(is_harmless(&condition.state), "{:?}", condition.state);
        prop_assert!(!(condition.up && condition.at_rest));
        for line in last_lines(&text) {
            prop_assert!(is_harmless(&line), "{:?}", line);
        }
    }
}
