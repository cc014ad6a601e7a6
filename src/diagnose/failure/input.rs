//! Properties of the texts of failures, which anybody may have written. See `crate::input`.

use proptest::prelude::*;

use super::text::{Failure, TEXT_LIMIT};
use super::*;
use crate::host::Root;
use crate::input::{bulky, few, is_harmless, near};
use crate::store::{History, Registry};

const TEXTS: &[&str] = &[
    include_str!("samples/known/gevent-preload.txt"),
    include_str!("samples/known/scheduler-forked.txt"),
    include_str!("samples/known/no-encodings-3.12.txt"),
    include_str!("samples/known/glibc.txt"),
    include_str!("samples/known/stranded-systemd.txt"),
    include_str!("samples/known/orphaned-script.txt"),
    include_str!("samples/known/uwsgi-plugin.txt"),
    include_str!("samples/ordinary/group.txt"),
];

const WORDS: &[&str] = &[
    "Traceback (most recent call last):\n",
    "  File \"/srv/app/venv/bin/x\", line 3, in f\n",
    "  File \"",
    "\", line ",
    "    super(SSLContext, SSLContext).options\n",
    "ModuleNotFoundError: No module named '",
    "ImportError: cannot import name '",
    "' from 'ssl' (/usr/lib/python3.11/ssl.py)\n",
    "RecursionError: ",
    "MonkeyPatchWarning: Monkey-patching ssl after",
    "(NOT patched): ['",
    "']",
    "Running job \"x\" (scheduled at 1.5)\n",
    "Fatal Python error: init_fs_encoding:",
    "PYTHONHOME = '",
    ": version `GLIBC_2.42' not found (required by ",
    "error while loading shared libraries: libx.so.1: cannot open shared object file",
    "Nov 29 19:48:03 web gunicorn[812]: ",
    "bad interpreter: ",
    "/srv/../etc/bin/python ",
    "| ",
    "\n",
];

fn causes(bytes: &[u8]) -> Vec<Cause> {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path());
    let text = FailureText::read(bytes);
    let (registry, history) = (Registry::default(), History::default());
    causes_of(&text, &Machine::look(&root, &text.venvs(), &registry, &history))
}

proptest! {
    #[test]
    fn a_text_of_a_failure(bytes in near(TEXTS, WORDS)) {
        for cause in causes(&bytes) {
            for line in cause.evidence.iter().chain([&cause.remedy, &cause.title]) {
                prop_assert!(is_harmless(line), "{:?}", line);
                prop_assert!(line.len() <= EVIDENCE + 8, "{}", line.len());
            }
        }
        for venv in Failure::read(&bytes).venvs() {
            let is_plain = venv.is_absolute() && !venv.iter().any(|name| name == "..");
            prop_assert!(is_plain && !venv.starts_with("/usr"), "{:?}", venv);
        }
    }
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn a_long_text_of_a_failure(bytes in bulky(WORDS)) {
        let failure = Failure::read(&bytes);
        let kept: usize = failure.lines.iter().map(String::len).sum();
        // A byte that is no UTF-8 becomes a character of three.
        prop_assert!(kept <= 3 * bytes.len().min(TEXT_LIMIT));
        prop_assert!(failure.errors.len() <= 64 && failure.importers.len() <= 64);
        causes(&bytes);
    }
}
