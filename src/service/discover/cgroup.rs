//! Finds the unit of a process by its cgroup.
//!
//! Below a unit whose cgroup is delegated (a user's manager, a container) the delegate chooses
//! the names. So a path is read from its beginning and only as far as PID 1 created it: slices,
//! then one unit. The rest is ignored.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::unit_name::service_unit;
use crate::host::file;

/// What a process belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CgroupOwner {
    /// A service of the system.
    Unit(String),
    /// A unit of a user's own manager.
    UserUnit { uid: u32, unit: String },
    /// A session, a container, or something unknown.
    Elsewhere,
}

/// The prefix before PID 1's own names: empty on a whole machine, the container's path where a
/// container sees its host's paths.
pub(crate) fn prefix(init: &[u8]) -> Vec<u8> {
    let path = path(init).unwrap_or_default();
    path.strip_suffix(b"/init.scope").unwrap_or_default().to_vec()
}

/// Reads `/proc/PID/cgroup`.
pub(crate) fn place(cgroup: &[u8], prefix: &[u8]) -> CgroupOwner {
    let below = path(cgroup).and_then(|path| path.strip_prefix(prefix)?.strip_prefix(b"/"));
    let Some(below) = below else { return CgroupOwner::Elsewhere };
    let mut parts = below.split(|byte| *byte == b'/');
    let mut slices = Vec::new();
    let Some(unit) = unit(&mut parts, &mut slices) else { return CgroupOwner::Elsewhere };
    if let Some(uid) = unit.strip_prefix("user@").and_then(|rest| rest.strip_suffix(".service")) {
        return user_unit(uid, &slices, &mut parts).unwrap_or(CgroupOwner::Elsewhere);
    }
    match service_unit(&unit) {
        Ok(name) if name == unit => CgroupOwner::Unit(name),
        _ => CgroupOwner::Elsewhere,
    }
}

/// A unit below a user's manager; the user's number is the one that logind gave their slice.
fn user_unit<'a>(
    uid: &str,
    slices: &[&[u8]],
    parts: &mut impl Iterator<Item = &'a [u8]>,
) -> Option<CgroupOwner> {
    let expected = format!("user-{uid}.slice");
    if slices != [b"user.slice", expected.as_bytes()] {
        return None;
    }
    let unit = unit(parts, &mut Vec::new())?;
    let unit = unit.ends_with(".service").then(|| file::printable(&unit))?;
    Some(CgroupOwner::UserUnit { uid: uid.parse().ok()?, unit })
}

/// The first name that is not a slice.
fn unit<'a>(
    parts: &mut impl Iterator<Item = &'a [u8]>,
    slices: &mut Vec<&'a [u8]>,
) -> Option<String> {
    for part in parts {
        if part.ends_with(b".slice") {
            slices.push(part);
            continue;
        }
        // systemd puts `_` in front of a name that the kernel could mistake for one of its own,
        // which never applies to the name of a user's manager.
        let name = match part.strip_prefix(b"_") {
            Some(name) if name.starts_with(b"user@") => return None,
            Some(name) => name,
            None => part,
        };
        return OsStr::from_bytes(name).to_str().map(str::to_string);
    }
    None
}

/// The path in systemd's hierarchy: the unified one, or on older systems its own.
fn path(cgroup: &[u8]) -> Option<&[u8]> {
    let lines = || cgroup.split(|byte| *byte == b'\n');
    let unified = lines().find_map(|line| line.strip_prefix(b"0::")).filter(|path| *path != b"/");
    let own = || {
        lines().find_map(|line| {
            let at = line.windows(14).position(|part| part == b":name=systemd:")?;
            line.get(at + 14..)
        })
    };
    unified.or_else(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(cgroup: &str) -> String {
        match place(cgroup.as_bytes(), b"") {
            CgroupOwner::Unit(unit) => unit,
            CgroupOwner::UserUnit { uid, unit } => format!("{uid}:{unit}"),
            CgroupOwner::Elsewhere => String::new(),
        }
    }

    #[test]
    fn a_unit_is_found_in_any_slice() {
        for (path, unit) in [
            ("/system.slice/web.service", "web.service"),
            ("/apps.slice/apps-shop.slice/web.service", "web.service"),
            (r"/system.slice/system-web.slice/web@blue\x2d1.service", r"web@blue\x2d1.service"),
            // A unit whose cgroup is delegated.
            ("/system.slice/web.service/workers/1", "web.service"),
            ("/system.slice/web.service/other.service", "web.service"),
            ("/system.slice/_cpu.service", "cpu.service"),
        ] {
            assert_eq!(read(&format!("0::{path}\n")), unit, "{path}");
        }
    }

    #[test]
    fn a_users_unit_is_never_the_systems() {
        let manager = "0::/user.slice/user-1000.slice/user@1000.service";
        assert_eq!(read(&format!("{manager}/app.slice/app.service\n")), "1000:app.service");
        // Created by the user in their own cgroup.
        let forged = format!("{manager}/app.slice/x.scope/system.slice/ssh.service\n");
        assert_eq!(read(&forged), "");
        assert_eq!(read(&format!("{manager}/system.slice/ssh.service\n")), "1000:ssh.service");
        for path in [
            "/user.slice/user-1000.slice/user@0.service/app.slice/app.service",
            "/system.slice/user@1000.service/app.service",
            "/user.slice/user-1000.slice/_user@1000.service/app.slice/app.service",
            "/user.slice/user-1000.slice/session-3.scope",
            "/machine.slice/machine-lab.scope/payload/system.slice/web.service",
            "/system.slice/docker-0123.scope",
            "/init.scope",
            "/../../system.slice/web.service",
            "/system.slice/we b.service",
            "/system.slice/web.socket",
            "/",
        ] {
            assert_eq!(read(&format!("0::{path}\n")), "", "{path}");
        }
    }

    #[test]
    fn the_hierarchies_of_older_systems_are_read() {
        let hybrid = "9:name=systemd:/system.slice/web.service\n8:pids:/x\n0::/\n";
        assert_eq!(read(hybrid), "web.service");
        // A container on a machine with both (seen on a lab machine).
        let container = "9:name=systemd:/\n1:cpu:/\n0::/system.slice/web.service\n";
        assert_eq!(read(container), "web.service");
        assert_eq!(read(""), "");
    }

    #[test]
    fn a_container_that_sees_its_hosts_paths_knows_its_own_part() {
        let prefix = prefix(b"0::/machine.slice/machine-lab.scope/payload/init.scope\n");
        let own = b"0::/machine.slice/machine-lab.scope/payload/system.slice/web.service\n";
        assert_eq!(place(own, &prefix), CgroupOwner::Unit("web.service".into()));
        assert_eq!(place(b"0::/system.slice/web.service\n", &prefix), CgroupOwner::Elsewhere);
    }
}
