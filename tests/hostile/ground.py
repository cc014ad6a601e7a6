"""Records everything that must not change before an attack, and compares after it: `ground.py before`, `ground.py after`.

The latter prints a JSON list of everything that the attacker has won. Before an upgrade of packages, `ground.py before
upgrade` leaves out the places that the upgrade changes."""

import ctypes
import glob
import hashlib
import json
import os
import pwd
import re
import stat
import subprocess
import sys

# Directories to watch with everything in them, and directories of which only the names are watched.
TREES = ["/etc", "/root", "/home/bob", "/usr/local", "/usr/bin", "/usr/sbin", "/opt", "/boot", "/var/lib/decoy"]
DIRS = ["/", "/dev", "/home", "/srv", "/usr", "/usr/lib", "/var", "/var/lib"]
PACKAGES = {"/etc", "/usr/bin", "/usr/lib", "/usr/local", "/usr/sbin", "/var/lib"}
# The directory that venvguard itself writes to, and the cache of root's own installers.
EXCEPT = {"/var/lib/venvguard", "/root/.cache"}
MALLORY = pwd.getpwnam("mallory")
BOB = pwd.getpwnam("bob")
SECRET = b"xyzzy-canary"
# Mallory's own secret.
PASSWORD = b"xyzzy-password"
# How much of sparse files venvguard may keep, on the disk and in length, in bytes.
KEPT_LIMITS = [256 << 20, (2 << 30) + (128 << 20)]
BEFORE = "/srv/hostile/kept/before.json"


def facts(path):
    found = os.lstat(path)
    names = [found.st_nlink, found.st_ctime_ns]
    what = [names, found.st_ino, oct(found.st_mode), found.st_uid, found.st_gid, found.st_mtime_ns]
    if stat.S_ISREG(found.st_mode):
        what.append(found.st_size)
    if stat.S_ISLNK(found.st_mode):
        what.append(os.readlink(path))
    return what


def below(top):
    yield top
    for directory, directories, files in os.walk(top):
        directories[:] = [name for name in directories if os.path.join(directory, name) not in EXCEPT]
        for name in directories + files:
            yield os.path.join(directory, name)


def watched(upgrade):
    seen = {}
    left_out = PACKAGES if upgrade else set()
    for top in set(TREES) - left_out:
        for path in below(top):
            seen[path] = facts(path)
    for top in set(DIRS) - left_out:
        for name in sorted(os.listdir(top)):
            path = os.path.join(top, name)
            if path not in seen and path not in EXCEPT:
                found = os.lstat(path)
                seen[path] = [[1, None], None, oct(found.st_mode), found.st_uid, found.st_gid]
    return seen


def service():
    show = ["systemctl", "show", "--property", "MainPID,ActiveState,NRestarts", "canary"]
    return subprocess.run(show, capture_output=True, text=True).stdout


# Exists if a venv is built in place; its builders then have no temporary directory of their own.
IN_PLACE = "/srv/hostile/kept/in-place"
VENV = re.compile(r"/(venv|\.venv\.venvguard-[^/]*)/")


def is_theirs_to_remove(path, one):
    """Whether the attacker may remove a file: they own it; or they own the directory that it lies in, and it is not a
    non-empty directory of somebody else."""
    if one.st_uid == MALLORY.pw_uid:
        return True
    is_full = stat.S_ISDIR(one.st_mode) and bool(os.listdir(path))
    return not is_full and os.lstat(os.path.dirname(path)).st_uid == MALLORY.pw_uid


def about(path, one):
    what = [oct(one.st_mode), one.st_uid, one.st_gid]
    if stat.S_ISDIR(one.st_mode):
        return [*what, sorted(os.listdir(path))]
    return [*what, one.st_size, one.st_mtime_ns, one.st_nlink]


def inside(tops):
    for top in tops:
        for path in below(top):
            try:
                yield path, os.lstat(path)
            except OSError:
                pass


def number_of(one):
    """The identity of a file, independent of its name; an overlay numbers directories in a series of their own."""
    return f"{one.st_dev}:{one.st_ino}"


def others():
    """The files of others in the attacker's home, by their numbers, because the attacker may rename them. Leaves out files
    that the attacker may remove from a venv."""
    return {
        number_of(one): [path, *about(path, one)]
        for path, one in inside(["/home/mallory"])
        if one.st_uid != MALLORY.pw_uid and not (VENV.search(path) and is_theirs_to_remove(path, one))
    }


def changed_of_others(were):
    now = {}
    for path, one in inside(["/home/mallory", "/root", "/home/bob"]):
        number = number_of(one)
        if number in were:
            now[number] = about(path, one)
        elif path.startswith("/home/mallory/") and not is_theirs_to_remove(path, one):
            yield f"{path}, in their home and not theirs, is new: {about(path, one)}"
    for number, (path, *what) in were.items():
        is_now = now.get(number, ["gone"])
        if type(is_now[-1]) is type(what[-1]) is int:
            # Removing a name of it is allowed.
            is_now[-1] = max(is_now[-1], what[-1])
        if is_now != what:
            yield f"{path}, in their home and not theirs, was {what} and is {is_now}"


def has_landlock():
    return ctypes.CDLL(None).syscall(444, None, 0, 1) > 0


PLACES = ["/home/mallory", "/tmp", "/var/tmp", "/var/log", "/var/lib/venvguard", "/run"]


def leaks(user, secret, places):
    """The files in which a user can read a secret that is not for them; a process of theirs tries every path."""
    paths = [path for path, one in inside(places) if stat.S_ISREG(one.st_mode) and one.st_size < 1 << 20]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(*[user.pw_gid] * 3)
        os.setresuid(*[user.pw_uid] * 3)
        found = []
        for path in paths:
            try:
                with open(path, "rb") as file:
                    if secret in file.read():
                        found.append(path)
            except OSError:
                pass
        os.write(writing, json.dumps(found).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        found = json.loads(file.read() or b"[]")
    os.waitpid(child, 0)
    return found


def in_journal():
    journal = ["journalctl", "--quiet", "--no-pager", "--output=cat", "--identifier=venvguard"]
    return subprocess.run(journal, capture_output=True).stdout.count(PASSWORD)


def kept():
    """The size of everything that venvguard keeps, on the disk and in length, in bytes."""
    files = [one for _, one in inside(["/var/lib/venvguard"])]
    return [sum(one.st_blocks * 512 for one in files), sum(one.st_size for one in files)]


def of_loot(path):
    """The violations when a piece of the attacker's code ran."""
    with open(path) as file:
        found = json.load(file)
    how, wrong = found["how"], []
    if set(found["ids"]) != {str(MALLORY.pw_uid)}:
        wrong.append(f"ran as {found['ids']}")
    if not found["gains nothing"] or found["gained"] == "0":
        wrong.append("could gain privileges")
    if not found["session of its own"]:
        wrong.append("shared root's session")
    if not found["no core files"]:
        wrong.append("had no limits")
    for name in ("read", "wrote"):
        if found[name]:
            wrong.append(f"{name} {found[name]}")
    wrong += [f"saw {pair}" for pair in found["environment"] if "evil" in pair]
    wrong += [f"had {name} open" for name in found["descriptors"] if "canary" in name or name.startswith("/root")]
    if how == "backend" and found["elsewhere"] and has_landlock():
        wrong.append("wrote where an installer has no business")
    if how == "backend" and found["shared"] and not os.path.exists(IN_PLACE):
        wrong.append(f"saw {found['shared']}, as everybody does")
    return [f"{how}: {one}" for one in wrong]


def commands():
    for process in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(process, "rb") as file:
                yield file.read().rstrip(b"\0").split(b"\0")
        except OSError:
            pass


def before(upgrade=None):
    with open(BEFORE, "w") as file:
        json.dump([upgrade, service(), watched(upgrade), others(), in_journal(), kept()], file)


def after():
    with open(BEFORE) as file:
        upgrade, service_was, was, were_others, journal_was, kept_was = json.load(file)
    now = watched(upgrade)
    won = [f"{path} is new" for path in now if path not in was]
    won += [f"{path} is gone" for path in was if path not in now]
    if service() != service_was:
        won.append(f"the service was {service_was!r} and is {service()!r}")
    for path in was.keys() & now.keys():
        one, other = was[path], now[path]
        if stat.S_ISREG(int(one[2], 8)) and one[0][0] > 1:
            # The attacker has had a name of this file from the beginning, and may remove that name.
            one, other = one[1:], other[1:]
        if one != other:
            won.append(f"{path} was {one} and is {other}")
    won += changed_of_others(were_others)
    for path in below("/home/mallory"):
        try:
            one = os.lstat(path)
        except OSError:
            continue
        if one.st_uid == 0 and one.st_mode & 0o6000:
            won.append(f"{path} is root's and set-user-id")
    won += [f"mallory can read the secret in {path}" for path in leaks(MALLORY, SECRET, PLACES)]
    won += [f"bob can read mallory's secret in {path}" for path in leaks(BOB, PASSWORD, PLACES[1:])]
    if in_journal() != journal_was:
        won.append("mallory's secret is in the journal")
    for one, other, limit in zip(kept_was, kept(), KEPT_LIMITS):
        if other - one > limit:
            won.append(f"venvguard keeps {other - one} bytes for them")
    loot = sorted(glob.glob("/home/mallory/.cache/loot/*"))
    for path in loot:
        won += of_loot(path)
    if [b"sleep", b"4711"] in commands():
        won.append("something that it started in its group still runs")
    print("--- ran " + " ".join(sorted({path.rsplit("-", 1)[1] for path in loot})))
    print("--- won " + json.dumps(won))


{"before": before, "after": after}[sys.argv[1]](*sys.argv[2:])
