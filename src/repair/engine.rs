//! The engines that create a venv and install distributions into it: uv, or the new interpreter's
//! pip.

use std::ffi::OsString;
use std::fmt::Display;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::host::access::{Access, Trusted};
use crate::host::user::User;
use crate::host::{Program, Root};
use crate::python::Minor;
use crate::store::EngineChoice;
use crate::venv::{Flavour, Venv};

/// Where Debian's python3-pip-whl puts the wheels that `ensurepip` installs from.
const WHEELS: &str = "/usr/share/python-wheels";

/// Where to look for a system-wide uv.
const UV: [&str; 3] = ["/usr/bin/uv", "/usr/local/bin/uv", "/opt/uv/bin/uv"];

/// Where to look for a user's own uv, in their home: where uv's installer and pipx put it, and
/// where cargo does.
const OWN_UV: [&str; 2] = [".local/bin/uv", ".cargo/bin/uv"];

/// Where Debian's python3-pip puts its module.
const DIST_PACKAGES: &str = "/usr/lib/python3/dist-packages";

/// The first pip that does not import what Python 3.12 no longer has.
const FIRST_FOR_3_12: [u32; 2] = [23, 1];

/// A version that no distribution has. pip 25.1 crashes where it is not a version at all.
const IMPOSSIBLE: &str = "999999999";

/// A way to install distributions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Engine {
    Uv(PathBuf),
    /// pip's wheel, run as it is: the venv needs no pip of its own.
    PipWheel(PathBuf),
    /// The pip module of this interpreter.
    PipModule(PathBuf),
}

impl Engine {
    pub(crate) fn is_uv(&self) -> bool {
        matches!(self, Self::Uv(_))
    }

    /// Why it does not run on an interpreter, and what to install.
    fn too_old(&self, root: &Root, minor: Minor) -> Option<String> {
        let (version, package) = match self {
            Self::Uv(_) => return None,
            Self::PipWheel(wheel) => (version_of_wheel(wheel)?, "python3-pip-whl"),
            Self::PipModule(_) => (version_of_module(root)?, "python3-pip"),
        };
        (!runs_on(&version, minor)).then(|| {
            format!(
                "pip {version} does not run on Python {minor} (`apt install {package}`, then `venvguard rebuild --all`)"
            )
        })
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Uv(_) => "uv",
            Self::PipWheel(_) | Self::PipModule(_) => "pip",
        }
    }

    /// An `install` for the venv whose interpreter is `python`.
    pub(crate) fn install(&self, python: &Path, compile: bool) -> Program {
        match self {
            Self::Uv(uv) => {
                let program =
                    Self::uv(uv).args(["pip", "install", "--no-progress", "--python"]).arg(python);
                if compile { program.arg("--compile-bytecode") } else { program }
            }
            Self::PipWheel(wheel) => {
                Self::pip_install(Program::new(python).arg(wheel.join("pip")), compile)
            }
            Self::PipModule(interpreter) => {
                let program = Program::new(interpreter).args(["-m", "pip", "--python"]).arg(python);
                Self::pip_install(program, compile)
            }
        }
    }

    /// Checks that the requirements of the installed distributions are met: exit 0.
    pub(crate) fn check(&self, python: &Path) -> Program {
        match self {
            Self::Uv(uv) => Program::new(uv).args(["pip", "check", "--python"]).arg(python),
            Self::PipWheel(wheel) => {
                Self::pip(Program::new(python).arg(wheel.join("pip"))).arg("check")
            }
            Self::PipModule(interpreter) => {
                let program = Program::new(interpreter).args(["-m", "pip", "--python"]).arg(python);
                Self::pip(program).arg("check")
            }
        }
    }

    fn pip(program: Program) -> Program {
        program
            .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
            .env("PIP_NO_INPUT", "1")
            // Root rebuilds its own venvs: the warning does not apply.
            .env("PIP_ROOT_USER_ACTION", "ignore")
    }

    fn pip_install(program: Program, compile: bool) -> Program {
        let program = Self::pip(program).args(["install", "--quiet"]);
        if compile { program } else { program.arg("--no-compile") }
    }

    /// An option that takes a file, with standard input as that file.
    pub(crate) fn input_as(&self, option: &str) -> [OsString; 2] {
        [option.into(), if self.is_uv() { "-" } else { "/dev/stdin" }.into()]
    }

    /// Asks which versions of a distribution have a wheel for the interpreter, or for another minor
    /// version. uv is asked for the lowest one from `from` on; pip is asked for a version that no
    /// distribution has, and lists the others.
    pub(crate) fn offers(
        &self,
        python: &Path,
        name: &str,
        from: &dyn Display,
        minor: Option<Minor>,
    ) -> Program {
        let program = self.looks_for_wheels(python, minor);
        if self.is_uv() {
            program.args(["--resolution", "lowest", "-"]).input(format!("{name}>={from}\n"))
        } else {
            program.arg(format!("{name}==={IMPOSSIBLE}"))
        }
    }

    /// Finds a wheel of each listed distribution for another minor version, and installs none.
    pub(crate) fn resolves(&self, python: &Path, minor: Minor, list: String) -> Program {
        let program = self.looks_for_wheels(python, Some(minor));
        if self.is_uv() {
            program.arg("-").input(list)
        } else {
            program.arg("--ignore-installed").args(self.input_as("-r")).input(list)
        }
    }

    fn looks_for_wheels(&self, python: &Path, minor: Option<Minor>) -> Program {
        let program = match self {
            Self::Uv(uv) => Self::uv(uv)
                .args(["pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python"])
                .arg(python),
            _ => self.install(python, true).arg("--dry-run"),
        };
        let program = program.args(["--no-deps", "--only-binary", ":all:"]);
        match minor {
            Some(minor) => program.arg("--python-version").arg(minor.to_string()),
            None => program,
        }
    }

    /// Makes uv use the system's certificates, as pip does: they include a company's own. Both
    /// variables, because uv has renamed the switch.
    fn uv(uv: &Path) -> Program {
        Program::new(uv)
            .env("UV_PYTHON_DOWNLOADS", "never")
            .env("UV_SYSTEM_CERTS", "1")
            .env("UV_NATIVE_TLS", "1")
    }
}

/// The source of pip itself and its companions: Debian's wheels, as for `ensurepip`, or an index
/// if there are none.
#[derive(Debug)]
pub(crate) struct Seeds {
    wheels: Option<PathBuf>,
    pip: Option<String>,
}

impl Seeds {
    pub(crate) fn of(root: &Root, minor: Minor) -> Self {
        let wheels = root.at(WHEELS).is_dir().then(|| PathBuf::from(WHEELS));
        let pip = pip_wheel(root).map(|(version, _)| version);
        let pip = pip.filter(|version| runs_on(version, minor));
        Self { wheels, pip: pip.map(|version| format!("pip=={version}")) }
    }

    /// pip, in the version that Debian installs into new venvs, if that runs on the interpreter.
    pub(crate) fn pip(&self) -> &str {
        self.pip.as_deref().unwrap_or("pip")
    }

    /// Debian's wheel of pip, as `pip==version`.
    pub(crate) fn pip_wheel(&self) -> Option<&str> {
        self.pip.as_deref()
    }

    /// An install that finds these wheels, too.
    pub(crate) fn beside(&self, program: Program) -> Program {
        match &self.wheels {
            Some(wheels) => program.arg("--find-links").arg(wheels),
            None => program,
        }
    }

    /// An install that needs no index if that wheel of pip is installed.
    pub(crate) fn offline(&self, program: Program) -> Program {
        let program = self.beside(program);
        if self.pip.is_some() { program.arg("--no-index") } else { program }
    }
}

/// Whether Debian's pip is installed in a system.
pub(crate) fn has_pip(root: &Root) -> bool {
    pip_wheel(root).is_some() || root.at(DIST_PACKAGES).join("pip").is_dir()
}

/// The engines to try for an interpreter, the best first, with the pip of the system `pip_of`. The
/// best one writes metadata like that of the tool that created the venv, for that tool to find.
pub(crate) fn engines(
    root: &Root,
    pip_of: &Root,
    choice: EngineChoice,
    venv: &Venv,
    owner: &User,
    interpreter: &Path,
) -> Vec<Engine> {
    let wheel = pip_wheel(pip_of).map(|(_, wheel)| Engine::PipWheel(wheel));
    let has_module = pip_of.at(DIST_PACKAGES).join("pip").is_dir();
    let module = has_module.then(|| Engine::PipModule(interpreter.to_path_buf()));
    let pip = wheel.into_iter().chain(module).filter(|_| choice != EngineChoice::Uv);
    let mut engines: Vec<Engine> =
        uv(root, choice, venv, owner).map(Engine::Uv).into_iter().chain(pip).collect();
    if matches!(venv.flavour, Flavour::Poetry | Flavour::Pdm) {
        engines.sort_by_key(Engine::is_uv);
    }
    engines
}

/// Why none of the engines runs on an interpreter after an upgrade that brings this version of
/// Debian's wheel of pip, or none. Nobody knows the version of a module of pip that it brings.
pub(crate) fn too_old_after(
    engines: &[Engine],
    next: Option<&str>,
    minor: Minor,
) -> Option<String> {
    let version = |engine: &Engine| match engine {
        Engine::PipWheel(wheel) => next.map(str::to_string).or_else(|| version_of_wheel(wheel)),
        Engine::Uv(_) | Engine::PipModule(_) => None,
    };
    let versions: Vec<String> = engines.iter().map(version).collect::<Option<_>>()?;
    let version = versions.first().filter(|version| !runs_on(version, minor))?;
    Some(format!(
        "pip {version} does not run on Python {minor} (upgrade python3-pip-whl in the same run)"
    ))
}

/// Those of the engines that run on an interpreter that is installed, one pip at most. The error
/// says why there is none.
pub(crate) fn that_run(
    root: &Root,
    mut engines: Vec<Engine>,
    minor: Minor,
) -> Result<Vec<Engine>, String> {
    let mut old = None;
    engines.retain(|engine| match engine.too_old(root, minor) {
        Some(reason) => {
            old.get_or_insert(reason);
            false
        }
        None => true,
    });
    engines.dedup_by_key(|engine| engine.name());
    match old {
        Some(reason) if engines.is_empty() => Err(reason),
        _ => Ok(engines),
    }
}

/// The uv that may be used: the system's, or, for a venv created by uv, its owner's own. Both run
/// as the owner.
pub(crate) fn uv(root: &Root, choice: EngineChoice, venv: &Venv, owner: &User) -> Option<PathBuf> {
    if choice == EngineChoice::Pip {
        return None;
    }
    let is_roots = |path: &PathBuf| is_roots_program(&root.at(path)).unwrap_or(false);
    let own = |place| owner.home.join(place);
    let is_own = |path: &PathBuf| {
        is_roots(path) || owner.uid != 0 && is_program_of(&root.at(path), owner.uid)
    };
    UV.iter().map(PathBuf::from).find(is_roots).or_else(|| {
        let may_have_own = venv.flavour == Flavour::Uv && owner.home.is_absolute();
        OWN_UV.iter().map(own).find(|path| may_have_own && is_own(path))
    })
}

/// Why there is no engine, and what to install.
pub(crate) fn no_engine(minor: Minor, choice: EngineChoice) -> String {
    match choice {
        EngineChoice::Uv => {
            "uv is not installed (looked in /usr/bin, /usr/local/bin, /opt/uv/bin; for a venv created by uv, also in its owner's ~/.local/bin and ~/.cargo/bin)".into()
        }
        _ => {
            format!("neither uv nor pip is installed (try `apt install python{minor}-venv`)")
        }
    }
}

/// The newest pip wheel that Debian installed, and its version.
fn pip_wheel(root: &Root) -> Option<(String, PathBuf)> {
    let pattern = root.at(WHEELS).join("pip-*-py3-none-any.whl");
    let mut wheels: Vec<(Vec<u32>, String, PathBuf)> = glob::glob(pattern.to_str()?)
        .ok()?
        .filter_map(Result::ok)
        .filter_map(|path| {
            let version = version_of_wheel(&path)?;
            Some((numbers(&version), version, root.logical(&path)))
        })
        .collect();
    wheels.sort();
    wheels.pop().map(|(_, version, path)| (version, path))
}

fn version_of_wheel(wheel: &Path) -> Option<String> {
    let name = wheel.file_name()?.to_str()?;
    Some(name.strip_prefix("pip-")?.split('-').next()?.to_string())
}

fn version_of_module(root: &Root) -> Option<String> {
    let pattern = root.at(DIST_PACKAGES).join("pip-*.dist-info");
    let found = glob::glob(pattern.to_str()?).ok()?.find_map(Result::ok)?;
    let name = found.file_name()?.to_str()?;
    Some(name.strip_prefix("pip-")?.strip_suffix(".dist-info")?.to_string())
}

fn numbers(version: &str) -> Vec<u32> {
    version.split(['.', '+']).map(|part| part.parse().unwrap_or(0)).collect()
}

fn runs_on(pip: &str, minor: Minor) -> bool {
    minor < Minor::new(3, 12) || numbers(pip).as_slice() >= &FIRST_FOR_3_12[..]
}

/// Whether a program that runs as its owner belongs to that owner.
fn is_program_of(path: &Path, uid: u32) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|found| found.is_file() && found.uid() == uid && found.mode() & 0o111 != 0)
}

/// Whether only root can change a program.
fn is_roots_program(path: &Path) -> io::Result<bool> {
    Ok(is_roots_alone(path)? && std::fs::metadata(path)?.mode() & 0o111 != 0)
}

/// Whether only root can change a file or the entries of a directory, including the target of a link
/// in its place.
pub(super) fn is_roots_alone(path: &Path) -> io::Result<bool> {
    let real = path.canonicalize()?;
    let mut here = Some(real.as_path());
    while let Some(path) = here {
        if Access::at(path)?.writer(Trusted::ROOT_ALONE).is_some() {
            return Ok(false);
        }
        here = path.parent();
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn pip_is_asked_for_something_that_it_takes_for_a_version() {
        assert!(IMPOSSIBLE.parse::<pep440_rs::Version>().is_ok());
    }

    #[test]
    fn the_newest_wheel_of_pip_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let wheels = dir.path().join("usr/share/python-wheels");
        std::fs::create_dir_all(&wheels).unwrap();
        for version in ["9.0.1", "23.0.1", "23.10"] {
            std::fs::write(wheels.join(format!("pip-{version}-py3-none-any.whl")), "").unwrap();
        }
        let root = Root::new(dir.path());
        assert_eq!(
            found(&root, EngineChoice::Auto, Flavour::Venv),
            [Engine::PipWheel(format!("{WHEELS}/pip-23.10-py3-none-any.whl").into())]
        );
        assert_eq!(found(&root, EngineChoice::Uv, Flavour::Venv), []);
    }

    #[test]
    fn a_pip_that_is_too_old_for_the_interpreter_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let make = |path: &str| std::fs::create_dir_all(dir.path().join(path)).unwrap();
        make("usr/share/python-wheels/pip-23.0.1-py3-none-any.whl");
        let runs = |minor| {
            let engines = found(&root, EngineChoice::Auto, Flavour::Venv);
            that_run(&root, engines, Minor::new(3, minor))
        };
        let wheel = Engine::PipWheel(format!("{WHEELS}/pip-23.0.1-py3-none-any.whl").into());
        assert_eq!(runs(11), Ok(vec![wheel.clone()]));
        let after = |engines: &[Engine], next, minor| {
            too_old_after(engines, next, Minor::new(3, minor)).is_some()
        };
        let (uv, module) = (Engine::Uv("/usr/bin/uv".into()), Engine::PipModule("/x".into()));
        let wheels = std::slice::from_ref(&wheel);
        assert!(after(wheels, None, 13) && !after(wheels, None, 11));
        assert!(!after(wheels, Some("25.1.1+dfsg-1"), 13));
        assert!(after(wheels, Some("23.0.1+dfsg-1+deb12u1"), 13));
        assert!(
            !after(&[uv, wheel.clone()], None, 13) && !after(&[wheel.clone(), module], None, 13)
        );
        assert!(!after(&[], None, 13), "that there is none is reported by itself");
        assert_eq!(
            runs(13).unwrap_err(),
            "pip 23.0.1 does not run on Python 3.13 (`apt install python3-pip-whl`, then `venvguard rebuild --all`)"
        );
        assert_eq!(Seeds::of(&root, Minor::new(3, 11)).pip(), "pip==23.0.1");
        assert_eq!(Seeds::of(&root, Minor::new(3, 13)).pip(), "pip", "any that an index has");
        make("usr/lib/python3/dist-packages/pip");
        make("usr/lib/python3/dist-packages/pip-25.1.1.dist-info");
        let module = Engine::PipModule("/usr/bin/python3.13".into());
        assert_eq!(runs(13), Ok(vec![module]));
        assert_eq!(runs(11), Ok(vec![wheel]), "one pip is enough");
        make("usr/share/python-wheels/pip-23.1-py3-none-any.whl");
        let newer = Engine::PipWheel(format!("{WHEELS}/pip-23.1-py3-none-any.whl").into());
        assert_eq!(runs(13), Ok(vec![newer]));
    }

    /// The engines that are tried for a venv of this flavour.
    fn found(root: &Root, choice: EngineChoice, flavour: Flavour) -> Vec<Engine> {
        let minor = Minor::new(3, 13);
        let mut venv = crate::plan::samples::subject(crate::venv::BaseLink::Pinned, minor).venv;
        venv.flavour = flavour;
        let owner = User { name: "app".into(), uid: 4242, gid: 4242, home: "/home/app".into() };
        engines(root, root, choice, &venv, &owner, Path::new("/usr/bin/python3.13"))
    }

    #[test]
    fn an_owners_own_uv_serves_only_venvs_created_by_uv() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let uv = dir.path().join("home/app/.local/bin/uv");
        std::fs::create_dir_all(uv.parent().unwrap()).unwrap();
        std::fs::write(&uv, "").unwrap();
        let own = || found(&root, EngineChoice::Auto, Flavour::Uv);
        assert_eq!(own(), [], "it cannot be run");
        std::fs::set_permissions(&uv, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(own(), [], "it is somebody else's");
        #[expect(clippy::disallowed_methods, reason = "the test's own file")]
        let is_given_away = std::os::unix::fs::lchown(&uv, Some(4242), None).is_ok();
        if is_given_away {
            assert_eq!(own(), [Engine::Uv("/home/app/.local/bin/uv".into())]);
            assert_eq!(found(&root, EngineChoice::Auto, Flavour::Venv), []);
            assert_eq!(found(&root, EngineChoice::Pip, Flavour::Uv), []);
        }
    }

    #[test]
    fn a_program_that_others_can_write_is_not_roots() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("uv");
        std::fs::write(&program, "").unwrap();
        assert!(
            !is_roots_program(&program).unwrap(),
            "its directory is in a directory that everybody can write to"
        );
    }
}
