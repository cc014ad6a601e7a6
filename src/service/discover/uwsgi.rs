//! Finds the venv that a uWSGI process is configured to use.
//!
//! Debian's uWSGI runs apps from venvs that appear nowhere in `/proc`: the venv is named in the
//! settings file that its command line names, for a vassal by a relative name.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::process::{Process, Processes};
use crate::host::root::normal;
use crate::host::{Root, file};

/// uWSGI's names for the same option.
const VENV: [&str; 5] = ["virtualenv", "venv", "home", "pyhome", "H"];

/// Options that set a variable: `set-placeholder = name=value`.
const PLACEHOLDER: [&str; 3] = ["set-placeholder", "set-ph", "set"];

/// One-letter options that may be followed by a value without a blank.
const LETTERS: &[u8] = b"Hxyj";

/// No settings file is larger, and no process has more of them.
const LIMIT: u64 = 1 << 20;
const FILES: usize = 16;

/// How deep one file may include another.
const DEPTH: usize = 4;

/// No process has more venvs, and no path is longer.
const VENVS: usize = 64;
const LONGEST: usize = 4096;
const LONGEST_KEY: usize = 256;

/// How often a variable may refer to another one.
const EXPANSIONS: usize = 8;

/// How many words one `for` may have, and how many options of one process are read.
const TIMES: usize = 64;
const OPTIONS: usize = 20_000;

/// The venvs that a process is configured to use, by its command line or its settings files.
pub(crate) fn venvs(root: &Root, process: &Process, processes: &Processes) -> Vec<PathBuf> {
    let options = options(process);
    let mut venvs: Vec<PathBuf> = options
        .iter()
        .filter(|(name, _)| VENV.contains(name))
        .flat_map(|(_, value)| absolute(Path::new(value), &process.dirs))
        .collect();
    let mut reader = Reader {
        root: Some(root),
        dirs: dirs(process, processes),
        variables: HashMap::new(),
        named: Vec::new(),
        files: FILES,
        options: OPTIONS,
    };
    for (name, value) in options.iter().filter_map(|(name, value)| Some((*name, value.to_str()?))) {
        if PLACEHOLDER.contains(&name) {
            reader.set(value);
        }
    }
    for (name, value) in options {
        if let Some(format) = Format::of_option(name, Path::new(value)) {
            reader.read(format, value, DEPTH);
        }
    }
    venvs.extend(reader.named.iter().flat_map(|value| absolute(value, &process.dirs)));
    // `--ini x.ini` is found as an option and as a file.
    venvs.sort_unstable();
    venvs.dedup();
    venvs
}

/// The format of a settings file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Ini,
    Yaml,
    Xml,
    Json,
}

impl Format {
    /// The format of the file that an option names, if it names one.
    fn of_option(name: &str, file: &Path) -> Option<Self> {
        match name {
            "ini" => Some(Self::Ini),
            "yaml" | "yml" | "y" => Some(Self::Yaml),
            "xml" | "x" => Some(Self::Xml),
            "json" | "js" | "j" => Some(Self::Json),
            "include" | "inherit" => Self::of_name(file.as_os_str()),
            _ => None,
        }
    }

    /// The format of a file, by its name.
    fn of_name(name: &OsStr) -> Option<Self> {
        let name = Path::new(OsStr::from_bytes(without_section(name)));
        match name.extension()?.to_str()? {
            "ini" => Some(Self::Ini),
            "yaml" | "yml" => Some(Self::Yaml),
            "xml" => Some(Self::Xml),
            "json" | "js" => Some(Self::Json),
            _ => None,
        }
    }

    fn option(self) -> &'static str {
        match self {
            Self::Ini => "ini",
            Self::Yaml => "yaml",
            Self::Xml => "xml",
            Self::Json => "json",
        }
    }

    /// The settings in a text, in order.
    fn settings(self, text: &str) -> Vec<(String, String)> {
        match self {
            Self::Ini => in_lines(text, '=', &['#', ';', '[']),
            Self::Yaml => in_lines(text, ':', &['#']),
            Self::Xml => in_xml(text),
            Self::Json => in_json(text),
        }
    }
}

/// Strips the section of `app.ini:section`.
fn without_section(name: &OsStr) -> &[u8] {
    name.as_bytes().split(|byte| *byte == b':').next().unwrap_or_default()
}

/// Settings one per line: an ini file, and the part of YAML that uWSGI itself reads.
fn in_lines(text: &str, border: char, not: &[char]) -> Vec<(String, String)> {
    let is_yaml = border == ':';
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(not));
    lines
        .filter_map(|line| line.split_once(border))
        .map(|(key, value)| {
            let (mut key, mut value) = (key.trim(), value.trim());
            if is_yaml {
                key = key.trim_start_matches("- ").trim();
                value = value.split(" #").next().unwrap_or(value).trim();
                let quoted = |quote| value.strip_prefix(quote)?.strip_suffix(quote);
                value = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
            }
            (key.to_string(), value.to_string())
        })
        .collect()
}

/// `<uwsgi><virtualenv>/opt/v</virtualenv></uwsgi>`, anywhere in a document.
fn in_xml(text: &str) -> Vec<(String, String)> {
    let Ok(document) = roxmltree::Document::parse(text) else { return Vec::new() };
    let groups = document.descendants().filter(|node| node.has_tag_name("uwsgi"));
    groups
        .flat_map(|group| group.children().filter(roxmltree::Node::is_element))
        .map(|node| {
            let value = node.text().unwrap_or_default().trim();
            (node.tag_name().name().to_string(), value.to_string())
        })
        .collect()
}

/// `{"uwsgi": {"virtualenv": "/opt/v"}}`; an option may have several values.
fn in_json(text: &str) -> Vec<(String, String)> {
    use serde_json::Value;
    let Ok(Value::Object(groups)) = serde_json::from_str(text) else { return Vec::new() };
    let options = groups.into_iter().filter_map(|(_, group)| match group {
        Value::Object(options) => Some(options),
        _ => None,
    });
    let mut settings = Vec::new();
    for (key, value) in options.flatten().filter(|(key, _)| key.len() <= LONGEST_KEY) {
        let values = if let Value::Array(values) = value { values } else { vec![value] };
        settings.extend(values.into_iter().take(TIMES).filter_map(|value| match value {
            Value::String(text) => Some((key.clone(), text)),
            _ => None,
        }));
    }
    // uWSGI reads them in order, which a map does not keep: options that name a venv come last.
    settings.sort_by_key(|(key, _)| VENV.contains(&key.as_str()));
    settings
}

/// Reads the settings files of one process, one after the other.
struct Reader<'a> {
    /// `None` if only a text is read.
    root: Option<&'a Root>,
    /// The directories that a relative name may be relative to.
    dirs: Vec<PathBuf>,
    variables: HashMap<String, String>,
    named: Vec<PathBuf>,
    /// How many more files and options are read.
    files: usize,
    options: usize,
}

impl Reader<'_> {
    /// Reads a file, and those that it includes.
    fn read(&mut self, format: Format, name: &OsStr, depth: usize) {
        let Some(root) = self.root else { return };
        let name = if format == Format::Ini { without_section(name) } else { name.as_bytes() };
        for path in absolute(Path::new(OsStr::from_bytes(name)), &self.dirs) {
            if self.files == 0 || depth == 0 {
                return;
            }
            if let Some(text) = text(root, &path) {
                self.files -= 1;
                return self.take(format, &text, &path, depth);
            }
        }
    }

    fn take(&mut self, format: Format, text: &str, path: &Path, depth: usize) {
        // The settings between `for` and `endfor` apply to each word, `%(_)`.
        let mut words: Vec<Option<String>> = vec![None];
        for (key, value) in format.settings(text) {
            if self.options == 0 {
                return;
            }
            match key.as_str() {
                "for" => {
                    let all = self.expand(&value, path);
                    words =
                        all.split_whitespace().take(TIMES).map(|one| Some(one.into())).collect();
                }
                "endfor" => words = vec![None],
                _ => {
                    for word in &words {
                        if let Some(word) = word {
                            self.variables.insert("_".to_string(), word.clone());
                        }
                        self.option(&key, &value, path, depth);
                    }
                }
            }
        }
    }

    fn option(&mut self, key: &str, value: &str, path: &Path, depth: usize) {
        let Some(left) = self.options.checked_sub(1) else { return };
        self.options = left;
        if VENV.contains(&key) && self.named.len() < VENVS {
            let venv = self.expand(value, path);
            self.named.push(venv.into());
        }
        if PLACEHOLDER.contains(&key) {
            self.set(value);
        }
        if matches!(key, "include" | "inherit") || Format::of_option(key, Path::new("")).is_some() {
            let file = self.expand(value, path);
            if let Some(format) = Format::of_option(key, Path::new(&file)) {
                self.read(format, OsStr::new(&file), depth.saturating_sub(1));
            }
        }
        // An option's name is also a variable.
        self.variables.insert(key.to_string(), value.to_string());
    }

    /// Sets a variable by `name=value`.
    fn set(&mut self, text: &str) {
        if let Some((name, value)) = text.split_once('=') {
            self.variables.insert(name.trim().to_string(), value.trim().to_string());
        }
    }

    /// Replaces `%(name)` by the variable, `%d` by the file's directory, `%n` by its name without
    /// the extension, `%s` by its name with it, and `%p` by its path.
    fn expand(&self, value: &str, path: &Path) -> String {
        if value.len() > LONGEST {
            return String::new();
        }
        let mut text = value.to_string();
        for _ in 0..EXPANSIONS {
            let Some((front, (name, back))) = text
                .split_once("%(")
                .and_then(|(front, rest)| Some((front, rest.split_once(')')?)))
            else {
                break;
            };
            let value = self.variables.get(name).map(String::as_str).unwrap_or_default();
            // Variables that refer to themselves would grow for ever.
            if text.len() + value.len() > LONGEST {
                return String::new();
            }
            text = format!("{front}{value}{back}");
        }
        let dir = path.parent().unwrap_or(Path::new("/")).to_string_lossy();
        let name = |name: Option<&OsStr>| name.unwrap_or_default().to_string_lossy().into_owned();
        for (sign, value) in [
            ("%d", format!("{dir}/")),
            ("%n", name(path.file_stem())),
            ("%s", name(path.file_name())),
            ("%p", path.to_string_lossy().into_owned()),
        ] {
            if text.len() > LONGEST {
                return String::new();
            }
            text = text.replace(sign, &value);
        }
        if text.len() > LONGEST { String::new() } else { text }
    }
}

/// The options of a command line, with their values: `--ini x`, `--ini=x`, `-H x`, `-Hx`, `x.ini`.
fn options(process: &Process) -> Vec<(&str, &OsStr)> {
    let mut options = Vec::new();
    let mut arguments = process.arguments.iter().skip(1).peekable();
    while let Some(argument) = arguments.next() {
        let bytes = argument.as_bytes();
        if !bytes.starts_with(b"-") {
            let format = Format::of_name(argument);
            options.extend(format.map(|format| (format.option(), argument.as_os_str())));
        }
        if let [b'-', letter, value @ ..] = bytes {
            let letters = LETTERS.iter().position(|known| known == letter);
            // Each is ASCII.
            let name = letters.and_then(|at| std::str::from_utf8(LETTERS.get(at..=at)?).ok());
            if let Some(name) = name.filter(|_| !value.is_empty() && !value.starts_with(b"=")) {
                options.push((name, OsStr::from_bytes(value)));
                continue;
            }
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

/// The directories that may contain a relative ini file. A vassal's file is named as its emperor
/// found it, but the vassal has changed to its app's directory since.
fn dirs(process: &Process, processes: &Processes) -> Vec<PathBuf> {
    let mut dirs = process.dirs.clone();
    for ancestor in processes.lineage(process).skip(1).filter(|ancestor| ancestor.runs_python()) {
        let emperor = options(ancestor).into_iter().find(|(name, _)| *name == "emperor");
        dirs.extend(emperor.map(|(_, dir)| PathBuf::from(dir)));
        dirs.extend_from_slice(&ancestor.dirs);
    }
    dirs
}

fn absolute(path: &Path, dirs: &[PathBuf]) -> Vec<PathBuf> {
    if path.is_absolute() {
        return vec![normal(path)];
    }
    dirs.iter().filter(|f| f.is_absolute()).map(|dir| normal(&dir.join(path))).collect()
}

fn text(root: &Root, path: &Path) -> Option<String> {
    // Debian's `apps-enabled` contains links.
    let real = root.follow(path).ok()?.pop()?;
    let bytes = file::read_untrusted(&root.at(real), LIMIT).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The venvs that a text names in any format, for the tests of hostile texts.
#[cfg(test)]
pub(crate) fn in_text(text: &str, path: &Path) -> Vec<PathBuf> {
    let mut reader = Reader {
        root: None,
        dirs: Vec::new(),
        variables: HashMap::new(),
        named: Vec::new(),
        files: 0,
        options: OPTIONS,
    };
    if let Some(format) = Format::of_name(path.as_os_str()) {
        reader.take(format, text, path, DEPTH);
    }
    reader.named
}

#[cfg(test)]
mod tests;
