//! Properties of the readers of a user's venv. See `crate::input`.

use std::path::{Component, Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::select;

use super::configuration::Configuration;
use super::distribution::{headers, modules_in, scripts_in};
use super::record::{RecordEntry, installed_files, is_identifier, record, top_level_modules};
use super::required::requirement;
use super::text::{Name, PackageVersion, Subdirectory, Token, Url};
use super::*;
use crate::host::Root;
use crate::host::root::normal;
use crate::input::{bulky, few, is_harmless, near, near_text};

const CONFIGURATION: &[&str] = &[
    "home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.11.2\n\
     executable = /usr/bin/python3.11\ncommand = /usr/bin/python3 -m venv --prompt=x /srv/v\n",
    "home = /usr/bin\nimplementation = CPython\nvirtualenv = 20.17\nversion_info = 3.13.5.final.0\n\
     base-executable = /usr/bin/python3.13\nprompt = 'my app'\n",
];

const CONFIGURATION_WORDS: &[&str] = &[
    "home",
    "version",
    "version_info",
    "prompt",
    "executable",
    "base-executable",
    "uv",
    " = ",
    "=",
    "include-system-site-packages",
    "true",
    "/usr/bin",
    "/python3",
    "3.11",
    ".",
    "\n",
    "\r\n",
    "'",
];

const RECORD: &[&str] = &[
    "a/__init__.py,sha256=x_-,12\r\n\"c,\"\"d.py\",sha256=y,1\n../../../bin/a,,\na-1.dist-info/RECORD,,\n",
    "google/cloud/storage/__init__.py,,\n_cffi_backend.cpython-311-x86_64-linux-gnu.so,sha256=a,9\n/etc/x.py,,\n",
];

const RECORD_WORDS: &[&str] = &[
    "a",
    "b/",
    "__init__",
    ".py",
    ".so",
    ".abi3.so",
    "__pycache__/",
    ",",
    ",,",
    "\"",
    "\"\"",
    "\n",
    "../",
    "/",
    "./",
    "/etc/passwd",
    "sha256=",
    "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU",
    ",12",
];

const METADATA: &[&str] = &[
    "Metadata-Version: 2.1\nName: zope.interface\nVersion: 6.0\nSummary: x\n\nlong text\nName: no\n",
    "name:ruamel.yaml\nVERSION : no\nversion: 1\nRequires-Python: >=3.8,!=3.9.*,<3.12\n",
    "Name: redis\nRequires-Dist: Async_Timeout[a,b] (>=4.0); python_version < \"3.11\"\n",
];

const METADATA_WORDS: &[&str] = &[
    "Name",
    "Version",
    "Requires-Dist",
    "Requires-Python",
    ":",
    ": ",
    "a",
    "1.0",
    "\n",
    "\r\n",
    " ",
    "-",
    "; x",
    "Summary: y\n",
    "<3.12",
    "~=3",
];

const NOTES: &[&str] = &[
    "[console_scripts]\nflask = flask.cli:main\n\n[gui_scripts]\nidle=idle:main\n[pytest11]\nx = y\n",
    "flask\n_cffi_backend\nsix\n",
];

const NOTE_WORDS: &[&str] = &[
    "[console_scripts]",
    "[gui_scripts]",
    "[",
    "]",
    "\n",
    "=",
    " = ",
    "flask",
    "a.b:c",
    "1a",
    "_x",
];

const ORIGIN: &[&str] = &[
    r#"{"url": "https://example.org/a.git", "subdirectory": "py", "vcs_info": {"vcs": "git", "commit_id": "abc"}}"#,
    r#"{"url": "file:///srv/a%20b.whl#sha256=ab&x=y", "archive_info": {"hash": "sha256=ab", "hashes": {"sha512": "cd"}}}"#,
    r#"{"url": "file://localhost/srv/my%20app/src", "dir_info": {"editable": true}, "subdirectory": "x/y"}"#,
];

const ORIGIN_WORDS: &[&str] = &[
    "{",
    "}",
    "\"",
    ":",
    ",",
    "\"url\":",
    "\"dir_info\":",
    "\"archive_info\":{}",
    "\"vcs_info\":",
    "\"subdirectory\":",
    "\"file:///srv\"",
    "%2e%2e%2f",
    "%0a",
    "\\n",
    "\\u001b",
    "../",
    "--",
    "@",
    "#egg=",
    "git",
    "null",
    "true",
    "[",
    "]",
    "\"commit_id\":\"",
];

const TEXTS: &[&str] = &[
    "zope.interface",
    "1!2.0rc1.post1+cu118",
    "https://x.org/a.git",
    "file:///srv/my%20app",
    "0a1b",
    "src/py",
];

const TEXT_WORDS: &[&str] = &[
    "a", "Z", "0", ".", "_", "-", "--", "+", "!", "@", "~", "/", "..", "://", "https", "file",
    "%20", "${HOME}", "#egg=", ";", ",", " ", "\n", "\u{a0}", "ſ",
];

/// A text in a requirements line or in a command line begins no option and ends no word and no
/// line.
fn is_one_word(text: &str) -> bool {
    !text.starts_with('-') && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A text survives being stored and read back.
fn assert_stored<T>(text: &T)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let json = serde_json::to_string(text).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&json).unwrap(), text);
}

fn distribution(name: String, version: Option<String>, origin: Origin) -> Distribution {
    let info = PathBuf::from("a-1.dist-info");
    let requires_python = None;
    Distribution { name, version, requires_python, installer: None, requested: false, origin, info }
}

fn sample_venv() -> Venv {
    let base = BaseInterpreter {
        link: BaseLink::Followed,
        path: "/usr/bin/python3".into(),
        minor: Some(Minor::new(3, 11)),
        version: None,
        copies: Vec::new(),
        is_debian: true,
    };
    Venv {
        path: "/srv/venv".into(),
        flavour: Flavour::Venv,
        base,
        site: Minor::new(3, 11),
        uid: 0,
        gid: 0,
        mode: 0o755,
        system_site_packages: false,
        prompt: None,
    }
}

/// Whatever a venv claims: one line per distribution, and none of it is an option.
fn assert_recipe_is_safe(distribution: Distribution) {
    let Ok(recipe) = Recipe::of(&sample_venv(), &[distribution]) else { return };
    let exact = recipe.exact(Minor::new(3, 13)).others;
    assert!(exact.lines().count() <= 1, "{exact:?}");
    let line = exact.trim_end_matches('\n').trim_start_matches("-e ");
    assert!(is_harmless(line) && !line.starts_with('-'), "{exact:?}");
    assert!(!line.contains(" -") && !line.contains("${"), "{exact:?}");
    for name in recipe.names().iter().chain(&recipe.seeds()) {
        assert!(is_one_word(name), "{name:?}");
    }
    for inside in recipe.sources_inside(Path::new("/srv/venv")) {
        assert!(normal(&inside).starts_with("/srv/venv"), "{}", inside.display());
    }
    assert_eq!(Recipe::of_pylock(recipe.to_pylock().as_bytes()).unwrap(), recipe);
}

fn stays_inside(entry: &RecordEntry) -> bool {
    entry.path.components().all(|part| matches!(part, Component::Normal(_)))
}

proptest! {
    #[test]
    fn configurations(bytes in near(CONFIGURATION, CONFIGURATION_WORDS)) {
        let read = Configuration::parse(&bytes);
        for key in ["home", "executable", "base-executable"] {
            prop_assert!(read.path(key).is_none_or(|path| !path.as_os_str().as_encoded_bytes().contains(&b'\n')));
        }
        if let Some(minor) = read.minor() {
            prop_assert_eq!(minor.to_string().parse(), Ok(minor));
        }
        if let Some(prompt) = read.prompt() {
            prop_assert!(is_harmless(&prompt), "{:?}", prompt);
        }
        let _ = (read.claims_debian(), read.is_true("include-system-site-packages"));
    }

    #[test]
    fn records(bytes in near(RECORD, RECORD_WORDS)) {
        let entries = record(&bytes);
        prop_assert!(entries.len() <= bytes.split(|byte| *byte == b'\n').count());
        let written: usize = entries.iter().map(|entry| entry.path.as_os_str().len()).sum();
        prop_assert!(written <= bytes.len());
        for module in top_level_modules(&entries) {
            prop_assert!(module.split('.').all(is_identifier), "{:?}", module);
            // Only files in site-packages are imported from there.
            let dir = module.replace('.', "/");
            prop_assert!(entries.iter().any(|entry| stays_inside(entry)
                && entry.path.components().collect::<PathBuf>().to_str().is_some_and(|path| path.starts_with(&dir))));
        }
        let _ = installed_files(&bytes, Path::new("a-1.egg-info"));
    }

    #[test]
    fn a_record_is_read_as_it_was_written(paths in proptest::collection::vec("[a-zé/,\"'. -]{1,12}[a-z]", 0..8)) {
        let line = |path: &String| format!("\"{}\",sha256=x,1", path.replace('"', "\"\""));
        let written = paths.iter().map(line).collect::<Vec<_>>().join("\n");
        let read = record(written.as_bytes()).into_iter().map(|entry| entry.path);
        prop_assert!(read.eq(paths.iter().map(PathBuf::from)));
    }

    #[test]
    fn metadata(bytes in near(METADATA, METADATA_WORDS)) {
        let found = headers(Ok(bytes.as_slice()));
        let (name, version) = (found.name, found.version);
        if let Some(name) = name {
            prop_assert!(!name.contains('\n'));
            let one = distribution(name, version, Origin::Index);
            let one = Distribution { requires_python: found.requires_python, ..one };
            one.excludes(Minor::new(3, 13));
            assert_recipe_is_safe(one);
        }
        let text = String::from_utf8_lossy(&bytes);
        let is_of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        for (name, marker) in text.lines().filter_map(requirement) {
            prop_assert!(name.chars().all(is_of_name) && !marker.contains('\n'), "{name:?} {marker:?}");
        }
    }

    #[test]
    fn scripts_and_modules(text in near_text(NOTES, NOTE_WORDS)) {
        prop_assert!(modules_in(&text).iter().all(|module| is_identifier(module)));
        prop_assert!(scripts_in(&text).iter().all(|name| !name.contains('\n')));
    }

    #[test]
    fn origins(bytes in near(ORIGIN, ORIGIN_WORDS)) {
        assert_recipe_is_safe(distribution("a".into(), Some("1".into()), Origin::of_direct_url(&bytes)));
    }

    #[test]
    fn checkouts(
        url in near_text(TEXTS, TEXT_WORDS),
        commit in near_text(TEXTS, TEXT_WORDS),
        subdirectory in proptest::option::of(near_text(TEXTS, TEXT_WORDS)),
    ) {
        let url = format!("https://{url}");
        let vcs = "git".into();
        assert_recipe_is_safe(distribution("a".into(), None, Origin::Vcs { url, vcs, commit, subdirectory }));
    }

    #[test]
    fn dirs(path in near(TEXTS, TEXT_WORDS)) {
        use std::os::unix::ffi::OsStringExt;
        let mut bytes = b"/srv/venv/".to_vec();
        bytes.extend(path);
        let path = PathBuf::from(std::ffi::OsString::from_vec(bytes));
        if let Ok(url) = Url::of_path(&path) {
            prop_assert_eq!(url.path(), Some(path.clone()));
        }
        assert_recipe_is_safe(distribution("a".into(), None, Origin::Directory { path, editable: true }));
    }

    #[test]
    fn texts(text in near_text(TEXTS, TEXT_WORDS)) {
        macro_rules! each {
            ($($type:ty),*) => {$(
                if let Ok(fit) = <$type>::try_from(text.clone()) {
                    prop_assert!(is_one_word(&text), "{:?} as {}", text, stringify!($type));
                    prop_assert_eq!(&fit.to_string(), &text);
                    assert_stored(&fit);
                }
            )*};
        }
        each!(Name, PackageVersion, Url, Subdirectory, Token);
        let name = normalized(&text);
        prop_assert_eq!(normalized(&name), name);
    }

    #[test]
    fn stored_recipes(bytes in near(RECIPE, RECIPE_WORDS)) {
        if let Ok(recipe) = Recipe::of_pylock(&bytes) {
            assert_lines_are_safe(&recipe);
        }
    }

    #[test]
    fn locks(bytes in near(LOCKS, LOCK_WORDS), name in select(&LOCK_NAMES[..])) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(name), &bytes).unwrap();
        let distributions = ["a", "numpy"].map(|name| distribution(name.into(), Some("1.0".into()), Origin::Index));
        let mut recipe = Recipe::of(&sample_venv(), &distributions).unwrap();
        match ProjectLock::read(&Root::new(dir.path()), &Path::new("/").join(name)) {
            Ok(lock) => {
                recipe.follow(&lock, true);
                assert_lines_are_safe(&recipe);
                prop_assert!(lock.constraints(&recipe).lines().all(is_one_word));
            }
            Err(error) => prop_assert!(is_harmless(&error.to_string()), "{error}"),
        }
    }
}

/// However it was made: each line is a requirement without any other option.
fn assert_lines_are_safe(recipe: &Recipe) {
    let Exact { hashed, others, .. } = recipe.exact(Minor::new(3, 13));
    let safe = |line: &str| {
        is_harmless(line) && (line.starts_with("-e file:///") || !line.starts_with('-'))
    };
    assert!(others.lines().all(safe), "{others:?}");
    let mut words = hashed.lines().flat_map(|line| line.split(' ').skip(1));
    assert!(
        hashed.lines().all(safe) && words.all(|word| word.starts_with("--hash=sha")),
        "{hashed:?}"
    );
}

const RECIPE: &[&str] = &[
    include_str!("recipe/fixtures/pylock.schema-1.toml"),
    include_str!("recipe/fixtures/pylock.schema-2.toml"),
];

const RECIPE_WORDS: &[&str] = &[
    "[[packages]]\n",
    "[packages.directory]\n",
    "path = ",
    "[tool.venvguard]\n",
    "[packages.tool.venvguard]\n",
    "name = ",
    "version = ",
    "\"a\"",
    "{",
    "}",
    "[",
    "]",
    ",",
    "kind = \"index\"\n",
    "\"--index-url=x\"",
    "\\n",
    "1",
    "-",
    "..",
];

const LOCK_NAMES: [&str; 6] =
    ["uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "pylock.toml", "requirements.txt"];

const LOCKS: &[&str] = &[
    "[[package]]\nname = \"numpy\"\nversion = \"1.0\"\nsource = { registry = \"https://x\" }\nfiles = [{file = \"numpy-1.0.tar.gz\", hash = \"sha256:ab\"}]\n\
     wheels = [{ url = \"https://x/a-1.0-py3-none-any.whl\", hash = \"sha256:ab\" }]\n",
    "{\"default\": {\"a\": {\"version\": \"==1.0\", \"hashes\": [\"sha256:ab\"]}}}",
    "a==1.0 --hash=sha256:ab \\\n  --hash=sha512:cd # x\nnumpy[x]==1.0; y --hash=sha256:ab\n",
    "[[packages]]\nname = \"a\"\nversion = \"1.0\"\nsdist = {name = \"a-1.0.zip\", hashes = {sha256 = \"ab\"}}\n",
];

const LOCK_WORDS: &[&str] = &[
    "[[package]]\n",
    "[[packages]]\n",
    "name = \"a\"\n",
    "version = \"1.0\"\n",
    "a==1.0",
    " --hash=",
    "sha256:",
    "ab",
    "\\\n",
    "\"",
    "{",
    "}",
    "[",
    "]",
    ",",
    " = ",
    "\n",
    "wheels",
    "files",
    "hash",
    "-r /etc/passwd",
    ";",
];

proptest! {
    #![proptest_config(few())]

    #[test]
    fn long_files(
        cfg in bulky(CONFIGURATION_WORDS),
        list in bulky(RECORD_WORDS),
        lines in bulky(METADATA_WORDS),
        origin in bulky(ORIGIN_WORDS),
    ) {
        let _ = Configuration::parse(&cfg).minor();
        top_level_modules(&record(&list));
        headers(Ok(lines.as_slice()));
        let _ = Origin::of_direct_url(&origin);
    }
}
