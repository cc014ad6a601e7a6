//! What can be said to the program.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use clap_complete::ArgValueCandidates;

use super::candidates;
use super::faults::Faults;
use crate::plan::{Policy, Relax};
use crate::python::Minor;
use crate::service::Service;

/// Keeps Python virtualenvs working across apt upgrades of Python.
///
/// venvguard runs inside every apt transaction. Before dpkg it knows what will change and
/// what that does to every registered venv; after dpkg it repairs them, restarts their
/// services, checks them, and rolls back what does not come up.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXIT_CODES)]
pub(super) struct Arguments {
    /// A directory that stands for the whole system.
    #[arg(long, hide = true, default_value = "/", global = true)]
    pub(super) root: PathBuf,
    /// What root keeps, instead of your own
    #[arg(long, global = true)]
    pub(super) system: bool,
    #[command(flatten)]
    pub(super) faults: Faults,
    #[command(subcommand)]
    pub(super) command: Command,
}

const EXIT_CODES: &str = "Exit status:\n  0   done\n  1   failed\n  2   the command line is wrong\n  3   something needs attention\n  10  the transaction is blocked (hook pre-install only)";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Put venvs under guard, or change what is known of them
    Register(Register),
    /// Remove previous environments: those that are too many or too old, or all of some venvs
    Prune {
        /// Names, paths, ids or globs; what is kept of them is removed now
        #[arg(add = ArgValueCandidates::new(candidates::venvs))]
        venvs: Vec<String>,
    },
    /// Stop guarding venvs (also: remove); nothing in them is changed
    #[command(alias = "remove")]
    Unregister {
        /// Names, paths, ids or globs
        #[arg(required = true, add = ArgValueCandidates::new(candidates::venvs))]
        venvs: Vec<String>,
    },
    /// List the registered venvs
    List {
        #[arg(long, help = JSON_HELP)]
        json: bool,
    },
    /// Show all that is known of some venvs
    Show {
        /// Names, paths, ids or globs
        #[arg(required = true, add = ArgValueCandidates::new(candidates::venvs))]
        venvs: Vec<String>,
        #[arg(long, help = JSON_HELP)]
        json: bool,
    },
    /// Find venvs below some directories
    Scan {
        /// Where to look (default: where venvs usually are)
        dirs: Vec<PathBuf>,
        /// Register what is found
        #[arg(long)]
        register: bool,
        #[arg(long, help = JSON_HELP)]
        json: bool,
    },
    /// Tell how the venvs are now; exit status 3 if one is not healthy
    Status {
        /// Names, paths, ids or globs (default: all)
        #[arg(add = ArgValueCandidates::new(candidates::venvs))]
        venvs: Vec<String>,
        #[arg(long, help = JSON_HELP)]
        json: bool,
    },
    /// Tell what the pending upgrade would do to the venvs, and what would be done about it
    Plan {
        /// A list as apt hands it to its hooks (version 3), instead of a simulated dist-upgrade
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
        #[arg(long, help = JSON_HELP)]
        json: bool,
    },
    /// Report what keeps venvguard from its work here, and what fixes it; exit status 3 if
    /// something does
    Doctor {
        #[arg(long, help = JSON_HELP)]
        json: bool,
    },
    /// Rebuild venvs for the interpreter that is installed now (also: upgrade)
    #[command(alias = "upgrade")]
    Rebuild(Rebuild),
    /// Restore the environment from before the last rebuild
    Rollback(Rollback),
    /// Tell what was done
    History {
        #[arg(long, help = JSON_HELP)]
        json: bool,
    },
    /// End what an interruption left: repairs, and upgrades made without apt
    Resume,
    /// Called by apt and dpkg
    Hook {
        #[command(subcommand)]
        event: HookEvent,
    },
    /// Write the man page, a shell's completions, or apt's hook
    #[command(hide = true)]
    Generate {
        #[command(subcommand)]
        what: Generated,
    },
    #[command(hide = true)]
    Confine {
        specification: String,
        #[arg(last = true, required = true)]
        program: Vec<OsString>,
    },
    /// Does a piece of work in a tree, as its owner
    #[command(hide = true)]
    Own { task: String },
    /// Called by the hook, as an ordinary user
    #[command(hide = true)]
    SettleOwn,
}

/// A file's name, or an empty one that takes back what was set.
fn file_or_nothing() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

const JSON_HELP: &str = "Print one JSON object, with a schema_version";

#[derive(Debug, Args)]
pub(super) struct Register {
    /// The venvs' directories
    #[arg(required = true)]
    pub(super) paths: Vec<PathBuf>,
    /// A name for it (default: made from the path)
    #[arg(long)]
    pub(super) name: Option<String>,
    /// What runs out of it: systemd:UNIT, supervisord:PROGRAM, runit:NAME, or user:UNIT of your own
    /// manager (default: found at each upgrade)
    #[arg(long = "service", value_name = "SERVICE")]
    pub(super) services: Vec<Service>,
    /// A command that tells whether the app works; run as the venv's owner, without a shell;
    /// an empty one removes it
    #[arg(long, value_name = "COMMAND")]
    pub(super) check: Option<String>,
    /// What to do when its interpreter changes
    #[arg(long, value_enum)]
    pub(super) policy: Option<Policy>,
    /// What a rebuild installs (default, and with an empty name: exactly what is installed now)
    #[arg(long, value_name = "FILE", value_parser = file_or_nothing())]
    pub(super) requirements: Option<PathBuf>,
    /// The lock whose versions and hashes a rebuild installs (default: the project's own gives
    /// hashes to what is installed): uv.lock, poetry.lock, pdm.lock, Pipfile.lock, pylock.toml
    /// or requirements with hashes; an empty name removes it
    #[arg(long, value_name = "FILE", conflicts_with = "requirements", value_parser = file_or_nothing())]
    pub(super) lock: Option<PathBuf>,
    /// How far a distribution may move that cannot be had in its version for a new Python
    /// (default: not at all)
    #[arg(long, value_enum)]
    pub(super) relax: Option<Relax>,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct Rebuild {
    /// Names, paths, ids or globs
    #[arg(
        required_unless_present = "all",
        conflicts_with = "all",
        add = ArgValueCandidates::new(candidates::venvs)
    )]
    pub(super) venvs: Vec<String>,
    /// Every venv that is not healthy
    #[arg(long)]
    pub(super) all: bool,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Build and check the new environments, and swap none of them in: the next rebuild does,
    /// unless the interpreter or what is installed has changed by then
    #[arg(long, conflicts_with = "dry_run")]
    pub(super) prepare: bool,
    /// How many at once (default: the number of cores, at most 4)
    #[arg(long, value_name = "N")]
    pub(super) jobs: Option<usize>,
    /// Rebuild for this minor version, as 3.13 (default: the default interpreter's for
    /// venvs that follow it or have lost theirs, their own for the others)
    #[arg(long, value_name = "X.Y")]
    pub(super) python: Option<Minor>,
    /// How far a distribution may move that cannot be had in its version for that Python
    /// (default: what was said at `register`)
    #[arg(long, value_enum)]
    pub(super) relax: Option<Relax>,
    #[arg(long, requires = "dry_run", help = JSON_HELP)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Rollback {
    /// Name, path or id
    #[arg(add = ArgValueCandidates::new(candidates::venvs))]
    pub(super) venv: String,
    /// The previous environment to go back to, as `show` names it (default: the latest)
    #[arg(long, value_name = "TREE", add = ArgValueCandidates::new(candidates::previous_trees))]
    pub(super) to: Option<PathBuf>,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    #[arg(long, requires = "dry_run", help = JSON_HELP)]
    pub(super) json: bool,
}

/// The moments of an apt or dpkg run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub(super) enum HookEvent {
    /// `DPkg::Pre-Invoke`
    PreInvoke,
    /// `DPkg::Pre-Install-Pkgs`, version 3
    PreInstall,
    /// `DPkg::Post-Invoke`
    PostInvoke,
    /// A dpkg trigger or an rtupdate script: only marks work
    Trigger,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub(super) enum Generated {
    Man,
    AptHook,
    Completions { shell: clap_complete::Shell },
}
