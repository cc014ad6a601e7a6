//! Pins a venv that follows the default interpreter to the interpreter of its own minor version,
//! and unpins it.
//!
//! Only a link changes: `bin/python3 -> /usr/bin/python3` becomes
//! `bin/python3 -> /usr/bin/python3.11`. While both lead to the same program, this has no effect on
//! the venv; that is why it is done *before* dpkg moves the default.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Context;
use super::account::owner;
use crate::host::file::printable;
use crate::host::path_text::PathText;
use crate::host::user::User;
use crate::host::{Dir, Root, parallel};
use crate::owner::{self, Refresh, Relink, RelinkedName};
use crate::plan::Until;
use crate::python::{self, Interpreter, Minor};
use crate::report;
use crate::store::{Event, Pin, Registry, StoreError};
use crate::venv::{self, BaseLink, Venv};

/// The time limits for changing the links of one venv, or copying its interpreter; and for all
/// venvs of one owner.
pub(super) const LIMIT: Duration = Duration::from_secs(60);
const MOST: Duration = Duration::from_secs(300);

/// The time that a venv gets even if its owner has none left.
pub(super) const LEAST: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub(crate) enum PinError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Pins a registered venv to its own minor version.
pub(crate) fn record_and_pin(
    context: &Context,
    registry: &mut Registry,
    id: &str,
    venv: &Venv,
    until: Until,
    because: Option<&str>,
) -> Result<(), PinError> {
    let venvs = [(id.to_string(), venv.clone())];
    match record_and_pin_all(context, registry, &venvs, until, because)?.pop() {
        Some((_, error)) => Err(error.into()),
        None => Ok(()),
    }
}

/// Pins registered venvs, in one process for each owner. The registry records the links first:
/// otherwise they would look like links of their owners, and would never be changed back. Returns
/// the numbers of the venvs that could not be pinned, with the errors.
pub(crate) fn record_and_pin_all(
    context: &Context,
    registry: &mut Registry,
    venvs: &[(String, Venv)],
    until: Until,
    because: Option<&str>,
) -> Result<Vec<(usize, io::Error)>, PinError> {
    let (mut failed, mut before) = (Vec::new(), Vec::new());
    let mut by_owner: BTreeMap<u32, Vec<(usize, Vec<RelinkedName>)>> = BTreeMap::new();
    for (number, (id, venv)) in venvs.iter().enumerate() {
        let links = match links_that_pin(context.root, venv) {
            Ok(links) => links,
            Err(error) => {
                failed.push((number, error));
                continue;
            }
        };
        let Some(entry) = registry.get_mut(id) else { continue };
        let mut pin = Pin::new(venv.site, until, because);
        // A venv that is pinned already keeps its recorded links.
        pin.links = match &entry.pin {
            Some(known) if links.is_empty() => known.links.clone(),
            _ => links.clone(),
        };
        before.push((number, entry.pin.replace(pin)));
        by_owner.entry(venv.uid).or_default().push((number, links));
    }
    context.store.save_registry(registry)?;
    let pin = |owned| pin_of_owner(context, venvs, owned);
    failed.extend(parallel::map(by_owner.into_values(), owner::AT_ONCE, pin).into_iter().flatten());
    let are_failed: BTreeSet<usize> = failed.iter().map(|(number, _)| *number).collect();
    for (number, pinned) in before {
        let Some((id, venv)) = venvs.get(number) else { continue };
        if !are_failed.contains(&number) {
            let why = report::until_in_words(until, because);
            audit(context, registry, id, "pinning", format!("to Python {}, {why}", venv.site));
        } else if let Some(entry) = registry.get_mut(id) {
            entry.pin = pinned;
        }
    }
    if !failed.is_empty() {
        context.store.save_registry(registry)?;
    }
    Ok(failed)
}

/// Pins venvs of one owner.
fn pin_of_owner(
    context: &Context,
    venvs: &[(String, Venv)],
    owned: Vec<(usize, Vec<RelinkedName>)>,
) -> Vec<(usize, io::Error)> {
    let (numbers, tasks): (Vec<usize>, Vec<Relink>) = owned
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .filter_map(|(number, names)| {
            let venv = venvs.get(number)?.1.path.as_path().into();
            Some((number, Relink { venv, names }))
        })
        .unzip();
    let Some((_, first)) = numbers.first().and_then(|number| venvs.get(*number)) else {
        return Vec::new();
    };
    let limit = LIMIT.saturating_mul(u32::try_from(tasks.len()).unwrap_or(u32::MAX));
    let limit = limit.min(MOST);
    let results = match owner::run_all(context.root, &owner(context, first), limit, &tasks) {
        Ok(results) => results,
        Err(error) => {
            let again = |number| (number, io::Error::new(error.kind(), error.to_string()));
            return numbers.into_iter().map(again).collect();
        }
    };
    let check = |((number, task), result): ((usize, &Relink), io::Result<usize>)| {
        let error = match result {
            Ok(changed) if changed == task.names.len() => return None,
            Ok(_) => changed_meanwhile(&task.venv.0),
            Err(error) => error,
        };
        Some((number, error))
    };
    numbers.into_iter().zip(&tasks).zip(results).filter_map(check).collect()
}

fn changed_meanwhile(venv: &Path) -> io::Error {
    let bin = printable(venv.join("bin"));
    io::Error::other(format!("somebody changed a link in {bin} at the same time"))
}

/// Unpins a venv that venvguard has pinned: it follows the default interpreter again.
pub(crate) fn record_and_unpin(
    context: &Context,
    registry: &mut Registry,
    id: &str,
    venv: &Venv,
) -> Result<(), PinError> {
    let known = registry.get(id).and_then(|entry| entry.pin.as_ref());
    let links = known.map(|known| known.links.clone()).unwrap_or_default();
    unpin(context.root, &owner(context, venv), venv, &links)?;
    set_pin(context, registry, id, None)?;
    audit(context, registry, id, "unpinned", format!("it follows {} again", python::DEFAULT));
    Ok(())
}

fn audit(context: &Context, registry: &Registry, id: &str, what: &str, detail: String) {
    if let Some(entry) = registry.get(id) {
        context.store.audit(&Event::new(&entry.name, entry.path(), what, detail));
    }
}

/// Returns the previous record of the pin.
fn set_pin(
    context: &Context,
    registry: &mut Registry,
    id: &str,
    pinned: Option<Pin>,
) -> Result<Option<Pin>, StoreError> {
    let Some(entry) = registry.get_mut(id) else { return Ok(None) };
    let before = std::mem::replace(&mut entry.pin, pinned);
    context.store.save_registry(registry)?;
    Ok(before)
}

/// The links by which a venv follows the default interpreter, with the targets that pin them.
pub(super) fn links_to_default(root: &Root, venv: &Venv) -> io::Result<Vec<RelinkedName>> {
    leaving_links(root, venv, Path::new(python::DEFAULT), &python::path_of(venv.site))
}

/// The links in `bin` that lead out of the venv to `from`, whatever their text.
fn leaving_links(
    root: &Root,
    venv: &Venv,
    from: &Path,
    to: &Path,
) -> io::Result<Vec<RelinkedName>> {
    let bin = Dir::open(&root.at(&venv.path))?.dir("bin")?;
    let mut links = Vec::new();
    for name in interpreter_names(&bin)? {
        if venv::base_interpreter_link(root, &venv.path, &name).as_deref() == Some(from) {
            let text = bin.read_link(&name)?;
            links.push(RelinkedName { name: PathText(name), from: PathText(text), to: to.into() });
        }
    }
    Ok(links)
}

/// The same links; an error if a venv that follows has none.
pub(super) fn links_that_pin(root: &Root, venv: &Venv) -> io::Result<Vec<RelinkedName>> {
    let links = links_to_default(root, venv)?;
    if links.is_empty() && venv.base.link == BaseLink::Followed {
        let bin = printable(venv.path.join("bin"));
        return Err(io::Error::other(format!("no link in {bin} leads to {}", python::DEFAULT)));
    }
    Ok(links)
}

/// Pins a venv that follows the default interpreter to its own minor version.
pub(super) fn pin(
    root: &Root,
    owner: &User,
    venv: &Venv,
    links: Vec<RelinkedName>,
) -> io::Result<()> {
    let count = links.len();
    if relink(root, owner, venv, links)? == count {
        return Ok(());
    }
    Err(changed_meanwhile(&venv.path))
}

/// Unpins a venv by changing the recorded links back. If no links are recorded, all links to the
/// pinned interpreter are changed, except one that has the minor version in its own name: the tool
/// that created the venv made that one.
pub(super) fn unpin(
    root: &Root,
    owner: &User,
    venv: &Venv,
    links: &[RelinkedName],
) -> io::Result<()> {
    let back = if links.is_empty() {
        let default = Path::new(python::DEFAULT);
        let mut found = leaving_links(root, venv, &python::path_of(venv.site), default)?;
        found.retain(|link| link.name.0 != Path::new(&venv.site.program()));
        found
    } else {
        let back = |link: &RelinkedName| RelinkedName {
            name: link.name.clone(),
            from: link.to.clone(),
            to: link.from.clone(),
        };
        links.iter().map(back).collect()
    };
    // The owner has changed a link that leads elsewhere by now.
    relink(root, owner, venv, back).map(drop)
}

/// Returns how many of the links have their new target.
fn relink(root: &Root, owner: &User, venv: &Venv, names: Vec<RelinkedName>) -> io::Result<usize> {
    if names.is_empty() {
        return Ok(0);
    }
    owner::run(root, owner, LIMIT, &Relink { venv: venv.path.as_path().into(), names })
}

/// Replaces every copied interpreter with the installed one.
pub(super) fn refresh(
    root: &Root,
    owner: &User,
    venv: &Venv,
    interpreter: &Interpreter,
    limit: Duration,
) -> io::Result<()> {
    let task = Refresh {
        venv: venv.path.as_path().into(),
        copies: venv.base.copies.iter().map(|copy| PathText(copy.name.clone())).collect(),
        minor: interpreter.version.minor(),
        version: interpreter.version.clone(),
    };
    owner::run(root, owner, limit, &task)
}

/// `python`, `python3`, `python3.11`: the names in `bin` that stand for an interpreter.
fn interpreter_names(bin: &Dir) -> io::Result<Vec<PathBuf>> {
    let mut names: Vec<PathBuf> = bin
        .entries()?
        .into_iter()
        .filter(|entry| entry.kind.is_symlink())
        .filter(|entry| {
            entry.name.to_str().is_some_and(|name| {
                matches!(name, "python" | "python3") || Minor::of_program(name).is_some()
            })
        })
        .map(|entry| PathBuf::from(entry.name))
        .collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test prepares its own directories")]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;
    use crate::venv::{BaseInterpreter, Flavour};

    const OLD: Minor = Minor::new(3, 11);

    /// A system whose default Python is 3.11, and a venv as `python3 -m venv` creates it. The link
    /// that leaves the venv leads to `target`.
    fn system(target: &str) -> (tempfile::TempDir, Root, Venv) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path().canonicalize().unwrap());
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
            base: BaseInterpreter {
                link: BaseLink::Followed,
                path: python::DEFAULT.into(),
                minor: Some(OLD),
                version: None,
                copies: Vec::new(),
                is_debian: true,
            },
            site: OLD,
            uid: metadata.uid(),
            gid: metadata.gid(),
            mode: 0o755,
            system_site_packages: false,
            prompt: None,
        };
        (dir, root, venv)
    }

    fn links(root: &Root) -> Vec<String> {
        ["python", "python3", "python3.11"]
            .map(|name| {
                let link = fs::read_link(root.at("/srv/venv/bin").join(name)).unwrap();
                link.display().to_string()
            })
            .to_vec()
    }

    fn owner(venv: &Venv) -> User {
        super::super::account::owner_of(&Root::new("/nonexistent"), venv.uid, venv.gid)
    }

    /// Pins it, and returns the changed links.
    fn pinned(root: &Root, venv: &Venv) -> io::Result<Vec<RelinkedName>> {
        let links = links_that_pin(root, venv)?;
        pin(root, &owner(venv), venv, links.clone())?;
        Ok(links)
    }

    #[test]
    fn pinning_changes_the_one_link_that_leaves_the_venv_and_unpinning_changes_it_back() {
        let names =
            ["/usr/bin/python3", "/bin/python3", "/usr/bin/python", "../../../usr/bin/python3"];
        for name in names {
            let (_dir, root, venv) = system(name);
            let changed = pinned(&root, &venv).unwrap();
            assert_eq!(links(&root), ["python3", "/usr/bin/python3.11", "python3"], "{name}");
            unpin(&root, &owner(&venv), &venv, &changed).unwrap();
            assert_eq!(links(&root), ["python3", name, "python3"]);
            let left = fs::read_dir(root.at("/srv/venv/bin")).unwrap().count();
            assert_eq!(left, 3, "nothing is left over");
        }
    }

    #[test]
    fn unpinning_restores_every_recorded_link() {
        for target in ["/usr/bin/python3", "/bin/python3", "../../../usr/bin/python3"] {
            for is_known in [true, false] {
                let (_dir, root, venv) = system(target);
                let bin = root.at("/srv/venv/bin");
                fs::remove_file(bin.join("python3.11")).unwrap();
                symlink("/usr/bin/python3.11", bin.join("python3.11")).unwrap();
                let before = links(&root);
                let changed = pinned(&root, &venv).unwrap();
                let known = if is_known { changed } else { Vec::new() };
                unpin(&root, &owner(&venv), &venv, &known).unwrap();
                let after = links(&root);
                assert_eq!(after[2], before[2], "`python3 -m venv` has pinned this one");
                assert!(after == before || !is_known, "{before:?} {after:?}");
                assert!(after[1].ends_with("/python3"), "{after:?}");
            }
        }
    }

    #[test]
    fn a_link_that_its_owner_has_changed_since_stays() {
        let (_dir, root, venv) = system("/usr/bin/python3");
        let changed = pinned(&root, &venv).unwrap();
        let bin = root.at("/srv/venv/bin");
        fs::remove_file(bin.join("python3")).unwrap();
        symlink("/opt/python3", bin.join("python3")).unwrap();
        unpin(&root, &owner(&venv), &venv, &changed).unwrap();
        assert_eq!(links(&root)[1], "/opt/python3");
    }

    #[test]
    fn a_venv_that_cannot_be_pinned_is_an_error() {
        let (_dir, root, venv) = system("/opt/python3");
        assert!(pinned(&root, &venv).is_err());
        let already =
            Venv { base: BaseInterpreter { link: BaseLink::Pinned, ..venv.base.clone() }, ..venv };
        assert!(pinned(&root, &already).is_ok(), "it is pinned already");
    }

    #[test]
    fn a_bin_that_is_a_link_or_belongs_to_somebody_else_is_not_entered() {
        let (_dir, root, venv) = system("/usr/bin/python3");
        let bin = root.at("/srv/venv/bin");
        let links = links_to_default(&root, &venv).unwrap();
        fs::rename(&bin, root.at("/srv/venv/real")).unwrap();
        symlink("real", &bin).unwrap();
        assert!(pin(&root, &owner(&venv), &venv, links.clone()).is_err());
        if rustix::process::geteuid().is_root() {
            fs::remove_file(&bin).unwrap();
            fs::rename(root.at("/srv/venv/real"), &bin).unwrap();
            std::os::unix::fs::chown(&bin, Some(4711), None).unwrap();
            let error = pin(&root, &owner(&venv), &venv, links).unwrap_err().to_string();
            assert!(error.contains("does not belong to the venv's owner"), "{error}");
        }
    }
}
