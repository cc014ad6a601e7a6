//! The attacks on venvguard's work inside the attacker's trees: files of others in them, the amount of data to read and to
//! keep, and the sources that their distributions claim. The function of each attack's name in `trees.sh` plants it.

use anyhow::{Result, ensure};

use super::attacks::{Attack, by, running};
use super::ground::Ground;
use super::won_by;
use crate::machine::Machine;

/// An attack on the limits: the memory, reads and output of venvguard are measured.
const fn metered(name: &'static str, commands: &'static [&'static str]) -> Attack {
    Attack { is_metered: true, ..by(name, commands) }
}

const REBUILD: &[&str] = &["rebuild prey", "resume"];

/// The accomplice has moved the trap.
const IS_MOVED: &str = "mallory: test ! -e ~/trap";

/// A trap is a directory of the attacker's that contains `keep/secret`, which belongs to root, and which they can neither
/// read nor remove.
const ATTACKS: &[Attack] = &[
    // They move the trap into the builders' directory for `/tmp`, and venvguard removes that directory.
    running(
        by("a_trap_in_the_temporary_directory", &["rebuild prey", IS_MOVED, "resume"]),
        &["backend"],
    ),
    // They move it into a previous environment, which is then pruned.
    by(
        "a_trap_in_a_previous_environment",
        &[
            "rebuild prey",
            "mallory: mv ~/trap .venv.venvguard-*/",
            IS_MOVED,
            "prune prey",
            "resume",
        ],
    ),
    // They move it into a previous environment that venvguard removes because there are too many.
    by(
        "a_trap_in_the_surplus",
        &[
            "rebuild prey",
            "mallory: mv ~/trap .venv.venvguard-*/",
            IS_MOVED,
            "rebuild prey",
            "rebuild prey",
            "resume",
        ],
    ),
    // They move it into the venv, which is then rolled back and pruned.
    by(
        "a_trap_in_what_is_rolled_back",
        &["rebuild prey", "mallory: mv ~/trap venv/", "rollback prey", "prune prey", "resume"],
    ),
    // A build of theirs fails the rebuild, and they move the trap into its stage.
    running(
        by("a_trap_in_a_stage_that_fails", &["rebuild prey", IS_MOVED, "resume"]),
        &["backend"],
    ),
    // A build of theirs fails a rebuild in place, and they move the trap into the venv.
    running(
        by("a_trap_in_a_venv_that_fails", &["in place: rebuild prey", IS_MOVED, "resume"]),
        &["backend"],
    ),
    // They move it into the stage of a rebuild that is killed, and `resume` removes the stage.
    by("a_trap_in_a_stage_that_is_killed", &["root: killed rebuild prey", IS_MOVED, "resume"]),
    // The trap is a directory of the venv; they try to read the secret where venvguard carries it to, and to put a file
    // beside it.
    by(
        "a_trap_in_the_venv",
        &["show prey", "rebuild prey", "rollback prey", "rebuild prey", "prune prey", "resume"],
    ),
    // The same with a venv that is built in place.
    by(
        "a_trap_in_a_venv_built_in_place",
        &["in place: rebuild prey", "in place: rollback prey", "prune prey", "resume"],
    ),
    // The same with a directory of another ordinary user.
    by(
        "bobs_trap_in_the_venv",
        &["rebuild prey", "in place: rebuild prey", "rollback prey", "prune prey", "resume"],
    ),
    // Sparse archives of 2.4 GiB fill root's disk.
    metered("archives_are_holes", &["status", "resume"]),
    // One archive with many names fills root's disk, with a copy for each name.
    metered("archives_are_one_file", &["status", "resume"]),
    // They replace an archive again and again, and the older ones that root keeps fill the disk.
    metered(
        "archives_come_and_pass",
        &[
            "root: for round in 1 2 3 4 5 6 7 8 9; do \
               as mallory sh -euc '. /srv/hostile/plants.sh; renew \"$1\"' sh $round; guard status; \
             done",
            "prune prey",
            "hook post-invoke",
            "resume",
        ],
    ),
    // Archives of 120 GiB, which do not fit on the disk, keep root reading.
    metered("archives_are_long", &["status", "resume"]),
    // A record with wrong hashes of a sparse file with many names keeps root reading.
    metered("holes_are_recorded", &["show prey", "rebuild prey", "rollback prey", "resume"]),
    // The same with files that they put into the new tree, whose hashes venvguard checks one by one.
    running(metered("holes_are_in_the_stage", REBUILD), &["backend"]),
    // Thirty thousand names of 29 KB each fill root's memory.
    metered(
        "names_are_long",
        &["show prey", "rebuild prey", "rollback prey", "prune prey", "resume"],
    ),
    // Thousands of files that cannot be carried over, reported one by one, fill the output.
    metered("names_are_left", &["rebuild prey", "rollback prey", "history", "resume"]),
    // A long record that many distributions share fills root's memory; it costs the attacker one file.
    metered("records_are_long", &["show prey", "rebuild prey", "resume"]),
    // A name of a megabyte that many distributions share fills root's memory and the terminal; it costs them one file.
    metered("distributions_have_long_names", &["show prey", "rebuild prey", "resume"]),
    // A lock of millions of meaningless values fills root's memory.
    metered("a_lock_is_long", &["show prey", "rebuild prey", "resume"]),
    // An archive is a file of `/proc` that the kernel shows only to root; root copies it for them.
    by(
        "an_archive_is_a_process",
        &[
            "status",
            "root: kill $(cat $KEEP/kept/pid)",
            "rebuild prey",
            "hook post-invoke",
            "resume",
        ],
    ),
    // Root copies an archive that only its owner can read to a place where everybody can read it.
    by("an_archive_is_private", &["status", "hook post-invoke", "resume"]),
    // venvguard shows the credentials in invalid URLs, and writes them down for everybody.
    by("credentials_cannot_be_read", TELLING),
    // Each step stays within the time limit of a rebuild, but together they take a multiple of it. On a slow machine the
    // build uses up the time before the startup code runs.
    running(by("each_step_is_slow", REBUILD), &["backend"]),
    // A package claims their home as its source, so that the builds of all others may write there.
    running(by("a_source_is_everything", REBUILD), &["backend"]),
    // `bin` is a directory of root's; pinning the venv would replace its links and give them to the attacker.
    by(
        "roots_bin_is_pinned",
        &["root: gate guard", "hook post-invoke", "rebuild prey", "rollback prey", "resume"],
    ),
    // `bin` is a directory of root's; refreshing the venv would replace its copies and give them to the attacker.
    by("roots_bin_is_refreshed", &["rebuild --all", "rebuild prey", "resume"]),
];

/// All commands that report faults of a venv, or record them.
const TELLING: &[&str] = &[
    "status",
    "status --json",
    "show prey",
    "doctor",
    "rebuild prey",
    "root: gate guard",
    "hook post-invoke",
    "resume",
    "list",
    "history",
];

/// Makes every attack, and then the races.
pub(super) fn stand(machine: &Machine) -> Result<()> {
    let ground = Ground::lay(machine)?;
    let mut won = won_by(&ground, ATTACKS)?;
    won.extend(exchanged(&ground)?);
    ensure!(won.is_empty(), "{} attacks were won\n{}", won.len(), won.join("\n\n"));
    Ok(())
}

/// The attack to plant before `bin` is exchanged, and the command to stop: the words before the number of the effect, and
/// those after it.
const COMMANDS: [(&str, &str, &str); 2] = [
    ("bin_is_exchanged", "gate stopped", ""),
    ("copies_are_exchanged", "stopped", "rebuild --all"),
];

/// The replacements of `bin`, as shell commands in the venv.
const EXCHANGES: [(&str, &str); 2] =
    [("a directory of root's", "mv theirs bin"), ("a link", "ln -s /home/bob/place/venv/bin bin")];

/// More effects than any of these commands has.
const MOST: usize = 60;

/// Exchanges `bin` before each effect of a pinning and of a refresh, and lets venvguard finish. Returns the wins.
fn exchanged(ground: &Ground) -> Result<Vec<String>> {
    let mut won = Vec::new();
    for (plant, command, arguments) in COMMANDS {
        let mut met = 0;
        for effect in 1..MOST {
            let (name, does) = EXCHANGES[effect % EXCHANGES.len()];
            let deed = ground.deed(&format!(
                "plant {plant}
                 swap() {{ (cd $PLACE/venv; as mallory sh -euc 'mv bin mine; {does}') || echo '--- not planted'; }}
                 python3 $KEEP/ground.py before
                 {command} {effect} swap {arguments}
                 guard hook post-invoke
                 guard resume"
            ))?;
            if !deed.text.contains("--- stopped") {
                break;
            }
            met += 1;
            won.extend(
                deed.won
                    .iter()
                    .map(|what| format!("{plant}, {effect}: {name}: {what}\n{}", deed.text)),
            );
        }
        ensure!(met > 5, "{plant} was stopped {met} times");
        println!("lab: {plant}: bin was exchanged before each of {met} effects");
    }
    Ok(won)
}

/// The attacks before an upgrade, each planted in a venv of its own.
const PLANTED: &[&str] = &[
    "a_trap_in_the_venv",
    "bobs_trap_in_the_venv",
    "archives_are_holes",
    "archives_are_one_file",
    "holes_are_recorded",
    "names_are_long",
    "records_are_long",
    "an_archive_is_a_process",
    "an_archive_is_private",
    "credentials_cannot_be_read",
    "roots_bin_is_pinned",
    "distributions_have_long_names",
    "a_lock_is_long",
    // The last one determines what their builds do.
    "a_trap_in_the_temporary_directory",
];

/// Makes these attacks in a real upgrade by apt: one owner has a venv for each attack.
pub(super) fn apt(machine: &Machine) -> Result<()> {
    let ground = Ground::lay(machine)?;
    let packages = machine.upgrade.about.packages.join(" ");
    let plants = PLANTED.join(" ");
    let mut deed = ground.judged(|| {
        let prepared = machine.must(&format!(
            ". /srv/hostile/ground.sh
             python3 -m venv --without-pip /srv/roots/own
             venvguard register /srv/roots/own --name own
             for plant in {plants}; do
                 PLACE=/home/mallory/$plant
                 as mallory sh -euc 'mkdir \"$1\"; cd \"$1\"; python3 -m venv --without-pip venv' sh $PLACE
                 venvguard register $PLACE/venv --name $plant
             done
             for plant in {plants}; do
                 PLACE=/home/mallory/$plant
                 plant $plant
             done
             python3 $KEEP/ground.py before upgrade"
        ))?;
        ensure!(!prepared.contains("--- not planted"), "it was not planted: {prepared}");
        let said = machine.run(&format!(
            ". /srv/hostile/ground.sh
             echo '--- venvguard in apt'
             timeout --kill-after=1 500 python3 $KEEP/meter.py prlimit --as=1073741824 env $HOSTILE TMPDIR=/tmp \
                 apt-get --yes --quiet --option Dpkg::Options::=--force-confold install {packages}
             echo \"--- exit $?\""
        ))?;
        ensure!(said.text.contains("--- exit 0\n"), "apt-get: {said:?}");
        // apt's own output is none of the suite's business.
        let ours = said.text.lines().filter(|line| line.starts_with("venvguard: ") || line.starts_with("--- "));
        Ok(ours.fold(String::new(), |text, line| text + line + "\n"))
    })?;
    let own = machine.run("venvguard status own")?;
    if own.code != 0 {
        deed.won.push(format!("root's venv is not guarded because of theirs: {}", own.text));
    }
    ensure!(deed.won.is_empty(), "the attacker has won: {}\n{}", deed.won.join("\n"), deed.text);
    println!("lab: venvguard's output in the upgrade\n{}", deed.text);
    Ok(())
}
