//! Every program that is run in an upgrade, by whom and with which environment: from strace's word, one file a process.
//!
//! Nothing is run as root out of a place that somebody else can write to, nobody runs what belongs to another user, and
//! nothing of apt's environment reaches what venvguard starts.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use crate::machine::{Machine, Said};

/// Where strace writes, in a directory that is root's.
const DIR: &str = "/srv/hostile/kept/trace";

/// What the attacker's code leaves behind would be traced, and so waited for, as long as it lives.
const TRACED_SCRIPT: &str = r#"#!/bin/sh
"$@"
code=$?
pkill -KILL -f '^sleep 471'
exit $code
"#;

/// What runs a command under it. Programs that gain rights by their mode would not, under `--seccomp-bpf`; there are none
/// that root would need.
pub(super) const TRACED: &str = "strace -ff --seccomp-bpf -qq -v -s 65536 -o /srv/hostile/kept/trace/of \
     -e trace=execve,execveat,clone,clone3,fork,vfork,setuid,setresuid,setreuid /srv/hostile/traced.sh";

/// What the values of the planted environment have in common; see `ground.sh`.
const PLANTED: &str = "/home/mallory/evil";

/// Says of `UID PATH` lines which are wrong: root's programs, with all the directories on the way and behind every link, have
/// to be root's alone; what another one runs has to be root's or his own.
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
            continue  # What was only there for a moment lay in a directory that is looked at next.
        others = uid == "0" and found.st_mode & 0o022
        if found.st_uid not in (0, int(uid)) or others:
            print(f"{path} is run as {uid}, and {part} belongs to {found.st_uid}, mode {found.st_mode:o}")
            break
"#;

/// Something a process did.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Ran { path: String, arguments: Vec<String>, environment: Vec<String> },
    Began { child: u32 },
    Became { uid: u32 },
}

/// A program that was run.
#[derive(Debug)]
struct Run {
    uid: u32,
    path: String,
    arguments: Vec<String>,
    environment: Vec<String>,
    /// It is venvguard's own doing.
    is_guards: bool,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Audit {
    /// What is wrong.
    pub(super) complaints: Vec<String>,
    /// How many programs were run as root, as others, and by venvguard.
    pub(super) as_root: usize,
    pub(super) as_others: usize,
    pub(super) by_guard: usize,
}

/// Runs a command under strace and looks at all that it ran.
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
    /// What an interpreter was told to run.
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

/// A line of strace's, if it tells of something that came to pass.
fn event(line: &str) -> Result<Option<Event>> {
    let Some((call, arguments)) = line.split_once('(') else { return Ok(None) };
    // Short calls are filled up with spaces.
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
            // The effective one; -1 leaves it as it is.
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

/// All that was run, by following each process to its children.
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
                    ensure!(exe.starts_with('/'), "{pid} ran {exe:?}, from wherever it was");
                    let (path, arguments) = (exe.clone(), arguments.clone());
                    let environment = environment.clone();
                    runs.push(Run { uid, path, arguments, environment, is_guards });
                    // What it starts from now on is venvguard's; maintainer scripts are dpkg's.
                    is_guards |= exe.ends_with("/venvguard") || exe.ends_with("/venvguard-faults");
                }
            }
        }
    }
    Ok(runs)
}
