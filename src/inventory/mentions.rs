//! Files of the system's configuration that name `lib/pythonX.Y` of a venv: a unit, a web server's
//! alias, a cron job. A rebuild for another minor version removes that path.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::FileType;

use crate::host::Root;
use crate::host::dir::Dir;
use crate::plan::Mention;
use crate::venv::Venv;

/// Where an administrator's files that name a venv are.
const PLACES: [&str; 3] = ["/etc", "/var/spool/cron/crontabs", "/usr/local/lib/systemd"];

/// The longest file that is searched. Real ones are far shorter.
const LONGEST: u64 = 1 << 20;

/// The most files that are searched.
const MOST: usize = 50_000;

/// The most mentions of one venv that are kept.
const KEPT: usize = 5;

const MARK: &[u8] = b"/lib/python";

/// The mentions of each of these venvs.
pub(super) fn mentions(root: &Root, venvs: &[&Venv]) -> Vec<Vec<Mention>> {
    let mut found = vec![Vec::new(); venvs.len()];
    if venvs.is_empty() {
        return found;
    }
    let wanted: Vec<Vec<u8>> = venvs.iter().map(|venv| versioned_path(venv)).collect();
    let mut left = MOST;
    let mut directories: Vec<PathBuf> = PLACES.iter().rev().map(|place| root.at(place)).collect();
    while let Some(path) = directories.pop() {
        // What cannot be read names nothing that a service could read.
        let Ok(dir) = Dir::open(&path) else { continue };
        let mut entries = dir.entries().unwrap_or_default();
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        for entry in entries {
            match entry.kind {
                FileType::Directory => directories.push(path.join(&entry.name)),
                FileType::RegularFile if left > 0 => {
                    left -= 1;
                    let Ok(text) = dir.read(&entry.name, LONGEST) else { continue };
                    let file = root.logical(&path.join(&entry.name));
                    search(&text, &wanted, |venv, line| {
                        let mentions = &mut found[venv];
                        if mentions.len() < KEPT {
                            mentions.push(Mention { file: file.as_path().into(), line });
                        }
                    });
                }
                _ => {}
            }
        }
    }
    found
}

/// `/srv/shop/venv/lib/python3.11`
fn versioned_path(venv: &Venv) -> Vec<u8> {
    let name = OsStr::new(&venv.site.program()).to_owned();
    venv.path.join("lib").join(name).into_os_string().as_bytes().to_vec()
}

/// Calls `tell` with each wanted path's number and each line that names it.
fn search(text: &[u8], wanted: &[Vec<u8>], mut tell: impl FnMut(usize, usize)) {
    if !contains(text, MARK) {
        return;
    }
    for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
        if !contains(line, MARK) {
            continue;
        }
        for (venv, path) in wanted.iter().enumerate() {
            if names(line, path) {
                tell(venv, number + 1);
            }
        }
    }
}

/// Whether a line names the path itself, and not as a part of a longer one such as `python3.110`.
fn names(line: &[u8], path: &[u8]) -> bool {
    let continues = |byte: Option<&u8>| {
        byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(byte))
    };
    memchr::memmem::find_iter(line, path).any(|start| {
        let before = line.get(..start).and_then(<[u8]>::last);
        let after = line.get(start + path.len());
        !continues(before) && (after == Some(&b'/') || !continues(after))
    })
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::plan::samples::subject;
    use crate::python::Minor;
    use crate::venv::BaseLink;

    #[test]
    fn a_file_that_names_the_versioned_path_is_found_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path().canonicalize().unwrap());
        let venv = subject(BaseLink::Followed, Minor::new(3, 11)).venv;
        let path = format!("{}/lib/python3.11", venv.path.display());
        let write = |place: &str, text: String| {
            let file = root.at(place);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        write(
            "/etc/nginx/sites-available/shop",
            format!("server {{\n  alias {path}/site-packages/static/;\n"),
        );
        write("/var/spool/cron/crontabs/app", format!("@daily PYTHONPATH={path}\n"));
        write("/etc/other", format!("{path}0/x\n/other{path}\n/lib/python3.11\n"));
        let found = mentions(&root, &[&venv]);
        let found: Vec<(&Path, usize)> =
            found[0].iter().map(|one| (one.file.0.as_path(), one.line)).collect();
        let expected =
            [("/etc/nginx/sites-available/shop", 2), ("/var/spool/cron/crontabs/app", 1)];
        assert_eq!(found, expected.map(|(file, line)| (Path::new(file), line)));
    }
}
