//! Prepared trees, which wait to be swapped in: one file per venv.

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{JournalState, PathText, PendingRemoval, Registry, Store, StoreError};
use crate::host::path_text;
use crate::host::{clock, tree};
use crate::plan::Target;
use crate::python::BuildId;

const SCHEMA: u64 = 1;

/// A new tree beside its venv, built and checked. It may wait for days and across a reboot, and
/// becomes useless once anything that it was built for has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PreparedTree {
    schema_version: u64,
    pub(crate) at: Timestamp,
    #[serde(deserialize_with = "path_text::absolute")]
    path: PathText,
    pub(crate) identity: tree::Identity,
    pub(crate) built_for: BuiltFor,
    /// The notes of the build.
    pub(crate) notes: Vec<String>,
    /// Whether some user files could not be carried into it.
    pub(crate) leaves_files: bool,
    /// What it occupies on the disk, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<u64>,
}

/// The conditions that a new tree was built for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BuiltFor {
    /// The tree that it replaces.
    pub(crate) venv: tree::Identity,
    pub(crate) target: Target,
    /// The build of its interpreter.
    pub(crate) interpreter: Option<BuildId>,
    /// A hash of what was to be installed and of what was installed in the venv.
    pub(crate) recipe: String,
}

impl BuiltFor {
    /// The first condition that has changed since, if any.
    pub(crate) fn difference(&self, now: &Self) -> Option<&'static str> {
        if self.venv != now.venv {
            Some("the venv has been replaced")
        } else if self.target != now.target {
            Some("it was built for another interpreter")
        } else if self.interpreter.is_none() || self.interpreter != now.interpreter {
            Some("the interpreter has changed")
        } else if self.recipe != now.recipe {
            Some("the installed distributions have changed")
        } else {
            None
        }
    }
}

impl PreparedTree {
    pub(crate) fn new(path: &Path, identity: tree::Identity, built_for: BuiltFor) -> Self {
        let (at, path) = (clock::now(), path.into());
        let (notes, leaves_files, bytes) = (Vec::new(), false, None);
        Self { schema_version: SCHEMA, at, path, identity, built_for, notes, leaves_files, bytes }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path.0
    }

    /// The journal state of a repair that has built this tree but not swapped it in.
    pub(crate) fn preparing(&self) -> JournalState {
        let (aside, new) = (self.path.clone(), Some(self.identity));
        JournalState::Preparing { aside, new, to_rest: false }
    }

    pub(crate) fn into_removal(self) -> PendingRemoval {
        PendingRemoval::new(&self.path.0, self.identity)
    }
}

impl Store {
    pub(crate) fn prepared(&self, id: &str) -> Result<Option<PreparedTree>, StoreError> {
        self.load(&name(id), SCHEMA)
    }

    /// Whether there is a record, readable or not.
    pub(crate) fn has_prepared(&self, id: &str) -> bool {
        self.dir().join(name(id)).symlink_metadata().is_ok()
    }

    /// Whether there is a prepared tree, as its record says.
    pub(crate) fn has_prepared_tree(&self, id: &str) -> bool {
        let record = self.prepared(id).ok().flatten();
        record.is_some_and(|tree| tree::identity(tree.path()) == Some(tree.identity))
    }

    pub(crate) fn save_prepared(&self, id: &str, tree: &PreparedTree) -> Result<(), StoreError> {
        self.save(&name(id), tree)
    }

    /// Schedules the removal of a useless prepared tree. The registry lists it before its record is
    /// removed.
    pub(crate) fn discard_prepared(
        &self,
        registry: &mut Registry,
        id: &str,
        tree: PreparedTree,
    ) -> Result<PendingRemoval, StoreError> {
        let removal = tree.into_removal();
        registry.pending_removals.push(removal.clone());
        self.save_registry(registry)?;
        self.forget_prepared(id)?;
        Ok(removal)
    }

    pub(crate) fn forget_prepared(&self, id: &str) -> Result<(), StoreError> {
        if self.has_prepared(id) { self.remove(&name(id)) } else { Ok(()) }
    }
}

fn name(id: &str) -> String {
    format!("prepared/{id}.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Root;
    use crate::python::Minor;

    fn built_for() -> BuiltFor {
        let target = Target { minor: Minor::new(3, 13), follows: true, copies: false };
        let interpreter = Some(BuildId("a".into()));
        BuiltFor { venv: (1, 2), target, interpreter, recipe: "b".into() }
    }

    #[test]
    fn a_prepared_tree_is_known_until_its_record_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(&Root::new(dir.path()));
        assert_eq!(store.prepared("1").unwrap(), None);
        let tree = PreparedTree::new(Path::new("/srv/.venv.venvguard-x"), (3, 4), built_for());
        store.save_prepared("1", &tree).unwrap();
        assert_eq!(store.prepared("1").unwrap(), Some(tree));
        store.forget_prepared("1").unwrap();
        store.forget_prepared("1").unwrap();
        assert_eq!(store.prepared("1").unwrap(), None);
    }

    #[test]
    fn a_prepared_tree_of_schema_version_1_is_read() {
        let built_for = BuiltFor {
            interpreter: Some(BuildId("0a1b".into())),
            recipe: "0c2d".into(),
            ..built_for()
        };
        let tree = PreparedTree {
            schema_version: 1,
            at: "2026-01-01T00:00:00Z".parse().unwrap(),
            path: Path::new("/srv/shop/.venv.venvguard-1").into(),
            identity: (1, 3),
            built_for,
            notes: vec!["flask has no wheel".into()],
            leaves_files: true,
            bytes: None,
        };
        let fixture = include_str!("fixtures/prepared.schema-1.json");
        super::super::fixtures::check(&name("0a1b2c3d"), fixture, SCHEMA, &tree);
    }

    #[test]
    fn each_change_makes_it_useless() {
        let built = built_for();
        assert_eq!(built.difference(&built), None);
        let other = Target { follows: false, ..built.target };
        for changed in [
            BuiltFor { venv: (9, 9), ..built.clone() },
            BuiltFor { target: other, ..built.clone() },
            BuiltFor { interpreter: Some(BuildId("other".into())), ..built.clone() },
            BuiltFor { recipe: "other".into(), ..built.clone() },
        ] {
            assert!(built.difference(&changed).is_some(), "{changed:?}");
        }
        let unknown = BuiltFor { interpreter: None, ..built };
        assert!(unknown.difference(&unknown).is_some(), "an unknown build never matches");
    }
}
