//! The modified files of a venv, which an installer wrote and a user changed: a patched library,
//! an edited script. Their hash in RECORD reveals it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::creator::edited_scripts;
use super::{Distribution, Flavour, Layout};
use crate::host::root::normal;
use crate::host::{Dir, FileIdentity, Root, file, parallel};

/// How much of one venv is read; none in use is larger. Without a limit a user could make root
/// read holes indefinitely.
const READ_LIMIT: u64 = 16 << 30;

/// Another thread pays off for this many files.
const CHUNK: usize = 256;

/// Each thread takes address space, of which a process of an owner has little.
const THREADS: usize = 4;

/// A file that differs from what its installer wrote.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ModifiedFile {
    /// Relative to the venv.
    pub(crate) path: PathBuf,
    /// The hash of the installer's file from RECORD; empty for a file of the creator.
    pub(crate) written: String,
}

/// Every file of the distributions that was changed after it was installed, sorted by path.
/// Missing files, and files without a SHA-256 in RECORD, are not listed; but an activation script
/// that was changed long after the others is. With `since`, only files whose inode changed at
/// that time (in nanoseconds) or later are read.
pub(crate) fn modified_files(
    root: &Root,
    venv: &Layout,
    distributions: &[Distribution],
    since: Option<i64>,
) -> Vec<ModifiedFile> {
    let site = venv.site_packages();
    // Each file is read once, however often it is recorded.
    let mut written: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for entry in distributions
        .iter()
        .filter_map(|distribution| distribution.record(&root.at(&site)).ok()?)
        .flatten()
    {
        let path = normal(&site.join(entry.path));
        let hash = entry.hash.filter(|hash| hash.starts_with(PREFIX));
        if let (Ok(path), Some(hash)) = (path.strip_prefix(venv.path()), hash) {
            written.entry(path.to_path_buf()).or_default().push(hash);
        }
    }
    let installed: Vec<(PathBuf, Vec<String>)> = written.into_iter().collect();
    let look = Look { root, venv, since, left: READ_LIMIT.into() };
    let threads = parallel::cores().min(THREADS);
    // Neighbours in one directory stay together.
    let chunks = installed.chunks(installed.len().div_ceil(threads).max(CHUNK));
    let mut found: Vec<ModifiedFile> = parallel::map(chunks, threads, |chunk| look.modified(chunk))
        .into_iter()
        .flatten()
        .collect();
    let scripts = Dir::open(&root.at(venv.path().join("bin"))).map(|bin| edited_scripts(&bin));
    let scripts = scripts
        .unwrap_or_default()
        .into_iter()
        .map(|name| ModifiedFile { path: Path::new("bin").join(name), written: String::new() });
    found.extend(scripts);
    found.sort();
    found
}

/// The search for modified files in a venv.
struct Look<'a> {
    root: &'a Root,
    venv: &'a Layout,
    since: Option<i64>,
    /// How much more may be read.
    left: AtomicU64,
}

impl Look<'_> {
    /// Those of some installed files that differ from all hashes in RECORD.
    fn modified(&self, installed: &[(PathBuf, Vec<String>)]) -> Vec<ModifiedFile> {
        let Ok(mut tree) = Tree::open(&self.root.at(self.venv.path())) else { return Vec::new() };
        let modified = installed.iter().filter_map(|(path, hashes)| {
            let found = self.hash(&mut tree, path)?;
            let mut is_isolated = || {
                let program = tree.program(path).ok()?;
                Some(hashes.contains(&hash_of(&unisolated(&program)?)))
            };
            let mut is_pipxs =
                || self.venv.flavour == Flavour::Pipx && is_isolated().unwrap_or(false);
            let is_as_written = hashes.contains(&found) || is_pipxs();
            let written = hashes.first().filter(|_| !is_as_written)?.clone();
            Some(ModifiedFile { path: path.clone(), written })
        });
        modified.collect()
    }

    /// The hash of a file; `None` if it is missing or was not changed at the time in question.
    fn hash(&self, tree: &mut Tree, path: &Path) -> Option<String> {
        let is_older = |since| tree.changed(path).is_some_and(|changed| changed < since);
        if self.since.is_some_and(is_older) {
            return None;
        }
        let found = tree.hash(path, &self.left).ok();
        found.or_else(|| linked(self.root, self.venv, path, &self.left))
    }
}

/// The hash of the target of a link in place of an installed file: uv may install links into its
/// cache. If this process cannot read the target, the hash is empty.
fn linked(root: &Root, venv: &Layout, path: &Path, left: &AtomicU64) -> Option<String> {
    let link = venv.path().join(path);
    let target = std::fs::read_link(root.at(&link)).ok()?;
    // A relative link is relative to its own directory.
    let target = normal(&link.parent()?.join(target));
    let file = file::open_untrusted(&root.at(target));
    Some(file.ok().and_then(|file| hash(file, left).ok()).unwrap_or_default())
}

/// What pipx adds to the first line of the programs that it exposes, to make them ignore Python's
/// environment variables.
const ISOLATION: &[u8] = b" -E";

/// No program that an installer wrote for an entry point is longer.
const PROGRAM_LIMIT: u64 = 64 << 10;

/// The programs in `bin` that pipx has isolated, relative to the venv.
pub(crate) fn isolated_programs(root: &Root, venv: &Layout) -> io::Result<Vec<PathBuf>> {
    let bin = Dir::open(&root.at(venv.path()))?.below(Path::new("bin"))?;
    let is_isolated = |name: &Path| {
        bin.read(name, PROGRAM_LIMIT).is_ok_and(|content| unisolated(&content).is_some())
    };
    let names = bin.entries()?.into_iter().map(|entry| PathBuf::from(entry.name));
    let isolated = names.filter(|name| venv.flavour == Flavour::Pipx && is_isolated(name));
    Ok(isolated.map(|name| Path::new("bin").join(name)).collect())
}

/// A program as it was before pipx isolated it.
fn unisolated(content: &[u8]) -> Option<Vec<u8>> {
    let end = content.iter().position(|byte| *byte == b'\n')?;
    let (first, rest) = content.split_at(end);
    let before = first.strip_suffix(ISOLATION).filter(|line| line.starts_with(b"#!"))?;
    Some([before, rest].concat())
}

fn hash_of(content: &[u8]) -> String {
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(Sha256::digest(content)))
}

/// Reads a file of at most `left` bytes and at most its declared size: the kernel's files about a
/// user's processes declare that they are empty, but may be endless.
fn hash(file: File, left: &AtomicU64) -> io::Result<String> {
    let length = file.metadata()?.len();
    let too_large = || io::Error::from(io::ErrorKind::FileTooLarge);
    left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(length))
        .map_err(|_| too_large())?;
    let mut digest = Sha256::new();
    let mut file = file.take(length.saturating_add(1));
    let mut chunk = [0; 8 << 10];
    let mut total = 0;
    loop {
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => {
                digest.update(chunk.get(..read).unwrap_or_default());
                total += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if total > length {
        return Err(too_large());
    }
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(digest.finalize())))
}

/// Whether a file in the tree of a venv has this hash.
pub(crate) fn has_hash(tree: &Path, path: &Path, hash: &str) -> bool {
    let found = Tree::open(tree).and_then(|mut tree| tree.hash(path, &READ_LIMIT.into()));
    found.is_ok_and(|found| found == hash)
}

const PREFIX: &str = "sha256=";

/// A venv whose files are read one after the other, mostly many of one directory.
struct Tree {
    top: Dir,
    /// The directory that was last read.
    last: Option<(PathBuf, Dir)>,
}

impl Tree {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { top: Dir::open(path)?, last: None })
    }

    fn hash(&mut self, path: &Path, left: &AtomicU64) -> io::Result<String> {
        hash(self.file(path)?, left)
    }

    fn program(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        self.file(path)?.take(PROGRAM_LIMIT).read_to_end(&mut content)?;
        Ok(content)
    }

    /// When the inode of a file last changed.
    fn changed(&mut self, path: &Path) -> Option<i64> {
        let (dir, name) = self.lookup(path).ok()?;
        Some(FileIdentity::from(&dir.stat(name).ok()?).changed)
    }

    fn file(&mut self, path: &Path) -> io::Result<File> {
        let (dir, name) = self.lookup(path)?;
        dir.file(name).map_err(io::Error::other)
    }

    fn lookup<'a>(&mut self, path: &'a Path) -> io::Result<(&Dir, &'a OsStr)> {
        let parent = path.parent().unwrap_or(Path::new(""));
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let is_last = self.last.as_ref().is_some_and(|(last, _)| last == parent);
        if !is_last {
            self.last = None;
            self.last = Some((parent.to_path_buf(), self.top.below(parent)?));
        }
        Ok((self.last.as_ref().map_or(&self.top, |(_, dir)| dir), name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_is_limited() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let left = AtomicU64::new(8191);
        assert!(hash(file.try_clone().unwrap(), &left).is_ok());
        assert!(hash(file, &left).is_err());
        assert!(hash(File::open("/proc/self/pagemap").unwrap(), &left).is_err());
    }

    #[test]
    fn only_modified_files_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path().canonicalize().unwrap());
        let venv = crate::plan::samples::subject(
            crate::venv::BaseLink::Pinned,
            crate::python::Minor::new(3, 11),
        )
        .venv;
        let site = root.at(venv.site_packages());
        let info = site.join("shop-1.0.dist-info");
        std::fs::create_dir_all(&info).unwrap();
        std::fs::create_dir(root.at(venv.path.join("bin"))).unwrap();
        std::fs::write(info.join("METADATA"), "Name: shop\nVersion: 1.0\n").unwrap();
        // printf x | openssl dgst -sha256 -binary | basenc --base64url
        let hash = "sha256=LXEWQrcmsEQBYnyp-6wy9chTD7GQPMTbAiWHF5IaSIE";
        let record = format!(
            "same.py,{hash},1\nchanged.py,{hash},1\ngone.py,{hash},1\nlink.py,{hash},1\ncache.py,{hash},1\n\
             linked.py,{hash},1\nup.py,{hash},1\nnowhere.py,{hash},1\n\
             ../../../bin/shop,{hash},1\n../../../../outside,{hash},1\nnone.pyc,,\nold.py,md5=abc,1\n"
        );
        std::fs::write(info.join("RECORD"), record).unwrap();
        std::fs::write(site.join("same.py"), "x").unwrap();
        for name in ["changed.py", "none.pyc", "old.py", "../../../bin/shop", "../../../../outside"]
        {
            std::fs::write(site.join(name), "patched").unwrap();
        }
        let link = |to: &str, name| std::os::unix::fs::symlink(to, site.join(name)).unwrap();
        link("changed.py", "link.py");
        link("same.py", "linked.py");
        link("../site-packages/same.py", "up.py");
        // The kernel looks for it beside the link, where nothing exists.
        link("cache/same", "nowhere.py");
        link("/cache/same", "cache.py");
        std::fs::create_dir(root.at("/cache")).unwrap();
        std::fs::write(root.at("/cache/same"), "x").unwrap();
        let distributions = crate::venv::distributions(&site).unwrap();
        let found = modified_files(&root, &venv.layout(), &distributions, None);
        let paths: Vec<_> = found.iter().map(|one| one.path.to_str().unwrap()).collect();
        let changed = ["changed.py", "link.py", "nowhere.py"]
            .map(|name| format!("lib/python3.11/site-packages/{name}"));
        assert_eq!(paths, ["bin/shop", &changed[0], &changed[1], &changed[2]]);
        let tree = root.at(&venv.path);
        assert!(has_hash(&tree, Path::new("lib/python3.11/site-packages/same.py"), hash));
        assert!(!has_hash(&tree, Path::new("bin/shop"), hash));
    }

    #[test]
    fn an_edited_activation_script_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path().canonicalize().unwrap());
        let minor = crate::python::Minor::new(3, 11);
        let venv = crate::plan::samples::subject(crate::venv::BaseLink::Pinned, minor).venv;
        std::fs::create_dir_all(root.at(venv.path.join("bin"))).unwrap();
        let times =
            [("activate", 400), ("activate.fish", 300), ("activate.csh", 330), ("Activate.ps1", 0)];
        for (name, seconds) in times {
            let file = File::create(root.at(venv.path.join("bin").join(name))).unwrap();
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            file.set_modified(at).unwrap();
        }
        let found = modified_files(&root, &venv.layout(), &[], None);
        let paths: Vec<_> = found.iter().map(|one| one.path.as_path()).collect();
        assert_eq!(paths, [Path::new("bin/activate")]);
        assert!(
            !has_hash(&root.at(&venv.path), paths[0], &found[0].written),
            "an empty hash never matches"
        );
    }

    #[test]
    fn the_additions_of_pipx_to_a_program_are_not_a_modification() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path().canonicalize().unwrap());
        let minor = crate::python::Minor::new(3, 11);
        let mut venv = crate::plan::samples::subject(crate::venv::BaseLink::Pinned, minor).venv;
        venv.flavour = Flavour::Pipx;
        let at = |path: &str| root.at(venv.path.join(path));
        let info = "lib/python3.11/site-packages/shop-1.0.dist-info";
        std::fs::create_dir_all(at(info)).unwrap();
        std::fs::create_dir(at("bin")).unwrap();
        std::fs::write(at(info).join("METADATA"), "Name: shop\nVersion: 1.0\n").unwrap();
        let hash = hash_of(b"#!/x/bin/python\nimport shop\n");
        let record = ["shop", "changed"].map(|name| format!("../../../bin/{name},{hash},1\n"));
        std::fs::write(at(info).join("RECORD"), record.concat()).unwrap();
        std::fs::write(at("bin/shop"), "#!/x/bin/python -E\nimport shop\n").unwrap();
        std::fs::write(at("bin/changed"), "#!/x/bin/python -E\nimport other\n").unwrap();
        let modified = |venv: &crate::venv::Venv| {
            let distributions = crate::venv::distributions(&root.at(venv.site_packages())).unwrap();
            let found = modified_files(&root, &venv.layout(), &distributions, None).into_iter();
            found.map(|one| one.path).collect::<Vec<_>>()
        };
        assert_eq!(modified(&venv), [Path::new("bin/changed")]);
        let mut isolated = isolated_programs(&root, &venv.layout()).unwrap();
        isolated.sort();
        assert_eq!(isolated, [Path::new("bin/changed"), Path::new("bin/shop")]);
        venv.flavour = Flavour::Venv;
        assert_eq!(modified(&venv).len(), 2, "without pipx it was a user");
        assert_eq!(isolated_programs(&root, &venv.layout()).unwrap().len(), 0);
    }
}
