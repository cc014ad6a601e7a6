//! The names of services, as people write them and as managers know them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::host::file;

/// The longest name that systemd takes, suffix included (`UNIT_NAME_MAX` less the end).
const LONGEST_UNIT: usize = 255;

/// Supervisord sets no limit; a longer name is no name that somebody chose.
const LONGEST_PROGRAM: usize = 255;

/// What other kinds of unit end in: their names are refused, not made into services.
const OTHER_UNITS: [&str; 10] =
    ["automount", "device", "mount", "path", "scope", "slice", "socket", "swap", "target", "timer"];

/// Who runs a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Manager {
    Systemd,
    Supervisord,
    /// The systemd of one user, who is whoever registered the venv.
    User,
}

/// A service by its manager and name: `systemd:web.service`, `supervisord:group:program`,
/// `user:web.service`.
/// Its name is one that the manager can bear and that no command line misreads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, try_from = "Written")]
pub(crate) struct Service {
    manager: Manager,
    name: String,
}

/// A service as it stands in a file, not looked at yet.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Written {
    manager: Manager,
    name: String,
}

/// Why a text names no service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ServiceNameError {
    #[error(
        "{0:?} names no service manager (write systemd:UNIT, supervisord:PROGRAM or user:UNIT)"
    )]
    NoManager(String),
    #[error("{0:?} is no name of a systemd unit")]
    NotAUnit(String),
    #[error("{0:?} is no service: only services can be restarted")]
    OtherUnit(String),
    #[error("{0:?} is a template: name one of its instances (NAME@INSTANCE.service)")]
    Template(String),
    #[error("{0:?} is no name of a supervisord program (PROGRAM or GROUP:PROGRAM)")]
    NotAProgram(String),
}

impl Service {
    /// A systemd unit. `web` stands for `web.service`, as it does for systemctl.
    pub(crate) fn unit(name: &str) -> Result<Self, ServiceNameError> {
        if OTHER_UNITS
            .iter()
            .any(|kind| name.strip_suffix(kind).is_some_and(|front| front.ends_with('.')))
        {
            return Err(ServiceNameError::OtherUnit(name.to_string()));
        }
        let name = if is_service_name(name) { name.to_string() } else { format!("{name}.service") };
        let stem = name.strip_suffix(".service").unwrap_or_default();
        let alphabet = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        let fits = !stem.is_empty()
            && name.len() <= LONGEST_UNIT
            && name.bytes().all(alphabet)
            // systemctl would take it for an option; systemd itself allows only `-.mount` and
            // `-.slice`, and a dash is never needed at the front of a service's name.
            && !stem.starts_with(['-', '@']);
        if !fits {
            return Err(ServiceNameError::NotAUnit(name));
        }
        if stem.ends_with('@') {
            return Err(ServiceNameError::Template(name));
        }
        Ok(Self { manager: Manager::Systemd, name })
    }

    /// A unit of the manager that a user has of his own.
    pub(crate) fn users_unit(name: &str) -> Result<Self, ServiceNameError> {
        Ok(Self { manager: Manager::User, ..Self::unit(name)? })
    }

    /// A supervisord program. One that is alone in its group is called by its name only,
    /// as supervisorctl does.
    pub(crate) fn program(group: &str, name: &str) -> Result<Self, ServiceNameError> {
        let full = if group == name { name.to_string() } else { format!("{group}:{name}") };
        // What supervisord 4 refuses itself, control characters, and `*`, which stands for
        // a whole group in its calls; and what cannot be printed as it is.
        let fits = |part: &str| {
            !part.is_empty()
                && !part.starts_with('-')
                && file::printable(part) == part
                && !part.contains(|c: char| c.is_whitespace() || ":/*".contains(c))
        };
        if full.len() <= LONGEST_PROGRAM && fits(group) && fits(name) {
            Ok(Self { manager: Manager::Supervisord, name: full })
        } else {
            Err(ServiceNameError::NotAProgram(full))
        }
    }

    pub(crate) fn manager(&self) -> Manager {
        self.manager
    }

    /// The name that the manager knows it by.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

fn is_service_name(name: &str) -> bool {
    name.strip_suffix("service").is_some_and(|front| front.ends_with('.'))
}

impl FromStr for Service {
    type Err = ServiceNameError;

    fn from_str(text: &str) -> Result<Self, ServiceNameError> {
        match text.split_once(':') {
            Some(("systemd", name)) => Self::unit(name),
            Some(("user", name)) => Self::users_unit(name),
            Some(("supervisord", name)) => {
                let (group, program) = name.split_once(':').unwrap_or((name, name));
                Self::program(group, program)
            }
            _ => Err(ServiceNameError::NoManager(text.to_string())),
        }
    }
}

impl TryFrom<Written> for Service {
    type Error = ServiceNameError;

    fn try_from(written: Written) -> Result<Self, ServiceNameError> {
        format!("{}:{}", written.manager, written.name).parse()
    }
}

impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Systemd => "systemd",
            Self::Supervisord => "supervisord",
            Self::User => "user",
        })
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.manager, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_written_as_it_is_read() {
        for (written, shown) in [
            ("systemd:web.service", "systemd:web.service"),
            ("systemd:web", "systemd:web.service"),
            ("systemd:my.app", "systemd:my.app.service"),
            ("systemd:web@blue", "systemd:web@blue.service"),
            (r"systemd:srv-my\x2dapp.service", r"systemd:srv-my\x2dapp.service"),
            ("user:web", "user:web.service"),
            ("supervisord:dj", "supervisord:dj"),
            ("supervisord:dj:dj", "supervisord:dj"),
            ("supervisord:pair:dj_00", "supervisord:pair:dj_00"),
        ] {
            assert_eq!(written.parse::<Service>().unwrap().to_string(), shown, "{written}");
        }
    }

    #[test]
    fn what_names_no_service_is_refused_and_told_why() {
        for (written, why) in [
            ("web.service", "names no service manager"),
            ("docker:web", "names no service manager"),
            ("systemd:", "is no name of a systemd unit"),
            ("systemd:-H.service", "is no name of a systemd unit"),
            ("systemd:--help", "is no name of a systemd unit"),
            ("systemd:@x.service", "is no name of a systemd unit"),
            ("systemd:we b", "is no name of a systemd unit"),
            ("systemd:web\n", "is no name of a systemd unit"),
            ("systemd:../web", "is no name of a systemd unit"),
            ("systemd:web*", "is no name of a systemd unit"),
            ("systemd:web.timer", "only services"),
            ("systemd:web@.service", "is a template"),
            ("user:web.timer", "only services"),
            ("supervisord:", "is no name of a supervisord program"),
            ("supervisord:pair:*", "is no name of a supervisord program"),
            ("supervisord:a:b:c", "is no name of a supervisord program"),
            ("supervisord:-a", "is no name of a supervisord program"),
            ("supervisord:a\u{202e}b", "is no name of a supervisord program"),
            ("supervisord:a\u{1b}[2J", "is no name of a supervisord program"),
        ] {
            let error = written.parse::<Service>().unwrap_err().to_string();
            assert!(error.contains(why), "{written:?}: {error}");
            assert!(!error.contains(['\n', '\u{1b}']), "escaped: {error}");
        }
        let long = format!("systemd:{}", "a".repeat(300));
        assert!(long.parse::<Service>().is_err());
    }

    #[test]
    fn a_stored_service_is_checked_when_it_is_read() {
        let service: Service = "systemd:web".parse().unwrap();
        let json = serde_json::to_string(&service).unwrap();
        assert_eq!(json, r#"{"manager":"systemd","name":"web.service"}"#);
        assert_eq!(serde_json::from_str::<Service>(&json).unwrap(), service);
        let forged = r#"{"manager":"systemd","name":"--force.service"}"#;
        assert!(serde_json::from_str::<Service>(forged).is_err());
    }
}
