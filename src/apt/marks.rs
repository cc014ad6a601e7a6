//! apt's marks: which packages are automatically installed, and which are on hold.

use crate::host::command::CommandError;
use crate::host::{Program, Root};
use crate::python::Minor;

fn apt_mark() -> Program {
    Program::new("/usr/bin/apt-mark")
}

/// The packages of an interpreter; the minimal one contains the program.
pub(crate) fn packages_of(minor: Minor) -> [String; 2] {
    let name = minor.program();
    [name.clone(), format!("{name}-minimal")]
}

/// Keeps `apt autoremove` from removing an interpreter that a pinned venv needs.
pub(crate) fn keep_installed(root: &Root, minor: Minor) -> Result<(), (Minor, CommandError)> {
    let packages: Vec<String> = packages_of(minor)
        .into_iter()
        .filter(|name| root.at(format!("/var/lib/dpkg/info/{name}.list")).exists())
        .collect();
    // Below another root there is no apt to call, and apt obeys only root.
    if packages.is_empty() || !root.is_system() || root.user().is_some() {
        return Ok(());
    }
    apt_mark()
        .args(["manual", "-qq"])
        .args(packages)
        .run()
        .map(drop)
        .map_err(|error| (minor, error))
}

/// Those of the packages that `apt autoremove` may remove.
pub(crate) fn automatic(packages: &[String]) -> Result<Vec<String>, CommandError> {
    let marked = apt_mark().arg("showauto").args(packages).read_only().run()?;
    Ok(lines(&marked.text()))
}

/// The packages on hold, which no upgrade changes.
pub(crate) fn held() -> Result<Vec<String>, CommandError> {
    Ok(lines(&apt_mark().arg("showhold").read_only().run()?.text()))
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_string).collect()
}
