//! A command that fills a new tree, for an application that builds its venv itself.
//!
//! The creator of the venv makes the tree, and installs pip into it if the old tree had one. The
//! command installs the rest as any installer does: as the owner of the venv, confined, within the
//! time limit of the rebuild.

use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::engine::is_roots_alone;
use super::job::Job;
use crate::host::command::PATH;
use crate::host::file::printable;
use crate::host::root::normal;
use crate::host::{Program, Root};
use crate::python::Minor;
use crate::venv::{self, Difference, Differences, Distribution, Origin, Venv};

/// The command of a venv, and what it must install again.
#[derive(Debug)]
pub(super) struct BuildCommand<'a> {
    pub(super) program: &'a Path,
    pub(super) arguments: &'a [String],
    /// Whether the old tree had pip.
    pub(super) pip: bool,
    pub(super) system_site_packages: bool,
    /// The directory that contains the venv, in which the command starts.
    dir: PathBuf,
    /// What was installed, without what comes with every venv.
    had: Vec<Distribution>,
}

impl<'a> BuildCommand<'a> {
    /// The command of a venv, if it has one. The error says why it cannot be run.
    pub(super) fn of(
        root: &Root,
        command: &'a [String],
        venv: &Venv,
        distributions: &[Distribution],
    ) -> Option<Result<Self, String>> {
        let (program, arguments) = command.split_first()?;
        if let Some(obstacle) = obstacle(root, command, venv) {
            return Some(Err(obstacle));
        }
        let had = distributions.iter().filter(|one| !venv::comes_with_every_venv(one));
        Some(Ok(Self {
            program: Path::new(program),
            arguments,
            pip: distributions.iter().any(|one| one.normalized_name() == "pip"),
            system_site_packages: venv.system_site_packages,
            dir: starts_in(venv).to_path_buf(),
            had: had.cloned().collect(),
        }))
    }

    /// The program to run. It sees the new tree at the venv's path, as if it were activated.
    pub(super) fn to_program(&self, job: &Job, minor: Minor) -> Program {
        let mut path = OsString::from(job.venv.path.join("bin"));
        path.push(":");
        path.push(PATH);
        let program = Program::new(self.program).args(self.arguments);
        job.inform(program, minor).env("VIRTUAL_ENV", &job.venv.path).env("PATH", path)
    }

    /// The modules that must be importable again.
    pub(super) fn modules(&self, site_packages: &Path) -> io::Result<Vec<String>> {
        venv::top_level_modules_of(site_packages, &self.had)
    }

    /// What is missing among the `installed` distributions of the new tree.
    pub(super) fn compare(&self, site_packages: &Path, installed: &[Distribution]) -> Differences {
        let elsewhere = venv::required_on_some_pythons(site_packages, installed);
        Differences::of_names(&self.had, installed, &elsewhere)
    }

    /// Forgets the distributions that may be missing.
    pub(super) fn forget(&mut self, missing: &[Difference]) {
        let is_missing = |one: &Distribution| {
            missing.iter().any(|it| it.name.to_string() == one.normalized_name())
        };
        self.had.retain(|one| !is_missing(one));
    }

    /// The directories in which build backends leave their output: those that distributions were
    /// installed from, and the one that contains the venv.
    pub(super) fn sources(&self) -> Vec<PathBuf> {
        let origin = |one: &Distribution| match &one.origin {
            Origin::Directory { path, .. } => Some(normal(path)),
            _ => None,
        };
        self.had.iter().filter_map(origin).chain([self.dir.clone()]).collect()
    }

    /// The paths that the command names.
    pub(super) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        let arguments = self.arguments.iter().map(Path::new).filter(|word| word.is_absolute());
        std::iter::once(self.program).chain(arguments).map(Path::to_path_buf)
    }
}

/// The directory in which the command of a venv starts.
pub(super) fn starts_in(venv: &Venv) -> &Path {
    venv.path.parent().unwrap_or(Path::new("/"))
}

/// Why a command cannot be run for a venv.
fn obstacle(root: &Root, command: &[String], venv: &Venv) -> Option<String> {
    // The new tree has its own programs, and who may write to the old one is asked elsewhere.
    let is_inside = |path: &Path| {
        path.starts_with(&venv.path) && !path.components().any(|one| one == Component::ParentDir)
    };
    let is_outside = |path: &&Path| path.is_absolute() && !is_inside(path);
    let program = command.first().map(Path::new).filter(is_outside);
    if let Some(program) = program.filter(|program| !root.at(program).is_file()) {
        return Some(format!(
            "its build command {} does not exist (set another one: `venvguard register --build-command`)",
            printable(program)
        ));
    }
    if venv.uid != 0 {
        return None;
    }
    // Root runs it, with what it names.
    let is_unsafe = |path: &&Path| {
        let path = root.at(path);
        (path.is_file() || path.is_dir()) && !is_roots_alone(&path).unwrap_or(false)
    };
    let found = command.iter().map(Path::new).filter(is_outside).find(is_unsafe)?;
    Some(format!(
        "its build command names {}, which others than root can change, and the venv belongs to root",
        printable(found)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::venv::BaseLink;

    fn venv(uid: u32) -> Venv {
        let minor = Minor::new(3, 11);
        Venv { uid, ..crate::plan::samples::subject(BaseLink::Pinned, minor).venv }
    }

    #[test]
    fn what_others_can_change_does_not_run_as_root() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("build").display().to_string();
        std::fs::write(&program, "").unwrap();
        let why = |command: &[&str], uid| {
            let words: Vec<String> = command.iter().map(ToString::to_string).collect();
            obstacle(&Root::new("/"), &words, &venv(uid))
        };
        assert_eq!(why(&[&program], 1000), None);
        for command in [&[program.as_str()][..], &["/bin/sh", &program]] {
            let refused = why(command, 0).unwrap();
            assert!(refused.contains("which others than root can change"), "{refused}");
        }
        assert_eq!(why(&["/bin/sh", "/etc", "/dev/null", "/nowhere", "-c"], 0), None);
        let missing = why(&["/nowhere/build"], 1000).unwrap();
        assert!(missing.contains("/nowhere/build does not exist"), "{missing}");
        let own = venv(0).path.join("bin/pip").display().to_string();
        assert_eq!(why(&[&own], 0), None, "the creator makes it");
        let beside = venv(0).path.join("../build").display().to_string();
        assert!(why(&[&beside], 0).is_some());
    }
}
