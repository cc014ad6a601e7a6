//! The configuration of other programs that names a venv's `lib/pythonX.Y`: a rebuild for another
//! minor version leaves it with a path that no longer exists. Only a person can change it.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use memchr::memmem;

use crate::host::file::{self, printable};
use crate::host::path_text::PathText;
use crate::host::{Dir, Root};
use crate::plan::Mention;
use crate::python::Minor;

/// Where service managers, web servers and cron have what an administrator writes; first what runs
/// programs: reading stops after [`MOST`] files.
const PLACES: [&str; 5] =
    ["/var/spool/cron/crontabs", "/etc/cron.d", "/etc/systemd", "/usr/local/lib/systemd", "/etc"];

/// No hand-written file is longer, and few such directories are deeper or fuller.
const LONGEST: u64 = 256 << 10;
const DEEPEST: usize = 6;
const MOST: usize = 4096;

/// A part of every path that is searched for.
const MARK: &[u8] = b"/python";

/// The lines that name the library or the interpreter of some venvs, each with its minor version.
pub(crate) fn mentions(root: &Root, venvs: &[(&Path, Minor)]) -> Vec<Vec<Mention>> {
    let mut found = vec![Vec::new(); venvs.len()];
    if venvs.is_empty() {
        return found;
    }
    let wanted: Vec<[PathBuf; 4]> = venvs
        .iter()
        .map(|(venv, minor)| {
            ["lib", "lib64", "bin", "include"].map(|dir| venv.join(dir).join(minor.program()))
        })
        .collect();
    let mut files = Vec::new();
    for place in PLACES {
        if let Ok(dir) = Dir::open(&root.at(place)) {
            list(&dir, Path::new(place), DEEPEST, &mut files);
        }
    }
    for path in files {
        // What cannot be read names nothing that a service could read.
        let Ok(text) = file::read_untrusted(&root.at(&path), LONGEST) else { continue };
        if memmem::find(&text, MARK).is_none() {
            continue;
        }
        for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
            if memmem::find(line, MARK).is_none() {
                continue;
            }
            for (paths, found) in wanted.iter().zip(&mut found) {
                if let Some(name) = paths.iter().find(|one| names(line, one)) {
                    let (file, name) = (PathText(path.clone()), PathText(name.clone()));
                    found.push(Mention { file, line: number + 1, name });
                }
            }
        }
    }
    found
}

/// Notes about the files that name the venv's library or interpreter of the minor version `old`,
/// which is gone.
pub(super) fn notes(root: &Root, venv: &Path, old: Minor) -> Vec<String> {
    let mut found = mentions(root, &[(venv, old)]).concat();
    found.dedup_by(|one, before| one.file == before.file);
    let note = |Mention { file, name, .. }: Mention| {
        let [file, name] = [file, name].map(|path| printable(path.0));
        format!("{file} names {name}, which no longer exists; change it by hand")
    };
    found.into_iter().map(note).collect()
}

/// Whether a line names the path itself, and not as a part of a longer one such as `python3.110`.
fn names(line: &[u8], path: &Path) -> bool {
    let path = path.as_os_str().as_bytes();
    memmem::find_iter(line, path).any(|start| {
        let before = line.get(..start).and_then(<[u8]>::last);
        let after = line.get(start + path.len());
        !before.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
            && !after.is_some_and(u8::is_ascii_alphanumeric)
    })
}

/// The regular files below a directory, its own first, in the order of their names. A link leads to
/// a file that is listed elsewhere, and so does a directory that is itself one of the places.
fn list(dir: &Dir, path: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    let mut entries = dir.entries().unwrap_or_default();
    entries.sort_by_cached_key(|entry| (entry.kind.is_dir(), entry.name.clone()));
    for entry in entries {
        let inner = path.join(&entry.name);
        if files.len() == MOST {
            return;
        }
        let is_entered =
            depth > 0 && entry.kind.is_dir() && PLACES.iter().all(|one| inner != Path::new(one));
        if entry.kind.is_file() {
            files.push(inner);
        } else if let (true, Ok(dir)) = (is_entered, dir.dir(&entry.name)) {
            list(&dir, &inner, depth - 1, files);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::samples::subject;
    use crate::venv::BaseLink;

    #[test]
    fn configuration_that_names_the_old_library_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path().canonicalize().unwrap());
        let write = |path: &str, text: &str| {
            let path = root.at(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let alias = "alias /srv/app/lib/python3.11/site-packages/django/static/;";
        write("/etc/nginx/sites-available/app", alias);
        write("/etc/nginx/sites-available/other", &alias.replace("/app", "/apple"));
        write("/etc/systemd/system/a.service.d/b.conf", "ExecStart=/srv/app/bin/python3.11 x\n");
        write("/etc/crontab", "* * * * * root /srv/app/bin/python x\n");
        write("/srv/app/notes", alias);
        std::os::unix::fs::symlink("sites-available", root.at("/etc/nginx/sites-enabled")).unwrap();
        assert_eq!(
            notes(&root, Path::new("/srv/app"), Minor::new(3, 11)),
            [
                "/etc/systemd/system/a.service.d/b.conf names /srv/app/bin/python3.11, which no longer exists; change it by hand",
                "/etc/nginx/sites-available/app names /srv/app/lib/python3.11, which no longer exists; change it by hand",
            ]
        );
    }

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
        let found = mentions(&root, &[(&venv.path, venv.site)]);
        let found: Vec<(&Path, usize)> =
            found[0].iter().map(|one| (one.file.0.as_path(), one.line)).collect();
        let expected =
            [("/var/spool/cron/crontabs/app", 1), ("/etc/nginx/sites-available/shop", 2)];
        assert_eq!(found, expected.map(|(file, line)| (Path::new(file), line)));
    }

    #[test]
    fn what_runs_programs_is_read_although_there_are_more_files_than_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path().canonicalize().unwrap());
        std::fs::create_dir_all(root.at("/etc/apparmor.d/local")).unwrap();
        for number in 0..=MOST {
            std::fs::write(root.at(format!("/etc/apparmor.d/local/{number}")), "").unwrap();
        }
        let files = [
            "/var/spool/cron/crontabs/app",
            "/etc/cron.d/app",
            "/etc/systemd/system/app.service",
            "/usr/local/lib/systemd/system/app.service",
            "/etc/crontab",
        ];
        for file in files {
            let path = root.at(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "/srv/app/bin/python3.11 x\n").unwrap();
        }
        let found = mentions(&root, &[(Path::new("/srv/app"), Minor::new(3, 11))]).concat();
        assert_eq!(
            found.iter().map(|one| one.file.0.as_path()).collect::<Vec<_>>(),
            files.map(Path::new)
        );
    }
}
