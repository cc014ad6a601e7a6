//! User files that name paths which change with the minor version. Their copies name the new paths
//! where that is certain; the others are reported, because only their author knows what to do.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Stat};

use super::{Instead, Work, read_link, stat};
use crate::host::Root;
use crate::host::file::printable;
use crate::host::root::normal;
use crate::python::{self, Minor};
use crate::venv;

/// A longer file is carried as it is.
const LIMIT: u64 = 64 << 10;

/// What pipx records about a venv.
const PIPX: &str = "pipx_metadata.json";

/// The copy of an entry in the other tree.
#[derive(Debug, Default)]
pub(super) struct Adapted {
    /// What it gets instead of its target or content.
    pub(super) instead: Option<Instead>,
    /// How it still names the old minor version.
    pub(super) still: Option<String>,
}

impl Work<'_> {
    pub(super) fn adapted(&self, path: &Path, here: &Stat) -> Adapted {
        match FileType::from_raw_mode(here.st_mode) {
            FileType::Symlink => self.adapted_link(path),
            FileType::RegularFile => self.adapted_text(path).unwrap_or_default(),
            _ => Adapted::default(),
        }
    }

    /// A link into the library of the old minor version leads into the library of the new one, if
    /// its target exists there.
    fn adapted_link(&self, path: &Path) -> Adapted {
        let Some(text) = read_link(self.from, path) else { return Adapted::default() };
        let paths = self.paths();
        let (old, new) = (paths.old.program(), paths.new.program());
        if old == new || !text.iter().any(|part| part == old.as_str()) {
            return Adapted::default();
        }
        let still = Some(format!("points to {}", printable(&text)));
        let parent = paths.venv.join(path.parent().unwrap_or(Path::new("")));
        let target = normal(&parent.join(&text));
        let Ok(inside) = target.strip_prefix(paths.venv) else {
            return Adapted { instead: None, still };
        };
        let moved = if inside == Path::new("bin").join(&old) {
            Path::new("bin").join(&new)
        } else {
            self.task.target(inside)
        };
        if moved == inside || stat(self.to, &moved).is_err() {
            return Adapted { instead: None, still };
        }
        let replaced = text.components().map(|part| match part {
            Component::Normal(part) if part == old.as_str() => Component::Normal(new.as_ref()),
            other => other,
        });
        Adapted { instead: Some(Instead::Target(replaced.collect())), still: None }
    }

    fn adapted_text(&self, path: &Path) -> Option<Adapted> {
        let (dir, name) = (path.parent()?, path.file_name()?);
        let is_pth = path.extension().is_some_and(|ending| ending == "pth");
        let is_pipx = path == Path::new(PIPX);
        let is_script = dir == Path::new("bin");
        let paths = self.paths();
        if !is_pipx && (!is_pth && !is_script || paths.old == paths.new) {
            return None;
        }
        let bytes = self.from.below(dir).ok()?.read(name, LIMIT).ok()?;
        let Ok(text) = std::str::from_utf8(&bytes) else {
            let text = String::from_utf8_lossy(&bytes);
            let first = text.lines().next().unwrap_or_default();
            let is_old = paths.names_old(if is_pth { &text } else { first });
            return Some(Adapted { instead: None, still: is_old.then(|| paths.still()) });
        };
        let (new, is_old) = if is_pipx {
            (paths.in_pipx_metadata(text, venv::stated_version(self.to).as_deref()), false)
        } else if venv::is_creators_script(name) {
            (paths.in_creators_script(text), false)
        } else if is_pth {
            paths.in_pth(text)
        } else {
            paths.in_script(text)
        };
        let instead = (new != text).then(|| Instead::Content(new.into_bytes()));
        Some(Adapted { instead, still: is_old.then(|| paths.still()) })
    }

    fn paths(&self) -> Paths<'_> {
        let (old, new) = (self.task.from.site, self.task.minor);
        Paths { root: self.root, venv: &self.task.venv.0, old, new }
    }
}

/// The paths of a venv before and after.
struct Paths<'a> {
    root: &'a Root,
    venv: &'a Path,
    old: Minor,
    new: Minor,
}

impl Paths<'_> {
    fn names_old(&self, text: &str) -> bool {
        text.contains(&self.old.program())
    }

    fn still(&self) -> String {
        format!("names {}", self.old.program())
    }

    /// A `.pth` file, and whether it still names the old minor version.
    fn in_pth(&self, text: &str) -> (String, bool) {
        let mut lines: Vec<String> = Vec::new();
        let mut is_old = false;
        for line in text.split_inclusive('\n') {
            let own = self.own(line);
            if let Some(Sibling { new, has_moved }) = self.sibling(&own) {
                if !has_moved {
                    lines.push(own.trim_end_matches('\n').to_string() + "\n");
                }
                lines.push(new);
            } else {
                is_old |= self.names_old(&own);
                lines.push(own);
            }
        }
        // On the way back, or in a second upgrade, another version's line may be there already.
        let mut seen = HashSet::new();
        lines.retain(|line| !line.starts_with('/') || seen.insert(line.clone()));
        (lines.concat(), is_old)
    }

    /// A script, of which only the first line says what runs it.
    fn in_script(&self, text: &str) -> (String, bool) {
        let end = text.find('\n').unwrap_or(text.len());
        let (first, rest) = text.split_at(end);
        if !first.starts_with("#!") {
            return (text.to_string(), false);
        }
        let first = self.own(first);
        let is_old = self.names_old(&first);
        (first + rest, is_old)
    }

    /// A script of activation, which may name the library relative to `bin`.
    fn in_creators_script(&self, text: &str) -> String {
        self.replaced(&self.own(text), "..")
    }

    /// pipx shows the version to its user, and calls the interpreter again.
    fn in_pipx_metadata(&self, text: &str, version: Option<&str>) -> String {
        let mut text = self.own(text);
        let known: Option<serde_json::Value> = serde_json::from_str(&text).ok();
        let recorded = known.as_ref().and_then(|known| known.get("python_version")?.as_str());
        if let Some((recorded, version)) = recorded.zip(version) {
            text = text.replace(&format!("\"{recorded}\""), &format!("\"Python {version}\""));
        }
        let quoted = |minor| format!("\"{}\"", python::path_of(minor).display());
        text.replace(&quoted(self.old), &quoted(self.new))
    }

    /// Replaces the paths of the venv's own library and interpreter.
    fn own(&self, text: &str) -> String {
        match self.venv.to_str() {
            Some(venv) => self.replaced(text, venv),
            None => text.to_string(),
        }
    }

    fn replaced(&self, text: &str, top: &str) -> String {
        let mut text = text.to_string();
        for dir in ["lib", "lib64", "include", "bin"] {
            let [old, new] =
                [self.old, self.new].map(|minor| format!("{top}/{dir}/{}", minor.program()));
            let mut done = String::new();
            let mut rest = text.as_str();
            while let Some((before, after)) = rest.split_once(&old) {
                let is_whole = !before.ends_with(is_of_name) && !after.starts_with(is_of_name);
                done += before;
                done += if is_whole { &new } else { &old };
                rest = after;
            }
            text = done + rest;
        }
        text
    }

    /// A line that names the library of another venv, for example of the one that pipx shares
    /// among its venvs. That one may be rebuilt later than this one; Python ignores lines that name
    /// no directory.
    fn sibling(&self, line: &str) -> Option<Sibling> {
        let (old, new) = (self.old.program(), self.new.program());
        let (top, below) = line.split_once(&format!("/lib/{old}"))?;
        let is_venv = |top: &Path| {
            top.is_absolute() && self.root.at(top.join("pyvenv.cfg")).symlink_metadata().is_ok()
        };
        if below.starts_with(is_of_name) || old == new || !is_venv(Path::new(top)) {
            return None;
        }
        let is_there = |program: &str| {
            let library = PathBuf::from(format!("{top}/lib/{program}"));
            self.root.at(library).symlink_metadata().is_ok()
        };
        let has_moved = is_there(&new) && !is_there(&old);
        Some(Sibling { new: format!("{top}/lib/{new}{below}"), has_moved })
    }
}

/// The library of another venv.
struct Sibling {
    /// The line that names the library of the new minor version.
    new: String,
    /// The other venv has only that one.
    has_moved: bool,
}

/// Whether a character next to a path makes it part of a longer one.
fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '+')
}
