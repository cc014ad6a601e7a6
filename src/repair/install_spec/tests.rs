use std::fs;

use super::*;
use crate::venv::BaseLink;

const OLD: Minor = Minor::new(3, 11);
const NEW: Minor = Minor::new(3, 13);

fn install(site: &Path, name: &str, version: &str) {
    let info = site.join(format!("{name}-{version}.dist-info"));
    fs::create_dir_all(&info).unwrap();
    fs::write(info.join("METADATA"), format!("Name: {name}\nVersion: {version}\n")).unwrap();
}

#[test]
fn a_build_writes_only_to_projects_of_the_owner() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path().canonicalize().unwrap());
    let place = Path::new("/home/web/shop/deep/venv");
    fs::create_dir_all(root.at(place)).unwrap();
    let me = rustix::process::geteuid().as_raw();
    let sample = crate::plan::samples::subject(BaseLink::Pinned, OLD).venv;
    let venv = Venv { path: place.into(), uid: me, ..sample };
    let home = "/home/web".into();
    let owner = User { name: "web".into(), uid: me, gid: venv.gid, home };
    let project = |path: &str, marker: &str| {
        fs::create_dir_all(root.at(path)).unwrap();
        fs::write(root.at(path).join(marker), "").unwrap();
    };
    for path in ["/", "/home", "/home/web", "/home/web/shop"] {
        project(path, "pyproject.toml");
    }
    project("/home/web/lib", "setup.py");
    project("/srv/lib", "setup.cfg");
    project("/home/web/shop/deep", "pyproject.toml");
    project("/home/web/shop/deep/venv/src/a", "pyproject.toml");
    project("/home/web/.ssh", "authorized_keys");
    std::os::unix::fs::symlink("lib", root.at("/home/web/link")).unwrap();
    std::os::unix::fs::symlink("..", root.at("/srv/wide")).unwrap();
    let may = |path: &str, venv: &Venv| may_be_built_in(&root, Path::new(path), venv, &owner);
    for path in [
        "/home/web/lib",
        "/home/web/link",
        "/srv/lib",
        "/home/web/shop/deep",
        "/home/web/shop/deep/venv/src/a",
    ] {
        assert!(may(path, &venv), "{path}");
        let others = Venv { uid: me + 1, ..venv.clone() };
        assert!(!may(path, &others), "{path} is somebody else's");
    }
    for path in [
        "/",
        "/home",
        "/home/web",
        "/home/web/lib/..",
        "/srv/wide",
        "/home/web/.ssh",
        "/home/web/shop",
        "/nonexistent",
    ] {
        assert!(!may(path, &venv), "{path}");
    }
}

/// The specification of a venv of `venv::uid` with a command.
fn built_by<'a>(root: &Root, words: &'a [String], venv: &Venv) -> InstallSpec<'a> {
    let distributions = venv::distributions(&root.at(venv.site_packages())).unwrap();
    let command = BuildCommand::of(root, words, venv, &distributions).unwrap().unwrap();
    let modules = command.modules(&root.at(venv.site_packages())).unwrap();
    let wanted = Requested::Built(command);
    InstallSpec { wanted, modules, relax: None, notes: Vec::new(), same: Vec::new() }
}

#[test]
fn a_prepared_tree_is_for_one_command() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("build");
    fs::write(&program, "one").unwrap();
    let root = Root::new("/");
    let sample = crate::plan::samples::subject(BaseLink::Pinned, OLD).venv;
    let path = dir.path().join("venv");
    let venv = Venv { path, uid: 1000, ..sample };
    fs::create_dir_all(venv.site_packages()).unwrap();
    let digest = |arguments: &[&str]| {
        let program = program.display().to_string();
        let arguments = arguments.iter().map(ToString::to_string);
        let words: Vec<String> = std::iter::once(program).chain(arguments).collect();
        built_by(&root, &words, &venv).digest(&Installed(Vec::new()))
    };
    let first = digest(&["a"]);
    assert_eq!(digest(&["a"]), first);
    assert_ne!(digest(&["a", "b"]), first);
    assert_ne!(digest(&["a b"]), digest(&["a", "b"]));
    fs::write(&program, "longer").unwrap();
    assert_ne!(digest(&["a"]), first, "its program was changed");
    assert!(BuildCommand::of(&root, &[], &venv, &[]).is_none());
}

#[test]
fn a_command_chooses_versions_and_installs_what_was_installed() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path().canonicalize().unwrap());
    let sample = crate::plan::samples::subject(BaseLink::Pinned, OLD).venv;
    let venv = Venv { uid: 1000, ..sample };
    let (old, new) = (root.at(venv.site_packages()), root.at(venv::site_packages(&venv.path, NEW)));
    for name in ["flask", "backport", "setuptools", "pip"] {
        install(&old, name, "1.0");
        fs::write(old.join(format!("{name}-1.0.dist-info/RECORD")), format!("{name}.py,,\n"))
            .unwrap();
    }
    fs::create_dir_all(root.at("/srv")).unwrap();
    fs::write(root.at("/srv/build"), "").unwrap();
    let words = ["/srv/build".to_string()];
    let mut spec = built_by(&root, &words, &venv);
    assert!(spec.has_pip());
    assert_eq!(spec.modules, ["backport", "flask"], "setuptools moves with the interpreter");
    install(&new, "flask", "2.0");
    let words = |found: &[Difference]| found.iter().map(ToString::to_string).collect::<Vec<_>>();
    let found = spec.compare(&root, &venv.path, NEW).unwrap();
    assert_eq!(words(&found.failures), ["backport 1.0 is missing"]);
    fs::write(
        new.join("flask-2.0.dist-info/METADATA"),
        "Name: flask\nVersion: 2.0\nRequires-Dist: backport; python_version < \"3.12\"\n",
    )
    .unwrap();
    let found = spec.compare(&root, &venv.path, NEW).unwrap();
    assert_eq!((found.failures.len(), found.notes.len()), (0, 1), "{found:?}");
    spec.leave_out(&old, &found.notes).unwrap();
    assert_eq!(spec.modules, ["flask"]);
}

#[test]
fn system_distributions_count_in_the_comparison_if_the_venv_sees_them() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path().canonicalize().unwrap());
    let venv = crate::plan::samples::subject(BaseLink::Pinned, OLD).venv;
    let old = root.at(venv.site_packages());
    install(&old, "flask", "3.0");
    install(&old, "apt_pkg", "2.6");
    let stage = Path::new("/srv/shop/.stage");
    let new = root.at(venv::site_packages(stage, NEW));
    install(&new, "flask", "3.1");
    install(&root.at("/usr/lib/python3/dist-packages"), "apt_pkg", "2.6");
    install(&root.at("/usr/lib/python3/dist-packages"), "flask", "3.0");
    let told = |sees_system: bool| {
        let venv = Venv { system_site_packages: sees_system, ..venv.clone() };
        let recipe = Recipe::of(&venv, &venv::distributions(&old).unwrap()).unwrap();
        let wanted = Requested::Same(recipe, None);
        let content = InstallSpec {
            wanted,
            modules: Vec::new(),
            relax: None,
            notes: Vec::new(),
            same: Vec::new(),
        };
        let failures = content.compare(&root, stage, NEW).unwrap().failures;
        failures.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let flask = "flask 3.0 became 3.1 (`--relax minor` accepts it)".to_string();
    assert_eq!(told(false), ["apt-pkg 2.6 is missing".to_string(), flask.clone()]);
    assert_eq!(told(true), [flask], "the venv's own comes first");
}
