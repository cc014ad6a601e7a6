//! uv links the files of a venv to those in its cache. No rebuild may link them across owners: who can write a file of
//! one venv could then change the code of another owner.

use anyhow::{Context, Result, ensure};

use super::Case;
use super::minor::WHEEL;
use crate::machine::Machine;
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

/// A directory on the root's own overlay, and a mount point for each file system that the kernel has.
const FILE_SYSTEMS: [(&str, &[&str]); 4] = [
    ("overlay", &[]),
    ("ext4", &["mkfs.ext4", "-q", "-F"]),
    ("btrfs", &["mkfs.btrfs", "--quiet"]),
    ("xfs", &["mkfs.xfs", "-q"]),
];

/// Prints the files that venvs of different owners share, and those that belong to others than the owner of the venv.
/// Ends with the number of files, and of files with a second name in the cache of the same owner.
const LOOK: &str = r#"
import collections, os, pwd, stat, sys

def files(top):
    for directory, _, names in os.walk(top):
        for name in names:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode):
                yield path, status

users = collections.defaultdict(set)
cached = set()
count = linked = 0
for place in sys.argv[1:]:
    for owner in set(os.listdir(place)) - {"lost+found"}:
        user = pwd.getpwnam(owner)
        for path, status in files(f"{user.pw_dir}/.cache/uv"):
            users[status.st_dev, status.st_ino].add(owner)
            cached.add((status.st_dev, status.st_ino))
        for path, status in files(f"{place}/{owner}/venv"):
            count += 1
            linked += (status.st_dev, status.st_ino) in cached
            users[status.st_dev, status.st_ino].add(owner)
            # uv lets everybody take its lock, which is empty.
            is_open = status.st_mode & 0o022 and path != f"{place}/{owner}/venv/.lock"
            if status.st_uid != user.pw_uid or is_open:
                print(f"{path} belongs to {status.st_uid}, mode {status.st_mode:o}")
for inode, owners in users.items():
    if len(owners) > 1:
        print(f"{inode} is shared by", *sorted(owners))
print(count, linked)
"#;

pub(super) fn cases() -> Vec<Case> {
    vec![Case::guarded("inodes_of_two_owners", Kind::TrixieMinor, &[Site::Quick], apart)]
}

fn apart(machine: &Machine) -> Result<()> {
    machine.install_uv()?;
    machine.write("/root/wheel.py", WHEEL)?;
    machine.write("/root/look.py", LOOK)?;
    machine.must(
        "mkdir /wheels && cd /wheels && python3 /root/wheel.py shared 1.0 py3
         printf 'no-index = true\nfind-links = [\"/wheels\", \"/wheelhouse\"]\n' >/etc/uv/uv.toml",
    )?;
    let (mut places, mut venvs) = (Vec::new(), Vec::new());
    for (kind, mkfs) in FILE_SYSTEMS {
        let place = format!("/disks/{kind}");
        machine.must(&format!("mkdir -p {place}"))?;
        if !mkfs.is_empty() {
            let image = format!("/disks/{kind}.image");
            machine.make_file_system(&image, 400, mkfs)?;
            let said = machine.run(&format!("mount -o loop -t {kind} {image} {place}"))?;
            if said.code != 0 {
                println!("lab: skipping {kind}: this kernel cannot mount it: {}", said.text.trim());
                continue;
            }
        }
        let owners = ["root".to_owned(), format!("ann-{kind}"), format!("bob-{kind}")];
        for owner in &owners {
            make(machine, &place, owner)?;
        }
        venvs.extend(owners.map(|owner| format!("{place}/{owner}/venv")));
        places.push(place);
    }
    // Each uv has linked its venv to its cache.
    let [shared, linked] = look(machine, &places)?;
    ensure!(shared == 0 && linked > 0, "{shared} files are shared, {linked} linked");
    machine.install_guard()?;
    machine.must(&format!("for venv in {}; do venvguard register $venv; done", venvs.join(" ")))?;
    machine.must_upgrade_python()?;
    let (_, history) = machine.venvguard_json("history")?;
    let events = history["events"].as_array().context("no history")?;
    let rebuilt = events.iter().filter(|event| event["what"] == "rebuilt").count();
    ensure!(rebuilt == 1 + venvs.len(), "{rebuilt} venvs were rebuilt: {history}");
    let [shared, _] = look(machine, &places)?;
    ensure!(shared == 0, "{shared} files are shared");
    // What the trial looks for, it finds.
    machine.must(
        "cd /disks/overlay && ln --force ann-*/venv/lib/python3*/site-packages/shared.py bob-*/venv/lib/python3*/site-packages/",
    )?;
    let [shared, _] = look(machine, &places)?;
    ensure!(shared > 0, "a shared file was not found");
    Ok(())
}

/// A venv that its owner creates by uv. Users have their homes, and so uv's caches, on the same file system.
fn make(machine: &Machine, place: &str, owner: &str) -> Result<()> {
    machine.must(&format!(
        "[ {owner} = root ] && mkdir {place}/root || useradd --home-dir {place}/{owner} --create-home {owner}
         su {owner} -c 'umask 022; cd {place}/{owner} && uv --quiet venv --python /usr/bin/python3 venv &&
             uv --quiet pip install --python venv/bin/python --link-mode hardlink shared gunicorn'"
    ))?;
    Ok(())
}

/// The number of files that are not only their owner's, and of those that are linked to a cache.
fn look(machine: &Machine, places: &[String]) -> Result<[usize; 2]> {
    let said = machine.must(&format!("python3 /root/look.py {}", places.join(" ")))?;
    let lines: Vec<&str> = said.lines().collect();
    let (last, shared) = lines.split_last().context("it printed nothing")?;
    shared.iter().take(20).for_each(|line| println!("{line}"));
    let (count, linked) = last.split_once(' ').with_context(|| said.clone())?;
    ensure!(count.parse::<usize>()? > 100, "only {count} files");
    Ok([shared.len(), linked.parse()?])
}
