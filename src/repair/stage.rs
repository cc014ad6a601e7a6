//! A place beside the venv where its successor is built, seen by the builders at the
//! venv's own path.
//!
//! A venv holds its own path in every script. So the new tree is not built at one path and
//! moved to another: in a mount namespace of its own, the stage lies over the venv, and
//! whatever is written there bears the right path.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::account::owner_of;
use super::names::from_beside;
use super::trees::{self, LOOK_LIMIT};
use crate::host::access::{Access, Trusted, Writer};
use crate::host::clock::Deadline;
use crate::host::confine::{self, LAUNCHER_FAILED, NO_NAMESPACE, Overlay};
use crate::host::fault::{Weakness, weakened};
use crate::host::file::printable;
use crate::host::tree::{Identity, Parent};
use crate::host::user::{self, User};
use crate::host::{Dir, Program, Root, clock, mount};
use crate::owner::{self, MakeDirectory, Measure, Measured};
use crate::venv::Venv;

/// The name of the temporary directory in a stage.
const TEMPORARY: &str = ".venvguard-tmp";

/// For how long, and how often, it is tried to empty a directory that somebody writes into.
const PATIENCE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(50);

/// How long it may take to empty one.
const EMPTY_LIMIT: Duration = Duration::from_secs(120);

/// A directory is made within this.
const MOMENT: Duration = Duration::from_secs(20);

/// A directory for a venv's successor, or for what its builders need.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) path: PathBuf,
    pub(super) identity: Identity,
}

impl Stage {
    /// The owner of a venv need not be a member of its group. What is made in the stage gets that
    /// group all the same, by a bit that the stage has until it is finished.
    pub(super) fn make(
        root: &Root,
        parent: &Parent,
        path: &Path,
        venv: &Venv,
        owner: &User,
    ) -> io::Result<Self> {
        let is_member =
            venv.uid == 0 || owner.gid == venv.gid || user::groups(root, owner).contains(&venv.gid);
        let inherits = if is_member { 0 } else { 0o2000 };
        let mode = venv.mode & 0o7777 | inherits | 0o700;
        let identity = parent.make(&from_beside(&venv.path, path), venv.uid, venv.gid, mode)?;
        Ok(Self { path: path.to_path_buf(), identity })
    }

    /// A directory in it for what its builders need for a while. It goes with the stage, or
    /// before it.
    pub(super) fn temporary(&self, root: &Root, owner: &User) -> io::Result<Self> {
        let path = self.path.join(TEMPORARY);
        let (parent, name) = (self.path.as_path().into(), TEMPORARY.to_string());
        let task = MakeDirectory { parent, identity: self.identity, name };
        owner::run(root, owner, MOMENT, &task)?;
        // A directory that has taken its place meanwhile is the owner's to put there.
        let found = Parent::known(&self.path, self.identity)?.identity(Path::new(TEMPORARY));
        let identity = found.ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { path, identity })
    }

    /// Lets its owner remove it with all that is in it. What builders have left running may be
    /// writing there still, so this is tried for a moment.
    pub(super) fn empty_and_remove(self, root: &Root) -> io::Result<()> {
        let mut result = Ok(());
        clock::wait_until(Deadline::after(PATIENCE), POLL, || {
            result = trees::discard(root, &self.path, self.identity, Deadline::after(EMPTY_LIMIT));
            result.is_ok()
        });
        result.map_err(|error| {
            let message = format!("cannot empty the builders' temporary directories: {error}");
            io::Error::new(error.kind(), message)
        })
    }

    /// What makes it seen at another place.
    pub(super) fn over(&self, place: &Path) -> Overlay {
        let (from, to) = (self.path.as_path().into(), place.into());
        Overlay { from, to, from_identity: self.identity }
    }
}

/// Why a stage cannot be laid over a venv on this machine, in the kernel's words; nothing
/// where it can.
pub(super) fn why_not_laid_over(
    root: &Root,
    owner: &User,
    overlay: Overlay,
) -> io::Result<Option<String>> {
    let probe = Program::new("/bin/true");
    let finished = confine::confined(root, probe, owner, &[overlay], Path::new("/"))
        .finish()
        .map_err(io::Error::other)?;
    if finished.status.code() != Some(LAUNCHER_FAILED) {
        return Ok(None);
    }
    let complaint = finished.complaint();
    match complaint.split_once(NO_NAMESPACE) {
        Some((_, reason)) => Ok(Some(reason.trim_start_matches(": ").to_string())),
        None => Err(io::Error::other(complaint)),
    }
}

/// The directories that builders would share with everybody and get one of their own for; but not
/// those in which something lies that they need.
pub(super) fn shared_dirs(needed: &[PathBuf]) -> BTreeSet<PathBuf> {
    if weakened(Weakness::ShareTemporary) {
        return BTreeSet::new();
    }
    not_needed(confine::TEMPORARY.map(Path::new), needed)
}

/// By their real paths: on the way there may be links, or one may lead to the other.
fn not_needed<'a>(
    shared: impl IntoIterator<Item = &'a Path>,
    needed: &[PathBuf],
) -> BTreeSet<PathBuf> {
    let real = |dir: &'a Path| Some((dir, dir.canonicalize().ok()?));
    let (kept, free): (Vec<_>, Vec<_>) =
        shared.into_iter().filter_map(real).partition(|(name, real)| {
            needed.iter().any(|path| path.starts_with(name) || path.starts_with(real))
        });
    let kept: Vec<PathBuf> = kept.into_iter().map(|(_, real)| real).collect();
    free.into_iter().map(|(_, real)| real).filter(|real| !kept.contains(real)).collect()
}

/// All that keeps a venv from being rebuilt where it is, in words.
pub(super) fn obstacles(root: &Root, venv: &Venv, measured: Looked) -> Vec<String> {
    let path = root.at(&venv.path);
    let untrusted = untrusted_place(root, venv)
        .map(|reason| format!("{reason}: venvguard will not work there as root"));
    let all = [untrusted, not_writable(&path), mounts_in_the_way(&path)];
    all.into_iter().flatten().chain(cannot_be_carried(root, venv, measured)).collect()
}

/// What a process of a venv's owner found in it, or why it could not look.
pub(crate) type Looked = Result<Measured, String>;

/// Lets the owner of a venv look through it.
pub(crate) fn look_at(root: &Root, venv: &Venv) -> Looked {
    let looked = look_through(root, &[venv]).pop();
    looked.unwrap_or_else(|| Err("it was not looked at".into()))
}

/// Lets the owner of each of some venvs look through them, by one process an owner.
pub(crate) fn look_through(root: &Root, venvs: &[&Venv]) -> Vec<Looked> {
    let mut by_owner: BTreeMap<(u32, u32), Vec<usize>> = BTreeMap::new();
    for (number, venv) in venvs.iter().enumerate() {
        by_owner.entry((venv.uid, venv.gid)).or_default().push(number);
    }
    let mut looked: Vec<Looked> = vec![Err("it was not looked at".into()); venvs.len()];
    for ((uid, gid), numbers) in by_owner {
        let own = numbers.iter().filter_map(|number| venvs.get(*number));
        let tasks: Vec<Measure> = own.map(|venv| Measure { tree: venv.layout() }).collect();
        let answers = owner::run_all(root, &owner_of(root, uid, gid), LOOK_LIMIT, &tasks);
        let mut answers = answers.map(Vec::into_iter).map_err(|error| error.to_string());
        for number in numbers {
            let answer = match &mut answers {
                Ok(answers) => answers.next().map(|one| one.map_err(|error| error.to_string())),
                Err(error) => Some(Err(error.clone())),
            };
            if let (Some(place), Some(answer)) = (looked.get_mut(number), answer) {
                *place = answer;
            }
        }
    }
    looked
}

/// What a process of the venv's owner could not carry over, and whether there is room for it.
fn cannot_be_carried(root: &Root, venv: &Venv, looked: Looked) -> Vec<String> {
    let measured = match looked {
        Ok(measured) => measured,
        Err(error) => return vec![format!("its owner's process cannot look through it: {error}")],
    };
    let others = measured.others.into_lines().into_iter();
    let others =
        others.map(|line| format!("{line} (move it out of the venv, or change its owner)"));
    others.chain(no_room(&root.at(&venv.path), measured.bytes)).collect()
}

/// An ordinary user may have been given a venv in a directory that is not theirs.
fn not_writable(path: &Path) -> Option<String> {
    let dir = path.parent()?;
    let error = rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).err()?;
    Some(format!("no tree can be made beside it, in {}: {error}", printable(dir)))
}

/// The mounts that keep a tree from changing its place: a mount point of its own has no
/// tree beside it on its file system, and what is mounted in it would go aside with it.
fn mounts_in_the_way(path: &Path) -> Option<String> {
    let mounts = match mount::below(path) {
        Ok(mounts) => mounts,
        Err(error) => return Some(format!("what is mounted there is not known: {error}")),
    };
    if let Some(first) = mounts.first() {
        return Some(format!(
            "{} is a mount point: another tree cannot take its place (unmount it first)",
            printable(first)
        ));
    }
    // A subvolume of btrfs is no mount point, and yet a file system of its own.
    let device = |path: &Path| Some(path.symlink_metadata().ok()?.dev());
    (device(path) != device(path.parent()?)).then(|| {
        "it is a file system of its own: no tree beside it is on it (make the venv in a directory of it)".into()
    })
}

/// Why a second tree finds no room beside a venv: it is taken to be as large, another version
/// of a package may be larger, and archives are unpacked in it.
fn no_room(path: &Path, size: u64) -> Option<String> {
    match Parent::of(path).and_then(|parent| parent.free()) {
        Ok(free) => too_little(size, free),
        Err(error) => Some(format!("cannot tell how much room there is: {error}")),
    }
}

fn too_little(size: u64, free: u64) -> Option<String> {
    const MEBIBYTE: u64 = 1 << 20;
    let needed = size.saturating_add(size / 2).saturating_add(16 * MEBIBYTE);
    (free < needed).then(|| {
        let [needed, free] = [needed, free].map(|bytes| bytes.div_ceil(MEBIBYTE));
        format!("there is no room for a second tree beside it: it needs {needed} MiB, {free} MiB are free")
    })
}

/// Why root must not work in this place: somebody who is neither root nor the venv's owner
/// can replace an ancestor of the venv, or what is run and imported out of it. Whoever is in
/// the venv's own group counts as its owner, since where that group may write, its members
/// decide what the venv is; but not where the owner is root.
fn untrusted_place(root: &Root, venv: &Venv) -> Option<String> {
    let path = root.at(&venv.path);
    // Who can write to `lib` can put another site-packages in place.
    let site = root.at(venv.site_packages());
    let inside = site.ancestors().take_while(|dir| dir.starts_with(&path));
    let inside = inside.map(Path::to_path_buf).chain([path.join("bin")]);
    let ancestors = path.ancestors().skip(1).map(|ancestor| (ancestor.to_path_buf(), true));
    let first = ancestors
        .chain(inside.map(|dir| (dir, false)))
        .find_map(|(dir, is_ancestor)| untrusted_dir(&dir, venv, is_ancestor));
    if first.is_some() || venv.uid != 0 {
        return first;
    }
    // What is found in there is run as root.
    [path.join("bin"), path.join("lib")].iter().find_map(|dir| {
        let found = Dir::open(dir).and_then(|dir| dir.writable_by_others());
        match found {
            Ok(None) => None,
            Ok(Some(below)) => {
                Some(format!("{} can be written by others than root", printable(dir.join(below))))
            }
            Err(error) => {
                Some(format!("who may write to {} is not known: {error}", printable(dir)))
            }
        }
    })
}

fn untrusted_dir(dir: &Path, venv: &Venv, is_ancestor: bool) -> Option<String> {
    let shown = printable(dir);
    let access = match Access::at(dir) {
        Ok(access) => access,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return Some(format!("who may write to {shown} is not known: {error}")),
    };
    let groups = if venv.uid == 0 { vec![0] } else { vec![0, venv.gid] };
    let trusted = Trusted { users: &[venv.uid], groups: &groups };
    // The names in a sticky directory can be replaced by their owners alone; new ones can come.
    let is_sticky = is_ancestor && access.mode & 0o1000 != 0;
    let writer = match access.writer(trusted) {
        Some(Writer::Owner(uid)) => {
            return Some(format!(
                "{shown} belongs to user {uid}, who is neither root nor the venv's owner"
            ));
        }
        writer => writer.filter(|_| !is_sticky).or_else(|| access.heir(trusted)),
    };
    writer.map(|writer| {
        format!("{shown} can be written by others than root and the venv's owner ({writer})")
    })
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test prepares its own directories")]
mod tests {
    use super::*;
    use crate::venv::BaseLink;
    use std::fs;

    fn dir() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let (venv, aside) = (base.join("venv"), base.join("aside"));
        fs::create_dir(&venv).unwrap();
        fs::write(venv.join("old"), "").unwrap();
        (dir, venv, aside)
    }

    fn subject(path: &Path) -> Venv {
        let minor = crate::python::Minor::new(3, 11);
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let venv = crate::plan::samples::subject(BaseLink::Pinned, minor).venv;
        Venv { path: path.into(), uid, gid, ..venv }
    }

    #[test]
    fn nothing_is_made_in_another_directory_that_stands_for_the_stage() {
        let (_dir, venv, aside) = dir();
        let subject = subject(&venv);
        let (root, parent) = (Root::new("/"), Parent::of(&venv).unwrap());
        let me = super::super::account::owner_of(&root, subject.uid, subject.gid);
        let stage = Stage::make(&root, &parent, &aside, &subject, &me).unwrap();
        assert!(stage.temporary(&root, &me).is_ok());
        fs::rename(&aside, venv.join("stolen")).unwrap();
        fs::create_dir(&aside).unwrap();
        let error = stage.temporary(&root, &me).unwrap_err().to_string();
        assert!(error.contains("was replaced"), "{error}");
        assert_eq!(fs::read_dir(&aside).unwrap().count(), 0);
    }

    #[test]
    fn a_shared_directory_is_known_by_its_real_path_and_left_alone_where_it_is_needed() {
        let (_dir, venv, aside) = dir();
        let base = venv.parent().unwrap();
        fs::create_dir(base.join("tmp")).unwrap();
        std::os::unix::fs::symlink(base, &aside).unwrap();
        let (real, by_link, missing) = (base.join("tmp"), aside.join("tmp"), base.join("nothing"));
        let of = |needed: &[PathBuf]| not_needed([real.as_path(), &by_link, &missing], needed);
        assert_eq!(of(&[]), BTreeSet::from([real.clone()]));
        for needed in [&real, &by_link] {
            assert!(of(&[needed.join("wheel")]).is_empty(), "{}", needed.display());
        }
    }

    #[test]
    fn a_place_that_others_can_change_is_not_trusted() {
        use std::os::unix::fs::{PermissionsExt, chown};
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path().canonicalize().unwrap());
        let mut venv =
            crate::plan::samples::subject(BaseLink::Pinned, crate::python::Minor::new(3, 11)).venv;
        let site = root.at(venv.site_packages());
        fs::create_dir_all(&site).unwrap();
        fs::create_dir(root.at("/srv/shop/venv/bin")).unwrap();
        let judged = |venv: &Venv, path: &str, gid: u32, mode: u32| {
            let path = root.at(path);
            chown(&path, None, Some(gid)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let reason = untrusted_place(&root, venv);
            chown(&path, None, Some(0)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            reason.is_none()
        };
        let site = venv.site_packages();
        let inside = [
            "/srv/shop/venv",
            "/srv/shop/venv/bin",
            "/srv/shop/venv/lib",
            "/srv/shop/venv/lib/python3.11",
            site.to_str().unwrap(),
        ];
        (venv.uid, venv.gid) = (1000, 1000);
        for path in ["/srv/shop"].iter().chain(&inside) {
            assert!(judged(&venv, path, 1000, 0o2775), "{path}: the owner's group");
            assert!(!judged(&venv, path, 1001, 0o2775), "{path}: another group");
            assert!(!judged(&venv, path, 0, 0o777), "{path}: everybody");
            assert_eq!(judged(&venv, path, 0, 0o1777), *path == "/srv/shop", "{path}: sticky");
        }
        (venv.uid, venv.gid) = (0, 1000);
        for path in ["/srv/shop"].iter().chain(&inside) {
            assert!(!judged(&venv, path, 1000, 0o2775), "{path}: root's venv, a users' group");
            assert!(judged(&venv, path, 0, 0o2775), "{path}: root's venv, root's group");
        }
        let module = root.at(&site).join("module.py");
        fs::write(&module, "").unwrap();
        assert_eq!(untrusted_place(&root, &venv), None);
        chown(&module, Some(1001), None).unwrap();
        let reason = untrusted_place(&root, &venv).unwrap();
        assert!(reason.contains("module.py can be written"), "{reason}");
        (venv.uid, venv.gid) = (1000, 1000);
        assert_eq!(untrusted_place(&root, &venv), None, "not run as root");
        chown(root.at("/srv/shop/venv/bin"), Some(1001), None).unwrap();
        assert!(untrusted_place(&root, &venv).is_some());
    }

    #[test]
    fn an_access_list_that_lets_somebody_write_is_seen() {
        use crate::host::access::samples::{give_access, give_default, naming};
        use std::os::unix::fs::PermissionsExt;
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path().canonicalize().unwrap());
        let mut venv =
            crate::plan::samples::subject(BaseLink::Pinned, crate::python::Minor::new(3, 11)).venv;
        (venv.uid, venv.gid) = (0, 0);
        let site = root.at(venv.site_packages());
        fs::create_dir_all(&site).unwrap();
        fs::create_dir(root.at("/srv/shop/venv/bin")).unwrap();
        let module = site.join("module.py");
        fs::write(&module, "").unwrap();
        assert_eq!(untrusted_place(&root, &venv), None);
        if !give_access(&module, &naming(1001, 7, 7)) {
            return;
        }
        let reason = untrusted_place(&root, &venv).unwrap();
        assert!(reason.contains("module.py can be written"), "{reason}");
        assert!(give_access(&module, &naming(1001, 7, 5)));
        assert_eq!(untrusted_place(&root, &venv), None, "the mask withholds it");

        for uid in [0, 1000] {
            (venv.uid, venv.gid) = (uid, uid);
            for path in ["/srv/shop", "/srv/shop/venv", "/srv/shop/venv/bin"].map(|x| root.at(x)) {
                for give in [give_access, give_default] {
                    assert!(give(&path, &naming(1001, 7, 7)));
                    let reason = untrusted_place(&root, &venv).unwrap();
                    assert!(reason.contains("(user 1001)"), "{reason}");
                    assert!(give(&path, &naming(uid, 7, 7)));
                    assert_eq!(untrusted_place(&root, &venv), None, "root and the owner");
                }
                // Back to what the mode alone said.
                assert!(give_access(&path, &naming(uid, 5, 5)));
            }
            // Nobody replaces what is in a sticky directory, but what is made there is theirs.
            let parent = root.at("/srv/shop");
            assert!(give_access(&parent, &naming(1001, 7, 7)));
            fs::set_permissions(&parent, fs::Permissions::from_mode(0o1775)).unwrap();
            assert_eq!(untrusted_place(&root, &venv), None);
            assert!(give_default(&parent, &naming(1001, 7, 7)));
            assert!(untrusted_place(&root, &venv).is_some());
            assert!(give_default(&parent, &naming(uid, 5, 5)));
            fs::set_permissions(&parent, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    #[test]
    fn a_tree_needs_its_size_and_some_more() {
        let mebibytes = |number: u64| number << 20;
        assert_eq!(too_little(mebibytes(100), mebibytes(166)), None);
        let reason = too_little(mebibytes(100), mebibytes(165)).unwrap();
        assert!(reason.contains("166 MiB, 165 MiB are free"), "{reason}");
    }

    #[test]
    fn a_temporary_directory_in_which_something_is_needed_is_shared() {
        let shared = |needed: &[&str]| {
            let needed: Vec<PathBuf> = needed.iter().map(PathBuf::from).collect();
            shared_dirs(&needed).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(shared(&["/srv/shop/venv", "/tmpfs"]), confine::TEMPORARY.map(Path::new));
        assert_eq!(shared(&["/srv/shop/venv", "/tmp/src"]), [Path::new("/var/tmp")]);
        assert_eq!(shared(&["/var/tmp", "/tmp"]), Vec::<&Path>::new());
    }
}
