//! Venvs that are declared in files.

use super::{MINOR_UPGRADE, system};

fn names(system: &super::system::System) -> Vec<String> {
    let list = system.run(&["list", "--json"]).expect(0).json();
    let venvs = list["venvs"].as_array().unwrap().iter();
    venvs
        .map(|venv| {
            format!("{} {}", venv["path"].as_str().unwrap(), venv["policy"].as_str().unwrap())
        })
        .collect()
}

#[test]
fn a_declared_venv_is_guarded_as_long_as_it_is_declared() {
    let system = system();
    system.make_venv("/srv/blog/venv", "3.11", "/usr/bin/python3");
    let file = "/usr/share/venvguard/venvs.d/shop.toml";
    system.write(file, "path = \"/srv/*/venv\"\npolicy = \"block\"\n");
    assert_eq!(names(&system), ["/srv/blog/venv block", "/srv/shop/venv block"]);
    let blocked = system.hook("pre-install", MINOR_UPGRADE).expect(10);
    assert!(blocked.stderr.contains("blog (/srv/blog/venv)"), "{}", blocked.stderr);
    let shown = system.run(&["show", "blog"]).expect(0).stdout;
    assert!(shown.contains(&format!("declared in: {file}")), "{shown}");
    let refused = system.run(&["unregister", "blog"]).expect(1);
    assert!(
        refused.stderr.contains("cannot unregister blog, which /usr/share"),
        "{}",
        refused.stderr
    );

    system.run(&["register", "/srv/blog/venv", "--policy", "warn"]).expect(0);
    assert_eq!(
        names(&system),
        ["/srv/blog/venv warn", "/srv/shop/venv block"],
        "an explicit registration wins"
    );
    system
        .write("/etc/venvguard/venvs.d/shop.toml", "path = \"/srv/shop/venv\"\nname = \"till\"\n");
    assert_eq!(names(&system), ["/srv/blog/venv warn", "/srv/shop/venv auto"]);
    system.run(&["show", "till"]).expect(0);
    system.write("/etc/venvguard/venvs.d/shop.toml", "");
    assert_eq!(names(&system), ["/srv/blog/venv warn"]);
}

#[test]
fn a_damaged_declaration_is_reported_and_changes_nothing() {
    let system = system();
    system.make_venv("/srv/blog/venv", "3.11", "/usr/bin/python3");
    system.write("/etc/venvguard/venvs.d/a.toml", "path = \"/srv/shop/venv\"\npolicy = \"warn\"\n");
    system.write("/etc/venvguard/venvs.d/b.toml", "path = \"/srv/blog/venv\"\n");
    // Commands that change the registry keep the declared venvs in it.
    system.run(&["scan", "--register", "/srv"]).expect(0);
    system.write("/etc/venvguard/venvs.d/a.toml", "path = \"/srv/shop/venv\"\npolicy = 7\n");
    let said = system.run(&["list"]).expect(0);
    assert!(said.stderr.contains("a.toml, line 2: policy"), "{}", said.stderr);
    assert_eq!(names(&system), ["/srv/shop/venv warn", "/srv/blog/venv auto"]);
    let doctor = system.run(&["doctor"]).expect(3).stdout;
    assert!(doctor.contains("a.toml, line 2: policy"), "{doctor}");
}
