//! Making a venv again for another interpreter, aside, and exchanging the two trees.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::engine;
use super::halt::{Halt, Halted, Triggers};
use super::install::{InstallError, Installer};
use super::install_spec::{InstallSpec, Installed};
use super::job::Job;
use super::stage::{self, Stage, name_of};
use super::target::{Target, owner};
use super::trees::{Pair, left_behind};
use super::{Context, smoke, sources};
use crate::host::Program;
use crate::host::clock::Deadline;
use crate::host::command::{CommandError, Finished};
use crate::host::confine::{self, Overlay};
use crate::host::tree::Parent;
use crate::host::user::User;
use crate::owner::{Carried, Pass};
use crate::service;
use crate::store::{JournalState, PendingRemoval, PreviousTree, StoreError, Swap};
use crate::venv::{self, Difference, Flavour, Venv};

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
    #[error(
        "the new environment does not have the same distributions:\n    {}",
        .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n    ")
    )]
    Different(Vec<Difference>),
    #[error("the new environment does not work: {0}")]
    Dead(String),
    #[error("in the new environment, and not in the old one, these fail:\n    {}", .0.join("\n    "))]
    Worse(Vec<String>),
    #[error("the venv was changed while its successor was built (`venvguard rebuild` tries again)")]
    Changed,
    #[error("its services cannot be kept down for the swap: {0}")]
    Halt(String),
    #[error("its user files cannot be carried over: {0}")]
    Carry(io::Error),
    #[error(
        "it took longer than it may (`rebuild-timeout`, `owner-timeout` and `run-timeout` in the configuration)"
    )]
    OutOfTime,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A venv whose successor stands in its place, the services not yet restarted.
#[derive(Debug)]
pub(super) struct Rebuilt {
    pub(super) swap: Swap,
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
    pub(super) pending_removal: Option<PendingRemoval>,
    /// What was built, and holds files that are nowhere else.
    pub(super) aside: Option<Box<PreviousTree>>,
    pub(super) notes: Vec<String>,
    /// The new tree was in the venv's place for a while.
    pub(super) stood: bool,
}

impl From<RebuildError> for NotRebuilt {
    fn from(error: RebuildError) -> Self {
        Self {
            because: error.to_string(),
            unfinished: false,
            pending_removal: None,
            aside: None,
            notes: Vec::new(),
            stood: false,
        }
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

/// Builds the successor, tries it, stops the services, and lets the two trees change places.
pub(super) fn rebuild(
    context: &Context,
    job: &Job,
    target: Target,
    limit: Duration,
    halt: &mut Halt,
) -> Result<Rebuilt, NotRebuilt> {
    let Job { entry, venv, .. } = job;
    let owner = owner(context, venv);
    let obstacles = stage::obstacles(context.root, venv, stage::look_at(context.root, venv));
    if !obstacles.is_empty() {
        return Err(RebuildError::NotThere(obstacles).into());
    }
    let installed = Installed::of(context.root, venv);
    let told = InstallSpec::of(context, entry, venv).map_err(RebuildError::Unreproducible)?;
    let parent = Parent::of(&venv.path)?;
    let old = parent.identity(name_of(&venv.path)).ok_or(RebuildError::Changed)?;
    let previous = PreviousTree::new(&stage::aside(context.root, venv), old, job.follows);
    let aside = || previous.path().into();
    job.begin(context, JournalState::Staging { aside: aside(), new: None }, &[])?;
    let made = Stage::make(context.root, &parent, previous.path(), venv, &owner);
    let stage = made.map_err(|error| {
        // A directory that was made, and could neither be given away nor removed.
        let unfinished =
            parent.identity(&stage::from_beside(&venv.path, previous.path())).is_some();
        NotRebuilt { unfinished, ..error.into() }
    })?;
    let new = stage.identity;
    let deadline = Deadline::after(limit);
    let mut work = Work {
        context,
        job,
        target,
        owner: &owner,
        content: told,
        parent: &parent,
        deadline,
        swap: Swap { previous: previous.clone(), new, minor: target.minor },
        installed,
        halt,
    };
    let result = job
        .begin(context, JournalState::Staging { aside: aside(), new: Some(new) }, &[])
        .map_err(RebuildError::from)
        .and_then(|()| work.run_and_record(&stage));
    match result {
        Ok(notes) => Ok(Rebuilt { swap: work.swap, notes }),
        Err(error) => Err(work.undo(&error)),
    }
}

impl From<Halted<RebuildError>> for RebuildError {
    fn from(halted: Halted<RebuildError>) -> Self {
        match halted {
            Halted::Stop(because) => Self::Halt(because),
            Halted::Work(error) => error,
        }
    }
}

/// The directory that installers start in.
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
    content: InstallSpec<'a>,
    parent: &'a Parent,
    deadline: Deadline,
    swap: Swap,
    /// What was installed in the old tree when its content was told.
    installed: Installed,
    halt: &'a mut Halt,
}

impl Work<'_> {
    fn run_and_record(&mut self, stage: &Stage) -> Result<Vec<String>, RebuildError> {
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

    /// The usual way: the venv is whole at every instant, and its services run until all is ready.
    fn beside(&mut self, stage: &Stage) -> Result<Vec<String>, RebuildError> {
        let root = self.context.root;
        let over = stage.over(&self.venv().path);
        let temporary = stage.temporary(root, self.owner)?;
        let mut overlays = vec![over.clone()];
        let shared = stage::shared_dirs(&self.needed());
        overlays.extend(shared.iter().map(|place| temporary.over(place)));
        let aside = self.swap.previous.path().to_path_buf();
        let pair = Pair::new(&self.job.venv, self.owner, &aside, self.target.minor);
        let mut notes = self.build(pair, &overlays)?;
        temporary.empty_and_remove(root)?;
        notes.extend(self.compare(|| self.smoke(&[]), &[over])?);
        // What takes long is done while the services still run. Nothing of the new tree may be in
        // memory only when it takes the place.
        self.parent.sync_all()?;
        let step = JournalState::Staging {
            aside: self.swap.previous.path().into(),
            new: Some(self.swap.new),
        };
        let mut carried = Carried::default();
        let (context, job) = (self.context, self.job);
        let (deadline, installed) = (self.deadline, &self.installed);
        let result = self.halt.while_stopped(context, job, &step, Triggers::GoOn, || {
            carried = pair.carry(root, Pass::Last, deadline.left()).map_err(RebuildError::Carry)?;
            let is_same = Installed::of(root, &job.venv) == *installed;
            is_same.then_some(()).ok_or(RebuildError::Changed)
        });
        result.map_err(RebuildError::from)?;
        notes.extend(self.told(carried));
        self.begin(JournalState::Swapping(self.swap.clone()))?;
        self.exchange()?;
        Ok(notes)
    }

    /// Where no mount namespace can be had: the venv is away while it is built, and its services
    /// are down.
    fn in_place(&mut self) -> Result<Vec<String>, RebuildError> {
        let before = self.smoke(&[]);
        let step = JournalState::InPlace(self.swap.clone());
        let (context, job) = (self.context, self.job);
        self.halt
            .while_stopped(context, job, &step, Triggers::Stopped, || Ok(()))
            .map_err(RebuildError::from)?;
        self.begin(step)?;
        self.exchange()?;
        let aside = self.swap.previous.path().to_path_buf();
        let pair = Pair::new(&job.venv, self.owner, &aside, self.target.minor).swapped();
        let mut notes = self.build(pair, &[])?;
        notes.extend(self.compare(|| before, &[])?);
        if let Some(service) = service::came_up_again(context.root, &job.services) {
            // It may have begun its data anew in the half-built tree.
            return Err(RebuildError::Halt(format!("{service} was started meanwhile")));
        }
        // Programs that are no service's may have gone on writing into either tree.
        let carried = pair.carry_from_aside(self.context.root, Pass::Last, self.deadline.left());
        notes.extend(self.told(carried.map_err(RebuildError::Carry)?));
        self.parent.sync_all()?;
        self.begin(JournalState::Swapping(self.swap.clone()))?;
        Ok(notes)
    }

    fn begin(&self, step: JournalState) -> Result<(), RebuildError> {
        Ok(self.job.begin(self.context, step, self.halt.units())?)
    }

    fn exchange(&self) -> Result<(), RebuildError> {
        let path = name_of(&self.venv().path);
        if self.parent.identity(path) != Some(self.swap.previous.identity) {
            return Err(RebuildError::Changed);
        }
        let aside = stage::from_beside(&self.venv().path, self.swap.previous.path());
        Ok(self.parent.exchange(&aside, path)?)
    }

    /// However far it has come: afterwards the old tree is in its place.
    fn undo(&self, error: &RebuildError) -> NotRebuilt {
        let (context, swap) = (self.context, &self.swap);
        let stood = self.parent.identity(name_of(&self.venv().path)) == Some(swap.new);
        let because = error.to_string();
        if !stood {
            let pending_removal = Some(PendingRemoval::new(swap.previous.path(), swap.new));
            return NotRebuilt { because, pending_removal, ..RebuildError::Changed.into() };
        }
        let pair = Pair::new(&self.job.venv, self.owner, swap.previous.path(), self.target.minor);
        match pair.swapped().bring_back(context, swap, true) {
            Ok((left, notes)) => {
                let (pending_removal, aside) = left.of(swap, self.job.follows);
                let aside = aside.map(Box::new);
                NotRebuilt { because, unfinished: false, pending_removal, aside, notes, stood }
            }
            Err(left) => NotRebuilt {
                because: format!(
                    "{because}\nand the previous environment could not be put back: {left}"
                ),
                unfinished: true,
                stood,
                ..RebuildError::Changed.into()
            },
        }
    }

    fn venv(&self) -> &Venv {
        &self.job.venv
    }

    /// What fails in the tree that is seen at the venv's path.
    fn smoke(&self, overlays: &[Overlay]) -> Result<smoke::Failures, String> {
        let modules = &self.content.modules;
        let limit = self.deadline.left();
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

    /// Makes the environment, installs its content and carries the user files over. The new tree
    /// is aside and seen at the venv's own path through `overlays`; without any, it is in place.
    fn build(&mut self, pair: Pair, overlays: &[Overlay]) -> Result<Vec<String>, RebuildError> {
        let (root, owner, deadline) = (self.context.root, self.owner, self.deadline);
        let interpreter = self.target.interpreter();
        let minor = self.target.minor;
        let is_beside = !overlays.is_empty();
        let carry = |pass| {
            let limit = deadline.left();
            if limit.is_zero() {
                return Err(RebuildError::OutOfTime);
            }
            let carried = if is_beside {
                pair.carry(root, pass, limit)
            } else {
                pair.carry_from_aside(root, pass, limit)
            };
            carried.map_err(RebuildError::Carry)
        };
        let (from, to) = if is_beside { (pair.venv, pair.aside) } else { (pair.aside, pair.venv) };
        let old = &Venv { path: from.to_path_buf(), ..self.venv().clone() };
        let engines = sources::engines(self.context, old, owner, minor, &interpreter)
            .map_err(RebuildError::NoEngine)?;
        let dir = starts_in(self.job);
        let writes = self.content.built_in(root, self.venv(), owner);
        let run = |program: Program| {
            let program = program.limit(deadline.left());
            let writes = writes.clone();
            confine::confined_to(root, program, owner, overlays, dir, writes).run()
        };
        run(self.creation()).map_err(RebuildError::Create)?;
        let mut needed = self.content.sources_inside(&self.venv().path);
        needed.push("pip.conf".into());
        let needed = needed.iter().map(|path| path.as_path().into()).collect();
        let mut notes = self.content.notes.clone();
        notes.extend(self.told(carry(Pass::First(needed))?));
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
        let differences = self.content.compare(root, to, minor)?;
        if !differences.failures.is_empty() {
            return Err(RebuildError::Different(differences.failures));
        }
        notes.extend(differences.notes.iter().map(ToString::to_string));
        self.isolate(old, to, &run).unwrap_or_else(|error| notes.push(error));
        // What is left behind now is left behind by the last pass as well, which reports it.
        let Carried { notes: more, .. } = carry(Pass::All)?;
        notes.extend(more.into_lines());
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
        let programs = venv::isolated_programs(root, &old.layout()).unwrap_or_default();
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

    /// What a pass has to say. What is in the old tree alone keeps that tree from being removed
    /// unasked.
    fn told(&mut self, carried: Carried) -> Vec<String> {
        self.swap.previous.holds_files |= !carried.left.is_empty();
        carried.notes.into_lines().into_iter().chain(left_behind(carried.left)).collect()
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
