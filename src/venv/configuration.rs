//! `pyvenv.cfg`: a venv's claims about itself. They are never trusted alone: an upgrade of
//! the venv rewrites the file but leaves the rest unchanged.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::host::Dir;
use crate::host::file::printable;
use crate::python::{DEFAULT, Minor, debian_minor};

/// The longest `pyvenv.cfg` in use has under 1 KiB.
pub(super) const LIMIT: u64 = 64 << 10;

/// The claims of a `pyvenv.cfg`, read as Python reads it: keys in any case, the first
/// of a key counts, lines without `=` do not.
#[derive(Debug, Default)]
pub(super) struct Configuration(Vec<(Vec<u8>, Vec<u8>)>);

/// The version of Python that a venv's configuration states, without what virtualenv appends.
pub(crate) fn stated_version(venv: &Dir) -> Option<String> {
    let configuration = Configuration::parse(&venv.read("pyvenv.cfg", LIMIT).ok()?);
    let text = ["version", "version_info"].iter().find_map(|key| configuration.value(key))?;
    let parts: Vec<&str> = std::str::from_utf8(text).ok()?.split('.').take(3).collect();
    Some(parts.join("."))
}

impl Configuration {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let line = |line: &[u8]| {
            let equals = line.iter().position(|byte| *byte == b'=')?;
            let (key, value) = line.split_at_checked(equals)?;
            let value = value.get(1..)?.trim_ascii();
            Some((key.trim_ascii().to_ascii_lowercase(), value.to_vec()))
        };
        Self(bytes.split(|byte| *byte == b'\n').filter_map(line).collect())
    }

    fn value(&self, key: &str) -> Option<&[u8]> {
        let (_, value) = self.0.iter().find(|(name, _)| name == key.as_bytes())?;
        Some(value)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    pub(super) fn path(&self, key: &str) -> Option<&Path> {
        self.value(key).map(|value| Path::new(OsStr::from_bytes(value)))
    }

    pub(super) fn is_true(&self, key: &str) -> bool {
        self.value(key).is_some_and(|value| value.eq_ignore_ascii_case(b"true"))
    }

    /// The minor version in `version` (venv), `version_info` (virtualenv, uv).
    pub(super) fn minor(&self) -> Option<Minor> {
        ["version", "version_info", "python-version"].into_iter().find_map(|key| {
            let text = std::str::from_utf8(self.value(key)?).ok()?;
            let mut parts = text.split('.');
            format!("{}.{}", parts.next()?, parts.next()?).parse().ok()
        })
    }

    /// The prompt, without the quotes that venv puts around it. A prompt that would need escaping
    /// is ignored.
    pub(super) fn prompt(&self) -> Option<String> {
        let text = String::from_utf8_lossy(self.value("prompt")?);
        let bare =
            ['\'', '"'].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote));
        let prompt = bare.unwrap_or(&text);
        (printable(prompt) == prompt).then(|| prompt.to_string())
    }

    /// Whether every claim about the base interpreter names one at a path of Debian's.
    pub(super) fn claims_debian(&self) -> bool {
        let Some(home) = self.path("home") else { return false };
        let executables = ["executable", "base-executable"];
        (home == Path::new("/usr/bin") || home == Path::new("/bin"))
            && executables.into_iter().filter_map(|key| self.path(key)).all(is_debian_program)
    }
}

/// Whether a program has the path of one of Debian's interpreters.
fn is_debian_program(path: &Path) -> bool {
    ["/usr/bin/python", "/bin/python"].into_iter().any(|name| path == Path::new(name))
        || debian_name(path).is_some()
}

/// Debian's path of the interpreter at `path`, if it is one: `/usr/bin/python3` or
/// `/usr/bin/python3.11`. `/bin` is the same directory since the merge of `/usr`.
pub(super) fn debian_name(path: &Path) -> Option<std::path::PathBuf> {
    if path == Path::new(DEFAULT) || path == Path::new("/bin/python3") {
        return Some(DEFAULT.into());
    }
    debian_minor(path).filter(|minor| minor.major == 3).map(crate::python::path_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_read_as_python_reads_it() {
        let cfg = Configuration::parse(
            b"Home = /usr/bin\nhome = /opt\n\nno equals\ninclude-system-site-packages=TRUE\r\n\
              version_info = 3.11.2.final.0\ncommand = python -m venv --prompt=x /srv/v\n=\n",
        );
        assert_eq!(cfg.path("home").unwrap(), Path::new("/usr/bin"));
        assert!(cfg.is_true("include-system-site-packages"));
        assert_eq!(cfg.minor(), Some(Minor::new(3, 11)));
        assert!(cfg.has("command") && !cfg.has("uv"));
    }

    #[test]
    fn a_prompt_loses_its_quotes_and_nothing_else() {
        let prompt = |text: &str| Configuration::parse(text.as_bytes()).prompt();
        assert_eq!(prompt("prompt = 'my app'").unwrap(), "my app");
        assert_eq!(prompt("prompt = app").unwrap(), "app");
        assert_eq!(prompt("prompt = it's").unwrap(), "it's");
        assert_eq!(prompt("prompt = '").unwrap(), "'");
        assert_eq!(prompt("home = /usr/bin"), None);
        assert_eq!(prompt("prompt = 'a\u{1b}[2J'"), None);
        assert_eq!(prompt("prompt = a\0"), None);
    }

    #[test]
    fn one_claim_of_another_interpreter_is_enough_to_refuse() {
        let debian = |text: &str| Configuration::parse(text.as_bytes()).claims_debian();
        assert!(debian("home = /usr/bin\nexecutable = /usr/bin/python3.11\n"));
        assert!(debian("home = /bin"));
        assert!(!debian("home = /usr/local/bin"));
        assert!(!debian("home = /usr/bin\nexecutable = /opt/conda/bin/python3.11"));
        assert!(!debian("home = /usr/bin\nbase-executable = /usr/bin/pypy3"));
        assert!(!debian("version = 3.11.2"));
    }

    #[test]
    fn noise_is_not_a_configuration_and_causes_no_panic() {
        let cfg =
            Configuration::parse(b"\0\xff\xfe=\0\nhome\0=/usr/bin\nversion = 3\nversion_info = .");
        assert!(!cfg.has("home") && cfg.minor().is_none());
    }
}
