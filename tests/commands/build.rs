//! Commands that fill a rebuilt venv. The rebuilds run on the machine itself, as an ordinary user.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::system;
use super::users::Person;

#[test]
fn a_build_command_is_set_shown_and_cleared() {
    let system = system();
    let register = |options: &[&str], code| {
        system.run(&[&["register", "/srv/shop/venv"], options].concat()).expect(code)
    };
    let shown = || system.run(&["show", "shop", "--json"]).expect(0).json()["venvs"][0].clone();
    register(&["--build-command", "env -x 'echo https://u:secret@x.org/'"], 0);
    let words = serde_json::json!(["/usr/bin/env", "-x", "echo https://u:****@x.org/"]);
    assert_eq!(shown()["build_command"], words);
    let text = system.run(&["show", "shop"]).expect(0).stdout;
    assert!(text.contains("build command: /usr/bin/env -x echo https://u:****@x.org/"), "{text}");
    register(&["--lock", ""], 0);
    assert_eq!(shown()["build_command"], words, "clearing another setting");
    for (command, why) in [
        (
            "no-such-program-here",
            "the build command's program \"no-such-program-here\" is not found",
        ),
        ("sh -c 'x", "the build command \"sh -c 'x\" has an unclosed quote"),
        ("sh x && sh y", "the build command runs without a shell"),
    ] {
        let said = register(&["--build-command", command], 1).stderr;
        assert!(said.contains(why), "{said}");
    }
    register(&["--build-command", "sh", "--lock", "/srv/uv.lock"], 2);
    register(&["--build-command", ""], 0);
    assert_eq!(shown()["build_command"], serde_json::json!([]));
}

#[test]
fn a_declaration_names_the_program_of_a_build_command_by_its_path() {
    let system = system();
    let file = "/etc/venvguard/venvs.d/shop.toml";
    let declare = |command: &str| {
        system.write(file, &format!("path = \"/srv/shop/venv\"\nbuild-command = {command}\n"));
    };
    declare("[\"/bin/sh\", \"build\"]");
    let shown = system.run(&["show", "shop", "--json"]).expect(0).json();
    assert_eq!(shown["venvs"][0]["build_command"], serde_json::json!(["/bin/sh", "build"]));
    declare("[\"sh\", \"build\"]");
    let said = system.run(&["list"]).expect(0).stderr;
    let told = "shop.toml, line 2: build-command: the program of the build command must be an absolute path";
    assert!(said.contains(told), "{said}");
}

/// A user's venv with one distribution, and a command that fills it.
struct Shop {
    person: Person,
    venv: PathBuf,
    /// `3.11`, the minor version of the machine's Python.
    minor: String,
}

impl Shop {
    /// There is none where Python cannot make a venv.
    fn new() -> Option<Self> {
        let person = Person::new();
        person.make_dir("home/shop");
        let venv = person.at("home/shop/venv");
        let make = format!("exec /usr/bin/python3 -m venv --without-pip {}", venv.display());
        let version = "import sys; print('%d.%d' % sys.version_info[:2])";
        let minor = person
            .shell(&make)
            .then(|| person.output(&format!("/usr/bin/python3 -c \"{version}\"")));
        let Some(minor) = minor else {
            println!("skipped: this machine has no Python that makes venvs");
            return None;
        };
        let shop = Self { person, venv, minor: minor.trim().to_string() };
        shop.build_by(&shop.installation("hello", "1.0"));
        assert!(shop.person.shell(&format!(
            "VENVGUARD_PATH={} exec {}",
            shop.venv.display(),
            shop.script()
        )));
        let register =
            ["register", &shop.path(), "--build-command", &format!("{} 'a b'", shop.script())];
        shop.person.run(&register).expect(0);
        Some(shop)
    }

    fn path(&self) -> String {
        self.venv.display().to_string()
    }

    fn script(&self) -> String {
        self.person.at("home/build").display().to_string()
    }

    /// Writes the script of the command.
    fn build_by(&self, script: &str) {
        let path = self.person.at("home/build");
        fs::write(&path, format!("#!/bin/sh\nset -e\n{script}\n")).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// The lines of a script that install a distribution.
    fn installation(&self, name: &str, version: &str) -> String {
        format!(
            "site=$VENVGUARD_PATH/lib/python{}/site-packages
             mkdir $site/{name}-{version}.dist-info
             printf 'Name: {name}\\nVersion: {version}\\n' >$site/{name}-{version}.dist-info/METADATA
             echo '{name}.py,,' >$site/{name}-{version}.dist-info/RECORD
             echo 'version = \"{version}\"' >$site/{name}.py",
            self.minor
        )
    }

    /// The version of the distribution that the venv imports.
    fn version(&self) -> String {
        let python = self.venv.join("bin/python");
        let output = self
            .person
            .output(&format!("{} -c 'import hello; print(hello.version)'", python.display()));
        output.trim().to_string()
    }
}

#[test]
fn a_command_fills_the_new_environment_as_the_owner_with_the_facts_in_its_environment() {
    let Some(shop) = Shop::new() else { return };
    let note = "{ id -u; pwd; echo \"$1 $VIRTUAL_ENV\"; command -v python; env | grep ^VENVGUARD_ | sort; } >$VENVGUARD_PATH/note";
    shop.build_by(&format!("{}\n{note}", shop.installation("hello", "2.0")));
    let said = shop.person.run(&["rebuild", "shop", "--timings"]).expect(0);
    assert_eq!(shop.version(), "2.0", "{}", said.stderr);
    assert!(said.stdout.starts_with("NAME  SECONDS  STEP\nshop "), "{}", said.stdout);
    let history = shop.person.run(&["history", "--json"]).expect(0).json();
    let steps = history["events"].as_array().unwrap().last().unwrap()["steps"].as_array().unwrap();
    assert_eq!(said.stdout.lines().count(), 1 + steps.len(), "{history}");
    let (path, minor) = (shop.path(), &shop.minor);
    let expected = format!(
        "{}\n{}\na b {path}\n{path}/bin/python\nVENVGUARD_ACTION=rebuild\nVENVGUARD_PATH={path}\n\
         VENVGUARD_PYTHON_FROM={minor}\nVENVGUARD_PYTHON_TO={minor}\nVENVGUARD_VENV=shop\n",
        shop.person.uid,
        shop.venv.parent().unwrap().display()
    );
    assert_eq!(fs::read_to_string(shop.venv.join("note")).unwrap(), expected);
    shop.person.run(&["rollback", "shop"]).expect(0);
    assert_eq!(shop.version(), "1.0");
}

#[test]
fn a_command_that_fails_or_installs_too_little_leaves_the_venv_as_it_was() {
    let Some(shop) = Shop::new() else { return };
    let other = shop.installation("other", "1.0");
    let broken =
        format!("{}\necho 'import nothing' >$site/hello.py", shop.installation("hello", "2.0"));
    for (script, told) in [
        (
            "echo 'error: no such index' >&2; exit 3",
            "its build command failed: build exited 3\n    error: no such index",
        ),
        (
            other.as_str(),
            "the new environment does not have the same distributions:\n    hello 1.0 is missing",
        ),
        (broken.as_str(), "No module named 'nothing'"),
    ] {
        shop.build_by(script);
        let said = shop.person.run(&["rebuild", "shop"]).expect(1);
        assert!(
            said.stderr.contains(told.lines().last().unwrap().trim()),
            "{told}: {}",
            said.stderr
        );
        assert!(said.stderr.contains(told.lines().next().unwrap()), "{told}: {}", said.stderr);
        assert_eq!(shop.version(), "1.0");
    }
}

#[test]
fn a_module_that_always_ends_the_interpreter_does_not_prevent_a_rebuild() {
    let Some(shop) = Shop::new() else { return };
    let ends = "echo 'import os; os._exit(7)' >$site/hello.py";
    let exits = format!("{}\n{ends}", shop.installation("hello", "2.0"));
    shop.build_by(&exits);
    let said = shop.person.run(&["rebuild", "shop"]).expect(1);
    let told = "module hello: it ends the interpreter: exited 7";
    assert!(said.stderr.contains(told), "{}", said.stderr);
    let module = format!("lib/python{}/site-packages/hello.py", shop.minor);
    fs::write(shop.venv.join(module), "import os; os._exit(7)\n").unwrap();
    shop.person.run(&["rebuild", "shop"]).expect(0);
}

#[test]
fn a_prepared_environment_is_not_used_for_another_command() {
    let Some(shop) = Shop::new() else { return };
    let prepared = shop.person.run(&["rebuild", "shop", "--prepare"]);
    if prepared.stderr.contains("mount namespaces are unavailable") {
        println!("skipped: this machine gives ordinary users no mount namespaces");
        return;
    }
    prepared.expect(0);
    let status = shop.person.run(&["status"]);
    assert!(status.stderr.contains("prepared trees: 1 ("), "{}", status.stderr);
    shop.person.run(&["register", &shop.path(), "--build-command", &shop.script()]).expect(0);
    let said = shop.person.run(&["rebuild", "shop"]).expect(0);
    assert!(said.stderr.contains("the prepared tree was not used"), "{}", said.stderr);
}
