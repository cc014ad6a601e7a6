//! venvguard's own package, built from the checkout. It is statically linked: one package serves bullseye to forky.
//! Beside it lies the same program with the feature `faults`, for the tests that make it crash.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Lab, copy_tree};
use crate::child;

/// The sources of the package.
const SOURCES: [&str; 10] = [
    ".clippy.toml",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "debian",
    "hooks",
    "src",
];

/// The program with the feature `faults`.
const FAULTY: &str = "venvguard-faults";

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The flags that debian/rules adds.
const STATIC: &str = "-Ctarget-feature=+crt-static";

impl Lab {
    /// A directory that contains only the package and `venvguard-faults`.
    pub(crate) fn package(&self) -> Result<PathBuf> {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut hasher = DefaultHasher::new();
        for source in SOURCES {
            hash_tree(&checkout.join(source), &mut hasher)?;
        }
        let recipe = [include_str!("package.rs"), &hasher.finish().to_string()];
        self.artefact("package", &recipe, |directory| {
            // dpkg-buildpackage writes beside the source, so the source is a copy.
            let source = directory.join("source");
            fs::create_dir(&source)?;
            for name in SOURCES.map(|name| checkout.join(name)) {
                if name.exists() {
                    copy_tree(&name, &source)?;
                }
            }
            build(&source, &self.home.join("cargo"))?;
            for entry in fs::read_dir(directory)? {
                let path = entry?.path();
                if path.extension().is_none_or(|extension| extension != "deb")
                    && !path.ends_with(FAULTY)
                {
                    if path.is_dir() {
                        fs::remove_dir_all(&path)?;
                    } else {
                        fs::remove_file(&path)?;
                    }
                }
            }
            Ok(())
        })
    }
}

/// Builds the package beside its source. Cargo's output is kept in `target`, so that a change recompiles only the crate
/// itself.
fn build(source: &Path, target: &Path) -> Result<()> {
    // debhelper gives the build an empty home, where cargo would find neither its crates nor its toolchain.
    let home = PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?);
    let of_home = |variable: &str, dir: &str| {
        std::env::var_os(variable).map_or_else(|| home.join(dir), PathBuf::from)
    };
    let cargo_home = of_home("CARGO_HOME", ".cargo");
    // The same flags as the package has, so that the crates are compiled once for both programs.
    let remapped =
        format!("{STATIC} --remap-path-prefix={}=/usr/share/cargo", cargo_home.display());
    let ready = |program: &str, flags: &str| {
        let mut command = Command::new(program);
        command
            .current_dir(source)
            .env("CARGO_HOME", &cargo_home)
            .env("RUSTUP_HOME", of_home("RUSTUP_HOME", ".rustup"))
            .env("CARGO_TARGET_DIR", target)
            .env("CARGO_BUILD_TARGET", TARGET)
            .env("RUSTFLAGS", flags)
            // The lab tests behaviour, not speed, and optimising across crates takes half of the build time.
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("DEB_BUILD_OPTIONS", "nocheck");
        // Keep the test runner's own variables out of the package's build.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_BIN_") {
                command.env_remove(name);
            }
        }
        command
    };
    let mut package = ready("dpkg-buildpackage", "");
    package.args(["--build=binary", "--unsigned-changes", "--no-check-builddeps"]);
    child::output(&mut package).context("the package does not build")?;
    let mut faulty = ready("cargo", &remapped);
    faulty.args(["build", "--release", "--locked", "--quiet", "--features", "faults"]);
    child::output(&mut faulty).context("the program with faults does not build")?;
    let made = target.join(TARGET).join("release/venvguard");
    fs::copy(made, source.with_file_name(FAULTY))?;
    Ok(())
}

fn hash_tree(path: &Path, hasher: &mut DefaultHasher) -> Result<()> {
    if path.is_dir() {
        let mut entries: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(path)? {
            entries.push(entry?.path());
        }
        entries.sort();
        for entry in entries {
            hash_tree(&entry, hasher)?;
        }
    } else if path.is_file() {
        path.hash(hasher);
        fs::read(path)?.hash(hasher);
    }
    Ok(())
}
