//! Venvs that are declared in files: `/etc/venvguard/venvs.d/*.toml` by the administrator,
//! `/usr/share/venvguard/venvs.d/*.toml` by packages. A file in `/etc` replaces a package's
//! file of the same name; an empty one, or a link to `/dev/null`, disables it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};
use rustix::fs::FileType;
use serde::{Deserialize, Deserializer};

use super::{Pause, Store, StoreError, config};
use crate::host::{Dir, Root, file};
use crate::plan::{Policy, RestartMode, Window};
use crate::service::{Probe, Service};

/// In order of precedence.
const DIRS: [&str; 2] = ["/etc/venvguard/venvs.d", "/usr/share/venvguard/venvs.d"];

/// No hand-written file is longer.
const LIMIT: u64 = 1 << 20;

/// How many directories are searched for one pattern.
const MOST: usize = 100_000;

/// One file's settings for one venv, or for all venvs that match a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Declaration {
    /// The file that contains it.
    #[serde(skip)]
    pub(crate) file: PathBuf,
    #[serde(deserialize_with = "pattern")]
    pub(super) path: Vec<Pattern>,
    pub(super) name: Option<String>,
    pub(super) policy: Option<Policy>,
    pub(super) restart: Option<RestartMode>,
    pub(super) window: Option<Window>,
    pub(super) rolling: Option<Pause>,
    pub(super) probe: Option<bool>,
    #[serde(default, deserialize_with = "services")]
    pub(super) services: Vec<Service>,
    /// A program by its absolute path, and its arguments; or an address.
    #[serde(default, deserialize_with = "check")]
    pub(super) check: Vec<String>,
    /// The command that fills a rebuilt venv: a program by its absolute path, and its arguments.
    #[serde(default, deserialize_with = "build_command")]
    pub(super) build_command: Vec<String>,
}

impl Store {
    /// The declarations, file by file: a damaged one does not affect the others.
    pub(crate) fn declarations(&self) -> Vec<Result<Declaration, (PathBuf, StoreError)>> {
        let mut files: BTreeMap<OsString, PathBuf> = BTreeMap::new();
        for dir in DIRS {
            for entry in self.root.at(dir).read_dir().into_iter().flatten().flatten() {
                let path = entry.path();
                if path.extension().is_some_and(|extension| extension == "toml") {
                    files.entry(entry.file_name()).or_insert(path);
                }
            }
        }
        let is_mask = |path: &PathBuf| {
            std::fs::read_link(path).is_ok_and(|target| target == Path::new("/dev/null"))
                || path.symlink_metadata().is_ok_and(|metadata| metadata.len() == 0)
        };
        let files = files.into_values().filter(|path| !is_mask(path));
        files
            .map(|path| {
                self.read_declaration(&path).map_err(|error| (self.root.logical(&path), error))
            })
            .collect()
    }

    fn read_declaration(&self, path: &Path) -> Result<Declaration, StoreError> {
        let declaration: Declaration = config::parse(path, &file::read_own(path, LIMIT)?)?;
        if declaration.name.is_some() && declaration.path.iter().any(|part| !is_literal(part)) {
            let reason = "`name` names a single venv, but `path` is a pattern".to_string();
            return Err(StoreError::Damaged { path: path.to_path_buf(), line: 1, reason });
        }
        Ok(Declaration { file: self.root.logical(path), ..declaration })
    }
}

impl Declaration {
    /// The existing venvs that the path or pattern means. Every name is looked up in a directory
    /// that is held open, and links are not followed: the owner of a directory on the way cannot
    /// lead out of it.
    pub(crate) fn venvs(&self, root: &Root) -> Vec<PathBuf> {
        let mut found = Vec::new();
        if let Ok(top) = Dir::open(&root.at("/")) {
            descend(&top, Path::new("/"), &self.path, &mut found, &mut MOST.clone());
        }
        found
    }
}

fn descend(dir: &Dir, path: &Path, parts: &[Pattern], found: &mut Vec<PathBuf>, left: &mut usize) {
    let Some((part, rest)) = parts.split_first() else {
        if dir.kind("pyvenv.cfg") == Some(FileType::RegularFile) {
            found.push(path.to_path_buf());
        }
        return;
    };
    let names = if is_literal(part) {
        vec![OsString::from(part.as_str())]
    } else {
        let dirs = dir.entries().unwrap_or_default().into_iter();
        let mut names: Vec<OsString> = dirs
            .filter(|entry| entry.kind == FileType::Directory)
            .filter(|entry| part.matches_path_with(Path::new(&entry.name), OPTIONS))
            .map(|entry| entry.name)
            .collect();
        names.sort();
        names
    };
    for name in names {
        if *left == 0 {
            return;
        }
        *left -= 1;
        if let Ok(inner) = dir.dir(Path::new(&name)) {
            descend(&inner, &path.join(name), rest, found, left);
        }
    }
}

/// Matches names as a shell does.
const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

fn is_literal(part: &Pattern) -> bool {
    !part.as_str().contains(['*', '?', '['])
}

fn pattern<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Pattern>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let wrong = |why: &str| serde::de::Error::custom(format!("{text:?} {why}"));
    let parts = text.strip_prefix('/').ok_or_else(|| wrong("must begin with `/`"))?;
    let parts = parts.split('/').filter(|part| !matches!(*part, "" | "."));
    let part = |part: &str| {
        if matches!(part, ".." | "**") || part.contains('\0') {
            return Err(wrong("has a part that cannot name a directory"));
        }
        Pattern::new(part).map_err(|error| wrong(&format!("is not a valid pattern: {error}")))
    };
    let parts = parts.map(part).collect::<Result<Vec<_>, _>>()?;
    if parts.is_empty() { Err(wrong("cannot be a venv")) } else { Ok(parts) }
}

fn services<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Service>, D::Error> {
    let words = Vec::<String>::deserialize(deserializer)?;
    words.iter().map(|word| word.parse().map_err(serde::de::Error::custom)).collect()
}

fn check<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let words = Vec::<String>::deserialize(deserializer)?;
    if let [address] = words.as_slice() {
        if Probe::is_meant(address) {
            address.parse::<Probe>().map_err(serde::de::Error::custom)?;
            return Ok(words);
        }
    }
    absolute("check", words)
}

fn build_command<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    absolute("build command", Vec::deserialize(deserializer)?)
}

/// A command whose program is named by its absolute path.
fn absolute<E: serde::de::Error>(what: &str, words: Vec<String>) -> Result<Vec<String>, E> {
    if words.first().is_some_and(|program| !program.starts_with('/')) {
        return Err(E::custom(format!("the program of the {what} must be an absolute path")));
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct System(tempfile::TempDir);

    impl System {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, path: &str, text: &str) -> &Self {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }

        fn declarations(&self) -> Vec<Result<Declaration, String>> {
            let declarations = Store::new(&Root::new(self.0.path())).declarations().into_iter();
            declarations.map(|one| one.map_err(|(_, error)| error.to_string())).collect()
        }

        fn venvs(&self, path: &str) -> Vec<String> {
            self.write("etc/venvguard/venvs.d/x.toml", &format!("path = {path:?}\n"));
            let declaration = self.declarations().remove(0).unwrap();
            let venvs = declaration.venvs(&Root::new(self.0.path()));
            venvs.iter().map(|venv| venv.display().to_string()).collect()
        }
    }

    #[test]
    fn a_file_of_the_administrator_replaces_that_of_a_package() {
        let system = System::new();
        for (file, name) in [
            ("usr/share/venvguard/venvs.d/a.toml", "package"),
            ("etc/venvguard/venvs.d/a.toml", "administrator"),
            ("usr/share/venvguard/venvs.d/b.toml", "kept"),
            ("usr/share/venvguard/venvs.d/c.toml", "masked"),
            ("usr/share/venvguard/venvs.d/d.toml", "emptied"),
            ("etc/venvguard/venvs.d/README", "no declaration"),
        ] {
            system.write(file, &format!("path = \"/srv/venv\"\nname = {name:?}\n"));
        }
        let masked = system.0.path().join("etc/venvguard/venvs.d/c.toml");
        std::os::unix::fs::symlink("/dev/null", masked).unwrap();
        system.write("etc/venvguard/venvs.d/d.toml", "");
        let names: Vec<_> =
            system.declarations().into_iter().map(|one| one.unwrap().name.unwrap()).collect();
        assert_eq!(names, ["administrator", "kept"]);
    }

    #[test]
    fn a_mistake_is_reported_with_file_and_line_and_other_files_count() {
        let system = System::new();
        system.write(
            "etc/venvguard/venvs.d/good.toml",
            "path = \"/srv/venv\"\nservices = [\"systemd:a\"]\n",
        );
        for (text, told) in [
            ("name = \"x\"\n", "missing field `path`"),
            ("path = \"/srv/a\"\npolicy = \"blok\"\n", "bad.toml, line 2: policy"),
            ("path = \"/srv/a\"\n\nservces = []\n", "line 3: unknown field `servces`"),
            ("path = \"srv/a\"\n", "must begin with `/`"),
            ("path = \"/srv/../a\"\n", "cannot name a directory"),
            ("path = \"/srv/**/venv\"\n", "cannot name a directory"),
            ("path = \"/srv/[a/venv\"\n", "is not a valid pattern"),
            ("path = \"/\"\n", "cannot be a venv"),
            (
                "path = \"/srv/a\"\nservices = [\"web\"]\n",
                "line 2: services: \"web\" does not name a service",
            ),
            ("path = \"/srv/a\"\ncheck = [\"curl\"]\n", "line 2: check: the program of the check"),
            (
                "path = \"/srv/a\"\nbuild-command = [\"make\"]\n",
                "line 2: build-command: the program of the build command must be an absolute path",
            ),
            (
                "path = \"/srv/a\"\nwindow = \"Sat\"\n",
                "bad.toml, line 2: window: \"Sat\" is not a window",
            ),
            ("path = \"/srv/*/venv\"\nname = \"a\"\n", "`path` is a pattern"),
        ] {
            system.write("etc/venvguard/venvs.d/bad.toml", text);
            let found = system.declarations();
            let error = found[0].as_ref().unwrap_err();
            assert!(error.contains(told), "{text:?}: {error}");
            assert_eq!(found[1].as_ref().unwrap().services.len(), 1);
        }
    }

    #[test]
    fn a_pattern_finds_venvs_and_follows_no_link() {
        let system = System::new();
        for venv in ["srv/a/venv", "srv/b/venv", "srv/.hidden/venv", "srv/a/b/venv", "opt/c/venv"] {
            system.write(&format!("{venv}/pyvenv.cfg"), "");
        }
        system.write("srv/d/venv/readme", "");
        let link = system.0.path().join("srv/e");
        std::os::unix::fs::symlink("../opt/c", link).unwrap();
        assert_eq!(system.venvs("/srv/*/venv"), ["/srv/a/venv", "/srv/b/venv"]);
        assert_eq!(system.venvs("/srv/[b-z]/ven?"), ["/srv/b/venv"]);
        assert_eq!(system.venvs("/srv/a/venv/"), ["/srv/a/venv"]);
        assert_eq!(system.venvs("/srv/e/venv"), [""; 0], "a link");
        assert_eq!(system.venvs("/srv/d/venv"), [""; 0], "not a venv");
    }
}
