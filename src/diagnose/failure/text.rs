//! Reads the text of a Python failure: tracebacks, fatal errors, what loaders and service managers
//! write. Anybody may have written the text: what is read of it is bounded.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

/// How much of a text is read: its end, where the last failure is.
pub(crate) const TEXT_LIMIT: usize = 1 << 20;

/// A longer line is cut. gevent's warning names all importers in one line.
const LINE_LIMIT: usize = 8 << 10;
const LINES_LIMIT: usize = 20_000;

/// A log may repeat the same failure for days: the latest ones are kept.
const ERRORS_LIMIT: usize = 64;

/// Python itself stops at a depth of 1000, and abbreviates what repeats itself.
const FRAMES_LIMIT: usize = 1200;

const IMPORTERS_LIMIT: usize = 64;

/// Each is inspected.
const VENVS_LIMIT: usize = 16;

/// What a text says about failures of Python.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Failure {
    /// Every line without the prefix of a journal.
    pub(super) lines: Vec<String>,
    /// In the order of the text.
    pub(super) errors: Vec<PythonError>,
    /// The modules that gevent could not patch any more.
    pub(super) importers: Vec<Importer>,
}

/// An exception and the frames that it passed, the innermost last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PythonError {
    /// `ModuleNotFoundError`, `redis.exceptions.ConnectionError`.
    pub(super) kind: String,
    pub(super) message: String,
    pub(super) frames: Vec<Frame>,
}

/// One `File "…", line N, in …` of a traceback.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) file: PathBuf,
    pub(super) line: u32,
    pub(super) function: String,
    /// The source line, if the traceback shows it.
    pub(super) code: String,
}

/// A module that imported one that gevent patched too late.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Importer {
    pub(super) module: String,
    pub(super) file: Option<PathBuf>,
}

impl PythonError {
    pub(super) fn innermost(&self) -> Option<&Frame> {
        self.frames.last()
    }

    /// The last part of the exception's name.
    pub(super) fn name(&self) -> &str {
        self.kind.rsplit('.').next().unwrap_or_default()
    }

    /// The module that was not found, if that is the error.
    pub(super) fn missing_module(&self) -> Option<&str> {
        if !matches!(self.name(), "ModuleNotFoundError" | "ImportError") {
            return None;
        }
        let name = self.message.strip_prefix("No module named ")?;
        // Python 2 and 3.
        let name = name.split(['\'', '"', ';', ' ']).find(|part| !part.is_empty())?;
        Some(name)
    }

    /// The name that a module does not have, and the module's file if the message says so.
    pub(super) fn missing_name(&self) -> Option<(&str, Option<&Path>)> {
        let rest = self.message.strip_prefix("cannot import name ")?;
        let name = rest.split(['\'', ' ']).find(|part| !part.is_empty())?;
        let file = rest.rsplit_once('(').and_then(|(_, file)| file.strip_suffix(')'));
        Some((name, file.map(Path::new).filter(|file| file.is_absolute())))
    }

    /// As Python writes it, in one line.
    pub(super) fn in_words(&self) -> String {
        if self.message.is_empty() {
            self.kind.clone()
        } else {
            format!("{}: {}", self.kind, self.message)
        }
    }
}

impl Failure {
    /// Reads a text of any bytes.
    pub(super) fn read(bytes: &[u8]) -> Self {
        let end = bytes.get(bytes.len().saturating_sub(TEXT_LIMIT)..).unwrap_or_default();
        let text = String::from_utf8_lossy(end);
        let mut reader = Reader::default();
        for line in text.lines().take(LINES_LIMIT) {
            reader.line(without_prefix(within(line)));
        }
        reader.failure.errors = reader.errors.into();
        reader.failure
    }

    /// The directories that the text uses like venvs, in the order of the text.
    pub(super) fn venvs(&self) -> Vec<PathBuf> {
        let mut venvs = Vec::new();
        for venv in self.lines.iter().flat_map(|line| venvs_in(line)) {
            if venvs.len() < VENVS_LIMIT && !venvs.contains(&venv) {
                venvs.push(venv);
            }
        }
        venvs
    }
}

/// The directories that a line uses like venvs.
pub(super) fn venvs_in(line: &str) -> Vec<PathBuf> {
    let ends = |c: char| c.is_whitespace() || "\"'`‘’(),:;=!".contains(c);
    let paths = line.split(ends).filter(|part| part.starts_with('/'));
    paths.filter_map(|path| venv_of(Path::new(path))).collect()
}

/// The directory that a path would belong to as a venv: `/srv/app/venv` of
/// `/srv/app/venv/bin/python`. The system's own directories are none.
pub(super) fn venv_of(path: &Path) -> Option<PathBuf> {
    let names: Vec<&str> = path.iter().map(|name| name.to_str().unwrap_or_default()).collect();
    let is_library = |at: &usize| {
        matches!(names.get(*at), Some(&("lib" | "lib64")))
            && names.get(at + 1).is_some_and(|name| name.starts_with("python"))
            && names.get(at + 2) == Some(&"site-packages")
    };
    let is_program = |at: &usize| names.get(*at) == Some(&"bin") && names.len() == at + 2;
    let at = (1..names.len()).find(|at| is_library(at) || is_program(at))?;
    let venv: PathBuf = path.iter().take(at).collect();
    let is_plain = !names.contains(&"..") && venv.is_absolute();
    (is_plain && at > 1 && !venv.starts_with("/usr")).then_some(venv)
}

#[derive(Default)]
struct Reader {
    failure: Failure,
    errors: VecDeque<PythonError>,
    /// The frames since the last exception.
    frames: Vec<Frame>,
}

impl Reader {
    fn line(&mut self, line: &str) {
        // The frames of an exception group are behind a bar.
        let inner = line.trim_start_matches([' ', '|', '+']);
        let is_indented = inner.len() < line.len();
        if let Some(importers) = importers(line) {
            self.failure.importers = importers;
        } else if inner.contains("raceback (most recent call last):") {
            self.frames.clear();
        } else if let Some(frame) = frame(inner) {
            if self.frames.len() < FRAMES_LIMIT {
                self.frames.push(frame);
            }
        } else if is_indented && line.starts_with(' ') && !line.contains('|') {
            if let Some(frame) = self.frames.last_mut().filter(|frame| frame.code.is_empty()) {
                frame.code = inner.to_string();
            }
        } else if let Some(error) = exception(inner, !self.frames.is_empty()) {
            let frames = std::mem::take(&mut self.frames);
            if self.errors.len() == ERRORS_LIMIT {
                self.errors.pop_front();
            }
            self.errors.push_back(PythonError { frames, ..error });
        }
        self.failure.lines.push(line.to_string());
    }
}

/// The beginning of a line.
fn within(line: &str) -> &str {
    let mut end = line.len().min(LINE_LIMIT);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.get(..end).unwrap_or_default()
}

/// The line as a program wrote it: a journal precedes it by the date, the host and `NAME[PID]: `.
fn without_prefix(line: &str) -> &str {
    let head = line.get(..line.len().min(160)).unwrap_or(line);
    let Some((prefix, _)) = head.split_once("]: ") else { return line };
    let Some((words, pid)) = prefix.rsplit_once('[') else { return line };
    let is_pid = !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
    // "Nov 29 19:48:03 host name", or "2026-11-29T19:48:03+0000 host name".
    let is_dated = words.split_whitespace().take(3).any(|word| word.matches(':').count() >= 2);
    if !is_pid || !is_dated {
        return line;
    }
    line.get(prefix.len() + "]: ".len()..).unwrap_or(line)
}

/// `File "PATH", line 3, in <module>`; without the comma in a fatal error.
fn frame(line: &str) -> Option<Frame> {
    let (file, rest) = line.strip_prefix("File \"")?.split_once('"')?;
    let rest = rest.strip_prefix(", line ")?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (number, rest) = rest.split_at(end);
    let function = rest.trim_start_matches(',').trim_start().strip_prefix("in ");
    Some(Frame {
        file: file.into(),
        line: number.parse().unwrap_or(0),
        function: function.unwrap_or_default().to_string(),
        code: String::new(),
    })
}

/// `kind: message`, or a kind alone. Without frames before it, only what is named like an error is
/// one.
fn exception(line: &str, has_frames: bool) -> Option<PythonError> {
    let (kind, message) = match line.split_once(": ") {
        Some((kind, message)) => (kind, message),
        None => (line.strip_suffix(':').unwrap_or(line), ""),
    };
    let is_part = |part: &str| {
        part.chars().next().is_some_and(|c| c.is_alphabetic() || "_<".contains(c))
            && part.chars().all(|c| c.is_alphanumeric() || "_<>".contains(c))
    };
    let is_error = ["Error", "Exception", "Exit", "Interrupt", "Group"]
        .iter()
        .any(|end| kind.ends_with(end) && kind.len() > end.len());
    // A line of another program may follow the frames of a fatal error.
    let is_class = kind.contains('.') || kind.starts_with(|c: char| c.is_uppercase() || c == '_');
    let is_exception = is_error || (has_frames && is_class && kind.len() < 200);
    if !kind.split('.').all(is_part) || !is_exception {
        return None;
    }
    Some(PythonError { kind: kind.into(), message: message.trim().into(), frames: Vec::new() })
}

/// The importers that gevent's warning names: `['urllib3.util (/…/__init__.py)', …]`.
fn importers(line: &str) -> Option<Vec<Importer>> {
    let (_, rest) = line.split_once("MonkeyPatchWarning: Monkey-patching ssl after")?;
    let list = rest.split_once("(NOT patched): [").map_or("", |(_, list)| list);
    let list = list.split(']').next().unwrap_or_default();
    let quoted = list.split('\'').skip(1).step_by(2).take(IMPORTERS_LIMIT);
    let importer = |text: &str| {
        let (module, file) = text.split_once(" (").unwrap_or((text, ""));
        let file = file.strip_suffix(')').filter(|file| file.starts_with('/'));
        Importer { module: module.to_string(), file: file.map(PathBuf::from) }
    };
    Some(quoted.map(importer).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> Vec<(String, usize)> {
        let found = Failure::read(text.as_bytes()).errors.into_iter();
        found.map(|error| (error.in_words(), error.frames.len())).collect()
    }

    #[test]
    fn chained_exceptions_are_read_each_with_its_own_frames() {
        let text = "Traceback (most recent call last):\n  File \"/a.py\", line 1, in <module>\n    {}[\"a\"]\n    ~~^^^^^\n\
                    KeyError: 'a'\n\nThe above exception was the direct cause of the following exception:\n\n\
                    Traceback (most recent call last):\n  File \"/a.py\", line 2, in <module>\n    raise ValueError\n\
                    \x20 [Previous line repeated 9 more times]\nValueError\n";
        assert_eq!(errors(text), [("KeyError: 'a'".to_string(), 1), ("ValueError".to_string(), 1)]);
        let frame = &Failure::read(text.as_bytes()).errors[0].frames[0];
        assert_eq!((frame.line, frame.code.as_str()), (1, "{}[\"a\"]"));
    }

    #[test]
    fn the_prefix_of_a_journal_is_removed() {
        for prefix in
            ["Nov 29 19:48:03 web gunicorn[812]: ", "2026-11-29T19:48:03+0000 web sh[1]: "]
        {
            let text = format!(
                "{prefix}Traceback (most recent call last):\n{prefix}  File \"/a.py\", line 1, in f\n\
                 {prefix}    x\n{prefix}KeyError: 'a'\n"
            );
            assert_eq!(errors(&text), [("KeyError: 'a'".to_string(), 1)], "{prefix}");
        }
        let own = "[2026-11-29 19:55:43 +0000] [1926] [INFO] KeyError: x";
        assert_eq!(without_prefix(own), own);
    }

    #[test]
    fn an_exception_without_a_traceback_is_read_by_its_name() {
        assert_eq!(errors("ImportError: cannot import name 'x'\nERROR: y\nnote: z\n").len(), 1);
        assert_eq!(errors("Reason: Worker failed to boot.\nError: x\n"), []);
    }

    #[test]
    fn missing_modules_and_names_are_read_as_every_python_writes_them() {
        let read = |text: &str| Failure::read(text.as_bytes()).errors.remove(0);
        for text in [
            "ImportError: No module named a.b",
            "ModuleNotFoundError: No module named 'a.b'",
            "ModuleNotFoundError: No module named 'a.b'; 'a' is not a package",
        ] {
            assert_eq!(read(text).missing_module(), Some("a.b"), "{text}");
        }
        let name = |text: &str| {
            let error = read(text);
            error.missing_name().map(|(name, file)| (name.to_string(), file.map(Path::to_path_buf)))
        };
        assert_eq!(name("ImportError: cannot import name x"), Some(("x".into(), None)));
        assert_eq!(
            name("ImportError: cannot import name 'x' from 'm' (/usr/lib/python3.11/m.py)"),
            Some(("x".into(), Some("/usr/lib/python3.11/m.py".into())))
        );
        let unknown = name("ImportError: cannot import name 'x' from '_m' (unknown location)");
        assert_eq!(unknown, Some(("x".into(), None)));
    }

    #[test]
    fn the_importers_in_a_warning_are_read() {
        let text = "x.py:1: MonkeyPatchWarning: Monkey-patching ssl after ssl has already been imported may. \
                    Modules that had direct imports (NOT patched): ['a.b (/v/a.py)', 'c']. ";
        let importers = Failure::read(text.as_bytes()).importers;
        let names: Vec<&str> = importers.iter().map(|one| one.module.as_str()).collect();
        assert_eq!(names, ["a.b", "c"]);
        assert_eq!(importers[0].file.as_deref(), Some(Path::new("/v/a.py")));
    }
}
