//! The units that needrestart leaves alone.
//!
//! Its configuration is a Perl program. It is read as data: the statements of the usual form are
//! understood, and all others are skipped.

use std::path::PathBuf;

use regex_lite::Regex;

use crate::host::{Root, file};

const FILE: &str = "/etc/needrestart/needrestart.conf";
const DIR: &str = "/etc/needrestart/conf.d";

/// No file is larger, and no configuration has more files or rules.
const LIMIT: u64 = 1 << 20;
const FILES: usize = 256;
const RULES: usize = 4096;

/// No pattern is longer.
const LONGEST: usize = 4096;

/// `$nrconf{override_rc}` and `$nrconf{blacklist_rc}`.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// Whether a unit whose name matches is restarted.
    overrides: Vec<(Regex, bool)>,
    blacklist: Vec<Regex>,
}

impl Rules {
    pub(super) fn read(root: &Root) -> Self {
        let entries = std::fs::read_dir(root.at(DIR)).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.retain(|path| path.extension().is_some_and(|kind| kind == "conf"));
        files.sort();
        files.truncate(FILES);
        files.insert(0, root.at(FILE));
        let mut rules = Self::default();
        for path in files {
            if let Ok(bytes) = file::read_own(&path, LIMIT) {
                rules.add(&String::from_utf8_lossy(&bytes));
            }
        }
        rules
    }

    /// Whether a unit is to be left alone.
    pub(super) fn exclude(&self, unit: &str) -> bool {
        self.blacklist.iter().any(|pattern| pattern.is_match(unit))
            || self.overrides.iter().any(|(pattern, restarts)| !restarts && pattern.is_match(unit))
    }

    fn add(&mut self, text: &str) {
        for statement in without_comments(text).split(';') {
            let rest_after = |list: &str| statement.split_once(&format!("$nrconf{{{list}}}"));
            // A list that is assigned as a whole replaces the one before.
            let is_whole = |rest: &str| rest.trim_start().starts_with('=');
            if let Some((_, rest)) = rest_after("override_rc") {
                if is_whole(rest) {
                    self.overrides.clear();
                }
                self.overrides
                    .extend(patterns(rest).filter_map(|(one, value)| Some((one, value?))));
                self.overrides.truncate(RULES);
            } else if let Some((_, rest)) = rest_after("blacklist_rc") {
                if is_whole(rest) {
                    self.blacklist.clear();
                }
                self.blacklist.extend(patterns(rest).map(|(one, _)| one));
                self.blacklist.truncate(RULES);
            }
        }
    }
}

fn without_comments(text: &str) -> String {
    let code = text.lines().map(|line| {
        let is_comment = |(at, _): &(usize, &str)| {
            line.get(..*at).is_some_and(|before| before.is_empty() || before.ends_with([' ', '\t']))
        };
        let comment = line.match_indices('#').find(is_comment);
        comment.and_then(|(at, _)| line.get(..at)).unwrap_or(line)
    });
    code.collect::<Vec<_>>().join("\n")
}

/// The patterns in a statement, each with the value that it is given: `qr(^x) => 0`,
/// `{qr(^x)} = 1`, `'^x' => 0`.
fn patterns(statement: &str) -> impl Iterator<Item = (Regex, Option<bool>)> {
    let mut rest = statement;
    std::iter::from_fn(move || {
        loop {
            let start = rest.find(['q', '\'', '"'])?;
            let after = rest.get(start..)?;
            let body = after.trim_start_matches("qr").trim_start_matches('q');
            let Some((pattern, behind)) = quoted(body) else {
                rest = after.get(1..)?;
                continue;
            };
            rest = behind;
            let value = behind.trim_start_matches(|c: char| c.is_whitespace() || c == '}');
            let value = value.strip_prefix("=>").or_else(|| value.strip_prefix('='));
            let value = value.and_then(|value| match value.trim_start().get(..1)? {
                "0" => Some(false),
                "1" => Some(true),
                _ => None,
            });
            // What this engine cannot read, such as a look-ahead, is skipped.
            let is_usual = (1..=LONGEST).contains(&pattern.len());
            if let (Ok(pattern), true) = (Regex::new(pattern), is_usual) {
                return Some((pattern, value));
            }
        }
    })
}

/// The text between delimiters, and what is behind them. Brackets may be nested.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let open = text.chars().next()?;
    let close = match open {
        '(' => ')',
        '{' => '}',
        '[' => ']',
        '<' => '>',
        '\'' | '"' | '/' | '|' | '!' | ',' | '#' => open,
        _ => return None,
    };
    let body = text.get(1..)?;
    let (mut depth, mut is_escaped) = (0_usize, false);
    for (at, c) in body.char_indices() {
        if is_escaped {
            is_escaped = false;
        } else if c == '\\' {
            is_escaped = true;
        } else if c == close && depth == 0 {
            return Some((body.get(..at)?, body.get(at + c.len_utf8()..)?));
        } else if c == close {
            depth -= 1;
        } else if c == open {
            depth += 1;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Rules {
        let mut rules = Rules::default();
        rules.add(text);
        rules
    }

    #[test]
    fn the_usual_forms_are_understood() {
        let rules = rules(
            "# Restart mode: (l)ist only, (i)nteractive or (a)utomatically.\n\
             $nrconf{restart} = 'l';\n\
             $nrconf{blacklist_rc} = [\n    qr(^busy), # a comment; with a semicolon\n];\n\
             $nrconf{override_rc} = {\n\
             \x20   # DBus\n    qr(^dbus) => 0,\n\
             \x20   qr(^(lightdm|gdm3)\\.service$) => 0,\n    qr(^getty@.+\\.service$) => 0,\n\
             \x20   qr/^yes/ => 1,\n    '^quoted' => 0,\n};\n\
             $nrconf{override_rc}{qr(^own\\.service$)} = 0;\n\
             $nrconf{override_rc}->{q(arrow)} = 0;\n\
             push @{$nrconf{blacklist_rc}}, qr{^pushed};\n",
        );
        for unit in [
            "busy.service",
            "dbus.service",
            "gdm3.service",
            "getty@tty1.service",
            "quoted.service",
            "own.service",
            "arrow.service",
            "pushed.service",
        ] {
            assert!(rules.exclude(unit), "{unit}");
        }
        for unit in ["web.service", "yes.service", "owner.service", "x-dbus.service"] {
            assert!(!rules.exclude(unit), "{unit}");
        }
    }

    #[test]
    fn a_list_that_is_assigned_again_replaces_the_first() {
        let rules = rules(
            "$nrconf{override_rc} = { qr(^a) => 0 };\n$nrconf{override_rc} = { qr(^b) => 0 };\n",
        );
        assert!(!rules.exclude("a.service") && rules.exclude("b.service"));
    }

    #[test]
    fn what_is_not_understood_is_skipped() {
        for text in [
            "$nrconf{override_rc} = { qr((?!x)y) => 0, qr(^web) => 0",
            "$nrconf{override_rc} = { qr(^web) => 0, qr(open => 0 }",
            "$nrconf{override_rc} = { qr() , qr(^web) => 0, q",
            "\u{e9}q\u{e9}; $nrconf{override_rc} = { qr(^web) => 0 }; $nrconf{override_rc",
        ] {
            let rules = rules(text);
            assert!(rules.exclude("web.service"), "{text}");
            assert!(!rules.exclude("other.service"), "{text}");
        }
    }
}
