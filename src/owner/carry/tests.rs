use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::time::Duration;

use super::super::Compare;
use super::*;
use crate::venv::{CARRIED, Flavour};

const OLD: Minor = Minor::new(3, 11);
const NEW: Minor = Minor::new(3, 13);

/// A venv and its successor beside it.
struct Trees {
    root: Root,
    _dir: tempfile::TempDir,
}

impl Trees {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path().canonicalize().unwrap());
        let trees = Self { root, _dir: dir };
        for path in ["/srv/venv/lib/python3.11/site-packages", "/srv/venv/bin"] {
            fs::create_dir_all(trees.at(path)).unwrap();
        }
        fs::create_dir_all(trees.at("/srv/new/lib/python3.13/site-packages")).unwrap();
        fs::create_dir(trees.at("/srv/new/bin")).unwrap();
        trees
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.at(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|_| "gone".into())
    }

    fn carry(&self, from: (&str, Minor), to: (&str, Minor), pass: Pass) -> Carried {
        self.try_to_carry(from, to, pass).unwrap()
    }

    fn try_to_carry(
        &self,
        from: (&str, Minor),
        to: (&str, Minor),
        pass: Pass,
    ) -> io::Result<Carried> {
        let task = Carry {
            from: Layout::new(Path::new(from.0), from.1, Flavour::Venv),
            to: Path::new(to.0).into(),
            minor: to.1,
            venv: Path::new("/srv/venv").into(),
            pass,
        };
        task.perform(&self.root, Deadline::after(Duration::from_secs(30)))
    }

    /// From the venv to its successor.
    fn ahead(&self, pass: Pass) -> Carried {
        self.carry(("/srv/venv", OLD), ("/srv/new", NEW), pass)
    }

    /// From the successor, which is in place, to the tree that was the venv before.
    fn back(&self) -> Carried {
        let pass = Pass::Back { partial: false };
        self.carry(("/srv/venv", NEW), ("/srv/new", OLD), pass)
    }

    fn swap(&self) {
        fs::rename(self.at("/srv/venv"), self.at("/srv/x")).unwrap();
        fs::rename(self.at("/srv/new"), self.at("/srv/venv")).unwrap();
        fs::rename(self.at("/srv/x"), self.at("/srv/new")).unwrap();
    }

    /// The files that only the tree that is aside has.
    fn unique(&self, tree: Minor, other: Minor) -> Vec<String> {
        let task = Compare {
            tree: Layout::new(Path::new("/srv/new"), tree, Flavour::Venv),
            other: Path::new("/srv/venv").into(),
            minor: other,
            partial: false,
        };
        let deadline = Deadline::after(Duration::from_secs(30));
        task.perform(&self.root, deadline).unwrap().into_lines()
    }
}

/// Longer than the tick of a file system's clock.
fn tick() {
    std::thread::sleep(Duration::from_millis(20));
}

#[test]
fn a_pass_fails_that_would_leave_an_outdated_copy() {
    for pass in [Pass::All, Pass::Last] {
        let trees = Trees::new();
        trees.write("/srv/venv/var/app.db", "1");
        tick();
        assert_eq!(trees.ahead(Pass::All), Carried::default());
        tick();
        trees.write("/srv/venv/var/app.db", "2");
        // The new copy cannot take its place.
        fs::remove_file(trees.at("/srv/new/var/app.db")).unwrap();
        fs::create_dir_all(trees.at("/srv/new/var/app.db/in the way")).unwrap();
        let error = trees.try_to_carry(("/srv/venv", OLD), ("/srv/new", NEW), pass).unwrap_err();
        assert!(error.to_string().starts_with("/srv/venv/var/app.db: "), "{error}");
    }
}

#[test]
fn changes_and_deletions_between_two_passes_are_carried() {
    let trees = Trees::new();
    for (name, text) in [("same", "1"), ("changed", "1"), ("app.db-journal", "1")] {
        trees.write(&format!("/srv/venv/var/{name}"), text);
    }
    trees.write("/srv/venv/spool/old/1", "1");
    tick();
    assert_eq!(trees.ahead(Pass::First(vec![Path::new("var/same").into()])), Carried::default());
    assert!(!trees.at("/srv/new/var/changed").exists());
    assert_eq!(trees.ahead(Pass::All), Carried::default());
    assert_eq!(trees.read("/srv/new/var/app.db-journal"), "1");
    let inode = fs::metadata(trees.at("/srv/new/var/same")).unwrap().ino();
    tick();
    trees.write("/srv/venv/var/changed", "2");
    trees.write("/srv/venv/uploads/new", "1");
    fs::remove_file(trees.at("/srv/venv/var/app.db-journal")).unwrap();
    fs::remove_dir_all(trees.at("/srv/venv/spool")).unwrap();
    assert_eq!(trees.ahead(Pass::Last), Carried::default());
    assert_eq!(trees.read("/srv/new/var/changed"), "2");
    assert_eq!(trees.read("/srv/new/uploads/new"), "1");
    assert!(!trees.at("/srv/new/var/app.db-journal").exists());
    assert!(!trees.at("/srv/new/spool").exists());
    assert_eq!(fs::metadata(trees.at("/srv/new/var/same")).unwrap().ino(), inode);
    // Repeating the pass carries later changes.
    tick();
    trees.write("/srv/venv/var/changed", "3");
    fs::remove_file(trees.at("/srv/venv/uploads/new")).unwrap();
    assert_eq!(trees.ahead(Pass::Last), Carried::default());
    assert_eq!(trees.read("/srv/new/var/changed"), "3");
    assert!(!trees.at("/srv/new/uploads/new").exists());
    for tree in ["/srv/venv", "/srv/new"] {
        assert!(trees.at(tree).join(CARRIED).exists(), "{tree}");
    }
}

#[test]
fn a_directory_that_became_a_file_or_a_link_takes_the_place_of_its_copy() {
    let trees = Trees::new();
    for name in ["spool", "media"] {
        trees.write(&format!("/srv/venv/{name}/deep/1"), "1");
    }
    let read_only = std::os::unix::fs::PermissionsExt::from_mode(0o555);
    fs::set_permissions(trees.at("/srv/venv/media/deep"), read_only).unwrap();
    trees.ahead(Pass::All);
    for name in ["spool", "media"] {
        fs::remove_dir_all(trees.at("/srv/venv").join(name)).unwrap();
    }
    trees.write("/srv/venv/spool", "file");
    symlink("/var/media", trees.at("/srv/venv/media")).unwrap();
    assert_eq!(trees.ahead(Pass::Last), Carried::default());
    assert_eq!(trees.read("/srv/new/spool"), "file");
    assert_eq!(fs::read_link(trees.at("/srv/new/media")).unwrap(), Path::new("/var/media"));
}

#[test]
fn a_change_that_preserves_size_and_time_is_carried() {
    let trees = Trees::new();
    trees.write("/srv/venv/db", "one");
    trees.ahead(Pass::All);
    let time = fs::metadata(trees.at("/srv/venv/db")).unwrap().modified().unwrap();
    trees.write("/srv/venv/db", "two");
    fs::File::options()
        .write(true)
        .open(trees.at("/srv/venv/db"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    trees.ahead(Pass::Last);
    assert_eq!(trees.read("/srv/new/db"), "two");
}

#[test]
fn the_way_back_carries_later_writes_and_deletions() {
    let trees = Trees::new();
    for name in ["kept", "deleted", "written"] {
        trees.write(&format!("/srv/venv/{name}"), "1");
    }
    trees.ahead(Pass::All);
    trees.ahead(Pass::Last);
    trees.swap();
    tick();
    trees.write("/srv/venv/written", "2");
    trees.write("/srv/venv/uploaded", "1");
    fs::remove_file(trees.at("/srv/venv/deleted")).unwrap();
    // Only the old tree had it, and no pass has carried it.
    trees.write("/srv/new/alone", "1");
    assert_eq!(trees.back(), Carried::default());
    let names = ["kept", "deleted", "written", "uploaded", "alone"];
    let found = names.map(|name| trees.read(&format!("/srv/new/{name}")));
    assert_eq!(found, ["1", "gone", "2", "1", "1"]);
    // Interrupted, resumed, and done again.
    tick();
    trees.write("/srv/venv/written", "3");
    fs::remove_file(trees.at("/srv/venv/uploaded")).unwrap();
    assert_eq!(trees.back(), Carried::default());
    assert_eq!(trees.read("/srv/new/written"), "3");
    assert!(!trees.at("/srv/new/uploaded").exists());
    // The trees are swapped, and a program that had a file open runs for another moment.
    trees.swap();
    tick();
    trees.write("/srv/new/written", "4");
    trees.write("/srv/new/kept", "old");
    tick();
    trees.write("/srv/venv/kept", "newer");
    let late = Pass::Late { partial: false };
    let left = trees.carry(("/srv/new", NEW), ("/srv/venv", OLD), late).left.into_lines();
    assert_eq!(trees.read("/srv/venv/written"), "4");
    assert_eq!(trees.read("/srv/venv/kept"), "newer");
    assert!(left.len() == 1 && left[0].contains("has a newer version"), "{left:?}");
}

#[test]
fn a_manifest_about_another_tree_deletes_nothing() {
    let trees = Trees::new();
    trees.write("/srv/venv/.env", "1");
    trees.ahead(Pass::All);
    trees.ahead(Pass::Last);
    // The successor is abandoned, and another one is built in place and fails.
    fs::remove_dir_all(trees.at("/srv/new")).unwrap();
    fs::rename(trees.at("/srv/venv"), trees.at("/srv/new")).unwrap();
    trees.write("/srv/venv/var/order", "1");
    let pass = Pass::Back { partial: true };
    trees.carry(("/srv/venv", NEW), ("/srv/new", OLD), pass);
    assert_eq!(trees.read("/srv/new/.env"), "1");
    assert_eq!(trees.read("/srv/new/var/order"), "1");
}

#[test]
fn changes_in_a_half_built_tree_are_carried_back() {
    let trees = Trees::new();
    trees.write("/srv/venv/log", "1\n");
    trees.swap();
    trees.carry(("/srv/new", OLD), ("/srv/venv", NEW), Pass::All);
    tick();
    trees.write("/srv/venv/log", "1\n2\n");
    let pass = Pass::Back { partial: true };
    assert_eq!(trees.carry(("/srv/venv", NEW), ("/srv/new", OLD), pass), Carried::default());
    assert_eq!(trees.read("/srv/new/log"), "1\n2\n");
}

#[test]
fn a_file_of_the_new_environment_is_not_overwritten() {
    let trees = Trees::new();
    trees.write("/srv/venv/bin/tool", "mine");
    trees.write("/srv/new/bin/tool", "theirs");
    let left = trees.ahead(Pass::All).left.into_lines();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].contains("bin/tool: the other environment has a file"), "{left:?}");
    assert_eq!(trees.ahead(Pass::Last).left.into_lines(), left);
    assert_eq!(trees.read("/srv/new/bin/tool"), "theirs");
}

#[test]
fn files_only_in_the_tree_aside_are_named() {
    let trees = Trees::new();
    for name in ["same", "both"] {
        trees.write(&format!("/srv/venv/{name}"), "1");
    }
    trees.ahead(Pass::All);
    tick();
    trees.ahead(Pass::Last);
    trees.swap();
    assert_eq!(trees.unique(OLD, NEW), Vec::<String>::new());
    assert!(!trees.at("/srv/venv").join(CARRIED).exists(), "the tree in place needs no list");
    tick();
    trees.write("/srv/new/late", "1");
    trees.write("/srv/new/both", "22");
    trees.write("/srv/new/lib/python3.11/site-packages/x-1.dist-info/METADATA", "Name: x\n");
    tick();
    trees.write("/srv/venv/both", "333");
    assert_eq!(trees.unique(OLD, NEW), ["late", "lib/python3.11/site-packages/x-1.dist-info"]);
}

#[test]
fn without_a_manifest_newer_and_missing_files_are_named() {
    let trees = Trees::new();
    let write = |path: &str, hour: u64| {
        trees.write(path, "1");
        let at = std::time::UNIX_EPOCH + Duration::from_secs(hour * 3600);
        fs::File::options().write(true).open(trees.at(path)).unwrap().set_modified(at).unwrap();
    };
    for (name, aside, in_place) in [("same", 1, 1), ("newer", 2, 1), ("older", 1, 2)] {
        write(&format!("/srv/new/{name}"), aside);
        write(&format!("/srv/venv/{name}"), in_place);
    }
    write("/srv/new/alone", 1);
    write("/srv/new/lib/python3.13/site-packages/my.pth", 1);
    write("/srv/venv/lib/python3.11/site-packages/my.pth", 1);
    assert_eq!(trees.unique(NEW, OLD), ["alone", "newer"]);
}

#[test]
fn links_into_the_old_library_are_adapted_if_the_new_one_has_the_target() {
    let trees = Trees::new();
    let link = |text: &str, name: &str| symlink(text, trees.at("/srv/venv").join(name)).unwrap();
    trees.write("/srv/new/lib/python3.13/site-packages/app/static/x", "");
    link("lib/python3.11/site-packages/app/static", "static");
    link("/srv/venv/lib/python3.11/site-packages/app", "app");
    link("lib/python3.11/site-packages/gone", "gone");
    link("python3.11", "bin/mine");
    link("lib/python3.11/site-packages/data", "data");
    trees.write("/srv/venv/lib/python3.11/site-packages/data/x", "");
    trees.write("/srv/new/bin/python3.13", "");
    let notes = trees.ahead(Pass::All).notes.into_lines();
    let text = |name: &str| fs::read_link(trees.at("/srv/new").join(name)).unwrap();
    assert_eq!(text("static"), Path::new("lib/python3.13/site-packages/app/static"));
    assert_eq!(text("app"), Path::new("/srv/venv/lib/python3.13/site-packages/app"));
    assert_eq!(text("gone"), Path::new("lib/python3.11/site-packages/gone"));
    assert_eq!(text("data"), Path::new("lib/python3.13/site-packages/data"));
    assert_eq!(text("bin/mine"), Path::new("python3.13"));
    assert!(notes.len() == 1 && notes[0].starts_with("gone points to"), "{notes:?}");
    assert_eq!(trees.ahead(Pass::Last), Carried::default());
}

#[test]
fn files_that_name_the_venvs_own_library_name_the_new_one_and_return_unchanged() {
    let trees = Trees::new();
    let site = "lib/python3.11/site-packages";
    let script = "#!/srv/venv/bin/python3.11 -E\nprint('/srv/venv/lib/python3.11')\n";
    trees.write("/srv/venv/bin/script", script);
    let own =
        "/srv/venv/lib/python3.11/site-packages/app\nimport x; x('/srv/venv/lib/python3.11')\n";
    trees.write(&format!("/srv/venv/{site}/own.pth"), own);
    let other = "/x/lib/python3.11/y\r\n/srv/venv/lib/python3.110\n/srv/venv/lib/python3.11-x\n";
    trees.write(&format!("/srv/venv/{site}/other.pth"), other);
    let notes = trees.ahead(Pass::All).notes.into_lines();
    assert!(notes.len() == 1 && notes[0].contains("other.pth names python3.11"), "{notes:?}");
    let new = |path: &str| trees.read(&format!("/srv/new/{path}"));
    assert_eq!(
        new("bin/script"),
        "#!/srv/venv/bin/python3.13 -E\nprint('/srv/venv/lib/python3.11')\n",
        "only the first line says what runs it"
    );
    let site = "lib/python3.13/site-packages";
    assert_eq!(new(&format!("{site}/own.pth")), own.replace("3.11", "3.13"));
    assert_eq!(new(&format!("{site}/other.pth")), other);
    assert_eq!(trees.ahead(Pass::Last), Carried::default());
    trees.swap();
    tick();
    trees.write(&format!("/srv/venv/{site}/own.pth"), "/srv/venv/lib/python3.13/changed\n");
    assert_eq!(trees.back(), Carried::default());
    let old = |path: &str| trees.read(&format!("/srv/new/{path}"));
    assert_eq!(old("bin/script"), script);
    assert_eq!(old("lib/python3.11/site-packages/own.pth"), "/srv/venv/lib/python3.11/changed\n");
}

#[test]
fn what_pipx_records_about_a_venv_names_the_new_version() {
    let trees = Trees::new();
    let shared = "/srv/shared/lib/python3.11/site-packages\n";
    trees.write("/srv/shared/pyvenv.cfg", "");
    trees.write("/srv/shared/lib/python3.11/site-packages/pip/__init__.py", "");
    trees.write("/srv/venv/lib/python3.11/site-packages/pipx_shared.pth", shared);
    let recorded = "{\n    \"app_paths\": [\"/srv/venv/lib/python3.11/x\"],\n    \
                    \"python_version\": \"Python 3.11.2\",\n    \
                    \"source_interpreter\": \"/usr/bin/python3.11\"\n}\n";
    trees.write("/srv/venv/pipx_metadata.json", recorded);
    trees.write("/srv/venv/pyvenv.cfg", "version = 3.11.2\n");
    trees.write("/srv/new/pyvenv.cfg", "version_info = 3.13.5.final.0\n");
    assert_eq!(trees.ahead(Pass::All), Carried::default());
    let new = trees.read("/srv/new/pipx_metadata.json");
    assert_eq!(new, recorded.replace("3.11.2", "3.13.5").replace("3.11", "3.13"));
    let pth = || trees.read("/srv/new/lib/python3.13/site-packages/pipx_shared.pth");
    assert_eq!(
        pth(),
        shared.to_string() + &shared.replace("3.11", "3.13"),
        "the shared venv may be rebuilt later"
    );
    assert_eq!(trees.ahead(Pass::Last), Carried::default());
    fs::rename(trees.at("/srv/shared/lib/python3.11"), trees.at("/srv/shared/lib/python3.13"))
        .unwrap();
    tick();
    trees.write("/srv/venv/lib/python3.11/site-packages/pipx_shared.pth", shared);
    assert_eq!(trees.ahead(Pass::Last), Carried::default());
    assert_eq!(pth(), shared.replace("3.11", "3.13"), "it has been rebuilt");
    trees.swap();
    tick();
    trees.write("/srv/venv/pipx_metadata.json", &(new.clone() + "\n"));
    assert_eq!(trees.back(), Carried::default());
    assert_eq!(trees.read("/srv/new/pipx_metadata.json"), recorded.to_string() + "\n");
}

#[test]
fn what_only_the_old_creator_writes_is_written_for_the_new_version() {
    let trees = Trees::new();
    let this = "for lib in \"../lib/python3.11/site-packages\".split(os.pathsep):\n";
    trees.write("/srv/venv/bin/activate_this.py", this);
    trees.write("/srv/venv/bin/activate.nu", "let path = '/srv/venv'\n");
    trees.write("/srv/venv/bin/activate", "old");
    for name in ["pip", "pip3.11", "pip-3.11", "wheel-3.11"] {
        trees.write(&format!("/srv/venv/bin/{name}"), "old");
    }
    for name in ["activate", "pip", "pip3.13"] {
        trees.write(&format!("/srv/new/bin/{name}"), "new");
    }
    assert_eq!(trees.ahead(Pass::All), Carried::default());
    assert_eq!(trees.ahead(Pass::Last), Carried::default());
    let new = |name: &str| trees.read(&format!("/srv/new/bin/{name}"));
    assert_eq!(new("activate_this.py"), this.replace("3.11", "3.13"));
    assert_eq!(new("activate.nu"), "let path = '/srv/venv'\n");
    assert_eq!(["activate", "pip", "pip-3.13", "pip3.13"].map(new), ["new"; 4]);
    assert_eq!(["pip-3.11", "wheel-3.13"].map(new), ["gone"; 2]);
    trees.swap();
    assert_eq!(trees.back(), Carried::default());
    assert_eq!(trees.read("/srv/new/bin/activate_this.py"), this);
}

#[test]
fn a_patched_library_is_carried_if_it_fits_and_kept_beside_if_not() {
    let trees = Trees::new();
    let old = "/srv/venv/lib/python3.11/site-packages";
    let new = "/srv/new/lib/python3.13/site-packages";
    // printf x | openssl dgst -sha256 -binary | basenc --base64url
    let hash = "sha256=LXEWQrcmsEQBYnyp-6wy9chTD7GQPMTbAiWHF5IaSIE";
    for site in [old, new] {
        trees.write(&format!("{site}/a-1.dist-info/METADATA"), "Name: a\nVersion: 1\n");
        let record = format!("fits.py,{hash},1\nother.py,{hash},1\n");
        trees.write(&format!("{site}/a-1.dist-info/RECORD"), &record);
    }
    trees.write(&format!("{old}/fits.py"), "patched");
    trees.write(&format!("{old}/other.py"), "patched");
    trees.write(&format!("{old}/a-1.dist-info/direct_url.json"), "patched");
    trees.write(&format!("{old}/b-1.dist-info/METADATA"), "Name: b\nVersion: 1\n");
    trees.write(&format!("{old}/b-1.dist-info/RECORD"), &format!("b-1.dist-info/x,{hash},1\n"));
    trees.write(&format!("{old}/b-1.dist-info/x"), "patched");
    trees.write(&format!("{new}/fits.py"), "x");
    trees.write(&format!("{new}/other.py"), "another version");
    tick();
    let notes = trees.ahead(Pass::All).notes.into_lines();
    assert!(notes.len() == 1 && notes[0].starts_with("conflict: "), "{notes:?}");
    tick();
    trees.write(&format!("{old}/fits.py"), "patched again");
    trees.write(&format!("{old}/other.py"), "patched again");
    trees.ahead(Pass::Last);
    assert_eq!(trees.read(&format!("{new}/fits.py")), "patched again");
    assert_eq!(trees.read(&format!("{new}/other.py.venvguard-modified")), "patched again");
    assert_eq!(trees.read(&format!("{new}/other.py")), "another version");
    assert!(!trees.at(&format!("{new}/other.py.venvguard-modified+")).exists());
    assert!(!trees.at(&format!("{new}/b-1.dist-info")).exists());
    trees.swap();
    assert_eq!(trees.back(), Carried::default());
    let left = fs::read_dir(trees.at("/srv/new/lib/python3.11/site-packages")).unwrap().count();
    assert_eq!(left, 4, "copies kept beside are not carried back");
}

#[test]
fn only_files_beside_the_installed_ones_return_from_a_half_built_tree() {
    let trees = Trees::new();
    trees.swap();
    trees.write("/srv/venv/var/order", "1");
    trees.write("/srv/venv/lib/python3.13/site-packages/half/x.py", "");
    let pass = Pass::Back { partial: true };
    trees.carry(("/srv/venv", NEW), ("/srv/new", OLD), pass);
    assert_eq!(trees.read("/srv/new/var/order"), "1");
    assert!(!trees.at("/srv/new/lib/python3.11/site-packages/half").exists());
}

#[test]
fn a_file_in_the_library_moves_with_the_minor_version() {
    let moved = corresponding(Path::new("lib/python3.11/site-packages/my.pth"), OLD, NEW);
    assert_eq!(moved, Path::new("lib/python3.13/site-packages/my.pth"));
    let same = Path::new("bin/postactivate");
    assert_eq!(corresponding(same, OLD, NEW), same);
}
