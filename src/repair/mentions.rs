//! The configuration of other programs that names a venv's `lib/pythonX.Y`: a rebuild for another
//! minor version leaves it with a path that no longer exists. Only a person can change it.

use std::path::{Path, PathBuf};

use crate::host::file::{self, printable};
use crate::host::{Dir, Root};
use crate::python::Minor;

/// Where service managers, web servers and cron have what an administrator writes.
const PLACES: [&str; 12] = [
    "/etc/apache2",
    "/etc/cron.d",
    "/etc/default",
    "/etc/init.d",
    "/etc/logrotate.d",
    "/etc/nginx",
    "/etc/profile.d",
    "/etc/supervisor",
    "/etc/sv",
    "/etc/systemd/system",
    "/etc/uwsgi",
    "/var/spool/cron/crontabs",
];

/// No hand-written file is longer, and no such directory is deeper or fuller.
const LONGEST: u64 = 256 << 10;
const DEEPEST: usize = 4;
const MOST: usize = 4096;

/// Notes about the files that name the venv's library or interpreter of the minor version `old`.
pub(super) fn mentions(root: &Root, venv: &Path, old: Minor) -> Vec<String> {
    let names = ["lib", "lib64", "bin", "include"].map(|dir| venv.join(dir).join(old.program()));
    let mut files = vec![PathBuf::from("/etc/crontab")];
    for place in PLACES {
        if let Ok(dir) = Dir::open(&root.at(place)) {
            list(&dir, Path::new(place), DEEPEST, &mut files);
        }
    }
    let mention = |path: PathBuf| {
        let bytes = file::read_untrusted(&root.at(&path), LONGEST).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let name = names.iter().find(|name| text.contains(&*name.to_string_lossy()))?;
        let [path, name] = [&path, name].map(printable);
        Some(format!("{path} names {name}, which no longer exists; change it by hand"))
    };
    files.into_iter().filter_map(mention).collect()
}

/// The regular files below a directory. A link leads to a file that is listed elsewhere.
fn list(dir: &Dir, path: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    for entry in dir.entries().unwrap_or_default() {
        let inner = path.join(&entry.name);
        if files.len() == MOST {
            return;
        }
        if entry.kind.is_file() {
            files.push(inner);
        } else if let (true, Ok(dir)) = (entry.kind.is_dir() && depth > 0, dir.dir(&entry.name)) {
            list(&dir, &inner, depth - 1, files);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            mentions(&root, Path::new("/srv/app"), Minor::new(3, 11)),
            [
                "/etc/nginx/sites-available/app names /srv/app/lib/python3.11, which no longer exists; change it by hand",
                "/etc/systemd/system/a.service.d/b.conf names /srv/app/bin/python3.11, which no longer exists; change it by hand",
            ]
        );
    }
}
