//! The owner of a venv: the user that does the work in it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Context;
use crate::host::user::{self, User};
use crate::host::{Root, parallel};
use crate::owner::{self, Task};
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

/// Performs tasks in venvs, in one process for each owner. The answers are in the order of the tasks.
pub(crate) fn perform_all<T: Task>(
    root: &Root,
    limit: Duration,
    tasks: Vec<(&Venv, T)>,
) -> Vec<Result<T::Answer, String>> {
    let number_of_tasks = tasks.len();
    let mut by_owner: BTreeMap<(u32, u32), (Vec<usize>, Vec<T>)> = BTreeMap::new();
    for (number, (venv, task)) in tasks.into_iter().enumerate() {
        let (numbers, own) = by_owner.entry((venv.uid, venv.gid)).or_default();
        numbers.push(number);
        own.push(task);
    }
    let perform = |((uid, gid), (numbers, own)): (_, (Vec<usize>, Vec<T>))| {
        (numbers, owner::run_all(root, &owner_of(root, uid, gid), limit, &own))
    };
    let mut answers: BTreeMap<usize, Result<T::Answer, String>> = BTreeMap::new();
    for (numbers, answered) in parallel::map(by_owner, owner::AT_ONCE, perform) {
        match answered {
            Ok(own) => {
                let own = own.into_iter().map(|one| one.map_err(|error| error.to_string()));
                answers.extend(numbers.into_iter().zip(own));
            }
            Err(error) => {
                let failed = |number| (number, Err(error.to_string()));
                answers.extend(numbers.into_iter().map(failed));
            }
        }
    }
    (0..number_of_tasks)
        .map(|number| answers.remove(&number).unwrap_or_else(|| Err("it was not inspected".into())))
        .collect()
}
