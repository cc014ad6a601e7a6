use super::pylock::RecipeError;
use super::*;
use crate::venv::{BaseInterpreter, BaseLink};

const MINOR: Minor = Minor::new(3, 13);

pub(in crate::venv) fn venv() -> Venv {
    let minor = crate::python::Minor::new(3, 11);
    Venv {
        path: "/srv/app".into(),
        flavour: Flavour::Venv,
        base: BaseInterpreter {
            link: BaseLink::Followed,
            path: "/usr/bin/python3".into(),
            minor: Some(minor),
            version: None,
            copies: Vec::new(),
            is_debian: true,
        },
        site: minor,
        uid: 0,
        gid: 0,
        mode: 0o755,
        system_site_packages: false,
        prompt: Some("app".into()),
    }
}

pub(in crate::venv) fn distribution(name: &str, version: &str, origin: Origin) -> Distribution {
    Distribution {
        name: name.into(),
        version: Some(version.into()),
        requires_python: None,
        installer: None,
        requested: false,
        origin,
        info: format!("{name}.dist-info").into(),
    }
}

fn vcs(url: &str, subdirectory: Option<&str>) -> Origin {
    Origin::Vcs {
        url: url.into(),
        vcs: "git".into(),
        commit: "4f2a".into(),
        subdirectory: subdirectory.map(str::to_string),
    }
}

fn archive(url: &str) -> Origin {
    let hashes = [("md5", "00"), ("sha256", "abcd")].map(|(a, b)| (a.to_string(), b.to_string()));
    Origin::Archive { url: url.into(), hashes: hashes.into(), subdirectory: None }
}

fn dir(path: &str, editable: bool) -> Origin {
    Origin::Directory { path: path.into(), editable }
}

fn mixed() -> Recipe {
    let distributions = [
        distribution("Flask", "3.0.0", Origin::Index),
        distribution("torch", "2.1.0+cu118", Origin::Index),
        distribution("pip", "23.0", Origin::Index),
        distribution("setuptools", "66.1.1", Origin::Index),
        distribution("wheel", "0.38", Origin::Index),
        distribution("lib", "1", vcs("https://x.org/lib.git", Some("my/py"))),
        distribution("whl", "1", archive("file:///srv/wheels/whl-1-py3-none-any.whl")),
        distribution("edit", "0.1", dir("/srv/my app", true)),
        distribution("plain", "0.1", dir("/srv/plain", false)),
    ];
    Recipe::of(&venv(), &distributions).unwrap()
}

fn refused(distribution: Distribution) -> String {
    let [only] = &Recipe::of(&venv(), &[distribution]).unwrap_err()[..] else { panic!() };
    only.to_string()
}

#[test]
fn every_origin_becomes_a_line_that_installers_understand() {
    assert_eq!(
        mixed().exact(MINOR).others,
        "-e file:///srv/my%20app\n\
         flask==3.0.0\n\
         lib @ git+https://x.org/lib.git@4f2a#subdirectory=my/py\n\
         plain @ file:///srv/plain\n\
         torch==2.1.0+cu118\n\
         whl @ file:///srv/wheels/whl-1-py3-none-any.whl#sha256=abcd\n"
    );
}

#[test]
fn a_local_repository_is_written_as_old_pip_requires() {
    let local = [distribution("lib", "1", vcs("file:///srv/lib.git", Some("py")))];
    assert_eq!(
        Recipe::of(&venv(), &local).unwrap().exact(MINOR).others,
        "git+file:///srv/lib.git@4f2a#egg=lib&subdirectory=py\n"
    );
}

#[test]
fn distributions_that_move_with_the_interpreter_have_no_exact_version() {
    let recipe = mixed();
    assert!(recipe.seed_pip);
    assert_eq!(recipe.seeds(), ["setuptools<82", "wheel"]);
    let newer = [distribution("setuptools", "84.2.1", Origin::Index)];
    assert_eq!(Recipe::of(&venv(), &newer).unwrap().seeds(), ["setuptools"]);
    assert!(!Recipe::of(&venv(), &newer).unwrap().seed_pip);
}

#[test]
fn the_resolver_gets_names_and_never_looks_for_distributions_from_elsewhere() {
    assert_eq!(
        mixed().names(),
        ["edit", "flask==3.0.0", "lib", "plain", "torch==2.1.0+cu118", "whl"]
    );
}

#[test]
fn text_that_would_forge_a_requirement_is_refused() {
    let index = |name: &str, version: &str| refused(distribution(name, version, Origin::Index));
    assert!(index("a\n--index-url=https://evil", "1").contains("is not allowed in a requirement"));
    assert!(index("a", "1\nevil==1").contains("is not allowed in a requirement"));
    assert!(index("a", "1 ; python_version>'3'").contains("is not allowed in a requirement"));
    let direct = |origin| refused(distribution("a", "1", origin));
    assert!(direct(vcs("https://x.org/a b", None)).contains("is not allowed in a requirement"));
    assert!(
        direct(archive("https://${TOKEN}@x.org/a.whl")).contains("is not allowed in a requirement")
    );
    // Neither pip nor uv decodes it: it is written unchanged, or refused.
    assert!(
        direct(vcs("https://x.org/a", Some("my py"))).contains("is not allowed in a requirement")
    );
    let mut evil = vcs("https://x.org/a", None);
    if let Origin::Vcs { commit, .. } = &mut evil {
        *commit = "main\n-e /tmp".into();
    }
    assert!(direct(evil).contains("is not allowed in a requirement"));
}

#[test]
fn all_distributions_that_cannot_be_installed_again_are_reported() {
    let mut nameless = distribution("a", "1", Origin::Index);
    nameless.version = None;
    let lost = distribution("b", "1", Origin::Unknown { reason: "EOF".into() });
    let told = Recipe::of(&venv(), &[nameless, lost]).unwrap_err();
    assert_eq!(
        told.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "a cannot be installed again: it has no version",
            "b cannot be installed again: its origin cannot be read: EOF"
        ]
    );
}

#[test]
fn reports_about_such_distributions_contain_no_credentials() {
    let secret = "https://user:secret@x.org";
    let unfit = refused(distribution("a", "1", archive(&format!("{secret}/a b"))));
    assert!(unfit.contains("\"https://user:****@x.org/a b\" is not allowed"), "{unfit}");
    for json in [
        format!(r#"{{"url": "{secret}", "dir_info": {{}}}}"#),
        format!(r#"{{"url": "https://x.org", "dir_info": "{secret}"}}"#),
    ] {
        let told = refused(distribution("a", "1", Origin::of_direct_url(json.as_bytes())));
        assert!(told.contains("https://user:****@x.org"), "{told}");
        assert!(!told.contains("secret"), "{told}");
    }
}

#[test]
fn errors_about_a_damaged_recipe_contain_no_credentials() {
    let text = mixed().to_pylock().replace("pip = true", "pip = \"https://u:secret@x.org\"");
    let error = Recipe::of_pylock(text.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("https://u:****@x.org") && !error.contains("secret"), "{error}");
}

#[test]
fn a_missing_local_source_is_reported_and_not_searched_elsewhere() {
    let system = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(system.path().join("srv/my app")).unwrap();
    let gone = mixed().gone(&Root::new(system.path()));
    let gone: Vec<_> = gone.iter().map(ToString::to_string).collect();
    assert_eq!(
        gone,
        [
            "plain cannot be installed again: it was installed from /srv/plain, which no longer exists",
            "whl cannot be installed again: it was installed from \
             /srv/wheels/whl-1-py3-none-any.whl, which no longer exists",
        ]
    );
}

#[test]
fn sources_inside_the_venv_are_known() {
    let inside = [distribution("a", "1", dir("/srv/app/src/a", true))];
    let recipe = Recipe::of(&venv(), &inside).unwrap();
    assert_eq!(recipe.sources_inside(Path::new("/srv/app")), [PathBuf::from("/srv/app/src/a")]);
    assert_eq!(mixed().sources_inside(Path::new("/srv/app")).len(), 0);
    let outside = [distribution("a", "1", dir("/srv/app/../../etc", true))];
    let recipe = Recipe::of(&venv(), &outside).unwrap();
    assert_eq!(recipe.sources_inside(Path::new("/srv/app")).len(), 0);
}

#[test]
fn a_stored_recipe_is_read_again_and_another_schema_is_refused() {
    let text = mixed().to_pylock();
    assert_eq!(Recipe::of_pylock(text.as_bytes()).unwrap(), mixed());
    let with_schema = |schema: u32| {
        let other = text.replace("schema-version = 2", &format!("schema-version = {schema}"));
        Recipe::of_pylock(other.as_bytes()).unwrap_err()
    };
    let newer = with_schema(3);
    assert!(matches!(newer, RecipeError::Newer { found: 3, known: 2 }), "{newer}");
    let none = with_schema(0);
    assert!(matches!(none, RecipeError::Damaged(_)), "{none}");
    for (from, to) in
        [("3.0.0", "3\\nevil"), ("pip = true", "pip = true\nx = 1"), ("[tool", "[loot")]
    {
        let damaged = text.replace(from, to);
        assert!(
            matches!(Recipe::of_pylock(damaged.as_bytes()), Err(RecipeError::Damaged(_))),
            "{damaged}"
        );
    }
}

/// Written once, like the next one; they must not change when the format does.
#[test]
fn a_recipe_of_schema_version_1_is_still_read() {
    let stored = include_str!("fixtures/pylock.schema-1.toml");
    let mut known = locked();
    for requirement in &mut known.requirements {
        if let Source::Vcs { version, .. }
        | Source::Archive { version, .. }
        | Source::Directory { version, .. } = &mut requirement.source
        {
            *version = None;
        }
    }
    assert_eq!(Recipe::of_pylock(stored.as_bytes()).unwrap(), known);
}

#[test]
fn a_recipe_of_schema_version_2_is_still_read_and_written_so() {
    let stored = include_str!("fixtures/pylock.schema-2.toml");
    assert_eq!(Recipe::of_pylock(stored.as_bytes()).unwrap(), locked());
    assert_eq!(locked().to_pylock(), stored);
}

#[test]
fn an_unknown_field_anywhere_in_a_recipe_is_refused() {
    let stored = include_str!("fixtures/pylock.schema-2.toml");
    let lines: Vec<&str> = stored.lines().collect();
    let tables = (0..lines.len()).filter(|at| lines[*at].starts_with('[')).map(|at| at + 1);
    for place in std::iter::once(0).chain(tables) {
        let (front, rest) = lines.split_at(place);
        let changed = [front, &["unknown = 1"], rest].concat().join("\n");
        let read = Recipe::of_pylock(changed.as_bytes());
        assert!(matches!(read, Err(RecipeError::Damaged(_))), "{read:?}: {changed}");
    }
}

#[test]
fn an_archive_without_a_hash_is_kept_with_its_version() {
    let origin = Origin::of_direct_url(br#"{"url": "http://x.org/main.zip", "archive_info": {}}"#);
    let recipe = Recipe::of(&venv(), &[distribution("lib", "1.0", origin)]).unwrap();
    let stored = recipe.to_pylock();
    assert!(stored.contains("version = \"1.0\""), "{stored}");
    assert_eq!(Recipe::of_pylock(stored.as_bytes()).unwrap(), recipe);
    let unspeakable = distribution("lib", "no version", dir("/srv/lib", false));
    let [only] = &Recipe::of(&venv(), &[unspeakable]).unwrap().requirements[..] else { panic!() };
    assert!(matches!(only.source, Source::Directory { version: None, .. }), "{only:?}");
}

/// With hashes of a lock, with addresses and without.
fn locked() -> Recipe {
    let mut recipe = mixed();
    let file = |name: &str, url: Option<&str>, hash: &str| Distfile {
        name: Some(name.to_string().try_into().unwrap()),
        url: url.map(|url| url.to_string().try_into().unwrap()),
        hash: hash.to_string().try_into().unwrap(),
    };
    for requirement in &mut recipe.requirements {
        if let Source::Index { files, .. } = &mut requirement.source {
            *files = match requirement.name.to_string().as_str() {
                "flask" => vec![
                    file(
                        "flask-3.0.0-py3-none-any.whl",
                        Some("https://x.org/flask-3.0.0-py3-none-any.whl"),
                        "sha256:ab",
                    ),
                    file(
                        "flask-3.0.0.tar.gz",
                        Some("https://x.org/flask-3.0.0.tar.gz"),
                        "sha256:cd",
                    ),
                ],
                _ => vec![file("torch-2.1.0-cp311-cp311-linux_x86_64.whl", None, "sha256:ef")],
            };
        }
    }
    recipe
}
