//! What a rebuild is for, and whether it can be expected to work.

use std::io;
use std::path::PathBuf;

use super::install_spec::InstallSpec;
use super::stage::Looked;
use super::trees::LOOK_LIMIT;
use super::{Context, sources, stage};
use crate::host::Root;
use crate::host::user::{self, User};
use crate::owner::{self, ListAdditions};
use crate::plan::Readiness;
use crate::python::{self, Interpreters, Minor};
use crate::store::RegistryEntry;
use crate::venv::{Additions, BaseLink, Venv};

/// What a rebuild has to end with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) minor: Minor,
    /// Linked to `/usr/bin/python3`, and not to the interpreter of the minor version.
    pub(crate) follows: bool,
    pub(crate) copies: bool,
}

impl Target {
    /// For the default interpreter, hanging on it as the venv did before.
    pub(crate) fn of_default(venv: &Venv, follows: bool, now: &Interpreters) -> Option<Self> {
        Some(Self::new(venv, follows, now.default?))
    }

    /// For the interpreter that a person wants, else for the venv's own: the default one for
    /// a venv that follows it or has lost its own.
    pub(crate) fn asked_for(
        venv: &Venv,
        follows: bool,
        now: &Interpreters,
        wanted: Option<Minor>,
    ) -> Option<Self> {
        match wanted {
            Some(minor) => Some(Self::new(venv, follows && now.default == Some(minor), minor)),
            None if follows || now.get(venv.site).is_none() => Self::of_default(venv, follows, now),
            None => Some(Self::new(venv, false, venv.site)),
        }
    }

    fn new(venv: &Venv, follows: bool, minor: Minor) -> Self {
        let copies = venv.base.link == BaseLink::Copied;
        Self { minor, follows: follows && !copies, copies }
    }

    /// The interpreter that makes it.
    pub(crate) fn interpreter(self) -> PathBuf {
        if self.follows { python::DEFAULT.into() } else { python::path_of(self.minor) }
    }
}

/// Whether a rebuild for `minor` can be expected to work.
pub(crate) fn readiness(
    context: &Context,
    entry: &RegistryEntry,
    venv: &Venv,
    minor: Option<Minor>,
    looked: Looked,
) -> Readiness {
    let Some(minor) = minor else {
        return Readiness::NotReady(vec![format!("{} is not installed", python::DEFAULT)]);
    };
    let mut reasons = Vec::new();
    reasons.extend(InstallSpec::of(context, entry, venv).err().unwrap_or_default());
    let owner = owner(context, venv);
    reasons.extend(sources::engines(context, venv, &owner, minor, &python::path_of(minor)).err());
    reasons.extend(stage::obstacles(context.root, venv, looked));
    if reasons.is_empty() { Readiness::Ready } else { Readiness::NotReady(reasons) }
}

/// The user files of a venv, as a process of its owner lists them.
pub(crate) fn additions(context: &Context, venv: &Venv) -> io::Result<Additions> {
    let task = ListAdditions { tree: venv.layout() };
    owner::run(context.root, &owner(context, venv), LOOK_LIMIT, &task)
}

/// The user who owns the venv, with or without an account.
pub(crate) fn owner(context: &Context, venv: &Venv) -> User {
    owner_of(context.root, venv.uid, venv.gid)
}

/// The user of this number.
pub(crate) fn owner_of(root: &Root, uid: u32, gid: u32) -> User {
    user::by_uid(root, uid).unwrap_or_else(|| User {
        name: uid.to_string(),
        uid,
        gid,
        home: "/nonexistent".into(),
    })
}
