use std::os::unix::net::UnixStream;

use super::*;

fn shell(script: &str) -> Program {
    Program::new("/bin/sh").arg("-c").arg(script)
}

#[test]
fn output_input_and_environment_are_as_requested() {
    let finished = shell("cat; env").env("A", "b").input("hello\n").run().unwrap();
    let text = finished.text();
    assert!(text.starts_with("hello\n"), "{text}");
    assert!(text.contains("A=b") && text.contains(PATH), "{text}");
    assert!(!text.contains("CARGO"), "nothing is inherited: {text}");
}

#[test]
fn a_failure_reports_the_status_and_the_last_lines() {
    let error = shell("echo no such luck >&2; exit 3").run().unwrap_err().to_string();
    assert_eq!(error, "sh exited 3\n    no such luck");
}

#[test]
fn a_complaint_is_cut_short() {
    for flood in [
        // One endless line of bytes that are escaped.
        "head -c 33554432 /dev/zero | tr '\\0' '\\033' >&2; exit 1",
        // Characters of two bytes, one of which is cut by the kept tail.
        "echo >&2; yes | head -c 200000 | tr -d '\\n' | sed 's/y/é/g' >&2; exit 1",
        "yes | head -n 1000000; exit 1",
    ] {
        let error = shell(flood).run().unwrap_err().to_string();
        assert!(error.len() < 4 << 10, "{} KiB", error.len() >> 10);
        assert!(!error.contains(['\u{1b}', '\u{fffd}']), "{error}");
        assert!(error.lines().count() <= 1 + COMPLAINT_LINES, "{error}");
    }
}

#[test]
fn a_backslash_in_a_complaint_breaks_no_line() {
    let say = r#"printf '%s\n' 'no module "a\new"' 'C:\n' >&2; exit 1"#;
    let error = shell(say).run().unwrap_err().to_string();
    assert_eq!(error, "sh exited 1\n    no module \"a\\new\"\n    C:\\n");
    let error = shell(r"printf 'a\033[2Jb\rc\nd' >&2; exit 1").run().unwrap_err().to_string();
    assert_eq!(error, "sh exited 1\n    a\\u{1b}[2Jb\\rc\n    d");
}

#[test]
fn a_failed_build_names_the_distribution_and_the_error() {
    let pip = "  error: subprocess-exited-with-error\n  × Building wheel for psutil (pyproject.toml) \
        did not run successfully.\n  │ exit code: 1\n  ╰─> [40 lines of output]\n      running build\n      \
        running build_ext\n      building 'psutil._psutil_linux' extension\n      \
        error: command 'x86_64-linux-gnu-gcc' failed: No such file or directory\n      [end of output]\n  \n  \
        note: This error originates from a subprocess, and is likely not a problem with pip.\n  \
        ERROR: Failed building wheel for psutil\n\
        ERROR: Failed to build installable wheels for some pyproject.toml based projects (psutil)\n";
    let said = telling(pip).join("\n");
    assert!(said.contains("gcc' failed: No such file") && said.contains("for psutil"), "{said}");
    assert!(!said.contains("originates") && !said.contains("end of output"), "{said}");
    let uv = "  × Failed to build `psutil==5.0`\n  ├─▶ The build backend returned an error\n  \
        ╰─▶ Call to `setuptools.build_meta.build_wheel` failed (exit status: 1)\n\n      [stderr]\n      \
        a\n      b\n      c\n      error: command 'gcc' failed: No such file or directory\n\n      \
        hint: This usually indicates a problem with the package or the build environment.\n";
    let said = telling(uv).join("\n");
    assert!(said.starts_with("  × Failed to build `psutil==5.0`"), "{said}");
    assert!(said.ends_with("command 'gcc' failed: No such file or directory"), "{said}");
    assert_eq!(said.lines().count(), COMPLAINT_LINES);
}

#[test]
fn the_first_error_of_a_script_is_reported_whatever_it_prints_afterwards() {
    let said =
        "upgrading\nERROR: no such index\nerror: gave up\n1\n2\n3\n4\n5\nmake: *** [x] Error 1\n";
    let expected = ["ERROR: no such index", "2", "3", "4", "5", "make: *** [x] Error 1"];
    assert_eq!(telling(said), expected);
    assert_eq!(telling("a\nb\n1\n2\n3\n4\n5\n"), ["b", "1", "2", "3", "4", "5"]);
}

#[test]
fn passwords_in_urls_are_masked_in_complaints() {
    let error = shell("echo no answer from https://u:secret@x.org/simple; exit 1").run();
    let error = error.unwrap_err().to_string();
    assert_eq!(error, "sh exited 1\n    no answer from https://u:****@x.org/simple");
}

#[test]
fn a_program_that_hangs_is_killed_with_its_children() {
    let error = shell("sleep 60 & sleep 60").limit(Duration::from_millis(200)).run();
    assert!(matches!(error, Err(CommandError::TimedOut { .. })));
}

#[test]
fn a_program_that_hangs_is_killed_with_the_groups_that_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    // The shell puts its child into a group of its own, which has a child as well.
    let script = format!("set -m; sh -c 'sleep 99 & echo $! $$ >{}; wait'", file.display());
    let error = shell(&script).limit(Duration::from_secs(1)).run().unwrap_err();
    assert!(matches!(error, CommandError::TimedOut { .. }), "{error}");
    let pids = std::fs::read_to_string(&file).unwrap();
    for pid in pids.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap()).unwrap()) {
        let is_gone = || rustix::process::test_kill_process(pid).is_err();
        let deadline = Deadline::after(Duration::from_secs(10));
        assert!(
            crate::host::clock::wait_until(deadline, Duration::from_millis(10), is_gone)
                || std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))
                    .is_ok_and(|stat| stat.contains(") Z ")),
            "{pid:?} is left: {pids}"
        );
    }
}

#[test]
fn a_line_that_somebody_types_ends_a_program() {
    let (terminal, mut keyboard) = UnixStream::pair().unwrap();
    let ended = |script| shell(script).ended_by(terminal.try_clone().unwrap().into()).run();
    assert_eq!(ended("echo done").unwrap().text(), "done\n");
    keyboard.write_all(b"\n").unwrap();
    assert!(matches!(ended("sleep 60"), Err(CommandError::Ended { .. })));
}

#[test]
fn only_the_beginning_of_a_flood_is_kept() {
    let finished = shell("echo begin; head -c 40000000 /dev/zero").run().unwrap();
    assert!(finished.output.starts_with(b"begin\n"));
    assert_eq!(finished.output.len(), OUTPUT_LIMIT);
}

#[test]
fn a_child_that_keeps_the_output_open_does_not_hang_us() {
    let finished = shell("echo done; setsid sleep 5 & sleep 0.3").run().unwrap();
    assert_eq!(finished.text(), "done\n", "earlier output counts");
}
