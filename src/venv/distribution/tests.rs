use super::*;
use std::fs;

struct Site(tempfile::TempDir);

impl Site {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("lib/python3.11/site-packages")
    }

    fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn distributions(&self) -> Vec<Distribution> {
        distributions(&self.path()).unwrap()
    }

    fn told(&self) -> Vec<String> {
        let told = |d: &Distribution| format!("{} {}", d.name, d.version.as_deref().unwrap_or("-"));
        self.distributions().iter().map(told).collect()
    }
}

#[test]
fn distributions_are_listed_in_order_of_their_normalized_names() {
    let site = Site::new();
    site.write("zope.interface-6.0.dist-info/METADATA", "Name: zope.interface\nVersion: 6.0\n")
        .write(
            "Flask-3.0.dist-info/METADATA",
            "Metadata-Version: 2.1\r\nName: Flask\r\nVersion: 3.0\r\n",
        )
        .write(
            "ruamel_yaml-1.dist-info/METADATA",
            "name:ruamel.yaml\nVERSION : no\nversion: 1\n\nVersion: 2\n",
        )
        .write("flask/__init__.py", "")
        .write("~lask-2.0.dist-info/METADATA", "Name: flask\nVersion: 2.0\n");
    assert_eq!(site.told(), ["Flask 3.0", "ruamel.yaml 1", "zope.interface 6.0"]);
}

#[test]
fn a_distribution_excludes_a_minor_version_that_its_metadata_does_not_allow() {
    let site = Site::new();
    let minor = Minor::new(3, 12);
    for (requires, excludes) in [
        (">=3.8,<3.12", true),
        ("<3.12", true),
        ("!=3.12.*,>=3.8", true),
        ("~=3.11.2", true),
        (">=3.8", false),
        (">=3.12.4", false),
        ("<3.12.1", false),
        ("", false),
        ("three", false),
    ] {
        let text = format!("Name: a\nVersion: 1\nRequires-Python: {requires}\n");
        site.write("a-1.dist-info/METADATA", &text);
        assert_eq!(site.distributions()[0].excludes(minor), excludes, "{requires}");
    }
    site.write("a-1.dist-info/METADATA", "Name: a\nVersion: 1\n\nRequires-Python: <3\n");
    assert!(!site.distributions()[0].excludes(minor), "the line is part of the description");
}

#[test]
fn the_records_of_the_installer_are_read() {
    let site = Site::new();
    site.write("a-1.dist-info/METADATA", "Name: a\nVersion: 1\n")
        .write("a-1.dist-info/INSTALLER", "pip\n")
        .write("a-1.dist-info/REQUESTED", "")
        .write("b-1.dist-info/METADATA", "Name: b\nVersion: 1\n")
        .write("b-1.dist-info/direct_url.json", "{\"url\": \"file:///srv/b\", \"dir_info\": {}}");
    let [a, b] = &site.distributions()[..] else { panic!() };
    assert_eq!(
        (a.installer.as_deref(), a.requested, &a.origin),
        (Some("pip"), true, &Origin::Index)
    );
    assert_eq!((b.installer.as_deref(), b.requested), (None, false));
    assert_eq!(b.origin, Origin::Directory { path: "/srv/b".into(), editable: false });
}

#[test]
fn older_formats_are_read_too() {
    let site = Site::new();
    site.write("a.egg-info/PKG-INFO", "Name: a\nVersion: 1\n")
        .write("b-2.0-py3.11.egg-info", "Metadata-Version: 1.0\nName: b\nVersion: 2.0\n")
        .write("c-3.0-py3.11.egg/EGG-INFO/PKG-INFO", "Name: c\nVersion: 3.0\n")
        .write("d-4.0-py3.11.egg", "PK")
        .write("e.egg-link", "/srv/e e\n../\n")
        .write("f.egg-link", "relative\n.\n");
    assert_eq!(site.told(), ["a 1", "b 2.0", "c 3.0", "d 4.0", "e -", "f -"]);
    let all = site.distributions();
    assert_eq!(all[4].origin, Origin::Directory { path: "/srv/e e".into(), editable: true });
    assert!(matches!(all[5].origin, Origin::Unknown { .. }));
}

#[test]
fn the_name_of_the_directory_replaces_missing_metadata() {
    let site = Site::new();
    site.write("a_b-1.0.dist-info/RECORD", "").write("c.dist-info/METADATA", "\nName: x\n");
    assert_eq!(site.told(), ["a_b 1.0", "c -"]);
}

#[test]
fn the_newer_files_of_two_versions_of_a_distribution_count() {
    let site = Site::new();
    site.write("a-2.dist-info/METADATA", "Name: a\nVersion: 2\n")
        .write("a-1.dist-info/METADATA", "Name: a\nVersion: 1\n");
    let older = std::time::SystemTime::UNIX_EPOCH;
    fs::File::open(site.path().join("a-2.dist-info")).unwrap().set_modified(older).unwrap();
    assert_eq!(site.told(), ["a 1"]);
    fs::File::open(site.path().join("a-1.dist-info"))
        .unwrap()
        .set_modified(older - std::time::Duration::from_secs(9))
        .unwrap();
    assert_eq!(site.told(), ["a 2"]);
}

#[test]
fn links_and_devices_among_the_records_are_not_followed() {
    let site = Site::new();
    site.write("secret", "Name: secret\nVersion: 9\n").write("a-1.dist-info/RECORD", "");
    let info = site.path().join("a-1.dist-info");
    std::os::unix::fs::symlink("../secret", info.join("METADATA")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", info.join("direct_url.json")).unwrap();
    std::os::unix::fs::symlink("a-1.dist-info", site.path().join("b-1.dist-info")).unwrap();
    assert_eq!(site.told(), ["a 1"]);
    assert!(matches!(site.distributions()[0].origin, Origin::Unknown { .. }));
}

#[test]
fn a_link_to_another_site_packages_is_not_followed() {
    let site = Site::new();
    site.write("a-1.dist-info/METADATA", "Name: a\nVersion: 1\n");
    let other = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(site.0.path().join("lib"), other.path().join("lib")).unwrap();
    assert!(distributions(&other.path().join("lib/python3.11/site-packages")).is_err());
    assert!(distributions(&other.path().join("none/lib/python3.11/site-packages")).is_err());
}

#[test]
fn names_are_normalized_as_by_indexes() {
    assert_eq!(normalized("Zope.Interface"), "zope-interface");
    assert_eq!(normalized("a-_.b__c"), "a-b-c");
}

#[test]
fn the_modules_to_import_are_known_even_without_a_record() {
    let site = Site::new();
    site.write("a-1.dist-info/RECORD", "a/__init__.py,,\n_a.so,,\n")
        .write("b-1.dist-info/RECORD", "__editable__.b-1.pth,,\n__editable___b_1_finder.py,,\n")
        .write("b-1.dist-info/top_level.txt", "b\nc\n../d\n")
        .write("e.egg-info/installed-files.txt", "../e/__init__.py\nPKG-INFO\n");
    let modules = |one| top_level_modules_of(&site.path(), std::slice::from_ref(one)).unwrap();
    let modules: Vec<_> = site.distributions().iter().map(|one| modules(one).join(" ")).collect();
    assert_eq!(modules, ["_a a", "b c", "e"]);
}
