//! The state of the packages that contain an interpreter, read from dpkg's database.
//!
//! The database is read as dpkg reads it: the status file first, then, where dpkg was
//! interrupted, the newer stanzas that wait in `updates/`. No program has to run for that.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::{Minor, is_debian_version};
use crate::host::file::{open_untrusted, printable, read_untrusted};
use crate::host::{ReadError, Root};

const STATUS: &str = "/var/lib/dpkg/status";
const UPDATES: &str = "/var/lib/dpkg/updates";

/// Where dpkg keeps a list of the files of each package.
const INFO: &str = "/var/lib/dpkg/info";

/// With every package of Debian installed, the status file has about 100 MB.
const LIMIT: u64 = 512 << 20;

/// The entry of one package in `/var/lib/dpkg/status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) version: String,
    /// The last word of the status: `installed`, `half-configured`, …
    state: String,
    /// Whether dpkg requires a reinstallation of the package.
    reinstall: bool,
}

/// A package that dpkg has not finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unsettled {
    pub(crate) package: String,
    pub(crate) state: String,
}

impl fmt::Display for Unsettled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", printable(&self.package), printable(&self.state))
    }
}

impl Entry {
    /// Whether the package's files are installed, configured or not.
    pub(super) fn is_unpacked(&self) -> bool {
        !matches!(self.state.as_str(), "not-installed" | "config-files" | "half-installed")
    }

    fn is_settled(&self) -> bool {
        // Triggers concern other packages: this one works already.
        let done = matches!(
            self.state.as_str(),
            "installed"
                | "not-installed"
                | "config-files"
                | "triggers-awaited"
                | "triggers-pending"
        );
        done && !self.reinstall
    }
}

/// The packages that `wanted` selects, by name and architecture (`python3.11:amd64`).
pub(super) fn packages(
    root: &Root,
    wanted: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, Entry>, ReadError> {
    let mut found = BTreeMap::new();
    read(&root.at(STATUS), &wanted, &mut found)?;
    for path in updates(&root.at(UPDATES)) {
        match read(&path, &wanted, &mut found) {
            // dpkg has finished in the meantime.
            Err(error) if error.is_not_found() => {}
            other => other?,
        }
    }
    Ok(found)
}

/// The packages of Python's interpreters that dpkg left halfway.
pub(crate) fn unsettled(root: &Root) -> Result<Vec<Unsettled>, ReadError> {
    let packages = packages(root, is_interpreter_package)?;
    Ok(packages
        .into_iter()
        .filter(|(_, entry)| !entry.is_settled())
        .map(|(package, entry)| Unsettled { package, state: entry.state })
        .collect())
}

/// Whether an interpreter may not work properly while this package is unfinished.
fn is_interpreter_package(name: &str) -> bool {
    let library = name.strip_prefix("lib");
    let Some(rest) = library.unwrap_or(name).strip_prefix("python3") else { return false };
    let (minor, part) = match rest.strip_prefix('.') {
        Some(rest) => {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            (&rest[..end], &rest[end..])
        }
        None => ("", rest),
    };
    let versioned = !minor.is_empty();
    match (library, part) {
        (None, "" | "-minimal" | "-venv") | (Some(_), "-stdlib") => true,
        // Debian's name since the transition to 64-bit time, if it differs.
        (Some(_), "" | "t64" | "-minimal") => versioned,
        _ => false,
    }
}

/// The package that contains `/usr/bin/python3.11`.
pub(super) fn owner_of(minor: Minor) -> String {
    format!("{}-minimal", minor.program())
}

/// Where dpkg keeps the list of the files of that package.
pub(super) fn list_of(minor: Minor) -> PathBuf {
    Path::new(INFO).join(format!("{}.list", owner_of(minor)))
}

/// Whether a package's list of files contains a path.
pub(super) fn lists(list: &Path, path: &Path) -> bool {
    let Some(path) = path.to_str() else { return false };
    open_untrusted(list).is_ok_and(|file| {
        BufReader::new(file.take(LIMIT)).lines().any(|line| line.is_ok_and(|line| line == path))
    })
}

/// The package that contains a venv, because it contains its `pyvenv.cfg`.
pub(crate) fn package_of_venv(root: &Root, venv: &Path) -> Option<String> {
    // All lists are read, once in a process.
    static KNOWN: OnceLock<BTreeMap<PathBuf, String>> = OnceLock::new();
    if root.is_system() {
        KNOWN.get_or_init(|| packaged_venvs(root)).get(venv).cloned()
    } else {
        packaged_venvs(root).remove(venv)
    }
}

fn packaged_venvs(root: &Root) -> BTreeMap<PathBuf, String> {
    let mut venvs = BTreeMap::new();
    for (package, list) in all_lists(root) {
        let Ok(bytes) = read_untrusted(&list, LIMIT) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        let own = text.match_indices("/pyvenv.cfg\n").filter_map(|(end, _)| {
            let line = text.get(..end)?;
            line.rsplit_once('\n').map_or(Some(line), |(_, line)| Some(line))
        });
        venvs.extend(own.map(|venv| (PathBuf::from(venv), package.clone())));
    }
    venvs
}

/// The files of some installed packages, each with its package. A list that cannot be read names none.
pub(crate) fn files_of(root: &Root, packages: &BTreeSet<String>) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for (package, list) in all_lists(root) {
        if packages.contains(&package) {
            let bytes = read_untrusted(&list, LIMIT).unwrap_or_default();
            let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let paths = lines.map(|line| PathBuf::from(OsStr::from_bytes(line)));
            files.extend(paths.map(|path| (path, package.clone())));
        }
    }
    files
}

/// dpkg's lists of files, each with its package. The name of a list includes the architecture if
/// packages of several architectures may be installed together.
fn all_lists(root: &Root) -> impl Iterator<Item = (String, PathBuf)> {
    let entries = std::fs::read_dir(root.at(INFO)).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let list = entry.path();
        let name = list.file_name()?.to_str()?.strip_suffix(".list")?;
        let package = name.split_once(':').map_or(name, |(package, _)| package).to_string();
        Some((package, list))
    })
}

/// The numbered files of an interrupted dpkg, in order. Other files are still being written.
fn updates(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit))
        })
        .collect();
    files.sort();
    files
}

fn read(
    path: &Path,
    wanted: &impl Fn(&str) -> bool,
    found: &mut BTreeMap<String, Entry>,
) -> Result<(), ReadError> {
    let file = open_untrusted(path)?;
    stanzas(file, wanted, found)
        .map_err(|source| ReadError::Io { path: path.to_path_buf(), source })
}

pub(super) fn stanzas(
    file: impl Read,
    wanted: &impl Fn(&str) -> bool,
    found: &mut BTreeMap<String, Entry>,
) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(128 << 10, file.take(LIMIT));
    let mut stanza = Stanza::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        let text = line.trim_ascii_end();
        if text.is_empty() {
            if let Some((name, entry)) = std::mem::take(&mut stanza).entry() {
                found.insert(name, entry);
            }
            if read == 0 {
                return Ok(());
            }
        } else if let Some(name) = text.strip_prefix(b"Package:") {
            let name = String::from_utf8_lossy(name.trim_ascii());
            stanza.package = wanted(&name).then(|| name.into_owned());
        } else if stanza.package.is_some() {
            stanza.field(text);
        }
    }
}

#[derive(Default)]
struct Stanza {
    package: Option<String>,
    architecture: String,
    version: String,
    status: String,
}

impl Stanza {
    fn field(&mut self, line: &[u8]) {
        let value = |prefix: &[u8]| {
            line.strip_prefix(prefix)
                .map(|value| String::from_utf8_lossy(value.trim_ascii()).into_owned())
        };
        if let Some(architecture) = value(b"Architecture:") {
            self.architecture = architecture;
        } else if let Some(version) = value(b"Version:") {
            self.version = version;
        } else if let Some(status) = value(b"Status:") {
            self.status = status;
        }
    }

    fn entry(self) -> Option<(String, Entry)> {
        // dpkg itself writes no other values, but a damaged disk may contain them.
        if !is_debian_version(&self.version) && !self.version.is_empty() {
            return None;
        }
        let name = format!("{}:{}", self.package?, self.architecture);
        let mut words = self.status.split_ascii_whitespace().skip(1);
        let reinstall = words.next() == Some("reinstreq");
        let state = words.next().unwrap_or("not-installed").to_string();
        Some((name, Entry { version: self.version, state, reinstall }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stanza(package: &str, status: &str, version: &str) -> String {
        format!(
            "Package: {package}\nStatus: {status}\nPriority: optional\nArchitecture: amd64\n\
             Version: {version}\nDescription: text\n Package: not-this\n .\n more\n\n"
        )
    }

    fn system(status: &str) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("var/lib/dpkg/updates")).unwrap();
        std::fs::write(dir.path().join("var/lib/dpkg/status"), status).unwrap();
        let root = Root::new(dir.path());
        (dir, root)
    }

    fn unsettled_names(root: &Root) -> Vec<String> {
        unsettled(root).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn unfinished_packages_are_named() {
        let (_dir, root) = system(
            &[
                stanza("python3", "install ok unpacked", "3.13.5-1"),
                stanza("python3-minimal", "install ok installed", "3.13.5-1"),
                stanza("python3-requests", "install ok half-configured", "2.32"),
                stanza("python3.11", "deinstall ok config-files", "3.11.2-6"),
                stanza("python3.13-minimal", "install reinstreq half-installed", "3.13.5-2"),
                stanza("python3.13-venv", "install ok triggers-pending", "3.13.5-2"),
            ]
            .concat(),
        );
        assert_eq!(
            unsettled_names(&root),
            ["python3.13-minimal:amd64 (half-installed)", "python3:amd64 (unpacked)"]
        );
    }

    #[test]
    fn the_last_record_of_an_interrupted_dpkg_counts() {
        let (dir, root) = system(&stanza("python3", "install ok unpacked", "3.13.5-1"));
        let updates = dir.path().join("var/lib/dpkg/updates");
        std::fs::write(updates.join("0000"), stanza("python3", "install ok half-configured", "1"))
            .unwrap();
        std::fs::write(updates.join("0001"), stanza("python3", "install ok installed", "1"))
            .unwrap();
        std::fs::write(updates.join("tmp.i"), stanza("python3", "install ok unpacked", "1"))
            .unwrap();
        assert_eq!(unsettled_names(&root), [""; 0]);
    }

    #[test]
    fn a_last_stanza_without_an_empty_line_counts() {
        let (_dir, root) = system(stanza("python3", "install ok unpacked", "1").trim_end());
        assert_eq!(unsettled_names(&root).len(), 1);
    }

    #[test]
    fn a_venv_among_the_files_of_a_package_is_that_packages() {
        let (dir, root) = system("");
        let write = |name: &str, text: &str| {
            let path = dir.path().join("var/lib/dpkg/info").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "synapse:amd64.list",
            "/.\n/opt/venvs/synapse\n/opt/venvs/synapse/pyvenv.cfg\n/opt/x\n",
        );
        write("other.list", "/srv/b/pyvenv.cfg\n/srv/c/pyvenv.cfg.d\n");
        write("synapse.md5sums", "0  srv/d/pyvenv.cfg\n");
        let package = |venv: &str| package_of_venv(&root, Path::new(venv));
        assert_eq!(package("/opt/venvs/synapse").as_deref(), Some("synapse"));
        assert_eq!(package("/srv/b").as_deref(), Some("other"));
        assert_eq!(["/srv/c", "/srv/d", "/opt/venvs"].map(package), [None, None, None]);
    }

    #[test]
    fn the_files_of_packages_are_listed_with_and_without_an_architecture() {
        let (dir, root) = system("");
        let info = dir.path().join("var/lib/dpkg/info");
        std::fs::create_dir_all(&info).unwrap();
        std::fs::write(info.join("libpq5:amd64.list"), "/.\n/usr/lib/libpq.so.5\n").unwrap();
        std::fs::write(info.join("tzdata.list"), "/etc\n").unwrap();
        std::fs::write(info.join("other.list"), "/opt\n").unwrap();
        let mut files = files_of(&root, &["libpq5", "tzdata", "absent"].map(String::from).into());
        files.sort();
        let of = |path: &str, package: &str| (PathBuf::from(path), package.to_string());
        let all = [of("/.", "libpq5"), of("/etc", "tzdata"), of("/usr/lib/libpq.so.5", "libpq5")];
        assert_eq!(files, all);
    }

    #[test]
    fn a_system_without_a_status_file_is_an_error() {
        assert!(unsettled(&Root::new(tempfile::tempdir().unwrap().path())).is_err());
    }

    #[test]
    fn only_the_interpreters_own_packages_are_read() {
        for name in [
            "python3",
            "python3-minimal",
            "python3-venv",
            "libpython3-stdlib",
            "python3.11",
            "python3.11-minimal",
            "python3.11-venv",
            "libpython3.11",
            "libpython3.12t64",
            "libpython3.11-minimal",
            "libpython3.11-stdlib",
        ] {
            assert!(is_interpreter_package(name), "{name}");
        }
        for name in [
            "python3-pip",
            "python3.11-doc",
            "libpython3-dev",
            "libpython3.11-dev",
            "python2.7",
            "python",
            "libpython3",
            "python3.11t64",
            "python3-all",
        ] {
            assert!(!is_interpreter_package(name), "{name}");
        }
    }
}
