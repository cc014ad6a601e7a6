use super::*;
use crate::venv::BaseLink;
use std::fs;

fn dir() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().canonicalize().unwrap();
    let (venv, aside) = (base.join("venv"), base.join("aside"));
    fs::create_dir(&venv).unwrap();
    fs::write(venv.join("old"), "").unwrap();
    (dir, venv, aside)
}

fn subject(path: &Path) -> Venv {
    let minor = crate::python::Minor::new(3, 11);
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let venv = crate::plan::samples::subject(BaseLink::Pinned, minor).venv;
    Venv { path: path.into(), uid, gid, ..venv }
}

#[test]
fn a_venv_of_a_package_is_never_rebuilt() {
    let (dir, venv, _) = dir();
    let root = Root::new(dir.path());
    let info = dir.path().join("var/lib/dpkg/info");
    fs::create_dir_all(&info).unwrap();
    let subject = subject(&root.logical(&venv));
    let found = || obstacles(&root, &subject, Err("not looked at".into()));
    let is_packaged = |one: &String| one == "it belongs to the package x, which replaces it";
    assert!(!found().iter().any(is_packaged), "{:?}", found());
    fs::write(info.join("x.list"), format!("{}/pyvenv.cfg\n", subject.path.display())).unwrap();
    assert!(found().iter().any(is_packaged), "{:?}", found());
}

#[test]
fn nothing_is_made_in_a_directory_that_replaced_the_stage() {
    let (_dir, venv, aside) = dir();
    let subject = subject(&venv);
    let (root, parent) = (Root::new("/"), Parent::of(&venv).unwrap());
    let me = super::super::account::owner_of(&root, subject.uid, subject.gid);
    let stage = Stage::make(&root, &parent, &aside, &subject, &me).unwrap();
    assert!(stage.temporary(&root, &me).is_ok());
    fs::rename(&aside, venv.join("stolen")).unwrap();
    fs::create_dir(&aside).unwrap();
    let error = stage.temporary(&root, &me).unwrap_err().to_string();
    assert!(error.contains("was replaced"), "{error}");
    assert_eq!(fs::read_dir(&aside).unwrap().count(), 0);
}

#[test]
fn a_shared_directory_is_matched_by_its_real_path_and_stays_shared_if_it_is_needed() {
    let (_dir, venv, aside) = dir();
    let base = venv.parent().unwrap();
    fs::create_dir(base.join("tmp")).unwrap();
    std::os::unix::fs::symlink(base, &aside).unwrap();
    let (real, by_link, missing) = (base.join("tmp"), aside.join("tmp"), base.join("nothing"));
    let of = |needed: &[PathBuf]| not_needed([real.as_path(), &by_link, &missing], needed);
    assert_eq!(of(&[]), BTreeSet::from([real.clone()]));
    for needed in [&real, &by_link] {
        assert!(of(&[needed.join("wheel")]).is_empty(), "{}", needed.display());
    }
}

#[test]
fn a_place_that_others_can_change_is_not_trusted() {
    use std::os::unix::fs::{PermissionsExt, chown};
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path().canonicalize().unwrap());
    let mut venv =
        crate::plan::samples::subject(BaseLink::Pinned, crate::python::Minor::new(3, 11)).venv;
    let site = root.at(venv.site_packages());
    fs::create_dir_all(&site).unwrap();
    fs::create_dir(root.at("/srv/shop/venv/bin")).unwrap();
    let judged = |venv: &Venv, path: &str, gid: u32, mode: u32| {
        let path = root.at(path);
        chown(&path, None, Some(gid)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let reason = untrusted_place(&root, venv);
        chown(&path, None, Some(0)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        reason.is_none()
    };
    let site = venv.site_packages();
    let inside = [
        "/srv/shop/venv",
        "/srv/shop/venv/bin",
        "/srv/shop/venv/lib",
        "/srv/shop/venv/lib/python3.11",
        site.to_str().unwrap(),
    ];
    (venv.uid, venv.gid) = (1000, 1000);
    for path in ["/srv/shop"].iter().chain(&inside) {
        assert!(judged(&venv, path, 1000, 0o2775), "{path}: the owner's group");
        assert!(!judged(&venv, path, 1001, 0o2775), "{path}: another group");
        assert!(!judged(&venv, path, 0, 0o777), "{path}: everybody");
        assert_eq!(judged(&venv, path, 0, 0o1777), *path == "/srv/shop", "{path}: sticky");
    }
    (venv.uid, venv.gid) = (0, 1000);
    for path in ["/srv/shop"].iter().chain(&inside) {
        assert!(!judged(&venv, path, 1000, 0o2775), "{path}: root's venv, a users' group");
        assert!(judged(&venv, path, 0, 0o2775), "{path}: root's venv, root's group");
    }
    let module = root.at(&site).join("module.py");
    fs::write(&module, "").unwrap();
    assert_eq!(untrusted_place(&root, &venv), None);
    chown(&module, Some(1001), None).unwrap();
    let reason = untrusted_place(&root, &venv).unwrap();
    assert!(reason.contains("module.py is writable"), "{reason}");
    (venv.uid, venv.gid) = (1000, 1000);
    assert_eq!(untrusted_place(&root, &venv), None, "not run as root");
    chown(root.at("/srv/shop/venv/bin"), Some(1001), None).unwrap();
    assert!(untrusted_place(&root, &venv).is_some());
}

#[test]
fn an_access_control_list_that_grants_write_access_is_found() {
    use crate::host::access::samples::{give_access, give_default, naming};
    use std::os::unix::fs::PermissionsExt;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path().canonicalize().unwrap());
    let mut venv =
        crate::plan::samples::subject(BaseLink::Pinned, crate::python::Minor::new(3, 11)).venv;
    (venv.uid, venv.gid) = (0, 0);
    let site = root.at(venv.site_packages());
    fs::create_dir_all(&site).unwrap();
    fs::create_dir(root.at("/srv/shop/venv/bin")).unwrap();
    let module = site.join("module.py");
    fs::write(&module, "").unwrap();
    assert_eq!(untrusted_place(&root, &venv), None);
    if !give_access(&module, &naming(1001, 7, 7)) {
        return;
    }
    let reason = untrusted_place(&root, &venv).unwrap();
    assert!(reason.contains("module.py is writable"), "{reason}");
    assert!(give_access(&module, &naming(1001, 7, 5)));
    assert_eq!(untrusted_place(&root, &venv), None, "the mask withholds it");

    for uid in [0, 1000] {
        (venv.uid, venv.gid) = (uid, uid);
        for path in ["/srv/shop", "/srv/shop/venv", "/srv/shop/venv/bin"].map(|x| root.at(x)) {
            for give in [give_access, give_default] {
                assert!(give(&path, &naming(1001, 7, 7)));
                let reason = untrusted_place(&root, &venv).unwrap();
                assert!(reason.contains("(user 1001)"), "{reason}");
                assert!(give(&path, &naming(uid, 7, 7)));
                assert_eq!(untrusted_place(&root, &venv), None, "root and the owner");
            }
            // Back to what the mode alone said.
            assert!(give_access(&path, &naming(uid, 5, 5)));
        }
        // Others cannot replace entries of a sticky directory, but a default list gives them
        // the new ones.
        let parent = root.at("/srv/shop");
        assert!(give_access(&parent, &naming(1001, 7, 7)));
        fs::set_permissions(&parent, fs::Permissions::from_mode(0o1775)).unwrap();
        assert_eq!(untrusted_place(&root, &venv), None);
        assert!(give_default(&parent, &naming(1001, 7, 7)));
        assert!(untrusted_place(&root, &venv).is_some());
        assert!(give_default(&parent, &naming(uid, 5, 5)));
        fs::set_permissions(&parent, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_tree_needs_its_size_and_some_more() {
    let mebibytes = |number: u64| number << 20;
    assert_eq!(too_little(mebibytes(100), mebibytes(166)), None);
    let reason = too_little(mebibytes(100), mebibytes(165)).unwrap();
    assert!(reason.contains("166 MiB, 165 MiB are free"), "{reason}");
}

#[test]
fn a_temporary_directory_that_contains_something_needed_stays_shared() {
    let shared = |needed: &[&str]| {
        let needed: Vec<PathBuf> = needed.iter().map(PathBuf::from).collect();
        shared_dirs(&needed).into_iter().collect::<Vec<_>>()
    };
    assert_eq!(shared(&["/srv/shop/venv", "/tmpfs"]), confine::TEMPORARY.map(Path::new));
    assert_eq!(shared(&["/srv/shop/venv", "/tmp/src"]), [Path::new("/var/tmp")]);
    assert_eq!(shared(&["/var/tmp", "/tmp"]), Vec::<&Path>::new());
}
