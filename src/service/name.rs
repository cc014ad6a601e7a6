//! The notation of services for people and for storage: manager and name.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::NameError;
use super::managers::{MANAGERS, Manager};

/// A service by its manager and name: `systemd:web.service`, `supervisord:group:program`.
/// The manager accepts the name, and no command line could misread it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(into = "Written", try_from = "Written")]
pub(crate) struct Service {
    manager: &'static dyn Manager,
    name: String,
}

/// A service as stored in a file, not yet checked.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Written {
    manager: String,
    name: String,
}

/// Why a text does not name a service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ServiceNameError {
    #[error("{0:?} does not name a service manager (write {forms})", forms = forms())]
    NoManager(String),
    #[error(transparent)]
    Name(#[from] NameError),
}

/// The notation of each manager's services: `systemd:UNIT, user:UNIT or …`.
fn forms() -> String {
    let mut forms: Vec<String> = MANAGERS
        .iter()
        .map(|manager| format!("{}:{}", manager.key(), manager.placeholder()))
        .collect();
    let last = forms.pop().unwrap_or_default();
    format!("{} or {last}", forms.join(", "))
}

fn manager_of(key: &str) -> Option<&'static dyn Manager> {
    MANAGERS.iter().copied().find(|manager| manager.key() == key)
}

impl Service {
    pub(super) fn new(manager: &'static dyn Manager, name: &str) -> Result<Self, NameError> {
        Ok(Self { manager, name: manager.parse(name)? })
    }

    /// The manager that runs it.
    pub(super) fn manager(&self) -> &'static dyn Manager {
        self.manager
    }

    /// The prefix of its name.
    pub(crate) fn manager_key(&self) -> &'static str {
        self.manager.key()
    }

    /// Its name for the manager.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What it has in common with others of its kind.
    pub(crate) fn family(&self) -> Option<String> {
        self.manager.family(&self.name)
    }

    fn identity(&self) -> (&str, &str) {
        (self.manager.key(), &self.name)
    }
}

impl FromStr for Service {
    type Err = ServiceNameError;

    fn from_str(text: &str) -> Result<Self, ServiceNameError> {
        let (key, name) = text.split_once(':').unwrap_or((text, ""));
        match manager_of(key) {
            Some(manager) => Ok(Self::new(manager, name)?),
            None => Err(ServiceNameError::NoManager(text.to_string())),
        }
    }
}

impl TryFrom<Written> for Service {
    type Error = ServiceNameError;

    fn try_from(written: Written) -> Result<Self, ServiceNameError> {
        match manager_of(&written.manager) {
            Some(manager) => Ok(Self::new(manager, &written.name)?),
            None => Err(ServiceNameError::NoManager(written.manager)),
        }
    }
}

impl From<Service> for Written {
    fn from(service: Service) -> Self {
        Self { manager: service.manager.key().to_string(), name: service.name }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.manager.key(), self.name)
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service({self})")
    }
}

impl PartialEq for Service {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Service {}

impl PartialOrd for Service {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Service {
    fn cmp(&self, other: &Self) -> Ordering {
        self.identity().cmp(&other.identity())
    }
}

impl Hash for Service {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
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
            ("runit:web", "runit:web"),
            ("s6:web", "s6:web"),
        ] {
            assert_eq!(written.parse::<Service>().unwrap().to_string(), shown, "{written}");
        }
    }

    #[test]
    fn invalid_names_are_refused_with_the_reason() {
        for (written, why) in [
            ("web.service", "does not name a service manager"),
            ("docker:web", "does not name a service manager"),
            ("web", "write systemd:UNIT, user:UNIT, supervisord:PROGRAM, runit:NAME or s6:NAME"),
            ("runit:../web", "is not the name of a runit service"),
            ("s6:../web", "is not the name of an s6 service"),
            ("systemd:", "is not the name of a systemd unit"),
            ("systemd:-H.service", "is not the name of a systemd unit"),
            ("systemd:--help", "is not the name of a systemd unit"),
            ("systemd:@x.service", "is not the name of a systemd unit"),
            ("systemd:we b", "is not the name of a systemd unit"),
            ("systemd:web\n", "is not the name of a systemd unit"),
            ("systemd:../web", "is not the name of a systemd unit"),
            ("systemd:web*", "is not the name of a systemd unit"),
            ("systemd:web.timer", "only services"),
            ("systemd:web@.service", "is a template"),
            ("user:web.timer", "only services"),
            ("supervisord:", "is not the name of a supervisord program"),
            ("supervisord:pair:*", "is not the name of a supervisord program"),
            ("supervisord:a:b:c", "is not the name of a supervisord program"),
            ("supervisord:-a", "is not the name of a supervisord program"),
            ("supervisord:a\u{202e}b", "is not the name of a supervisord program"),
            ("supervisord:a\u{1b}[2J", "is not the name of a supervisord program"),
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
