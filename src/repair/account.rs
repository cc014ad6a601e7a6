//! The owner of a venv: the user that does the work in it.

use super::Context;
use crate::host::Root;
use crate::host::user::{self, User};
use crate::venv::Venv;

/// The user who owns the venv, with or without an account.
pub(crate) fn owner(context: &Context, venv: &Venv) -> User {
    owner_of(context.root, venv.uid, venv.gid)
}

/// The user with this number, with or without an account.
pub(crate) fn owner_of(root: &Root, uid: u32, gid: u32) -> User {
    user::by_uid(root, uid).unwrap_or_else(|| User {
        name: uid.to_string(),
        uid,
        gid,
        home: "/nonexistent".into(),
    })
}
