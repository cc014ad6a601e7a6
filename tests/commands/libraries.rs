//! Removals of libraries that extension modules need.

#[path = "../../src/python/elf/sample.rs"]
#[expect(dead_code, reason = "the other samples are for the unit tests")]
mod sample;

use super::system;
use super::system::System;

const REMOVAL: &str = "libpq5 16.1-1 amd64 same > - - none **REMOVE**";

/// A venv whose psycopg2 needs libpq.
fn linked() -> System {
    let system = system();
    let site = "/srv/shop/venv/lib/python3.11/site-packages";
    system.write(
        &format!("{site}/psycopg2-2.9.dist-info/METADATA"),
        "Metadata-Version: 2.1\nName: psycopg2\nVersion: 2.9\n",
    );
    system.write(&format!("{site}/psycopg2-2.9.dist-info/RECORD"), "psycopg2/_psycopg.so,,\n");
    let module = sample::linked(None, b"", b"", b"libpq.so.5");
    system.write_bytes(&format!("{site}/psycopg2/_psycopg.so"), &module);
    system.write(
        "/var/lib/dpkg/info/libpq5:amd64.list",
        "/.\n/usr/lib/x86_64-linux-gnu/libpq.so.5\n/usr/lib/x86_64-linux-gnu/libpq.so.5.16\n",
    );
    system.run(&["register", "/srv/shop/venv"]).expect(0);
    system
}

#[test]
fn the_removal_of_a_library_that_a_venv_needs_is_blocked() {
    let system = linked();
    let said = system.hook("pre-install", &[REMOVAL]).expect(10);
    for words in [
        "shop (",
        "psycopg2 2.9: its module psycopg2/_psycopg.so needs libpq.so.5 of libpq5, which is removed",
        "keep the library: `apt-mark manual libpq5`",
    ] {
        assert!(said.stderr.contains(words), "{words:?} is missing: {}", said.stderr);
    }
    let plan = system.run(&["plan", "--from", &system.list(&[REMOVAL]), "--json"]).expect(3).json();
    let venv = &plan["venvs"][0];
    assert_eq!((&venv["effect"], &venv["ready"]), (&"unlinked".into(), &false.into()));
    assert_eq!(venv["findings"][0]["kind"], "lost-library");
    assert_eq!(venv["findings"][0]["distribution"], "psycopg2");
    let of_i386 = REMOVAL.replace("amd64", "i386");
    assert_eq!(system.hook("pre-install", &[&of_i386]).expect(0).stderr, "");
}

#[test]
fn other_removals_and_other_venvs_are_not_affected() {
    let system = linked();
    let other = REMOVAL.replace("libpq5", "tzdata");
    assert_eq!(system.hook("pre-install", &[&other]).expect(0).stderr, "");
    system.run(&["register", "--policy", "ignore", "/srv/shop/venv"]).expect(0);
    assert_eq!(system.hook("pre-install", &[REMOVAL]).expect(0).stderr, "");
    system.run(&["register", "--policy", "warn", "/srv/shop/venv"]).expect(0);
    let said = system.hook("pre-install", &[REMOVAL]).expect(0);
    assert!(said.stderr.contains("needs libpq.so.5"), "{}", said.stderr);
}
