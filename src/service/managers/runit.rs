//! runit, controlled by `sv`: a service is a directory below `/etc/service`, usually a link to one in
//! `/etc/sv`.

use std::path::Path;
use std::time::Duration;

use super::Order;
use super::supervised::{State, Supervisor, SupervisorError, TEXT};
use crate::host::{Program, Root, file};

/// How long `sv` may take; it normally answers immediately.
const SV_LIMIT: Duration = Duration::from_secs(15);

/// The runit of the system.
#[derive(Debug)]
pub(super) struct Runit;

impl Supervisor for Runit {
    const KEY: &'static str = "runit";
    const NO_NAME: &'static str = "is not the name of a runit service";
    /// Debian's, and that of runit's own documentation.
    const DIRS: &'static [&'static str] = &["/etc/service", "/service"];
    const PROGRAM: &'static str = "runsv";

    fn ask(root: &Root, name: &str, dir: &Path) -> Result<State, SupervisorError> {
        // It exits with the number of services that it cannot query, and names them.
        let answer = sv(root).read_only().arg("status").arg(dir).finish()?.text();
        let (program, name) = ("sv", name.to_string());
        let shown = Shown::read(&answer, dir).map(|shown| shown.state(dir));
        shown.ok_or(SupervisorError::Unintelligible { program, name, answer })
    }

    /// `sv` itself would keep waiting for a service that keeps ending. Its exit status only counts the
    /// services that have not followed yet; their own states say more.
    fn tell(order: Order, root: &Root, states: &[&State]) -> Result<(), SupervisorError> {
        let dirs = states.iter().map(|state| &state.dir);
        sv(root).args(["-w", "1", order.verb()]).args(dirs).finish()?;
        Ok(())
    }
}

fn sv(root: &Root) -> Program {
    Program::named(root, "sv").limit(SV_LIMIT)
}

/// The state of a service, as `sv status` prints it:
///
/// ```text
/// run: /etc/service/web: (pid 123) 45s, normally down, want down, got TERM; run: log: (pid 122) 45s
/// down: /etc/service/web: 5s, normally up, want up
/// finish: /etc/service/web: (pid 124) 1s
/// fail: /etc/service/web: runsv not running
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shown {
    word: String,
    pid: Option<u32>,
    /// The words after the time, which differs in every answer.
    details: Vec<String>,
}

impl Shown {
    fn read(answer: &str, dir: &Path) -> Option<Self> {
        // The part of the service itself; the part of its log follows.
        let own = answer.lines().next()?.split("; ").next()?;
        let (word, rest) = own.split_once(": ")?;
        let rest = rest.strip_prefix(dir.to_str()?)?.strip_prefix(": ")?;
        let (first, details) = match rest.split_once(", ") {
            Some((first, details)) => (first, details.split(", ").collect()),
            None => (rest, Vec::new()),
        };
        let pid = first.strip_prefix("(pid ").and_then(|rest| rest.split(')').next()?.parse().ok());
        // For a service that it cannot query it prints the reason instead of a time.
        let is_known = matches!(word, "run" | "down" | "finish");
        let details = if is_known { details } else { vec![rest] };
        let details = details.into_iter().map(|one| file::printable_within(one, TEXT)).collect();
        Some(Self { word: file::printable(word), pid, details })
    }

    fn state(self, dir: &Path) -> State {
        let words = std::iter::once(&self.word).chain(&self.details);
        State {
            dir: dir.to_path_buf(),
            pid: self.pid,
            runs: self.word == "run",
            wants_up: self.wants_up(),
            is_ending: self.is_ending(),
            left_alone: self.left_alone(),
            words: words.map(String::as_str).collect::<Vec<_>>().join(", "),
        }
    }

    fn says(&self, detail: &str) -> bool {
        self.details.iter().any(|one| one == detail)
    }

    fn wants_up(&self) -> bool {
        match self.word.as_str() {
            "run" | "finish" => !self.says("want down"),
            "down" => self.says("want up"),
            _ => false,
        }
    }

    fn is_ending(&self) -> bool {
        self.details.iter().any(|one| one.starts_with("got "))
    }

    fn left_alone(&self) -> Option<String> {
        Some(match self.word.as_str() {
            "run" if self.says("paused") => "it is paused".to_string(),
            // `sv once`: it is not started again after it ends.
            "run" if self.says("want down") && !self.is_ending() => "it runs once".to_string(),
            "run" | "down" | "finish" => return None,
            _ => self.details.join(", "),
        })
    }
}

#[cfg(test)]
mod tests;
