//! Venvs that a rebuild cannot serve as it serves others, and the reason that venvguard reports.

use anyhow::{Result, ensure};

use super::Case;
use super::minor::WHEEL;
use crate::machine::{Machine, Said};
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    let case = |subject, run| Case::guarded(subject, Kind::TrixieMinor, &[Site::Bare], run);
    vec![
        case("layouts_of_packages_and_lower_layers", refused),
        case("layouts_with_sources_that_do_not_build", unbuildable),
        case("layouts_whose_packages_and_addresses_change", changed),
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

/// A package replaces its venv by one for the new Python, in the same run of apt; and an address serves another version
/// than that which was installed from it.
fn changed(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    make_carried(machine)?;
    make_octo(machine)?;
    let packages = machine.upgrade.about.packages.join(" ");
    let said = machine.apt(&format!("install {packages} /root/carried-2.deb"))?;
    ensure!(said.code == 0, "{said:?}");
    is_carried(machine, &said)?;
    is_pinned_for_its_address(machine, &said)
}

/// Makes both versions of a package that consists of a venv. The second has the tree for the new Python, which is not
/// installed yet.
const CARRIED: &str = r#"
old=$1 new=$2 root=/root/carried
/usr/bin/python3 -m venv --without-pip /opt/carried/venv
mkdir -p $root/DEBIAN $root/opt && mv /opt/carried $root/opt/
cd $root/opt/carried/venv
pack() {
    printf 'Package: lab-carried
Version: %s
Architecture: all
Maintainer: x <x@x>
Description: x
' $1 >$root/DEBIAN/control
    echo "version = $1" >lib/python$2/site-packages/carried.py
    (cd $root && find opt -type f -exec md5sum {} + >DEBIAN/md5sums)
    dpkg-deb --build $root /root/carried-$1.deb
}
pack 1 $old
mv lib/python$old lib/python$new
mv bin/python$old bin/python$new
sed -i "s/$old[0-9.]*/$new.0/" pyvenv.cfg
pack 2 $new
dpkg -i /root/carried-1.deb
"#;

const CARRIED_UNIT: &str = "[Service]
ExecStart=/opt/carried/venv/bin/python -c 'import carried, time; time.sleep(9000)'
";

fn make_carried(machine: &Machine) -> Result<()> {
    let (old, new) = (&machine.upgrade.about.from.minor, &machine.upgrade.about.to.minor);
    machine.write("/root/carried.sh", CARRIED)?;
    machine.write("/etc/systemd/system/carried.service", CARRIED_UNIT)?;
    machine.must(&format!(
        "sh -eu /root/carried.sh {old} {new}; systemctl daemon-reload; systemctl start carried"
    ))?;
    let said = machine.must("venvguard register /opt/carried/venv --name carried 2>&1")?;
    ensure!(said.contains("it belongs to the package lab-carried"), "{said}");
    Ok(())
}

/// Its venv is the package's, and its service runs it.
fn is_carried(machine: &Machine, said: &Said) -> Result<()> {
    let new = machine.upgrade.about.to.minor.clone();
    let told = "it belongs to the package lab-carried, which replaces it";
    ensure!(said.text.contains(told), "{told:?} is missing: {said:?}");
    ensure!(!said.text.contains("carried: rebuilt"), "{said:?}");
    let restarted = said.text.matches("restarted systemd:carried.service").count();
    ensure!(restarted == 1, "restarted {restarted} times: {said:?}");
    let differs =
        machine.must("dpkg --verify lab-carried; readlink /opt/carried/venv/bin/python3")?;
    ensure!(differs == "/usr/bin/python3\n", "{differs}");
    let beside = machine.must("ls -A /opt/carried")?;
    ensure!(beside == "venv\n", "{beside}");
    machine
        .must("/opt/carried/venv/bin/python -c 'import carried; assert carried.version == 2'")?;
    let exe =
        machine.must("readlink /proc/$(systemctl show --property=MainPID --value carried)/exe")?;
    ensure!(exe.trim() == format!("/usr/bin/python{new}"), "the service runs {exe}");
    let (_, status) = machine.venvguard_json("status carried")?;
    let venv = &status["venvs"][0];
    ensure!(venv["state"] == "healthy" && venv["reasons"] == serde_json::json!([]), "{status}");
    let said = machine.run("venvguard rebuild carried")?;
    ensure!(said.code != 0 && said.text.contains("lab-carried"), "{said:?}");
    Ok(())
}

/// Makes the archive of one version of a distribution, and serves it.
const OCTO: &str = r#"
mkdir -p /srv/index /root/octo && cd /root/octo
cp /root/wheel.py . && cp /root/backend.py .
printf '[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
' >pyproject.toml
echo $1 >version
rm -f /srv/index/main.zip
cd .. && /usr/bin/python3 -m zipfile -c /srv/index/main.zip octo
"#;

/// Builds a wheel of the version in the file beside it.
const OCTO_BACKEND: &str = r#"
import os, subprocess, sys

def build_wheel(directory, *_):
    version = open("version").read().strip()
    script = os.path.abspath("wheel.py")
    subprocess.run([sys.executable, script, "octo", version, "py3"], check=True, cwd=directory)
    return f"octo-{version}-py3-none-any.whl"
"#;

/// Installs it as an old pip did, which noted no hash; from now on the address serves another version.
fn make_octo(machine: &Machine) -> Result<()> {
    let url = "http://127.0.0.1:8001/main.zip";
    machine.write("/root/wheel.py", WHEEL)?;
    machine.write("/root/backend.py", OCTO_BACKEND)?;
    machine.write("/root/octo.sh", OCTO)?;
    let python = format!("/usr/bin/python{}", machine.upgrade.about.from.minor);
    machine.must(&format!(
        "sh -eu /root/octo.sh 1.0
         systemd-run --quiet --unit=index {python} -m http.server --bind 127.0.0.1 --directory /srv/index 8001
         install -d -o app /srv/octo; su app -c '/usr/bin/python3 -m venv /srv/octo/venv'
         until curl -fsSo /dev/null {url}; do sleep 0.1; done
         su app -c '/srv/octo/venv/bin/pip install --quiet {url}'
         for file in /srv/octo/venv/lib/python3*/site-packages/octo-1.0.dist-info/direct_url.json; do
             echo '{{\"url\": \"{url}\", \"archive_info\": {{}}}}' >$file
         done
         sh -eu /root/octo.sh 1.1"
    ))?;
    let said = machine.must("venvguard register /srv/octo/venv --name octo 2>&1")?;
    let told = format!("octo was installed from {url}, without a hash");
    ensure!(said.contains(&told), "{told:?} is missing: {said}");
    Ok(())
}

/// The rebuild has failed, and the venv works as it did.
fn is_pinned_for_its_address(machine: &Machine, said: &Said) -> Result<()> {
    let told = "octo 1.0 became 1.1: http://127.0.0.1:8001/main.zip has changed (`--relax minor` accepts it)";
    ensure!(said.text.contains("octo: pinned: ") && said.text.contains(told), "{said:?}");
    let runs = |version: &str, minor: &str| {
        machine.must(&format!(
            "/srv/octo/venv/bin/python -c 'import octo, sys; assert (octo.version, \"%d.%d\" % sys.version_info[:2]) == (\"{version}\", \"{minor}\")'"
        ))
    };
    runs("1.0", &machine.upgrade.about.from.minor)?;
    let (_, status) = machine.venvguard_json("status octo")?;
    ensure!(status["venvs"][0]["state"] == "healthy", "{status}");
    machine.must("venvguard rebuild octo --relax minor")?;
    runs("1.1", &machine.upgrade.about.to.minor).map(drop)
}

const PROJECT: &str =
    "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n";

/// What a build says on a machine without a compiler.
const BACKEND: &str = "def build_wheel(*_):
    raise SystemExit(\"error: command 'x86_64-linux-gnu-gcc' failed: No such file or directory\")
";
