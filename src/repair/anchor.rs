//! Pinning a followed venv to the interpreter of its own minor version, and letting it go.
//!
//! Only a link changes: `bin/python3 -> /usr/bin/python3` becomes
//! `bin/python3 -> /usr/bin/python3.11`. While both lead to the same program this is no
//! change at all, which is why it is done *before* dpkg moves the default.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};

use super::Context;
use crate::host::fault::{Weakness, weakened};
use crate::host::file::printable;
use crate::host::{Root, fault, folder};
use crate::python::{self, Minor};
use crate::store::{Anchored, Event, Registry, StoreError};
use crate::venv::{self, Link, Venv};

#[derive(Debug, thiserror::Error)]
pub(crate) enum AnchorError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Pins a registered venv to its own minor version. That it is we who pin it is written down
/// first: else it would be taken for its owner's wish, and the venv never let go.
pub(crate) fn anchor(
    context: &Context,
    registry: &mut Registry,
    id: &str,
    venv: &Venv,
    reason: &str,
) -> Result<(), AnchorError> {
    let before = set_anchored(context, registry, id, Some(Anchored::new(venv.site, reason)))?;
    tell(context, registry, id, "pinning", format!("to Python {}: {reason}", venv.site));
    if let Err(error) = pin(context.root, venv, venv.site) {
        set_anchored(context, registry, id, before)?;
        return Err(error.into());
    }
    Ok(())
}

/// Lets a venv that we have pinned follow the default interpreter again.
pub(crate) fn let_go(
    context: &Context,
    registry: &mut Registry,
    id: &str,
    venv: &Venv,
) -> Result<(), AnchorError> {
    follow(context.root, venv, venv.site)?;
    set_anchored(context, registry, id, None)?;
    tell(context, registry, id, "let-go", format!("it follows {} again", python::DEFAULT));
    Ok(())
}

fn tell(context: &Context, registry: &Registry, id: &str, what: &str, detail: String) {
    if let Some(entry) = registry.get(id) {
        context.store.audit(&Event::new(&entry.name, entry.path(), what, detail));
    }
}

/// Returns what was written there before.
fn set_anchored(
    context: &Context,
    registry: &mut Registry,
    id: &str,
    anchored: Option<Anchored>,
) -> Result<Option<Anchored>, StoreError> {
    let Some(entry) = registry.get_mut(id) else { return Ok(None) };
    let before = std::mem::replace(&mut entry.anchored, anchored);
    context.store.save_registry(registry)?;
    Ok(before)
}

/// Makes a venv that follows the default interpreter stay with `minor`, whatever name of
/// the default one it is linked to.
pub(super) fn pin(root: &Root, venv: &Venv, minor: Minor) -> io::Result<()> {
    let changed = relink(root, venv, Path::new(python::DEFAULT), &python::path_of(minor))?;
    if changed == 0 && venv.base.link == Link::Followed {
        let bin = printable(venv.path.join("bin"));
        return Err(io::Error::other(format!("no link in {bin} leads to {}", python::DEFAULT)));
    }
    Ok(())
}

/// Makes a venv that was pinned to `minor` follow the default interpreter again.
pub(super) fn follow(root: &Root, venv: &Venv, minor: Minor) -> io::Result<()> {
    relink(root, venv, &python::path_of(minor), Path::new(python::DEFAULT)).map(drop)
}

/// Replaces every link in `bin` that leaves the venv for `from`, each by a rename, and
/// returns their number.
fn relink(root: &Root, venv: &Venv, from: &Path, to: &Path) -> io::Result<usize> {
    let bin = root.at(&venv.path).join("bin");
    let folder = folder::reach(&bin, OFlags::RDONLY)?;
    let mut changed = 0;
    for name in interpreter_names(&bin)? {
        if venv::way_out(root, &venv.path, &name).as_deref() != Some(from) {
            continue;
        }
        let temporary = PathBuf::from(format!(".{}.venvguard", name.display()));
        // A leftover of a crash between the next two calls.
        let _ = rustix::fs::unlinkat(&folder, &temporary, AtFlags::empty());
        fault::point("make a link")?;
        rustix::fs::symlinkat(to, &folder, &temporary)?;
        fault::point("give a link away")?;
        give_link(&folder, &temporary, venv)?;
        fault::point("replace a link")?;
        rustix::fs::renameat(&folder, &temporary, &folder, &name)?;
        changed += 1;
    }
    rustix::fs::fsync(&folder)?;
    Ok(changed)
}

/// Makes a link that we have just made its venv's owner's. He may have put something else in
/// its place meanwhile, so it is looked at and given away by one descriptor.
fn give_link(folder: &OwnedFd, name: &Path, venv: &Venv) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let link = rustix::fs::openat(folder, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&link)?;
    let is_new = FileType::from_raw_mode(stat.st_mode).is_symlink() && stat.st_nlink == 1;
    if !is_new && !weakened(Weakness::TakeAnyFile) {
        return Err(io::Error::other(format!("{} is no new link", printable(name))));
    }
    let (uid, gid) = (Uid::from_raw(venv.uid), Gid::from_raw(venv.gid));
    Ok(rustix::fs::chownat(&link, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?)
}

/// `python`, `python3`, `python3.11`: the names in `bin` that stand for an interpreter.
pub(super) fn interpreter_names(bin: &Path) -> io::Result<Vec<PathBuf>> {
    let mut names: Vec<PathBuf> = fs::read_dir(bin)?
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .filter(|name| {
            name.to_str().is_some_and(|name| {
                matches!(name, "python" | "python3") || Minor::of_program(name).is_some()
            })
        })
        .map(PathBuf::from)
        .collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test prepares its own folders")]
mod tests {
    use super::*;
    use crate::venv::{Base, Flavour};
    use std::os::unix::fs::{MetadataExt, symlink};

    const OLD: Minor = Minor::new(3, 11);

    /// A system whose default Python is 3.11, and a venv on it as `python3 -m venv` makes it,
    /// its way out linked to `target`.
    fn system(target: &str) -> (tempfile::TempDir, Root, Venv) {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path().canonicalize().unwrap());
        let (system, bin) = (root.at("/usr/bin"), root.at("/srv/venv/bin"));
        fs::create_dir_all(&system).unwrap();
        fs::create_dir_all(&bin).unwrap();
        fs::write(system.join("python3.11"), "").unwrap();
        for (link, target) in [("python3", "python3.11"), ("python", "python3")] {
            symlink(target, system.join(link)).unwrap();
        }
        symlink("usr/bin", root.at("/bin")).unwrap();
        for (link, target) in
            [("python", "python3"), ("python3", target), ("python3.11", "python3")]
        {
            symlink(target, bin.join(link)).unwrap();
        }
        let metadata = fs::metadata(&bin).unwrap();
        let venv = Venv {
            path: "/srv/venv".into(),
            flavour: Flavour::Venv,
            base: Base {
                link: Link::Followed,
                path: python::DEFAULT.into(),
                minor: Some(OLD),
                version: None,
                copies: Vec::new(),
                ours: true,
            },
            site: OLD,
            uid: metadata.uid(),
            gid: metadata.gid(),
            mode: 0o755,
            system_site_packages: false,
            prompt: None,
        };
        (folder, root, venv)
    }

    fn links(root: &Root) -> Vec<String> {
        ["python", "python3", "python3.11"]
            .map(|name| {
                let link = fs::read_link(root.at("/srv/venv/bin").join(name)).unwrap();
                link.display().to_string()
            })
            .to_vec()
    }

    #[test]
    fn pinning_changes_the_one_link_that_leaves_the_venv_and_following_changes_it_back() {
        let names =
            ["/usr/bin/python3", "/bin/python3", "/usr/bin/python", "../../../usr/bin/python3"];
        for name in names {
            let (_folder, root, venv) = system(name);
            pin(&root, &venv, OLD).unwrap();
            assert_eq!(links(&root), ["python3", "/usr/bin/python3.11", "python3"], "{name}");
            follow(&root, &venv, OLD).unwrap();
            assert_eq!(links(&root), ["python3", "/usr/bin/python3", "python3"], "{name}");
            let left = fs::read_dir(root.at("/srv/venv/bin")).unwrap().count();
            assert_eq!(left, 3, "nothing is left over");
        }
    }

    #[test]
    fn a_venv_that_stays_unpinned_is_an_error() {
        let (_folder, root, venv) = system("/opt/python3");
        assert!(pin(&root, &venv, OLD).is_err());
        let pinned = Venv { base: Base { link: Link::Pinned, ..venv.base.clone() }, ..venv };
        assert!(pin(&root, &pinned, OLD).is_ok(), "it is pinned already");
    }

    #[test]
    fn a_file_that_took_the_place_of_a_new_link_is_not_given_away() {
        let (_folder, root, venv) = system("/usr/bin/python3");
        let bin = root.at("/srv/venv/bin");
        for link in ["new", "shared"] {
            symlink("x", bin.join(link)).unwrap();
        }
        fs::hard_link(bin.join("shared"), bin.join("second")).unwrap();
        fs::write(bin.join("file"), "").unwrap();
        let open = folder::reach(&bin, OFlags::RDONLY).unwrap();
        let is_given = |name| give_link(&open, Path::new(name), &venv).is_ok();
        assert_eq!(["new", "shared", "file"].map(is_given), [true, false, false]);
    }

    #[test]
    fn a_bin_that_is_a_link_is_not_entered() {
        let (_folder, root, venv) = system("/usr/bin/python3");
        let bin = root.at("/srv/venv/bin");
        fs::rename(&bin, root.at("/srv/venv/real")).unwrap();
        symlink("real", &bin).unwrap();
        assert!(pin(&root, &venv, OLD).is_err());
    }
}
