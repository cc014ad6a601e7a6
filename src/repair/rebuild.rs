//! Making a venv again for another interpreter, aside, and exchanging the two trees.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::carry::{Carrier, Seen};
use super::content::{Content, Installed};
use super::engine;
use super::install::{InstallError, Installer};
use super::job::Job;
use super::stage::{self, Stage, name_of};
use super::target::{Target, owner};
use super::{Context, smoke, sources};
use crate::host::Program;
use crate::host::clock::Deadline;
use crate::host::command::{CommandError, Finished};
use crate::host::confine::{self, Overlay};
use crate::host::tree::Parent;
use crate::host::user::User;
use crate::store::{Kept, Leftover, Progress as Step, StoreError, Swap};
use crate::venv::{self, Flavour, Venv};

/// Why there is no new tree.
#[derive(Debug, thiserror::Error)]
pub(super) enum RebuildError {
    #[error("its packages cannot be installed again: {}", .0.join("; "))]
    Unreproducible(Vec<String>),
    #[error("{0}")]
    NoEngine(String),
    #[error("it cannot be rebuilt where it is: {}", .0.join("; "))]
    NotThere(Vec<String>),
    #[error("cannot make the environment: {0}")]
    Create(CommandError),
    #[error(transparent)]
    Install(#[from] InstallError),
    #[error("the new environment does not work: {0}")]
    Dead(String),
    #[error("in the new environment, and not in the old one, these fail:\n    {}", .0.join("\n    "))]
    Worse(Vec<String>),
    #[error("the venv was changed while its successor was built (`venvguard rebuild` tries again)")]
    Changed,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A venv whose successor stands in its place, the services not yet restarted.
#[derive(Debug)]
pub(super) struct Rebuilt {
    pub(super) swap: Swap,
    /// How the foreign files of the old tree were when they were copied last.
    pub(super) seen: Seen,
    /// What a person should know.
    pub(super) notes: Vec<String>,
}

/// Why there is no new tree, and what is left to do about it. The old one stands, unless it
/// is `unfinished`.
#[derive(Debug)]
pub(super) struct NotRebuilt {
    pub(super) because: String,
    /// The old tree could not be put back; the journal has it.
    pub(super) unfinished: bool,
    /// What was built, which nobody needs.
    pub(super) leftover: Option<Leftover>,
    /// The new tree stood in the venv's place for a while.
    pub(super) stood: bool,
}

impl From<RebuildError> for NotRebuilt {
    fn from(error: RebuildError) -> Self {
        Self { because: error.to_string(), unfinished: false, leftover: None, stood: false }
    }
}

impl From<io::Error> for NotRebuilt {
    fn from(error: io::Error) -> Self {
        RebuildError::from(error).into()
    }
}

impl From<StoreError> for NotRebuilt {
    fn from(error: StoreError) -> Self {
        RebuildError::from(error).into()
    }
}

/// Builds the successor, tries it, and lets the two trees change places.
pub(super) fn rebuild(context: &Context, job: &Job, target: Target) -> Result<Rebuilt, NotRebuilt> {
    let Job { entry, venv, .. } = job;
    let obstacles = stage::obstacles(context.root, venv);
    if !obstacles.is_empty() {
        return Err(RebuildError::NotThere(obstacles).into());
    }
    let installed = Installed::of(context.root, venv);
    let told = Content::of(context, entry, venv).map_err(RebuildError::Unreproducible)?;
    let parent = Parent::of(&venv.path)?;
    let old = parent.identity(name_of(&venv.path)).ok_or(RebuildError::Changed)?;
    let kept = Kept::new(&stage::aside(context.root, venv), old, job.follows);
    let aside = || kept.path().into();
    job.begin(context, Step::Staging { aside: aside(), new: None })?;
    let stage = Stage::make(&parent, kept.path(), venv).map_err(|error| {
        // A folder that was made, and could neither be given away nor removed.
        let unfinished = parent.identity(&stage::from_beside(&venv.path, kept.path())).is_some();
        NotRebuilt { unfinished, ..error.into() }
    })?;
    let new = stage.identity;
    let deadline = Deadline::after(Duration::from_secs(context.config.rebuild_timeout));
    let mut work = Work {
        context,
        job,
        target,
        owner: &owner(context, venv),
        content: told,
        parent: &parent,
        deadline,
        swap: Swap { kept: kept.clone(), new },
        seen: Seen::default(),
        installed,
    };
    let result = job
        .begin(context, Step::Staging { aside: aside(), new: Some(new) })
        .map_err(RebuildError::from)
        .and_then(|()| work.carry_out(&stage));
    match result {
        Ok(notes) => Ok(Rebuilt { swap: work.swap, seen: work.seen, notes }),
        Err(error) => Err(work.undo(&error)),
    }
}

/// The folder that installers start in.
fn starts_in(job: &Job) -> &Path {
    let listed = job.entry.requirements().and_then(Path::parent);
    listed.or_else(|| sources::project(&job.venv)).unwrap_or(Path::new("/"))
}

/// One rebuild.
struct Work<'a> {
    context: &'a Context<'a>,
    job: &'a Job,
    target: Target,
    owner: &'a User,
    content: Content<'a>,
    parent: &'a Parent,
    deadline: Deadline,
    swap: Swap,
    seen: Seen,
    /// What was installed in the old tree when its content was told.
    installed: Installed,
}

impl Work<'_> {
    fn carry_out(&mut self, stage: &Stage) -> Result<Vec<String>, RebuildError> {
        let over = stage.over(&self.venv().path);
        match stage::why_not_laid_over(self.context.root, self.owner, over)? {
            None => self.beside(stage),
            Some(reason) => {
                self.context.report.note(&format!(
                    "{}: this kernel or container forbids mount namespaces ({reason}); building in place",
                    self.job.entry.name
                ));
                self.in_place()
            }
        }
    }

    /// The usual way: the venv is whole at every instant.
    fn beside(&mut self, stage: &Stage) -> Result<Vec<String>, RebuildError> {
        let job = self.job;
        let over = stage.over(&job.venv.path);
        let temporary = stage.temporary(&job.venv)?;
        let mut overlays = vec![over.clone()];
        let shared = stage::shared_folders(&self.needed());
        overlays.extend(shared.iter().map(|place| temporary.over(place)));
        let mut notes = self.build(&job.venv, &stage.path, &overlays)?;
        temporary.empty_and_remove()?;
        notes.extend(self.compare(|| self.smoke(&[]), &[over])?);
        // What runs out of the venv has gone on writing.
        let later = Seen::of(self.context.root, &job.venv)?;
        let changed = std::mem::take(&mut self.seen).changed(&later);
        let carrier = self.carrier(&job.venv, &stage.path);
        let mut left = carrier.again(changed)?;
        left.extend(carrier.folders(&later)?);
        notes.extend(self.left_behind(left));
        self.seen = later;
        if Installed::of(self.context.root, self.venv()) != self.installed {
            return Err(RebuildError::Changed);
        }
        // Nothing of the new tree may be in memory only when it takes the place.
        self.parent.sync_all()?;
        self.job.begin(self.context, Step::Swapping(self.swap.clone()))?;
        self.exchange()?;
        Ok(notes)
    }

    /// Where no mount namespace can be had: the venv is away while it is built.
    fn in_place(&mut self) -> Result<Vec<String>, RebuildError> {
        let before = self.smoke(&[]);
        self.job.begin(self.context, Step::InPlace(self.swap.clone()))?;
        self.exchange()?;
        let moved = Venv { path: self.swap.kept.path().to_path_buf(), ..self.venv().clone() };
        let mut notes = self.build(&moved, &self.job.venv.path, &[])?;
        notes.extend(self.compare(|| before, &[])?);
        let left = self.carrier(&moved, &self.job.venv.path).folders(&self.seen)?;
        notes.extend(self.left_behind(left));
        self.parent.sync_all()?;
        self.job.begin(self.context, Step::Swapping(self.swap.clone()))?;
        Ok(notes)
    }

    fn exchange(&self) -> Result<(), RebuildError> {
        let path = name_of(&self.venv().path);
        if self.parent.identity(path) != Some(self.swap.kept.identity) {
            return Err(RebuildError::Changed);
        }
        let aside = stage::from_beside(&self.venv().path, self.swap.kept.path());
        Ok(self.parent.exchange(&aside, path)?)
    }

    /// However far it has come: the old tree stands.
    fn undo(&self, error: &RebuildError) -> NotRebuilt {
        let (path, swap) = (&self.venv().path, &self.swap);
        let stood = self.parent.identity(name_of(path)) == Some(swap.new);
        if let Err(left) = stage::put_back(path, swap) {
            let because = format!("{error}\nand the old environment could not be put back: {left}");
            return NotRebuilt { because, unfinished: true, leftover: None, stood };
        }
        let leftover = Some(Leftover::new(swap.kept.path(), swap.new));
        NotRebuilt { because: error.to_string(), unfinished: false, leftover, stood }
    }

    fn venv(&self) -> &Venv {
        &self.job.venv
    }

    /// What fails in the tree that is seen at the venv's path.
    fn smoke(&self, overlays: &[Overlay]) -> Result<smoke::Failures, String> {
        let modules = &self.content.modules;
        let limit = Duration::from_secs(self.context.config.rebuild_timeout);
        smoke::smoke(self.context.root, self.owner, &self.venv().path, modules, overlays, limit)
    }

    /// The new tree has to do what the old one did, which is asked where it does less. An
    /// old tree that does not even start sets no standard but that the new one starts: what
    /// fails is told then.
    fn compare(
        &self,
        before: impl FnOnce() -> Result<smoke::Failures, String>,
        overlays: &[Overlay],
    ) -> Result<Vec<String>, RebuildError> {
        let after = self.smoke(overlays).map_err(RebuildError::Dead)?;
        if after.is_empty() {
            return Ok(Vec::new());
        }
        let Ok(before) = before() else {
            let failures = after.new_since(&smoke::Failures::default());
            return Ok(failures
                .into_iter()
                .map(|one| format!("this does not work: {one}"))
                .collect());
        };
        let worse = after.new_since(&before);
        if worse.is_empty() { Ok(Vec::new()) } else { Err(RebuildError::Worse(worse)) }
    }

    /// All on this machine that the builders need, but for programs.
    fn needed(&self) -> Vec<PathBuf> {
        let mut needed = self.content.read_from(&self.venv().path);
        needed.extend([self.owner.home.clone(), starts_in(self.job).to_path_buf()]);
        needed
    }

    /// Makes the environment, installs its content and carries over what no installer put
    /// into `old`. The new tree lies at `to`; through `overlays`, at the venv's own path.
    fn build(
        &mut self,
        old: &Venv,
        to: &Path,
        overlays: &[Overlay],
    ) -> Result<Vec<String>, RebuildError> {
        let (root, owner, deadline) = (self.context.root, self.owner, self.deadline);
        let interpreter = self.target.interpreter();
        let minor = self.target.minor;
        let engines = sources::engines(self.context, old, owner, minor, &interpreter)
            .map_err(RebuildError::NoEngine)?;
        let folder = starts_in(self.job);
        let writes = self.content.built_in(&self.venv().path);
        let run = |program: Program| {
            let program = program.limit(deadline.left());
            let writes = writes.clone();
            confine::confined_to(root, program, owner, overlays, folder, writes).run()
        };
        run(self.creation()).map_err(RebuildError::Create)?;
        let sources = self.content.sources_inside(&self.venv().path);
        let is_needed = |path: &Path| {
            path == Path::new("pip.conf") || sources.iter().any(|source| path.starts_with(source))
        };
        self.seen = Seen::of(root, old)?;
        let left = self.carrier(old, to).foreign(&self.seen, is_needed)?;
        let mut notes = std::mem::take(&mut self.content.notes);
        notes.extend(self.left_behind(left));
        let mut last = Ok(());
        for engine in &engines {
            let installer = Installer { root, engine, venv: self.venv(), minor, run: &run };
            let mut own = Vec::new();
            last = installer.install(&self.content, &mut own);
            match &last {
                Ok(()) => {
                    notes.extend(own);
                    break;
                }
                Err(error) => notes.push(error.to_string()),
            }
            // The next one would have no time, and that be the reason that is told.
            if self.deadline.has_passed() {
                break;
            }
        }
        last?;
        self.isolate(old, to, &run).unwrap_or_else(|error| notes.push(error));
        let mut left = self.carrier(old, to).foreign(&self.seen, |path| !is_needed(path))?;
        left.extend(self.carrier(old, to).changes(&mut notes)?);
        notes.extend(self.left_behind(left));
        Ok(notes)
    }

    /// pipx does this to programs once they are installed.
    fn isolate(
        &self,
        old: &Venv,
        to: &Path,
        run: &dyn Fn(Program) -> Result<Finished, CommandError>,
    ) -> Result<(), String> {
        let root = self.context.root;
        let programs = venv::isolated_programs(root, old).unwrap_or_default();
        let is_there = |program: &&PathBuf| {
            root.at(to).join(program).symlink_metadata().is_ok_and(|found| found.is_file())
        };
        let there: Vec<PathBuf> =
            programs.iter().filter(is_there).map(|path| self.venv().path.join(path)).collect();
        if there.is_empty() {
            return Ok(());
        }
        let script = ["-i", r"1{/^#!.* -E$/!s/^#!.*/& -E/}", "--"];
        run(Program::new("/usr/bin/sed").args(script).args(there))
            .map(drop)
            .map_err(|error| format!("its programs are not isolated as pipx had them: {error}"))
    }

    fn carrier<'b>(&'b self, from: &'b Venv, to: &'b Path) -> Carrier<'b> {
        let (root, owner) = (self.context.root, self.owner);
        Carrier { root, owner, from, to, minor: self.target.minor, deadline: self.deadline }
    }

    /// What is in the old tree alone is told, and then that tree is not removed unasked.
    fn left_behind(&mut self, left: Vec<String>) -> Vec<String> {
        self.swap.kept.holds_files |= !left.is_empty();
        let words = |line| format!("not carried over, kept in the old tree: {line}");
        left.into_iter().map(words).collect()
    }

    /// The same maker as before, where it is there; else the standard library's.
    fn creation(&self) -> Program {
        let (venv, target) = (self.venv(), self.target);
        let interpreter = target.interpreter();
        let uv = engine::uv(self.context.root, self.context.config.engine, venv, self.owner)
            .filter(|_| venv.flavour == Flavour::Uv && !target.copies);
        let mut program = if let Some(uv) = uv {
            Program::new(uv)
                .env("UV_PYTHON_DOWNLOADS", "never")
                .args(["venv", "--quiet", "--allow-existing", "--no-project", "--python"])
                .arg(interpreter)
        } else {
            let program = Program::new(interpreter).args(["-I", "-m", "venv", "--without-pip"]);
            program.arg(if target.copies { "--copies" } else { "--symlinks" })
        };
        if venv.system_site_packages {
            program = program.arg("--system-site-packages");
        }
        if let Some(prompt) = &venv.prompt {
            // One word: it may begin with a dash.
            program = program.arg(format!("--prompt={prompt}"));
        }
        program.arg(&venv.path)
    }
}
