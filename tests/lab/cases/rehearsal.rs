//! Rehearsals: the new trees are built and checked with the next Python before it is installed.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Case;
use super::minor::WHEEL;
use crate::guard::{On, named};
use crate::machine::{Machine, services_of, wait_for};
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;
use crate::storm::is_long;

pub(super) fn cases() -> Vec<Case> {
    let followed = &[Site::Followed];
    vec![
        Case::guarded("rehearsed_bookworm_to_trixie", Kind::BookwormMinor, followed, swapped_in),
        Case::guarded("rehearsed_trixie_to_forky", Kind::TrixieMinor, followed, swapped_in),
        Case::guarded("rehearsal_of_what_is_missing", Kind::TrixieMinor, &[], missing),
        Case::guarded("resolved_where_mounts_are_forbidden", Kind::TrixieMinor, &[], resolved),
        Case::guarded("rehearsal_killed", Kind::TrixieMinor, followed, killed),
        Case::guarded("rehearsal_gives_way_to_apt", Kind::TrixieMinor, followed, gives_way),
        Case::guarded("rehearsed_by_the_forecast", Kind::TrixieMinor, followed, forecast),
        Case::guarded("rehearsed_without_a_way_back", Kind::TrixieMinor, followed, no_way_back),
        Case::guarded("rehearsed_patch", Kind::RealPatch, followed, patch),
        Case::guarded("rehearsed_to_stay", Kind::BookwormMinor, &[], stays),
    ]
}

/// Runs a command where mount namespaces are forbidden, as in many containers.
const NO_MOUNTS: &str = "setpriv --bounding-set -sys_admin";

/// The upgrade swaps the rehearsed tree in as it was.
fn swapped_in(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    let before = machine.must(SYSTEM)?;
    let venv = rehearse(machine, "followed")?;
    ensure!(venv["ready"] == true && venv["proof"] == "rehearsed", "{venv}");
    ensure!(machine.must(SYSTEM)? == before, "the rehearsal changed the system");
    machine.assert_guarded(&[(Site::Followed, On::Old)])?;
    let (tree, inode) = waiting(machine)?;
    let content = digest(machine, &tree)?;
    let plan = machine.must("venvguard plan")?;
    ensure!(plan.contains("is built and checked"), "{plan}");
    machine.must_upgrade_python()?;
    machine.assert_guarded(&[(Site::Followed, On::New)])?;
    let in_place = machine.must(&format!("stat -c %i {}", Site::Followed.venv()))?;
    ensure!(in_place.trim() == inode, "another tree is in place");
    ensure!(digest(machine, &Site::Followed.venv())? == content, "the tree was changed");
    Ok(())
}

/// Makes a venv of a distribution that has no wheel for the next Python; a later version has one.
fn tight(machine: &Machine) -> Result<()> {
    let tag = format!("cp{}", machine.upgrade.about.from.minor.replace('.', ""));
    machine.write("/root/wheel.py", WHEEL)?;
    machine.must(&format!(
        "mkdir /wheels && cd /wheels
         python3 /root/wheel.py tight 1.2.3 {tag}; python3 /root/wheel.py tight 1.3.0 py3
         printf '[global]\\nno-index = true\\nfind-links = /wheels\\n' >/etc/pip.conf
         python3 -m venv /srv/tight/venv && /srv/tight/venv/bin/pip install --quiet tight==1.2.3
         dpkg --install /package/venvguard_*.deb
         venvguard register /srv/tight/venv --name tight --policy rebuild"
    ))?;
    Ok(())
}

/// Where no program can see the next system, the index is asked for wheels.
fn resolved(machine: &Machine) -> Result<()> {
    tight(machine)?;
    machine.must(
        "python3 -m venv /srv/loose/venv && /srv/loose/venv/bin/pip install --quiet tight==1.3.0
         venvguard register /srv/loose/venv --name loose",
    )?;
    let before = machine.must(SYSTEM)?;
    let said = machine.run(&format!("{NO_MOUNTS} venvguard rehearse --json 2>/tmp/errors"))?;
    let errors = machine.must("cat /tmp/errors")?;
    ensure!(
        said.code == 3 && errors.contains("only asks the index for wheels"),
        "{said:?} {errors}"
    );
    let said: Value = serde_json::from_str(&said.text)?;
    let loose = named(&said, "loose")?;
    ensure!(loose["ready"] == true && loose["proof"] == "resolved", "{said}");
    let tight = named(&said, "tight")?;
    ensure!(tight["ready"] == false && tight["proof"] == "none", "{said}");
    let finding = &tight["findings"][0];
    ensure!(finding["kind"] == "no-wheel" && finding["works_from"] == "1.3.0", "{said}");
    ensure!(machine.must(SYSTEM)? == before, "the rehearsal changed the system");
    let plan = machine.run("venvguard plan --json")?;
    let plan: Value = serde_json::from_str(&plan.text)?;
    ensure!(
        plan["venvs"].as_array().is_some_and(|venvs| {
            venvs.iter().any(|venv| venv["name"] == "loose" && venv["proof"] == "resolved")
        }),
        "{plan}"
    );
    Ok(())
}

/// A venv that stays on its own Python is tried in the next system, too: the upgrade removes `python3-distutils`, and
/// with it most of that module.
fn stays(machine: &Machine) -> Result<()> {
    // An overlay such as the lab's root holds no devices that hide files; an ordinary file system does.
    machine.make_file_system("/disks/cache", 512, &["mkfs.ext4", "-q", "-F"])?;
    machine
        .must("mkdir -p /var/cache/venvguard && mount -o loop /disks/cache /var/cache/venvguard")?;
    machine.write("/root/wheel.py", WHEEL)?;
    machine.must(
        "cd /root && python3 wheel.py old 1.0 py3
         python3 -m venv /srv/old/venv && cd /srv/old/venv
         bin/pip install --quiet --no-index /root/old-1.0-*.whl && bin/pip uninstall --quiet --yes setuptools
         echo 'import distutils.util' >>lib/python3.11/site-packages/old.py
         dpkg --install /package/venvguard_*.deb
         venvguard register /srv/old/venv --name old --policy pin",
    )?;
    let packages = machine.packages()?;
    for policy in ["pin", "auto"] {
        machine.must(&format!("venvguard register /srv/old/venv --policy {policy}"))?;
        let said = machine.run("venvguard rehearse")?;
        ensure!(said.code == 3 && said.text.contains("distutils.util"), "{policy}: {said:?}");
        let said = machine.upgrade_python()?;
        let why = "as it is, it breaks: ";
        ensure!(said.code == 100 && said.text.contains(why), "{policy}: {said:?}");
        ensure!(machine.packages()? == packages, "{policy}: packages have changed");
    }
    machine.must("sed -i /distutils/d /srv/old/venv/lib/python3.11/site-packages/old.py")?;
    machine.must("venvguard register /srv/old/venv --policy pin && venvguard rehearse")?;
    machine.must_upgrade_python()?;
    machine.must("! /usr/bin/python3.11 -c 'import distutils.util'")?;
    machine.must(
        "/srv/old/venv/bin/python -c 'import old, sys; assert sys.version_info[:2] == (3, 11)'",
    )?;
    Ok(())
}

/// A distribution that the next Python cannot have is named before the upgrade, with the nearest version.
fn missing(machine: &Machine) -> Result<()> {
    tight(machine)?;
    let (code, said) = machine.venvguard_json("rehearse tight")?;
    let venv = &said["venvs"][0];
    ensure!(code == 3 && venv["ready"] == false && venv["proof"] == "none", "{said}");
    let finding = &venv["findings"][0];
    ensure!(finding["kind"] == "no-wheel" && finding["distribution"] == "tight", "{said}");
    ensure!(finding["version"] == "1.2.3" && finding["works_from"] == "1.3.0", "{said}");
    let status = machine.run("venvguard status")?;
    ensure!(status.text.contains("0 ready, 1 not ready (tight)"), "{status:?}");
    let packages = machine.packages()?;
    let blocked = machine.upgrade_python()?;
    ensure!(blocked.code != 0 && blocked.text.contains("blocked"), "{blocked:?}");
    ensure!(blocked.text.contains("tight==1.2.3"), "{}", blocked.text);
    ensure!(machine.packages()? == packages, "something was unpacked");
    let runs =
        || machine.must("/srv/tight/venv/bin/python -c 'import tight, sys; print(sys.version)'");
    let old = runs()?;
    machine.must("venvguard register /srv/tight/venv --policy auto")?;
    machine.must_upgrade_python()?;
    ensure!(runs()? == old, "it was not pinned");
    Ok(())
}

/// After many rehearsals, some of them killed, nothing is left but the tree of the last one, and `status` reports its size.
fn killed(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    machine.must("install -m 755 /package/venvguard-faults /usr/local/sbin/venvguard-faults")?;
    let before = machine.must(TRACES)?;
    let mut kills = 0;
    let (stride, least, all) = if is_long() { (7, 10, 50) } else { (17, 4, 0) };
    for effect in (1..2000).step_by(stride) {
        let said = machine.run(&format!("venvguard-faults --die-at {effect} rehearse"))?;
        if said.code != 137 {
            ensure!(said.code == 0, "{said:?}");
            break;
        }
        kills += 1;
        machine.page(&services_of(Site::Followed)[0], "/ok")?;
    }
    ensure!(kills >= least, "only {kills} kills");
    let more = all.max(kills + 1) - kills;
    for _ in 0..more {
        machine.must("venvguard prune followed")?;
        rehearse(machine, "followed")?;
    }
    println!("rehearsal_killed: killed {kills} times, finished {more} times");
    machine.run("venvguard resume")?;
    machine.assert_guarded(&[(Site::Followed, On::Old)])?;
    rehearse(machine, "followed")?;
    let after = machine.must(TRACES)?;
    ensure!(after == before, "before:\n{before}\nafter:\n{after}");
    let trees = machine.must("ls -d /srv/followed/.venv.venvguard-*")?;
    ensure!(trees.lines().count() == 1, "{trees}");
    let (_, listed) = machine.venvguard_json("status")?;
    let on_disk = machine.must("du --summarize --block-size=1 /srv/followed/.venv.venvguard-*")?;
    let on_disk: u64 = on_disk.split_whitespace().next().context("no size")?.parse()?;
    let told = listed["venvs"][0]["prepared"]["bytes"].as_u64().context("no size")?;
    ensure!(on_disk.abs_diff(told) < on_disk / 20, "{told} bytes instead of {on_disk}");
    machine.must_upgrade_python()?;
    machine.assert_guarded(&[(Site::Followed, On::New)])
}

/// An update of apt's lists rehearses in the background, once for what is pending.
fn forecast(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    let update = |what: &str| {
        machine.apt("update")?;
        wait_for(what, || {
            let state = "systemctl show --property=ActiveState --value venvguard-forecast";
            Ok(machine.must(state)?.trim() == "inactive")
        })?;
        machine.run("ls -di /srv/followed/.venv.venvguard-*")
    };
    ensure!(update("the forecast that nobody asked for")?.code != 0, "it was not asked for");
    machine.must("sed -i 's/^#forecast = false/forecast = true/' /etc/venvguard/config.toml")?;
    let tree = update("the forecast")?;
    ensure!(tree.code == 0, "{}", machine.must("journalctl --unit=venvguard-forecast")?);
    ensure!(update("the second forecast")?.text == tree.text, "it was rehearsed again");
    let status = machine.must("venvguard status")?;
    ensure!(status.contains("1 ready"), "{status}");
    machine.must_upgrade_python()?;
    machine.assert_guarded(&[(Site::Followed, On::New)])
}

/// An apt run does not wait for a rehearsal, and guards the venv.
fn gives_way(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    machine.must("systemd-run --unit=rehearsal venvguard rehearse")?;
    wait_for("the rehearsal to build", || {
        Ok(machine.run("ls -d /srv/followed/.venv.venvguard-*")?.code == 0)
    })?;
    machine.must_upgrade_python()?;
    let said = machine.must("journalctl --output=cat --unit=rehearsal")?;
    ensure!(said.contains("apt has started, so the rehearsal stops"), "{said}");
    machine.assert_guarded(&[(Site::Followed, On::New)])?;
    let trees = machine.must("ls -d /srv/followed/.venv.venvguard-*")?;
    ensure!(trees.lines().count() == 1, "more than the previous environment: {trees}");
    Ok(())
}

/// An upgrade that removes the old Python in the same run, as on armhf, is blocked until the venv is rehearsed.
fn no_way_back(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    let old = format!("python{}-minimal", machine.upgrade.about.from.minor);
    machine.must(&format!(
        "mkdir -p /goes/DEBIAN
         printf 'Package: goes\\nVersion: 1\\nArchitecture: all\\nMaintainer: lab\\nDescription: lab\\nConflicts: {old}\\n' \
             >/goes/DEBIAN/control
         dpkg-deb --build /goes /goes.deb"
    ))?;
    let upgrade =
        || machine.apt(&format!("install {} /goes.deb", machine.upgrade.about.packages.join(" ")));
    let packages = machine.packages()?;
    let blocked = upgrade()?;
    ensure!(blocked.code != 0 && blocked.text.contains("blocked"), "{blocked:?}");
    let way_out = "`venvguard rehearse /srv/followed/venv`, then run apt again";
    ensure!(blocked.text.contains(way_out), "{}", blocked.text);
    ensure!(machine.packages()? == packages, "something was unpacked");
    rehearse(machine, "followed")?;
    let said = upgrade()?;
    ensure!(said.code == 0, "{said:?}");
    ensure!(!machine.is_installed(&old)?, "{old} is still installed: {}", said.text);
    machine.assert_guarded(&[(Site::Followed, On::New)])
}

/// A patch version needs no new tree: the venv is checked as it is. One that would break it is blocked.
fn patch(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    let venv = rehearse(machine, "followed")?;
    ensure!(venv["ready"] == true && venv["proof"] == "smoke", "{venv}");
    // Like pydantic 1, one package calls a private function of the standard library while it is imported, with
    // arguments that the next patch version no longer takes. Another cannot be imported already.
    machine.must(
        "site=$(echo /srv/followed/venv/lib/python3.*/site-packages)
         for name in broken breaks; do
             mkdir $site/$name-1.dist-info
             printf 'Metadata-Version: 2.1\\nName: %s\\nVersion: 1\\n' $name >$site/$name-1.dist-info/METADATA
             printf '%s.py,,\\n' $name >$site/$name-1.dist-info/RECORD
         done
         echo 'import nothing_of_this_name' >$site/broken.py
         { echo 'from asyncio.unix_events import _UnixSelectorEventLoop as Loop'
           echo 'Loop._sock_sendfile_update_filepos(None, 0, 0, 0)'; } >$site/breaks.py
         /srv/followed/venv/bin/python -c 'import breaks'",
    )?;
    let (code, said) = machine.venvguard_json("rehearse followed")?;
    let findings = said["venvs"][0]["findings"].as_array().context("no findings")?;
    ensure!(code == 3 && findings.len() == 1, "{said}");
    let finding = &findings[0];
    ensure!(finding["distribution"] == "breaks" && finding["kind"] == "import", "{said}");
    ensure!(finding["detail"].as_str().is_some_and(|text| text.contains("TypeError")), "{said}");
    ensure!(said["venvs"][0]["proof"] == "smoke", "{said}");
    ensure!(machine.run("ls -d /srv/followed/.venv.venvguard-*")?.code != 0, "it was rebuilt");
    let packages = machine.packages()?;
    let said = machine.upgrade_python()?;
    ensure!(said.code != 0 && said.text.contains("as it is, it breaks: "), "{said:?}");
    ensure!(machine.packages()? == packages, "something was unpacked: {}", said.text);
    machine.must("venvguard register /srv/followed/venv --policy warn")?;
    machine.must_upgrade_python()?;
    Ok(())
}

fn rehearse(machine: &Machine, name: &str) -> Result<Value> {
    let (code, said) = machine.venvguard_json(&format!("rehearse {name}"))?;
    let venv = said["venvs"][0].clone();
    ensure!(code == 0 && venv["name"] == name, "exit {code}: {said}");
    Ok(venv)
}

/// The prepared tree, and its inode.
fn waiting(machine: &Machine) -> Result<(String, String)> {
    let said = machine.must("stat -c '%n %i' /srv/followed/.venv.venvguard-*")?;
    let (tree, inode) = said.trim().split_once(' ').with_context(|| said.clone())?;
    Ok((tree.to_owned(), inode.to_owned()))
}

/// The content of a tree, without what its service compiles while it runs and the note about user files.
fn digest(machine: &Machine, tree: &str) -> Result<String> {
    machine.must(&format!(
        "cd {tree} && find . -type f ! -name '*.pyc' ! -name '.venvguard-*' -print0 | sort -z | xargs -0 sha256sum"
    ))
}

/// What a rehearsal must not change.
const SYSTEM: &str = "dpkg-query -W; sha256sum /etc/apt/sources.list /var/lib/dpkg/status /etc/ld.so.cache
    find /usr /etc -newermt @$(stat -c %Y /proc/1) -type f 2>/dev/null | grep -v -e __pycache__ -e venvguard | sort";

/// What would be left of a rehearsal.
const TRACES: &str = "cut -d' ' -f5 /proc/self/mountinfo | sort; ls /var/cache/venvguard/next 2>&1
    ls /var/lib/venvguard/journal 2>/dev/null; pgrep -c venvguard || true";
