//! The distributions that are installed in a venv, read from their installers' records.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use pep440_rs::{Version, VersionSpecifiers};

use super::origin::Origin;
use super::record::{RecordEntry, installed_files, record, top_level_modules};
use crate::host::dir::DirEntry;
use crate::host::{Dir, ReadError};
use crate::python::Minor;

/// The headers end long before this, even with a description among them.
const HEADERS_LIMIT: u64 = 1 << 20;

/// How much of a METADATA file is read in one go: most headers are no longer.
const HEADERS_READ: usize = 4 << 10;

/// The limit of a file that contains a word or a path.
const SMALL_LIMIT: u64 = 64 << 10;

/// The limit of an installer's name and of an origin. They are kept for each distribution, as are
/// names and versions.
const INSTALLER_LIMIT: u64 = 1 << 10;
const ORIGIN_LIMIT: u64 = 8 << 10;
const NAME_LIMIT: usize = 255;

/// The RECORD of a distribution with a hundred thousand files.
const RECORD_LIMIT: u64 = 32 << 20;

/// The largest known venv has about a thousand distributions with some hundred thousand files.
/// Root reads these lists: longer ones are meant to keep it busy.
const DISTRIBUTIONS_LIMIT: usize = 10_000;
const LISTED_LIMIT: usize = 4 << 20;

/// An installed distribution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Distribution {
    /// As its metadata spells it.
    pub(crate) name: String,
    pub(crate) version: Option<String>,
    /// The versions of Python that it supports, as its metadata writes them: `>=3.8,<3.12`.
    pub(crate) requires_python: Option<String>,
    /// `pip`, `uv`, …, as it recorded itself.
    pub(crate) installer: Option<String>,
    /// Requested by name, not pulled in. Meaningful only if `pip` is the installer.
    pub(crate) requested: bool,
    pub(crate) origin: Origin,
    /// The entry in site-packages that describes it: `flask-3.0.0.dist-info`.
    pub(crate) info: PathBuf,
}

impl Distribution {
    /// The normalized name, equal for all spellings.
    pub(crate) fn normalized_name(&self) -> String {
        normalized(&self.name)
    }

    /// Whether it supports no version of Python of this minor version: pip and uv refuse to install
    /// it. They ignore what they cannot parse.
    pub(crate) fn excludes(&self, minor: Minor) -> bool {
        let text = self.requires_python.as_deref().unwrap_or_default();
        let Ok(specifiers) = text.parse::<VersionSpecifiers>() else { return false };
        let patch = |patch| Version::new([minor.major.into(), minor.minor.into(), patch]);
        [0, u64::from(u16::MAX)].iter().all(|number| !specifiers.contains(&patch(*number)))
    }

    /// The files that its installer wrote, relative to site-packages; `None` if it did not record
    /// them.
    pub(crate) fn record(
        &self,
        site_packages: &Path,
    ) -> Result<Option<Vec<RecordEntry>>, ReadError> {
        let info = open(site_packages).and_then(|site| site.dir(&self.info));
        let Ok(info) = info else { return Ok(None) };
        match info.read("RECORD", RECORD_LIMIT) {
            Ok(bytes) => return Ok(Some(record(&bytes))),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        match info.read("installed-files.txt", RECORD_LIMIT) {
            Ok(bytes) => Ok(Some(installed_files(&bytes, &self.info))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The modules in `top_level.txt`, which setuptools writes, for editables too.
    pub(super) fn declared_modules(&self, site_packages: &Path) -> Vec<String> {
        modules_in(&String::from_utf8_lossy(&self.note(site_packages, "top_level.txt")))
    }

    /// The names of the programs in `entry_points.txt`.
    pub(super) fn declared_scripts(&self, site_packages: &Path) -> Vec<String> {
        scripts_in(&String::from_utf8_lossy(&self.note(site_packages, "entry_points.txt")))
    }

    /// The beginning of its metadata: the description comes last.
    pub(super) fn metadata(&self, site_packages: &Path) -> String {
        let info = open(site_packages).and_then(|site| site.dir(&self.info));
        let file = info.ok().and_then(|info| info.file("METADATA").ok());
        let mut text = Vec::new();
        // What cannot be read says nothing.
        let _ = file.map(|file| file.take(SMALL_LIMIT).read_to_end(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    }

    /// A small file among those that describe it; empty if there is none.
    fn note(&self, site_packages: &Path, name: &str) -> Vec<u8> {
        let is_egg = self.info.extension().is_some_and(|extension| extension == "egg");
        let info = open(site_packages).and_then(|site| site.dir(&self.info));
        let info = if is_egg { info.and_then(|egg| egg.dir("EGG-INFO")) } else { info };
        info.ok().and_then(|info| info.read(name, SMALL_LIMIT).ok()).unwrap_or_default()
    }
}

pub(super) fn modules_in(top_level: &str) -> Vec<String> {
    let names = top_level.lines().map(str::trim);
    let mut modules: Vec<String> =
        names.filter(|name| super::record::is_identifier(name)).map(str::to_string).collect();
    modules.sort();
    modules.dedup();
    modules
}

pub(super) fn scripts_in(entry_points: &str) -> Vec<String> {
    let mut wanted = false;
    let mut scripts = Vec::new();
    for line in entry_points.lines().map(str::trim) {
        if line.starts_with('[') {
            wanted = matches!(line, "[console_scripts]" | "[gui_scripts]");
        } else if let (true, Some((name, _))) = (wanted, line.split_once('=')) {
            scripts.push(name.trim().to_string());
        }
    }
    scripts
}

/// The normal form of a distribution's name (PEP 503).
pub(crate) fn normalized(name: &str) -> String {
    let mut result = String::with_capacity(name.len());
    for character in name.chars() {
        match character {
            '-' | '_' | '.' if result.ends_with('-') => {}
            '-' | '_' | '.' => result.push('-'),
            other => result.extend(other.to_lowercase()),
        }
    }
    result
}

/// The modules by which an application imports these distributions, sorted.
pub(crate) fn top_level_modules_of(
    site_packages: &Path,
    distributions: &[Distribution],
) -> io::Result<Vec<String>> {
    let mut modules = Vec::new();
    let mut listed = 0_usize;
    for one in distributions {
        let entries = one.record(site_packages).ok().flatten().unwrap_or_default();
        listed = listed.saturating_add(entries.len());
        if listed > LISTED_LIMIT {
            let message = format!("its distributions list more than {LISTED_LIMIT} files");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        let found = top_level_modules(&entries);
        let declared = || one.declared_modules(site_packages);
        modules.extend(if found.is_empty() { declared() } else { found });
    }
    modules.sort();
    modules.dedup();
    Ok(modules)
}

/// The distributions in a site-packages directory, sorted by normalized name.
pub(crate) fn distributions(site_packages: &Path) -> io::Result<Vec<Distribution>> {
    let site = open(site_packages)?;
    let mut found: Vec<(String, Distribution)> = site
        .entries()?
        .iter()
        .filter_map(|entry| distribution(&site, entry))
        .map(|distribution| (distribution.normalized_name(), distribution))
        .take(DISTRIBUTIONS_LIMIT + 1)
        .collect();
    if found.len() > DISTRIBUTIONS_LIMIT {
        let message = format!("it has more than {DISTRIBUTIONS_LIMIT} distributions");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    found.sort_by(|(name, a), (other, b)| (name, &a.info).cmp(&(other, &b.info)));
    let mut distributions: Vec<(String, Distribution)> = Vec::with_capacity(found.len());
    for (name, distribution) in found {
        match distributions.last_mut() {
            // The remains of an interrupted installer beside its successor.
            Some((last, kept)) if *last == name => {
                if changed(&site, &distribution) > changed(&site, kept) {
                    *kept = distribution;
                }
            }
            _ => distributions.push((name, distribution)),
        }
    }
    Ok(distributions.into_iter().map(|(_, distribution)| distribution).collect())
}

/// Opens `lib/pythonX.Y/site-packages` name by name: no name may be a link that leads out of the
/// venv.
pub(super) fn open(site_packages: &Path) -> io::Result<Dir> {
    let names = ["lib", "pythonX.Y", "site-packages"];
    let venv = site_packages.ancestors().nth(names.len()).unwrap_or(Path::new("/"));
    let below = site_packages.strip_prefix(venv).unwrap_or(site_packages);
    below.iter().try_fold(Dir::open(venv)?, |dir, name| dir.dir(name))
}

fn changed(site: &Dir, distribution: &Distribution) -> impl Ord + use<> {
    site.stat(&distribution.info).ok().map(|stat| (stat.st_mtime, stat.st_mtime_nsec))
}

fn distribution(site: &Dir, entry: &DirEntry) -> Option<Distribution> {
    let name = entry.name.to_str()?;
    // pip renames what it is about to remove.
    if name.starts_with('~') {
        return None;
    }
    let (stem, extension) = name.rsplit_once('.')?;
    let info = PathBuf::from(name);
    match (extension, entry.kind.is_dir(), entry.kind.is_file()) {
        ("dist-info", true, _) => Some(described(&site.dir(name).ok()?, "METADATA", stem, info)),
        ("egg-info", true, _) => Some(described(&site.dir(name).ok()?, "PKG-INFO", stem, info)),
        ("egg", true, _) => {
            let inner = site.dir(name).ok()?.dir("EGG-INFO").ok()?;
            Some(described(&inner, "PKG-INFO", stem, info))
        }
        // distutils wrote only the metadata.
        ("egg-info", _, true) => Some(plain(headers(site.file(name)), stem, info)),
        // A zip file.
        ("egg", _, true) => Some(plain(Headers::default(), stem, info)),
        ("egg-link", _, true) => developed(site, stem, info),
        _ => None,
    }
}

/// A distribution by its metadata; missing values are taken from the directory's name.
fn plain(headers: Headers, stem: &str, info: PathBuf) -> Distribution {
    let (name, version) = in_file_name(stem);
    Distribution {
        name: headers.name.unwrap_or_else(|| name.to_string()),
        version: headers.version.or_else(|| version.map(str::to_string)),
        requires_python: headers.requires_python,
        installer: None,
        requested: false,
        origin: Origin::Index,
        info,
    }
}

fn described(dir: &Dir, metadata: &str, stem: &str, info: PathBuf) -> Distribution {
    let installer = dir.read("INSTALLER", INSTALLER_LIMIT).ok();
    Distribution {
        installer: installer
            .map(|bytes| String::from_utf8_lossy(bytes.trim_ascii()).into_owned())
            .filter(|name| !name.is_empty()),
        requested: dir.kind("REQUESTED").is_some(),
        origin: match dir.read("direct_url.json", ORIGIN_LIMIT) {
            Ok(bytes) => Origin::of_direct_url(&bytes),
            Err(error) if error.is_not_found() => Origin::Index,
            // It is not from an index, and must not be installed from one.
            Err(error) => Origin::Unknown { reason: error.to_string() },
        },
        ..plain(headers(dir.file(metadata)), stem, info)
    }
}

/// Reads what `setup.py develop` leaves: the path of the sources.
fn developed(site: &Dir, stem: &str, info: PathBuf) -> Option<Distribution> {
    let text = site.read(&info, SMALL_LIMIT).ok()?;
    let path = text.split(|byte| *byte == b'\n').next()?.trim_ascii();
    let path = PathBuf::from(OsStr::from_bytes(path));
    let origin = if path.is_absolute() {
        Origin::Directory { path, editable: true }
    } else {
        Origin::Unknown { reason: format!("{} does not contain an absolute path", info.display()) }
    };
    Some(Distribution { version: None, origin, ..plain(Headers::default(), stem, info) })
}

/// Splits `flask-3.0.0`, or an egg's `flask-3.0.0-py3.11`.
fn in_file_name(stem: &str) -> (&str, Option<&str>) {
    match stem.split_once('-') {
        Some((name, rest)) => (name, rest.split('-').next()),
        None => (stem, None),
    }
}

#[derive(Default)]
pub(super) struct Headers {
    pub(super) name: Option<String>,
    pub(super) version: Option<String>,
    pub(super) requires_python: Option<String>,
}

/// The headers of a METADATA or PKG-INFO file; an unreadable file has none.
pub(super) fn headers(file: Result<impl Read, ReadError>) -> Headers {
    let mut found = Headers::default();
    let Ok(file) = file else { return found };
    let mut reader = BufReader::with_capacity(HEADERS_READ, file.take(HEADERS_LIMIT));
    let mut line = Vec::new();
    while found.requires_python.is_none() || found.name.is_none() || found.version.is_none() {
        line.clear();
        match reader.read_until(b'\n', &mut line) {
            // An empty line ends the headers.
            Ok(read) if read > 0 && !line.trim_ascii().is_empty() => {}
            _ => break,
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (key, value) = line.split_at(colon);
        let value = || {
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            let fits = !value.is_empty() && value.len() <= NAME_LIMIT;
            fits.then(|| String::from_utf8_lossy(value).into_owned())
        };
        if key.eq_ignore_ascii_case(b"name") {
            found.name = found.name.or_else(value);
        } else if key.eq_ignore_ascii_case(b"version") {
            found.version = found.version.or_else(value);
        } else if key.eq_ignore_ascii_case(b"requires-python") {
            found.requires_python = found.requires_python.or_else(value);
        }
    }
    found
}

#[cfg(test)]
mod tests;
