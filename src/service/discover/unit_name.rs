//! The names that systemd's services can bear.

use crate::service::error::NameError;

/// The longest name that systemd takes, suffix included (`UNIT_NAME_MAX` less the end).
const LONGEST: usize = 255;

/// What other kinds of unit end in: their names are refused, not made into services.
const OTHER_UNITS: [&str; 10] =
    ["automount", "device", "mount", "path", "scope", "slice", "socket", "swap", "target", "timer"];

/// The whole name of a service unit: `web` stands for `web.service`, as it does for systemctl.
pub(crate) fn service_unit(name: &str) -> Result<String, NameError> {
    if OTHER_UNITS
        .iter()
        .any(|kind| name.strip_suffix(kind).is_some_and(|front| front.ends_with('.')))
    {
        return Err(NameError::new(name, "is not a service: only services can be restarted"));
    }
    let name = if is_service(name) { name.to_string() } else { format!("{name}.service") };
    let stem = name.strip_suffix(".service").unwrap_or_default();
    let alphabet = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    let fits = !stem.is_empty()
        && name.len() <= LONGEST
        && name.bytes().all(alphabet)
        // systemctl would take it for an option; systemd itself allows only `-.mount` and
        // `-.slice`, and a dash is never needed at the front of a service's name.
        && !stem.starts_with(['-', '@']);
    if !fits {
        return Err(NameError::new(name, "is not the name of a systemd unit"));
    }
    if stem.ends_with('@') {
        let problem = "is a template: name one of its instances (NAME@INSTANCE.service)";
        return Err(NameError::new(name, problem));
    }
    Ok(name)
}

fn is_service(name: &str) -> bool {
    name.strip_suffix("service").is_some_and(|front| front.ends_with('.'))
}
