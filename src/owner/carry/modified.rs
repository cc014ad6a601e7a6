//! Installed files that were modified since: carried over where they still fit, else kept beside.

use std::io;
use std::path::{Path, PathBuf};

use super::{Work, stat};
use crate::host::file::printable;
use crate::owner::copy::Copier;
use crate::venv;

/// The suffix of a modified file that is kept beside another version of it.
const BESIDE: &str = ".venvguard-modified";

pub(super) fn is_kept_beside(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.trim_end_matches('+').ends_with(BESIDE)
}

impl Work<'_> {
    /// Copies files that were modified after installation over their counterparts in the other
    /// tree, if those are the unmodified originals. Otherwise the copy is kept beside.
    pub(super) fn modified(
        &mut self,
        copier: &mut Copier,
        distributions: &[venv::Distribution],
    ) -> io::Result<()> {
        // The first pass does not look at installed files.
        let since = self.since.filter(|_| !self.task.is_ahead() || !self.known.modified.is_empty());
        let tree = self.root.at(&self.task.to.0);
        self.now.modified.clone_from(&self.known.modified);
        self.now.beside.clone_from(&self.known.beside);
        for one in venv::modified_files(self.root, &self.task.from, distributions, since) {
            let target = self.task.target(&one.path);
            if self.describes_what_is_gone(&target) {
                continue;
            }
            let fits = self.known.modified.contains(&target)
                || venv::has_hash(&tree, &target, &one.written);
            if fits {
                match copier.copy(&one.path, &target, true, None) {
                    Ok(()) => drop(self.now.modified.insert(target)),
                    Err(error) => self.failed(&one.path, &error)?,
                }
            } else if self.is_same_file(&one.path, &target) {
            } else if self.task.is_back() {
                self.left(&one.path, &io::Error::other("it was changed after it was installed"));
            } else {
                self.keep_beside(copier, &one.path, &target)?;
            }
        }
        Ok(())
    }

    /// Whether a file describes a distribution that the other tree has in another version. With a
    /// copy of it there, that distribution would seem to be installed.
    fn describes_what_is_gone(&self, target: &Path) -> bool {
        let mut parents = target.ancestors().skip(1);
        let info = parents.find(|path| {
            path.extension().is_some_and(|ending| ending == "dist-info" || ending == "egg-info")
        });
        info.is_some_and(|info| stat(self.to, info).is_err())
    }

    fn is_same_file(&self, path: &Path, target: &Path) -> bool {
        let both = stat(self.from, path).ok().zip(stat(self.to, target).ok());
        both.is_some_and(|(here, there)| {
            let instead = self.adapted(path, &here).instead;
            self.is_same(path, &here, target, &there, instead.as_ref())
        })
    }

    fn keep_beside(&mut self, copier: &mut Copier, path: &Path, target: &Path) -> io::Result<()> {
        let mut name = target.as_os_str().to_os_string();
        name.push(BESIDE);
        while !self.known.beside.contains(Path::new(&name))
            && stat(self.to, Path::new(&name)).is_ok()
        {
            name.push("+");
        }
        let name = PathBuf::from(name);
        match copier.copy(path, &name, self.known.beside.contains(&name), None) {
            Ok(()) => {
                self.carried.notes.push(|| {
                    format!(
                        "conflict: {} was changed after it was installed, but the new environment has a different file or none; keeping it as {}",
                        printable(path),
                        printable(&name)
                    )
                });
                self.now.beside.insert(name);
            }
            Err(error) => self.failed(path, &error)?,
        }
        Ok(())
    }
}
