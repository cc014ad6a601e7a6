//! The races: the attacker exchanges names for links while venvguard is at work. One test stops venvguard before each of
//! its effects, to hit every known window; the other exchanges names as fast as possible, to hit unknown ones.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use super::ground::{Deed, Ground};

/// More effects than any command has.
const MOST: usize = 200;

/// What the attacker does to the names of their own directories, as shell commands in their home, and how to undo it.
struct Swap {
    name: &'static str,
    does: &'static str,
    undoes: &'static str,
}

const SWAPS: &[Swap] = &[
    Swap {
        name: "what is new for something of root's",
        does: "for file in place/venv/.*.venvguard place/venv/bin/.*.venvguard place/.venv.venvguard-*/.*.venvguard place/.venv.venvguard-*/bin/.*.venvguard
               do [ ! -h $file -a ! -e $file ] || { rm -f $file; mv place/roots-file $file; exit; }; done
               for tree in place/.venv.venvguard-*; do [ ! -e $tree ] || { mv $tree place/stolen; mv place/roots $tree; exit; }; done; exit 1",
        undoes: "true",
    },
    Swap {
        name: "its directory for bob's",
        does: "mv place real; ln -s /home/bob/place place",
        undoes: "rm place; mv real place",
    },
    Swap {
        name: "the venv for root's",
        does: "mv place/venv real; ln -s /root/place/venv place/venv",
        undoes: "rm place/venv; mv real place/venv",
    },
    Swap {
        name: "bin and lib for bob's",
        does: "for name in bin lib; do mv place/venv/$name real-$name; ln -s /home/bob/place/venv/$name place/venv/$name; done",
        undoes: "for name in bin lib; do rm place/venv/$name; mv real-$name place/venv/$name; done",
    },
    Swap {
        name: "site-packages for bob's",
        does: "cd place/venv/lib/python3*; mv site-packages ~/real; ln -s /home/bob/place/venv/lib/python3*/site-packages .",
        undoes: "cd place/venv/lib/python3*; rm site-packages; mv ~/real site-packages",
    },
    Swap {
        name: "a new tree for root's venv",
        does: "for tree in place/.venv.venvguard-*; do [ ! -e $tree ] || { mv $tree place/stolen; ln -s /root/place/venv $tree; exit; }; done; exit 1",
        undoes: "true",
    },
];

/// The commands to interrupt, and the preparation of each. One makes a file unreadable to its owner, so that venvguard
/// links it instead of copying it.
const COMMANDS: [(&str, &str); 3] = [
    (
        "rebuild prey",
        "mkdir venv/mine; echo x >venv/mine/y; chmod 0 venv/mine/y .env 2>/dev/null || true",
    ),
    (
        "rollback prey",
        "cd .venv.venvguard-*; for name in python python3; do ln -sf /usr/bin/python3.13 bin/$name; done",
    ),
    (
        "prune prey",
        "mkdir -p $(echo .venv.venvguard-*)/deep/er; touch $(echo .venv.venvguard-*)/deep/er/file",
    ),
];

/// How many combinations to try.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Extent {
    /// Each effect meets one exchange, each exchange several effects.
    Short,
    /// Each effect meets each exchange.
    Long,
}

/// Exchanges names before each effect of each command. Returns the wins.
pub(super) fn stopped(ground: &Ground, extent: Extent, under: &str) -> Result<Vec<String>> {
    let guard = format!("{under} venvguard-faults");
    let mut won = Vec::new();
    let mut swapped = [0; SWAPS.len()];
    let mut given = BTreeSet::new();
    for (number, command) in COMMANDS.iter().enumerate() {
        let mut met = 0;
        'effects: for effect in 1..MOST {
            let mut left = match extent {
                Extent::Short => vec![(effect + number) % SWAPS.len()],
                Extent::Long => (0..SWAPS.len()).collect(),
            };
            while let Some(which) = left.pop() {
                let swap = &SWAPS[which];
                let deed = at(ground, &guard, command, swap, effect)?;
                let stopped = deed.text.lines().find_map(|line| line.split_once(STOPPED));
                let Some((_, point)) = stopped else { break 'effects };
                met += 1;
                swapped[which] += usize::from(deed.text.contains("--- swapped"));
                let place = format!("{}, {effect}, {point}: {}", command.0, swap.name);
                won.extend(deed.won.iter().map(|what| format!("{place}: {what}\n{}", deed.text)));
                if point.starts_with("give ") && given.insert(point.to_owned()) {
                    wins_what_is_given(ground, under, command, effect, point)?;
                    left.push(0);
                }
            }
        }
        ensure!(met > 5, "{} was stopped {met} times", command.0);
        println!("lab: {} was stopped {met} times", command.0);
    }
    for (swap, times) in SWAPS.iter().zip(swapped) {
        println!("lab: {} was exchanged {times} times", swap.name);
        ensure!(times > 0, "{} was never exchanged", swap.name);
    }
    // Root gives away the new top of a stage, and nothing else.
    ensure!(given.len() == 1, "root gave away: {given:?}");
    Ok(won)
}

/// If venvguard does not check what it gives away, the attacker gets a directory of root's. This proves that the race can
/// be won, and is how the suite finds the weakness `take-any-directory`.
fn wins_what_is_given(
    ground: &Ground,
    under: &str,
    command: &(&str, &str),
    effect: usize,
    point: &str,
) -> Result<()> {
    let guard = format!("{under} venvguard-faults --weaken=take-any-directory");
    let deed = at(ground, &guard, command, &SWAPS[0], effect)?;
    let is_won = deed.won.iter().any(|won| won.contains("in their home and not theirs"));
    ensure!(is_won, "{point}, with unchecked directories, was not won: {}", deed.text);
    println!("lab: take-any-directory is found: {}", deed.won.join("; "));
    Ok(())
}

/// What `venvguard-faults` prints before the name of the effect.
const STOPPED: &str = "fault: stopped before: ";

fn at(
    ground: &Ground,
    guard: &str,
    (command, before): &(&str, &str),
    swap: &Swap,
    effect: usize,
) -> Result<Deed> {
    let rebuilt = if *command == "rebuild prey" { "" } else { "guard rebuild prey" };
    ground.deed(&format!(
        "GUARD='{guard}'
         {rebuilt}
         (cd $PLACE; as mallory sh -euc '{before}') || echo '--- not planted'
         mkdir -m 700 $PLACE/roots; cp /root/canary $PLACE/roots/canary
         install -m 600 /root/canary $PLACE/roots-file
         swap() {{ (cd /home/mallory; as mallory sh -euc '{}') && echo '--- swapped'; }}
         back() {{ (cd /home/mallory; as mallory sh -euc '{}' 2>/dev/null); }}
         python3 $KEEP/ground.py before
         stopped {effect} swap {command}
         back || true
         guard resume",
        swap.does, swap.undoes
    ))
}

/// A name that the attacker flips, and the target of the link that they flip it with.
const FLIPS: [(&str, &str); 6] = [
    ("/home/mallory/place", "/home/bob/place"),
    ("/home/mallory/place", "/root/place"),
    ("/home/mallory/place/venv", "/home/bob/place/venv"),
    ("/home/mallory/place/venv/bin", "/home/bob/place/venv/bin"),
    ("/home/mallory/place/venv/lib", "/home/bob/place/venv/lib"),
    (
        "/home/mallory/place/venv/lib/python3.13/site-packages",
        "/home/bob/place/venv/lib/python3.13/site-packages",
    ),
];

/// The longest time, in seconds, that the real name is in place: as long as a command, and no time at all.
pub(super) const PAUSES: [&str; 2] = ["0.1", "0"];

/// Lets the attacker flip names through many repairs.
pub(super) fn flipped(ground: &Ground, rounds: usize, pauses: &[&str]) -> Result<Vec<String>> {
    let mut won = Vec::new();
    for ((name, target), pause) in
        FLIPS.iter().flat_map(|flip| pauses.iter().map(move |pause| (flip, pause)))
    {
        let deed = ground.deed(&format!(
            "python3 $KEEP/ground.py before
             as mallory sh -euc 'chmod 0 /home/mallory/place/venv/.env; ln -s {target} /home/mallory/link' || echo '--- not planted'
             as mallory python3 $KEEP/flip.py {name} /home/mallory/link {pause} >/dev/null 2>&1 &
             for round in $(seq {rounds}); do
                 guard rebuild prey; guard show prey; guard rollback prey; guard prune prey
             done
             pkill -KILL -u mallory python3 || echo '--- not planted'
             wait
             as mallory sh -euc '[ ! -h {name} ] || {{ rm {name}; mv /home/mallory/link {name}; }}'
             guard resume; guard rebuild prey"
        ))?;
        let done = deed.text.matches("prey: rebuilt").count();
        println!(
            "lab: {name} was flipped with {target} through {rounds} rounds; {done} rebuilds succeeded"
        );
        won.extend(deed.won.iter().map(|what| format!("{name} for {target}: {what}")));
    }
    Ok(won)
}
