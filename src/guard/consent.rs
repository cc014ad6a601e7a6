//! The question about an upgrade, to the person at the terminal.

use std::time::Duration;

use jiff::SignedDuration;

use super::Guard;
use crate::apt::Transaction;
use crate::host::terminal::{self, Heard};
use crate::plan::{Answer, Mode, Occasion, Plan, Verdict};

/// How long Python is held after the answer `hold`. Somebody may forget about it, and a hold keeps
/// security updates back.
const HOLD: SignedDuration = SignedDuration::from_hours(24 * 14);

/// What a person wants.
pub(super) enum Wish {
    Continue,
    /// To know first which venvs work after the upgrade.
    Rehearse,
    /// apt stops, for this reason.
    Stop(&'static str),
}

impl Guard {
    /// What is known about the people around an apt run.
    pub(super) fn occasion(&self, transaction: &Transaction) -> Occasion {
        let is = |name: &str, words: &[&str]| {
            std::env::var(name).is_ok_and(|word| words.contains(&word.as_str()))
        };
        // PackageKit gives its children a terminal that nobody reads.
        let wants_no_questions = is("DEBIAN_FRONTEND", &["noninteractive", "passthrough"])
            || is("APT_LISTBUGS_FRONTEND", &["none"])
            || transaction.assumes_yes
            || transaction.dry_run;
        Occasion {
            mode: self.mode(transaction),
            is_attended: !wants_no_questions && self.root.is_system() && terminal::is_ours(),
            is_past_return: is("RELEASE_UPGRADE_IN_PROGRESS", &["1"]) && transaction.installs(),
        }
    }

    /// The mode of this run: of the environment, of apt's `-o`, or of the configuration.
    fn mode(&self, transaction: &Transaction) -> Mode {
        let variable = std::env::var("VENVGUARD_MODE").ok();
        let set = [("VENVGUARD_MODE", variable), ("VenvGuard::Mode", transaction.mode.clone())];
        for (name, word) in set {
            let Some(word) = word.filter(|word| !word.is_empty()) else { continue };
            if let Some(mode) = Mode::spelled(&word) {
                return mode;
            }
            let words = Mode::WORDS;
            self.report.error(&format!("{name} is {word:?}, which is not {words}; it is ignored"));
        }
        self.config.mode
    }

    /// Asks whether apt shall go on with a plan.
    pub(super) fn ask(&self, plan: &Plan) -> Wish {
        let limit = Duration::from_secs(self.config.ask.timeout);
        let usual = match plan.verdict() {
            Verdict::Block => Answer::Abort,
            Verdict::Allow | Verdict::Repair => self.config.ask.default,
        };
        self.report.question(plan);
        terminal::forget_typed();
        loop {
            self.report.prompt(usual, limit);
            let answer = match terminal::line(limit) {
                Ok(Heard::Line(line)) => line.to_ascii_lowercase(),
                Ok(Heard::Nothing) => {
                    self.report.no_answer();
                    String::new()
                }
                Ok(Heard::End) | Err(_) => {
                    self.report.no_answer();
                    "abort".into()
                }
            };
            let answer = match answer.as_str() {
                "" => usual,
                "c" | "continue" | "y" | "yes" => Answer::Continue,
                "a" | "abort" | "n" | "no" => Answer::Abort,
                "h" | "hold" => Answer::Hold,
                "r" | "rehearse" => return Wish::Rehearse,
                "d" | "details" => {
                    self.report.details(plan);
                    continue;
                }
                _ => {
                    self.report.note("please answer c, a, h, r or d");
                    continue;
                }
            };
            return match answer {
                Answer::Continue => Wish::Continue,
                Answer::Abort => {
                    self.report.note("this run is aborted; nothing was changed");
                    Wish::Stop("the answer at the terminal was to abort")
                }
                Answer::Hold => self.hold_by_answer(),
            };
        }
    }

    fn hold_by_answer(&self) -> Wish {
        match self.hold(Some(HOLD), Some("chosen at apt's question")) {
            Ok(hold) => {
                let until =
                    hold.until.map(|until| format!(" until {until:.0}")).unwrap_or_default();
                self.report.note(&format!(
                    "this run is stopped, and no package was changed; Python is held{until}"
                ));
                self.report.hint(
                    "run the same command again to upgrade everything else; `venvguard unhold` ends the hold",
                );
            }
            Err(error) => {
                self.report.error(&format!(
                    "cannot hold Python: {error}; this run is stopped, and no package was changed"
                ));
            }
        }
        Wish::Stop("the answer at the terminal was to hold Python")
    }
}
