//! Finds paths in the command lines of configuration files.

use std::path::{Path, PathBuf};

use crate::host::root::normal;

/// The separators of paths within one word: `--home=/opt/v`, `PATH=/a:/b`,
/// `sh -c 'cd /srv && /opt/v/bin/x'`.
const BORDERS: &[char] = &['=', ':', ';', ',', '&', '|', '(', ')', '<', '>', '"', '\'', '`'];

/// Every absolute path that a line names; a path with blanks is found only if it is quoted.
/// Rather too many than too few: the result is compared with known paths.
pub(crate) fn paths(line: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for word in words(line) {
        // The prefixes that systemd allows in front of a program: `-`, `@`, `+`, `!`, `:`, `|`.
        let whole = word.trim_start_matches(['-', '@', '+', '!', ':', '|']);
        let value = word.split_once('=').map_or("", |(_, value)| value);
        let parts = word.split(|c: char| c.is_whitespace() || BORDERS.contains(&c));
        for part in [whole, value].into_iter().chain(parts) {
            if part.len() > 1 && part.starts_with('/') {
                found.push(normal(Path::new(part)));
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The words of a line, unquoted by the rules that systemd and shells share.
pub(super) fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match (c, quote) {
            ('\\', quote) if quote != Some('\'') => {
                word.get_or_insert_default().push(escaped(&mut rest));
            }
            (c, Some(open)) if c == open => quote = None,
            ('\'' | '"', None) => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The character that an escape stands for; `\x20` and `\s` are a blank.
fn escaped(rest: &mut std::str::Chars) -> char {
    match rest.next() {
        Some('x') => {
            let hex: String = rest.clone().take(2).collect();
            match u8::from_str_radix(&hex, 16) {
                Ok(byte) => {
                    rest.by_ref().take(2).for_each(drop);
                    char::from(byte)
                }
                Err(_) => 'x',
            }
        }
        Some('s') => ' ',
        Some(c) => c,
        None => '\\',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_a_command_line_is_found() {
        for (line, expected) in [
            ("/opt/v/web/bin/gunicorn -w 2 app:app", "/opt/v/web/bin/gunicorn"),
            ("-@/opt/v/web/bin/gunicorn gunicorn", "/opt/v/web/bin/gunicorn"),
            ("/usr/bin/uwsgi --virtualenv=/opt/v/dj", "/opt/v/dj"),
            ("/bin/sh -c 'cd /srv; exec /opt/v/web/bin/app>/dev/null'", "/opt/v/web/bin/app"),
            ("\"PATH=/opt/v/web/bin:/usr/bin\" A=1", "/opt/v/web/bin"),
            ("\"/opt/my venv/bin/app\" x", "/opt/my venv/bin/app"),
            (r"/opt/my\x20venv/bin/app x", "/opt/my venv/bin/app"),
            (r"/opt/my\svenv/bin/app x", "/opt/my venv/bin/app"),
            ("'HOME=/opt/my venv'", "/opt/my venv"),
            ("/opt/v/../v/./web//bin/app", "/opt/v/web/bin/app"),
        ] {
            let found = paths(line);
            assert!(found.contains(&PathBuf::from(expected)), "{line}: {found:?}");
        }
    }

    #[test]
    fn other_words_are_not_paths() {
        for line in ["", "gunicorn app:app", "/", "\"", "\\", "\\x", "a/b"] {
            assert!(paths(line).is_empty(), "{line}");
        }
    }
}
