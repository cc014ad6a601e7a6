use super::*;
use crate::venv::recipe::tests::{distribution, venv};
use crate::venv::{Exact, Origin};

const UV: &str = r#"
version = 1
revision = 3
requires-python = ">=3.11"

[[package]]
name = "shop"
version = "0.1.0"
source = { virtual = "." }
dependencies = [{ name = "numpy" }]

[[package]]
name = "numpy"
version = "2.1.0"
source = { registry = "https://x.org/simple" }
sdist = { url = "https://x.org/numpy-2.1.0.tar.gz", hash = "sha256:00aa", size = 1 }
wheels = [
    { url = "https://x.org/numpy-2.1.0-cp311-cp311-manylinux_2_17_x86_64.whl", hash = "sha256:11aa", size = 1 },
]
"#;

const POETRY: &str = r#"
[[package]]
name = "NumPy"
version = "2.1.0"
description = ""
optional = false
files = [
    {file = "numpy-2.1.0-cp311-cp311-manylinux_2_17_x86_64.whl", hash = "sha256:11aa"},
]

[[package]]
name = "lib"
version = "1.0"
files = []

[package.source]
type = "git"
url = "https://x.org/lib.git"

[metadata]
lock-version = "2.0"
"#;

const OLD_POETRY: &str = r#"
[[package]]
name = "numpy"
version = "2.1.0"

[metadata.files]
numpy = [{file = "numpy-2.1.0-py3-none-any.whl", hash = "sha256:11aa"}]
"#;

const PDM: &str = r#"
[metadata]
lock_version = "4.4"

[[package]]
name = "numpy"
version = "2.1.0"
files = [
    {url = "https://x.org/numpy-2.1.0-py3-none-any.whl", hash = "sha256:11aa"},
]

[[package]]
name = "lib"
version = "1.0"
git = "https://x.org/lib.git"
"#;

const PYLOCK: &str = r#"
lock-version = "1.0"
created-by = "pip"

[[packages]]
name = "numpy"
version = "2.1.0"

[[packages.wheels]]
name = "numpy-2.1.0-cp311-cp311-manylinux_2_17_x86_64.whl"
url = "https://x.org/numpy-2.1.0-cp311-cp311-manylinux_2_17_x86_64.whl"

[packages.wheels.hashes]
sha256 = "11aa"

[[packages]]
name = "here"

[packages.directory]
path = "."
"#;

const PIPENV: &str = r#"{
    "_meta": {"hash": {"sha256": "00"}, "pipfile-spec": 6},
    "default": {
        "numpy": {"hashes": ["sha256:11aa", "sha256:22bb"], "index": "pypi", "version": "==2.1.0"},
        "lib": {"git": "https://x.org/lib.git", "ref": "0a"}
    },
    "develop": {"numpy": {"hashes": ["sha256:33cc"], "version": "==2.1.0"}}
}"#;

const REQUIREMENTS: &str = "\
# made by a tool
--index-url https://x.org/simple
numpy==2.1.0 ; python_version >= '3.11' \\
    --hash=sha256:11aa \\
    --hash=sha256:22bb
    # via shop
flask[async]==3.0 --hash=sha256:ff
unhashed==1.0
-e .
-numpy==2.1.0 --hash=sha256:11aa
";

fn read(name: &str, text: &str) -> Result<ProjectLock, LockError> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(name), text).unwrap();
    ProjectLock::read(&Root::new(directory.path()), &Path::new("/").join(name))
}

fn digits(locked: &Locked) -> Vec<String> {
    locked.files.iter().map(|file| file.hash.digits.to_string()).collect()
}

#[test]
fn every_managers_lock_gives_versions_and_hashes() {
    for (name, text, hashes) in [
        ("uv.lock", UV, &["11aa", "00aa"][..]),
        ("poetry.lock", POETRY, &["11aa"]),
        ("poetry.lock", OLD_POETRY, &["11aa"]),
        ("pdm.lock", PDM, &["11aa"]),
        ("pylock.toml", PYLOCK, &["11aa"]),
        ("pylock.prod.toml", PYLOCK, &["11aa"]),
        ("Pipfile.lock", PIPENV, &["11aa", "22bb"]),
        ("requirements.txt", REQUIREMENTS, &["11aa", "22bb"]),
    ] {
        let lock = read(name, text).unwrap();
        let [numpy] = lock.versions("Numpy") else { panic!("{name}: {lock:?}") };
        assert_eq!(
            (numpy.version.to_string(), digits(numpy)),
            ("2.1.0".into(), hashes.iter().map(ToString::to_string).collect()),
            "{name}"
        );
        for other in ["shop", "lib", "here", "unhashed"] {
            assert!(lock.versions(other).is_empty(), "{name}: {other} is from elsewhere");
        }
    }
    assert_eq!(read("requirements.txt", REQUIREMENTS).unwrap().versions("flask").len(), 1);
}

#[test]
fn an_invalid_lock_is_reported_with_its_line_but_not_its_content() {
    let error = read("uv.lock", "version = 1\n[[package]]\nsecret").unwrap_err().to_string();
    assert!(error.contains("uv.lock, line 3") && !error.contains("secret"), "{error}");
    let error = read("Pipfile.lock", "{\n\"default\": []}").unwrap_err().to_string();
    assert!(error.contains("line 2"), "{error}");
    let error = read("Cargo.lock", "").unwrap_err().to_string();
    assert!(error.contains("not the name of a lock file"), "{error}");
    assert!(matches!(read("pylock.a.b.toml", ""), Err(LockError::Unknown { .. })));
}

#[test]
fn installed_versions_are_kept_and_get_the_hashes_of_the_lock() {
    let distributions = [
        distribution("numpy", "2.1.0", Origin::Index),
        distribution("flask", "2.9", Origin::Index),
        distribution("other", "1", Origin::Index),
    ];
    let installed = || Recipe::of(&venv(), &distributions).unwrap();
    let lock = read("requirements.txt", REQUIREMENTS).unwrap();
    let minor = Minor::new(3, 13);
    let mut recipe = installed();
    assert_eq!(recipe.follow(&lock, false), ["flask 2.9 is installed, but 3.0 is locked"]);
    let Exact { hashed, others, unhashed } = recipe.exact(minor);
    assert_eq!(hashed, "numpy==2.1.0 --hash=sha256:11aa --hash=sha256:22bb\n");
    assert_eq!((others.as_str(), unhashed), ("flask==2.9\nother==1\n", Vec::new()));
    assert_eq!(lock.constraints(&recipe), "");
    let none = Recipe::of(&venv(), &[]).unwrap();
    assert_eq!(lock.constraints(&none), "flask==3.0\nnumpy==2.1.0\n", "an option is not a name");
    let mut recipe = installed();
    assert_eq!(recipe.follow(&lock, true).len(), 1);
    assert!(recipe.exact(minor).hashed.contains("flask==3.0 --hash=sha256:ff\n"));
}

#[test]
fn hashes_of_files_for_another_python_do_not_count() {
    let distributions = [distribution("numpy", "2.1.0", Origin::Index)];
    for (name, text, fits) in [
        ("pylock.toml", PYLOCK, false),
        ("poetry.lock", POETRY, false),
        // The lock has the source.
        ("uv.lock", UV, true),
        ("pdm.lock", PDM, true),
        ("Pipfile.lock", PIPENV, true),
    ] {
        let mut recipe = Recipe::of(&venv(), &distributions).unwrap();
        recipe.follow(&read(name, text).unwrap(), false);
        let exact = recipe.exact(Minor::new(3, 13));
        assert_eq!(exact.unhashed.is_empty(), fits, "{name}");
        assert_eq!(exact.others.is_empty(), fits, "{name}");
        assert!(recipe.exact(Minor::new(3, 11)).others.is_empty(), "{name}");
    }
}

#[test]
fn the_lock_beside_a_venv_is_that_of_its_creator() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    std::fs::create_dir_all(at("srv/app/.venv")).unwrap();
    std::fs::create_dir_all(at("home/me/project")).unwrap();
    let root = Root::new(dir.path());
    let beside = |flavour| {
        let uid = rustix::process::geteuid().as_raw();
        let venv = Venv { path: "/srv/app/.venv".into(), flavour, uid, ..venv() };
        ProjectLock::beside(&root, &venv).unwrap().map(|lock| lock.path)
    };
    assert_eq!(beside(Flavour::Uv), None);
    std::fs::write(at("srv/app/requirements.txt"), "flask\n").unwrap();
    assert_eq!(beside(Flavour::Venv), None, "requirements without hashes are not a lock");
    std::fs::write(at("srv/app/uv.lock"), UV).unwrap();
    std::fs::write(at("srv/app/poetry.lock"), POETRY).unwrap();
    assert_eq!(beside(Flavour::Uv), Some("/srv/app/uv.lock".into()));
    assert_eq!(beside(Flavour::Venv), None);
    assert_eq!(beside(Flavour::Poetry), Some("/srv/app/poetry.lock".into()));
    std::fs::write(at("srv/app/.venv/.project"), "/home/me/project\n").unwrap();
    std::fs::write(at("home/me/project/Pipfile.lock"), PIPENV).unwrap();
    assert_eq!(beside(Flavour::Pipenv), Some("/home/me/project/Pipfile.lock".into()));
    let others =
        Venv { path: "/srv/app/.venv".into(), flavour: Flavour::Pipenv, uid: 4711, ..venv() };
    std::fs::set_permissions(at("home/me"), std::fs::Permissions::from_mode(0o700)).unwrap();
    assert!(ProjectLock::beside(&root, &others).is_err(), "its owner may not read that directory");
}

#[test]
fn a_wheel_fits_the_interpreters_that_pip_accepts_it_for() {
    let hash = Hash::try_from("sha256:ab".to_string()).unwrap();
    let suits = |tags: &str| {
        let name = FileName::try_from(format!("a-1.0-{tags}.whl")).ok();
        Distfile { name, url: None, hash: hash.clone() }.suits(Minor::new(3, 13))
    };
    for tags in [
        "py3-none-any",
        "py2.py3-none-any",
        "py312-none-any",
        "py3-none-manylinux_2_28_x86_64",
        "cp313-cp313-manylinux_2_17_x86_64.manylinux2014_x86_64",
        "cp313-none-linux_x86_64",
        "1build-cp313-cp313-linux_x86_64",
        "cp39-abi3-manylinux_2_28_x86_64",
        "cp38.cp39-abi3-manylinux1_x86_64",
        "cp313-abi3-linux_x86_64",
        "cp32-abi3-linux_x86_64",
    ] {
        assert!(suits(tags), "{tags}");
    }
    for tags in [
        "cp314-abi3-manylinux_2_28_x86_64",
        "cp312-cp312-manylinux_2_28_x86_64",
        "cp312-none-any",
        "cp313-cp313t-manylinux_2_28_x86_64",
        "py314-none-any",
        "py2-none-any",
        "pp311-pypy311_pp73-manylinux_2_28_x86_64",
        "cp313-cp313-win_amd64",
        "cp313-cp313-macosx_11_0_arm64",
        "cp313-cp313-musllinux_1_2_x86_64",
        "none",
    ] {
        assert!(!suits(tags), "{tags}");
    }
}
