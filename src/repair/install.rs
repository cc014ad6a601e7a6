//! Installs the content of a new tree.

use std::fmt;
use std::path::PathBuf;

use super::build_needs::Needs;
use super::engine::{Engine, Seeds};
use super::install_spec::{InstallSpec, Requested};
use crate::host::command::{CommandError, Finished};
use crate::host::{Program, Root, redacted};
use crate::python::Minor;
use crate::venv::{Compiled, Exact, Nearest, ProjectLock, Recipe, Relax, Source, Venv, nearest};

/// One engine and the new tree that it installs into, which is visible at the venv's path.
pub(super) struct Installer<'a> {
    /// The system whose wheels of pip it uses.
    pub(super) pip_of: &'a Root,
    pub(super) engine: &'a Engine,
    pub(super) venv: &'a Venv,
    pub(super) minor: Minor,
    /// What to compile.
    pub(super) compile: Compiled,
    /// Runs a program as the venv's owner.
    pub(super) run: &'a dyn Fn(Program) -> Result<Finished, CommandError>,
}

/// Why something was not installed.
#[derive(Debug, thiserror::Error)]
pub(super) enum InstallError {
    #[error(
        "{engine} cannot install {what}: {source}{needs}",
        what = .requirement.as_deref().unwrap_or("the packages"), source = .error, needs = Needs::of(.error, *.minor).in_words("\n    it")
    )]
    Failed {
        engine: &'static str,
        minor: Minor,
        /// What failed, if it was installed alone.
        requirement: Option<Box<str>>,
        error: CommandError,
    },
    #[error(
        "its build command failed: {error}{needs}",
        needs = Needs::of(.error, *.minor).in_words("\n    it")
    )]
    Command { minor: Minor, error: CommandError },
    #[error(
        "these versions are unavailable for Python {minor}:\n    {}\n{error}",
        .missing.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n    ")
    )]
    Missing { minor: Minor, missing: Vec<Missing>, error: CommandError },
}

impl InstallError {
    /// The same about one requirement.
    fn of(self, name: &str) -> Self {
        match self {
            Self::Failed { engine, minor, error, .. } => {
                Self::Failed { engine, minor, requirement: Some(name.into()), error }
            }
            other => other,
        }
    }

    /// Whether pip refuses an available version because of its metadata.
    fn is_refusal(&self) -> bool {
        self.says(&["requires a different Python", "has invalid metadata"])
    }

    /// Whether the network is down, or the index does not answer.
    pub(super) fn is_out_of_reach(&self) -> bool {
        self.says(&[
            // pip
            "Temporary failure in name resolution",
            "Name or service not known",
            "Max retries exceeded",
            "Failed to establish a new connection",
            "Read timed out",
            // uv
            "dns error",
            "error sending request",
            "operation timed out",
            "Connection refused",
        ])
    }

    /// Whether the installer complains with one of these phrases.
    fn says(&self, phrases: &[&str]) -> bool {
        let Self::Failed { error: CommandError::Failed { errors, .. }, .. } = self else {
            return false;
        };
        let errors = String::from_utf8_lossy(errors);
        phrases.iter().any(|phrase| errors.contains(phrase))
    }
}

/// A distribution that cannot be installed for an interpreter.
#[derive(Debug)]
pub(super) struct Missing {
    pub(super) requirement: String,
    pub(super) nearest: Nearest,
    /// What its build needs.
    needs: Needs,
}

impl Missing {
    /// A distribution that was not built.
    pub(super) fn new(requirement: String, nearest: Nearest) -> Self {
        Self { requirement, nearest, needs: Needs::default() }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requirement, nearest, needs } = self;
        match nearest {
            Nearest::Later { version, step } => write!(
                f,
                "{requirement}: the nearest version with a wheel is {version} (`--relax {step}` accepts it)"
            ),
            _ => write!(f, "{requirement}: no later version has a wheel either"),
        }?;
        f.write_str(&needs.in_words(", or it"))
    }
}

impl Installer<'_> {
    /// Installs everything, and adds to `notes` what a person should know.
    pub(super) fn install(
        &self,
        content: &InstallSpec,
        notes: &mut Vec<String>,
    ) -> Result<(), InstallError> {
        let seeds = Seeds::of(self.pip_of, self.minor);
        // pip and its companions come in the versions for the new interpreter: the old ones may
        // not run on it.
        let pip = content.has_pip().then(|| seeds.pip());
        let (recipe, lock) = match &content.wanted {
            // A command needs no engine.
            Requested::Built(_) => return Ok(()),
            Requested::Listed { file, .. } => {
                if let Some(pip) = pip {
                    self.run(seeds.offline(self.seeding()).arg(pip))?;
                }
                return self.run(self.program().arg("-r").arg(file));
            }
            Requested::Same(recipe, lock) => (recipe, lock.as_ref()),
        };
        let Exact { hashed, others, unhashed } = recipe.exact(self.minor);
        if !unhashed.is_empty() {
            notes.push(format!(
                "the lock has no file for Python {} of these distributions, so venvguard accepts any file: {}",
                self.minor,
                unhashed.join(", ")
            ));
        }
        let companions = recipe.seeds();
        let moving: String = pip
            .into_iter()
            .chain(companions.iter().map(String::as_str))
            .fold(String::new(), |list, name| list + name + "\n");
        let verified = self.verified(&hashed);
        // One run or two are much faster; if one fails, single runs tell which distribution fails.
        if verified.is_err()
            || others.is_empty()
            || self.together(&seeds, moving, others.clone()).is_err()
        {
            if let Some(pip) = pip {
                self.run(seeds.offline(self.seeding()).arg(pip))?;
            }
            for name in companions {
                if let Err(error) = self.run(seeds.beside(self.seeding()).arg(&name)) {
                    notes.push(format!("{name} could not be installed again: {error}"));
                }
            }
            let all = verified.and_then(|()| self.listed(self.program(), others));
            if let Err(InstallError::Failed { error, .. }) = all {
                let moved = self.one_by_one(recipe, content.relax, error, notes)?;
                self.complete(&moved, lock, notes);
                return Ok(());
            }
        }
        self.complete(recipe, lock, notes);
        Ok(())
    }

    /// Installs requirements that apply only to the new minor version. Conflicts are noted, because
    /// the old set may have had them too, and do not fail the rebuild.
    fn complete(&self, recipe: &Recipe, lock: Option<&ProjectLock>, notes: &mut Vec<String>) {
        let names = recipe.names();
        if names.is_empty() || (self.run)(self.engine.check(&self.python())).is_ok() {
            return;
        }
        let mut program = self.program().args(names);
        let constraints = lock.map(|lock| lock.constraints(recipe)).unwrap_or_default();
        if !constraints.is_empty() {
            program = program.args(self.engine.input_as("-c")).input(constraints);
        }
        if let Err(error) = self.run(program) {
            notes.push(format!("the packages' own requirements are not all met: {error}"));
        }
    }

    /// Installs the distributions one by one, to find those that cannot be installed and the
    /// versions available instead. Returns what was installed. `error` is from the single run.
    fn one_by_one(
        &self,
        recipe: &Recipe,
        relax: Option<Relax>,
        error: CommandError,
        notes: &mut Vec<String>,
    ) -> Result<Recipe, InstallError> {
        let mut moved = recipe.clone();
        let mut missing = Vec::new();
        for requirement in &mut moved.requirements {
            let Exact { hashed, others, .. } = Exact::of(requirement, self.minor);
            let alone = self.verified(&hashed).and_then(|()| self.listed(self.program(), others));
            let Err(why) = alone.map_err(|why| why.of(&redacted(&requirement.to_string()))) else {
                continue;
            };
            let Source::Index { version, files } = &mut requirement.source else {
                return Err(why);
            };
            let offered = self.offered(&requirement.name.to_string(), version);
            // An index may offer what pip refuses then.
            let refused = why.is_refusal().then(|| version.to_string());
            let offered: Vec<&str> = offered
                .iter()
                .map(String::as_str)
                .filter(|one| Some(*one) != refused.as_deref())
                .collect();
            match nearest(version, &offered) {
                // The index offers nothing at all: do not ask it for the others.
                _ if offered.is_empty() && refused.is_none() => return Err(why),
                // The version exists: the hash may differ, or the network may be down.
                Nearest::Itself => return Err(why),
                Nearest::Later { version: later, step } if Some(step) <= relax => {
                    let was = std::mem::replace(version, later);
                    files.clear();
                    self.listed(self.program(), format!("{requirement}\n"))?;
                    notes
                        .push(format!("{}=={was} was replaced by {requirement}", requirement.name));
                }
                nearest => {
                    let needs = match &why {
                        InstallError::Failed { error, .. } => Needs::of(error, self.minor),
                        _ => Needs::default(),
                    };
                    let requirement = requirement.to_string();
                    missing.push(Missing { requirement, nearest, needs });
                }
            }
        }
        if missing.is_empty() {
            return Ok(moved);
        }
        Err(InstallError::Missing { minor: self.minor, missing, error })
    }

    /// The versions of a distribution that have a wheel for the new interpreter.
    fn offered(&self, name: &str, version: &dyn fmt::Display) -> Vec<String> {
        let asked = self.engine.offers(&self.python(), name, version, None);
        offered(self.engine, (self.run)(asked))
    }

    /// Installs the distributions with known hashes, and accepts no other file.
    fn verified(&self, list: &str) -> Result<(), InstallError> {
        self.listed(self.program().arg("--require-hashes"), list.to_string())
    }

    /// Installs the seeds and the others, in one run unless only one of the two is compiled.
    fn together(&self, seeds: &Seeds, moving: String, others: String) -> Result<(), InstallError> {
        if self.compile.seeds == self.compile.others {
            return self.listed(seeds.beside(self.program()), moving + &others);
        }
        self.listed(seeds.beside(self.seeding()), moving)?;
        self.listed(self.program(), others)
    }

    /// Installs an exact list, for which nothing needs to be resolved.
    fn listed(&self, program: Program, list: String) -> Result<(), InstallError> {
        if list.is_empty() {
            return Ok(());
        }
        self.run(program.arg("--no-deps").args(self.engine.input_as("-r")).input(list))
    }

    fn run(&self, program: Program) -> Result<(), InstallError> {
        (self.run)(program).map(drop).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: CommandError) -> InstallError {
        let (engine, minor) = (self.engine.name(), self.minor);
        InstallError::Failed { engine, minor, requirement: None, error }
    }

    /// An install of what comes with every venv.
    fn seeding(&self) -> Program {
        self.engine.install(&self.python(), self.compile.seeds)
    }

    fn program(&self) -> Program {
        self.engine.install(&self.python(), self.compile.others)
    }

    fn python(&self) -> PathBuf {
        self.venv.path.join("bin/python")
    }
}

/// The versions in the answer to [`Engine::offers`]. uv reports only the lowest one.
pub(super) fn offered(engine: &Engine, answer: Result<Finished, CommandError>) -> Vec<String> {
    match (engine, answer) {
        (Engine::Uv(_), Ok(finished)) => finished
            .text()
            .lines()
            .filter_map(|line| Some(line.split_once("==")?.1.trim().to_string()))
            .collect(),
        (_, Err(CommandError::Failed { errors, .. })) => {
            offered_by_pip(&String::from_utf8_lossy(&errors))
        }
        _ => Vec::new(),
    }
}

/// pip lists the versions that exist when it is asked for an impossible one: `(from versions: 1.0,
/// 1.1)`. If there are none, or no index answers, it says `none`.
fn offered_by_pip(errors: &str) -> Vec<String> {
    let told = errors.split_once("(from versions: ").and_then(|(_, rest)| rest.split_once(')'));
    let versions = told.map(|(versions, _)| versions.split(',').map(str::trim));
    let is_one = |version: &&str| !version.is_empty() && *version != "none";
    versions.into_iter().flatten().filter(is_one).map(str::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_index_does_not_offer_a_version_called_none() {
        let said = |versions: &str| {
            format!(
                "ERROR: Could not find a version that satisfies the requirement x===999999999 (from versions: {versions})\n\
                 ERROR: No matching distribution found for x===999999999\n"
            )
        };
        assert_eq!(offered_by_pip(&said("none")), [""; 0]);
        assert_eq!(offered_by_pip(&said("")), [""; 0]);
        assert_eq!(offered_by_pip(&said("1.0, 1.1rc1")), ["1.0", "1.1rc1"]);
        assert_eq!(offered_by_pip("ERROR: no such option"), [""; 0]);
    }

    fn installer<'a>(
        pip_of: &'a Root,
        engine: &'a Engine,
        venv: &'a Venv,
        minor: Minor,
        run: &'a dyn Fn(Program) -> Result<Finished, CommandError>,
    ) -> Installer<'a> {
        Installer { pip_of, engine, venv, minor, compile: Compiled::EVERYTHING, run }
    }

    #[test]
    fn all_versions_of_a_large_index_are_read() {
        let root = Root::new("/");
        let engine =
            Engine::PipWheel("/usr/share/python-wheels/pip-23.0.1-py3-none-any.whl".into());
        let minor = Minor::new(3, 11);
        let venv = crate::plan::samples::subject(crate::venv::BaseLink::Pinned, minor).venv;
        let versions: Vec<String> = (0..3000).map(|patch| format!("1.0.{patch}")).collect();
        let script = format!("echo '(from versions: {})' >&2; exit 1", versions.join(", "));
        let run = |_: Program| Program::new("/bin/sh").args(["-c", &script]).run();
        let installer = installer(&root, &engine, &venv, minor, &run);
        assert_eq!(installer.offered("x", &"1.0"), versions);
    }

    /// Replaces greenlet 2.0.2, which fails to build, by means of a pip that offers these versions.
    fn one_that_fails_to_build(
        offered: &str,
        relax: Option<Relax>,
    ) -> Result<(Recipe, Vec<String>), String> {
        one_that_fails("error: command 'g++' failed: No such file or directory", offered, relax)
    }

    fn one_that_fails(
        complaint: &str,
        offered: &str,
        relax: Option<Relax>,
    ) -> Result<(Recipe, Vec<String>), String> {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let python = dir.path().join("python3.13");
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *===999999999) echo '(from versions: {offered})' >&2; exit 1;; esac\n\
             grep -q 2.0.2 || exit 0\n\
             echo \"{complaint}\" >&2; exit 1\n"
        );
        std::fs::write(&python, script).unwrap();
        std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).unwrap();
        let (root, minor) = (Root::new("/"), Minor::new(3, 13));
        let venv = crate::plan::samples::subject(crate::venv::BaseLink::Pinned, minor).venv;
        let run = |program: Program| program.run();
        let engine = Engine::PipModule(python);
        let installer = installer(&root, &engine, &venv, minor, &run);
        let text = "lock-version = '1.0'\ncreated-by = 'x'\n\
                    [[packages]]\nname = 'greenlet'\nversion = '2.0.2'\n\
                    [tool.venvguard]\nschema-version = 1\nflavour = 'venv'\n\
                    system-site-packages = false\npip = true\n";
        let recipe = Recipe::of_pylock(text.as_bytes()).unwrap();
        let all = installer.listed(installer.program(), recipe.exact(minor).others);
        let Err(InstallError::Failed { error, .. }) = all else { panic!("{all:?}") };
        let mut notes = Vec::new();
        let moved = installer.one_by_one(&recipe, relax, error, &mut notes);
        moved.map(|moved| (moved, notes)).map_err(|error| error.to_string())
    }

    #[test]
    fn an_index_out_of_reach_says_nothing_about_a_version() {
        let failed = |complaint: &str| {
            let script = format!("echo '{complaint}' >&2; exit 1");
            let error = Program::new("/bin/sh").args(["-c", &script]).run().unwrap_err();
            let minor = Minor::new(3, 13);
            InstallError::Failed { engine: "pip", minor, requirement: None, error }
        };
        for complaint in [
            "WARNING: Retrying after connection broken by NewConnectionError: [Errno -3] Temporary failure in name resolution",
            "error: Request failed after 3 retries\n  Caused by: error sending request for url",
        ] {
            assert!(failed(complaint).is_out_of_reach(), "{complaint}");
        }
        assert!(!failed("ERROR: No matching distribution found for x==1").is_out_of_reach());
    }

    #[test]
    fn a_version_that_fails_to_build_is_one_that_is_missing() {
        let (moved, notes) = one_that_fails_to_build("3.1.0, 3.2.0", Some(Relax::Major)).unwrap();
        assert_eq!(moved.names(), ["greenlet==3.1.0"]);
        assert_eq!(notes, ["greenlet==2.0.2 was replaced by greenlet==3.1.0"]);
        let error = one_that_fails_to_build("3.1.0", Some(Relax::Minor)).unwrap_err();
        assert!(
            error.contains("greenlet==2.0.2: the nearest version with a wheel is 3.1.0 (`--relax major` accepts it)"),
            "{error}"
        );
        let needs =
            "or it needs packages that are missing: `apt install build-essential python3.13-dev`";
        assert!(error.contains(needs), "{error}");
    }

    #[test]
    fn a_version_that_pip_refuses_is_one_that_is_missing() {
        for complaint in [
            "ERROR: Package 'greenlet' requires a different Python: 3.13.5 not in '<3.13'",
            "Requested greenlet==2.0.2 has invalid metadata: x",
        ] {
            let error = one_that_fails(complaint, "2.0.2, 3.1.0", None).unwrap_err();
            assert!(error.contains("the nearest version with a wheel is 3.1.0"), "{error}");
        }
    }

    #[test]
    fn a_build_that_fails_where_there_is_no_wheel_at_all_says_what_it_needs() {
        let error = one_that_fails_to_build("none", Some(Relax::Major)).unwrap_err();
        assert!(error.contains("g++"), "{error}");
        assert!(
            error.ends_with(
                "it needs packages that are missing: `apt install build-essential python3.13-dev`"
            ),
            "{error}"
        );
    }
}
