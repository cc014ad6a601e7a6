//! Removals that take a library of the system from an extension module of a venv.

use anyhow::{Result, ensure};

use super::Case;
use crate::machine::Machine;
use crate::prepare::upgrade::Kind;

pub(super) fn cases() -> Vec<Case> {
    let extra = &["python3-psycopg2"];
    let case = Case::guarded("autoremove_of_a_library", Kind::TrixieRevision, &[], autoremove);
    vec![Case { extra, ..case }]
}

/// A venv with psycopg2 as pip builds it: an extension module that needs the system's libpq.
const MAKE: &str = r"
apt-get install --yes --quiet /extra/*.deb
python3 -m venv --without-pip /srv/shop/venv
cd /srv/shop/venv/lib/python3*/site-packages
apt-mark auto libpq5
cp -r /usr/lib/python3/dist-packages/psycopg2 .
mkdir psycopg2-2.9.10.dist-info
printf 'Metadata-Version: 2.1\nName: psycopg2\nVersion: 2.9.10\n' >psycopg2-2.9.10.dist-info/METADATA
find psycopg2 -type f -printf '%p,,\n' >psycopg2-2.9.10.dist-info/RECORD
apt-get remove --yes --quiet python3-psycopg2
";

const IMPORTS: &str = "/srv/shop/venv/bin/python -c 'import psycopg2'";

/// apt wants to remove libpq, because no package needs it any more. venvguard blocks that, names the way out, and lets
/// other removals through.
fn autoremove(machine: &Machine) -> Result<()> {
    machine.install_guard()?;
    machine.must(MAKE)?;
    machine.must("venvguard register /srv/shop/venv --name shop")?;
    machine.must(IMPORTS)?;
    let packages = machine.packages()?;

    let blocked = machine.apt("autoremove")?;
    ensure!(blocked.code == 100, "{blocked:?}");
    for words in
        ["shop", "psycopg2 2.9.10", "needs libpq.so.5 of libpq5", "`apt-mark manual libpq5`"]
    {
        ensure!(blocked.text.contains(words), "{words:?} is missing: {}", blocked.text);
    }
    ensure!(machine.packages()? == packages, "something was removed: {}", blocked.text);
    machine.must(IMPORTS)?;

    let simulated = "apt-get --simulate autoremove | grep -q '^Remv libpq5'";
    machine.must(simulated)?;
    machine.must("apt-mark manual libpq5")?;
    ensure!(machine.run(simulated)?.code == 1, "libpq5 would still be removed");
    let allowed = machine.apt("autoremove")?;
    ensure!(allowed.code == 0 && !allowed.text.contains("venvguard: "), "{allowed:?}");
    machine.must(IMPORTS)?;

    // A venv that does not need the library, and a policy that only warns, do not stop its removal.
    machine.must("venvguard register --policy warn /srv/shop/venv")?;
    let warned = machine.apt("remove libpq5")?;
    ensure!(warned.code == 0 && warned.text.contains("needs libpq.so.5"), "{warned:?}");
    ensure!(machine.run(IMPORTS)?.code != 0, "psycopg2 does not need libpq");
    Ok(())
}
