//! Completions: a shell's script asks the program itself, which knows the venvs.

use std::io;

use clap::CommandFactory;
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, Shell};

use super::arguments::Arguments;

/// By this variable a shell says that it completes.
const VARIABLE: &str = "COMPLETE";
const PROGRAM: &str = "venvguard";

/// Answers a shell that completes a command line, and ends the program. A shell calls it with `--`
/// and the words so far. No hook of apt's does: whatever is in the environment, it stays a hook.
pub(super) fn answer() {
    if std::env::args_os().nth(1).is_some_and(|first| first == "--") {
        CompleteEnv::with_factory(Arguments::command).var(VARIABLE).bin(PROGRAM).complete();
    }
}

/// Writes the script that a shell reads once.
pub(super) fn script(shell: Shell, output: &mut Vec<u8>) -> io::Result<()> {
    let shells = Shells::builtins();
    let writer = shells.completer(&shell.to_string());
    let writer = writer.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
    writer.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, output)
}
