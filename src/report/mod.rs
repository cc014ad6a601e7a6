//! The only module that prints: for people, and as JSON.
//!
//! stdout is for data, stderr for messages. Names from the system are escaped before they reach
//! a terminal. Nothing here decides or changes anything.

mod json;
mod progress;
mod table;
mod words;

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub(crate) use json::{
    DecisionsJson, HistoryJson, HoldChangeJson, ListJson, PlanJson, RehearsalJson, ScanJson,
    VenvJson, VenvRehearsalJson,
};
pub(crate) use progress::Progress;
pub(crate) use table::{Row, Tone};
pub(crate) use words::{
    decision as decision_in_words, hold as hold_in_words, in_mebibytes, pin as pin_in_words,
    reason as reason_in_words, reasons as reasons_in_words, until as until_in_words,
};

use crate::apt::Change;
use crate::plan::{Answer, Decision, Plan, Verdict};
use crate::venv::Additions;

/// Where and how messages are printed.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    /// Precedes each message, to mark it as venvguard's within apt's output.
    prefix: &'static str,
    /// Whether messages are dropped.
    is_silent: bool,
    bars: Option<indicatif::MultiProgress>,
    /// Why data could not be written, the first time.
    lost: Arc<OnceLock<io::Error>>,
}

impl Report {
    /// For a command that a person or a script runs.
    pub(crate) fn for_command() -> Self {
        let bars = std::io::stderr().is_terminal().then(indicatif::MultiProgress::new);
        Self { prefix: "", is_silent: false, bars, lost: Arc::default() }
    }

    /// For a look at what others have reported already, or will report.
    pub(crate) fn silent() -> Self {
        Self { prefix: "", is_silent: true, bars: None, lost: Arc::default() }
    }

    /// For a hook, whose messages appear among apt's.
    pub(crate) fn for_apt() -> Self {
        Self { prefix: "venvguard: ", ..Self::for_command() }
    }

    /// Prints lines of data.
    pub(crate) fn data(&self, line: impl Display) {
        self.print(&words::lines(&line.to_string()));
    }

    pub(crate) fn table(&self, head: &[&str], rows: &[Row]) {
        self.print(&table::render(head, rows, table::Terminal::of_stdout()));
    }

    fn print(&self, text: &str) {
        let mut stdout = io::stdout().lock();
        match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
            // A reader that has gone away (`| head`) is not an error.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => drop(self.lost.set(error)),
            _ => {}
        }
    }

    /// Why data that a command printed was lost, if any was.
    pub(crate) fn lost_output(&self) -> Option<&io::Error> {
        self.lost.get()
    }

    pub(crate) fn json(&self, value: &impl serde::Serialize) {
        match serde_json::to_string_pretty(value) {
            // JSON escapes control characters itself.
            Ok(text) => self.print(&text),
            Err(error) => self.error(&format!("cannot write JSON: {error}")),
        }
    }

    /// Prints a message; the lines after the first are indented.
    pub(crate) fn note(&self, message: &str) {
        if self.is_silent {
            return;
        }
        let text = format!("{}{}", self.prefix, words::indented(message));
        let write = || {
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        };
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }

    pub(crate) fn error(&self, message: &str) {
        self.note(&format!("error: {message}"));
    }

    pub(crate) fn hint(&self, message: &str) {
        self.note(&format!("hint: {message}"));
    }

    /// Removes the progress lines from the screen, for good.
    pub(crate) fn clear_progress(&self) {
        if let Some(bars) = &self.bars {
            let _ = bars.clear();
            bars.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        }
    }

    /// A progress line for one venv.
    pub(crate) fn progress(&self, name: &str) -> Progress {
        Progress::new(name, self.bars.as_ref())
    }

    pub(crate) fn changes(&self, changes: &[Change]) {
        for change in changes {
            self.note(&change.to_string());
        }
    }

    pub(crate) fn decision(&self, decision: &Decision) {
        self.note(&words::decision(decision));
    }

    /// Prints what a dry run would do to one venv.
    pub(crate) fn planned(&self, decision: &Decision) {
        self.data(words::indented(&words::decision(decision)));
    }

    /// Prints the gate's verdict, in the middle of apt's output. `overrides`: although venvs block.
    pub(crate) fn plan_for_apt(&self, plan: &Plan, verdict: Verdict, overrides: bool) {
        let blocking = || plan.decisions.iter().filter(|decision| decision.blocks);
        if verdict == Verdict::Block {
            self.note("this run is blocked; nothing was changed");
            if blocking().next().is_none() {
                self.details(plan);
                self.hint("the mode is \"block\"; allow one run by `-o VenvGuard::Mode=auto`");
                return;
            }
            blocking().for_each(|decision| self.note(&words::block(decision)));
            self.hint(&words::remediation(plan));
            return;
        }
        self.details(plan);
        if overrides {
            let names: Vec<&str> = blocking().map(|decision| decision.name.as_str()).collect();
            self.note(&format!(
                "this run continues although these venvs block it: {}",
                names.join(", ")
            ));
        }
    }

    /// Prints how long each step of some repairs took.
    pub(crate) fn timings(&self, times: &[(String, Vec<(String, Duration)>)]) {
        let row = |venv: &str, step: &str, took: Duration| {
            Row::new([venv.to_string(), format!("{:.2}", took.as_secs_f64()), step.to_string()])
        };
        let rows: Vec<Row> = times
            .iter()
            .flat_map(|(venv, steps)| steps.iter().map(|(step, took)| row(venv, step, *took)))
            .collect();
        self.table(&["NAME", "SECONDS", "STEP"], &rows);
    }

    /// Prints each venv that an upgrade affects, with the reasons.
    pub(crate) fn details(&self, plan: &Plan) {
        for decision in plan.notable() {
            self.decision(decision);
        }
    }

    /// Prints one line about an upgrade, if it affects a venv, among the lines in which apt counts
    /// packages.
    pub(crate) fn announce(&self, plan: &Plan) {
        if let Some(line) = words::announcement(plan) {
            self.data(format!("{}{line}", self.prefix));
        }
    }

    /// Prints what a person is asked about: one row a venv.
    pub(crate) fn question(&self, plan: &Plan) {
        let rows: Vec<Row> = plan.notable().map(words::summary).collect();
        let venvs = if rows.len() == 1 { "venv" } else { "venvs" };
        self.note(&format!("this upgrade affects {} {venvs}:", rows.len()));
        let head = ["NAME", "EFFECT", "REMEDY", "READY", "RESTARTS"];
        let table = table::render(&head, &rows, table::Terminal::of_stderr());
        let _ = writeln!(io::stderr().lock(), "{table}");
    }

    /// Asks for an answer. The usual one is a capital letter, as in apt's own questions.
    pub(crate) fn prompt(&self, usual: Answer, limit: Duration) {
        let (what, keys) = match usual {
            Answer::Abort => ("abort", "c/A/h/r/d"),
            Answer::Continue | Answer::Hold => ("continue", "C/a/h/r/d"),
        };
        let _ = write!(
            io::stderr().lock(),
            "{}continue, abort, hold Python, rehearse, or show details ({what} in {} s)? [{keys}] ",
            self.prefix,
            limit.as_secs(),
        );
    }

    /// Ends the line of a prompt that was not answered.
    pub(crate) fn no_answer(&self) {
        let _ = writeln!(io::stderr().lock());
        self.note("there was no answer");
    }

    /// Prints a venv's user files and modified files, one per line.
    pub(crate) fn additions(&self, additions: &Additions) {
        for (what, path) in words::additions(additions) {
            self.data(format!("{what:>14}{} {path}", if what.is_empty() { " " } else { ":" }));
        }
    }

    /// Prints the plan for a command, with the user files and modified files of each venv that is
    /// rebuilt.
    pub(crate) fn plan(&self, plan: &Plan, additions: impl Fn(&Decision) -> Option<Additions>) {
        for change in &plan.changes {
            self.data(change);
        }
        let terminal = table::Terminal::of_stdout();
        let mut decisions: Vec<&Decision> = plan.notable().collect();
        decisions.sort_by_key(|decision| (!decision.blocks, decision.ready()));
        for decision in decisions {
            let text = words::indented(&words::decision(decision));
            match terminal {
                Some(terminal) => self.print(&terminal.entry(&text)),
                None => self.data(text),
            }
            if let Some(found) = additions(decision) {
                self.additions(&found);
            }
        }
        if let Some(work) = words::work(plan).filter(|_| plan.verdict() != Verdict::Block) {
            self.data(work);
        }
        let verdict = match plan.verdict() {
            Verdict::Allow if plan.changes.is_empty() => {
                "no interpreter changes: nothing to do for the venvs"
            }
            Verdict::Allow => "allow: no registered venv is affected",
            Verdict::Repair => "repair: the upgrade proceeds, and the venvs are repaired as above",
            Verdict::Block => "block: the upgrade does not proceed",
        };
        let tone = match plan.verdict() {
            Verdict::Block => Tone::Bad,
            _ if !plan.notable().all(Decision::ready) => Tone::Attention,
            _ => Tone::Good,
        };
        self.print(&terminal.map_or(verdict.into(), |terminal| terminal.toned(tone, verdict)));
        if plan.verdict() == Verdict::Block {
            self.hint(&words::remediation(plan));
        }
    }

    /// Reports what was done to a venv: a word and details.
    pub(crate) fn outcome(&self, name: &str, (what, detail): (&str, String), notes: &[String]) {
        self.note(&format!("{name}: {what}: {detail}"));
        for note in notes {
            self.note(&format!("{name}: note: {note}"));
        }
    }

    /// Reports venvs whose interpreter is about to be removed and that cannot be rebuilt before.
    pub(crate) fn not_moved(&self, plan: &Plan, ids: &[String], blocks: bool) {
        let failed = plan.decisions.iter().filter(|one| ids.contains(&one.id));
        let names = failed.map(|decision| decision.name.as_str()).collect::<Vec<_>>().join(", ");
        let why = format!("{names} cannot be moved to the interpreter that remains");
        if blocks {
            self.note(&format!("this run is blocked, and dpkg was not started: {why}"));
            self.hint(&words::way_to_keep(plan, ids));
        } else {
            self.note(&format!(
                "this run continues, because the mode is \"allow\", although {why}"
            ));
        }
    }
}
