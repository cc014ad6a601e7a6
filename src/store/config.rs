//! `/etc/venvguard/config.toml`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use super::{Pause, StoreError};
use crate::host::spelling::nearest;
use crate::host::toml::{self, TomlError};
use crate::host::{Root, file, parallel};
use crate::plan::{Answer, Mode, Policy, RestartMode, Window};

const PATH: &str = "/etc/venvguard/config.toml";
const LIMIT: u64 = 1 << 20;

/// The administrator's settings, and defaults for the others.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Config {
    /// The policy of venvs that are registered without one.
    pub(crate) policy: Policy,
    /// Who answers apt about an upgrade that affects venvs.
    pub(crate) mode: Mode,
    pub(crate) ask: AskSettings,
    pub(crate) rehearsal: RehearsalSettings,
    /// The restart mode of venvs that have none of their own.
    pub(crate) restart: RestartMode,
    /// The window of venvs that have none of their own.
    pub(crate) window: Option<Window>,
    /// The pause between services of one kind, which otherwise restart together.
    pub(crate) rolling: Option<Pause>,
    /// Whether services that have no check are probed, of venvs that say nothing else.
    pub(crate) probe: bool,
    /// The installer of the distributions of a rebuilt venv.
    pub(crate) engine: EngineChoice,
    /// How many venvs are built at the same time; 0: the number of cores, at most 4.
    pub(crate) jobs: usize,
    /// Seconds that one rebuild may take.
    pub(crate) rebuild_timeout: u64,
    /// Seconds that all venvs of one run may take together.
    pub(crate) run_timeout: u64,
    /// Seconds that all venvs of one owner may take in a run.
    pub(crate) owner_timeout: u64,
    /// Seconds that a service may take until it is up and its check passes.
    pub(crate) service_timeout: u64,
    /// Seconds for which a service must stay up.
    pub(crate) stable_for: u64,
    /// Whether the pending upgrade is rehearsed whenever apt's package lists are updated.
    pub(crate) forecast: bool,
    /// How many previous environments are kept of each venv.
    #[serde(deserialize_with = "at_least_one")]
    pub(crate) keep_trees: NonZeroUsize,
    /// Days for which each of them is kept.
    pub(crate) keep_days: u32,
    /// The directory from which `node_exporter` reads; nothing is written if it is missing.
    pub(crate) metrics_dir: PathBuf,
    pub(crate) users: UserSettings,
}

fn at_least_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NonZeroUsize, D::Error> {
    let number = usize::deserialize(deserializer)?;
    NonZeroUsize::new(number).ok_or_else(|| serde::de::Error::custom("it must be at least 1"))
}

impl Config {
    /// How long one rebuild may take.
    pub(crate) fn rebuild_limit(&self) -> Duration {
        Duration::from_secs(self.rebuild_timeout)
    }

    /// How many venvs are built in parallel.
    pub(crate) fn at_once(&self, asked: Option<usize>) -> usize {
        let wanted = asked.filter(|jobs| *jobs > 0);
        wanted.or(Some(self.jobs).filter(|jobs| *jobs > 0)).unwrap_or(parallel::cores().min(4))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            policy: Policy::Auto,
            mode: Mode::Ask,
            ask: AskSettings::default(),
            rehearsal: RehearsalSettings::default(),
            restart: RestartMode::Now,
            window: None,
            rolling: None,
            probe: false,
            engine: EngineChoice::Auto,
            jobs: 0,
            rebuild_timeout: 1800,
            run_timeout: 7200,
            owner_timeout: 3600,
            service_timeout: 60,
            stable_for: 3,
            forecast: false,
            keep_trees: const { NonZeroUsize::new(2).unwrap() },
            keep_days: 14,
            metrics_dir: "/var/lib/prometheus/node-exporter".into(),
            users: UserSettings::default(),
        }
    }
}

/// Settings for the question at the terminal.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct AskSettings {
    /// Seconds that a person has to answer.
    pub(crate) timeout: u64,
    /// The answer if there is none. A run that a venv blocks is aborted in any case.
    pub(crate) default: Answer,
}

impl Default for AskSettings {
    fn default() -> Self {
        Self { timeout: 120, default: Answer::Continue }
    }
}

/// Settings for the rehearsal of an apt run before dpkg runs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct RehearsalSettings {
    /// Seconds that it may take while a person waits at the terminal; 0: there is none.
    pub(crate) attended: u64,
    /// The same where nobody waits.
    pub(crate) unattended: u64,
}

impl Default for RehearsalSettings {
    fn default() -> Self {
        Self { attended: 120, unattended: 0 }
    }
}

/// Settings for ordinary users.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct UserSettings {
    /// Whether users' own venvs are guarded.
    pub(crate) enabled: bool,
    /// The users this applies to: names, and groups as `@name`; everybody by default.
    pub(crate) allow: Option<Vec<String>>,
    /// Seconds of an apt run that one user may take.
    pub(crate) time_limit: u64,
    /// Seconds that all users together may take.
    pub(crate) total_time_limit: u64,
}

impl Default for UserSettings {
    fn default() -> Self {
        Self { enabled: true, allow: None, time_limit: 300, total_time_limit: 900 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum EngineChoice {
    /// uv if it is installed, otherwise pip; also pip if uv failed.
    Auto,
    Uv,
    Pip,
}

impl Config {
    pub(super) fn load(root: &Root) -> Result<Self, StoreError> {
        let path = root.at(PATH);
        match file::read_own(&path, LIMIT) {
            Ok(bytes) => read(&path, &bytes),
            Err(error) if error.is_not_found() => Ok(Self::default()),
            Err(error) => Err(error.into()),
        }
    }
}

fn read(path: &Path, bytes: &[u8]) -> Result<Config, StoreError> {
    let config: Config = parse(path, bytes)?;
    if config.restart == RestartMode::Window && config.window.is_none() {
        let is_restart = |line: &[u8]| line.trim_ascii_start().starts_with(b"restart");
        let line = bytes.split(|byte| *byte == b'\n').position(is_restart).map_or(1, |at| at + 1);
        let reason = "restart: \"window\" needs a `window`, such as \"Sat 03:00..05:00\"".into();
        return Err(StoreError::Damaged { path: path.to_path_buf(), line, reason });
    }
    Ok(config)
}

/// Reads a hand-written file; mistakes are reported with their line.
pub(super) fn parse<T: DeserializeOwned + Send>(
    path: &Path,
    bytes: &[u8],
) -> Result<T, StoreError> {
    let damaged =
        |line, reason: String| StoreError::Damaged { path: path.to_path_buf(), line, reason };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        damaged(before.split(|byte| *byte == b'\n').count(), error.to_string())
    })?;
    toml::read(text)
        .map_err(|TomlError { line, message }| damaged(line, told(text, line, &message)))
}

/// Describes a mistake, with its key and the name that may have been meant.
fn told(text: &str, line: usize, message: &str) -> String {
    let key = text.lines().nth(line - 1).and_then(|line| line.split_once('='));
    let key = key.map_or("", |(key, _)| key.trim());
    let is_about_another = ["unknown field", "missing field"].map(|one| message.starts_with(one));
    let about = if key.is_empty() || is_about_another.contains(&true) {
        String::new()
    } else {
        format!("{key}: ")
    };
    // serde puts names in backquotes: the one it found, then the expected ones.
    let mut names = message.split('`').skip(1).step_by(2);
    let found = names.next().unwrap_or_default();
    let meant =
        nearest(found, names).map_or_else(String::new, |name| format!("; did you mean `{name}`?"));
    format!("{about}{message}{meant}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, StoreError> {
        super::read(Path::new("config.toml"), text.as_bytes())
    }

    #[test]
    fn missing_settings_have_defaults() {
        let config = parse("engine = \"pip\"\njobs = 3\n").unwrap();
        assert_eq!(config, Config { engine: EngineChoice::Pip, jobs: 3, ..Config::default() });
    }

    #[test]
    fn a_run_and_an_owner_have_limits_of_their_own() {
        let limits = |config: Config| (config.run_timeout, config.owner_timeout);
        assert_eq!(limits(Config::default()), (7200, 3600));
        let config = parse("run-timeout = 600\nowner-timeout = 0\n").unwrap();
        assert_eq!(limits(config), (600, 0));
        assert!(parse("run-timeout = -1\n").is_err());
    }

    #[test]
    fn the_question_has_a_time_limit_and_a_default_answer() {
        let config = parse("mode = \"auto\"\n[ask]\ntimeout = 5\ndefault = \"abort\"\n").unwrap();
        assert_eq!(config.mode, Mode::Auto);
        assert_eq!(config.ask, AskSettings { timeout: 5, default: Answer::Abort });
        assert!(parse("[ask]\ndefault = \"hold\"\n").is_err());
        let config = parse("[rehearsal]\nunattended = 60\n").unwrap();
        assert_eq!(config.rehearsal, RehearsalSettings { attended: 120, unattended: 60 });
    }

    #[test]
    fn a_mistake_is_reported_with_its_line() {
        for (text, line) in [
            ("keep-trees = 0\n", 1),
            ("[users]\nalow = []\n", 2),
            ("jobs = 1\nenigne = \"uv\"\n", 2),
            ("policy = \"blok\"\n", 1),
            ("jobs =\n", 1),
            ("jobs = 1\nrolling = 10\n", 2),
            ("jobs = 1\nprobe = \"yes\"\n", 2),
            ("jobs = 1\nwindow = \"Sat 03:00\"\n", 2),
            ("jobs = 1\nrestart = \"window\"\n", 2),
        ] {
            let error = parse(text).unwrap_err();
            assert!(matches!(error, StoreError::Damaged { line: at, .. } if at == line), "{error}");
        }
    }
}
