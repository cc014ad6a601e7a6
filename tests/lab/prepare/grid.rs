//! The grid's foundation: the managers of venvs, a package for each way of installing, and the venvs themselves.

use std::path::PathBuf;

use anyhow::Result;

use super::root::Suite;
use super::{Lab, run_in, run_offline};
use crate::grid::cell::Cell;
use crate::grid::expect::impossible;

/// The release whose Python makes every venv of the grid.
pub(crate) const SUITE: Suite = Suite::Trixie;

const ENVIRONMENT: &str = include_str!("../grid/environment");
const PACKAGES: &str = include_str!("../grid/packages.py");
const MAKE: &str = include_str!("../grid/make.sh");

/// The managers, and other requirements of them or of the venvs. pdm 2.29 allows newer versions of the last two than
/// it works with.
const TOOLS: &str = "hatch\npdm\npipenv\npipx\npoetry\nsetuptools\nuv\nvirtualenv\nhishel[httpx]<1.3\nunearth<0.19\n";

/// The managers run on a Python that apt does not know, so that they still work after every change.
const WORKSHOP: &str = r#"
chown app: /srv/grid
install -m 755 /environment /srv/grid/environment
su app -c 'exec sh -euc "
    minor=\$(readlink /usr/bin/python3)
    python3 /packages.py /srv/grid
    mkdir -p /srv/grid/python/bin /srv/grid/python/lib
    cp /usr/bin/\$minor /srv/grid/python/bin/
    cp -a /usr/lib/\$minor /srv/grid/python/lib/
    /srv/grid/python/bin/\$minor -m venv /srv/grid/tools
    /srv/grid/tools/bin/pip --quiet install --no-index --find-links /wheelhouse --requirement /requirements.txt
"'
"#;

/// The index answers only while the venvs are created.
const CELLS: &str = r#"
chown app: /srv/cells
cat >/as-owner <<'END'
python3 -m http.server --bind 127.0.0.1 --directory /srv/grid/index 8000 >/tmp/index.log 2>&1 &
until curl --silent --fail --output /dev/null http://127.0.0.1:8000/simple/; do sleep 0.1; done
for cell in "$@"; do
    sh -eu /make.sh "$cell" >/tmp/log 2>&1 </dev/null || { echo "$cell:"; cat /tmp/log; exit 1; } >&2
done
END
exec su app -c 'exec sh -eu /as-owner "$@"' sh "$@"
"#;

impl Lab {
    /// The content of `/srv/grid`: the managers, the packages and an index of them.
    pub(crate) fn workshop(&self) -> Result<PathBuf> {
        let root = self.root(SUITE)?;
        let wheelhouse = self.wheels("wheelhouse-grid", SUITE, TOOLS, "")?;
        let recipe = [WORKSHOP, ENVIRONMENT, PACKAGES, &wheelhouse.to_string_lossy()];
        self.artefact("grid-workshop", &recipe, |directory| {
            let overlay = self.overlay("grid", &root)?;
            overlay.write("/environment", ENVIRONMENT)?;
            overlay.write("/packages.py", PACKAGES)?;
            overlay.write("/requirements.txt", TOOLS)?;
            let binds = [(directory, "/srv/grid"), (wheelhouse.as_path(), "/wheelhouse")];
            run_in(&overlay, &binds, WORKSHOP, &[]).map(drop)
        })
    }

    /// The content of `/srv/cells`: the venvs of some cells, each in the directory of its project.
    pub(crate) fn cells(&self, name: &str, cells: &[Cell]) -> Result<PathBuf> {
        let root = self.root(SUITE)?;
        let workshop = self.workshop()?;
        let possible = cells.iter().filter(|cell| impossible(**cell).is_none());
        let names: Vec<String> = possible.map(ToString::to_string).collect();
        let recipe = [CELLS, MAKE, &names.join(" "), &workshop.to_string_lossy()];
        self.artefact(&format!("grid-{name}"), &recipe, |directory| {
            let overlay = self.overlay("grid", &root)?;
            overlay.write("/make.sh", MAKE)?;
            let binds = [(directory, "/srv/cells"), (workshop.as_path(), "/srv/grid")];
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            run_offline(&overlay, &binds, CELLS, &names).map(drop)
        })
    }
}
