//! Finds out which installers are configured with an index. If one engine is and another is not,
//! the other one would look a private package up in a public index.

use std::path::{Path, PathBuf};

use super::Context;
use super::engine::{self, Engine};
use crate::host::user::User;
use crate::host::{Root, file};
use crate::python::Minor;
use crate::venv::Venv;

/// The longest file of settings that is read, in bytes.
const LIMIT: u64 = 1 << 20;

/// The keys that say where packages come from, in pip's files and in uv's.
const KEYS: [&str; 5] = ["index", "index-url", "extra-index-url", "find-links", "no-index"];

/// The engines that may install into a venv, at least one, the best first, with the pip of the system
/// `pip_of`. The error says why there is none.
pub(super) fn engines(
    context: &Context,
    venv: &Venv,
    owner: &User,
    (minor, interpreter): (Minor, &Path),
    pip_of: &Root,
) -> Result<Vec<Engine>, String> {
    let choice = context.config.engine;
    let mut engines = engine::engines(context.root, pip_of, choice, venv, owner, interpreter);
    if engines.is_empty() {
        return Err(engine::no_engine(minor, choice));
    }
    let (pip, uv) = (of_pip(context.root, venv, owner), of_uv(context.root, venv, owner));
    match (&pip, &uv) {
        (Some(_), None) => engines.retain(|one| !one.is_uv()),
        (None, Some(_)) => engines.retain(Engine::is_uv),
        _ => {}
    }
    if engines.is_empty() {
        let other = if pip.is_some() { "uv" } else { "pip" };
        return Err(format!(
            "{} names an index, but {other}, the only installer that may be used, does not read it; configure the index for {other} as well",
            file::printable(pip.or(uv).unwrap_or_default())
        ));
    }
    Ok(engines)
}

/// The file of pip's that names an index, if there is one.
fn of_pip(root: &Root, venv: &Venv, owner: &User) -> Option<PathBuf> {
    [
        venv.path.join("pip.conf"),
        owner.home.join(".config/pip/pip.conf"),
        owner.home.join(".pip/pip.conf"),
        "/etc/xdg/pip/pip.conf".into(),
        "/etc/pip.conf".into(),
    ]
    .into_iter()
    .find(|path| says_where(root, path, ""))
}

/// The same for uv, which also reads the settings of the project that a venv lies in.
fn of_uv(root: &Root, venv: &Venv, owner: &User) -> Option<PathBuf> {
    let of_project = project(venv).and_then(|dir| {
        let (own, shared) = (dir.join("uv.toml"), dir.join("pyproject.toml"));
        if says_where(root, &own, "") {
            return Some(own);
        }
        says_where(root, &shared, "tool.uv").then_some(shared)
    });
    of_project.or_else(|| {
        [
            owner.home.join(".config/uv/uv.toml"),
            "/etc/xdg/uv/uv.toml".into(),
            "/etc/uv/uv.toml".into(),
        ]
        .into_iter()
        .find(|path| says_where(root, path, ""))
    })
}

/// The directory of the project for which uv created a venv.
pub(super) fn project(venv: &Venv) -> Option<&Path> {
    if venv.flavour == crate::venv::Flavour::Uv { venv.path.parent() } else { None }
}

/// Whether a file names an index, in a section whose name begins with `sections`. An unreadable
/// file is taken to name one.
fn says_where(root: &Root, path: &Path, sections: &str) -> bool {
    let text = match file::read_untrusted(&root.at(path), LIMIT) {
        Ok(bytes) => bytes,
        Err(error) => return !error.is_not_found(),
    };
    let mut counts = sections.is_empty();
    String::from_utf8_lossy(&text).lines().map(str::trim).any(|line| {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_matches(['[', ']', ' ']);
            counts = section.starts_with(sections);
            return counts && section.rsplit('.').next() == Some("index");
        }
        let key = line.split(['=', ':']).next().unwrap_or_default();
        counts && line.len() > key.len() && KEYS.contains(&&*key.trim().replace('_', "-"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(text: &str, sections: &str) -> bool {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("x"), text).unwrap();
        says_where(&Root::new(dir.path()), Path::new("/x"), sections)
    }

    #[test]
    fn files_that_name_an_index_are_recognized() {
        for text in [
            "[global]\nindex-url = https://x.org/simple\n",
            "[install]\nfind_links: /srv/wheels\n",
            "no-index = true\n",
            "[[index]]\nurl = \"https://x.org\"\n",
        ] {
            assert!(says(text, ""), "{text}");
        }
        for text in ["", "[global]\ntimeout = 60\n", "# index-url = x\n", "[pip]\nindex-urls = x"] {
            assert!(!says(text, ""), "{text}");
        }
        let project = |text| says(text, "tool.uv");
        assert!(project("[project]\nname = \"a\"\n[tool.uv]\nindex-url = \"x\"\n"));
        assert!(project("[[tool.uv.index]]\nurl = \"x\"\n"));
        assert!(!project("[tool.pdm]\nindex = \"x\"\n[[tool.other.index]]\n"));
        assert!(!says_where(&Root::new("/"), Path::new("/nonexistent/pip.conf"), ""));
        assert!(says_where(&Root::new("/"), Path::new("/etc"), ""), "an unreadable file counts");
    }
}
