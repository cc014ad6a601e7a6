//! The programs in a directory of the administrator's, such as systemd's `*.d` directories.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::file::{ReadError, open_dir, open_untrusted, require_trusted};

/// Parts of the names of backups, and of files that dpkg puts beside conffiles.
const BACKUPS: [&str; 6] = [".dpkg-", ".ucf-", ".bak", ".old", ".new", ".swp"];

/// The programs in a directory, in the order of their names: files that can be executed, without
/// hidden files, backups and links to `/dev/null`. Root obeys them, so all of `dirs`, the directory
/// and those above it, and each program must be its own, and no link.
pub(crate) fn in_dir(dirs: &[&Path]) -> Result<Vec<PathBuf>, ReadError> {
    let Some(dir) = dirs.last() else { return Ok(Vec::new()) };
    let io = |path: &Path, source| ReadError::Io { path: path.to_path_buf(), source };
    let mut paths = Vec::new();
    match fs::read_dir(dir) {
        Ok(entries) => {
            for entry in entries {
                let entry = entry.map_err(|error| io(dir, error))?;
                if !is_left_out(&entry.file_name()) && !is_masked(&entry.path()) {
                    paths.push(entry.path());
                }
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(paths),
        Err(error) => return Err(io(dir, error)),
    }
    if paths.is_empty() {
        return Ok(paths);
    }
    for dir in dirs {
        require_trusted(dir, &open_dir(dir).map_err(|error| io(dir, error))?)?;
    }
    paths.sort();
    let mut programs = Vec::new();
    for path in paths {
        let file = open_untrusted(&path)?;
        let metadata = file.metadata().map_err(|error| io(&path, error))?;
        if metadata.permissions().mode() & 0o111 != 0 {
            require_trusted(&path, &file)?;
            programs.push(path);
        }
    }
    Ok(programs)
}

fn is_left_out(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let has = |part: &&str| name.windows(part.len()).any(|window| window == part.as_bytes());
    name.starts_with(b".") || name.ends_with(b"~") || BACKUPS.iter().any(has)
}

fn is_masked(path: &Path) -> bool {
    fs::read_link(path).is_ok_and(|target| target == Path::new("/dev/null"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, mode) in [
            ("20-b", 0o755),
            ("10-a", 0o700),
            ("README", 0o644),
            (".hidden", 0o755),
            ("10-a~", 0o755),
            ("10-a.dpkg-old", 0o755),
        ] {
            fs::write(dir.path().join(name), "#!/bin/sh\n").unwrap();
            fs::set_permissions(dir.path().join(name), PermissionsExt::from_mode(mode)).unwrap();
        }
        symlink("/dev/null", dir.path().join("30-masked")).unwrap();
        dir
    }

    #[test]
    fn programs_come_in_the_order_of_their_names_without_other_files() {
        let dir = dir();
        let programs = in_dir(&[dir.path()]).unwrap();
        let names: Vec<_> = programs.iter().filter_map(|path| path.file_name()).collect();
        assert_eq!(names, ["10-a", "20-b"]);
        assert!(in_dir(&[&dir.path().join("nowhere")]).unwrap().is_empty());
    }

    #[test]
    fn programs_that_others_can_change_and_links_are_refused() {
        let dir = dir();
        let set = |path: &Path, mode| {
            fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        };
        let program = dir.path().join("10-a");
        for (path, good, bad) in [(program.as_path(), 0o755, 0o775), (dir.path(), 0o755, 0o777)] {
            set(path, bad);
            let error = in_dir(&[dir.path()]).unwrap_err();
            assert!(matches!(error, ReadError::NotOurs { .. }), "{error}");
            set(path, good);
        }
        symlink("/bin/true", dir.path().join("40-link")).unwrap();
        let error = in_dir(&[dir.path()]).unwrap_err();
        assert!(matches!(error, ReadError::NotRegular { .. }), "{error}");
    }
}
