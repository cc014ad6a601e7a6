//! The user files and the modified files of a tree, for display.

use std::io;

use serde::{Deserialize, Serialize};

use super::Task;
use crate::host::Root;
use crate::host::clock::Deadline;
use crate::venv::{Additions, Layout};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListAdditions {
    pub(crate) tree: Layout,
}

impl Task for ListAdditions {
    const NAME: &'static str = "list-additions";
    type Answer = Additions;

    fn perform(&self, root: &Root, _: Deadline) -> io::Result<Additions> {
        Additions::of(root, &self.tree)
    }
}
