//! The static attacks: hostile content of a venv, hostile answers to venvguard, and code that runs when it looks.

/// An attack; the function of its name in `plants.sh` plants it.
#[derive(Clone, Copy)]
pub(super) struct Attack {
    pub(super) name: &'static str,
    /// venvguard's commands, and between them scripts that `mallory:` or `root:` run.
    pub(super) commands: &'static [&'static str],
    /// The message that proves that venvguard met the attack, and that no mistake in the test missed it.
    pub(super) says: &'static str,
    /// The kinds of the attacker's code that run, each as the attacker.
    pub(super) runs: &'static [&'static str],
    /// Whether to measure what venvguard needs for it.
    pub(super) is_metered: bool,
}

/// All commands that look at a venv or change it.
const EVERY: &[&str] = &[
    "list",
    "show prey",
    "status",
    "scan /home/mallory",
    "doctor",
    "rebuild prey",
    "rollback prey",
    "prune prey",
    "hook post-invoke",
    "resume",
    "history",
];

/// Enough for an attack on a rebuild.
const REBUILD: &[&str] = &["show prey", "rebuild prey", "resume"];

const NO_FILE: &str = "pyvenv.cfg is not a regular file";

pub(super) const ATTACKS: &[Attack] = &[
    met("cfg_is_a_fifo", NO_FILE),
    met("cfg_is_a_device", NO_FILE),
    met("cfg_is_a_directory", NO_FILE),
    met("cfg_is_two_gibibytes", "pyvenv.cfg is larger than"),
    survived("cfg_has_nuls"),
    met("cfg_is_a_link_to_a_secret", NO_FILE),
    met("cfg_is_a_link_to_shadow", NO_FILE),
    survived("cfg_is_a_second_name_of_a_secret"),
    survived("home_is_anywhere"),
    survived("home_is_roots"),
    survived("python_is_a_script"),
    survived("python_is_setuid"),
    survived("python_is_a_fifo"),
    survived("python_is_a_second_name_of_roots"),
    by(
        "roots_files_in_the_venv",
        &["show prey", "rebuild prey", "rollback prey", "rebuild prey", "prune prey", "resume"],
    ),
    survived("records_lead_out"),
    survived("archives_lead_out"),
    running(by("a_record_names_a_tebibyte", REBUILD), &["backend"]),
    running(by("a_record_names_what_never_ends", REBUILD), &["backend"]),
    survived("names_are_for_the_terminal"),
    running(by("what_it_says_is_for_the_terminal", EVERY), &["startup"]),
    running(survived("startup_code"), &["startup"]),
    Attack {
        name: "startup_code_reads_what_never_comes",
        commands: REBUILD,
        says: "did not finish within",
        runs: &["startup"],
        is_metered: false,
    },
    Attack {
        name: "a_command_line_never_comes",
        commands: &[
            "status",
            "rebuild prey",
            "hook post-invoke",
            "doctor",
            // Otherwise the judgement would wait for it, too.
            "root: kill -KILL $(cat /home/mallory/never.pid)",
        ],
        says: "cannot inspect pid",
        runs: &[],
        is_metered: false,
    },
    running(survived("backend_does_what_it_can"), &["backend", "module"]),
    running(by("backend_makes_a_wheel_that_leads_out", REBUILD), &["backend"]),
    Attack {
        name: "backend_hangs",
        commands: REBUILD,
        says: "did not finish within",
        runs: &["backend"],
        is_metered: false,
    },
    Attack {
        name: "backend_forks",
        commands: REBUILD,
        says: "did not finish within",
        runs: &["backend"],
        is_metered: false,
    },
    running(by("backend_floods_the_output", REBUILD), &["backend"]),
    running(
        by(
            "backend_fills_the_disk",
            &["rebuild prey", "resume", "status", "root: rm -f venv/filler"],
        ),
        &["backend"],
    ),
    // Here nobody else can write either, not even venvguard.
    running(
        by(
            "backend_fills_the_disk_of_the_state",
            &["rebuild prey", "resume", "status", "root: rm -f venv/filler"],
        ),
        &["backend"],
    ),
    Attack {
        name: "backend_in_a_venv_of_roots",
        commands: &[
            "rebuild roots",
            "root: cd /srv/roots/src; ls planted /var/tmp/planted; rm planted",
        ],
        says: "'/var/tmp/planted': No such file or directory\nplanted\n",
        runs: &[],
        is_metered: false,
    },
    met("the_venv_is_a_link", "/home/mallory/place/venv is a link to /home/bob/place/venv"),
    survived("its_directory_is_a_link"),
    survived("its_directory_is_a_link_to_roots"),
    survived("lib_is_a_link"),
    survived("site_packages_is_a_link"),
    survived("bin_is_a_link"),
    Attack {
        name: "the_project_is_bobs",
        commands: REBUILD,
        says: "the project's lock was not used: /home/bob/place/Pipfile.lock: ",
        runs: &[],
        is_metered: false,
    },
    by("a_lock_is_deep", REBUILD),
    by(
        "the_previous_tree_is_a_link",
        &[
            "rebuild prey",
            "mallory: for tree in .venv.venvguard-*; do mv $tree away; ln -s /root/place/venv $tree; done",
            "rollback prey",
            "prune prey",
            "status",
            "resume",
        ],
    ),
    by(
        "the_previous_tree_is_roots",
        &[
            "rebuild prey",
            "mallory: for tree in .venv.venvguard-*; do mv $tree away; mv roots $tree; done",
            "rollback prey",
            "prune prey",
            "status",
            "resume",
        ],
    ),
    Attack {
        name: "the_previous_tree_is_a_trap",
        commands: &[
            "rebuild prey",
            "mallory: cd .venv.venvguard-*; rm pyvenv.cfg; mkfifo pyvenv.cfg bin/.python.venvguard",
            "rollback prey",
            "prune prey",
            "resume",
        ],
        says: NO_FILE,
        runs: &[],
        is_metered: false,
    },
    met("a_forged_supervisord", ", not as root"),
    by("a_supervisord_that_hangs", &["status", "rebuild prey"]),
    by("a_supervisord_that_floods", &["status", "rebuild prey"]),
    by(
        "a_forged_service",
        &[
            "status",
            "show prey",
            "rebuild prey",
            "hook post-invoke",
            "root: systemctl stop user@$(id -u mallory)",
            "resume",
        ],
    ),
    Attack {
        name: "others_can_write_the_configuration",
        commands: &["status", "rebuild prey", "hook pre-invoke"],
        says: "users other than its owner can write to it",
        runs: &[],
        is_metered: false,
    },
];

/// An attack on every command, with no message to expect.
pub(super) const fn survived(name: &'static str) -> Attack {
    by(name, EVERY)
}

/// An attack on every command, with a message to expect.
pub(super) const fn met(name: &'static str, says: &'static str) -> Attack {
    Attack { says, ..by(name, EVERY) }
}

/// An attack on some commands, with no message to expect.
pub(super) const fn by(name: &'static str, commands: &'static [&'static str]) -> Attack {
    Attack { name, commands, says: "", runs: &[], is_metered: false }
}

/// An attack in which these kinds of the attacker's code run.
pub(super) const fn running(attack: Attack, runs: &'static [&'static str]) -> Attack {
    Attack { runs, ..attack }
}
