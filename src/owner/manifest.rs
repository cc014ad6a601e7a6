//! Lists the files of a tree that its counterpart contains as well: a later pass may delete them
//! here when they are gone there, and may overwrite them. It is valid only for that counterpart.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::host::path_text::PathText;
use crate::host::{Dir, FileIdentity, tree};
use crate::venv::CARRIED;

const SCHEMA: u64 = 1;

/// Two million paths of about thirty bytes, as in `FILES_LIMIT` of the user files.
const LIMIT: u64 = 256 << 20;

/// Paths are relative to the tree in which the manifest lies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    /// A file whose inode has not changed since then equals its counterpart. In nanoseconds, by the
    /// file system's own clock.
    pub(super) since: i64,
    /// User files and directories.
    pub(super) user: BTreeSet<PathBuf>,
    /// Files that an installer wrote and a user modified, at their own path.
    pub(super) modified: BTreeSet<PathBuf>,
    /// Such files that are kept beside another version, by the name of the copy.
    pub(super) beside: BTreeSet<PathBuf>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    schema_version: u64,
    /// The identity of the counterpart.
    other: tree::Identity,
    since: i64,
    user: Vec<PathText>,
    modified: Vec<PathText>,
    beside: Vec<PathText>,
}

impl Stored {
    fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|stored: &Self| stored.schema_version == SCHEMA)
    }
}

impl Manifest {
    /// Reads the manifest in a tree if it is for this counterpart. One that cannot be read, or that
    /// a newer venvguard wrote, is ignored: then nothing is deleted, so no report is needed.
    pub(super) fn read(tree: &Dir, other: &Dir) -> Option<Self> {
        let stored = Stored::read(&tree.read(CARRIED, LIMIT).ok()?)?;
        let counts = stored.other == identity(other).ok()?;
        let paths = |list: Vec<PathText>| list.into_iter().map(|path| path.0).collect();
        counts.then(|| Self {
            since: stored.since,
            user: paths(stored.user),
            modified: paths(stored.modified),
            beside: paths(stored.beside),
        })
    }

    /// The current time by the file system's clock.
    pub(super) fn now(tree: &Dir) -> io::Result<i64> {
        let (_, since) = create(tree)?;
        tree.unlink(&temporary())?;
        Ok(since)
    }

    /// The same manifest from the counterpart's point of view; `path` translates the paths.
    pub(super) fn translated(&self, path: impl Fn(&Path) -> PathBuf) -> Self {
        let all = |paths: &BTreeSet<PathBuf>| paths.iter().map(|one| path(one)).collect();
        let (user, modified) = (all(&self.user), all(&self.modified));
        // A copy that is kept beside another file has no counterpart.
        Self { since: self.since, user, modified, beside: BTreeSet::new() }
    }

    /// Writes it into a tree.
    pub(super) fn write(self, tree: &Dir, other: &Dir) -> io::Result<()> {
        let (mut file, _) = create(tree)?;
        let texts = |paths: BTreeSet<PathBuf>| paths.into_iter().map(PathText).collect();
        let stored = Stored {
            schema_version: SCHEMA,
            other: identity(other)?,
            since: self.since,
            user: texts(self.user),
            modified: texts(self.modified),
            beside: texts(self.beside),
        };
        file.write_all(&serde_json::to_vec(&stored)?)?;
        file.sync_all()?;
        tree.rename(&temporary(), Path::new(CARRIED))
    }

    pub(super) fn remove(tree: &Dir) -> io::Result<()> {
        tree.unlink(Path::new(CARRIED))
    }
}

fn identity(tree: &Dir) -> io::Result<tree::Identity> {
    Ok(tree::identity_of_open(tree.descriptor())?)
}

fn temporary() -> PathBuf {
    PathBuf::from(format!("{CARRIED}.new"))
}

fn create(tree: &Dir) -> io::Result<(File, i64)> {
    // A leftover of an interrupted pass.
    tree.unlink(&temporary())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file =
        rustix::fs::openat(tree.descriptor(), temporary(), flags, Mode::from_raw_mode(0o600))?;
    let found = rustix::fs::statat(tree.descriptor(), temporary(), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((File::from(file), FileIdentity::from(&found).changed))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn a_manifest_of_schema_version_1_is_read() {
        let fixture = include_str!("fixtures/manifest.schema-1.json");
        let path = |bytes: &[u8]| PathText(OsStr::from_bytes(bytes).into());
        let stored = Stored {
            schema_version: 1,
            other: (1, 2),
            since: -3,
            user: vec![path(b".env"), path(b"var/\xff")],
            modified: vec![path(b"lib/x.py")],
            beside: vec![path(b"lib/y.py.venvguard-modified")],
        };
        assert_eq!(serde_json::to_string(&stored).unwrap() + "\n", fixture);
        assert_eq!(Stored::read(fixture.as_bytes()), Some(stored));
        for (from, to) in [
            ("\"schema_version\":1", "\"schema_version\":2"),
            ("\"schema_version\":1", "\"schema_version\":0"),
            ("\"schema_version\":1,", ""),
            ("\"since\"", "\"unknown\":1,\"since\""),
            ("\"bytes\"", "\"unknown\":1,\"bytes\""),
        ] {
            let changed = fixture.replace(from, to);
            assert_ne!(changed, fixture);
            assert_eq!(Stored::read(changed.as_bytes()), None, "{changed}");
        }
    }

    #[test]
    fn a_manifest_is_valid_for_its_counterpart_and_a_newer_one_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        let [tree, other, third] = ["tree", "other", "third"].map(|name| {
            std::fs::create_dir(base.join(name)).unwrap();
            Dir::open(&base.join(name)).unwrap()
        });
        assert_eq!(Manifest::read(&tree, &other), None);
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<BTreeSet<_>>();
        let manifest = Manifest {
            since: 7,
            user: paths(&[".env", "var/db"]),
            modified: paths(&["lib/x.py"]),
            beside: paths(&["lib/y.py.venvguard-modified"]),
        };
        manifest.clone().write(&tree, &other).unwrap();
        assert_eq!(Manifest::read(&tree, &other), Some(manifest));
        assert_eq!(Manifest::read(&tree, &third), None);
        assert!(Manifest::now(&tree).unwrap() > 0);
        let path = base.join("tree").join(CARRIED);
        let newer = std::fs::read_to_string(&path).unwrap().replace("version\":1", "version\":2");
        std::fs::write(&path, newer).unwrap();
        assert_eq!(Manifest::read(&tree, &other), None);
        assert_eq!(tree.entries().unwrap().len(), 1);
    }
}
