//! What to install into a new tree, read from the old one while it is still in place.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

use super::Context;
use super::build_command::BuildCommand;
use crate::host::user::User;
use crate::host::{Root, file, hexadecimal};
use crate::python::Minor;
use crate::store::RegistryEntry;
use crate::venv::{
    self, Difference, Differences, Distribution, LockError, ProjectLock, Recipe, Relax,
    Unreproducible, Venv,
};

/// What to install into a new tree, and how to check it.
#[derive(Debug)]
pub(super) struct InstallSpec<'a> {
    pub(super) wanted: Requested<'a>,
    /// The modules that must be importable again.
    pub(super) modules: Vec<String>,
    /// How far the version of a distribution may differ if its own one is unavailable.
    pub(super) relax: Option<Relax>,
    /// What a person should know.
    pub(super) notes: Vec<String>,
    /// The distributions that must have the same version again.
    same: Vec<Distribution>,
}

/// The distributions to install.
#[derive(Debug)]
pub(super) enum Requested<'a> {
    /// The same distributions, with what the project's lock adds.
    Same(Recipe, Option<ProjectLock>),
    /// A requirements file that a person wrote; and pip, if the old tree had one.
    Listed { file: &'a Path, pip: bool },
    /// Whatever a command installs.
    Built(BuildCommand<'a>),
}

impl<'a> InstallSpec<'a> {
    /// Reads a venv. The error lists all reasons why it cannot be reproduced.
    pub(super) fn of(
        context: &Context,
        entry: &'a RegistryEntry,
        venv: &Venv,
    ) -> Result<Self, Vec<String>> {
        let site = context.root.at(venv.site_packages());
        let unreadable = |error: io::Error| vec![format!("{}: {error}", file::printable(&site))];
        let distributions = venv::distributions(&site).map_err(unreadable)?;
        let relax = entry.relax;
        let command = BuildCommand::of(context.root, entry.build_command(), venv, &distributions);
        if let Some(command) = command.transpose().map_err(|why| vec![why])? {
            let modules = command.modules(&site).map_err(unreadable)?;
            let wanted = Requested::Built(command);
            return Ok(Self { wanted, modules, relax, notes: Vec::new(), same: Vec::new() });
        }
        let modules = venv::top_level_modules_of(&site, &distributions).map_err(unreadable)?;
        if let Some(file) = entry.requirements() {
            let pip = distributions.iter().any(|one| one.normalized_name() == "pip");
            let wanted = Requested::Listed { file, pip };
            return Ok(Self { wanted, modules, relax, notes: Vec::new(), same: Vec::new() });
        }
        let words =
            |reasons: Vec<Unreproducible>| reasons.iter().map(ToString::to_string).collect();
        let mut recipe = match Recipe::of(venv, &distributions) {
            Ok(empty)
                if is_new_and_empty(context, entry, venv, &empty) && distributions.is_empty() =>
            {
                context.store.recipe(&entry.id).ok().flatten().unwrap_or(empty)
            }
            Ok(recipe) => recipe,
            Err(reasons) => return Err(words(reasons)),
        };
        let mut notes = Vec::new();
        take_kept_archives(context, entry, venv, &mut recipe, &mut notes);
        let gone = recipe.gone(context.root);
        if !gone.is_empty() {
            return Err(words(gone));
        }
        let lock = match lock(context, entry, venv) {
            Ok(lock) => lock,
            Err(error) if entry.lock().is_some() => return Err(vec![error.to_string()]),
            Err(error) => {
                notes.push(format!("the project's lock was not used: {error}"));
                None
            }
        };
        if let Some(lock) = &lock {
            let differing = recipe.follow(lock, entry.lock().is_some());
            if !differing.is_empty() {
                let used = if entry.lock().is_some() { "lock" } else { "venv" };
                notes.push(format!(
                    "{} differs from the venv, and venvguard uses the versions of the {used}: {}",
                    file::printable(&lock.path),
                    differing.join("; ")
                ));
            }
        }
        let may_differ = relax.is_some() || entry.lock().is_some();
        let mut same = distributions;
        same.retain(|one| !may_differ && !venv::comes_with_every_venv(one));
        Ok(Self { wanted: Requested::Same(recipe, lock), modules, relax, notes, same })
    }

    /// The distributions that no installer installs for a minor version.
    pub(super) fn excluding(&self, minor: Minor) -> impl Iterator<Item = &Distribution> {
        self.same.iter().filter(move |one| one.excludes(minor))
    }

    /// How the distributions in a new tree differ from the wanted ones. A requirements file is not
    /// compared: it decides for itself. A command decides about versions only.
    pub(super) fn compare(
        &self,
        root: &Root,
        tree: &Path,
        minor: Minor,
    ) -> io::Result<Differences> {
        let sees_system = match &self.wanted {
            Requested::Same(recipe, _) => recipe.system_site_packages,
            Requested::Built(command) => command.system_site_packages,
            Requested::Listed { .. } => return Ok(Differences::default()),
        };
        let own = root.at(venv::site_packages(tree, minor));
        let mut installed = venv::distributions(&own)?;
        if sees_system {
            // An installer skips distributions that the system has in the same version.
            let system = [format!("local/lib/{}", minor.program()), "lib/python3".to_string()];
            for dir in system {
                let site = root.at(Path::new("/usr").join(dir).join("dist-packages"));
                installed.extend(venv::distributions(&site).unwrap_or_default());
            }
        }
        Ok(match &self.wanted {
            Requested::Same(recipe, _) => Differences::of(recipe, &installed, self.relax),
            Requested::Built(command) => command.compare(&own, &installed),
            Requested::Listed { .. } => Differences::default(),
        })
    }

    /// Expects no module of the distributions that a command left out.
    pub(super) fn leave_out(&mut self, old_site: &Path, missing: &[Difference]) -> io::Result<()> {
        if let (Requested::Built(command), false) = (&mut self.wanted, missing.is_empty()) {
            command.forget(missing);
            self.modules = command.modules(old_site)?;
        }
        Ok(())
    }

    /// A hash of the distributions to install, and of the installed ones.
    pub(super) fn digest(&self, installed: &Installed) -> String {
        let mut hash = Sha256::new();
        match &self.wanted {
            Requested::Same(recipe, _) => hash.update(recipe.to_pylock()),
            Requested::Listed { file, pip } => {
                hash.update(file.as_os_str().as_encoded_bytes());
                hash.update(format!("{pip} {:?}", written(file)));
            }
            Requested::Built(BuildCommand { program, arguments, pip, .. }) => {
                hash.update(program.as_os_str().as_encoded_bytes());
                hash.update(format!("{arguments:?} {pip} {:?}", written(program)));
            }
        }
        hash.update(format!("{:?} {installed:?}", self.relax));
        hexadecimal(&hash.finalize())
    }

    pub(super) fn has_pip(&self) -> bool {
        match &self.wanted {
            Requested::Same(recipe, _) => recipe.seed_pip,
            Requested::Listed { pip, .. } => *pip,
            Requested::Built(command) => command.pip,
        }
    }

    pub(super) fn command(&self) -> Option<&BuildCommand<'a>> {
        match &self.wanted {
            Requested::Built(command) => Some(command),
            _ => None,
        }
    }

    /// The directories that an installer writes to: the venv, and the source directories, in which
    /// build backends leave their output.
    pub(super) fn built_in(&self, root: &Root, venv: &Venv, owner: &User) -> Vec<PathBuf> {
        let mut dirs = self.sources();
        if !matches!(self.wanted, Requested::Listed { .. }) {
            dirs.retain(|dir| may_be_built_in(root, dir, venv, owner));
        }
        dirs.push(venv.path.clone());
        dirs
    }

    /// All paths on this machine that an installer reads.
    pub(super) fn read_from(&self, venv: &Path) -> Vec<PathBuf> {
        let mut paths = self.sources();
        paths.push(venv.to_path_buf());
        match &self.wanted {
            Requested::Same(recipe, _) => paths.extend(recipe.local_paths()),
            Requested::Built(command) => paths.extend(command.paths()),
            Requested::Listed { .. } => {}
        }
        paths
    }

    /// The directories that distributions are built from.
    fn sources(&self) -> Vec<PathBuf> {
        match &self.wanted {
            Requested::Same(recipe, _) => recipe.dirs(),
            // The file may name any directory below its own.
            Requested::Listed { file, .. } => {
                file.parent().map(Path::to_path_buf).into_iter().collect()
            }
            Requested::Built(command) => command.sources(),
        }
    }

    /// Sources inside the venv itself, by their paths in it. Like pip's settings, they are carried
    /// over before anything is installed.
    pub(super) fn sources_inside(&self, venv: &Path) -> Vec<PathBuf> {
        let inside = match &self.wanted {
            Requested::Same(recipe, _) => recipe.sources_inside(venv),
            Requested::Built(command) => command.sources(),
            Requested::Listed { .. } => return Vec::new(),
        };
        inside.iter().filter_map(|path| Some(path.strip_prefix(venv).ok()?.to_path_buf())).collect()
    }
}

/// The length of a file and when it was written, if it can be read.
fn written(file: &Path) -> Option<(u64, SystemTime)> {
    let found = std::fs::metadata(file).ok()?;
    Some((found.len(), found.modified().ok()?))
}

/// The files that make a directory a project.
const PROJECT_FILES: [&str; 3] = ["pyproject.toml", "setup.py", "setup.cfg"];

/// Whether builds may write to a directory that a venv names as a source. Any package can ship a
/// `direct_url.json` that names any directory. The directory counts only if it is a project that
/// belongs to the owner, and contains neither their home nor other projects. A venv may lie in its
/// own project.
fn may_be_built_in(root: &Root, dir: &Path, venv: &Venv, owner: &User) -> bool {
    let real = |path: &Path| root.at(path).canonicalize();
    let Ok(dir) = real(dir) else { return false };
    let is_owners = std::fs::metadata(&dir).is_ok_and(|found| found.uid() == venv.uid);
    let is_project = PROJECT_FILES.iter().any(|name| dir.join(name).symlink_metadata().is_ok());
    let home = real(&owner.home).unwrap_or_else(|_| root.at(&owner.home));
    let place = real(&venv.path).unwrap_or_else(|_| root.at(&venv.path));
    let holds_others = place.parent().is_none_or(|own| own != dir && place.starts_with(&dir));
    is_owners && is_project && !home.starts_with(&dir) && !holds_others
}

/// The distributions of a tree, and the times of their installation. An installer that runs at the
/// same time changes it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Installed(Vec<(PathBuf, Option<SystemTime>)>);

impl Installed {
    pub(super) fn of(root: &Root, venv: &Venv) -> Self {
        let site = root.at(venv.site_packages());
        let since = |info: PathBuf| {
            let time =
                std::fs::symlink_metadata(site.join(&info)).and_then(|found| found.modified());
            (info, time.ok())
        };
        let found = venv::distributions(&site).unwrap_or_default();
        Self(found.into_iter().map(|one| since(one.info)).collect())
    }
}

/// Uses the kept copies of archives that no longer exist.
fn take_kept_archives(
    context: &Context,
    entry: &RegistryEntry,
    venv: &Venv,
    recipe: &mut Recipe,
    notes: &mut Vec<String>,
) {
    let mut known: Option<BTreeMap<PathBuf, String>> = None;
    for (name, mut archive) in recipe.local_archives() {
        if context.root.at(&archive.path).exists() {
            continue;
        }
        let known = known.get_or_insert_with(|| known_hashes(context, entry));
        let Some(hash) = archive.sha256().or_else(|| known.get(&archive.path).cloned()) else {
            continue;
        };
        if let Some(copy) = context.store.kept_archive(venv.uid, &hash, &archive.file) {
            let was = file::printable(&archive.path);
            notes.push(format!("{name}: {was} is gone; installing the copy that was kept"));
            archive.set_sha256(&hash);
            archive.replace(&context.root.logical(&copy));
        }
    }
}

/// The hashes of the archives that have a kept copy. Not every installer notes a hash, but the
/// stored recipe has it.
pub(super) fn known_hashes(context: &Context, entry: &RegistryEntry) -> BTreeMap<PathBuf, String> {
    let mut stored = context.store.recipe(&entry.id).ok().flatten();
    let archives = stored.iter_mut().flat_map(Recipe::local_archives);
    archives.filter_map(|(_, one)| Some((one.path.clone(), one.sha256()?))).collect()
}

/// The lock that a person named for the venv, or the one of its project.
fn lock(
    context: &Context,
    entry: &RegistryEntry,
    venv: &Venv,
) -> Result<Option<ProjectLock>, LockError> {
    match entry.lock() {
        Some(path) => ProjectLock::read(context.root, path).map(Some),
        None => ProjectLock::beside(context.root, venv),
    }
}

/// Whether a venv is still empty and was created after its recipe was written: it replaces an
/// earlier one, and the recipe says what to install.
pub(super) fn is_new_and_empty(
    context: &Context,
    entry: &RegistryEntry,
    venv: &Venv,
    recipe: &Recipe,
) -> bool {
    let made = std::fs::metadata(context.root.at(&venv.path)).and_then(|dir| dir.created());
    let written = context.store.recipe_written(&entry.id);
    recipe.is_bare() && made.is_ok_and(|made| written.is_some_and(|written| made > written))
}

#[cfg(test)]
mod tests;
