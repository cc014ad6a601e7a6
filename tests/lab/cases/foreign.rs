//! What people put into a venv stays what it is, whatever is done to the venv.

use anyhow::{Result, ensure};

use super::minor::WHEEL;
use super::{Case, Half};
use crate::disks::EXT4;
use crate::machine::Machine;
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    vec![Case {
        subject: "foreign_files_of_all_kinds",
        half: Half::Guarded,
        upgrade: Kind::TrixieMinor,
        sites: &[Site::Bare],
        run: all_kinds,
    }]
}

const VENV: &str = "/srv/own/venv";

fn all_kinds(machine: &Machine) -> Result<()> {
    let (from, to) = (machine.upgrade.about.from.clone(), machine.upgrade.about.to.clone());
    let (old, new) = (from.minor.as_str(), to.minor.as_str());
    let own = Own::make(machine, old)?;
    let before = own.list()?;
    ensure!(before.lines().count() > 80, "{before}");
    machine.install_guard()?;
    machine.must(&format!("venvguard register {VENV} --name own --relax minor"))?;
    let shown = machine.must("venvguard show own")?;
    let patched = format!("modified file: lib/python{old}/site-packages/tight.py\n");
    ensure!(shown.contains("foreign file: .env\n") && shown.contains(&patched), "{shown}");

    // Of the copies of the interpreter one is lost.
    machine.must(&format!(": >{VENV}/bin/python3 && venvguard rebuild --all"))?;
    machine.must(&format!("{VENV}/bin/python3 -c 'import tight'"))?;
    own.holds(&before, old)?;
    machine.must_upgrade_python()?;
    own.holds(&before, old)?;
    let rebuild = format!("venvguard rebuild own --python {new}");
    let said = machine.must(&rebuild)?;
    ensure!(!said.contains("not carried over"), "{said}");
    let conflict = format!("lib/python{new}/site-packages/tight.py.venvguard-modified");
    ensure!(said.contains("conflict: ") && said.contains(&conflict), "{said}");
    own.holds(&before, new)?;
    own.has_pipes(0)?;
    own.rights(new)?;

    // What was written since the rebuild is in the tree that is put aside, which then stays.
    machine.must(&format!("su app -s /bin/sh -c 'echo 1 >{VENV}/uploaded'"))?;
    let said = machine.must("venvguard rollback own")?;
    ensure!(said.contains("written last in") && said.contains("uploaded"), "{said}");
    own.holds(&before, old)?;
    own.has_pipes(2)?;
    let shown = machine.must("venvguard show own")?;
    ensure!(shown.contains("holds files that are nowhere else"), "{shown}");
    machine.must(&rebuild)?;
    own.holds(&before, new)?;
    own.rights(new)
}

/// A venv with a copied interpreter, on an ext4, which has all that a file can have. Two of its libraries were patched;
/// of one of them there is only a later version for another Python.
struct Own<'a> {
    machine: &'a Machine,
    /// The minor version for which it was made.
    first: String,
}

impl<'a> Own<'a> {
    fn make(machine: &'a Machine, minor: &str) -> Result<Self> {
        machine.make_file_system("/disks/own", 256, EXT4.mkfs)?;
        machine.write("/root/foreign.py", include_str!("../apps/foreign.py"))?;
        machine.write("/root/wheel.py", WHEEL)?;
        let tag = format!("cp{}", minor.replace('.', ""));
        machine.must(&format!(
            "mkdir /wheels && cd /wheels
             python3 /root/wheel.py tight 1.0 {tag}
             python3 /root/wheel.py tight 1.1 py3
             python3 /root/wheel.py sure 1.0 py3
             mkdir /srv/own && mount -o loop /disks/own /srv/own && chown app: /srv/own
             su app -s /bin/sh -c '/usr/bin/python3 -m venv --copies {VENV} &&
                 {VENV}/bin/pip install --quiet --no-index --find-links /wheels tight==1.0 sure
                 cd {VENV}/lib/python*/site-packages && echo patched=1 | tee -a tight.py >>sure.py'
             /usr/bin/python3 /root/foreign.py make {VENV}
             /usr/bin/python3 /root/foreign.py open {VENV}; chmod 2775 {VENV}/lib/python*/site-packages",
        ))?;
        Ok(Self { machine, first: minor.to_owned() })
    }

    /// All that is in the venv, in words.
    fn list(&self) -> Result<String> {
        self.machine.must(&format!("/usr/bin/python3 -B /root/foreign.py list {VENV}"))
    }

    /// It has all that was there `before`, and its packages are for `minor`.
    fn holds(&self, before: &str, minor: &str) -> Result<()> {
        let now = self.list()?;
        let missing: Vec<&str> = before.lines().filter(|line| !now.contains(line)).collect();
        let other: Vec<&str> = now.lines().filter(|line| !before.contains(line)).collect();
        ensure!(now == before, "lost:\n{}\nfound:\n{}", missing.join("\n"), other.join("\n"));
        let patched = if minor == self.first { "tight.py" } else { "tight.py.venvguard-modified" };
        self.machine.must(&format!(
            "set -e
             cd {VENV}/lib/python{minor}/site-packages
             test \"$(echo $(grep -l patched sure.py tight.py*))\" = 'sure.py {patched}'
             {VENV}/bin/python{minor} -c 'import sure, tight; sure.patched'"
        ))?;
        Ok(())
    }

    /// Whoever could enter the venv and write there can again.
    fn rights(&self, minor: &str) -> Result<()> {
        let said = self.machine.must(&format!(
            "/usr/bin/python3 -B /root/foreign.py is-open {VENV}
             stat -c %a {VENV}/lib/python{minor}/site-packages"
        ))?;
        ensure!(said == "True\n2775\n", "{said:?}");
        Ok(())
    }

    /// How many sockets and FIFOs are there: they stay where they were.
    fn has_pipes(&self, count: usize) -> Result<()> {
        let found = self.machine.must(&format!("find {VENV} -type p -o -type s"))?;
        ensure!(found.lines().count() == count, "{found:?}");
        Ok(())
    }
}
