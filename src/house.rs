//! Tests which module may import which. The table in `lib.rs` says what each module is for; these
//! tests read the imports from the sources, without the code for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The floors, from the top. A module imports from lower floors only, so that there is no cycle.
const FLOORS: &[&[&str]] = &[
    &["cli"],
    &["guard"],
    &["diagnose"],
    &["inventory", "rehearse"],
    &["repair"],
    &["report", "monitor"],
    &["store"],
    &["plan", "owner"],
    &["service"],
    &["apt"],
    &["venv"],
    &["python"],
    &["host"],
];

/// Modules that may not import another one although it is on a lower floor: the importer, the
/// closed module, and the paths in it that are allowed nevertheless.
const CLOSED: &[(&str, &str, &[&str])] = &[
    // `plan` decides and has no effects: it uses only the types that it stores.
    ("plan", "host", &["host::path_text", "host::tree::Identity"]),
    (
        "report",
        "host",
        &[
            "host::path_text",
            "host::file::printable",
            "host::file::printable_within",
            "host::redacted",
            // How long a step takes is shown, and decides nothing.
            "host::clock::Stopwatch",
        ],
    ),
    ("monitor", "host", &["host::file::printable_within"]),
    // The commands ask `guard`, and print.
    ("cli", "host", &["host::Root", "host::file::printable", "host::redacted"]),
    ("cli", "repair", &[]),
    ("cli", "owner", &[]),
    ("cli", "venv", &[]),
    // The findings about the machine are for one command; the causes of failures are for venvs.
    ("guard", "diagnose", &["diagnose::failure"]),
];

/// The only module that parses arguments.
const PARSES_ARGUMENTS: &str = "cli";

/// Exceptions: the importing module, what it imports, and why. In each of them `cli` is where the
/// process starts, before there is a guard to ask.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("cli", "host::confine", "`confine` is a separate program: it becomes another user's process"),
    ("cli", "host::file::usual_umask", "the process sets its umask before it does anything"),
    ("cli", "owner", "`own` is a separate program: it does one task as a tree's owner"),
    ("cli::faults", "host::fault", "it arms the faults that a build for tests is started with"),
];

/// Known cycles: files within one top-level module that import each other.
const CIRCLES: &[&[&str]] = &[];

/// A module and the absolute paths that it names: `host::file::printable`, `clap::Args`.
struct Source {
    module: String,
    imports: BTreeSet<String>,
}

#[test]
fn a_module_imports_from_lower_floors_only() {
    let sources = sources();
    let floor = |module: &str| FLOORS.iter().position(|floor| floor.contains(&module));
    let houses: BTreeSet<&str> = sources.iter().map(|one| top(&one.module)).collect();
    let known: BTreeSet<&str> = FLOORS.iter().flat_map(|floor| floor.iter().copied()).collect();
    assert_eq!(houses, known, "each module has a floor");
    let mut violations = BTreeSet::new();
    for Source { module, imports } in &sources {
        for import in imports.iter().filter(|import| known.contains(top(import))) {
            if top(import) != top(module) && floor(top(import)) <= floor(top(module)) {
                violations.insert(format!("{module} imports {import}, which is not below it"));
            }
        }
    }
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn only_known_exceptions_import_from_a_closed_module() {
    let (mut violations, mut used) = (BTreeSet::new(), BTreeSet::new());
    for Source { module, imports } in &sources() {
        for import in imports {
            let is_closed = CLOSED.iter().any(|(from, to, open)| {
                let is_meant = *from == top(module) && *to == top(import);
                is_meant && !open.iter().any(|one| within(import, one))
            });
            let parses = top(import) == "clap" && top(module) != PARSES_ARGUMENTS;
            let exception =
                EXCEPTIONS.iter().position(|(from, to, _)| from == module && within(import, to));
            match exception {
                _ if !is_closed && !parses => {}
                Some(index) => drop(used.insert(index)),
                None => drop(violations.insert(format!("{module} imports {import}"))),
            }
        }
    }
    assert!(violations.is_empty(), "{violations:#?}");
    let unused: Vec<_> = (0..EXCEPTIONS.len()).filter(|index| !used.contains(index)).collect();
    let unused: Vec<_> = unused.into_iter().map(|index| EXCEPTIONS[index]).collect();
    assert!(unused.is_empty(), "unused exceptions, remove them: {unused:#?}");
}

#[test]
fn files_import_each_other_only_in_known_cycles() {
    let sources = sources();
    let modules: BTreeSet<&str> = sources.iter().map(|one| one.module.as_str()).collect();
    let mut named: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for Source { module, imports } in &sources {
        let others = imports.iter().filter_map(|import| longest(&modules, import));
        // A module and its submodules count as one: it re-exports what they define.
        let others = others.filter(|other| !within(other, module) && !within(module, other));
        named.insert(module, others.collect());
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        modules.iter().map(|module| (*module, reached_from(module, &named))).collect();
    let circles: BTreeSet<Vec<&str>> = modules
        .iter()
        .filter(|module| reached[*module].contains(*module))
        .map(|module| {
            reached[module].iter().copied().filter(|one| reached[one].contains(module)).collect()
        })
        .collect();
    let known: BTreeSet<Vec<&str>> = CIRCLES.iter().map(|circle| circle.to_vec()).collect();
    assert_eq!(circles, known, "left: cycles found; right: cycles known");
}

/// All modules that a module imports, directly or through others.
fn reached_from<'a>(
    module: &str,
    named: &BTreeMap<&'a str, BTreeSet<&'a str>>,
) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut waiting: Vec<&str> = named[module].iter().copied().collect();
    while let Some(next) = waiting.pop() {
        if reached.insert(next) {
            waiting.extend(&named[next]);
        }
    }
    reached
}

fn top(path: &str) -> &str {
    path.split("::").next().unwrap_or(path)
}

/// Whether a path equals another one or lies below it.
fn within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The module that a path leads into.
fn longest<'a>(modules: &BTreeSet<&'a str>, path: &str) -> Option<&'a str> {
    modules.iter().copied().filter(|module| within(path, module)).max_by_key(|module| module.len())
}

fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let text = std::fs::read_to_string(root.join("lib.rs")).unwrap();
    add_declared(&root, "", &without_tests(&text), &mut sources);
    sources
}

/// Adds the modules that a file declares, and their submodules. `text` no longer contains the
/// declarations of test modules.
fn add_declared(dir: &Path, outer: &str, text: &str, sources: &mut Vec<Source>) {
    let names = text.lines().filter_map(|line| {
        let line = line.strip_suffix(';')?;
        let line = line.strip_prefix("pub ").unwrap_or(line);
        line.strip_prefix("pub(crate) ").unwrap_or(line).strip_prefix("mod ")
    });
    for name in names {
        let below = dir.join(name);
        let files = [below.join("mod.rs"), below.with_extension("rs")];
        let text = files.iter().find_map(|file| std::fs::read_to_string(file).ok()).unwrap();
        let text = without_tests(&text);
        let module = if outer.is_empty() { name.to_string() } else { format!("{outer}::{name}") };
        add_declared(&below, &module, &text, sources);
        sources.push(Source { imports: imports(&module, &text), module });
    }
}

/// A file without its comments and without the code that is compiled for tests only. rustfmt ends
/// an item at the indentation at which it begins.
fn without_tests(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let code = line.trim_start();
        if code == "#[cfg(test)]" {
            let indent = &line[..line.len() - code.len()];
            let ends = |line: &str| {
                let rest = line.strip_prefix(indent).unwrap_or_default();
                rest.starts_with('}') || (rest.ends_with(';') && !rest.starts_with([' ', '#']))
            };
            lines.by_ref().find(|line| ends(line));
        } else if !code.starts_with("//") {
            kept.extend([line, "\n"]);
        }
    }
    kept
}

/// The absolute paths that a module imports by `crate::`, by `super::`, or from the crate `clap`.
fn imports(module: &str, text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (start, root) in
        ["crate::", "super::", "clap::"].iter().flat_map(|root| text.match_indices(root))
    {
        let before = &text[..start];
        if before.ends_with(|c: char| c.is_alphanumeric() || "_:".contains(c)) {
            continue;
        }
        let (mut outer, mut rest) = (module, &text[start + root.len()..]);
        match root {
            "super::" => loop {
                outer = outer.rsplit_once("::").map_or("", |(outer, _)| outer);
                let Some(further) = rest.strip_prefix("super::") else { break };
                rest = further;
            },
            "clap::" => outer = "clap",
            _ => outer = "",
        }
        expand(&mut rest, outer, &mut found);
    }
    found
}

/// Reads a path, or a tree of them in braces, from the front of `text`.
fn expand(text: &mut &str, outer: &str, found: &mut BTreeSet<String>) {
    if let Some(inner) = text.strip_prefix('{') {
        *text = inner;
        loop {
            *text = text.trim_start_matches([' ', '\n', ',']);
            if let Some(rest) = text.strip_prefix('}') {
                *text = rest;
                return;
            }
            let before = text.len();
            expand(text, outer, found);
            if text.len() == before {
                return;
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    *text = rest;
    let path = match (outer, name) {
        (_, "self" | "") => outer.to_string(),
        ("", _) => name.to_string(),
        _ => format!("{outer}::{name}"),
    };
    if let Some(rest) = text.strip_prefix("::") {
        *text = rest;
        return expand(text, &path, found);
    }
    if let Some(renamed) = text.strip_prefix(" as ") {
        *text = renamed.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
    }
    found.insert(path);
}

#[test]
fn every_form_of_import_is_read_but_imports_of_tests_are_not() {
    let text = "\
use crate::host::{self, Root, file::{printable as shown, ReadError}};
// use crate::comment;
use super::text::Url;
use super::super::plan;
#[cfg(test)]
mod input;
#[cfg(test)]
use crate::a_test;
#[derive(clap::Args)]
struct One;
fn two() {
    crate::repair::sweep(my_crate::x);
    #[cfg(test)]
    crate::inner::test();
}
#[cfg(test)]
#[expect(clippy::some, reason = \"x\")]
mod tests {
    use crate::tests_only;
}
fn three() -> crate::last::Type {}
";
    let found = imports("venv::lock", &without_tests(text));
    let expected = [
        "clap::Args",
        "host",
        "host::Root",
        "host::file::ReadError",
        "host::file::printable",
        "last::Type",
        "plan",
        "repair::sweep",
        "venv::text::Url",
    ];
    assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
}
