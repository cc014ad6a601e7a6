//! The foundation of the cases, made once and kept below `target/lab/`: roots, upgrades, wheelhouses, venvs, the package.
//!
//! An artefact is made in a temporary directory and renamed when it is complete. Its name contains a hash of its recipe,
//! so that a changed recipe makes it anew. `rm -r target/lab` makes the next run ask the mirror again.

pub(crate) mod distributions;
pub(crate) mod extra;
pub(crate) mod grid;
pub(crate) mod package;
pub(crate) mod releases;
pub(crate) mod repackage;
pub(crate) mod root;
pub(crate) mod upgrade;
pub(crate) mod venvs;
pub(crate) mod wheelhouse;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};

use crate::child;
use crate::overlay::{Overlay, ROOM, mount_memory};
use crate::times::{Part, Time, Times};

/// The size, in MiB, of the tmpfs for the overlays' mount points, and of the one for systemd-nspawn's own files.
const FEW_FILES: u64 = 64;

type Slot = Arc<Mutex<Option<Result<PathBuf, String>>>>;

/// The workshop: the place of artefacts and overlays, and the mirror to ask.
pub(crate) struct Lab {
    home: PathBuf,
    mirror: Mirror,
    slots: Mutex<HashMap<String, Slot>>,
    pub(crate) times: Times,
    _lock: fs::File,
}

/// The archive, as this machine's own apt knows it.
struct Mirror {
    main: String,
    security: String,
}

impl Lab {
    /// Opens the workshop; needs root and a private mount namespace.
    pub(crate) fn open(home: PathBuf) -> Result<Self> {
        let memory = home.join("memory");
        fs::create_dir_all(&memory)?;
        let lock = fs::File::create(home.join("lock"))?;
        // Two runs in one checkout would remove each other's half-made artefacts.
        fs2::FileExt::try_lock_exclusive(&lock)
            .context("another run of the lab is under way in this checkout")?;
        mount_memory(&memory, FEW_FILES)?;
        // systemd-nspawn leaves directories here where /run is no file system of its own.
        let nspawn = Path::new("/run/systemd/nspawn");
        fs::create_dir_all(nspawn)?;
        mount_memory(nspawn, FEW_FILES)?;
        Ok(Self {
            home,
            mirror: Mirror::of_this_machine()?,
            slots: Mutex::default(),
            times: Times::default(),
            _lock: lock,
        })
    }

    /// A throw-away copy of a root.
    pub(crate) fn overlay(&self, name: &str, lower: &Path) -> Result<Overlay> {
        self.overlay_with_room(name, lower, ROOM)
    }

    /// A throw-away copy that takes up to `room` MiB.
    pub(crate) fn overlay_with_room(&self, name: &str, lower: &Path, room: u64) -> Result<Overlay> {
        Overlay::new(&self.home.join("memory"), name, lower, room)
    }

    /// The directory of an artefact: made now, or kept from an earlier run with the same recipe.
    /// Threads that want the same artefact wait for the first of them; a failure is kept, so that the others do not try
    /// again.
    fn artefact(
        &self,
        name: &str,
        recipe: &[&str],
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let mut hasher = DefaultHasher::new();
        recipe.hash(&mut hasher);
        let slot = Arc::clone(
            self.slots
                .lock()
                .map_err(|_| anyhow!("a preparation panicked"))?
                .entry(name.to_owned())
                .or_default(),
        );
        let mut slot = slot.lock().map_err(|_| anyhow!("the preparation of {name} panicked"))?;
        let outcome = slot.get_or_insert_with(|| {
            self.make(name, hasher.finish(), make).map_err(|error| format!("{error:#}"))
        });
        outcome.clone().map_err(|error| anyhow!("cannot prepare {name}: {error}"))
    }

    fn make(
        &self,
        name: &str,
        recipe: u64,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let finished = self.home.join(format!("{name}~{recipe:016x}"));
        if finished.is_dir() {
            return Ok(finished);
        }
        let started = Instant::now();
        for entry in fs::read_dir(&self.home)? {
            let entry = entry?;
            let made_before = entry.file_name();
            if made_before.to_string_lossy().split('~').next() == Some(name) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        let growing = self.home.join(format!("{name}~growing"));
        fs::create_dir(&growing)?;
        make(&growing)?;
        fs::rename(&growing, &finished)?;
        let seconds = started.elapsed().as_secs_f32();
        println!("lab: prepared {name} in {seconds:.1} s, {} MB", megabytes(&finished)?);
        let name = name.to_owned();
        self.times.enter(Time {
            part: Part::Preparation,
            name,
            seconds,
            boot: None,
            mebibytes: None,
        });
        Ok(finished)
    }
}

impl Mirror {
    /// Reads apt's own sources: the first is the archive, the one named `…security` the other.
    fn of_this_machine() -> Result<Self> {
        let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
        if let Ok(dir) = fs::read_dir("/etc/apt/sources.list.d") {
            files.extend(dir.flatten().map(|entry| entry.path()));
        }
        files.sort();
        let mut addresses = Vec::new();
        for file in files {
            let is_list = file.extension() == Some(OsStr::new("list"));
            let is_deb822 = file.extension() == Some(OsStr::new("sources"));
            if !is_list && !is_deb822 {
                continue;
            }
            let text = fs::read_to_string(&file).unwrap_or_default();
            addresses.extend(text.lines().filter_map(archive_of_line));
        }
        let of = |security: bool| {
            addresses.iter().find(|address| address.ends_with("security") == security).cloned()
        };
        let Some(main) = of(false) else {
            bail!("no Debian archive in this machine's apt sources");
        };
        let security = of(true).unwrap_or_else(|| format!("{main}-security"));
        Ok(Self { main, security })
    }
}

/// The archive that a line of apt's sources names, in the old form or in deb822.
fn archive_of_line(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let address = match words.next()? {
        "URIs:" => words.next()?,
        "deb" => words.find(|word| word.contains("://"))?,
        _ => return None,
    };
    let address = address.trim_end_matches('/');
    (address.ends_with("/debian") || address.ends_with("/debian-security"))
        .then(|| address.to_owned())
}

/// Runs a script in a root that is not booted, as the first process and with this machine's network.
fn run_in(
    overlay: &Overlay,
    binds: &[(&Path, &str)],
    script: &str,
    arguments: &[&str],
) -> Result<String> {
    let mut command = container(overlay, binds);
    command.arg("--resolv-conf=copy-host");
    // Passes on pip's configuration, except for wheels in directories of the host.
    for (key, value) in std::env::vars() {
        let proxy = key.to_ascii_lowercase().ends_with("_proxy");
        if proxy || (key.starts_with("PIP_") && key != "PIP_FIND_LINKS") {
            command.arg(format!("--setenv={key}={value}"));
        }
    }
    child::output(command.args(["/bin/sh", "-euc", script, "sh"]).args(arguments))
}

/// Runs such a script without a network.
fn run_offline(
    overlay: &Overlay,
    binds: &[(&Path, &str)],
    script: &str,
    arguments: &[&str],
) -> Result<String> {
    let mut command = container(overlay, binds);
    command.args(["--private-network", "--resolv-conf=off", "/bin/sh", "-euc", script, "sh"]);
    child::output(command.args(arguments))
}

fn container(overlay: &Overlay, binds: &[(&Path, &str)]) -> Command {
    let mut command = Command::new("systemd-nspawn");
    command
        .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
        .arg("--quiet")
        .arg("--directory")
        .arg(overlay.root())
        .arg(machine_name(overlay))
        .args([
            "--as-pid2",
            "--register=no",
            "--keep-unit",
            "--pipe",
            "--timezone=off",
            "--setenv=DEBIAN_FRONTEND=noninteractive",
            // Linking needs a machine-id, which a fresh root lacks.
            "--link-journal=no",
        ]);
    for (here, there) in binds {
        let mut bind = std::ffi::OsString::from("--bind=");
        bind.push(here);
        bind.push(":");
        bind.push(there);
        command.arg(bind);
    }
    command
}

/// systemd-nspawn keeps files under a machine's name, and two machines must not share them.
pub(crate) fn machine_name(overlay: &Overlay) -> String {
    format!("--machine=lab-{}-{}", std::process::id(), overlay.name())
}

/// Copies a tree with all its attributes.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    child::output(Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to))?;
    Ok(())
}

fn megabytes(dir: &Path) -> Result<u64> {
    let said = child::output(Command::new("du").args(["-s", "-B1000000"]).arg(dir))?;
    let size = said.split_whitespace().next().unwrap_or_default();
    size.parse().with_context(|| format!("du said {said:?}"))
}
