//! Which venv a uWSGI process was told to use.
//!
//! Debian's uWSGI runs apps out of venvs without naming them anywhere in `/proc`: the venv
//! stands in the ini file that its command line names, for a vassal by a relative name.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::process::{Process, Processes};
use crate::host::root::normal;
use crate::host::{Root, file};

/// uWSGI's names for the same option.
const VENV: [&str; 5] = ["virtualenv", "venv", "home", "pyhome", "H"];

/// No ini file is larger, and no command line names more of them.
const LIMIT: u64 = 1 << 20;
const FILES: usize = 16;

/// So many venvs are in no ini file, and no path is longer.
const VENVS: usize = 64;
const LONGEST: usize = 4096;

/// How often a variable may lead to another one.
const EXPANSIONS: usize = 8;

/// The venvs that a process was told to use, by its command line or its ini files.
pub(super) fn venvs(root: &Root, process: &Process, processes: &Processes) -> Vec<PathBuf> {
    let options = options(process);
    let mut venvs: Vec<PathBuf> = options
        .iter()
        .filter(|(name, _)| VENV.contains(name))
        .flat_map(|(_, value)| absolute(Path::new(value), &process.folders))
        .collect();
    let folders = folders(process, processes);
    for name in options.iter().filter(|(name, _)| *name == "ini").take(FILES) {
        // `app.ini:section` names a section as well.
        let name = name.1.as_bytes().split(|byte| *byte == b':').next().unwrap_or_default();
        let found = absolute(Path::new(OsStr::from_bytes(name)), &folders);
        let read = found.into_iter().find_map(|path| Some((read(root, &path)?, path)));
        if let Some((text, path)) = read {
            let named = in_ini(&text, &path);
            venvs.extend(named.iter().flat_map(|value| absolute(value, &process.folders)));
        }
    }
    // `--ini x.ini` is found as an option and as a file.
    venvs.sort_unstable();
    venvs.dedup();
    venvs
}

/// The options of a command line, with their values: `--ini x`, `--ini=x`, `-H x`, `x.ini`.
fn options(process: &Process) -> Vec<(&str, &OsStr)> {
    let mut options = Vec::new();
    let mut arguments = process.arguments.iter().skip(1).peekable();
    while let Some(argument) = arguments.next() {
        let bytes = argument.as_bytes();
        if bytes.ends_with(b".ini") && !bytes.starts_with(b"-") {
            options.push(("ini", argument.as_os_str()));
        }
        let Some(name) = argument.to_str().and_then(|text| text.strip_prefix('-')) else {
            continue;
        };
        let name = name.strip_prefix('-').unwrap_or(name);
        match name.split_once('=') {
            Some((name, value)) => options.push((name, OsStr::new(value))),
            None => options.extend(arguments.peek().map(|value| (name, value.as_os_str()))),
        }
    }
    options
}

/// The folders that a relative ini file may lie in. A vassal is named as its emperor
/// found it, and has gone to its app's folder since.
fn folders(process: &Process, processes: &Processes) -> Vec<PathBuf> {
    let mut folders = process.folders.clone();
    for elder in processes.lineage(process).skip(1).filter(|elder| elder.runs_python()) {
        let emperor = options(elder).into_iter().find(|(name, _)| *name == "emperor");
        folders.extend(emperor.map(|(_, folder)| PathBuf::from(folder)));
        folders.extend_from_slice(&elder.folders);
    }
    folders
}

fn absolute(path: &Path, folders: &[PathBuf]) -> Vec<PathBuf> {
    if path.is_absolute() {
        return vec![normal(path)];
    }
    folders.iter().filter(|f| f.is_absolute()).map(|folder| normal(&folder.join(path))).collect()
}

fn read(root: &Root, path: &Path) -> Option<String> {
    // Debian's `apps-enabled` holds links.
    let real = root.follow(path).ok()?.pop()?;
    let bytes = file::read_untrusted(&root.at(real), LIMIT).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The venvs that an ini file names.
pub(super) fn in_ini(text: &str, path: &Path) -> Vec<PathBuf> {
    let mut variables: HashMap<&str, &str> = HashMap::new();
    let mut named = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';', '[']) {
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        let (key, value) = (key.trim(), value.trim());
        if VENV.contains(&key) && named.len() < VENVS && value.len() <= LONGEST {
            named.push(PathBuf::from(expand(value, &variables, path)));
        }
        variables.insert(key, value);
    }
    named
}

/// Puts in `%(name)` for what was set before, `%d` for the file's folder, `%n` for its name.
fn expand(value: &str, variables: &HashMap<&str, &str>, path: &Path) -> String {
    let mut text = value.to_string();
    for _ in 0..EXPANSIONS {
        let Some((front, (name, back))) =
            text.split_once("%(").and_then(|(front, rest)| Some((front, rest.split_once(')')?)))
        else {
            break;
        };
        let value = variables.get(name).copied().unwrap_or_default();
        // Variables that name themselves grow for ever.
        if text.len() + value.len() > LONGEST {
            return String::new();
        }
        text = format!("{front}{value}{back}");
    }
    let folder = path.parent().unwrap_or(Path::new("/")).to_string_lossy();
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let text = text.replace("%d", &format!("{folder}/")).replace("%n", &name);
    if text.len() > LONGEST { String::new() } else { text }
}

#[cfg(test)]
mod tests {
    use super::super::process::tests::Machine;
    use super::*;

    fn found(machine: &Machine, pid: u32) -> Vec<PathBuf> {
        let (root, processes) = (machine.root(), Processes::look(&machine.root()));
        venvs(&root, processes.get(pid).unwrap(), &processes)
    }

    const UWSGI: &str = "/usr/bin/uwsgi-core";

    #[test]
    fn a_command_line_names_its_venv() {
        for command in [
            "uwsgi --virtualenv /opt/v/dj --die-on-term",
            "uwsgi --home=/opt/v/dj",
            "uwsgi -H /opt/v/dj",
            "uwsgi --venv dj",
            "uwsgi --pyhome ../v/dj/",
        ] {
            let machine = Machine::new();
            machine.process((5, 1), "/", UWSGI, command);
            machine.link("proc/5/cwd", "/opt/v");
            assert_eq!(found(&machine, 5), [Path::new("/opt/v/dj")], "{command}");
        }
    }

    #[test]
    fn a_vassals_ini_is_found_in_its_emperors_folder() {
        let machine = Machine::new();
        let emperor = "uwsgi --plugin python3 --emperor /etc/vassals --die-on-term";
        machine.process((5, 1), "/", UWSGI, emperor);
        machine.process((6, 5), "/", UWSGI, "/usr/bin/uwsgi-core --ini deb.ini");
        machine.process((7, 6), "/", UWSGI, "/usr/bin/uwsgi-core --ini deb.ini");
        machine.link("proc/6/cwd", "/srv/dj");
        machine.link("proc/7/cwd", "/srv/dj");
        machine.write(
            "srv/vassals-available/deb.ini",
            "[uwsgi]\nplugin = python3\nvirtualenv = /opt/v/dj\n",
        );
        machine.link("etc/vassals/deb.ini", "/srv/vassals-available/deb.ini");
        assert_eq!(found(&machine, 6), [Path::new("/opt/v/dj")]);
        assert_eq!(found(&machine, 7), [Path::new("/opt/v/dj")], "its worker too");
        assert!(found(&machine, 5).is_empty());
    }

    #[test]
    fn variables_in_an_ini_are_put_in() {
        let text = "[uwsgi]\nbase = /srv/apps\napp = %(base)/%n\nhome = %(app)/venv\nvenv = %d../v\n\
                    # home = /not/this\nchdir = /nor/this\n";
        let venvs = in_ini(text, Path::new("/etc/uwsgi/shop.ini"));
        assert_eq!(venvs, ["/srv/apps/shop/venv", "/etc/uwsgi/../v"].map(PathBuf::from));
    }

    #[test]
    fn hostile_files_do_no_harm() {
        let machine = Machine::new();
        machine.process(
            (5, 1),
            "/",
            UWSGI,
            "uwsgi --ini /srv/loop.ini --ini=/srv/folder.ini x.ini -H",
        );
        machine.link("srv/loop.ini", "loop.ini");
        std::fs::create_dir(machine.0.path().join("srv/folder.ini")).unwrap();
        assert!(found(&machine, 5).is_empty());
        let bomb = "a = %(a)%(a)%(a)%(a)%(a)%(a)\nhome = %(a)\n";
        assert!(in_ini(bomb, Path::new("/x.ini"))[0].as_os_str().len() <= LONGEST);
        let deep = PathBuf::from(format!("/{}x.ini", "d/".repeat(2000)));
        let lines = format!("H={}\n", "%d".repeat(2000)).repeat(1000);
        let length: usize = in_ini(&lines, &deep).iter().map(|venv| venv.as_os_str().len()).sum();
        assert!(length <= VENVS * LONGEST, "{length}");
    }
}
