//! Whether somebody else can change what is at a venv's path.

use std::io;
use std::path::Path;

use super::Context;
use super::account::owner;
use crate::host::access::{Access, Trusted, Writer};
use crate::host::file::printable;
use crate::host::user::User;
use crate::host::{Dir, Root};
use crate::venv::Venv;

/// The owner of a venv, to run programs out of it: an error if somebody else can put another venv in its
/// place. That one's owner would be taken for this one's, or its programs would run as this one's.
pub(super) fn owner_to_run(context: &Context, venv: &Venv) -> Result<User, String> {
    let (root, path) = (context.root, context.root.at(&venv.path));
    let owned_by = Dir::open(&path).and_then(|dir| Ok(dir.own_stat()?.st_uid));
    // Not root's, and not reached through a link.
    if venv.uid != 0 && owned_by.is_ok_and(|uid| uid == venv.uid) {
        return Ok(owner(context, venv));
    }
    let real = path.canonicalize().map_err(|error| format!("{}: {error}", printable(&path)))?;
    for path in [venv.path.clone(), root.logical(&real)] {
        if let Some(why) = replaceable(root, &Venv { path, ..venv.clone() }) {
            return Err(format!("{why}: venvguard runs no program out of it"));
        }
    }
    Ok(owner(context, venv))
}

/// Why root must not work in this place: somebody who is neither root nor the venv's owner can
/// replace an ancestor of the venv, or code that is run or imported out of it. Members of the
/// venv's own group count as its owner, because they decide what the venv contains wherever that
/// group may write; but not if the owner is root.
pub(super) fn untrusted_place(root: &Root, venv: &Venv) -> Option<String> {
    let path = root.at(&venv.path);
    let first = replaceable(root, venv);
    if first.is_some() || venv.uid != 0 {
        return first;
    }
    // Root runs the code in there.
    [path.join("bin"), path.join("lib")].iter().find_map(|dir| {
        let found = Dir::open(dir).and_then(|dir| dir.writable_by_others());
        match found {
            Ok(None) => None,
            Ok(Some(below)) => {
                Some(format!("{} is writable by others than root", printable(dir.join(below))))
            }
            Err(error) => Some(format!("cannot tell who may write to {}: {error}", printable(dir))),
        }
    })
}

/// Why another venv, or other code, can be put in the place of a venv, by somebody who is neither
/// root nor its owner.
fn replaceable(root: &Root, venv: &Venv) -> Option<String> {
    let path = root.at(&venv.path);
    // Write access to `lib` is enough to replace site-packages.
    let site = root.at(venv.site_packages());
    let inside = site.ancestors().take_while(|dir| dir.starts_with(&path));
    let inside = inside.map(Path::to_path_buf).chain([path.join("bin")]);
    let ancestors = path.ancestors().skip(1).map(|ancestor| (ancestor.to_path_buf(), true));
    ancestors
        .chain(inside.map(|dir| (dir, false)))
        .find_map(|(dir, is_ancestor)| untrusted_dir(&dir, venv, is_ancestor))
}

fn untrusted_dir(dir: &Path, venv: &Venv, is_ancestor: bool) -> Option<String> {
    let shown = printable(dir);
    let access = match Access::at(dir) {
        Ok(access) => access,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return Some(format!("cannot tell who may write to {shown}: {error}")),
    };
    let groups = if venv.uid == 0 { vec![0] } else { vec![0, venv.gid] };
    let trusted = Trusted { users: &[venv.uid], groups: &groups };
    // In a sticky directory only their owners can replace entries, but everybody can add new ones.
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
        format!("{shown} is writable by others than root and the venv's owner ({writer})")
    })
}
