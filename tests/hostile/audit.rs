//! Every program that runs in an upgrade, with its user and environment, from strace's output: one file for each process.
//!
//! Root runs nothing from a place that somebody else can write to, other users run only their own programs and root's,
//! and no variable of apt's environment reaches a program that venvguard starts.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use crate::machine::{Machine, Said};

/// strace's output, in a directory of root's.
const DIR: &str = "/srv/hostile/kept/trace";

/// Kills the processes that the attacker's code leaves behind: strace would trace them, and wait for them.
const TRACED_SCRIPT: &str = r#"#!/bin/sh
"$@"
code=$?
pkill -KILL -f '^sleep 471'
exit $code
"#;

/// Runs a command under strace. With `--seccomp-bpf`, set-user-id programs gain no rights; root needs none of them.
pub(super) const TRACED: &str = "strace -ff --seccomp-bpf -qq -v -s 65536 -o /srv/hostile/kept/trace/of \
     -e trace=execve,execveat,clone,clone3,fork,vfork,setuid,setresuid,setreuid /srv/hostile/traced.sh";

/// A part of all values of the planted environment; see `ground.sh`.
const PLANTED: &str = "/home/mallory/evil";

/// Reads `UID PATH` lines and reports the wrong ones. A program that root runs, and all directories on the way and behind
/// every link, must be root's alone; a program that another user runs must be root's or their own.
const JUDGE: &str = r#"
import os, sys
def way(path):
    while path != "/":
        yield path
        path = os.path.dirname(path)
for line in sys.stdin:
    uid, path = line.rstrip("\n").split(" ", 1)
    for part in [*way(path), *way(os.path.realpath(path))]:
        try:
            found = os.stat(part)
        except OSError:
            continue  # It existed only for a moment; its directory is next.
        others = uid == "0" and found.st_mode & 0o022
        if found.st_uid not in (0, int(uid)) or others:
            print(f"{path} is run as {uid}, and {part} belongs to {found.st_uid}, mode {found.st_mode:o}")
            break
"#;

/// An event in a process.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Ran { path: String, arguments: Vec<String>, environment: Vec<String> },
    Began { child: u32 },
    Became { uid: u32 },
}

/// A program that ran.
#[derive(Debug)]
struct Run {
    uid: u32,
    path: String,
    arguments: Vec<String>,
    environment: Vec<String>,
    /// Whether venvguard started it.
    is_guards: bool,
}

/// The findings.
#[derive(Debug)]
pub(super) struct Audit {
    /// The violations.
    pub(super) complaints: Vec<String>,
    /// How many programs ran as root, ran as others, and were started by venvguard.
    pub(super) as_root: usize,
    pub(super) as_others: usize,
    pub(super) by_guard: usize,
}

/// Runs a command under strace and checks every program that it ran.
pub(super) fn audit(
    machine: &Machine,
    command: impl FnOnce(&str) -> String,
) -> Result<(Said, Audit)> {
    machine.write("/srv/hostile/traced.sh", TRACED_SCRIPT)?;
    machine.must(&format!("chmod 755 /srv/hostile/traced.sh; rm -rf {DIR}; mkdir -m 700 {DIR}"))?;
    let said = machine.run(&command(TRACED))?;
    let traces = machine.must(&format!("cd {DIR}; tail -n +1 -v of.*"))?;
    let runs = runs(&processes(&traces)?)?;
    let mut complaints: Vec<String> = Vec::new();
    for run in runs.iter().filter(|run| run.is_guards) {
        let planted = run.environment.iter().filter(|pair| pair.contains(PLANTED));
        complaints.extend(planted.map(|pair| format!("{} was started with {pair}", run.path)));
    }
    let lines = runs.iter().flat_map(|run| {
        let script = run.script().into_iter();
        std::iter::once(run.path.as_str()).chain(script).map(|path| format!("{} {path}\n", run.uid))
    });
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    lines.dedup();
    machine.write("/srv/hostile/kept/judge.py", JUDGE)?;
    machine.write("/srv/hostile/kept/runs", &lines.concat())?;
    let wrong = machine.must("python3 /srv/hostile/kept/judge.py </srv/hostile/kept/runs")?;
    complaints.extend(wrong.lines().map(str::to_owned));
    let count = |of: &dyn Fn(&Run) -> bool| runs.iter().filter(|run| of(run)).count();
    let audit = Audit {
        complaints,
        as_root: count(&|run| run.uid == 0),
        as_others: count(&|run| run.uid != 0),
        by_guard: count(&|run| run.is_guards),
    };
    Ok((said, audit))
}

impl Run {
    /// The script that an interpreter runs.
    fn script(&self) -> Option<&str> {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        let interprets = ["python", "perl", "sh", "dash", "bash"];
        let interprets = interprets.iter().any(|one| name.starts_with(one));
        let words = self.arguments.iter().skip(1).map(String::as_str);
        words.filter(|_| interprets).find(|word| word.starts_with('/') && !word.contains(' '))
    }
}

/// The events of each process, from `==> of.PID <==` on.
fn processes(traces: &str) -> Result<BTreeMap<u32, Vec<Event>>> {
    let mut processes: BTreeMap<u32, Vec<Event>> = BTreeMap::new();
    let mut pid = None;
    for line in traces.lines() {
        let header = line.strip_prefix("==> of.").and_then(|rest| rest.strip_suffix(" <=="));
        if let Some(number) = header {
            pid = Some(number.parse()?);
            processes.entry(number.parse()?).or_default();
        } else if let (Some(pid), Some(event)) = (pid, event(line)?) {
            processes.entry(pid).or_default().push(event);
        }
    }
    Ok(processes)
}

/// The event in a line of strace's output, if the call succeeded.
fn event(line: &str) -> Result<Option<Event>> {
    let Some((call, arguments)) = line.split_once('(') else { return Ok(None) };
    // strace pads short calls with spaces.
    let Some((arguments, result)) = arguments.rsplit_once(" = ") else { return Ok(None) };
    let Some(arguments) = arguments.trim_end().strip_suffix(')') else { return Ok(None) };
    let result = result.split([' ', '\t']).next().unwrap_or_default();
    let Ok(result) = result.parse::<i64>() else { return Ok(None) };
    if result < 0 {
        return Ok(None);
    }
    Ok(match call {
        "execve" | "execveat" => {
            let (path, rest) = text(arguments).with_context(|| line.to_owned())?;
            let (words, rest) = texts(rest).with_context(|| line.to_owned())?;
            let (environment, _) = texts(rest).with_context(|| line.to_owned())?;
            Some(Event::Ran { path, arguments: words, environment })
        }
        "setuid" | "setresuid" | "setreuid" => {
            // The effective uid; -1 leaves it as it is.
            let number = arguments.split(", ").nth(usize::from(call != "setuid"));
            number.and_then(|number| number.parse().ok()).map(|uid| Event::Became { uid })
        }
        _ => Some(Event::Began { child: u32::try_from(result)? }),
    })
}

/// The next quoted text, and what follows it.
fn text(from: &str) -> Option<(String, &str)> {
    let (_, inside) = from.split_once('"')?;
    let mut text = String::new();
    let mut escaped = false;
    for (at, one) in inside.char_indices() {
        match one {
            '"' if !escaped => return Some((text, &inside[at + 1..])),
            '\\' if !escaped => escaped = true,
            _ => {
                if escaped && one != '"' && one != '\\' {
                    text.push('\\');
                }
                text.push(one);
                escaped = false;
            }
        }
    }
    None
}

/// The next list of quoted texts, and what follows it.
fn texts(from: &str) -> Option<(Vec<String>, &str)> {
    let (_, mut rest) = from.split_once('[')?;
    let mut texts = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ', '.']);
        if let Some(after) = rest.strip_prefix(']') {
            return Some((texts, after));
        }
        let (next, after) = text(rest)?;
        texts.push(next);
        rest = after;
    }
}

/// All programs that ran, found by following each process to its children.
fn runs(processes: &BTreeMap<u32, Vec<Event>>) -> Result<Vec<Run>> {
    let begun = |pid: &u32| {
        let mut events = processes.values().flatten();
        events.any(|event| matches!(event, Event::Began { child } if child == pid))
    };
    let first: Vec<u32> = processes.keys().copied().filter(|pid| !begun(pid)).collect();
    let [first] = first[..] else { bail!("these processes have no parent: {first:?}") };
    let mut runs = Vec::new();
    let mut left = vec![(first, 0_u32, String::new(), false)];
    while let Some((pid, mut uid, mut exe, mut is_guards)) = left.pop() {
        for event in processes.get(&pid).into_iter().flatten() {
            match event {
                Event::Became { uid: new } => uid = *new,
                Event::Began { child } => left.push((*child, uid, exe.clone(), is_guards)),
                Event::Ran { path, arguments, environment } => {
                    if path != "/proc/self/exe" {
                        exe.clone_from(path);
                    }
                    ensure!(exe.starts_with('/'), "{pid} ran {exe:?}, which is relative");
                    let (path, arguments) = (exe.clone(), arguments.clone());
                    let environment = environment.clone();
                    runs.push(Run { uid, path, arguments, environment, is_guards });
                    // From now on it starts programs for venvguard; maintainer scripts are dpkg's.
                    is_guards |= exe.ends_with("/venvguard") || exe.ends_with("/venvguard-faults");
                }
            }
        }
    }
    Ok(runs)
}
