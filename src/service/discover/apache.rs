//! The venvs that Apache's configuration gives to `mod_wsgi`.

use std::fs;
use std::path::{Path, PathBuf};

use super::command_line::paths;
use crate::host::{Root, file};

/// Debian's files and directories of enabled settings.
const FILE: &str = "/etc/apache2/apache2.conf";
const DIRS: [&str; 3] = ["mods-enabled", "conf-enabled", "sites-enabled"];

/// No file is larger, and no directory has more of them.
const LIMIT: u64 = 1 << 20;
const FILES: usize = 1024;

/// The paths that the settings of `mod_wsgi` name: `WSGIPythonHome`, `python-home=`, `python-path=`.
pub(super) fn named(root: &Root) -> Vec<PathBuf> {
    let enabled = DIRS.iter().flat_map(|dir| {
        let dir = Path::new("/etc/apache2").join(dir);
        let entries = fs::read_dir(root.at(&dir)).into_iter().flatten().flatten();
        entries.map(move |entry| dir.join(entry.file_name()))
    });
    let files = enabled.filter(|path| path.extension().is_some_and(|kind| kind == "conf"));
    let files = std::iter::once(PathBuf::from(FILE)).chain(files.take(FILES));
    files.filter_map(|path| text(root, &path)).flat_map(|text| in_text(&text)).collect()
}

fn text(root: &Root, path: &Path) -> Option<String> {
    let real = root.follow(path).ok()?.pop()?;
    let bytes = file::read_untrusted(&root.at(real), LIMIT).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn in_text(text: &str) -> Vec<PathBuf> {
    let text = text.replace("\\\n", " ");
    let is_ours = |line: &&str| {
        line.trim_start().get(..4).is_some_and(|start| start.eq_ignore_ascii_case("WSGI"))
    };
    text.lines().filter(is_ours).flat_map(paths).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_of_mod_wsgi_name_venvs_and_comments_do_not() {
        let found = in_text(
            "# WSGIPythonHome /srv/comment\n\
             WSGIPythonHome /srv/home\n\
             <VirtualHost *:80>\n\
             \twsgidaemonprocess x user=www-data \\\n  python-home=\"/srv/my mw/venv\"\n\
             DocumentRoot /srv/not/this\n",
        );
        assert!(found.contains(&"/srv/home".into()), "{found:?}");
        assert!(found.contains(&"/srv/my mw/venv".into()), "{found:?}");
        assert!(!found.iter().any(|path| path.starts_with("/srv/comment")), "{found:?}");
        assert!(!found.contains(&"/srv/not/this".into()), "{found:?}");
    }
}
