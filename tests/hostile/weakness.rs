//! Proves that the suite can fail: leaves out each guard once, and an attack must win.

use anyhow::{Context, Result, ensure};

use super::attacks::{ATTACKS, Attack};
use super::ground::Ground;
use super::wins;

/// A guard to leave out, the attack that finds the hole, its commands, and the win.
const WEAKNESSES: &[(&str, &str, &[&str], &str)] = &[
    ("follow-links", "cfg_is_a_link_to_a_secret", &["show prey"], "was not met by"),
    ("follow-directories", "the_venv_is_a_link", &["show prey"], "was not met by"),
    ("read-anything", "cfg_is_a_fifo", &["show prey"], "does not end"),
    ("read-without-end", "cfg_is_two_gibibytes", &["show prey"], "ended by 134"),
    ("obey-anybody", "others_can_write_the_configuration", &["status"], "was not met by"),
    ("stay-root", "backend_does_what_it_can", &["rebuild prey"], "ran as ['0'"),
    ("keep-session", "startup_code", &["rebuild prey"], "shared root's session"),
    ("gain-privileges", "startup_code", &["rebuild prey"], "could gain privileges"),
    ("lift-limits", "startup_code", &["rebuild prey"], "had no limits"),
    (
        "write-anywhere",
        "backend_does_what_it_can",
        &["rebuild prey"],
        "an installer has no business",
    ),
    ("share-temporary", "backend_does_what_it_can", &["rebuild prey"], "as everybody does"),
    ("keep-environment", "startup_code", &["rebuild prey"], "saw LD_PRELOAD="),
    ("keep-descriptors", "startup_code", &["rebuild prey"], "had /root/canary open"),
    ("keep-group", "startup_code", &["rebuild prey"], "still runs"),
    ("wait-for-ever", "backend_hangs", &["rebuild prey"], "does not end"),
    (
        "wait-for-processes",
        "a_command_line_never_comes",
        &["rebuild prey", "root: kill -KILL $(cat /home/mallory/never.pid)"],
        "does not end",
    ),
    ("print-raw", "names_are_for_the_terminal", &["scan /home/mallory"], "scan /home/mallory said"),
    ("believe-any-listener", "a_forged_supervisord", &["status"], "was not met by"),
];

/// Leaves out each guard, and checks that its attack wins.
pub(super) fn are_found(ground: &Ground) -> Result<()> {
    let mut missed = Vec::new();
    for (weakness, name, commands, prize) in WEAKNESSES {
        let attack = ATTACKS.iter().find(|attack| attack.name == *name);
        let attack = Attack { commands, ..*attack.context(*name)? };
        let deed = ground.attack(&attack, Some(weakness))?;
        let won = wins(&attack, &deed);
        if won.iter().any(|one| one.contains(prize)) {
            println!("lab: {name} finds {weakness}: {}", won.join("; "));
        } else {
            missed.push(format!("{name} does not find {weakness}: {won:?}\n{}", deed.text));
        }
    }
    ensure!(missed.is_empty(), "{}", missed.join("\n\n"));
    Ok(())
}
