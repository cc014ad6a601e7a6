//! Predicts what a pending upgrade would do to the venvs.

use std::path::{Path, PathBuf};

use super::{AskError, Guard};
use crate::apt::{
    Action, AptGet, Lists, ProtocolError, RemovedLibraries, Transaction, pending_upgrade, predict,
};
use crate::host::ReadError;
use crate::host::command::CommandError;
use crate::host::file::{open_untrusted, printable};
use crate::inventory::Inventory;
use crate::plan::{Decision, Plan};
use crate::repair::{self, Context};
use crate::venv::Additions;

/// Why the effects of an upgrade cannot be predicted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForeseeError {
    #[error(transparent)]
    Open(#[from] ReadError),
    #[error("cannot read {}", printable(.path))]
    List { path: PathBuf, source: ProtocolError },
    #[error("cannot simulate the pending upgrade")]
    Simulation(#[from] CommandError),
}

/// What an upgrade would do.
#[derive(Debug)]
pub(crate) struct Foreseen<'a> {
    pub(crate) plan: Plan,
    /// Whether apt knows what is pending, if apt was asked.
    pub(crate) lists: Option<Lists>,
    inventory: Inventory,
    context: Context<'a>,
}

impl Foreseen<'_> {
    /// The user files of a venv that would be rebuilt, if they can be listed.
    pub(crate) fn additions(&self, decision: &Decision) -> Option<Additions> {
        let (_, venv) = self.inventory.get(&decision.id)?;
        decision.target()?;
        repair::additions(&self.context, venv).ok()
    }
}

impl Guard {
    /// What the pending upgrade would do to the venvs, or an upgrade whose list is in a file.
    pub(crate) fn foresee(&self, list: Option<&Path>) -> Result<Foreseen<'_>, AskError> {
        let lists = list.is_none().then(|| Lists::look(&self.root));
        let transaction =
            if lists == Some(Lists::Empty) { Transaction::default() } else { transaction(list)? };
        let (plan, inventory) = self.foreseen(&transaction)?;
        Ok(Foreseen { plan, lists, inventory, context: self.context() })
    }

    /// What actions of apt would do to the venvs.
    pub(crate) fn foresee_actions(&self, actions: Vec<Action>) -> Result<Plan, AskError> {
        Ok(self.foreseen(&Transaction { actions, ..Transaction::default() })?.0)
    }

    fn foreseen(&self, transaction: &Transaction) -> Result<(Plan, Inventory), AskError> {
        let now = self.interpreters()?;
        let after = predict(&now, &transaction.actions);
        let removed = RemovedLibraries::of(&self.root, transaction);
        let inventory = self.inventory()?;
        let known = self.store.transaction()?;
        let plan = self.propose_before_dpkg(
            &inventory,
            (&now, &after),
            &transaction.actions,
            &removed,
            known.as_ref(),
        );
        Ok((plan, inventory))
    }
}

fn transaction(list: Option<&Path>) -> Result<Transaction, ForeseeError> {
    let Some(path) = list else { return Ok(pending_upgrade(&AptGet::default())?) };
    let list = |source| ForeseeError::List { path: path.to_path_buf(), source };
    Transaction::read(open_untrusted(path)?).map_err(list)
}
