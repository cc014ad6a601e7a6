//! Packages that the lab makes: Debian's Python with the next version, without compiling, and small packages without
//! Python.
//!
//! The next patch gets a new C name that its new standard library imports. Such a name broke copied interpreters in the
//! field: `ImportError: cannot import name 'HAS_TLSv1_3' from '_socket'`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use object::{Object, ObjectSection, ObjectSymbol};

use super::upgrade::Python;
use crate::child;

/// A name of the built-in `_socket` that nobody misses; the new name has the same length.
const OLD_NAME: &[u8] = b"\0IPPROTO_EGP\0";
const NEW_NAME: &[u8] = b"\0HAS_TLSv1_3\0";

/// The upstream version after this one.
pub(crate) fn next_patch(upstream: &str) -> Result<String> {
    let (minor, patch) = upstream.rsplit_once('.').context("an odd version")?;
    let next = (patch.parse::<u32>()? + 1).to_string();
    // The version is replaced inside a binary, where there is no room for another digit.
    ensure!(next.len() == patch.len(), "{upstream} has no next patch of the same length");
    Ok(format!("{minor}.{next}"))
}

/// Turns the package `original` of version `from` into one of version `to`.
pub(crate) fn python(original: &Path, from: &Python, to: &Python, repository: &Path) -> Result<()> {
    let tree = unpack(original)?;
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control)?;
    ensure!(text.contains(&from.debian), "{} is of another version", original.display());
    fs::write(&control, text.replace(&from.debian, &to.debian))?;

    for program in [
        format!("usr/bin/python{}", from.minor),
        format!("usr/lib/x86_64-linux-gnu/libpython{}.so.1.0", from.minor),
    ] {
        let program = tree.join(program);
        if program.is_file() {
            rebuild_interpreter(&program, from, to)?;
        }
    }
    let library = tree.join(format!("usr/lib/python{}", from.minor));
    // Also a new name in pure Python, which a process that runs across the upgrade lacks.
    edit(&library.join("email/errors.py"), |text| {
        format!("{text}\n\nclass LabError(MessageError):\n    \"\"\"New in this version.\"\"\"\n")
    })?;
    edit(&library.join("email/generator.py"), |text| {
        text.replacen("\nimport ", "\nfrom email.errors import LabError\nimport ", 1)
    })?;
    if from.upstream != to.upstream {
        edit(&library.join("ssl.py"), |text| {
            text.replacen(
                "\nimport _ssl ",
                "\nfrom _socket import HAS_TLSv1_3 as _lab\nimport _ssl ",
                1,
            )
        })?;
    }
    pack(&tree, repository)
}

/// Adds `lab-plain`, in two versions, and `lab-halt`, which cannot be installed before `/etc/lab-go` exists.
pub(crate) fn add_lab_packages(repository: &Path) -> Result<()> {
    let halt = "#!/bin/sh\nif [ \"$1\" = install ]; then test -e /etc/lab-go; fi\n";
    for (name, version, preinst) in
        [("lab-plain", "1.0", None), ("lab-plain", "1.1", None), ("lab-halt", "1.0", Some(halt))]
    {
        let tree = repository.join("tree");
        fs::create_dir_all(tree.join("DEBIAN"))?;
        fs::write(
            tree.join("DEBIAN/control"),
            format!(
                "Package: {name}\nVersion: {version}\nArchitecture: all\nPriority: optional\n\
                 Maintainer: The lab <root@localhost>\nDescription: a package of the lab\n"
            ),
        )?;
        if let Some(text) = preinst {
            use std::os::unix::fs::PermissionsExt;
            let path = tree.join("DEBIAN/preinst");
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        let dir = tree.join("usr/share").join(name);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("version"), version)?;
        pack(&tree, repository)?;
    }
    Ok(())
}

fn unpack(package: &Path) -> Result<PathBuf> {
    let tree = package.with_extension("tree");
    child::output(Command::new("dpkg-deb").arg("-R").arg(package).arg(&tree))?;
    Ok(tree)
}

/// Packs a tree and removes it. Makes the md5sums anew, because venvguard tells builds of Python apart by them.
fn pack(tree: &Path, repository: &Path) -> Result<()> {
    child::output(
        Command::new("sh")
            .args([
                "-euc",
                "find . -type f ! -path './DEBIAN/*' -printf '%P\\0' | xargs -0r md5sum >DEBIAN/md5sums",
            ])
            .current_dir(tree),
    )?;
    child::output(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zgzip", "-z1", "--build"])
            .arg(tree)
            .arg(repository),
    )?;
    fs::remove_dir_all(tree)?;
    Ok(())
}

/// Changes a file if it exists (each is in one of several packages); a change without effect is an error.
fn edit(path: &Path, change: impl FnOnce(&str) -> String) -> Result<()> {
    if !path.is_file() {
        return Ok(());
    }
    let before = fs::read_to_string(path)?;
    let after = change(&before);
    ensure!(after != before, "nothing to change in {}", path.display());
    fs::write(path, after)?;
    Ok(())
}

/// Gives an interpreter another build-id and, for another upstream version, that version and the new name.
fn rebuild_interpreter(path: &Path, from: &Python, to: &Python) -> Result<()> {
    let mut binary = fs::read(path)?;
    let (build_id, version) = {
        let elf = object::File::parse(&*binary)?;
        let build_id = elf.build_id()?.context("no build-id")?;
        let build_id = find(&binary, build_id).context("the build-id was not found")?;
        (build_id, version_symbol(&elf)?)
    };
    binary[build_id] ^= 0xff;
    if from.upstream != to.upstream {
        let version = version.context("the interpreter has no Py_Version")?;
        // 0xXXYYZZLS, little-endian: the patch is the second byte.
        binary[version + 1] += 1;
        replace(&mut binary, OLD_NAME, NEW_NAME)?;
        for end in ["\0", " "] {
            let old = format!("{}{end}", from.upstream);
            let new = format!("{}{end}", to.upstream);
            // Some builds contain the version in one form only.
            let _ = replace(&mut binary, old.as_bytes(), new.as_bytes());
        }
        ensure!(
            find(&binary, to.upstream.as_bytes()).is_some(),
            "the interpreter does not name its version"
        );
    }
    fs::write(path, binary)?;
    Ok(())
}

/// The offset of the interpreter's version number in its file.
fn version_symbol(elf: &object::File<'_>) -> Result<Option<usize>> {
    let Some(symbol) = elf.dynamic_symbols().find(|symbol| symbol.name() == Ok("Py_Version"))
    else {
        return Ok(None);
    };
    for section in elf.sections() {
        let inside = symbol.address().checked_sub(section.address());
        if let (Some(inside), Some((start, length))) = (inside, section.file_range()) {
            if inside < length {
                return Ok(Some(usize::try_from(start + inside)?));
            }
        }
    }
    bail!("Py_Version lies in no section")
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

fn replace(text: &mut [u8], old: &[u8], new: &[u8]) -> Result<()> {
    let mut start = 0;
    while let Some(found) = find(&text[start..], old) {
        text[start + found..start + found + new.len()].copy_from_slice(new);
        start += found + new.len();
    }
    ensure!(start > 0, "{:?} was not found", String::from_utf8_lossy(old));
    Ok(())
}
