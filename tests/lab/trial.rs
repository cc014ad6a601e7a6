//! Trials that make a foundation of their own, unlike a case: the grid, and rehearsals of real distributions and of
//! another release.

use anyhow::Result;

use crate::machine::Machine;
use crate::prepare::Lab;
use crate::prepare::upgrade::Kind;

/// One trial on a machine of its own.
pub(crate) trait Special: Send + Sync {
    /// The name of the trial, for filters.
    fn name(&self) -> String;

    /// Whether it takes minutes, and so runs only on request.
    fn is_whole(&self) -> bool;

    fn upgrade(&self) -> Kind;

    /// How much its machine may write, in MiB.
    fn room(&self) -> u64;

    /// Makes what it needs, unless an earlier run did.
    fn prepare(&self, lab: &Lab) -> Result<()>;

    fn boot(&self, lab: &Lab) -> Result<Machine>;

    fn run(&self, machine: &Machine) -> Result<()>;
}

/// Every such trial.
pub(crate) fn all() -> Vec<Box<dyn Special>> {
    let grids = crate::grid::all().into_iter().map(|one| Box::new(one) as Box<dyn Special>);
    let distributions = crate::distributions::all().into_iter();
    let distributions = distributions.map(|one| Box::new(one) as Box<dyn Special>);
    let release: Box<dyn Special> = Box::new(crate::releases::OtherRelease);
    grids.chain(distributions).chain([release]).collect()
}
