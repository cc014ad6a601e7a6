//! Whether the modules of a venv are compiled: uv leaves that to the first import, unless it is
//! asked to do it, and pip does it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use super::record::RecordEntry;
use super::{Distribution, Layout, comes_with_every_venv, distributions};
use crate::host::{Dir, Root};
use crate::python::Minor;

/// How many modules are enough to tell.
const SAMPLE: usize = 10_000;

/// What an installer compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Compiled {
    /// pip and what else comes with every venv.
    pub(crate) seeds: bool,
    pub(crate) others: bool,
}

impl Compiled {
    pub(crate) const EVERYTHING: Self = Self { seeds: true, others: true };

    pub(crate) fn of(root: &Root, venv: &Layout) -> Self {
        let site = root.at(venv.site_packages());
        let installed = distributions(&site).unwrap_or_default();
        let (seeds, others): (Vec<_>, Vec<_>) =
            installed.iter().partition(|one| comes_with_every_venv(one));
        let are_compiled = |some| are_compiled(&site, some, venv.site);
        Self { seeds: are_compiled(&seeds), others: are_compiled(&others) }
    }
}

/// Whether an installer compiled the modules of some distributions. An installer compiles whole
/// distributions, but not what `uv venv --seed` has installed before it. An application compiles the
/// modules that it imports: all of some small distributions.
fn are_compiled(site: &Path, installed: &[&Distribution], minor: Minor) -> bool {
    let Ok(top) = Dir::open(site) else { return false };
    let (mut all, mut in_whole) = (0_usize, 0_usize);
    for one in installed {
        let files = one.record(site).ok().flatten().unwrap_or_default();
        let (modules, compiled) = modules(&top, &files, minor);
        all += modules;
        // A few cannot be compiled: templates, and tests of the compiler.
        if compiled * 20 >= modules * 19 {
            in_whole += modules;
        }
        if all > SAMPLE {
            break;
        }
    }
    all > 0 && in_whole * 2 >= all
}

/// How many modules some files are, and how many of these are compiled.
fn modules(site: &Dir, files: &[RecordEntry], minor: Minor) -> (usize, usize) {
    let mut sources: BTreeMap<PathBuf, Vec<OsString>> = BTreeMap::new();
    for entry in files {
        if let (Some(dir), Some(module)) = (entry.path.parent(), module(&entry.path)) {
            sources.entry(dir.to_path_buf()).or_default().push(bytecode(module, minor));
        }
    }
    let (mut all, mut compiled) = (0, 0);
    for (dir, expected) in sources {
        let cache = site.below(&dir.join("__pycache__")).and_then(|cache| cache.entries());
        let cached: BTreeSet<OsString> =
            cache.unwrap_or_default().into_iter().map(|entry| entry.name).collect();
        all += expected.len();
        compiled += expected.iter().filter(|name| cached.contains(*name)).count();
    }
    (all, compiled)
}

/// The name of a module in site-packages, if a path is that of its source.
fn module(path: &Path) -> Option<&OsStr> {
    let is_inside = path.components().all(|part| matches!(part, Component::Normal(_)));
    path.extension().filter(|extension| is_inside && *extension == "py").and(path.file_stem())
}

fn bytecode(module: &OsStr, minor: Minor) -> OsString {
    let mut name = module.to_os_string();
    name.push(format!(".cpython-{}{}.pyc", minor.major, minor.minor));
    name
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_installer_compiles_everything_and_an_application_what_it_imports() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path().canonicalize().unwrap());
        let minor = Minor::new(3, 11);
        let venv = crate::plan::samples::subject(crate::venv::BaseLink::Pinned, minor).venv;
        let site = root.at(venv.site_packages());
        let layout = venv.layout();
        let install = |name: &str, files: &[&str]| {
            let info = site.join(format!("{name}-1.0.dist-info"));
            fs::create_dir_all(&info).unwrap();
            fs::write(info.join("METADATA"), format!("Name: {name}\nVersion: 1.0\n")).unwrap();
            let record = files.join(",,\n") + ",,\n";
            fs::write(info.join("RECORD"), record).unwrap();
        };
        let compile = |dir: &str, module: &str| {
            let cache = site.join(dir).join("__pycache__");
            fs::create_dir_all(&cache).unwrap();
            fs::write(cache.join(format!("{module}.cpython-311.pyc")), "").unwrap();
        };
        let is_compiled = || Compiled::of(&root, &layout).others;
        install("pip", &["pip/__init__.py"]);
        assert_eq!(Compiled::of(&root, &layout), Compiled { seeds: false, others: false });
        compile("pip", "__init__");
        assert_eq!(Compiled::of(&root, &layout), Compiled { seeds: true, others: false });
        install(
            "shop",
            &["shop.py", "shop/a.py", "shop/b.py", "shop/data.txt", "../../../bin/shop.py"],
        );
        compile("", "shop");
        compile("shop", "a");
        assert!(!is_compiled());
        compile("shop", "b");
        assert!(is_compiled());
        install("packaging", &["packaging/__init__.py", "packaging/tags.py"]);
        assert!(is_compiled(), "what came with the venv may not be compiled");
        install("web", &["web/a.py", "web/b.py", "web/c.py"]);
        compile("web", "a");
        compile("web", "b");
        assert!(!is_compiled(), "an application imports two thirds of it");
    }
}
