//! The sources of this machine, for another release: apt's view of an upgrade that the machine does
//! not know of.
//!
//! Configuration, sources, lists and caches are private. Of the machine's own only dpkg's status and
//! the archive's keys are read.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::AptGet;
use crate::host::command::CommandError;
use crate::host::file::{self, printable};
use crate::host::{ReadError, Root};

/// Where the private files of a release are.
pub(super) const RELEASES: &str = "/var/cache/venvguard/releases";

/// The longest file of sources that is read, in bytes.
const LIMIT: u64 = 1 << 20;

/// Enough for all lists over a slow line.
const UPDATE_LIMIT: Duration = Duration::from_secs(900);

/// Why apt cannot be asked about another release.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReleaseError {
    #[error("{0:?} is not the name of a release (as in `--release trixie`)")]
    Name(String),
    #[error("/etc/os-release does not name the release of this machine")]
    Unknown,
    #[error("this machine already runs {0}")]
    Same(String),
    #[error("no source in /etc/apt names the release {0}, so none can be changed to another one")]
    NoSource(String),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{path}: {source}", path = printable(.path))]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "cannot read the package lists of {release}: {source}\nif a key is missing, upgrade the package of the archive's keys: {keys}"
    )]
    Update { release: String, source: Box<CommandError>, keys: String },
}

/// Prepares apt-get for another release, with current lists. Also returns why some of them may be
/// missing or old.
pub(crate) fn of_release(
    root: &Root,
    release: &str,
) -> Result<(AptGet, Option<CommandError>), ReleaseError> {
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if release.is_empty() || !release.bytes().all(is_name) {
        return Err(ReleaseError::Name(release.into()));
    }
    let own = codename(root)?;
    if own == release {
        return Err(ReleaseError::Same(own));
    }
    let dir = root.at(RELEASES).join(release);
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ReleaseError::Io { path, source }
    };
    let parts = dir.join("sources.list.d");
    let main = dir.join("sources.list");
    for (path, removed) in [(&parts, fs::remove_dir_all(&parts)), (&main, fs::remove_file(&main))] {
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(path)(error)),
            _ => {}
        }
    }
    for path in [&parts, &dir.join("preferences.d"), &dir.join("state/lists"), &dir.join("cache")] {
        fs::create_dir_all(path).map_err(io(path))?;
    }
    let mut is_changed = false;
    for path in sources(root) {
        let text = file::read_own(&path, LIMIT)?;
        let text = String::from_utf8_lossy(&text);
        let moved = moved(&text, is_deb822(&path), &own, release);
        is_changed |= moved != text;
        let copy = dir.join(path.strip_prefix(root.at("/etc/apt")).unwrap_or(&path));
        // A source may hold a password.
        file::write_atomically(&copy, moved.as_bytes(), 0o600).map_err(io(&copy))?;
    }
    if !is_changed {
        return Err(ReleaseError::NoSource(own));
    }
    let configuration = dir.join("apt.conf");
    file::write_atomically(&configuration, options(root, &dir).as_bytes(), 0o644)
        .map_err(io(&configuration))?;
    let apt = AptGet { configuration: Some(configuration), ..AptGet::default() };
    let updated = apt.call("update").arg("-qq").limit(UPDATE_LIMIT).run();
    // A source of a third party may not have the release: what there is, is enough.
    match updated {
        Ok(_) => Ok((apt, None)),
        Err(source) if !has_lists(&dir, release) => {
            let keys = keyrings(root).join(", ");
            let (release, source) = (release.into(), Box::new(source));
            Err(ReleaseError::Update { release, source, keys })
        }
        Err(incomplete) => Ok((apt, Some(incomplete))),
    }
}

/// apt's own commands that run after an update or an installation are not for us.
fn options(root: &Root, dir: &Path) -> String {
    let dir = dir.display();
    let system = |path: &str| root.at(path).display().to_string();
    format!(
        "#clear APT::Update;\n\
         #clear APT::Default-Release;\n\
         Dir::Etc::SourceList \"{dir}/sources.list\";\n\
         Dir::Etc::SourceParts \"{dir}/sources.list.d\";\n\
         Dir::Etc::Preferences \"{dir}/preferences\";\n\
         Dir::Etc::PreferencesParts \"{dir}/preferences.d\";\n\
         Dir::State \"{dir}/state\";\n\
         Dir::State::Lists \"{dir}/state/lists\";\n\
         Dir::State::Status \"{status}\";\n\
         Dir::State::Extended_States \"{marks}\";\n\
         Dir::Cache \"{dir}/cache\";\n",
        status = system("/var/lib/dpkg/status"),
        marks = system("/var/lib/apt/extended_states"),
    )
}

fn has_lists(dir: &Path, release: &str) -> bool {
    let names = fs::read_dir(dir.join("state/lists")).into_iter().flatten().flatten();
    let mut names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.any(|name| name.contains(&format!("_dists_{release}_")) && name.contains("_Packages"))
}

/// The installed packages of archives' keys, such as `debian-archive-keyring`.
fn keyrings(root: &Root) -> Vec<String> {
    let lists = fs::read_dir(root.at("/var/lib/dpkg/info")).into_iter().flatten().flatten();
    let names = lists.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let package = |name: String| name.strip_suffix(".list").map(str::to_string);
    let mut found: Vec<String> =
        names.filter_map(package).filter(|name| name.ends_with("-keyring")).collect();
    found.sort();
    found
}

/// `VERSION_CODENAME` in `/etc/os-release`.
fn codename(root: &Root) -> Result<String, ReleaseError> {
    // Usually a link to /usr/lib.
    let chain = root.follow(Path::new("/etc/os-release")).unwrap_or_default();
    let path = chain.last().ok_or(ReleaseError::Unknown)?;
    let text = file::read_own(&root.at(path), LIMIT)?;
    let text = String::from_utf8_lossy(&text);
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.map(|name| name.trim_matches('"').to_string())
        .filter(|name| !name.is_empty())
        .ok_or(ReleaseError::Unknown)
}

fn sources(root: &Root) -> Vec<PathBuf> {
    let parts = fs::read_dir(root.at("/etc/apt/sources.list.d")).into_iter().flatten().flatten();
    let has_kind = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "list" || extension == "sources")
    };
    let mut found: Vec<PathBuf> = parts.map(|entry| entry.path()).filter(has_kind).collect();
    found.push(root.at("/etc/apt/sources.list"));
    found.retain(|path| path.is_file());
    found.sort();
    found
}

fn is_deb822(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "sources")
}

/// The text of a file of sources, for another release.
fn moved(text: &str, is_deb822: bool, own: &str, release: &str) -> String {
    let mut in_suites = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        let line = if is_deb822 {
            let is_continued = line.starts_with([' ', '\t']);
            let field = line.split(':').next().unwrap_or_default();
            in_suites = (is_continued && in_suites)
                || (!is_continued && field.eq_ignore_ascii_case("Suites"));
            if in_suites { words(line, own, release) } else { line.to_string() }
        } else {
            one_line(line, own, release)
        };
        lines.push(line + "\n");
    }
    lines.concat()
}

/// `deb [options] URI SUITE COMPONENT…`
fn one_line(line: &str, own: &str, release: &str) -> String {
    let is_source = line.starts_with("deb ") || line.starts_with("deb-src ");
    if !is_source {
        return line.to_string();
    }
    let (head, tail) = line.split_at(line.find(']').map_or(0, |end| end + 1));
    head.to_string() + &words(tail, own, release)
}

/// Replaces the suites of a release among the words of a text. The blanks stay as they are.
fn words(text: &str, own: &str, release: &str) -> String {
    text.split_inclusive([' ', '\t'])
        .map(|word| {
            let bare = word.trim_end_matches([' ', '\t']);
            let blank = word.get(bare.len()..).unwrap_or_default();
            suite(bare, own, release).map_or_else(|| word.to_string(), |suite| suite + blank)
        })
        .collect()
}

/// The suite of another release: `bookworm-updates` → `trixie-updates`.
fn suite(suite: &str, own: &str, release: &str) -> Option<String> {
    match suite.strip_prefix(own)? {
        // The name of security suites before bullseye.
        "/updates" => Some(format!("{release}-security")),
        rest if rest.is_empty() || rest.starts_with('-') => Some(format!("{release}{rest}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_suite_of_the_release_is_exchanged_and_nothing_else() {
        let list = "# bookworm\n\
             deb http://deb.example.org/debian bookworm main contrib\n\
             deb [arch=amd64 signed-by=/k/bookworm.gpg] http://s.example.org/bookworm bookworm-security main\n\
             deb http://old.example.org buster/updates main\n\
             deb [trusted=yes] file:/repo ./\n\
             #deb http://deb.example.org/debian bookworm main\n";
        assert_eq!(
            moved(list, false, "bookworm", "trixie"),
            "# bookworm\n\
             deb http://deb.example.org/debian trixie main contrib\n\
             deb [arch=amd64 signed-by=/k/bookworm.gpg] http://s.example.org/bookworm trixie-security main\n\
             deb http://old.example.org buster/updates main\n\
             deb [trusted=yes] file:/repo ./\n\
             #deb http://deb.example.org/debian bookworm main\n"
        );
        let old = "deb http://s.example.org/ buster/updates main\n";
        assert_eq!(
            moved(old, false, "buster", "bullseye"),
            "deb http://s.example.org/ bullseye-security main\n"
        );
    }

    #[test]
    fn the_suites_of_deb822_sources_are_exchanged() {
        let sources = "Types: deb\nURIs: http://d.example.org/noble\nSuites: noble noble-updates\n\
             \tnoble-backports\nComponents: main noble\nSigned-By: /k/noble.gpg\n";
        assert_eq!(
            moved(sources, true, "noble", "resolute"),
            "Types: deb\nURIs: http://d.example.org/noble\nSuites: resolute resolute-updates\n\
             \tresolute-backports\nComponents: main noble\nSigned-By: /k/noble.gpg\n"
        );
    }

    #[test]
    fn the_installed_keyrings_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let info = dir.path().join("var/lib/dpkg/info");
        fs::create_dir_all(&info).unwrap();
        for name in ["raspbian-keyring.list", "debian-archive-keyring.list", "apt.list"] {
            fs::write(info.join(name), "").unwrap();
        }
        fs::write(info.join("ubuntu-keyring.md5sums"), "").unwrap();
        let found = keyrings(&Root::new(dir.path()));
        assert_eq!(found, ["debian-archive-keyring", "raspbian-keyring"]);
    }

    #[test]
    fn a_release_is_refused_that_is_no_other_one() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path().canonicalize().unwrap());
        fs::create_dir_all(root.at("/etc/apt")).unwrap();
        let fails = |release: &str| of_release(&root, release).unwrap_err().to_string();
        assert!(fails("../x").contains("is not the name of a release"));
        assert!(fails("trixie").contains("os-release"), "{}", fails("trixie"));
        fs::write(root.at("/etc/os-release"), "ID=debian\nVERSION_CODENAME=bookworm\n").unwrap();
        assert!(fails("bookworm").contains("already runs bookworm"));
        fs::write(root.at("/etc/apt/sources.list"), "deb file:/repo ./\n").unwrap();
        assert!(fails("trixie").contains("no source in /etc/apt"), "{}", fails("trixie"));
    }
}
