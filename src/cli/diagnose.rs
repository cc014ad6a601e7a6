//! `diagnose`: the cause of a Python failure, its evidence on this machine, and what mends it.

use std::fs::File;
use std::io::{self, Read};

use anyhow::Context;
use serde::Serialize;

use super::Exit;
use super::arguments::Diagnose;
use crate::diagnose::failure::{Cause, TEXT_LIMIT};
use crate::guard::{FailureOf, Guard};
use crate::host::file::printable;

/// How much is read of a text in order to find its end.
const READ_LIMIT: u64 = 256 << 20;

/// What `diagnose --json` prints.
#[derive(Serialize)]
struct DiagnoseJson<'a> {
    schema_version: u64,
    causes: &'a [Cause],
}

pub(super) fn diagnose(guard: &Guard, asked: &Diagnose) -> anyhow::Result<Exit> {
    let text = match (&asked.file, asked.venv.as_deref()) {
        (Some(path), _) => {
            let read = || end_of(File::open(path)?);
            Some(read().with_context(|| format!("cannot read {}", printable(path)))?)
        }
        (None, Some("-")) => {
            Some(end_of(io::stdin().lock()).context("cannot read standard input")?)
        }
        (None, _) => None,
    };
    let failure = match (&text, &asked.unit, &asked.venv) {
        (Some(text), ..) => FailureOf::Text(text),
        (None, Some(unit), _) => FailureOf::Unit(unit),
        (None, None, Some(venv)) => FailureOf::Venv(venv),
        // The arguments require one of them.
        (None, None, None) => return Ok(Exit::Failed),
    };
    let causes = guard.diagnose(failure)?;
    if asked.json {
        guard.report.json(&DiagnoseJson { schema_version: 1, causes: &causes });
    } else if causes.is_empty() {
        guard.report.data("no known cause");
    } else {
        for cause in &causes {
            print_cause(guard, cause);
        }
    }
    Ok(if causes.is_empty() { Exit::Done } else { Exit::Attention })
}

fn print_cause(guard: &Guard, cause: &Cause) {
    let report = &guard.report;
    report.data(format!("{}: {}", cause.certainty, cause.title));
    for line in &cause.evidence {
        report.data(format!("    {line}"));
    }
    report.data(match cause.caused_by_upgrade {
        Some(true) => "    an upgrade of Python caused it",
        Some(false) => "    no upgrade of Python caused it",
        None => "    it is not known whether an upgrade of Python caused it",
    });
    report.data(format!("    fix: {}", cause.remedy));
}

/// The end of what can be read, where the last failure is.
fn end_of(source: impl Read) -> io::Result<Vec<u8>> {
    let mut source = source.take(READ_LIMIT);
    let mut end = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        let length = source.read(&mut chunk)?;
        let Some(read) = chunk.get(..length).filter(|read| !read.is_empty()) else {
            return Ok(end);
        };
        end.extend_from_slice(read);
        if end.len() > 2 * TEXT_LIMIT {
            end.drain(..end.len() - TEXT_LIMIT);
        }
    }
}
