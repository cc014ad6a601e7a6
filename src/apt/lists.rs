//! apt's package lists, without which nobody knows what an upgrade would do.

use std::time::Duration;

use jiff::Timestamp;

use crate::host::{Root, clock};

const LISTS: &str = "/var/lib/apt/lists";

/// What changes when the lists are updated, if not always all of it. Files in the lists have the
/// times of their server.
const UPDATED: [&str; 3] = [LISTS, "/var/lib/apt/lists/partial", UPDATE_STAMP];

/// The stamp that update-notifier-common leaves, which Ansible's apt module reads as well.
const UPDATE_STAMP: &str = "/var/lib/apt/periodic/update-success-stamp";

/// After so many days the lists say little about what an upgrade would do.
const OLD: Duration = Duration::from_secs(7 * 24 * 3600);

/// Whether apt knows what could be upgraded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lists {
    Empty,
    /// How long ago, where that is known.
    Updated(Option<Duration>),
}

impl Lists {
    pub(crate) fn look(root: &Root) -> Self {
        // Somebody may have moved them: then only apt knows.
        let Ok(names) = std::fs::read_dir(root.at(LISTS)) else { return Self::Updated(None) };
        let mut names = names.flatten();
        let is_list = |name: &std::ffi::OsString| name.to_string_lossy().contains("_Packages");
        if !names.any(|entry| is_list(&entry.file_name())) {
            return Self::Empty;
        }
        let changed = |path: &&str| std::fs::metadata(root.at(path)).ok()?.modified().ok();
        let latest = UPDATED.iter().filter_map(changed).max();
        let at = latest.and_then(|at| Timestamp::try_from(at).ok());
        // The clock counts seconds: what was updated in this one is not from the future.
        Self::Updated(at.map(|at| clock::now().duration_since(at).try_into().unwrap_or_default()))
    }

    /// The age in whole days of lists that are too old.
    pub(crate) fn days_too_old(self) -> Option<u64> {
        match self {
            Self::Updated(Some(age)) if age > OLD => Some(age.as_secs() / (24 * 3600)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn lists_are_empty_new_or_old() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        assert_eq!(Lists::look(&root), Lists::Updated(None));
        fs::create_dir_all(root.at("/var/lib/apt/lists/partial")).unwrap();
        fs::write(root.at("/var/lib/apt/lists/lock"), "").unwrap();
        assert_eq!(Lists::look(&root), Lists::Empty);
        let list =
            "/var/lib/apt/lists/deb.example.org_debian_dists_trixie_main_binary-amd64_Packages";
        fs::write(root.at(list), "").unwrap();
        let lists = Lists::look(&root);
        assert!(matches!(lists, Lists::Updated(Some(_))), "{lists:?}");
        assert_eq!(lists.days_too_old(), None);
        let days = |days: u64| Lists::Updated(Some(Duration::from_secs(days * 24 * 3600 + 1)));
        assert_eq!(days(6).days_too_old(), None);
        assert_eq!(days(30).days_too_old(), Some(30));
    }
}
