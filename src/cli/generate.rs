//! The man page and the completions, from the same description that parses the arguments.

use std::io::{self, Write};

use clap::{Arg, Command, CommandFactory};
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use super::arguments::{Arguments, Generated};
use super::complete;

/// The part of the page that the arguments do not give: concepts, files, JSON, examples.
const MANUAL: &str = include_str!("manual.roff");

/// As the package installs it, for a machine on which it was changed or removed.
const APT_HOOK: &[u8] = include_bytes!("../../hooks/50venvguard");

pub(super) fn run(what: Generated) -> anyhow::Result<()> {
    // Collected first: clap panics if a reader closes the pipe halfway.
    let mut output = Vec::new();
    match what {
        Generated::Man => man(Arguments::command(), &mut output)?,
        Generated::AptHook => output.extend_from_slice(APT_HOOK),
        Generated::Completions { shell } => complete::script(shell, &mut output)?,
    }
    io::stdout().lock().write_all(&output)?;
    Ok(())
}

/// One page for all commands.
fn man(mut command: Command, output: &mut Vec<u8>) -> io::Result<()> {
    command.build();
    let page = clap_mangen::Man::new(command.clone())
        .section("8")
        .manual("System administration")
        // No date: the same source gives the same page.
        .date("");
    page.render_title(output)?;
    page.render_name_section(output)?;
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([bold("venvguard"), roman(" "), italic("COMMAND"), roman(" […]")]);
    roff.to_writer(output)?;
    page.render_description_section(output)?;
    let mut roff = Roff::new();
    roff.control("SH", ["COMMANDS"]);
    for one in visible(&command) {
        describe(&mut roff, one);
    }
    roff.to_writer(output)?;
    output.write_all(MANUAL.as_bytes())
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|one| !one.is_hide_set() && one.get_name() != "help")
}

/// A command with its arguments, and the commands below it.
fn describe(roff: &mut Roff, command: &Command) {
    roff.control("SS", [command.get_bin_name().unwrap_or_else(|| command.get_name())]);
    roff.text([bold(usage(command))]);
    roff.control("PP", []);
    roff.text(sentence(command.get_about()));
    let arguments = command.get_arguments().filter(|one| {
        !one.is_hide_set() && !matches!(one.get_id().as_str(), "help" | "version" | "root")
    });
    for argument in arguments {
        roff.control("TP", []);
        roff.text([bold(argument.to_string())]);
        roff.text(sentence(argument.get_help()));
        let values = values(argument);
        if !values.is_empty() {
            roff.text([roman(format!("One of {}.", values.join(", ")))]);
        }
    }
    for one in visible(command) {
        describe(roff, one);
    }
}

fn usage(command: &Command) -> String {
    let text = command.clone().render_usage().to_string();
    text.trim_start_matches("Usage:").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn sentence(text: Option<&clap::builder::StyledStr>) -> [Inline; 1] {
    [roman(text.map_or_else(String::new, |text| format!("{text}.")))]
}

fn values(argument: &Arg) -> Vec<String> {
    if !argument.get_action().takes_values() {
        return Vec::new();
    }
    let values = argument.get_possible_values();
    values.iter().filter(|one| !one.is_hide_set()).map(|one| one.get_name().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_every_command_and_every_exit_code() {
        let mut page = Vec::new();
        man(Arguments::command(), &mut page).unwrap();
        let page = String::from_utf8(page).unwrap();
        for command in visible(&Arguments::command()) {
            let head = format!(".SS \"venvguard {}\"", command.get_name());
            assert!(page.contains(&head), "{head}");
        }
        assert!(!page.contains("confine"), "hidden commands stay hidden");
        for exit in [0, 1, 2, 3, 10] {
            assert!(page.contains(&format!("\n.B {exit}\n")), "{exit}");
        }
    }
}
