//! Keeps the recipe of a venv, which is what it takes to install the same distributions again, and
//! the local archives that it needs.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::Context;
use super::account::owner;
use super::install_spec::{InstallSpec, Requested, is_new_and_empty, known_hashes};
use crate::host::clock::Deadline;
use crate::host::file;
use crate::host::path_text::PathText;
use crate::owner::{self, Digest, Send};
use crate::store::{ARCHIVE_LIMIT, ARCHIVE_QUOTA, Registry, RegistryEntry, StoreError};
use crate::venv::{Recipe, Venv};

/// The time limits for keeping the archives of one owner, and those of all owners.
const ARCHIVES_LIMIT: Duration = Duration::from_secs(30);
const ALL_ARCHIVES_LIMIT: Duration = Duration::from_secs(300);

/// Copies the local archives that a venv was installed from, in a process of its owner, and notes
/// their hashes in the recipe.
fn keep_archives(context: &Context, venv: &Venv, recipe: &mut Recipe, deadline: Deadline) {
    let (root, store, owner) = (context.root, context.store, owner(context, venv));
    // The store keeps no more than this.
    let mut unread = ARCHIVE_QUOTA;
    for (_, mut archive) in recipe.local_archives() {
        let known = archive.sha256();
        let is_kept = |hash: &String| store.kept_archive(venv.uid, hash, &archive.file).is_some();
        if known.as_ref().is_some_and(is_kept) || deadline.has_passed() {
            continue;
        }
        let path = PathText(archive.path.clone());
        let digest = Digest { path: path.clone(), limit: ARCHIVE_LIMIT.min(unread) };
        let Ok((length, hash)) = owner::run(root, &owner, deadline.left(), &digest) else {
            continue;
        };
        unread = unread.saturating_sub(length);
        // This is not the archive that was installed.
        if known.as_ref().is_some_and(|known| *known != hash) {
            continue;
        }
        let kept = store.keep_archive(venv.uid, (length, &hash), &archive.file, |file| {
            let task = Send { path, limit: length };
            owner::send(root, &owner, deadline.left(), &task, file)
        });
        if kept.is_ok() && known.is_none() {
            archive.set_sha256(&hash);
        }
    }
}

/// Removes the archives that are older than `before` and that no recipe needs. Younger ones stay:
/// a previous environment may need them after a rollback.
pub(crate) fn prune_archives(context: &Context, registry: &Registry, before: Timestamp) {
    let recipes = registry.venvs.iter().map(|entry| context.store.recipe(&entry.id));
    // An unreadable recipe may need any of them.
    let Ok(recipes) = recipes.collect::<Result<Vec<_>, _>>() else { return };
    let mut recipes: Vec<Recipe> = recipes.into_iter().flatten().collect();
    let archives = recipes.iter_mut().flat_map(Recipe::local_archives);
    let needed = archives.filter_map(|(_, archive)| archive.sha256()).collect();
    if let Err(error) = context.store.prune_archives(&needed, before) {
        context.report.note(&format!("cannot remove archives that no venv needs: {error}"));
    }
}

/// Refreshes the recipes of the venvs in which something was installed or removed since: their
/// site-packages has changed. An error is reported, and does not stop the run.
pub(crate) fn refresh_recipes<'a>(
    context: &Context,
    venvs: impl Iterator<Item = (&'a RegistryEntry, &'a Venv)>,
) {
    let all = Deadline::after(ALL_ARCHIVES_LIMIT);
    let mut of_owners: BTreeMap<u32, Deadline> = BTreeMap::new();
    for (entry, venv) in venvs {
        let own = of_owners.entry(venv.uid);
        let own = own.or_insert_with(|| Deadline::after(ARCHIVES_LIMIT.min(all.left())));
        let site = context.root.at(venv.site_packages());
        let changed = std::fs::metadata(site).and_then(|metadata| metadata.modified()).ok();
        if changed <= context.store.recipe_written(&entry.id) {
            continue;
        }
        if let Err(error) = keep_recipe_until(context, entry, venv, *own) {
            context.report.error(&format!("{}: cannot keep its recipe: {error}", entry.name));
        }
    }
}

/// Keeps the recipe of a venv, for the day on which the venv is gone or broken. The earlier recipe
/// stays if none can be made today, or if the venv was recreated and is still empty.
pub(crate) fn keep_recipe(
    context: &Context,
    entry: &RegistryEntry,
    venv: &Venv,
) -> Result<(), StoreError> {
    keep_recipe_until(context, entry, venv, Deadline::after(ARCHIVES_LIMIT))
}

fn keep_recipe_until(
    context: &Context,
    entry: &RegistryEntry,
    venv: &Venv,
    deadline: Deadline,
) -> Result<(), StoreError> {
    match InstallSpec::of(context, entry, venv) {
        Ok(InstallSpec { wanted: Requested::Same(recipe, _), .. })
            if is_new_and_empty(context, entry, venv, &recipe) =>
        {
            Ok(())
        }
        Ok(InstallSpec { wanted: Requested::Same(mut recipe, _), .. }) => {
            keep_archives(context, venv, &mut recipe, deadline);
            context.store.save_recipe(&entry.id, &recipe)
        }
        _ => Ok(()),
    }
}

/// The distributions that a rebuild may not install exactly as they are, in words.
pub(crate) fn not_exact(context: &Context, entry: &RegistryEntry, venv: &Venv) -> Vec<String> {
    match InstallSpec::of(context, entry, venv) {
        Ok(InstallSpec { wanted: Requested::Same(mut recipe, _), .. }) => {
            let known = known_hashes(context, entry);
            for (_, mut archive) in recipe.local_archives() {
                if let (None, Some(hash)) = (archive.sha256(), known.get(&archive.path)) {
                    archive.set_sha256(hash);
                }
            }
            recipe.uncertain().iter().map(ToString::to_string).collect()
        }
        // A requirements file or a command decides for itself what is exact.
        Ok(_) => Vec::new(),
        Err(reasons) => reasons,
    }
}

/// How to recreate a venv that is gone, from its recipe, its requirements file or by its command;
/// `None` if there is none of them.
pub(crate) fn way_back(context: &Context, entry: &RegistryEntry) -> Option<String> {
    let recipe = context.store.recipe(&entry.id).ok().flatten();
    let is_known = entry.requirements().is_some() || !entry.build_command().is_empty();
    if recipe.is_none() && !is_known {
        return None;
    }
    let sees_system = recipe.is_some_and(|recipe| recipe.system_site_packages);
    let option = if sees_system { " --system-site-packages" } else { "" };
    let (name, path) = (&entry.name, file::printable(entry.path()));
    Some(format!(
        "to recreate it, run `python3 -m venv --without-pip{option} {path}` as its owner, then `venvguard rebuild {name}`"
    ))
}
