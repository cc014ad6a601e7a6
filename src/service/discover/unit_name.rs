//! The valid names of systemd's services.

use crate::service::error::NameError;

/// The longest name that systemd accepts, suffix included (`UNIT_NAME_MAX` less the final NUL).
const LONGEST: usize = 255;

/// The suffixes of other kinds of units: such names are refused, not turned into services.
const OTHER_UNITS: [&str; 10] =
    ["automount", "device", "mount", "path", "scope", "slice", "socket", "swap", "target", "timer"];

/// The full name of a service unit: `web` stands for `web.service`, as with systemctl.
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
        // systemctl would read it as an option; systemd itself allows only `-.mount` and
        // `-.slice`, and no service's name needs to begin with a dash.
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

/// Units that start what others ask them to: jobs, sessions, containers. What runs in them is
/// never their service, and they are not restarted for it.
const STARTERS: [&str; 33] = [
    "anacron",
    "atd",
    "bcron-sched",
    "console-getty",
    "container-getty",
    "containerd",
    "crio",
    "cron",
    "crond",
    "cronie",
    "dbus",
    "dbus-broker",
    "display-manager",
    "docker",
    "fcron",
    "gdm",
    "gdm3",
    "getty",
    "greetd",
    "incus",
    "libvirtd",
    "lightdm",
    "lxc",
    "lxcfs",
    "lxd",
    "lxdm",
    "podman",
    "sddm",
    "serial-getty",
    "ssh",
    "sshd",
    "systemd-nspawn",
    "user",
];

/// Whether a unit starts jobs, sessions or containers of others: `cron.service`, `ssh@1.service`.
pub(crate) fn starts_others(unit: &str) -> bool {
    let stem = unit.strip_suffix(".service").unwrap_or(unit);
    STARTERS.contains(&stem.split('@').next().unwrap_or(stem))
}

fn is_service(name: &str) -> bool {
    name.strip_suffix("service").is_some_and(|front| front.ends_with('.'))
}
