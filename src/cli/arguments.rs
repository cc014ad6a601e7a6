//! The command line.

use std::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::{
    BoolValueParser, EnumValueParser, OsStringValueParser, StringValueParser, TypedValueParser,
};
use clap::{ArgAction, Args, Parser, Subcommand};
use clap_complete::ArgValueCandidates;
use jiff::SignedDuration;

use super::candidates;
use super::faults::Faults;
use super::values::{self, OrNothing};
use crate::guard::Setting;
use crate::plan::{Policy, Relax, RestartMode, Window};
use crate::python::Minor;
use crate::service::{Probe, Service};
use crate::store::Pause;

/// keep Python virtualenvs working across apt upgrades of Python
///
/// venvguard runs inside apt. Before dpkg runs, it predicts which interpreters change and what that does
/// to each registered venv. Afterwards it repairs the venvs, restarts and checks their services, and
/// rolls back a venv whose services fail.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXIT_CODES)]
pub(super) struct Arguments {
    /// Use this directory as the root of the system.
    #[arg(long, hide = true, default_value = "/", global = true)]
    pub(super) root: PathBuf,
    /// Use root's registry instead of your own
    #[arg(long, global = true)]
    pub(super) system: bool,
    #[command(flatten)]
    pub(super) faults: Faults,
    #[command(subcommand)]
    pub(super) command: Command,
}

const EXIT_CODES: &str = "Exit status:\n  0   done\n  1   failed\n  2   the command line is wrong\n  3   something needs attention\n  10  the apt run is blocked (hook pre-install only)";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Register venvs, or change their settings
    Register(Box<Register>),
    /// Remove previous environments and prepared trees: all of the named venvs, or those beyond the
    /// limits
    Prune {
        /// Names, paths, ids or globs (default: only what exceeds keep-trees and keep-days)
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
    /// Show everything about some venvs
    Show {
        /// Names, paths, ids or globs
        #[arg(required = true, add = ArgValueCandidates::new(candidates::venvs))]
        venvs: Vec<String>,
        #[arg(long, help = JSON_HELP)]
        json: bool,
    },
    /// Find venvs below some directories
    Scan {
        /// Directories to search (default: the local file systems, except the directories of the system;
        /// for an ordinary user, their home)
        dirs: Vec<PathBuf>,
        /// Register the venvs that were found
        #[arg(long)]
        register: bool,
        #[arg(long, help = JSON_HELP)]
        json: bool,
    },
    /// Show the state of each venv; exit status 3 if one is not healthy
    Status(Status),
    /// Print metrics of the venvs for Prometheus
    Metrics {
        /// Write them where `node_exporter` reads them, and the summary that `status --nagios` reads
        #[arg(long)]
        write: bool,
        #[arg(long, conflicts_with = "write", help = JSON_HELP)]
        json: bool,
    },
    /// List the processes that run Python code that was replaced; exit status 3 if there is one
    Processes {
        #[arg(long, help = JSON_HELP)]
        json: bool,
    },
    /// Show what the pending upgrade does to the venvs, and how venvguard repairs them
    Plan {
        /// Read a list in the format of apt's hooks (version 3) instead of simulating dist-upgrade
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
        #[arg(long, help = JSON_HELP)]
        json: bool,
    },
    /// Build and check the venvs with the Python of the pending upgrade, before it is installed
    Rehearse {
        /// Names, paths, ids or globs (default: all)
        #[arg(add = ArgValueCandidates::new(candidates::venvs))]
        venvs: Vec<String>,
        /// Rehearse the upgrade to this release, for example trixie, instead of the pending one; apt's
        /// own sources and lists stay as they are
        #[arg(long, value_name = "RELEASE")]
        release: Option<String>,
        /// Do what the configuration asks for after an update of apt's package lists
        #[arg(long, hide = true, conflicts_with_all = ["release", "venvs"])]
        forecast: bool,
        #[arg(long, help = JSON_HELP)]
        json: bool,
    },
    /// Check this machine for faults and suggest fixes; exit status 3 if there is a fault
    Doctor {
        #[arg(long, help = JSON_HELP)]
        json: bool,
    },
    /// Find the cause of a Python failure, and the fix; exit status 3 if a cause is known
    Diagnose(Diagnose),
    /// Rebuild venvs for the interpreter that is installed now (also: upgrade)
    #[command(alias = "upgrade")]
    Rebuild(Rebuild),
    /// Restart the services of venvs
    Restart {
        /// Names, paths, ids or globs
        #[arg(
            required_unless_present_any = ["all", "due"],
            conflicts_with_all = ["all", "due"],
            add = ArgValueCandidates::new(candidates::venvs)
        )]
        venvs: Vec<String>,
        /// Restart the services of every venv with a process that runs code that was replaced
        #[arg(long)]
        all: bool,
        /// Repair the venvs whose services wait for a window that is open
        #[arg(long, conflicts_with = "all")]
        due: bool,
        /// Print which services are restarted, and do nothing
        #[arg(long)]
        dry_run: bool,
        #[arg(long, requires = "dry_run", help = JSON_HELP)]
        json: bool,
    },
    /// Restore the environment from before the last rebuild
    Rollback(Rollback),
    /// Keep apt from upgrading Python for a while, security updates included
    Hold {
        /// How long, for example 14d or 36h (default: until `venvguard unhold`)
        #[arg(long = "for", value_name = "TIME", value_parser = values::duration)]
        time: Option<SignedDuration>,
        /// Why, for those who read it later
        #[arg(long)]
        reason: Option<String>,
        /// Print the hold as it is and as it would be, and do nothing
        #[arg(long)]
        dry_run: bool,
        #[arg(long, requires = "dry_run", help = JSON_HELP)]
        json: bool,
    },
    /// Let apt upgrade Python again
    Unhold {
        /// Print the hold that would end, and do nothing
        #[arg(long)]
        dry_run: bool,
        #[arg(long, requires = "dry_run", help = JSON_HELP)]
        json: bool,
    },
    /// Show what venvguard did
    History {
        #[arg(long, help = JSON_HELP)]
        json: bool,
    },
    /// Finish interrupted repairs, and repair venvs after an upgrade without apt
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
    /// Do one task in a tree, as its owner
    #[command(hide = true)]
    Own { task: String },
    /// Repair the venvs of an ordinary user, as that user; called by the hook
    #[command(hide = true)]
    SettleOwn,
    /// Check whether something answers at an address
    #[command(hide = true)]
    Probe {
        /// Print the status of its HTTP answer, and accept any
        #[arg(long)]
        status: bool,
        address: Probe,
    },
    /// Restart units of an ordinary user, as that user; called by the hook
    #[command(hide = true)]
    RestartOwn { units: Vec<String> },
}

/// A file's name, or an empty one that takes back what was set.
fn file_or_nothing() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

fn parsed<T>() -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err: Error + Send + Sync + 'static> + Clone + Send + Sync + 'static,
{
    StringValueParser::new().try_map(|text| text.parse::<T>())
}

const JSON_HELP: &str = "Print one JSON object, with a schema_version";

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Names, paths, ids or globs (default: all)
    #[arg(add = ArgValueCandidates::new(candidates::venvs))]
    pub(super) venvs: Vec<String>,
    /// Answer like a plugin of Nagios and Icinga, from the latest summary; needs no root
    #[arg(long, conflicts_with_all = ["venvs", "json", "motd"])]
    pub(super) nagios: bool,
    /// With --nagios, add a line for each venv
    #[arg(short, long, action = ArgAction::Count, requires = "nagios")]
    pub(super) verbose: u8,
    /// Print the message of the day, from the latest summary
    #[arg(long, hide = true, conflicts_with_all = ["venvs", "json"])]
    pub(super) motd: bool,
    #[arg(long, help = JSON_HELP)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Register {
    /// The directories of the venvs
    #[arg(required = true)]
    pub(super) paths: Vec<PathBuf>,
    /// The name of the venv (default: derived from its path)
    #[arg(long)]
    pub(super) name: Option<String>,
    /// A service that runs from the venv: systemd:UNIT, supervisord:PROGRAM, runit:NAME, s6:NAME, or user:UNIT
    /// of your own systemd manager (default: discovered at each upgrade); an empty one clears the
    /// setting
    #[arg(long = "service", value_name = "SERVICE", value_parser = OrNothing(parsed::<Service>()))]
    pub(super) services: Vec<Setting<Service>>,
    /// A command that exits 0 if the application works, or an address that must answer
    /// (http://HOST:PORT/PATH, http+unix:SOCKET:/PATH, unix:SOCKET, tcp:HOST:PORT); runs as the owner of
    /// the venv, without a shell; an empty one clears the setting
    #[arg(long, value_name = "COMMAND")]
    pub(super) check: Option<String>,
    /// What to do when its interpreter changes
    #[arg(long, value_enum)]
    pub(super) policy: Option<Policy>,
    /// Whether its running services are restarted automatically (default: `restart` in the configuration);
    /// an empty one clears the setting
    #[arg(long, value_parser = OrNothing(EnumValueParser::<RestartMode>::new()))]
    pub(super) restart: Option<Setting<RestartMode>>,
    /// When its services may be restarted with --restart window, for example 'Sat 03:00..05:00'
    /// (default: `window` in the configuration); an empty one clears the setting
    #[arg(long, value_name = "WINDOW", value_parser = OrNothing(parsed::<Window>()))]
    pub(super) window: Option<Setting<Window>>,
    /// The pause between instances of a template (web@1, web@2) or programs of a group, which then restart
    /// one after another; "no" restarts them together (default: `rolling` in the configuration); an empty
    /// one clears the setting
    #[arg(long, value_name = "PAUSE", value_parser = OrNothing(parsed::<Pause>()))]
    pub(super) rolling: Option<Setting<Pause>>,
    /// Whether venvguard probes a service without a check: if it answers GET / without an error of the
    /// server before a repair, it must do so afterwards (default: `probe` in the configuration); an
    /// empty one clears the setting
    #[arg(long, value_name = "BOOL", value_parser = OrNothing(BoolValueParser::new()))]
    pub(super) probe: Option<Setting<bool>>,
    /// A requirements file that a rebuild installs (default: exactly what is installed now); an empty
    /// name clears the setting
    #[arg(long, value_name = "FILE", value_parser = file_or_nothing())]
    pub(super) requirements: Option<PathBuf>,
    /// A lock file whose versions and hashes a rebuild installs: uv.lock, poetry.lock, pdm.lock,
    /// Pipfile.lock, pylock.toml, or requirements with hashes (default: the hashes in the lock of the
    /// project); an empty name clears the setting
    #[arg(long, value_name = "FILE", conflicts_with = "requirements", value_parser = file_or_nothing())]
    pub(super) lock: Option<PathBuf>,
    /// A command that fills a rebuilt venv, for an application that builds its venv itself; runs as the
    /// owner of the venv, in the directory that contains it, without a shell (default: what is installed now
    /// is installed again); an empty one clears the setting
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["requirements", "lock"])]
    pub(super) build_command: Option<String>,
    /// How far a distribution may move if its version has no file for a new Python (default: not at
    /// all); an empty one clears the setting
    #[arg(long, value_parser = OrNothing(EnumValueParser::<Relax>::new()))]
    pub(super) relax: Option<Setting<Relax>>,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct Rebuild {
    /// Names, paths, ids or globs
    #[arg(
        required_unless_present_any = ["all", "ready"],
        conflicts_with_all = ["all", "ready"],
        add = ArgValueCandidates::new(candidates::venvs)
    )]
    pub(super) venvs: Vec<String>,
    /// Repair every venv that is stale, orphaned, stranded or restart-needed, and move those that
    /// venvguard has pinned back to the default interpreter
    #[arg(long)]
    pub(super) all: bool,
    /// Rebuild the pinned venvs whose new trees the forecast has prepared, unless their
    /// services are not restarted automatically
    #[arg(long, conflicts_with_all = ["all", "prepare", "jobs", "python", "relax", "timings"])]
    pub(super) ready: bool,
    /// Print what a rebuild does, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Build and check the new trees without swapping them in; the next rebuild does that,
    /// unless the interpreter or the installed distributions have changed
    #[arg(long, conflicts_with = "dry_run")]
    pub(super) prepare: bool,
    /// How many venvs to build in parallel (default: `jobs` in the configuration)
    #[arg(long, value_name = "N")]
    pub(super) jobs: Option<usize>,
    /// Rebuild for this minor version, for example 3.13 (default: that of /usr/bin/python3 for venvs
    /// that follow it or have lost their interpreter, their own for the others)
    #[arg(long, value_name = "X.Y")]
    pub(super) python: Option<Minor>,
    /// How far a distribution may move if its version has no file for that Python (default: as
    /// registered)
    #[arg(long, value_enum)]
    pub(super) relax: Option<Relax>,
    /// Print how long each step took
    #[arg(long, conflicts_with = "dry_run")]
    pub(super) timings: bool,
    #[arg(long, requires = "dry_run", help = JSON_HELP)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Diagnose {
    /// Name, path or id of a venv that fails; - reads the text of a failure from standard input
    #[arg(
        required_unless_present_any = ["unit", "file"],
        conflicts_with_all = ["unit", "file"],
        add = ArgValueCandidates::new(candidates::venvs)
    )]
    pub(super) venv: Option<String>,
    /// A unit of systemd that fails: reads its journal since its last start
    #[arg(long, value_name = "UNIT", conflicts_with = "file")]
    pub(super) unit: Option<String>,
    /// A file with a traceback or a log
    #[arg(long, value_name = "TRACE")]
    pub(super) file: Option<PathBuf>,
    #[arg(long, help = JSON_HELP)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Rollback {
    /// Name, path or id
    #[arg(add = ArgValueCandidates::new(candidates::venvs))]
    pub(super) venv: String,
    /// The previous environment to restore, as `show` names it (default: the latest)
    #[arg(long, value_name = "TREE", add = ArgValueCandidates::new(candidates::previous_trees))]
    pub(super) to: Option<PathBuf>,
    /// Print what the rollback does, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    #[arg(long, requires = "dry_run", help = JSON_HELP)]
    pub(super) json: bool,
}

/// The moments of an apt or dpkg run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub(super) enum HookEvent {
    /// `AptCli::Hooks`, with apt's socket as standard input
    Statistics,
    /// `DPkg::Pre-Invoke`
    PreInvoke,
    /// `DPkg::Pre-Install-Pkgs`, version 3
    PreInstall,
    /// A process of `pre-install`, with apt's list as standard input
    Rehearse {
        /// Also the venvs that were not ready
        #[arg(long)]
        again: bool,
    },
    /// `DPkg::Post-Invoke`
    PostInvoke,
    /// A dpkg trigger or an rtupdate script: only records that there is work
    Trigger,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub(super) enum Generated {
    Man,
    AptHook,
    Completions { shell: clap_complete::Shell },
}
