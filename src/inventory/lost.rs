//! The libraries of the system that venvs need and a transaction removes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Inventory;
use crate::apt::RemovedLibraries;
use crate::host::file::{printable, printable_within};
use crate::owner::FindNeeds;
use crate::plan::{Finding, FindingKind, Loss, Policy};
use crate::repair::{self, Context};
use crate::store::RegistryEntry;
use crate::venv::{Need, Venv};

/// How long the processes of one owner search. apt is waiting.
const LIMIT: Duration = Duration::from_secs(30);

/// The longest name that an owner can make venvguard print.
const NAME_LIMIT: usize = 100;

/// What each venv loses, by its id. A venv that cannot be searched is reported and loses nothing: it
/// may use none of the libraries.
pub(crate) fn lost_libraries(
    context: &Context,
    inventory: &Inventory,
    removed: &RemovedLibraries,
) -> BTreeMap<String, Vec<Loss>> {
    let is_asked = |(entry, venv): &(&RegistryEntry, &Venv)| {
        venv.base.is_debian && entry.policy != Policy::Ignore
    };
    let venvs: Vec<(&RegistryEntry, &Venv)> = inventory.present().filter(is_asked).collect();
    let libraries = removed.names();
    let task = |venv: &Venv| FindNeeds { tree: venv.layout(), libraries: libraries.clone() };
    let tasks = venvs.iter().map(|(_, venv)| (*venv, task(venv))).collect();
    let mut needs: Vec<(&str, Vec<Need>)> = Vec::new();
    for ((entry, _), found) in venvs.iter().zip(repair::perform_all(context.root, LIMIT, tasks)) {
        match found {
            Ok(found) if found.is_empty() => {}
            Ok(found) => needs.push((&entry.id, found)),
            Err(error) => {
                let name = &entry.name;
                context.report.note(&format!("cannot tell which libraries {name} needs: {error}"));
            }
        }
    }
    let wanted: BTreeSet<String> =
        needs.iter().flat_map(|(_, found)| found).map(|need| need.library.clone()).collect();
    if wanted.is_empty() {
        return BTreeMap::new();
    }
    let stay = removed.installed_again(&wanted);
    let mut lost: BTreeMap<String, Vec<Loss>> = BTreeMap::new();
    for (id, found) in needs {
        let gone = found.into_iter().filter(|need| !stay.contains(&need.library));
        let losses: Vec<Loss> = gone.filter_map(|need| loss(&need, removed)).collect();
        if !losses.is_empty() {
            lost.insert(id.to_string(), losses);
        }
    }
    lost
}

fn loss(need: &Need, removed: &RemovedLibraries) -> Option<Loss> {
    // The owner's answer may name anything.
    let package = removed.package_of(&need.library)?.to_string();
    let short = |text: &str| printable_within(text, NAME_LIMIT);
    let (library, module) = (short(&need.library), short(&printable(&need.module.0)));
    let finding = Finding {
        distribution: Some(short(&need.distribution)),
        version: need.version.as_deref().map(short),
        kind: FindingKind::LostLibrary,
        detail: format!("its module {module} needs {library} of {package}, which is removed"),
        works_from: None,
    };
    Some(Loss { package, finding })
}
