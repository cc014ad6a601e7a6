//! The directories of units: of the system's manager, and of a user's own.

use std::path::PathBuf;

use crate::host::{Root, user};

/// The directories of the system's units in order of precedence (`systemd.unit(5)`).
const DIRS: [&str; 9] = [
    "/etc/systemd/system.control",
    "/run/systemd/transient",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
];

/// The directories of a user's units: `~` is their home, `$` the directory of their session.
const USER_DIRS: [&str; 11] = [
    "~/.config/systemd/user.control",
    "$/systemd/transient",
    "~/.config/systemd/user",
    "/etc/systemd/user",
    "$/systemd/user",
    "/run/systemd/user",
    "$/systemd/generator",
    "~/.local/share/systemd/user",
    "/usr/local/lib/systemd/user",
    "/usr/lib/systemd/user",
    "$/systemd/generator.late",
];

/// The owner of units, which determines their paths.
pub(crate) enum Whose {
    System,
    User { home: PathBuf, runtime: PathBuf },
}

impl Whose {
    pub(crate) fn of(root: &Root) -> Self {
        match root.user() {
            None => Self::System,
            Some(uid) => {
                Self::User { home: user::own_home(root, uid), runtime: user::runtime(uid) }
            }
        }
    }

    pub(crate) fn dirs(&self) -> Vec<PathBuf> {
        let Self::User { home, runtime } = self else { return DIRS.map(PathBuf::from).to_vec() };
        let below = |dir: &str| match (dir.strip_prefix("~/"), dir.strip_prefix("$/")) {
            (Some(rest), _) => home.join(rest),
            (_, Some(rest)) => runtime.join(rest),
            _ => dir.into(),
        };
        USER_DIRS.map(below).to_vec()
    }

    /// The directory that a specifier stands for, if it stands for one.
    pub(crate) fn dir(&self, specifier: char) -> Option<PathBuf> {
        Some(match (self, specifier) {
            (Self::System, 'h') => "/root".into(),
            (Self::System, 't') => "/run".into(),
            (Self::System, 'S') => "/var/lib".into(),
            (Self::System, 'E') => "/etc".into(),
            (Self::User { home, .. }, 'h') => home.clone(),
            (Self::User { runtime, .. }, 't') => runtime.clone(),
            (Self::User { home, .. }, 'S') => user::usual_state(home),
            (Self::User { home, .. }, 'E') => home.join(".config"),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::unit_file::Settings;
    use super::*;
    use std::path::Path;

    #[test]
    fn specifiers_in_a_users_unit_are_their_own_directories() {
        let whose = Whose::User { home: "/home/bob".into(), runtime: "/run/user/1000".into() };
        let mut settings = Settings::default();
        settings.read("[Service]\nExecStart=%h/app/venv/bin/app --state %S/app --socket %t/app\n");
        let paths = settings.paths(&whose, "app.service");
        for path in
            ["/home/bob/app/venv/bin/app", "/home/bob/.local/state/app", "/run/user/1000/app"]
        {
            assert!(paths.contains(&path.into()), "{path}: {paths:?}");
        }
        assert_eq!(whose.dirs()[2], Path::new("/home/bob/.config/systemd/user"));
    }
}
