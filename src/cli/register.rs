//! `register` and `unregister`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::Exit;
use super::arguments::Register;
use crate::guard::{Guard, chosen};
use crate::host::file::printable;
use crate::inventory::refusal;
use crate::repair;
use crate::report::pin_in_words;
use crate::store::{PreparedTree, Registry, RegistryEntry};
use crate::venv::{self, ProjectLock, Venv};

pub(super) fn register(guard: &Guard, wanted: &Register) -> anyhow::Result<Exit> {
    guard.require_root()?;
    guard.require_allowed()?;
    if wanted.name.is_some() && wanted.paths.len() > 1 {
        bail!(
            "--name is for one venv, and {} are given; nothing was registered",
            wanted.paths.len()
        );
    }
    let check = wanted.check.as_deref().map(check).transpose()?;
    let requirements = wanted.requirements.as_deref().map(file).transpose()?;
    let lock = wanted.lock.as_deref().map(file).transpose()?;
    if let Some(path) = &lock {
        ProjectLock::read(&guard.root, path).context("nothing was registered")?;
    }
    let _lock = guard.lock()?;
    let mut registry = guard.registry()?;
    let mut registered = Vec::new();
    for path in &wanted.paths {
        // All or nothing: a mistake in the last path registers none of the others.
        let (id, venv) =
            add(guard, &mut registry, path, wanted.name.as_deref()).with_context(|| {
                format!("cannot register {}; nothing was registered", printable(path))
            })?;
        let Some(entry) = registry.get_mut(&id) else { continue };
        entry.register_by_hand();
        if let Some(policy) = wanted.policy {
            entry.policy = policy;
        }
        if !wanted.services.is_empty() {
            entry.services.clone_from(&wanted.services);
        }
        if let Some(check) = &check {
            entry.check.clone_from(check);
        }
        if let Some(path) = &requirements {
            entry.set_requirements(path);
        }
        if let Some(path) = &lock {
            entry.set_lock(path);
        }
        if wanted.relax.is_some() {
            entry.relax = wanted.relax;
        }
        if let Some(why) = refusal(&guard.context(), entry, &venv) {
            bail!("cannot register {}: {why}; nothing was registered", printable(path));
        }
        registered.push((id, venv));
    }
    guard.store.save_registry(&registry)?;
    if guard.store.interpreters()?.is_none() {
        guard.store.save_interpreters(&guard.interpreters()?)?;
    }
    if guard.root.user().is_some_and(|uid| !guard.is_eligible(uid)) {
        guard.report.note(
            "apt's hook looks after people's accounts, and yours is a program's: it repairs this only if the administrator names you in `users.allow`",
        );
    }
    for (id, venv) in &registered {
        let Some(entry) = registry.get(id) else { continue };
        repair::keep_recipe(&guard.context(), entry, venv)?;
        guard.report.data(format!(
            "{}: {}, {} by {}, Python {}",
            entry.name,
            printable(&venv.path),
            venv.base.link,
            venv.flavour,
            venv.site
        ));
        report_not_exact(guard, entry, venv);
        if !venv.base.is_debian {
            guard.report.note(&format!(
                "{}: its base interpreter {} is not Debian's: no upgrade changes it, venvguard leaves it alone",
                entry.name,
                printable(&venv.base.path)
            ));
        }
    }
    Ok(Exit::Done)
}

/// Reports which distributions a rebuild may not install as they are, while somebody can still
/// do something about it.
pub(super) fn report_not_exact(guard: &Guard, entry: &RegistryEntry, venv: &Venv) {
    for reason in repair::not_exact(&guard.context(), entry, venv) {
        guard.report.note(&format!("{}: {reason}", entry.name));
    }
}

fn add(
    guard: &Guard,
    registry: &mut Registry,
    path: &Path,
    name: Option<&str>,
) -> anyhow::Result<(String, Venv)> {
    let real = guard.root.at(path_from_here(guard, path)?);
    let real = real.canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => anyhow::anyhow!("there is no such directory"),
        _ => error.into(),
    })?;
    let path = guard.root.logical(&real);
    let venv = venv::inspect(&guard.root, &path)?;
    let entry = registry.add(&path, name, guard.config.policy)?;
    Ok((entry.id.clone(), venv))
}

/// A relative path is relative to where the caller is.
fn path_from_here(guard: &Guard, path: &Path) -> std::io::Result<PathBuf> {
    if guard.root.is_system() { std::path::absolute(path) } else { Ok(path.to_path_buf()) }
}

/// A file that a person names, wherever its path leads today.
fn file(path: &Path) -> anyhow::Result<PathBuf> {
    path.canonicalize().with_context(|| format!("cannot read {}", printable(path)))
}

/// The check's words. It is run without a shell: what looks like shell is refused here,
/// and not found out at the next upgrade.
fn check(command: &str) -> anyhow::Result<Vec<String>> {
    let words = shlex::split(command)
        .with_context(|| format!("the check {command:?} has a quote without its partner"))?;
    let Some(program) = words.first() else { bail!("the check is empty") };
    if let Some(word) =
        words.iter().find(|word| matches!(word.as_str(), "|" | "||" | "&&" | ";" | ">" | "<"))
    {
        bail!(
            "the check is run without a shell, {word:?} means nothing there (put it into a script, or use `sh -c '…'`)"
        );
    }
    let found = crate::host::command::find(program)
        .with_context(|| format!("the check's program {program:?} is not found"))?;
    let mut words = words;
    if let Some(first) = words.first_mut() {
        *first = found.to_string_lossy().into_owned();
    }
    Ok(words)
}

pub(super) fn unregister(guard: &Guard, venvs: &[String]) -> anyhow::Result<Exit> {
    guard.require_root()?;
    let _lock = guard.lock()?;
    let mut registry = guard.registry()?;
    let wanted = chosen(&registry, venvs)?;
    if let Some((entry, file)) = wanted.iter().find_map(|one| Some((one, one.declared_in()?))) {
        bail!("{} is declared in {}: take it out there", entry.name, printable(file));
    }
    let ids: Vec<String> = wanted.iter().map(|entry| entry.id.clone()).collect();
    if ids.iter().any(|id| guard.store.has_journal(id)) {
        // What was begun is ended first: nobody would afterwards.
        guard.recover(&mut registry, &guard.interpreters()?);
    }
    for journal in guard.store.open_journal().into_iter().flatten() {
        // One that cannot be ended is of no use, but where it says where the venv is.
        if ids.iter().any(|id| id == journal.id()) && !journal.state.has_taken_the_venv_away() {
            guard.store.close_journal(journal.id())?;
        }
    }
    if let Some(id) = ids.iter().find(|id| guard.store.has_journal(id)) {
        let name = registry.get(id).map_or(id, |entry| &entry.name);
        bail!("an interrupted repair of {name} cannot be ended; it stays registered");
    }
    let (gone, left): (Vec<RegistryEntry>, _) =
        registry.venvs.into_iter().partition(|entry| ids.contains(&entry.id));
    registry.venvs = left;
    for entry in &gone {
        match guard.store.prepared(&entry.id) {
            Ok(tree) => registry.pending_removals.extend(tree.map(PreparedTree::into_removal)),
            Err(error) => guard.report.error(&error.to_string()),
        }
    }
    guard.store.save_registry(&registry)?;
    for entry in &gone {
        guard.store.forget_prepared(&entry.id)?;
    }
    for entry in gone {
        guard.report.data(format!(
            "{}: no longer guarded; {} is as it was",
            entry.name,
            printable(entry.path())
        ));
        if let Some(pinned) = &entry.pin {
            guard.report.note(&format!(
                "it was pinned to Python {} by venvguard, and stays so ({})",
                pinned.to,
                pin_in_words(pinned)
            ));
        }
        for kept in entry.previous_trees.latest_first() {
            guard.report.note(&format!(
                "the previous environment stays at {}: it is yours to remove",
                printable(kept.path())
            ));
        }
    }
    repair::sweep(&guard.context(), &mut registry);
    Ok(Exit::Done)
}
