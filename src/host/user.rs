//! Users and groups, by number.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Program, Root, file};

/// No system has a larger passwd or group file than this.
const LIMIT: u64 = 64 << 20;

/// How long a directory service may take to answer.
const LOOKUP_LIMIT: Duration = Duration::from_secs(10);

/// A user on whose behalf a program runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: PathBuf,
}

/// Looks a user up by number: in the passwd file, then wherever else the system looks.
pub(crate) fn by_uid(root: &Root, uid: u32) -> Option<User> {
    find(root, &uid.to_string(), |user| user.uid == uid)
}

/// The same by name.
pub(crate) fn by_name(root: &Root, name: &str) -> Option<User> {
    find(root, name, |user| user.name == name)
}

fn find(root: &Root, key: &str, is_meant: impl Fn(&User) -> bool) -> Option<User> {
    let first = |text: &str| text.lines().filter_map(entry).find(&is_meant);
    first(&text(root, "/etc/passwd")).or_else(|| first(&asked(root, &["passwd", "--", key])))
}

/// The accounts of people rather than of programs, by their numbers (`login.defs(5)`).
pub(crate) fn people(root: &Root) -> Vec<User> {
    let definitions = text(root, "/etc/login.defs");
    let number = |key: &str| {
        let mut lines = definitions.lines().map(str::split_whitespace);
        lines.find_map(|mut words| (words.next()? == key).then(|| words.next()?.parse().ok())?)
    };
    let (first, last) = (number("UID_MIN").unwrap_or(1000), number("UID_MAX").unwrap_or(60_000));
    let known = asked(root, &["passwd"]);
    let known = if known.is_empty() { text(root, "/etc/passwd") } else { known };
    let range: std::ops::RangeInclusive<u32> = first..=last;
    known.lines().filter_map(entry).filter(|user| range.contains(&user.uid)).collect()
}

/// The text of a system file; empty if it cannot be read.
fn text(root: &Root, path: &str) -> String {
    let bytes = file::read_untrusted(&root.at(path), LIMIT).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The answer of the system's name service, which may look beyond files.
fn asked(root: &Root, words: &[&str]) -> String {
    if !root.is_system() {
        return String::new();
    }
    let answer = Program::new("/usr/bin/getent").args(words).read_only().limit(LOOKUP_LIMIT).run();
    answer.map(|answer| answer.text()).unwrap_or_default()
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

/// Where the user who runs us wants programs to keep their state.
pub(crate) fn own_state(root: &Root, uid: u32) -> PathBuf {
    absolute("XDG_STATE_HOME").unwrap_or_else(|| usual_state(&own_home(root, uid)))
}

/// Where programs keep their state by default.
pub(crate) fn usual_state(home: &Path) -> PathBuf {
    home.join(".local/state")
}

/// Where a user's service manager and session have their sockets.
pub(crate) fn runtime(uid: u32) -> PathBuf {
    PathBuf::from(format!("/run/user/{uid}"))
}

fn absolute(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// The groups a user is in, besides their own: those that a login would give, or those recorded
/// in a directory that stands for a system.
pub(crate) fn groups(root: &Root, user: &User) -> Vec<u32> {
    // Each program that runs as the user asks for them, and a directory service may be slow.
    static KNOWN: Mutex<BTreeMap<u32, Vec<u32>>> = Mutex::new(BTreeMap::new());
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if root.is_system() {
        if let Some(groups) = known().get(&user.uid) {
            return groups.clone();
        }
    }
    // The number of a user without an account may be the name of another user's account.
    let is_account = by_name(root, &user.name).is_some_and(|found| found.uid == user.uid);
    let groups = if is_account { looked_up(root, user) } else { Vec::new() };
    if root.is_system() {
        known().insert(user.uid, groups.clone());
    }
    groups
}

fn looked_up(root: &Root, user: &User) -> Vec<u32> {
    let answer = asked(root, &["initgroups", "--", &user.name]);
    if let Some(groups) = given(&answer, user) {
        return groups;
    }
    text(root, "/etc/group")
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let gid = fields.nth(2)?.parse().ok()?;
            fields.next()?.split(',').any(|member| member == user.name).then_some(gid)
        })
        .collect()
}

/// The groups in an answer of `getent initgroups`: the name, then their numbers.
fn given(answer: &str, user: &User) -> Option<Vec<u32>> {
    let numbers = answer.lines().next()?.strip_prefix(user.name.as_str())?;
    let groups: Result<Vec<u32>, _> = numbers.split_whitespace().map(str::parse).collect();
    Some(groups.ok()?.into_iter().filter(|gid| *gid != user.gid).collect())
}

/// Whether a user is in a group, as their primary group or as a member.
pub(crate) fn is_in_group(root: &Root, user: &User, group: &str) -> bool {
    let has_him = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, gid, members] = fields.as_slice() else { return false };
        let is_own = gid.parse() == Ok(user.gid);
        *name == group && (is_own || members.split(',').any(|member| member == user.name))
    };
    text(root, "/etc/group").lines().any(has_him)
        || asked(root, &["group", "--", group]).lines().any(has_him)
}

fn entry(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_string();
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = Path::new(fields.nth(1)?).to_path_buf();
    Some(User { name, uid, gid, home })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_those_of_the_systems_name_service() {
        let user = User { name: "DOM\\ann b".into(), uid: 7, gid: 70, home: "/".into() };
        assert_eq!(
            given("DOM\\ann b             70 71 4294967294\n", &user),
            Some(vec![71, 4_294_967_294])
        );
        assert_eq!(given("DOM\\ann b             \n", &user), Some(vec![]));
        for no_answer in ["", "other 71\n", "DOM\\ann b x\n"] {
            assert_eq!(given(no_answer, &user), None, "{no_answer}");
        }
        let root = Root::new("/");
        for user in ["root", "daemon", "_apt"].iter().filter_map(|name| by_name(&root, name)) {
            let id = Program::named(&root, "id").args(["-G", "--", &user.name]).run().unwrap();
            let mut ours = groups(&root, &user);
            let mut all: Vec<u32> =
                id.text().split_whitespace().map(|gid| gid.parse().unwrap()).collect();
            all.retain(|gid| *gid != user.gid);
            ours.sort_unstable();
            all.sort_unstable();
            assert_eq!(ours, all, "{user:?}");
        }
    }

    #[test]
    fn a_number_without_an_account_is_in_no_group_of_a_namesake() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("etc/passwd", "1001:x:1002:1002::/home/x:/bin/sh\n");
        write("etc/group", "ssl:x:50:1001\n");
        let root = Root::new(dir.path());
        let orphan = User { name: "1001".into(), uid: 1001, gid: 1001, home: "/x".into() };
        assert_eq!(groups(&root, &orphan), [0; 0]);
        assert_eq!(groups(&root, &by_uid(&root, 1002).unwrap()), [50]);
    }

    #[test]
    fn a_user_is_found_with_home_and_groups() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(
            dir.path().join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/bash\nweb:x:1001:1002:Web,,,:/srv/web:/bin/sh\n",
        )
        .unwrap();
        std::fs::write(dir.path().join("etc/group"), "ssl:x:50:web,bob\nx:x:51:webb\n").unwrap();
        let root = Root::new(dir.path());
        let user = by_uid(&root, 1001).unwrap();
        assert_eq!(
            user,
            User { name: "web".into(), uid: 1001, gid: 1002, home: "/srv/web".into() }
        );
        assert_eq!(groups(&root, &user), [50]);
        assert_eq!(name(&root, 7), "7");
        assert_eq!(by_name(&root, "web"), Some(user.clone()));
        assert_eq!(people(&root), std::slice::from_ref(&user));
        std::fs::write(dir.path().join("etc/login.defs"), "# UID_MIN 5\nUID_MIN\t\t 1002\n")
            .unwrap();
        assert_eq!(people(&root), []);
        assert!(is_in_group(&root, &user, "ssl") && !is_in_group(&root, &user, "x"));
    }
}
