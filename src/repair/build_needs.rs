//! What the build of a source archive lacks on this machine: the Debian packages that contain it,
//! by what the build complains about.

use std::collections::BTreeSet;

use crate::host::command::CommandError;
use crate::python::Minor;

/// The Debian packages that a failed build lacks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Needs(BTreeSet<String>);

/// Compilers and tools, by name; one that is missing is named in many ways.
const TOOLS: [(&str, &str); 16] = [
    ("gcc", "build-essential"),
    ("g++", "build-essential"),
    ("cc", "build-essential"),
    ("c++", "build-essential"),
    ("make", "build-essential"),
    ("cmake", "cmake"),
    ("gfortran", "gfortran"),
    ("cargo", "cargo"),
    ("rustc", "rustc"),
    ("git", "git"),
    ("swig", "swig"),
    ("pkg-config", "pkgconf"),
    ("pkgconf", "pkgconf"),
    ("pg_config", "libpq-dev"),
    ("mysql_config", "default-libmysqlclient-dev"),
    ("xml2-config", "libxml2-dev"),
];

/// Headers of the libraries that distributions are most often built against.
const HEADERS: [(&str, &str); 28] = [
    ("bzlib.h", "libbz2-dev"),
    ("cairo.h", "libcairo2-dev"),
    ("curl/curl.h", "libcurl4-openssl-dev"),
    ("expat.h", "libexpat1-dev"),
    ("ffi.h", "libffi-dev"),
    ("freetype", "libfreetype-dev"),
    ("gdal.h", "libgdal-dev"),
    ("geos_c.h", "libgeos-dev"),
    ("glib.h", "libglib2.0-dev"),
    ("gmp.h", "libgmp-dev"),
    ("gssapi", "libkrb5-dev"),
    ("jpeglib.h", "libjpeg-dev"),
    ("krb5.h", "libkrb5-dev"),
    ("lber.h", "libldap-dev"),
    ("ldap.h", "libldap-dev"),
    ("libpq-fe.h", "libpq-dev"),
    ("libvirt/", "libvirt-dev"),
    ("libxml/", "libxml2-dev"),
    ("libxslt/", "libxslt1-dev"),
    ("lzma.h", "liblzma-dev"),
    ("mpfr.h", "libmpfr-dev"),
    ("mysql.h", "default-libmysqlclient-dev"),
    ("openssl/", "libssl-dev"),
    ("sasl/", "libsasl2-dev"),
    ("sqlite3.h", "libsqlite3-dev"),
    ("systemd/", "libsystemd-dev"),
    ("yaml.h", "libyaml-dev"),
    ("zlib.h", "zlib1g-dev"),
];

impl Needs {
    /// Reads the output of a failed installer.
    pub(super) fn of(error: &CommandError, minor: Minor) -> Self {
        match error {
            CommandError::Failed { errors, .. } => {
                Self::of_text(&String::from_utf8_lossy(errors), minor)
            }
            _ => Self::default(),
        }
    }

    fn of_text(text: &str, minor: Minor) -> Self {
        let mut needs = Self::default();
        for line in text.lines() {
            if let Some(header) = missing_header(line) {
                if header == "Python.h" {
                    needs.0.insert(format!("{}-dev", minor.program()));
                }
                let known = HEADERS.iter().find(|(name, _)| header.starts_with(name));
                needs.0.extend(known.map(|(_, package)| (*package).to_string()));
            } else if is_about_a_missing_tool(line) {
                let words = line.split(|c: char| !(c.is_alphanumeric() || "+_-".contains(c)));
                let known = words.filter_map(tool);
                needs.0.extend(known.map(ToString::to_string));
            }
        }
        // A machine without a compiler usually has no headers of Python either.
        if needs.0.contains("build-essential") {
            needs.0.insert(format!("{}-dev", minor.program()));
        }
        needs
    }

    /// What to install, after the words that name the distribution; empty if nothing is known.
    pub(super) fn in_words(&self, subject: &str) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let packages: Vec<&str> = self.0.iter().map(String::as_str).collect();
        format!("{subject} needs packages that are missing: `apt install {}`", packages.join(" "))
    }
}

/// The header that a compiler did not find: `x.c:1:10: fatal error: ffi.h: No such file or
/// directory`, or, from clang, `'ffi.h' file not found`.
fn missing_header(line: &str) -> Option<&str> {
    let (_, complaint) = line.split_once("fatal error: ")?;
    let quoted = |rest: &'static str| complaint.strip_suffix(rest);
    let name = quoted(": No such file or directory").or_else(|| quoted(" file not found"))?;
    Some(name.trim_matches(['\'', '"', '<', '>']))
}

fn is_about_a_missing_tool(line: &str) -> bool {
    [
        "No such file or directory",
        "command not found",
        ": not found",
        "not found.",
        "executable not found",
        "Unknown compiler",
        "unable to execute",
        "is not installed",
        "can't find",
        "Could not find",
    ]
    .iter()
    .any(|phrase| line.contains(phrase))
}

/// The package of a tool, which may be named for its architecture: `x86_64-linux-gnu-gcc`.
fn tool(word: &str) -> Option<&'static str> {
    let name = word.rsplit_once("-linux-gnu-").map_or(word, |(_, name)| name);
    TOOLS.iter().find(|(tool, _)| *tool == name).map(|(_, package)| *package)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Vec<String> {
        Needs::of_text(text, Minor::new(3, 13)).0.into_iter().collect()
    }

    #[test]
    fn what_a_build_lacks_is_named_by_its_debian_package() {
        for (complaint, packages) in [
            (
                "      error: command 'x86_64-linux-gnu-g++' failed: No such file or directory",
                &["build-essential", "python3.13-dev"][..],
            ),
            (
                "unable to execute 'gcc': No such file or directory",
                &["build-essential", "python3.13-dev"],
            ),
            (
                "greenlet.cpp:4:10: fatal error: Python.h: No such file or directory",
                &["python3.13-dev"],
            ),
            (
                "c/_cffi_backend.c:15:10: fatal error: ffi.h: No such file or directory",
                &["libffi-dev"],
            ),
            ("x.c:1:10: fatal error: 'openssl/ssl.h' file not found", &["libssl-dev"]),
            ("Error: pg_config executable not found.", &["libpq-dev"]),
            ("/bin/sh: 1: mysql_config: not found", &["default-libmysqlclient-dev"]),
            ("error: can't find Rust compiler: cargo, rustc", &["cargo", "rustc"]),
            (
                "../meson.build:1:0: ERROR: Unknown compiler(s): [['cc'], ['gcc']]",
                &["build-essential", "python3.13-dev"],
            ),
        ] {
            assert_eq!(named(complaint), packages, "{complaint}");
        }
    }

    #[test]
    fn a_build_that_fails_for_other_reasons_needs_nothing() {
        for complaint in [
            "x.c:1:1: error: too few arguments to function '_PyLong_AsByteArray'",
            "error: command '/usr/bin/x86_64-linux-gnu-gcc' failed with exit code 1",
            "x.c:1:10: fatal error: internal/pycore_frame.h: No such file or directory",
            "ERROR: Could not find a version that satisfies the requirement git-x==1",
        ] {
            assert_eq!(named(complaint), [""; 0], "{complaint}");
        }
    }
}
