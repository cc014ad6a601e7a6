//! Asks an index whether it has a wheel of each distribution of a venv for another Python. That
//! proves less than a build, and needs no mounts.

use std::path::Path;

use super::Context;
use super::engine::Engine;
use super::findings::findings;
use super::install::{InstallError, Missing, offered};
use super::install_spec::{InstallSpec, Requested};
use super::not_rebuilt::RebuildError;
use super::place::owner_to_run;
use super::sources;
use crate::host::clock::Deadline;
use crate::host::command::{CommandError, Finished};
use crate::host::{Program, confine};
use crate::plan::Finding;
use crate::python::{Minor, path_of};
use crate::store::RegistryEntry;
use crate::venv::{Nearest, Requirement, Source, Venv, nearest};

/// What an index lacks for a minor version.
pub(crate) fn resolve(
    context: &Context,
    entry: &RegistryEntry,
    venv: &Venv,
    minor: Minor,
) -> Vec<Finding> {
    match lacks(context, entry, venv, minor) {
        Ok(()) => Vec::new(),
        Err(error) => findings(context, venv, minor, &error),
    }
}

fn lacks(
    context: &Context,
    entry: &RegistryEntry,
    venv: &Venv,
    minor: Minor,
) -> Result<(), RebuildError> {
    let spec = InstallSpec::of(context, entry, venv).map_err(RebuildError::Unreproducible)?;
    let recipe = match &spec.wanted {
        Requested::Same(recipe, _) => recipe,
        // Only a build can tell what these need.
        Requested::Listed { .. } | Requested::Built(_) => return Err(RebuildError::OnlyInPlace),
    };
    let owner = owner_to_run(context, venv).map_err(|why| RebuildError::NotThere(vec![why]))?;
    let interpreter = path_of(venv.site);
    let engine = sources::engines(context, venv, &owner, (venv.site, &interpreter), context.root)
        .and_then(|engines| engines.into_iter().next().ok_or("there is no installer".into()))
        .map_err(RebuildError::NoEngine)?;
    let deadline = Deadline::after(context.config.rebuild_limit());
    let run = |program: Program| {
        let program = program.limit(deadline.left());
        confine::confined(context.root, program, &owner, &[], Path::new("/")).run()
    };
    // pip refuses to work for Debian's interpreter, even if it installs nothing.
    let python = venv.path.join("bin/python");
    let index = Index { engine: &engine, python: &python, minor, run: &run };
    let asked: Vec<&Requirement> = recipe
        .requirements
        .iter()
        .filter(|one| matches!(one.source, Source::Index { .. }))
        .collect();
    index.has_all(&asked).map_err(RebuildError::Install)
}

/// An index, asked by an engine.
struct Index<'a> {
    engine: &'a Engine,
    /// The interpreter of the venv as it is.
    python: &'a Path,
    /// The Python that the wheels are for.
    minor: Minor,
    run: &'a dyn Fn(Program) -> Result<Finished, CommandError>,
}

impl Index<'_> {
    fn has_all(&self, requirements: &[&Requirement]) -> Result<(), InstallError> {
        if requirements.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = requirements.iter().map(ToString::to_string).collect();
        let Err(error) = self.has(list.join("\n")) else { return Ok(()) };
        let mut missing = Vec::new();
        for requirement in requirements {
            match self.asked_for(requirement) {
                Lack::Nothing => {}
                Lack::Version(one) => missing.push(one),
                // It may be out of reach: the others would wait for it, too.
                Lack::Everything => break,
            }
        }
        if missing.is_empty() {
            let (engine, minor) = (self.engine.name(), self.minor);
            return Err(InstallError::Failed { engine, minor, requirement: None, error });
        }
        Err(InstallError::Missing { minor: self.minor, missing, error })
    }

    fn has(&self, list: String) -> Result<(), CommandError> {
        (self.run)(self.engine.resolves(self.python, self.minor, list)).map(drop)
    }

    fn asked_for(&self, requirement: &Requirement) -> Lack {
        if self.has(format!("{requirement}\n")).is_ok() {
            return Lack::Nothing;
        }
        let Source::Index { version, .. } = &requirement.source else { return Lack::Nothing };
        let name = requirement.name.to_string();
        let asked = self.engine.offers(self.python, &name, &version, Some(self.minor));
        let offered = offered(self.engine, (self.run)(asked));
        let offered: Vec<&str> = offered.iter().map(String::as_str).collect();
        match nearest(version, &offered) {
            _ if offered.is_empty() => Lack::Everything,
            Nearest::Itself => Lack::Nothing,
            nearest => Lack::Version(Missing::new(requirement.to_string(), nearest)),
        }
    }
}

/// What an index lacks that was asked for one requirement.
enum Lack {
    Nothing,
    /// The version has no wheel; the nearest one that has is named.
    Version(Missing),
    /// It offers no version at all.
    Everything,
}
