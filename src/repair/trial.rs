//! Tries a venv in a system that is not installed yet.

use super::Context;
use super::builder::System;
use super::findings::findings;
use super::install_spec::{InstallSpec, Installed};
use super::not_rebuilt::RebuildError;
use super::place::owner_to_run;
use super::smoke::{Wanted, smoke};
use crate::host::overlay::Overlay;
use crate::plan::Finding;
use crate::store::RegistryEntry;
use crate::venv::Venv;

/// Checks a venv as it is in another system. What fails in the installed one does not count.
pub(crate) fn check_in(
    context: &Context,
    entry: &RegistryEntry,
    venv: &Venv,
    system: &System,
) -> Vec<Finding> {
    let spec = InstallSpec::of(context, entry, venv);
    let modules = spec.map(|spec| spec.modules).unwrap_or_default();
    let owner = match owner_to_run(context, venv) {
        Ok(owner) => owner,
        Err(why) => {
            return findings(context, venv, venv.site, &RebuildError::NotThere(vec![why]));
        }
    };
    let limit = context.config.rebuild_limit();
    // Its own minor version keeps its standard library, whatever the default one is there.
    let wanted =
        Wanted { modules: &modules, removed: &[], proven: None, pinned_to: Some(venv.site) };
    let check =
        |overlays: &[Overlay]| smoke(context.root, &owner, &venv.path, wanted, overlays, limit);
    let worse = match check(&system.seen_through) {
        Ok(after) if after.is_empty() => return Vec::new(),
        Ok(after) => match check(&[]) {
            Ok(before) => RebuildError::Worse(after.new_since(&before)),
            Err(_) => return Vec::new(),
        },
        // It was broken before.
        Err(_) if check(&[]).is_err() => return Vec::new(),
        Err(why) => RebuildError::Dead(why),
    };
    findings(context, venv, venv.site, &worse)
}

/// A hash of what a rebuild of a venv would install, and of what is installed in it; `None` if the
/// venv cannot be reproduced.
pub(crate) fn recipe_digest(
    context: &Context,
    entry: &RegistryEntry,
    venv: &Venv,
) -> Option<String> {
    let spec = InstallSpec::of(context, entry, venv).ok()?;
    Some(spec.digest(&Installed::of(context.root, venv)))
}
