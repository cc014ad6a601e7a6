//! venvguard's own package, built from the checkout; statically linked, so that one serves bullseye to forky.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Lab, copy_tree};
use crate::child;

/// What the package is built from.
const SOURCES: [&str; 9] = [
    ".clippy.toml",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "build.rs",
    "debian",
    "hooks",
    "src",
];

const TARGET: &str = "x86_64-unknown-linux-gnu";

impl Lab {
    /// A folder that holds the package and nothing else.
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
                if path.extension().is_none_or(|extension| extension != "deb") {
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

/// Builds the package beside its source. What cargo makes is kept in `target`: only the crate itself is compiled again
/// when it has changed.
fn build(source: &Path, target: &Path) -> Result<()> {
    if !source.join("debian").exists() {
        return build_by_hand(source, target);
    }
    // debhelper gives the build an empty home, where cargo would find neither its crates nor its toolchain.
    let home = PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?);
    let of_home = |variable: &str, folder: &str| {
        std::env::var_os(variable).map_or_else(|| home.join(folder), PathBuf::from)
    };
    let mut command = Command::new("dpkg-buildpackage");
    command
        .args(["--build=binary", "--unsigned-changes", "--no-check-builddeps"])
        .current_dir(source)
        .env("CARGO_HOME", of_home("CARGO_HOME", ".cargo"))
        .env("RUSTUP_HOME", of_home("RUSTUP_HOME", ".rustup"))
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_BUILD_TARGET", TARGET)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env("DEB_BUILD_OPTIONS", "nocheck");
    // What the test runner sets for itself is not for the package's build.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_BIN_") {
            command.env_remove(name);
        }
    }
    child::output(&mut command).context("the package does not build")?;
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

/// PROVISIONAL, until there is `debian/`: the binary and apt's snippet, and nothing else.
fn build_by_hand(source: &Path, target: &Path) -> Result<()> {
    let binary = target.join(TARGET).join("release/venvguard");
    child::output(
        Command::new("cargo")
            .args(["build", "--quiet", "--release", "--locked", "--target", TARGET])
            .current_dir(source)
            .env("CARGO_TARGET_DIR", target)
            .env("RUSTFLAGS", "-C target-feature=+crt-static"),
    )?;
    let tree = source.join("tree");
    for folder in ["DEBIAN", "usr/sbin", "etc/apt/apt.conf.d"] {
        fs::create_dir_all(tree.join(folder))?;
    }
    fs::copy(binary, tree.join("usr/sbin/venvguard"))?;
    fs::write(
        tree.join("DEBIAN/control"),
        "Package: venvguard\nVersion: 0~lab\nArchitecture: amd64\nMaintainer: The lab <root@localhost>\n\
         Description: provisional\n",
    )?;
    fs::write(tree.join("DEBIAN/conffiles"), "/etc/apt/apt.conf.d/50venvguard\n")?;
    fs::write(
        tree.join("etc/apt/apt.conf.d/50venvguard"),
        r#"DPkg::Pre-Invoke { "test ! -x /usr/sbin/venvguard || /usr/sbin/venvguard hook pre-invoke || true"; };
DPkg::Pre-Install-Pkgs { "/usr/sbin/venvguard hook pre-install || test $? -ne 10"; };
DPkg::Tools::Options::/usr/sbin/venvguard::Version "3";
DPkg::Tools::Options::/usr/sbin/venvguard::InfoFD "20";
DPkg::Post-Invoke { "test ! -x /usr/sbin/venvguard || /usr/sbin/venvguard hook post-invoke || true"; };
"#,
    )?;
    child::output(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "--build"])
            .arg(tree)
            .arg(source.with_file_name("venvguard_0~lab_amd64.deb")),
    )?;
    Ok(())
}
