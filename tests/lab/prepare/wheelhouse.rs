//! Wheelhouses: the wheels of every app, for the Python of a root and for those that its upgrades bring. The venvs are
//! created from them and, in containers without a network, rebuilt from them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::root::Suite;
use super::upgrade::Kind;
use super::venvs::{Site, Tool};
use super::{Lab, run_in};

const SCRIPT: &str = include_str!("wheelhouse.sh");

impl Lab {
    /// The wheels that the sites of a release, and the tools that create their venvs, need.
    pub(crate) fn wheelhouse(&self, suite: Suite) -> Result<PathBuf> {
        let minors = self.minors_after(suite)?;
        let name = format!("wheelhouse-{}", suite.name());
        self.wheels(&name, suite, &requirements(suite), &minors)
    }

    /// Wheels for the Python of a root, and for some other minor versions.
    pub(super) fn wheels(
        &self,
        name: &str,
        suite: Suite,
        requirements: &str,
        minors: &str,
    ) -> Result<PathBuf> {
        let root = self.root(suite)?;
        let recipe = [SCRIPT, requirements, minors, &root.to_string_lossy()];
        self.artefact(name, &recipe, |directory| {
            let overlay = self.overlay("wheelhouse", &root)?;
            overlay.write("/requirements.txt", requirements)?;
            copy_pip_configuration(&overlay)?;
            let cache = self.pip_cache()?;
            run_in(
                &overlay,
                &[(directory, "/wheelhouse"), (&cache, "/root/.cache/pip")],
                SCRIPT,
                &minors.split(' ').collect::<Vec<_>>(),
            )?;
            Ok(())
        })
    }

    /// What pip has fetched before.
    pub(super) fn pip_cache(&self) -> Result<PathBuf> {
        let cache = self.home.join("pip-cache");
        fs::create_dir_all(&cache)?;
        Ok(cache)
    }

    /// The minor versions that the upgrades of a release bring, in addition to its own.
    fn minors_after(&self, suite: Suite) -> Result<String> {
        let mut minors = BTreeSet::new();
        for kind in Kind::ALL.into_iter().filter(|kind| kind.suite() == suite) {
            let about = self.upgrade(kind)?.about;
            if about.to.minor != about.from.minor {
                minors.insert(about.to.minor);
            }
        }
        Ok(minors.into_iter().collect::<Vec<_>>().join(" "))
    }
}

/// The requirements of all the sites of a release, and of the tools that create their venvs.
fn requirements(suite: Suite) -> String {
    let mut lines = BTreeSet::new();
    for site in Site::ALL.into_iter().filter(|site| site.suites().contains(&suite)) {
        lines.extend(site.requirements().lines());
        match site.tool() {
            Tool::Venv => {}
            Tool::Virtualenv => drop(lines.insert("virtualenv")),
            Tool::Uv => drop(lines.insert("uv")),
        }
    }
    // A case makes services of every kind.
    lines.extend((suite == Suite::Trixie).then_some("celery"));
    lines.into_iter().fold(String::new(), |text, line| text + line + "\n")
}

/// Gives pip in the root the host's configuration.
pub(super) fn copy_pip_configuration(overlay: &crate::overlay::Overlay) -> Result<()> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    for file in [home.join(".config/pip/pip.conf"), PathBuf::from("/etc/pip.conf")] {
        if let Ok(text) = fs::read_to_string(&file) {
            overlay.write("/etc/pip.conf", &text)?;
            break;
        }
    }
    let authorities = "/etc/ssl/certs/ca-certificates.crt";
    if Path::new(authorities).exists() {
        fs::copy(authorities, overlay.path(authorities)).context("cannot copy the authorities")?;
    }
    Ok(())
}
