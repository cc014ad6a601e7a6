//! Making a venv again for another interpreter, aside, and exchanging the two trees.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::engine::{self, Engine};
use super::stage::{self, Stage, beside, name_of};
use super::{Context, carry, smoke};
use crate::host::command::{CommandError, Finished};
use crate::host::confine::{self, Overlay};
use crate::host::tree::{self, Identity, Parent};
use crate::host::user::{self, User};
use crate::host::{Program, file};
use crate::plan::Readiness;
use crate::python::{self, Interpreters, Minor};
use crate::service::Service;
use crate::store::{Entry, JournalEntry, Kept, Operation, Progress as Step, StoreError};
use crate::venv::{self, Flavour, Link, Recipe, Unreproducible, Venv};

/// What a rebuild has to end with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) minor: Minor,
    /// Linked to `/usr/bin/python3`, and not to the interpreter of the minor version.
    pub(crate) follows: bool,
    pub(crate) copies: bool,
}

impl Target {
    /// For the default interpreter, hanging on it as the venv did before.
    pub(crate) fn of_default(venv: &Venv, follows: bool, now: &Interpreters) -> Option<Self> {
        Some(Self::new(venv, follows, now.default?))
    }

    /// For the interpreter that a person wants, else for the venv's own: the default one for
    /// a venv that follows it or has lost its own.
    pub(crate) fn asked_for(
        venv: &Venv,
        follows: bool,
        now: &Interpreters,
        wanted: Option<Minor>,
    ) -> Option<Self> {
        match wanted {
            Some(minor) => Some(Self::new(venv, follows && now.default == Some(minor), minor)),
            None if follows || now.get(venv.site).is_none() => Self::of_default(venv, follows, now),
            None => Some(Self::new(venv, false, venv.site)),
        }
    }

    fn new(venv: &Venv, follows: bool, minor: Minor) -> Self {
        let copies = venv.base.link == Link::Copied;
        Self { minor, follows: follows && !copies, copies }
    }

    /// The interpreter that makes it.
    pub(crate) fn interpreter(self) -> PathBuf {
        if self.follows { python::DEFAULT.into() } else { python::path_of(self.minor) }
    }
}

/// Why there is no new tree. The venv is as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RebuildError {
    #[error("its packages cannot be installed again: {}", .0.join("; "))]
    Unreproducible(Vec<String>),
    #[error("{0}")]
    NoEngine(String),
    #[error("{0}: venvguard will not work there as root")]
    Untrusted(String),
    #[error("the venv is a mount point of its own, and a tree beside it is on another file system")]
    OtherFileSystem,
    #[error("cannot make the environment: {0}")]
    Create(CommandError),
    #[error("{engine} cannot install the packages: {source}", source = .error)]
    Install { engine: &'static str, error: CommandError },
    #[error("the new environment does not work: {0}")]
    Dead(String),
    #[error("in the new environment, and not in the old one, these fail:\n    {}", .0.join("\n    "))]
    Worse(Vec<String>),
    #[error("the venv was changed while its successor was built")]
    Changed,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A venv whose successor stands in its place, the services not yet restarted.
#[derive(Debug)]
pub(crate) struct Rebuilt {
    pub(crate) kept: Kept,
    /// The old tree, should it have to come back.
    pub(crate) old: Identity,
    /// What a person should know.
    pub(crate) notes: Vec<String>,
}

/// Whether a rebuild for `minor` can be expected to work.
pub(crate) fn readiness(
    context: &Context,
    entry: &Entry,
    venv: &Venv,
    minor: Option<Minor>,
) -> Readiness {
    let Some(minor) = minor else {
        return Readiness::NotReady(vec![format!("{} is not installed", python::DEFAULT)]);
    };
    let mut reasons = Vec::new();
    reasons.extend(Content::of(context, entry, venv).err().unwrap_or_default());
    let choice = context.config.engine;
    if engine::engines(context.root, choice, &python::path_of(minor)).is_empty() {
        reasons.push(engine::no_engine(minor, choice));
    }
    if let Some(reason) = stage::untrusted_ancestor(&context.root.at(entry.path()), venv) {
        reasons.push(reason);
    }
    if reasons.is_empty() { Readiness::Ready } else { Readiness::NotReady(reasons) }
}

/// Writes down what it takes to make a venv again, for a day on which it cannot tell. What
/// cannot be told today stays as it was told before.
pub(crate) fn keep_recipe(context: &Context, id: &str, venv: &Venv) -> Result<(), StoreError> {
    let site = context.root.at(venv.site_packages());
    let recipe = venv::distributions(&site).ok().and_then(|all| Recipe::of(venv, &all).ok());
    recipe.map_or(Ok(()), |recipe| context.store.save_recipe(id, &recipe))
}

/// Builds the successor, tries it, and lets the two trees change places.
pub(crate) fn rebuild(
    context: &Context,
    entry: &Entry,
    venv: &Venv,
    target: Target,
    services: &[Service],
) -> Result<Rebuilt, RebuildError> {
    if let Some(reason) = stage::untrusted_ancestor(&venv.path, venv) {
        return Err(RebuildError::Untrusted(reason));
    }
    let told = Content::of(context, entry, venv).map_err(RebuildError::Unreproducible)?;
    let parent = Parent::of(&venv.path)?;
    let old = parent.identity(name_of(&venv.path)).ok_or(RebuildError::Changed)?;
    let path = Stage::path_for(&venv.path);
    let mut journal = JournalEntry::new(
        &entry.id,
        &entry.name,
        &venv.path,
        Operation::Rebuild,
        Step::Staging { stage: path.as_path().into() },
        services.to_vec(),
    );
    context.store.write_journal(&journal)?;
    let stage = Stage::make(&parent, &path, venv)?;
    let owner = owner(context, venv);
    let work = Work { context, entry, venv, target, owner: &owner, content: told };
    let result = match stage::can_lay_over(context.root, &owner, &stage, &venv.path) {
        Ok(()) => work.beside(&parent, &stage, old, &mut journal),
        Err(reason) => {
            context.report.note(&format!(
                "{}: this kernel or container forbids mount namespaces ({reason}); building in place",
                entry.name
            ));
            tree::remove(&path)?;
            work.in_place(&parent, old, &mut journal)
        }
    };
    if result.is_err() {
        tree::remove(&path)?;
        context.store.close_journal(&entry.id)?;
    }
    result
}

/// Whoever owns the venv, with or without an account.
pub(crate) fn owner(context: &Context, venv: &Venv) -> User {
    user::by_uid(context.root, venv.uid).unwrap_or_else(|| User {
        name: venv.uid.to_string(),
        uid: venv.uid,
        gid: venv.gid,
        home: "/nonexistent".into(),
    })
}

/// What is in a tree, told while it still is in its place.
#[derive(Debug)]
struct Content<'a> {
    wanted: Wanted<'a>,
    /// What has to be importable again.
    modules: Vec<String>,
}

/// What is to be installed.
#[derive(Debug)]
enum Wanted<'a> {
    /// Exactly what was.
    Same(Recipe),
    /// What a person wrote down; and pip, where the old tree had one.
    Listed { file: &'a Path, pip: bool },
}

impl<'a> Content<'a> {
    /// All reasons why it cannot be told, where it cannot.
    fn of(context: &Context, entry: &'a Entry, venv: &Venv) -> Result<Self, Vec<String>> {
        let site = context.root.at(venv.site_packages());
        let distributions = venv::distributions(&site)
            .map_err(|error| vec![format!("{}: {error}", file::printable(&site))])?;
        let mut modules: Vec<String> =
            distributions.iter().flat_map(|one| one.top_level_modules(&site)).collect();
        modules.sort();
        modules.dedup();
        if let Some(file) = entry.requirements() {
            let pip = distributions.iter().any(|one| one.normalised_name() == "pip");
            return Ok(Self { wanted: Wanted::Listed { file, pip }, modules });
        }
        let words =
            |reasons: Vec<Unreproducible>| reasons.iter().map(ToString::to_string).collect();
        let recipe = match Recipe::of(venv, &distributions) {
            // A venv that lost its packages is made again as it was registered.
            Ok(empty) if distributions.is_empty() => {
                context.store.recipe(&entry.id).ok().flatten().unwrap_or(empty)
            }
            Ok(recipe) => recipe,
            Err(reasons) => return Err(words(reasons)),
        };
        let gone = recipe.gone(context.root);
        if gone.is_empty() {
            Ok(Self { wanted: Wanted::Same(recipe), modules })
        } else {
            Err(words(gone))
        }
    }

    fn has_pip(&self) -> bool {
        match &self.wanted {
            Wanted::Same(recipe) => recipe.seed_pip,
            Wanted::Listed { pip, .. } => *pip,
        }
    }

    /// Sources that lie in the venv itself, by their paths in it: they have to be there
    /// before anything is installed.
    fn sources_inside(&self, venv: &Path) -> Vec<PathBuf> {
        let Wanted::Same(recipe) = &self.wanted else { return Vec::new() };
        let inside = recipe.sources_inside(venv);
        inside.iter().filter_map(|path| Some(path.strip_prefix(venv).ok()?.to_path_buf())).collect()
    }
}

/// One rebuild.
struct Work<'a> {
    context: &'a Context<'a>,
    entry: &'a Entry,
    venv: &'a Venv,
    target: Target,
    owner: &'a User,
    content: Content<'a>,
}

impl Work<'_> {
    /// The usual way: the venv is whole at every instant.
    fn beside(
        &self,
        parent: &Parent,
        stage: &Stage,
        old: Identity,
        journal: &mut JournalEntry,
    ) -> Result<Rebuilt, RebuildError> {
        let path = &self.venv.path;
        let overlay = || Some(stage.overlay(path));
        // The old tree is asked while the new one is built: both cost seconds.
        let (built, before) = std::thread::scope(|scope| {
            let before = scope.spawn(|| self.smoke(None));
            (self.build(self.venv, &stage.path, &overlay), before.join())
        });
        let notes = built?;
        let before = before.unwrap_or_else(|_| Err("its check was aborted".into()));
        self.compare(before, overlay())?;
        // Nothing of the new tree may be in memory only when it takes the place.
        parent.sync_all()?;
        journal.progress =
            Step::Exchanging { stage: stage.path.as_path().into(), old, new: stage.identity };
        self.context.store.write_journal(journal)?;
        if parent.identity(name_of(path)) != Some(old) {
            return Err(RebuildError::Changed);
        }
        parent.exchange(name_of(&stage.path), name_of(path)).map_err(|error| {
            match error.kind() {
                io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices => {
                    RebuildError::OtherFileSystem
                }
                _ => error.into(),
            }
        })?;
        let kept = beside(path, "old");
        parent.rename(name_of(&stage.path), name_of(&kept))?;
        self.finished(&kept, old, notes, journal)
    }

    /// Where no mount namespace can be had: the venv is away while it is built.
    fn in_place(
        &self,
        parent: &Parent,
        old: Identity,
        journal: &mut JournalEntry,
    ) -> Result<Rebuilt, RebuildError> {
        let path = &self.venv.path;
        let before = self.smoke(None);
        let aside = beside(path, "old");
        journal.progress = Step::InPlace { aside: aside.as_path().into(), old };
        self.context.store.write_journal(journal)?;
        parent.rename(name_of(path), name_of(&aside))?;
        let built = (|| {
            Stage::make(parent, path, self.venv)?;
            let moved = Venv { path: aside.clone(), ..self.venv.clone() };
            let notes = self.build(&moved, path, &|| None)?;
            self.compare(before, None)?;
            parent.sync_all()?;
            Ok(notes)
        })();
        match built {
            Ok(notes) => self.finished(&aside, old, notes, journal),
            Err(error) => {
                stage::put_back(path, &aside, old)?;
                Err(error)
            }
        }
    }

    fn finished(
        &self,
        kept: &Path,
        old: Identity,
        notes: Vec<String>,
        journal: &mut JournalEntry,
    ) -> Result<Rebuilt, RebuildError> {
        journal.progress = Step::Restarting { kept: Some(kept.into()) };
        self.context.store.write_journal(journal)?;
        Ok(Rebuilt { kept: Kept::new(kept), old, notes })
    }

    /// What fails in the tree that is seen at the venv's path.
    fn smoke(&self, overlay: Option<Overlay>) -> Result<smoke::Failures, String> {
        let modules = &self.content.modules;
        smoke::smoke(self.context.root, self.owner, &self.venv.path, modules, overlay)
    }

    /// The new tree has to do what the old one did. An old tree that does not even start
    /// sets no standard but that the new one starts.
    fn compare(
        &self,
        before: Result<smoke::Failures, String>,
        overlay: Option<Overlay>,
    ) -> Result<(), RebuildError> {
        let after = self.smoke(overlay).map_err(RebuildError::Dead)?;
        let worse = before.map(|before| after.new_since(&before)).unwrap_or_default();
        if worse.is_empty() { Ok(()) } else { Err(RebuildError::Worse(worse)) }
    }

    /// Makes the environment, installs its content and carries over what no installer put
    /// into `old`. The new tree lies at `to`; through `overlay`, at the venv's own path.
    fn build(
        &self,
        old: &Venv,
        to: &Path,
        overlay: &dyn Fn() -> Option<Overlay>,
    ) -> Result<Vec<String>, RebuildError> {
        let choice = self.context.config.engine;
        let engines = engine::engines(self.context.root, choice, &self.target.interpreter());
        let Some(first) = engines.first() else {
            return Err(RebuildError::NoEngine(engine::no_engine(self.target.minor, choice)));
        };
        let limit = Duration::from_secs(self.context.config.rebuild_timeout);
        let folder = self.entry.requirements().and_then(Path::parent).unwrap_or(Path::new("/"));
        let run = |program: Program| {
            let program = program.limit(limit);
            confine::confined(self.context.root, program, self.owner, overlay(), folder).run()
        };
        run(self.creation(first)).map_err(RebuildError::Create)?;
        let sources = self.content.sources_inside(&self.venv.path);
        let is_source = |path: &Path| sources.iter().any(|source| path.starts_with(source));
        let mut notes = self.carry(old, to, is_source)?;
        let mut last = Ok(());
        for engine in &engines {
            let mut own = Vec::new();
            last = self.install(engine, &run, &mut own);
            match &last {
                Ok(()) => {
                    notes.extend(own);
                    break;
                }
                Err(error) => notes.push(error.to_string()),
            }
        }
        last?;
        notes.extend(self.carry(old, to, |path| !is_source(path))?);
        Ok(notes)
    }

    fn carry(
        &self,
        old: &Venv,
        to: &Path,
        wanted: impl Fn(&Path) -> bool,
    ) -> Result<Vec<String>, RebuildError> {
        let minor = self.target.minor;
        let left = carry::carry_over(self.context.root, self.owner, old, to, minor, wanted)?;
        let words = |line| format!("not carried over, kept in the old tree: {line}");
        Ok(left.into_iter().map(words).collect())
    }

    /// The same maker as before, where it is there; else the standard library's.
    fn creation(&self, engine: &Engine) -> Program {
        let (venv, target) = (self.venv, self.target);
        let interpreter = target.interpreter();
        let mut program = match engine {
            Engine::Uv(uv) if venv.flavour == Flavour::Uv && !target.copies => Program::new(uv)
                .env("UV_PYTHON_DOWNLOADS", "never")
                .args(["venv", "--quiet", "--allow-existing", "--no-project", "--python"])
                .arg(interpreter),
            _ => {
                let program = Program::new(interpreter).args(["-I", "-m", "venv", "--without-pip"]);
                program.arg(if target.copies { "--copies" } else { "--symlinks" })
            }
        };
        if venv.system_site_packages {
            program = program.arg("--system-site-packages");
        }
        if let Some(prompt) = &venv.prompt {
            program = program.arg("--prompt").arg(prompt);
        }
        program.arg(&venv.path)
    }

    fn install(
        &self,
        engine: &Engine,
        run: &dyn Fn(Program) -> Result<Finished, CommandError>,
        notes: &mut Vec<String>,
    ) -> Result<(), RebuildError> {
        let python = self.venv.path.join("bin/python");
        let compile = self.venv.flavour != Flavour::Uv;
        let failed = |error| RebuildError::Install { engine: engine.name(), error };
        let install = || engine.install(&python, compile);
        // pip and its companions are the new interpreter's: the old ones may not run on it.
        let wheels = engine::seed_wheels(self.context.root);
        let seed = |program: Program| match &wheels {
            Some(wheels) => program.arg("--find-links").arg(wheels),
            None => program,
        };
        if self.content.has_pip() {
            let offline: &[&str] = if wheels.is_some() { &["--no-index"] } else { &[] };
            run(seed(install()).args(offline).arg("pip")).map_err(failed)?;
        }
        let recipe = match &self.content.wanted {
            Wanted::Listed { file, .. } => {
                return run(install().arg("-r").arg(file)).map(drop).map_err(failed);
            }
            Wanted::Same(recipe) => recipe,
        };
        for name in recipe.seeds() {
            if let Err(error) = run(seed(install()).arg(&name)) {
                notes.push(format!("{name} is not there any more: {error}"));
            }
        }
        let exact = recipe.exact();
        if exact.is_empty() {
            return Ok(());
        }
        // What was installed is exact as it stands: nothing has to be resolved.
        run(install().arg("--no-deps").args(engine.list_from_input()).input(exact))
            .map_err(failed)?;
        // Another minor version may ask for more. That the old set has conflicts of its own
        // is no reason to have no venv.
        if let Err(error) = run(install().args(recipe.names())) {
            notes.push(format!("the packages' own requirements are not all met: {error}"));
        }
        Ok(())
    }
}

/// The tree of before a rebuild, and whether it still is one.
pub(crate) fn kept_tree(entry: &Entry) -> Option<(&Kept, Identity)> {
    let kept = entry.kept.as_ref()?;
    Some((kept, tree::identity(kept.path())?))
}

/// Removes an old tree for good.
pub(crate) fn forget(kept: &Kept) -> io::Result<()> {
    tree::remove(kept.path()).map_err(|error| {
        io::Error::new(error.kind(), format!("{}: {error}", file::printable(kept.path())))
    })
}
