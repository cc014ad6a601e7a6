//! Debian packages that a case installs and no root contains, so that one case does not require new roots and new
//! upgrades computed on them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::root::Suite;
use super::upgrade::{Kind, index};
use super::{Lab, run_in};

const DOWNLOAD: &str = r#"
apt-get -qq update
apt-get -qq -y --download-only --no-install-recommends -o Dir::Cache::archives=/packages \
    -o APT::Sandbox::User=root install "$@"
rm -rf /packages/partial /packages/lock
"#;

impl Lab {
    /// A directory with packages of a release, and their dependencies.
    pub(crate) fn extra(&self, suite: Suite, packages: &[&str]) -> Result<PathBuf> {
        let root = self.root(suite)?;
        let names = packages.join("+");
        let recipe = [DOWNLOAD, &names, &root.to_string_lossy()];
        self.artefact(&format!("extra-{}-{names}", suite.name()), &recipe, |directory| {
            let overlay = self.overlay("extra", &root)?;
            run_in(&overlay, &[(directory, "/packages")], DOWNLOAD, packages)?;
            Ok(())
        })
    }

    /// An apt repository with the same packages of the next release, for an upgrade to it: programs that embed Python
    /// allow only one minor version. It has nothing that the repository of the upgrade has.
    pub(crate) fn newer(&self, kind: Kind, packages: &[&str]) -> Result<Option<PathBuf>> {
        let Some(next) = kind.next() else { return Ok(None) };
        let (root, upgrade) = (self.root(kind.suite())?, self.upgrade(kind)?.repository);
        let names = packages.join("+");
        let recipe = [DOWNLOAD, &names, &root.to_string_lossy(), &upgrade.to_string_lossy()];
        let name = format!("newer-{}-{names}", next.name());
        let made = self.artefact(&name, &recipe, |directory| {
            let overlay = self.overlay("newer", &root)?;
            let source = format!("deb {} {} main\n", self.mirror.main, next.name());
            overlay.write("/etc/apt/sources.list.d/next.list", &source)?;
            run_in(&overlay, &[(directory, "/packages")], DOWNLOAD, packages)?;
            let known = packages_in(&upgrade)?;
            for (name, file) in packages_in(directory)? {
                if known.contains_key(&name) {
                    fs::remove_file(file)?;
                }
            }
            index(directory)
        })?;
        Ok(Some(made))
    }
}

/// The packages in a directory, by name.
pub(super) fn packages_in(directory: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut packages = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if let Some((package, _)) = entry.file_name().to_string_lossy().split_once('_') {
            packages.insert(package.to_owned(), entry.path());
        }
    }
    Ok(packages)
}
