//! A signed archive with several releases, for machines that ask about a release that is not theirs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::root::Suite;
use super::upgrade::Kind;
use super::{Lab, copy_tree, run_in};

const SIGN: &str = include_str!("releases.sh");

/// The packages that move the default Python of a release: what [`Kind::BookwormMinor`] installs.
const DOWNLOAD: &str = r#"
apt-get -qq update
apt-get -qq -y --download-only -o Dir::Cache::archives=/packages -o APT::Sandbox::User=root install "$@"
rm -rf /packages/partial /packages/lock
"#;

/// The release of the machine, and those that it may be upgraded to.
const RELEASES: [Suite; 3] = [Suite::Bookworm, Suite::Trixie, Suite::Forky];

impl Lab {
    /// The archive, with the packages of Python that an upgrade from bookworm installs, and `keys/RELEASE.gpg`.
    pub(crate) fn releases(&self) -> Result<PathBuf> {
        let kind = Kind::BookwormMinor;
        let (root, signing) = (self.root(kind.suite())?, self.root(Suite::Trixie)?);
        let upgrade = self.upgrade(kind)?;
        let repository = upgrade.repository.to_string_lossy();
        let recipe = [SIGN, DOWNLOAD, &root.to_string_lossy(), &repository];
        self.artefact("releases", &recipe, |directory| {
            let pool = |suite: Suite| directory.join("pool").join(suite.name());
            for suite in RELEASES {
                fs::create_dir_all(pool(suite))?;
            }
            for package in packages_in(&upgrade.repository)? {
                copy_tree(&package, &pool(Suite::Trixie))?;
            }
            let overlay = self.overlay("releases", &root)?;
            let source = format!("deb {} {} main\n", self.mirror.main, Suite::Forky.name());
            overlay.write("/etc/apt/sources.list.d/next.list", &source)?;
            let packages: Vec<&str> = upgrade.about.packages.iter().map(String::as_str).collect();
            run_in(&overlay, &[(&pool(Suite::Forky), "/packages")], DOWNLOAD, &packages)?;
            let overlay = self.overlay("releases", &signing)?;
            let names = RELEASES.map(Suite::name);
            run_in(&overlay, &[(directory, "/archive")], SIGN, &names).map(drop)
        })
    }
}

/// The packages of an upgrade, without those that the lab adds.
fn packages_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut packages = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let is_package = path.extension().is_some_and(|extension| extension == "deb");
        if is_package && !name.to_string_lossy().starts_with("lab-") {
            packages.push(path);
        }
    }
    Ok(packages)
}
