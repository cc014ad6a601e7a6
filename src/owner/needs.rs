//! The extension modules of a tree that need some libraries of the system.

use std::collections::BTreeSet;
use std::io;

use serde::{Deserialize, Serialize};

use super::Task;
use crate::host::Root;
use crate::host::clock::Deadline;
use crate::venv::{self, Layout, Need};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FindNeeds {
    pub(crate) tree: Layout,
    pub(crate) libraries: BTreeSet<String>,
}

impl Task for FindNeeds {
    const NAME: &'static str = "find-needs";
    type Answer = Vec<Need>;

    fn perform(&self, root: &Root, deadline: Deadline) -> io::Result<Vec<Need>> {
        venv::needs(&root.at(self.tree.site_packages()), &self.libraries, deadline)
    }
}
