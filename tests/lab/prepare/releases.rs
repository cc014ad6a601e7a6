//! A signed archive with several releases, for machines that ask about a release that is not theirs.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use super::extra::packages_in;
use super::root::Suite;
use super::upgrade::Kind;
use super::{Lab, copy_tree, run_in};

const SIGN: &str = include_str!("releases.sh");

/// The release of the machine, and those that it may be upgraded to.
const RELEASES: [Suite; 3] = [Suite::Bookworm, Suite::Trixie, Suite::Forky];

impl Lab {
    /// The archive, with the packages of Python that an upgrade from bookworm installs, and `keys/RELEASE.gpg`.
    pub(crate) fn releases(&self) -> Result<PathBuf> {
        let kind = Kind::BookwormMinor;
        let (root, signing) = (self.root(kind.suite())?, self.root(Suite::Trixie)?);
        let upgrade = self.upgrade(kind)?;
        let repository = upgrade.repository.to_string_lossy();
        let recipe = [SIGN, &root.to_string_lossy(), &repository];
        self.artefact("releases", &recipe, |directory| {
            let pool = |suite: Suite| directory.join("pool").join(suite.name());
            for suite in RELEASES {
                fs::create_dir_all(pool(suite))?;
            }
            for (name, package) in packages_in(&upgrade.repository)? {
                if !name.starts_with("lab-") {
                    copy_tree(&package, &pool(Suite::Trixie))?;
                }
            }
            let source = format!("deb {} {} main", self.mirror.main, Suite::Forky.name());
            self.download(&root, &source, &upgrade.about.packages, &pool(Suite::Forky))?;
            let overlay = self.overlay("releases", &signing)?;
            let names = RELEASES.map(Suite::name);
            run_in(&overlay, &[(directory, "/archive")], SIGN, &names).map(drop)
        })
    }
}
