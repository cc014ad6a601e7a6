//! The windows that venvs wait for.

use jiff::ZonedDateTime;

use crate::plan::{RestartMode, Window};
use crate::store::{Config, RegistryEntry};

/// Whether the services of a venv wait for a window unless it is open.
pub(crate) fn has_window(config: &Config, entry: &RegistryEntry) -> bool {
    entry.restart.unwrap_or(config.restart) == RestartMode::Window
}

/// The window of a venv, if it or the configuration has one.
pub(crate) fn window_of<'a>(config: &'a Config, entry: &'a RegistryEntry) -> Option<&'a Window> {
    entry.window.as_ref().or(config.window.as_ref()).filter(|_| has_window(config, entry))
}

/// The window that the services of a venv wait for, unless it is open now.
pub(super) fn waits_for(
    config: &Config,
    entry: &RegistryEntry,
    now: impl FnOnce() -> ZonedDateTime,
) -> Option<String> {
    if !has_window(config, entry) {
        return None;
    }
    match window_of(config, entry) {
        Some(window) if window.opened(&now()).is_some() => None,
        Some(window) => Some(window.to_string()),
        None => Some("no window is set".into()),
    }
}

/// When the services of a venv restart, in words.
pub(super) fn restarts(
    config: &Config,
    entry: &RegistryEntry,
    now: &ZonedDateTime,
) -> Option<String> {
    if !has_window(config, entry) {
        return None;
    }
    let Some(window) = window_of(config, entry) else {
        return Some("its restart mode is \"window\", but no window is set".into());
    };
    // An open window is over for what was tried in it.
    let opens = window.next(now);
    Some(opens.map_or_else(
        || format!("its window never opens again ({window})"),
        |opens| {
            format!(
                "its services restart in the window of {}",
                opens.strftime("%a %Y-%m-%d %H:%M %Z")
            )
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Policy;
    use crate::store::Registry;

    #[test]
    fn a_venv_waits_for_its_own_window_or_that_of_the_configuration() {
        let mut registry = Registry::default();
        let entry = registry.add("/srv/shop/venv".as_ref(), None, Policy::Auto).unwrap();
        let now = jiff::civil::date(2026, 12, 5).at(4, 0, 0, 0);
        let now = now.to_zoned_datetime(jiff::tz::TimeZone::UTC).unwrap();
        let (open, closed) = ("Sat 03:00..05:00", "Sun 03:00..05:00");
        let set = |window: &str| Config {
            restart: RestartMode::Window,
            window: Some(window.parse().unwrap()),
            ..Config::default()
        };
        let both = |config: &Config, entry: &RegistryEntry| {
            (waits_for(config, entry, || now.clone()), restarts(config, entry, &now))
        };
        assert_eq!(both(&Config::default(), entry), (None, None));
        let next =
            Some("its services restart in the window of Sat 2026-12-12 03:00 UTC".to_string());
        assert_eq!(both(&set(open), entry), (None, next));
        let next =
            Some("its services restart in the window of Sun 2026-12-06 03:00 UTC".to_string());
        assert_eq!(both(&set(closed), entry), (Some(closed.into()), next.clone()));
        entry.window = Some(closed.parse().unwrap());
        assert_eq!(both(&set(open), entry), (Some(closed.into()), next.clone()));
        assert_eq!(both(&Config::default(), entry), (None, None), "its mode is another");
        entry.restart = Some(RestartMode::Window);
        assert_eq!(both(&Config::default(), entry), (Some(closed.into()), next));
        entry.window = None;
        assert_eq!(
            waits_for(&Config::default(), entry, || now.clone()),
            Some("no window is set".into())
        );
        entry.restart = Some(RestartMode::Now);
        assert_eq!(both(&set(closed), entry), (None, None));
    }
}
