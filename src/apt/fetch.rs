//! Fetches the archives of packages that an upgrade would install, without installing them.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::protocol::is_package_name;
use super::release::RELEASES;
use super::{Action, AptGet, Transaction};
use crate::host::command::{CommandError, Finished};
use crate::host::file::printable;
use crate::host::{Program, Root};
use crate::python::Minor;

/// Where they are kept: apt's own directory may be emptied at any time.
const ARCHIVES: &str = "/var/cache/venvguard/archives";

/// Enough for fifty archives over a slow line.
const LIMIT: Duration = Duration::from_secs(1800);

/// Why the archives cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("{path}: {source}", path = printable(.path))]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Apt(#[from] CommandError),
    #[error("apt fetched no archive of {0}")]
    Missing(String),
}

/// The packages of an upgrade that bring a minor version of Python and what creates venvs for it.
pub(crate) fn packages_of(actions: &[Action], minors: &[Minor]) -> Vec<String> {
    let brings = |package: &str| {
        let name = package.strip_prefix("lib").unwrap_or(package);
        let of_minor = |minor: &Minor| {
            let rest = name.strip_prefix(&minor.program())?;
            Some(matches!(rest, "" | "-minimal" | "-stdlib" | "-venv" | "-distutils"))
        };
        match name.strip_prefix("python3") {
            Some("" | "-minimal" | "-stdlib" | "-venv" | "-pip-whl" | "-setuptools-whl") => true,
            _ => minors.iter().filter_map(of_minor).any(|brings| brings),
        }
    };
    let wanted = actions.iter().filter(|action| action.unpacks && brings(&action.package));
    wanted.filter(|action| is_package_name(&action.package)).map(in_its_version).collect()
}

/// A package as apt names it on its command line, in the version that is about to be installed: the
/// run may ask for another one than apt would choose.
fn in_its_version(action: &Action) -> String {
    match &action.to {
        Some(version) => format!("{}={version}", action.package),
        None => action.package.clone(),
    }
}

/// Removes archives that were fetched before a time, and lists of other releases that were not used
/// since.
pub(crate) fn remove_unused(root: &Root, since: Timestamp) -> io::Result<()> {
    for dir in [ARCHIVES, RELEASES] {
        let entries = match fs::read_dir(root.at(dir)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            // apt gives an archive the time of its server. A release is used whenever its configuration is
            // written.
            let used = path.join("apt.conf").metadata().or_else(|_| entry.metadata())?;
            if used.ctime() >= since.as_second() {
                continue;
            }
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(&path)?;
            } else {
                fs::remove_file(&path)?;
            }
        }
    }
    Ok(())
}

/// Fetches these packages in the versions that apt would install, and everything that they need.
pub(crate) fn fetch(
    root: &Root,
    apt: &AptGet,
    packages: &[String],
) -> Result<Vec<PathBuf>, FetchError> {
    let archives = root.at(ARCHIVES);
    let needed = needed(root, apt, packages)?;
    run(apt, &archives, packages, "--download-only")?;
    all_there(needed)
}

/// The same, of the archives that apt has fetched for the run that is in progress.
pub(crate) fn among(
    root: &Root,
    packages: &[String],
    transaction: &Transaction,
) -> Result<Vec<PathBuf>, FetchError> {
    let fetched = &transaction.archives;
    let apt = AptGet { default_release: transaction.default_release.clone(), ..AptGet::default() };
    let where_it_is = |needed: PathBuf| {
        let same = |path: &&PathBuf| path.file_name() == needed.file_name();
        if needed.is_file() { needed } else { fetched.iter().find(same).unwrap_or(&needed).clone() }
    };
    let needed = needed(root, &apt, packages)?;
    all_there(needed.into_iter().map(where_it_is).collect())
}

/// Where apt would have the archives of these packages and of everything that they need.
fn needed(root: &Root, apt: &AptGet, packages: &[String]) -> Result<Vec<PathBuf>, FetchError> {
    let archives = root.at(ARCHIVES);
    // With no archive there, apt lists them all.
    let none = archives.join("none");
    let listed = run(apt, &none, packages, "--print-uris")?;
    Ok(listed.text().lines().filter_map(|line| archive(line, &archives)).collect())
}

/// Calls apt for an installation, with this directory for archives.
fn run(
    apt: &AptGet,
    dir: &Path,
    packages: &[String],
    option: &str,
) -> Result<Finished, FetchError> {
    // apt expects it there.
    let path = dir.join("partial");
    fs::create_dir_all(&path).map_err(|source| FetchError::Io { path, source })?;
    Ok(install(apt, dir, packages).arg(option).limit(LIMIT).run()?)
}

fn all_there(archives: Vec<PathBuf>) -> Result<Vec<PathBuf>, FetchError> {
    match archives.iter().find(|path| !path.is_file()) {
        Some(missing) => {
            Err(FetchError::Missing(printable(missing.file_name().unwrap_or_default())))
        }
        None => Ok(archives),
    }
}

fn install(apt: &AptGet, archives: &Path, packages: &[String]) -> Program {
    let mut dir = OsString::from("Dir::Cache::archives=");
    dir.push(archives);
    let install = apt.call("install").args(["--yes", "-qq", "--no-install-recommends", "-o"]);
    install.arg(dir).args(packages)
}

/// Reads a line of `apt-get --print-uris`: `'URI' NAME SIZE HASH`. apt does not copy what a `file:`
/// URI names.
fn archive(line: &str, archives: &Path) -> Option<PathBuf> {
    let (uri, rest) = line.strip_prefix('\'')?.split_once("' ")?;
    let name = rest.split(' ').next().filter(|name| !name.contains('/'))?;
    match uri.strip_prefix("file:") {
        Some(path) => Some(PathBuf::from(unquoted(path)?)),
        None => Some(archives.join(name)),
    }
}

/// apt writes unusual characters of a URI as `%` and two hexadecimal digits.
fn unquoted(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let (digits, after) = after.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    let path = String::from_utf8(bytes).ok()?;
    // `file:///repo` and `file:/repo` name the same path.
    Some(format!("/{}", path.trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_and_lists_that_nothing_uses_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let paths = ["archives/x.deb", "releases/a/apt.conf"]
            .map(|name| root.at(format!("/var/cache/venvguard/{name}")));
        for path in &paths {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
            // apt gives an archive the time that its server names.
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }
        let are_there = || paths.iter().map(|path| path.exists()).collect::<Vec<_>>();
        let now = crate::host::clock::now();
        let hour = jiff::SignedDuration::from_hours(1);
        remove_unused(&root, now - hour).unwrap();
        assert_eq!(are_there(), [true, true]);
        remove_unused(&root, now + hour).unwrap();
        assert_eq!(are_there(), [false, false]);
        assert!(!root.at("/var/cache/venvguard/releases/a").exists());
        remove_unused(&Root::new(dir.path().join("nothing")), now).unwrap();
    }

    #[test]
    fn only_packages_of_the_interpreter_are_fetched_by_name() {
        let action = |package: &str, unpacks| Action {
            package: package.into(),
            from: None,
            to: Some("1".into()),
            unpacks,
        };
        let names = [
            "python3",
            "python3-minimal",
            "python3.13",
            "python3.13-minimal",
            "libpython3.13-stdlib",
            "python3.13-venv",
            "python3-pip-whl",
            "python3.13-dev",
            "libpython3.13",
            "python3.11-minimal",
        ];
        let mut actions: Vec<Action> = names.iter().map(|name| action(name, true)).collect();
        actions.push(action("python3-venv", false));
        let wanted = packages_of(&actions, &[Minor::new(3, 13)]);
        let expected = [&names[..7], &["libpython3.13"]].concat();
        assert_eq!(wanted, expected.iter().map(|name| format!("{name}=1")).collect::<Vec<_>>());
    }

    #[test]
    fn an_archive_is_where_apt_puts_it_or_where_it_is() {
        let archive = |line| archive(line, Path::new("/a"));
        let fetched = "'http://d.example/p/python3_3.13.5-1_amd64.deb' python3_3.13.5-1_amd64.deb 28 SHA256:0";
        assert_eq!(archive(fetched), Some("/a/python3_3.13.5-1_amd64.deb".into()));
        let here =
            "'file:///repo/./libc6_2.41%2bdeb_amd64.deb' libc6_2.41+deb_amd64.deb 28 SHA256:0";
        assert_eq!(archive(here), Some("/repo/./libc6_2.41+deb_amd64.deb".into()));
        for other in ["", "Reading package lists...", "'http://x/y' ../../etc/x 1 SHA256:0", "'x"] {
            assert_eq!(archive(other), None, "{other}");
        }
    }
}
