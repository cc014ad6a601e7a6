//! The decisions of a plan, carried out.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use super::rebuild::{Rebuilt, Target, rebuild};
use super::restart::restart;
use super::{Context, anchor, refresh, stage};
use crate::host::clock;
use crate::host::command::CommandError;
use crate::host::{Program, Root};
use crate::plan::Remedy;
use crate::python::{Interpreters, Minor, path_of};
use crate::service::{self, Service};
use crate::store::{Anchored, Entry, JournalEntry, Kept, Operation, Progress as Step, StoreError};
use crate::venv::Venv;

/// One venv to be repaired.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) entry: Entry,
    pub(crate) venv: Venv,
    pub(crate) remedy: Remedy,
    pub(crate) fallback: Option<Remedy>,
    /// What a rebuild has to end with; none where no interpreter is there for it.
    pub(crate) target: Option<Target>,
    /// What runs out of it, and is up or was up before the transaction.
    pub(crate) services: Vec<Service>,
}

impl Job {
    /// What is to be done, for a dry run.
    pub(crate) fn in_words(&self) -> String {
        let what = match (self.remedy, self.target) {
            (Remedy::None | Remedy::Impossible, _) => "nothing".to_string(),
            (Remedy::Restart, _) => "restart its services".to_string(),
            (Remedy::Refresh, _) => "copy the interpreter anew, restart its services".to_string(),
            (Remedy::Anchor, _) => format!("pin it to {}", path_of(self.venv.site).display()),
            (Remedy::Rebuild, Some(target)) => {
                format!("rebuild it for {}, restart its services", target.interpreter().display())
            }
            (Remedy::Rebuild, None) => "rebuild it, once an interpreter is installed".to_string(),
        };
        format!("{}: would {what}", self.entry.name)
    }
}

/// How a repair ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) id: String,
    pub(crate) done: Done,
    /// The services that were restarted, where the repair went well.
    pub(crate) restarted: Vec<Service>,
    pub(crate) notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Done {
    Nothing,
    Restarted,
    Refreshed,
    Rebuilt {
        minor: Minor,
        kept: Kept,
    },
    /// It works, with the old interpreter. Why it is not the new one, if that was wanted.
    Anchored {
        minor: Minor,
        because: Option<String>,
    },
    /// The new tree was put back; the old one works.
    RolledBack {
        because: String,
    },
    /// What does not work, and in which state it was left.
    Failed {
        because: String,
        state: String,
    },
}

impl Done {
    /// Whether all is as it should be.
    pub(crate) fn is_good(&self) -> bool {
        !matches!(
            self,
            Self::RolledBack { .. } | Self::Failed { .. } | Self::Anchored { because: Some(_), .. }
        )
    }
}

/// Repairs the venvs, `jobs` at a time, and hands each outcome to `finished` as it comes.
/// One venv's failure, a panic included, stops no other.
pub(crate) fn execute(
    context: &Context,
    now: &Interpreters,
    jobs: Vec<Job>,
    at_once: usize,
    finished: impl Fn(&Outcome) + Sync,
) -> Vec<Outcome> {
    let count = jobs.len();
    let queue = Mutex::new(jobs.into_iter().enumerate());
    let outcomes = Mutex::new(Vec::with_capacity(count));
    std::thread::scope(|scope| {
        for _ in 0..at_once.clamp(1, count.max(1)) {
            scope.spawn(|| {
                loop {
                    let next =
                        queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
                    let Some((index, job)) = next else { return };
                    let outcome = repair_safely(context, now, &job);
                    finished(&outcome);
                    outcomes
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .push((index, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    outcomes.sort_by_key(|(index, _)| *index);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

fn repair_safely(context: &Context, now: &Interpreters, job: &Job) -> Outcome {
    let progress = context.report.progress(&job.entry.name);
    let repair = Repair { context, now, job, progress: &progress };
    let (done, notes) = catch_unwind(AssertUnwindSafe(|| repair.run())).unwrap_or_else(|_| {
        let because = "venvguard itself failed (this is a bug)".to_string();
        let state = "`venvguard resume` looks at what was begun".to_string();
        (Done::Failed { because, state }, Vec::new())
    });
    let restarted = match done {
        Done::Restarted | Done::Refreshed | Done::Rebuilt { .. } => job.services.clone(),
        _ => Vec::new(),
    };
    let outcome = Outcome { id: job.entry.id.clone(), done, restarted, notes };
    progress.end();
    outcome
}

/// One venv's repair.
struct Repair<'a> {
    context: &'a Context<'a>,
    now: &'a Interpreters,
    job: &'a Job,
    progress: &'a crate::report::Progress,
}

type Ended = (Done, Vec<String>);

impl Repair<'_> {
    fn run(&self) -> Ended {
        let result = match self.job.remedy {
            Remedy::None | Remedy::Impossible => Ok((Done::Nothing, Vec::new())),
            Remedy::Restart => self.restart_only(),
            Remedy::Refresh => self.refresh(),
            Remedy::Anchor => self.anchor(None),
            Remedy::Rebuild => self.rebuild(),
        };
        result.unwrap_or_else(|error| {
            let state = "the venv was not changed".to_string();
            (Done::Failed { because: error.to_string(), state }, Vec::new())
        })
    }

    fn restart_only(&self) -> Result<Ended, StoreError> {
        if self.job.services.is_empty() {
            return Ok((Done::Nothing, Vec::new()));
        }
        self.begin(Operation::Restart, Step::Restarting { kept: None })?;
        let done = match self.restart() {
            Ok(()) => Done::Restarted,
            Err(because) => Done::Failed { because, state: "the venv itself is unchanged".into() },
        };
        self.end()?;
        Ok((done, Vec::new()))
    }

    fn refresh(&self) -> Result<Ended, StoreError> {
        let venv = &self.job.venv;
        let Some(interpreter) = venv.base.minor.and_then(|minor| self.now.get(minor)) else {
            let because = format!("{} is not installed", venv.base.path.display());
            return Ok((
                Done::Failed { because, state: "the venv was not changed".into() },
                Vec::new(),
            ));
        };
        self.begin(Operation::Refresh, Step::Refreshing)?;
        self.progress.step("copying the new interpreter");
        if let Err(error) = refresh::refresh(self.context.root, venv, interpreter) {
            let because = format!("cannot copy the new interpreter: {error}");
            let state =
                "some of its interpreters may be of the old build; doing it again is safe".into();
            return Ok((Done::Failed { because, state }, Vec::new()));
        }
        let done = match self.restart() {
            Ok(()) => Done::Refreshed,
            Err(because) => Done::Failed {
                because,
                state: "its interpreter is the new one; what it runs does not come up with it"
                    .into(),
            },
        };
        self.end()?;
        Ok((done, Vec::new()))
    }

    /// Pins the venv to its own minor version. What runs out of it goes on with the same
    /// interpreter; only what died meanwhile is started again.
    fn anchor(&self, because: Option<String>) -> Result<Ended, StoreError> {
        let (venv, minor) = (&self.job.venv, self.job.venv.site);
        if let Err(error) = anchor::pin(self.context.root, venv, minor) {
            let because = format!("cannot pin it to {}: {error}", path_of(minor).display());
            return Ok((
                Done::Failed { because, state: "its interpreter is another minor version".into() },
                Vec::new(),
            ));
        }
        let is_down = |service: &Service| {
            !service::condition(self.context.root, service).is_ok_and(|condition| condition.up)
        };
        let down: Vec<Service> =
            self.job.services.iter().filter(|one| is_down(one)).cloned().collect();
        if !down.is_empty() {
            self.begin(Operation::Restart, Step::Restarting { kept: None })?;
            let result = restart(self.context, &self.job.entry, venv, &down);
            self.end()?;
            if let Err(because) = result {
                let state = format!("it is pinned to {}", path_of(minor).display());
                return Ok((Done::Failed { because, state }, Vec::new()));
            }
        }
        Ok((Done::Anchored { minor, because }, Vec::new()))
    }

    fn rebuild(&self) -> Result<Ended, StoreError> {
        let job = self.job;
        let Some(target) = job.target else {
            let because = format!("{} is not installed", crate::python::DEFAULT);
            return Ok((
                Done::Failed { because, state: "the venv was not changed".into() },
                Vec::new(),
            ));
        };
        self.progress.step(&format!("building for {}", target.minor));
        let rebuilt = match rebuild(self.context, &job.entry, &job.venv, target, &job.services) {
            Ok(rebuilt) => rebuilt,
            Err(error) => return self.fall_back(error.to_string(), Vec::new()),
        };
        match self.restart() {
            Ok(()) => {
                self.forget_older(&rebuilt.kept);
                self.end()?;
                Ok((Done::Rebuilt { minor: target.minor, kept: rebuilt.kept }, rebuilt.notes))
            }
            Err(because) => self.roll_back(because, &rebuilt),
        }
    }

    /// The new tree is there and its services do not come up with it: the old one again.
    fn roll_back(&self, because: String, rebuilt: &Rebuilt) -> Result<Ended, StoreError> {
        self.progress.step("putting the old environment back");
        let step = Step::PuttingBack { aside: rebuilt.kept.path().into(), old: rebuilt.old };
        self.begin(Operation::Rebuild, step)?;
        if let Err(error) = stage::put_back(&self.job.venv.path, rebuilt.kept.path(), rebuilt.old) {
            let because =
                format!("{because}\nand the old environment could not be put back: {error}");
            return Ok((
                Done::Failed {
                    because,
                    state: "the journal is kept for `venvguard resume`".into(),
                },
                Vec::new(),
            ));
        }
        self.fall_back(because, rebuilt.notes.clone())
    }

    /// What is left when the new tree is not to be had: the old one, made to work.
    fn fall_back(&self, because: String, notes: Vec<String>) -> Result<Ended, StoreError> {
        if self.job.fallback == Some(Remedy::Anchor) {
            self.end()?;
            let (done, more) = self.anchor(Some(because))?;
            return Ok((done, [notes, more].concat()));
        }
        if self.job.fallback == Some(Remedy::Refresh) {
            self.end()?;
            let (done, more) = self.refresh()?;
            return Ok((done, [notes, vec![because], more].concat()));
        }
        let works = self.now.get(self.job.venv.site).is_some();
        let done = match self.restart_if_down() {
            Ok(()) if works => Done::RolledBack { because },
            Ok(()) => Done::Failed {
                because,
                state: "the venv is as it was; its interpreter is gone".into(),
            },
            Err(error) => Done::Failed {
                because: format!("{because}\n{error}"),
                state: "the venv is as it was".into(),
            },
        };
        self.end()?;
        Ok((done, notes))
    }

    fn restart(&self) -> Result<(), String> {
        let names: Vec<String> = self.job.services.iter().map(ToString::to_string).collect();
        if !names.is_empty() {
            self.progress.step(&format!("restarting {}", names.join(", ")));
        }
        restart(self.context, &self.job.entry, &self.job.venv, &self.job.services)
    }

    fn restart_if_down(&self) -> Result<(), String> {
        let up = |service: &Service| {
            service::condition(self.context.root, service).is_ok_and(|condition| condition.up)
        };
        if self.job.services.iter().all(up) { Ok(()) } else { self.restart() }
    }

    /// The tree that the rebuild before this one had put aside has served its time.
    fn forget_older(&self, kept: &Kept) {
        if let Some(older) =
            self.job.entry.kept.as_ref().filter(|older| older.path() != kept.path())
        {
            if let Err(error) = super::forget(older) {
                self.context.report.note(&format!(
                    "{}: cannot remove an older tree: {error}",
                    self.job.entry.name
                ));
            }
        }
    }

    fn begin(&self, operation: Operation, step: Step) -> Result<(), StoreError> {
        let Job { entry, venv, services, .. } = self.job;
        let entry = JournalEntry::new(
            &entry.id,
            &entry.name,
            &venv.path,
            operation,
            step,
            services.clone(),
        );
        self.context.store.write_journal(&entry)
    }

    fn end(&self) -> Result<(), StoreError> {
        self.context.store.close_journal(&self.job.entry.id)
    }
}

/// What an outcome changes about what is registered.
pub(crate) fn note_in_entry(entry: &mut Entry, done: &Done) {
    match done {
        Done::Rebuilt { kept, .. } => {
            entry.anchored = None;
            entry.kept = Some(kept.clone());
        }
        Done::Anchored { minor, because } => {
            let reason = because.clone().unwrap_or_else(|| "its policy is to stay".into());
            entry.anchored = Some(Anchored { at: clock::now(), to: *minor, reason });
        }
        _ => {}
    }
}

/// Keeps `apt autoremove` from taking interpreters that anchored venvs need.
pub(crate) fn keep_installed(root: &Root, minors: &BTreeSet<Minor>) -> Result<(), CommandError> {
    let names = minors.iter().map(|minor| minor.program());
    let packages: Vec<String> = names
        .flat_map(|name| [format!("{name}-minimal"), name])
        .filter(|name| root.at(format!("/var/lib/dpkg/info/{name}.list")).exists())
        .collect();
    // A folder that stands for a system has no apt of its own to tell.
    if packages.is_empty() || !root.is_system() {
        return Ok(());
    }
    Program::new("/usr/bin/apt-mark").args(["manual", "-qq"]).args(packages).run().map(drop)
}
