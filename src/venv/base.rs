//! How a venv's `bin/python` reaches its base interpreter.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::configuration::{Configuration, debian_name};
use super::{BaseInterpreter, BaseLink, CopiedInterpreter};
use crate::host::root::normal;
use crate::host::{Dir, Root};
use crate::python::{Binary, DEFAULT, ElfError, Minor, Version};
use crate::python::{debian_minor, path_of, read_opened};

/// The kernel's own limit.
const MAX_LINKS: usize = 40;

/// What the venv says about the origin of its interpreter, apart from `bin`.
#[derive(Debug)]
pub(super) struct Claims<'venv> {
    /// `None` for an old virtualenv, which has no `pyvenv.cfg`.
    pub(super) configuration: Option<&'venv Configuration>,
    /// An old virtualenv's record of the prefix that its interpreter was copied from.
    pub(super) original_prefix: Option<&'venv Path>,
    /// The newest minor version that `lib` has a directory for.
    pub(super) library: Option<Minor>,
}

impl Claims<'_> {
    fn name_debian(&self) -> bool {
        match self.configuration {
            Some(configuration) => configuration.claims_debian(),
            None => self.original_prefix == Some(Path::new("/usr")),
        }
    }

    fn minor(&self) -> Option<Minor> {
        self.configuration.and_then(Configuration::minor).or(self.library)
    }
}

/// Finds the interpreter of the venv at `path`. Only a copied one is opened.
pub(super) fn base(
    root: &Root,
    path: &Path,
    bin: Option<&Dir>,
    claims: &Claims<'_>,
) -> BaseInterpreter {
    let usual = ["python", "python3"].map(|name| bin.and_then(|bin| bin.kind(name)));
    let copies = bin.map(|bin| copies(bin, &usual, claims.library)).unwrap_or_default();
    let start = if let [None, Some(_)] = usual { "python3" } else { "python" };
    let chain = Chain::walk(root, path, path.join("bin").join(start));
    let mut base = match chain.end {
        End::There if chain.stays_inside(path) => copied(&chain, &copies, claims),
        End::There => linked(&chain, claims),
        End::Missing => dangling(&chain, claims),
    };
    base.copies = copies.into_iter().map(|found| found.copy).collect();
    base
}

/// The interpreter outside the venv that a name in `bin` links to. `None` if the link stays
/// inside, even if it reaches another name in `bin` that leads outside.
pub(crate) fn base_interpreter_link(root: &Root, venv: &Path, name: &Path) -> Option<PathBuf> {
    let chain = Chain::walk(root, venv, venv.join("bin").join(name));
    let leaves = chain.names.get(1).is_some_and(|target| !target.starts_with(venv));
    leaves.then(|| chain.known_as())
}

#[derive(Debug)]
enum End {
    There,
    Missing,
}

/// The names from `bin/python` to the end of its links.
#[derive(Debug)]
struct Chain {
    names: Vec<PathBuf>,
    /// The first name outside the venv.
    outside: Option<PathBuf>,
    /// The first name outside the venv that is one of Debian's.
    debian: Option<PathBuf>,
    end: End,
}

impl Chain {
    fn walk(root: &Root, venv: &Path, start: PathBuf) -> Self {
        let mut names = Vec::new();
        let mut here = start;
        // A loop leads nowhere.
        let mut end = End::Missing;
        while names.len() < MAX_LINKS {
            let link = std::fs::read_link(root.at(&here));
            let dir = here.parent().unwrap_or(Path::new("/")).to_path_buf();
            names.push(here);
            match link {
                Ok(target) => here = normal(&dir.join(target)),
                Err(error) => {
                    // Not a link, or not accessible: something exists there.
                    if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) {
                        end = End::There;
                    }
                    break;
                }
            }
        }
        let mut beyond = names.iter().filter(|name| !name.starts_with(venv));
        let debian = beyond.clone().find_map(|name| debian_name(name));
        let outside = beyond.next().cloned();
        Self { names, outside, debian, end }
    }

    fn end(&self) -> &Path {
        // A chain contains at least its start.
        self.names.last().map_or(Path::new(""), PathBuf::as_path)
    }

    fn stays_inside(&self, venv: &Path) -> bool {
        self.end().starts_with(venv)
    }

    /// The path under which the base interpreter is known.
    fn known_as(&self) -> PathBuf {
        let name = self.debian.as_ref().or(self.outside.as_ref());
        name.cloned().unwrap_or_else(|| self.end().to_path_buf())
    }
}

fn linked(chain: &Chain, claims: &Claims<'_>) -> BaseInterpreter {
    let path = chain.known_as();
    let by_name = || Minor::of_program(chain.end().file_name()?.to_str()?);
    BaseInterpreter {
        link: if path == Path::new(DEFAULT) { BaseLink::Followed } else { BaseLink::Pinned },
        minor: debian_minor(chain.end()).or_else(by_name).or_else(|| claims.minor()),
        version: None,
        copies: Vec::new(),
        // Debian's name may be a link to something else, made by hand.
        is_debian: chain.debian.is_some() && debian_minor(chain.end()).is_some(),
        path,
    }
}

fn dangling(chain: &Chain, claims: &Claims<'_>) -> BaseInterpreter {
    let path = chain.known_as();
    BaseInterpreter {
        link: BaseLink::Dangling,
        minor: debian_minor(&path).or_else(|| debian_minor(chain.end())),
        version: None,
        copies: Vec::new(),
        is_debian: match chain.outside {
            Some(_) => debian_name(chain.end()).is_some(),
            None => claims.name_debian(),
        },
        path,
    }
}

/// A copy counts as Debian's if everything that the venv records about its origin says so, and
/// the program is built as Debian builds it: without a `libpythonX.Y.so`. For a copy that can no
/// longer be read the recorded origin is enough, so that it can be repaired.
fn copied(chain: &Chain, copies: &[Found], claims: &Claims<'_>) -> BaseInterpreter {
    let name = chain.end().file_name();
    let main = copies.iter().find(|found| Some(found.copy.name.as_os_str()) == name);
    let version = main.and_then(|found| found.copy.version.clone());
    let by_name = || copies.iter().find_map(|found| Minor::of_program(found.copy.name.to_str()?));
    let minor = version
        .as_ref()
        .map(Version::minor)
        .or_else(|| claims.configuration.and_then(Configuration::minor))
        .or_else(by_name)
        .or(claims.library);
    let is_debian = claims.name_debian() && main.is_some_and(|found| !found.is_foreign);
    let told = || {
        let configuration = claims.configuration?;
        ["base-executable", "executable", "home"].iter().find_map(|key| configuration.path(key))
    };
    let path = match (is_debian, minor) {
        (true, Some(minor)) => path_of(minor),
        _ => told().or(claims.original_prefix).unwrap_or(chain.end()).to_path_buf(),
    };
    BaseInterpreter { link: BaseLink::Copied, path, minor, version, copies: Vec::new(), is_debian }
}

/// A copied interpreter, and whether it cannot be a copy of Debian's.
struct Found {
    copy: CopiedInterpreter,
    is_foreign: bool,
}

/// Every interpreter in `bin` that is a regular file; `usual` has the kinds of the usual names.
fn copies(bin: &Dir, usual: &[Option<FileType>], library: Option<Minor>) -> Vec<Found> {
    let versioned = library.and_then(|minor| bin.kind(minor.program()));
    // Most venvs have no copies; their `bin` need not be listed.
    if !usual.iter().chain([&versioned]).any(|kind| *kind == Some(FileType::RegularFile)) {
        return Vec::new();
    }
    let Ok(entries) = bin.entries() else { return Vec::new() };
    let mut found: Vec<Found> = entries
        .into_iter()
        .filter(|entry| entry.kind.is_file())
        .filter(|entry| entry.name.to_str().is_some_and(is_interpreter))
        .map(|entry| copy(bin, PathBuf::from(entry.name)))
        .collect();
    found.sort_by(|a, b| a.copy.name.cmp(&b.copy.name));
    found
}

fn is_interpreter(name: &str) -> bool {
    matches!(name, "python" | "python2" | "python3") || Minor::of_program(name).is_some()
}

fn copy(bin: &Dir, name: PathBuf) -> Found {
    let opened = bin.file(&name).map_err(ElfError::from);
    let told = opened.and_then(|file| read_opened(file, &bin.path().join(&name)));
    let (binary, is_foreign) = match told {
        Ok(binary) => {
            let shared = binary.is_shared;
            (binary, shared)
        }
        // A script in place of the interpreter; but an empty file is a lost copy.
        Err(ElfError::NotElf { .. }) => {
            (Binary::default(), bin.stat(&name).is_ok_and(|stat| stat.st_size != 0))
        }
        Err(_) => (Binary::default(), false),
    };
    let copy = CopiedInterpreter { name, version: binary.version, build_id: binary.build_id };
    Found { copy, is_foreign }
}
