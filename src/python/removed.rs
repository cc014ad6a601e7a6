//! The modules that the standard library has lost, and names in others. Source: "Removed" in What's
//! New in Python 3.11 to 3.14.

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

/// Names in modules, and the first version without them.
const REMOVED_NAMES: [(&[&str], Minor); 3] = [
    (
        &[
            "configparser.SafeConfigParser",
            "importlib.find_loader",
            "importlib.util.module_for_loader",
            "importlib.util.set_loader",
            "importlib.util.set_package",
            "locale.format",
            "pkgutil.ImpImporter",
            "pkgutil.ImpLoader",
            "ssl.match_hostname",
            "ssl.wrap_socket",
        ],
        Minor::new(3, 12),
    ),
    (
        &[
            "locale.resetlocale",
            "unittest.findTestCases",
            "unittest.getTestCaseNames",
            "unittest.makeSuite",
        ],
        Minor::new(3, 13),
    ),
    (
        &[
            "ast.Bytes",
            "ast.Ellipsis",
            "ast.NameConstant",
            "ast.Num",
            "ast.Str",
            "asyncio.get_child_watcher",
            "asyncio.set_child_watcher",
            "pkgutil.find_loader",
            "pkgutil.get_loader",
            "sqlite3.version",
            "urllib.request.FancyURLopener",
            "urllib.request.URLopener",
        ],
        Minor::new(3, 14),
    ),
];

/// The modules that `old` has and `new` lacks, and the names in other modules.
pub(crate) fn removed_between(old: Minor, new: Minor) -> Vec<&'static str> {
    let all = REMOVED.iter().chain(&REMOVED_NAMES);
    let lost = all.filter(|(_, minor)| old < *minor && *minor <= new);
    lost.flat_map(|(names, _)| names.iter().copied()).collect()
}

/// The first version of Python without a module, if there is one.
pub(crate) fn removed_in(module: &str) -> Option<Minor> {
    let top = module.split('.').next().unwrap_or_default();
    REMOVED.iter().find(|(names, _)| names.contains(&top)).map(|(_, minor)| *minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_version_has_and_another_lacks_is_listed() {
        let between = |old, new| removed_between(Minor::new(3, old), Minor::new(3, new));
        assert!(between(11, 13).contains(&"distutils") && between(11, 13).contains(&"cgi"));
        assert!(!between(12, 13).contains(&"distutils") && between(12, 13).contains(&"cgi"));
        assert!(
            between(13, 14).contains(&"pkgutil.get_loader") && !between(13, 14).contains(&"cgi")
        );
        assert!(between(12, 14).contains(&"unittest.makeSuite"));
        assert_eq!(between(13, 11), [""; 0]);
    }
}
