//! Users and groups, by number.

use std::path::{Path, PathBuf};

use super::{Program, Root, file};

/// No system has a larger passwd or group file than this.
const LIMIT: u64 = 64 << 20;

/// Somebody on whose behalf a program is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: PathBuf,
}

/// Looks a user up by number: in the passwd file, then wherever else the system looks.
pub(crate) fn by_uid(root: &Root, uid: u32) -> Option<User> {
    let passwd = file::read_untrusted(&root.at("/etc/passwd"), LIMIT).ok()?;
    let found = String::from_utf8_lossy(&passwd).lines().find_map(|line| entry(line, uid));
    if found.is_some() || !root.is_system() {
        return found;
    }
    let answer = Program::new("/usr/bin/getent").arg("passwd").arg(uid.to_string()).run().ok()?;
    answer.text().lines().find_map(|line| entry(line, uid))
}

/// A name for a number; the number itself where it has none.
pub(crate) fn name(root: &Root, uid: u32) -> String {
    by_uid(root, uid).map_or_else(|| uid.to_string(), |user| user.name)
}

/// The home of the user who runs us.
pub(crate) fn own_home(root: &Root, uid: u32) -> PathBuf {
    let known = || by_uid(root, uid).map(|user| user.home);
    absolute("HOME").or_else(known).unwrap_or_else(|| "/nonexistent".into())
}

/// Where the user who runs us wants programs to keep what they know.
pub(crate) fn own_state(root: &Root, uid: u32) -> PathBuf {
    absolute("XDG_STATE_HOME").unwrap_or_else(|| usual_state(&own_home(root, uid)))
}

/// Where they keep it unless he says otherwise.
pub(crate) fn usual_state(home: &Path) -> PathBuf {
    home.join(".local/state")
}

/// Where a user's manager and his session have their sockets.
pub(crate) fn runtime(uid: u32) -> PathBuf {
    PathBuf::from(format!("/run/user/{uid}"))
}

fn absolute(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// The groups a user is in, besides his own.
pub(crate) fn groups(root: &Root, user: &User) -> Vec<u32> {
    let Ok(text) = file::read_untrusted(&root.at("/etc/group"), LIMIT) else {
        return Vec::new();
    };
    String::from_utf8_lossy(&text)
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let gid = fields.nth(2)?.parse().ok()?;
            fields.next()?.split(',').any(|member| member == user.name).then_some(gid)
        })
        .collect()
}

fn entry(line: &str, wanted: u32) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_string();
    let uid = fields.nth(1)?.parse().ok().filter(|uid| *uid == wanted)?;
    let gid = fields.next()?.parse().ok()?;
    let home = Path::new(fields.nth(1)?).to_path_buf();
    Some(User { name, uid, gid, home })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_with_home_and_groups() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("etc")).unwrap();
        std::fs::write(
            folder.path().join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/bash\nweb:x:1001:1002:Web,,,:/srv/web:/bin/sh\n",
        )
        .unwrap();
        std::fs::write(folder.path().join("etc/group"), "ssl:x:50:web,bob\nx:x:51:webb\n").unwrap();
        let root = Root::new(folder.path());
        let user = by_uid(&root, 1001).unwrap();
        assert_eq!(
            user,
            User { name: "web".into(), uid: 1001, gid: 1002, home: "/srv/web".into() }
        );
        assert_eq!(groups(&root, &user), [50]);
        assert_eq!(name(&root, 7), "7");
    }
}
