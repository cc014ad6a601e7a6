//! User files stay as they are, whatever venvguard does to their venv.

use anyhow::{Result, ensure};

use super::Case;
use super::minor::WHEEL;
use crate::disks::EXT4;
use crate::machine::Machine;
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    let case = |subject, run| Case::guarded(subject, Kind::TrixieMinor, &[Site::Bare], run);
    vec![
        case("foreign_files_of_all_kinds", |machine| all_kinds(machine, "app")),
        case("foreign_files_of_several_owners", |machine| all_kinds(machine, "root")),
        case("foreign_files_that_only_others_can_carry", others),
    ]
}

const VENV: &str = "/srv/own/venv";

/// A process of an ordinary user's carries their files. In a venv of root's, each file keeps its owner.
fn all_kinds(machine: &Machine, owner: &str) -> Result<()> {
    let (from, to) = (machine.upgrade.about.from.clone(), machine.upgrade.about.to.clone());
    let (old, new) = (from.minor.as_str(), to.minor.as_str());
    let own = Own::make(machine, old, owner)?;
    let before = own.list()?;
    ensure!(before.lines().count() > 80, "{before}");
    machine.install_guard()?;
    machine.must(&format!("venvguard register {VENV} --name own --relax minor"))?;
    let shown = machine.must("venvguard show own")?;
    let patched = format!("modified file: lib/python{old}/site-packages/tight.py\n");
    ensure!(shown.contains("user file: .env\n") && shown.contains(&patched), "{shown}");

    // Empty one of the copies of the interpreter.
    machine.must(&format!(": >{VENV}/bin/python3 && venvguard rebuild --all"))?;
    machine.must(&format!("{VENV}/bin/python3 -c 'import tight'"))?;
    own.holds(&before, old)?;
    machine.must_upgrade_python()?;
    own.holds(&before, old)?;
    machine.must(&format!("su {owner} -s /bin/sh -c 'touch {VENV}/gone'"))?;
    let rebuild = format!("venvguard rebuild own --python {new}");
    let said = machine.must(&rebuild)?;
    ensure!(!said.contains("not carried over"), "{said}");
    let conflict = format!("lib/python{new}/site-packages/tight.py.venvguard-modified");
    ensure!(said.contains("conflict: ") && said.contains(&conflict), "{said}");
    own.holds(&before, new)?;
    own.has_pipes(0)?;
    own.rights(new)?;

    // The rollback keeps what was written since the rebuild, and restores nothing that was deleted since.
    machine.must(&format!("su {owner} -s /bin/sh -c 'echo 1 >{VENV}/uploaded; rm {VENV}/gone'"))?;
    machine.must("venvguard rollback own")?;
    own.has_pipes(2)?;
    machine.must(&format!(
        "cat {VENV}/uploaded && test ! -e {VENV}/gone
         {VENV}/bin/python{old} -c 'import tight'"
    ))?;
    own.holds(&before, old)?;
    machine.must(&rebuild)?;
    own.holds(&before, new)?;
    own.rights(new)
}

/// A process of an ordinary owner can make no file that belongs to somebody else. If a copy of the owner's would not
/// do, venvguard refuses the rebuild; a file of root's that the owner may not read stays in the previous environment.
fn others(machine: &Machine) -> Result<()> {
    let venv = Site::Bare.venv();
    machine.install_guard()?;
    machine.must(&format!(
        "cd {venv} && install -m 600 /dev/null secret && echo 1 >config && chmod 644 config
         install -d -o www-data -g www-data var && install -o www-data -g www-data -m 644 /dev/null var/upload"
    ))?;
    let said = machine.run(&format!("venvguard rebuild {venv}"))?;
    ensure!(said.code != 0 && said.text.contains("var/upload: it belongs to user"), "{said:?}");
    ensure!(said.text.contains("the venv is unchanged"), "{said:?}");
    machine.must_upgrade_python()?;
    let status = machine.run("venvguard status")?;
    ensure!(status.text.contains("healthy") && status.text.contains("pinned"), "{status:?}");
    machine.must(&format!(
        "test $(stat -c %U {venv}/var) = www-data; chown -R app:www-data {venv}/var"
    ))?;
    let said = machine.must(&format!("venvguard rebuild {venv}"))?;
    ensure!(
        said.contains("not carried over") && said.contains("secret: Permission denied"),
        "{said}"
    );
    machine.must(&format!(
        "test $(stat -c %U {venv}/config) = app; test ! -e {venv}/secret; test -e {venv}/var/upload"
    ))?;
    let shown = machine.must(&format!("venvguard show {venv}"))?;
    ensure!(shown.contains("holds files that exist nowhere else"), "{shown}");
    machine.must(&format!("test $(stat -c %U {venv}/../.*.venvguard-*/secret) = root"))?;
    Ok(())
}

/// A venv with a copied interpreter, on ext4, which supports every attribute of a file. Two of its libraries are
/// patched; one of them has only a later version for the other Python.
struct Own<'a> {
    machine: &'a Machine,
    owner: &'a str,
    /// The minor version for which it was made.
    first: String,
}

impl<'a> Own<'a> {
    fn make(machine: &'a Machine, minor: &str, owner: &'a str) -> Result<Self> {
        machine.make_file_system("/disks/own", 256, EXT4.mkfs)?;
        machine.write("/root/foreign.py", include_str!("../apps/foreign.py"))?;
        machine.write("/root/wheel.py", WHEEL)?;
        let tag = format!("cp{}", minor.replace('.', ""));
        machine.must(&format!(
            "mkdir /wheels && cd /wheels
             python3 /root/wheel.py tight 1.0 {tag}
             python3 /root/wheel.py tight 1.1 py3
             python3 /root/wheel.py sure 1.0 py3
             mkdir /srv/own && mount -o loop /disks/own /srv/own && chown {owner}: /srv/own && usermod -aG www-data app
             su {owner} -s /bin/sh -c '/usr/bin/python3 -m venv --copies {VENV} &&
                 {VENV}/bin/pip install --quiet --no-index --find-links /wheels tight==1.0 sure
                 cd {VENV}/lib/python*/site-packages && echo patched=1 | tee -a tight.py >>sure.py'"
        ))?;
        machine.must(&format!(
            "/usr/bin/python3 /root/foreign.py make {VENV} {owner}
             /usr/bin/python3 /root/foreign.py open {VENV} {owner}; chmod 2775 {VENV}/lib/python*/site-packages"
        ))?;
        Ok(Self { machine, owner, first: minor.to_owned() })
    }

    /// Lists all user files in the venv with their attributes.
    fn list(&self) -> Result<String> {
        self.machine
            .must(&format!("/usr/bin/python3 -B /root/foreign.py list {VENV} {}", self.owner))
    }

    /// The venv has all user files that it had `before`, and its packages are for `minor`.
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

    /// The users who could enter the venv and write to it still can.
    fn rights(&self, minor: &str) -> Result<()> {
        let said = self.machine.must(&format!(
            "/usr/bin/python3 -B /root/foreign.py is-open {VENV} {}
             stat -c %a {VENV}/lib/python{minor}/site-packages",
            self.owner
        ))?;
        ensure!(said == "True\n2775\n", "{said:?}");
        Ok(())
    }

    /// Counts the sockets and FIFOs: a rebuild does not carry them over.
    fn has_pipes(&self, count: usize) -> Result<()> {
        let found = self.machine.must(&format!("find {VENV} -type p -o -type s"))?;
        ensure!(found.lines().count() == count, "{found:?}");
        Ok(())
    }
}
