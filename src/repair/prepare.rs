//! The first half of a rebuild: a finished, checked new tree beside the venv.
//!
//! The venv stays whole and its services run. The new tree may be swapped in right away or be kept
//! for days: see [`PreparedTree`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::account::owner;
use super::builder::Builder;
use super::engine::{self, Engine, Seeds};
use super::install::{InstallError, Installer};
use super::install_spec::{InstallSpec, Installed};
use super::job::Job;
use super::names::{self, name_of};
use super::not_rebuilt::{NotRebuilt, RebuildError};
use super::stage::{self, Stage};
use super::trees::{Pair, left_behind};
use super::{Context, build_command, mentions, smoke, sources};
use crate::host::clock::Deadline;
use crate::host::command::{CommandError, Finished};
use crate::host::confine;
use crate::host::overlay::Overlay;
use crate::host::tree::{self, Identity, Parent};
use crate::host::user::User;
use crate::host::{Program, Root};
use crate::owner::{Carried, Pass};
use crate::plan::Target;
use crate::python;
use crate::report::Progress;
use crate::store::{BuiltFor, JournalState, PreparedTree, PreviousTree, Swap};
use crate::venv::{self, Compiled, Flavour, Venv};

/// A new tree that is ready, and what was installed in the venv when it was built.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) tree: PreparedTree,
    pub(super) installed: Installed,
}

/// How a new tree is built.
pub(super) enum Build<'a> {
    /// It is ready beside the venv.
    Beside(Box<Prepared>),
    /// It cannot be bound over the venv on this machine and must be built in place.
    InPlace(Box<Work<'a>>),
}

/// Builds a new tree beside the venv and checks it, to swap it in or to keep it (`to_rest`). Leaves
/// the journal at [`JournalState::Preparing`].
pub(super) fn prepare<'a>(
    context: &'a Context<'a>,
    job: &'a Job,
    target: Target,
    builder: Builder,
    limit: Duration,
    to_rest: bool,
    progress: &'a Progress,
) -> Result<Build<'a>, NotRebuilt> {
    progress.step("looking through it");
    let Job { entry, venv, .. } = job;
    let owner = owner(context, venv);
    let obstacles = stage::obstacles(context.root, venv, stage::look_at(context.root, venv));
    if !obstacles.is_empty() {
        return Err(RebuildError::NotThere(obstacles).into());
    }
    let installed = Installed::of(context.root, venv);
    let spec = InstallSpec::of(context, entry, venv).map_err(RebuildError::Unreproducible)?;
    let parent = Parent::of(&venv.path)?;
    let old = parent.identity(name_of(&venv.path)).ok_or(RebuildError::Changed)?;
    let path = names::aside(context.root, venv);
    let preparing = |new| JournalState::Preparing { aside: path.as_path().into(), new, to_rest };
    let write = |new| job.begin(context, preparing(new), &[]);
    write(None)?;
    let made = Stage::make(context.root, &parent, &path, venv, &owner);
    let stage = made.map_err(|error| {
        // A directory that was created, but could be neither given to the owner nor removed.
        let unfinished = parent.identity(&names::from_beside(&venv.path, &path)).is_some();
        NotRebuilt { unfinished, ..error.into() }
    })?;
    let built_for = built_for(&builder, old, target, &spec, &installed);
    let mut work = Work {
        context,
        job,
        target,
        builder,
        owner,
        spec,
        compile: to_compile(context, job),
        parent,
        progress,
        deadline: Deadline::after(limit),
        tree: PreparedTree::new(&path, stage.identity, built_for),
    };
    let begun = preparing(Some(stage.identity));
    write(Some(stage.identity)).map_err(|error| NotRebuilt::at(&begun, error.into()))?;
    stage::require_movable(&work.parent, &venv.path, &path)
        .map_err(|error| NotRebuilt::at(&begun, RebuildError::NotThere(vec![error])))?;
    match work.beside(&stage) {
        Ok(true) => Ok(Build::Beside(Box::new(Prepared { tree: work.tree, installed }))),
        Ok(false) => Ok(Build::InPlace(Box::new(work))),
        Err(error) => Err(NotRebuilt::at(&begun, error)),
    }
}

/// A prepared tree of an earlier run, if it is still what would be built now; otherwise, why not.
pub(super) fn rested(
    context: &Context,
    job: &Job,
    target: Target,
    builder: &Builder,
    tree: PreparedTree,
) -> Result<Prepared, String> {
    let Job { entry, venv, .. } = job;
    if tree::identity(tree.path()) != Some(tree.identity) {
        return Err("it is gone".into());
    }
    let installed = Installed::of(context.root, venv);
    let spec = InstallSpec::of(context, entry, venv).map_err(|reasons| reasons.join("; "))?;
    let old = tree::identity(&venv.path).ok_or("there is no venv")?;
    match tree.built_for.difference(&built_for(builder, old, target, &spec, &installed)) {
        None => Ok(Prepared { tree, installed }),
        Some(difference) => Err(difference.into()),
    }
}

fn built_for(
    builder: &Builder,
    venv: Identity,
    target: Target,
    spec: &InstallSpec,
    installed: &Installed,
) -> BuiltFor {
    let interpreter = builder.build_id.clone();
    BuiltFor { venv, target, interpreter, recipe: spec.digest(installed) }
}

/// What installers compile, as in the old tree: uv compiles nothing unless it is asked to.
fn to_compile(context: &Context, Job { entry, venv, .. }: &Job) -> Compiled {
    match venv.flavour {
        Flavour::Uv if entry.build_command().is_empty() => {
            Compiled::of(context.root, &venv.layout())
        }
        _ => Compiled::EVERYTHING,
    }
}

/// The working directory of installers.
fn starts_in(job: &Job) -> &Path {
    if !job.entry.build_command().is_empty() {
        return build_command::starts_in(&job.venv);
    }
    let listed = job.entry.requirements().and_then(Path::parent);
    listed.or_else(|| sources::project(&job.venv)).unwrap_or(Path::new("/"))
}

/// One build.
pub(super) struct Work<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) job: &'a Job,
    pub(super) target: Target,
    builder: Builder,
    pub(super) owner: User,
    spec: InstallSpec<'a>,
    /// What the installer compiles, as in the old tree.
    compile: Compiled,
    pub(super) parent: Parent,
    progress: &'a Progress,
    pub(super) deadline: Deadline,
    pub(super) tree: PreparedTree,
}

impl Work<'_> {
    /// Builds beside the venv. Returns false if the kernel forbids it.
    fn beside(&mut self, stage: &Stage) -> Result<bool, RebuildError> {
        let root = self.context.root;
        let over = stage.over(&self.venv().path);
        if let Some(reason) = stage::why_not_laid_over(root, &self.owner, over.clone())? {
            self.context.report.note(&format!(
                "{}: this kernel or container forbids mount namespaces ({reason}); building in place",
                self.job.entry.name
            ));
            return Ok(false);
        }
        let temporary = stage.temporary(root, &self.owner)?;
        let mut overlays = vec![over.clone()];
        let shared = stage::shared_dirs(&self.needed());
        overlays.extend(shared.iter().map(|place| temporary.over(place)));
        let (owner, aside) = (self.owner.clone(), stage.path.clone());
        let pair = Pair::new(&self.job.venv, &owner, &aside, self.target.minor);
        self.build(pair, &overlays)?;
        temporary.empty_and_remove(root)?;
        self.progress.step("checking that it works");
        let notes = self.compare(|| self.smoke_installed(&[]), &[over])?;
        self.tree.notes.extend(notes);
        // Sync while the services still run, because it takes long: the whole new tree must be on
        // the disk when it is swapped in.
        self.progress.step("writing it to the disk");
        self.parent.sync_all()?;
        Ok(true)
    }

    /// The error that there is no prepared tree to keep.
    pub(super) fn cannot_rest(&self) -> NotRebuilt {
        NotRebuilt::at(&self.tree.preparing(), RebuildError::OnlyInPlace)
    }

    /// The two trees after the swap.
    pub(super) fn swap(&self) -> Swap {
        swap_of(self.job, &self.tree)
    }

    fn venv(&self) -> &Venv {
        &self.job.venv
    }

    /// What fails in the new tree that is visible at the venv's path, in the system it is built for.
    fn smoke(&self, overlays: &[Overlay]) -> Result<smoke::Failures, String> {
        self.smoke_installed(&[&self.builder.seen_through, overlays].concat())
    }

    /// What fails in the tree that is visible at the venv's path.
    pub(super) fn smoke_installed(&self, overlays: &[Overlay]) -> Result<smoke::Failures, String> {
        let removed = python::removed_between(self.venv().site, self.builder.minor);
        let root = self.context.root;
        // Debian's pip runs on this interpreter, and its import is a large part of the check of a
        // small venv.
        let seeds = Seeds::of(self.builder.has_pip_of(root), self.builder.minor);
        let wanted = smoke::Wanted {
            modules: &self.spec.modules,
            removed: &removed,
            proven: seeds.pip_wheel(),
            pinned_to: None,
        };
        let limit = self.deadline.left();
        smoke::smoke(root, &self.owner, &self.venv().path, wanted, overlays, limit)
    }

    /// Compares with the old tree only if the new one fails something. If the old tree does not
    /// start at all, failures of the new one are reported and accepted.
    pub(super) fn compare(
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

    /// All paths on this machine that the builders need, except programs.
    fn needed(&self) -> Vec<PathBuf> {
        let mut needed = self.spec.read_from(&self.venv().path);
        needed.extend([self.owner.home.clone(), starts_in(self.job).to_path_buf()]);
        needed
    }

    /// Creates the environment, installs its content and carries the user files over. The new tree
    /// is aside and visible at the venv's own path through `overlays`; without any, it is in place.
    pub(super) fn build(&mut self, pair: Pair, overlays: &[Overlay]) -> Result<(), RebuildError> {
        let (root, owner, deadline) = (self.context.root, pair.owner, self.deadline);
        let builder = self.builder.clone();
        let Builder { minor, seen_through, .. } = &builder;
        let (minor, pip_of) = (*minor, builder.has_pip_of(root));
        let is_beside = !overlays.is_empty();
        let overlays = &[seen_through, overlays].concat();
        let carry = |pass| {
            self.progress.step("carrying user files over");
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
        let engines = self.engines(old, pip_of)?;
        let dir = starts_in(self.job);
        let writes = self.spec.built_in(root, self.venv(), owner);
        let run = |program: Program| {
            let program = program.limit(deadline.left());
            let writes = writes.clone();
            confine::confined_to(root, program, owner, overlays, dir, writes).run()
        };
        self.progress.step(&format!("creating an environment for Python {minor}"));
        run(self.creation()).map_err(RebuildError::Create)?;
        let mut needed = self.spec.sources_inside(&self.venv().path);
        needed.push("pip.conf".into());
        let needed = needed.iter().map(|path| path.as_path().into()).collect();
        self.tree.notes.extend(self.spec.notes.clone());
        let carried = carry(Pass::First(needed))?;
        self.note(carried);
        self.progress.step("installing the distributions");
        self.install(&engines, pip_of, &run)?;
        self.progress.step("comparing the distributions");
        let differences = self.spec.compare(root, to, minor)?;
        if !differences.failures.is_empty() {
            return Err(RebuildError::Different(differences.failures));
        }
        self.tree.notes.extend(differences.notes.iter().map(ToString::to_string));
        self.spec.leave_out(&root.at(old.site_packages()), &differences.notes)?;
        if let Err(error) = self.isolate(old, to, &run) {
            self.tree.notes.push(error);
        }
        // The last pass leaves the same files behind and reports them.
        let Carried { notes: more, .. } = carry(Pass::All)?;
        self.tree.notes.extend(more.into_lines());
        if old.site != minor {
            self.tree.notes.extend(mentions::notes(root, &self.venv().path, old.site));
        }
        Ok(())
    }

    /// The engines that may install the content: none if a command does.
    fn engines(&self, old: &Venv, pip_of: &Root) -> Result<Vec<Engine>, RebuildError> {
        if self.spec.command().is_some() {
            return Ok(Vec::new());
        }
        let Builder { path, minor, .. } = &self.builder;
        sources::engines(self.context, old, &self.owner, (*minor, path), pip_of)
            .and_then(|engines| engine::that_run(pip_of, engines, *minor))
            .map_err(RebuildError::NoEngine)
    }

    /// Installs the content: by its command, or by the first engine that can.
    fn install(
        &mut self,
        engines: &[Engine],
        pip_of: &Root,
        run: &dyn Fn(Program) -> Result<Finished, CommandError>,
    ) -> Result<(), InstallError> {
        let minor = self.builder.minor;
        if let Some(command) = self.spec.command() {
            let finished = run(command.to_program(self.job, minor));
            return finished.map(drop).map_err(|error| InstallError::Command { minor, error });
        }
        let mut last = Ok(());
        for engine in engines {
            let (venv, compile) = (self.venv(), self.compile);
            let installer = Installer { pip_of, engine, venv, minor, compile, run };
            let mut own = Vec::new();
            last = installer.install(&self.spec, &mut own);
            match &last {
                Ok(()) => {
                    self.tree.notes.extend(own);
                    break;
                }
                Err(error) => self.tree.notes.push(error.to_string()),
            }
            // The next engine would have no time, and report that as the reason.
            if self.deadline.has_passed() {
                break;
            }
        }
        last
    }

    /// Isolates programs, as pipx does after it has installed them.
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
            .map_err(|error| format!("cannot isolate its programs as pipx did: {error}"))
    }

    /// Notes what a pass reports. A tree that alone has some files is removed only on request.
    pub(super) fn note(&mut self, carried: Carried) {
        self.tree.leaves_files |= !carried.left.is_empty();
        let lines = carried.notes.into_lines().into_iter().chain(left_behind(carried.left));
        self.tree.notes.extend(lines);
    }

    /// The tool that created the venv, if it is installed; otherwise the standard library's `venv`.
    /// It installs pip for a command, which may need that; an engine brings its own.
    fn creation(&self) -> Program {
        let (venv, target) = (self.venv(), self.target);
        let interpreter = &self.builder.path;
        let has_pip = self.spec.command().is_some_and(|command| command.pip);
        let uv = engine::uv(self.context.root, self.context.config.engine, venv, &self.owner)
            .filter(|_| venv.flavour == Flavour::Uv && !target.copies);
        let mut program = if let Some(uv) = uv {
            Program::new(uv)
                .env("UV_PYTHON_DOWNLOADS", "never")
                .args(["venv", "--quiet", "--allow-existing", "--no-project"])
                .args(has_pip.then_some("--seed"))
                .arg("--python")
                .arg(interpreter)
        } else {
            let program = Program::new(interpreter).args(["-I", "-m", "venv"]);
            let program = program.args((!has_pip).then_some("--without-pip"));
            program.arg(if target.copies { "--copies" } else { "--symlinks" })
        };
        if venv.system_site_packages {
            program = program.arg("--system-site-packages");
        }
        if let Some(prompt) = &venv.prompt {
            // One argument: the prompt may begin with a dash.
            program = program.arg(format!("--prompt={prompt}"));
        }
        program.arg(&venv.path)
    }
}

/// The venv's tree and the one that is prepared for it, after the swap.
pub(super) fn swap_of(job: &Job, tree: &PreparedTree) -> Swap {
    let previous = PreviousTree::new(tree.path(), tree.built_for.venv, job.decision.follows);
    Swap {
        previous: previous.that_holds_files(tree.leaves_files),
        new: tree.identity,
        minor: tree.built_for.target.minor,
    }
}
