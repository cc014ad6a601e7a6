//! Debian packages that a case installs and no root contains, so that one case does not require new roots and new
//! upgrades computed on them.

use std::path::PathBuf;

use anyhow::Result;

use super::root::Suite;
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
}
