//! The man page and the completions, from the same description that parses the arguments.

use clap::CommandFactory;

use super::arguments::{Arguments, Generated};

pub(super) fn run(what: Generated) -> anyhow::Result<()> {
    let mut command = Arguments::command();
    let mut output = std::io::stdout().lock();
    match what {
        Generated::Man => clap_mangen::Man::new(command).section("8").render(&mut output)?,
        Generated::Completions { shell } => {
            clap_complete::generate(shell, &mut command, "venvguard", &mut output);
        }
    }
    Ok(())
}
