//! Venvs of many distributions, and an index that has them for the old Python and, where they exist, for the new one.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::upgrade::Kind;
use super::wheelhouse::copy_pip_configuration;
use super::{Lab, run_in, run_offline};
use crate::distributions::table::Planned;
use crate::overlay::Overlay;

/// Where the venvs are on a machine.
pub(crate) const PLACE: &str = "/srv/many";

const WHEELS: &str = include_str!("distributions.sh");

const VENVS: &str = r#"
chown app: "$1"
printf '[global]\nno-index = true\nfind-links = /wheelhouse\n' >/etc/pip.conf
cat >/as-owner <<'END'
for file in /venvs/*; do
    venv=$1/${file##*/}
    python3 -m venv "$venv"
    "$venv/bin/pip" --quiet install --requirement "$file"
done
END
exec su app -c 'exec sh -eu /as-owner "$@"' sh "$1"
"#;

impl Lab {
    /// The wheels for the venvs of an upgrade.
    pub(crate) fn many_wheels(&self, kind: Kind, venvs: &[Planned]) -> Result<PathBuf> {
        let root = self.root(kind.suite())?;
        let minor = self.upgrade(kind)?.about.to.minor;
        let (plan, works_from, sources) = (plan(venvs), works_from(venvs), sources(venvs));
        let recipe = [WHEELS, &minor, &plan, &works_from, &sources, &root.to_string_lossy()];
        self.artefact(&format!("wheelhouse-many-{}", kind.suite().name()), &recipe, |directory| {
            let overlay = self.overlay("wheelhouse", &root)?;
            write_plan(&overlay, venvs)?;
            overlay.write("/works-from", &works_from)?;
            overlay.write("/sources", &sources)?;
            copy_pip_configuration(&overlay)?;
            let cache = self.pip_cache()?;
            let binds = [(directory, "/wheelhouse"), (cache.as_path(), "/root/.cache/pip")];
            run_in(&overlay, &binds, WHEELS, &[&minor]).map(drop)
        })
    }

    /// The content of [`PLACE`]: a venv for each.
    pub(crate) fn many_venvs(&self, kind: Kind, venvs: &[Planned]) -> Result<PathBuf> {
        let root = self.root(kind.suite())?;
        let wheels = self.many_wheels(kind, venvs)?;
        let recipe = [VENVS, &plan(venvs), &wheels.to_string_lossy()];
        self.artefact(&format!("many-{}", kind.suite().name()), &recipe, |directory| {
            let overlay = self.overlay("many", &root)?;
            write_plan(&overlay, venvs)?;
            let binds = [(directory, PLACE), (wheels.as_path(), "/wheelhouse")];
            run_offline(&overlay, &binds, VENVS, &[PLACE]).map(drop)
        })
    }
}

/// A file of requirements for each venv.
fn write_plan(overlay: &Overlay, venvs: &[Planned]) -> Result<()> {
    std::fs::create_dir(overlay.path("/venvs")).context("cannot write the plan")?;
    for venv in venvs {
        let requirements = venv.requirements.replace(' ', "\n") + "\n";
        overlay.write(&format!("/venvs/{}", venv.name), &requirements)?;
    }
    Ok(())
}

fn plan(venvs: &[Planned]) -> String {
    lines(venvs.iter().map(|venv| format!("{}: {}", venv.name, venv.requirements)))
}

fn works_from(venvs: &[Planned]) -> String {
    let expected = venvs.iter().filter_map(|venv| venv.expected);
    lines(expected.filter_map(|one| Some(format!("{}=={}", one.distribution, one.works_from?))))
}

fn sources(venvs: &[Planned]) -> String {
    lines(venvs.iter().filter(|venv| venv.has_source).map(|venv| venv.requirements.to_owned()))
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.fold(String::new(), |text, line| text + &line + "\n")
}
