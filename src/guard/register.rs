//! Registers and unregisters venvs.

use std::io;
use std::path::{Path, PathBuf};

use super::choose::chosen;
use super::{AskError, Guard};
use crate::host::command;
use crate::host::file::printable;
use crate::inventory::{has_window, refusal, window_of};
use crate::plan::{Policy, Relax, RestartMode, Window};
use crate::repair;
use crate::service::{self, AddressError, Probe, Processes, Service, ServiceMap};
use crate::store::{NameError, Pause, PreparedTree, Registry, RegistryEntry, Store, StoreError};
use crate::venv::{self, LockError, NotAVenv, ProjectLock, RequirementsError, Venv};

/// The venvs that somebody wants to register, and their settings.
#[derive(Debug)]
pub(crate) struct Registration<'a> {
    pub(crate) paths: &'a [PathBuf],
    pub(crate) name: Option<&'a str>,
    /// None of them: those that are discovered.
    pub(crate) services: Option<&'a [Service]>,
    /// A command, as a shell would split it. An empty one clears the setting, as do an empty path and
    /// an inner `None` below.
    pub(crate) check: Option<&'a str>,
    pub(crate) policy: Option<Policy>,
    pub(crate) restart: Option<Setting<RestartMode>>,
    pub(crate) window: Option<Setting<&'a Window>>,
    pub(crate) rolling: Option<Setting<&'a Pause>>,
    pub(crate) probe: Option<Setting<bool>>,
    pub(crate) requirements: Option<&'a Path>,
    pub(crate) lock: Option<&'a Path>,
    /// A command, as a shell would split it; an empty one clears the setting.
    pub(crate) build_command: Option<&'a str>,
    pub(crate) relax: Option<Setting<Relax>>,
}

/// A venv that was registered.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) entry: RegistryEntry,
    pub(crate) venv: Venv,
    /// Why a rebuild may not install some distributions exactly as they are, reported while
    /// somebody can still do something about it.
    pub(crate) not_exact: Vec<String>,
    /// Why its check fails now, if it has a new one.
    pub(crate) check_fails: Option<String>,
}

/// Why nothing was registered, or why a venv stays registered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegisterError {
    #[error("--name is for one venv, but {0} are given; nothing was registered")]
    OneName(usize),
    #[error("cannot read {}", printable(.path))]
    File { path: PathBuf, source: io::Error },
    #[error("nothing was registered")]
    Lock(#[from] LockError),
    #[error("nothing was registered")]
    Requirements(#[from] RequirementsError),
    #[error("{service} is unknown to its manager{found}; nothing was registered")]
    NoSuchService { service: Service, found: String },
    #[error(transparent)]
    Command(#[from] CommandLineError),
    #[error("cannot register {}; nothing was registered", printable(.path))]
    Venv { path: PathBuf, source: VenvError },
    #[error("cannot register {}: {why}; nothing was registered", printable(.path))]
    Refused { path: PathBuf, why: String },
    #[error(
        "the restart mode \"window\" needs a window: --window 'Sat 03:00..05:00', or `window` in the configuration; nothing was registered"
    )]
    NoWindow,
    #[error("cannot unregister {name}, which {} declares (remove that declaration); nothing was unregistered", printable(.file))]
    Declared { name: String, file: PathBuf },
    #[error("cannot finish the interrupted repair of {0}, so it stays registered")]
    Unfinished(String),
}

/// Why a path cannot be registered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VenvError {
    #[error("there is no such directory")]
    Missing,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    NotAVenv(#[from] NotAVenv),
    #[error(transparent)]
    Name(#[from] NameError),
}

/// Why a text cannot be a command, or an address in its place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandLineError {
    #[error("{what} {command:?} has an unclosed quote")]
    Quote { what: &'static str, command: String },
    #[error(
        "{what} runs without a shell, in which {word:?} has no meaning (put it into a script, or use `sh -c '…'`)"
    )]
    Shell { what: &'static str, word: String },
    #[error("{what}'s program {program:?} is not found")]
    NotFound { what: &'static str, program: String },
    #[error(transparent)]
    Address(#[from] AddressError),
}

/// The settings that need validation, checked before anything is registered.
struct Known {
    check: Option<Vec<String>>,
    requirements: Option<Setting<PathBuf>>,
    lock: Option<Setting<PathBuf>>,
    build_command: Option<Vec<String>>,
}

/// A setting that somebody sets, or clears.
pub(crate) type Setting<T> = Option<T>;

impl Guard {
    /// Registers venvs, all of them or none. They stay registered even if a recipe cannot be kept.
    pub(crate) fn register(
        &self,
        wanted: &Registration,
    ) -> Result<Vec<Result<Registered, StoreError>>, AskError> {
        self.require_root()?;
        self.require_allowed()?;
        if wanted.name.is_some() && wanted.paths.len() > 1 {
            return Err(RegisterError::OneName(wanted.paths.len()).into());
        }
        let known = self.known(wanted)?;
        let _lock = self.lock()?;
        let mut registry = self.registry()?;
        let mut added = Vec::new();
        for path in wanted.paths {
            // A mistake in the last path registers none of the others.
            added.push(self.add(&mut registry, path, wanted, &known)?);
        }
        self.save_registered(&registry)?;
        let is_added = |entry: &&RegistryEntry| added.iter().any(|(id, _)| *id == entry.id);
        let mut entries = registry.venvs.iter().filter(is_added);
        if entries.any(|entry| has_window(&self.config, entry)) {
            // Its services may run old code already.
            self.store.wait_for_windows()?;
        }
        if self.root.user().is_some_and(|uid| !self.is_eligible(uid)) {
            self.report.note(
                "apt's hook serves accounts of people, and yours is an account for programs: the hook repairs this venv only if the administrator names you in `users.allow`",
            );
        }
        self.note_guarded_by_root(added.iter().map(|(_, venv)| venv.path.as_path()));
        let entries = added.into_iter().filter_map(|(id, venv)| Some((registry.get(&id)?, venv)));
        let is_new = known.check.is_some();
        Ok(entries.map(|(entry, venv)| self.registered(entry, venv, is_new)).collect())
    }

    /// A venv that root guards as well is repaired twice.
    fn note_guarded_by_root<'p>(&self, paths: impl Iterator<Item = &'p Path>) {
        if self.root.user().is_none() {
            return;
        }
        let Ok(of_root) = Store::new(&self.root.of_root()).registry() else { return };
        for path in paths.filter(|path| of_root.venvs.iter().any(|one| one.path() == *path)) {
            let path = printable(path);
            self.report.note(&format!("root guards {path} as well; unregister one of the two"));
        }
    }

    /// A venv that a package contains is guarded, but not rebuilt.
    pub(super) fn note_package(&self, name: &str, venv: &Venv) {
        if let Some(reason) = repair::packaged(&self.root, venv) {
            self.report.note(&format!("{name}: {reason}; venvguard never rebuilds it"));
        }
    }

    fn known(&self, wanted: &Registration) -> Result<Known, RegisterError> {
        let check = wanted.check.map(check).transpose()?;
        let requirements = wanted.requirements.map(setting).transpose()?;
        let lock = wanted.lock.map(setting).transpose()?;
        if let Some(Some(path)) = &lock {
            ProjectLock::read(&self.root, path)?;
        }
        if let Some(Some(path)) = &requirements {
            venv::require_requirements(path)?;
        }
        let build_command = wanted.build_command.map(build_command).transpose()?;
        Ok(Known { check, requirements, lock, build_command })
    }

    /// Adds one venv to the registry, without saving it.
    fn add(
        &self,
        registry: &mut Registry,
        path: &Path,
        wanted: &Registration,
        known: &Known,
    ) -> Result<(String, Venv), RegisterError> {
        let (entry, venv) = self
            .add_as(registry, path, wanted.name)
            .map_err(|source| RegisterError::Venv { path: path.to_path_buf(), source })?;
        entry.register_by_hand();
        if let Some(policy) = wanted.policy {
            entry.policy = policy;
        }
        if let Some(restart) = wanted.restart {
            entry.restart = restart;
        }
        if let Some(window) = wanted.window {
            entry.window = window.cloned();
        }
        if let Some(rolling) = wanted.rolling {
            entry.rolling = rolling.cloned();
        }
        if let Some(probe) = wanted.probe {
            entry.probe = probe;
        }
        if has_window(&self.config, entry) && window_of(&self.config, entry).is_none() {
            return Err(RegisterError::NoWindow);
        }
        if let Some(services) = wanted.services {
            self.require_known(services, &venv.path)?;
            entry.services = services.to_vec();
        }
        if let Some(check) = &known.check {
            entry.check.clone_from(check);
            entry.check_failure = None;
        }
        match &known.requirements {
            Some(Some(path)) => entry.set_requirements(path),
            Some(None) => entry.clear_requirements(),
            None => {}
        }
        match &known.lock {
            Some(Some(path)) => entry.set_lock(path),
            Some(None) => entry.clear_lock(),
            None => {}
        }
        match known.build_command.as_deref() {
            Some([]) => entry.clear_build_command(),
            Some(command) => entry.set_build_command(command),
            None => {}
        }
        if let Some(relax) = wanted.relax {
            entry.relax = relax;
        }
        match refusal(&self.context(), entry, &venv) {
            Some(why) => Err(RegisterError::Refused { path: path.to_path_buf(), why }),
            None => Ok((entry.id.clone(), venv)),
        }
    }

    /// Refuses a service that is unknown to its manager: it would never be restarted. If the
    /// manager does not answer, notes that.
    fn require_known(&self, services: &[Service], venv: &Path) -> Result<(), RegisterError> {
        for service in services {
            match service::condition(&self.root, service) {
                Ok(condition) if condition.is_unknown() => {
                    let processes = Processes::look(&self.root);
                    let map = ServiceMap::build(&self.root, [venv], &processes);
                    let found: Vec<String> =
                        map.of(venv).services.iter().map(ToString::to_string).collect();
                    let found = match found.as_slice() {
                        [] => String::new(),
                        found => format!(" (running out of the venv: {})", found.join(", ")),
                    };
                    return Err(RegisterError::NoSuchService { service: service.clone(), found });
                }
                Ok(_) => {}
                Err(error) => {
                    self.report.note(&format!("cannot tell whether {service} exists: {error}"));
                }
            }
        }
        Ok(())
    }

    fn add_as<'r>(
        &self,
        registry: &'r mut Registry,
        path: &Path,
        name: Option<&str>,
    ) -> Result<(&'r mut RegistryEntry, Venv), VenvError> {
        let real = self.root.at(self.path_from_here(path)?);
        let real = real.canonicalize().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => VenvError::Missing,
            _ => error.into(),
        })?;
        let path = self.root.logical(&real);
        let venv = venv::inspect(&self.root, &path)?;
        Ok((registry.add(&path, name, self.config.policy)?, venv))
    }

    /// Makes a relative path absolute, from the caller's working directory.
    pub(super) fn path_from_here(&self, path: &Path) -> io::Result<PathBuf> {
        if self.root.is_system() { std::path::absolute(path) } else { Ok(path.to_path_buf()) }
    }

    /// Saves the registry, and with the first venv the snapshot of the interpreters.
    pub(super) fn save_registered(&self, registry: &Registry) -> Result<(), AskError> {
        self.store.save_registry(registry)?;
        if self.store.interpreters()?.is_none() {
            self.store.save_interpreters(&self.interpreters()?)?;
        }
        Ok(())
    }

    fn registered(
        &self,
        entry: &RegistryEntry,
        venv: Venv,
        has_new_check: bool,
    ) -> Result<Registered, StoreError> {
        repair::keep_recipe(&self.context(), entry, &venv)?;
        self.note_package(&entry.name, &venv);
        let not_exact = repair::not_exact(&self.context(), entry, &venv);
        let check = has_new_check.then(|| repair::check_once(&self.context(), entry, &venv));
        let check_fails = check.and_then(Result::err);
        Ok(Registered { entry: entry.clone(), venv, not_exact, check_fails })
    }

    /// Unregisters venvs, and returns their entries.
    pub(crate) fn unregister(&self, wanted: &[String]) -> Result<Vec<RegistryEntry>, AskError> {
        self.require_root()?;
        let _lock = self.lock()?;
        let mut registry = self.registry()?;
        let chosen = chosen(&registry, wanted)?;
        if let Some((entry, file)) = chosen.iter().find_map(|one| Some((one, one.declared_in()?))) {
            let (name, file) = (entry.name.clone(), file.to_path_buf());
            return Err(RegisterError::Declared { name, file }.into());
        }
        let ids: Vec<String> = chosen.iter().map(|entry| entry.id.clone()).collect();
        self.end_repairs(&mut registry, &ids)?;
        let (gone, left): (Vec<RegistryEntry>, _) =
            registry.venvs.into_iter().partition(|entry| ids.contains(&entry.id));
        registry.venvs = left;
        for entry in &gone {
            match self.store.prepared(&entry.id) {
                Ok(tree) => registry.pending_removals.extend(tree.map(PreparedTree::into_removal)),
                Err(error) => self.report.error(&error.to_string()),
            }
        }
        self.store.save_registry(&registry)?;
        for entry in &gone {
            self.store.forget_prepared(&entry.id)?;
            self.store.forget_rehearsals(&entry.id)?;
        }
        repair::sweep(&self.context(), &mut registry);
        Ok(gone)
    }

    /// Finishes interrupted repairs of venvs before they are unregistered: no later run would.
    fn end_repairs(&self, registry: &mut Registry, ids: &[String]) -> Result<(), AskError> {
        if ids.iter().any(|id| self.store.has_journal(id)) {
            self.recover(registry, &self.interpreters()?);
        }
        for journal in self.store.open_journal().into_iter().flatten() {
            // A journal entry that cannot be finished is only worth keeping if it says where the
            // venv is.
            if ids.iter().any(|id| id == journal.id()) && !journal.state.has_taken_the_venv_away() {
                self.store.close_journal(journal.id())?;
            }
        }
        if let Some(id) = ids.iter().find(|id| self.store.has_journal(id)) {
            let name = registry.get(id).map_or(id, |entry| &entry.name);
            return Err(RegisterError::Unfinished(name.clone()).into());
        }
        Ok(())
    }
}

fn setting(path: &Path) -> Result<Setting<PathBuf>, RegisterError> {
    if path.as_os_str().is_empty() { Ok(None) } else { file(path).map(Some) }
}

/// The real path of a file that a person names.
fn file(path: &Path) -> Result<PathBuf, RegisterError> {
    path.canonicalize().map_err(|source| RegisterError::File { path: path.to_path_buf(), source })
}

/// The words of the check; none if there is no check.
fn check(text: &str) -> Result<Vec<String>, CommandLineError> {
    let words = words("the check", text)?;
    if words.first().is_some_and(|word| Probe::is_meant(word)) {
        // An address is the whole check.
        text.trim().parse::<Probe>()?;
        return Ok(words);
    }
    with_program("the check", words)
}

/// The words of the build command; none if there is no build command.
fn build_command(text: &str) -> Result<Vec<String>, CommandLineError> {
    with_program("the build command", words("the build command", text)?)
}

/// The words of a command. It runs without a shell: one that needs a shell is refused here, and
/// does not wait for the next upgrade to fail.
fn words(what: &'static str, text: &str) -> Result<Vec<String>, CommandLineError> {
    let words = shlex::split(text)
        .ok_or_else(|| CommandLineError::Quote { what, command: text.to_string() })?;
    let is_shell = |word: &&String| matches!(word.as_str(), "|" | "||" | "&&" | ";" | ">" | "<");
    match words.iter().find(is_shell) {
        Some(word) => Err(CommandLineError::Shell { what, word: word.clone() }),
        None => Ok(words),
    }
}

/// The same command with the path of its program.
fn with_program(
    what: &'static str,
    mut words: Vec<String>,
) -> Result<Vec<String>, CommandLineError> {
    if let Some(program) = words.first_mut() {
        let found = command::find(program)
            .ok_or_else(|| CommandLineError::NotFound { what, program: program.clone() })?;
        *program = found.to_string_lossy().into_owned();
    }
    Ok(words)
}
