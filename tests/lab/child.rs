//! Child processes of the lab: one way to run them, with their output in errors.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// How much of a failed command's output goes into its error: enough for apt's reason, short enough to read.
const TAIL: usize = 4096;

/// Runs a command to its end and returns its standard output; an error contains the end of its output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {name}"))?;
    let stdout = String::from_utf8_lossy(&done.stdout).into_owned();
    if !done.status.success() {
        let said = stdout + &String::from_utf8_lossy(&done.stderr);
        bail!("{name}: {}\n{}", done.status, tail(&said));
    }
    Ok(stdout)
}

/// The end of a long text, cut at a line.
pub(crate) fn tail(text: &str) -> &str {
    let Some(mut start) = text.len().checked_sub(TAIL) else {
        return text;
    };
    while !text.is_char_boundary(start) {
        start += 1;
    }
    match text[start..].split_once('\n') {
        Some((_, whole_lines)) => whole_lines,
        None => &text[start..],
    }
}
