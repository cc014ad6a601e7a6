//! The files that the creators of venvs (venv, virtualenv, uv) write, by name and location.

use std::ffi::OsStr;
use std::path::Path;

use rustix::fs::FileType;

use super::Flavour;
use crate::host::Dir;
use crate::python::Minor;

/// The file in which venvguard lists the user files of a tree that its counterpart contains too.
pub(crate) const CARRIED: &str = ".venvguard-carried";

/// The largest mark has 194 bytes.
const MARK_LIMIT: u64 = 4 << 10;

/// The activation scripts of every shell.
const SCRIPTS: [&str; 15] = [
    "activate",
    "activate.bat",
    "activate.csh",
    "activate.fish",
    "activate.nu",
    "activate.ps1",
    "activate.xsh",
    "activate_this.py",
    "Activate.ps1",
    "deactivate.bat",
    "deactivate.csh",
    "deactivate.fish",
    "deactivate.nu",
    "pydoc.bat",
    "python-config",
];

/// Programs that come with a venv, also with a version appended: `pip3.11`, `pip-3.11`. Python
/// 3.14 has an additional name for itself.
const PROGRAMS: [&str; 6] = ["python", "𝜋thon", "pip", "wheel", "easy_install", "pypy"];

/// Scripts that every creator generates for the venv's path. It may copy others with their times.
const WRITTEN: [&str; 2] = ["activate.csh", "activate.fish"];

/// Whether a creator writes a script of this name into `bin`.
pub(crate) fn is_creators_script(name: &OsStr) -> bool {
    SCRIPTS.iter().any(|script| name == *script)
}

/// The activation scripts that were changed after creation. A creator writes all of them within a
/// moment.
pub(super) fn edited_scripts(bin: &Dir) -> Vec<&'static str> {
    const MOMENT: i64 = 60;
    let written = |name| {
        let stat = bin.stat(name).ok()?;
        FileType::from_raw_mode(stat.st_mode).is_file().then_some((name, stat.st_mtime))
    };
    let scripts: Vec<(&str, i64)> = SCRIPTS.into_iter().filter_map(written).collect();
    let written = scripts.iter().filter(|(name, _)| WRITTEN.contains(name));
    let Some(first) = written.map(|(_, at)| *at).min() else { return Vec::new() };
    let edited = scripts.into_iter().filter(|(_, at)| at.saturating_sub(first) > MOMENT);
    edited.map(|(name, _)| name).collect()
}

/// Whether the creator of a venv created `path` in it; for a directory, with all its contents.
/// `dir` is the directory that contains it.
pub(super) fn created_by_tool(
    dir: &Dir,
    path: &Path,
    kind: FileType,
    flavour: Flavour,
    site: Minor,
) -> bool {
    let names: Vec<&str> = path.iter().filter_map(|name| name.to_str()).collect();
    if names.len() != path.iter().count() {
        return false;
    }
    match names[..] {
        ["pyvenv.cfg" | "pip-selfcheck.json" | CARRIED] => kind.is_file(),
        ["lib64"] => kind.is_symlink(),
        [name @ (".gitignore" | "CACHEDIR.TAG" | ".lock")] => is_mark(dir, name),
        ["bin", name] => SCRIPTS.contains(&name) || is_program(name),
        ["include", name] => kind.is_symlink() && name.starts_with("python"),
        // Debian's venv kept the wheels of pip there until 3.9.
        ["share", "python-wheels"] => true,
        ["lib", name] if kind.is_dir() => {
            Minor::of_program(name).is_some_and(|minor| minor != site)
        }
        // virtualenv copies the library that the interpreter needs, if it finds one.
        ["lib", name] => name.starts_with("libpython"),
        ["lib", _, "site-packages"] => false,
        ["lib", python, _] => {
            flavour == Flavour::LegacyVirtualenv && Minor::of_program(python) == Some(site)
        }
        ["lib", _, "site-packages", name] => {
            // pip renames directories like this before it removes them.
            name.starts_with('~')
                || matches!(name, "_virtualenv.py" | "_virtualenv.pth")
                || name.ends_with(".virtualenv")
        }
        _ => false,
    }
}

/// Whether every venv has this directory, even if it is empty.
pub(super) fn is_skeleton(path: &Path, site: Minor) -> bool {
    let names: Vec<&str> = path.iter().filter_map(|name| name.to_str()).collect();
    match names[..] {
        ["bin" | "lib" | "include" | "share"] | ["include", "site"] => true,
        ["lib" | "include", python]
        | ["include", "site", python]
        | ["lib", python, "site-packages"] => Minor::of_program(python) == Some(site),
        _ => false,
    }
}

fn is_program(name: &str) -> bool {
    PROGRAMS.iter().any(|program| {
        name.strip_prefix(program).is_some_and(|version| {
            version.bytes().all(|byte| byte.is_ascii_digit() || b".-".contains(&byte))
        })
    })
}

/// The files against backups and version control that creators mark a venv with.
fn is_mark(dir: &Dir, name: &str) -> bool {
    let Ok(text) = dir.read(name, MARK_LIMIT) else { return false };
    let text = text.trim_ascii();
    match name {
        "CACHEDIR.TAG" => text.starts_with(b"Signature: 8a477f597d28d172789f06886806bc55"),
        ".lock" => text.is_empty(),
        // A comment of the creator, then a pattern that ignores everything.
        _ => text
            .split(|byte| *byte == b'\n')
            .map(<[u8]>::trim_ascii)
            .all(|line| line == b"*" || line.starts_with(b"#") || line.is_empty()),
    }
}
