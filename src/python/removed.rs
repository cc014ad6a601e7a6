//! The modules that the standard library has lost. Source: "Removed" in What's New in Python 3.11 to
//! 3.13.

use super::Minor;

/// Top-level modules, and the first version without them.
const REMOVED: [(&[&str], Minor); 3] = [
    (&["asynchat", "asyncore", "distutils", "imp", "smtpd"], Minor::new(3, 12)),
    (
        &[
            "aifc",
            "audioop",
            "cgi",
            "cgitb",
            "chunk",
            "crypt",
            "imghdr",
            "lib2to3",
            "mailcap",
            "msilib",
            "nis",
            "nntplib",
            "ossaudiodev",
            "pipes",
            "sndhdr",
            "spwd",
            "sunau",
            "telnetlib",
            "uu",
            "xdrlib",
        ],
        Minor::new(3, 13),
    ),
    (&["binhex"], Minor::new(3, 11)),
];

/// The first version of Python without a module, if there is one.
pub(crate) fn removed_in(module: &str) -> Option<Minor> {
    let top = module.split('.').next().unwrap_or_default();
    REMOVED.iter().find(|(names, _)| names.contains(&top)).map(|(_, minor)| *minor)
}
