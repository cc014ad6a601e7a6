//! Venvs that a rebuild cannot serve as it serves others, and the reason that venvguard reports.

use anyhow::{Result, ensure};

use super::Case;
use super::minor::WHEEL;
use crate::machine::Machine;
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    let case = |subject, run| Case::guarded(subject, Kind::TrixieMinor, &[Site::Bare], run);
    vec![
        case("layouts_of_packages_and_lower_layers", refused),
        case("layouts_with_sources_that_do_not_build", unbuildable),
    ]
}

/// A venv that consists of files of a package stays as it is, and so does one from a lower layer of overlayfs, until it
/// is moved as the hint says.
fn refused(machine: &Machine) -> Result<()> {
    let new = machine.upgrade.about.to.clone();
    let old = machine.upgrade.about.from.clone();
    machine.must(
        "/usr/bin/python3 -m venv /opt/packed/venv
         mkdir -p /root/pack/DEBIAN /root/pack/opt && mv /opt/packed /root/pack/opt/
         printf 'Package: lab-packed\\nVersion: 1\\nArchitecture: all\\nMaintainer: x <x@x>\\nDescription: x\\n' \\
             >/root/pack/DEBIAN/control
         dpkg-deb --build /root/pack /root/pack.deb && dpkg -i /root/pack.deb
         /usr/bin/python3 -m venv /srv/layered/venv && mkdir /srv/lower && mv /srv/layered/venv /srv/lower/
         mkdir /run/layers && mount -t tmpfs layers /run/layers && mkdir /run/layers/upper /run/layers/work
         mount -t overlay overlay /srv/layered -o redirect_dir=off,lowerdir=/srv/lower,upperdir=/run/layers/upper,workdir=/run/layers/work",
    )?;
    machine.install_guard()?;
    let said = machine.must(
        "venvguard register /opt/packed/venv --name packed 2>&1
         venvguard register /srv/layered/venv --name layered",
    )?;
    ensure!(said.contains("it belongs to the package lab-packed"), "{said}");
    let said = machine.must_upgrade_python()?;
    for reason in ["it belongs to the package lab-packed", "a lower layer of overlayfs"] {
        ensure!(said.text.contains(reason), "{reason:?} is not reported: {said:?}");
    }
    let runs = |venv: &str, minor: &str| {
        let said = machine.must(&format!(
            "{venv}/bin/python3 -c 'import pip, sys; print(*sys.version_info[:2], sep=\".\")'"
        ))?;
        ensure!(said.trim() == minor, "{venv} runs {said}, not {minor}");
        Ok(())
    };
    runs("/opt/packed/venv", &old.minor)?;
    runs("/srv/layered/venv", &old.minor)?;
    let said = machine.run("venvguard rebuild packed")?;
    ensure!(said.code != 0 && said.text.contains("lab-packed"), "{said:?}");
    machine.must(
        "cd /srv/layered && cp -a venv venv.new && rm -r venv && mv venv.new venv && venvguard rebuild layered",
    )?;
    runs("/srv/layered/venv", &new.minor)
}

/// A version of which the new Python has only a source archive that does not build is one that is missing: the nearest
/// one with a wheel is named, and what the build needs. A pip that the new Python cannot run is named as well.
fn unbuildable(machine: &Machine) -> Result<()> {
    let new = machine.upgrade.about.to.clone();
    let tag = format!("cp{}", machine.upgrade.about.from.minor.replace('.', ""));
    machine.write("/root/wheel.py", WHEEL)?;
    machine.must("mkdir /root/hard-1.0")?;
    machine.write("/root/hard-1.0/backend.py", BACKEND)?;
    machine.write("/root/hard-1.0/pyproject.toml", PROJECT)?;
    machine.must(&format!(
        "mkdir /wheels && cd /wheels
         python3 /root/wheel.py hard 1.0 {tag}
         printf '[global]\\nno-index = true\\nfind-links = /wheels\\n' >/etc/pip.conf
         python3 -m venv /srv/hard/venv && /srv/hard/venv/bin/pip install --quiet hard==1.0
         printf 'Metadata-Version: 2.1\\nName: hard\\nVersion: 1.0\\n' >/root/hard-1.0/PKG-INFO
         tar -C /root -czf hard-1.0.tar.gz hard-1.0",
    ))?;
    machine.install_guard()?;
    machine.must("venvguard register /srv/hard/venv --name hard")?;
    let needs = format!("`apt install build-essential python{}-dev`", new.minor);
    let said = machine.must_upgrade_python()?;
    ensure!(said.text.contains(&needs), "{needs} is not reported: {said:?}");
    machine.must("cd /wheels && python3 /root/wheel.py hard 2.0 py3")?;
    let said = machine.run("venvguard rebuild hard --relax minor")?;
    let nearest = "hard==1.0: the nearest version with a wheel is 2.0 (`--relax major` accepts it)";
    ensure!(said.code == 1 && said.text.contains(nearest), "{said:?}");
    machine.must(
        "cd /usr/share/python-wheels && mkdir /root/wheels && mv pip-*.whl /root/wheels/
         : >pip-23.0.1-py3-none-any.whl",
    )?;
    let said = machine.run("venvguard rebuild hard --relax major")?;
    let old = format!("pip 23.0.1 does not run on Python {}", new.minor);
    ensure!(said.code == 1 && said.text.contains(&old), "{said:?}");
    machine.must(
        "cd /usr/share/python-wheels && rm pip-23.0.1-py3-none-any.whl && mv /root/wheels/* .
         venvguard rebuild hard --relax major
         /srv/hard/venv/bin/python -c 'import hard; assert hard.version == \"2.0\"'",
    )?;
    Ok(())
}

const PROJECT: &str =
    "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n";

/// What a build says on a machine without a compiler.
const BACKEND: &str = "def build_wheel(*_):
    raise SystemExit(\"error: command 'x86_64-linux-gnu-gcc' failed: No such file or directory\")
";
