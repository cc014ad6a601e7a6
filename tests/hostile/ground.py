"""What must not change, as it is before an attack and after it: `ground.py before`, `ground.py after`.

The latter prints a JSON list of all that the attacker has won. Before an upgrade of packages, `ground.py before upgrade`
leaves out what that changes."""

import ctypes
import glob
import hashlib
import json
import os
import pwd
import stat
import subprocess
import sys

# Folders that are watched with all that is in them, and those whose names are.
TREES = ["/etc", "/root", "/home/bob", "/usr/local", "/usr/bin", "/usr/sbin", "/opt", "/boot", "/var/lib/decoy"]
FOLDERS = ["/", "/dev", "/home", "/srv", "/usr", "/usr/lib", "/var", "/var/lib"]
PACKAGES = {"/etc", "/usr/bin", "/usr/lib", "/usr/local", "/usr/sbin", "/var/lib"}
# What venvguard itself writes to, and the caches of root's own installers.
EXCEPT = {"/var/lib/venvguard", "/root/.cache"}
MALLORY = pwd.getpwnam("mallory")
SECRET = b"xyzzy-canary"
KEPT = "/srv/hostile/kept/before.json"


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
    for folder, folders, files in os.walk(top):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in EXCEPT]
        for name in folders + files:
            yield os.path.join(folder, name)


def watched(upgrade):
    seen = {}
    left_out = PACKAGES if upgrade else set()
    for top in set(TREES) - left_out:
        for path in below(top):
            seen[path] = facts(path)
    for top in set(FOLDERS) - left_out:
        for name in sorted(os.listdir(top)):
            path = os.path.join(top, name)
            if path not in seen and path not in EXCEPT:
                found = os.lstat(path)
                seen[path] = [[1, None], None, oct(found.st_mode), found.st_uid, found.st_gid]
    return seen


def service():
    show = ["systemctl", "show", "--property", "MainPID,ActiveState,NRestarts", "canary"]
    return subprocess.run(show, capture_output=True, text=True).stdout


def others():
    """What of somebody else's lies beside the attacker's venv: by its number, for he may rename it."""
    found = {}
    for path in below("/home/mallory"):
        if path.startswith("/home/mallory/place/venv/"):
            continue
        try:
            one = os.lstat(path)
        except OSError:
            continue
        if one.st_uid != MALLORY.pw_uid:
            found[str(one.st_ino)] = [path, oct(one.st_mode), one.st_uid, one.st_gid]
    return found


def owner_of(number):
    for top in ("/home/mallory", "/root", "/home/bob"):
        for path in below(top):
            try:
                one = os.lstat(path)
            except OSError:
                continue
            if str(one.st_ino) == number:
                return [oct(one.st_mode), one.st_uid, one.st_gid]
    return None


def has_landlock():
    return ctypes.CDLL(None).syscall(444, None, 0, 1) > 0


def leaks():
    """The files in which he can read what is not for him; looked for by a process of his."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(*[MALLORY.pw_gid] * 3)
        os.setresuid(*[MALLORY.pw_uid] * 3)
        found = []
        for top in ["/home/mallory", "/tmp", "/var/tmp", "/var/log", "/var/lib/venvguard", "/run"]:
            for path in below(top):
                try:
                    one = os.lstat(path)
                    if stat.S_ISREG(one.st_mode) and one.st_size < 1 << 20:
                        with open(path, "rb") as file:
                            if SECRET in file.read():
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


def of_loot(path):
    """What is wrong with how a piece of his code was run."""
    with open(path) as file:
        found = json.load(file)
    how, wrong = found["how"], []
    if set(found["ids"]) != {str(MALLORY.pw_uid)}:
        wrong.append(f"ran as {found['ids']}")
    if not found["gains nothing"] or found["gained"] == "0":
        wrong.append("could gain privileges")
    if not found["no core files"]:
        wrong.append("had no limits")
    for name in ("read", "wrote"):
        if found[name]:
            wrong.append(f"{name} {found[name]}")
    wrong += [f"saw {pair}" for pair in found["environment"] if "evil" in pair]
    wrong += [f"had {name} open" for name in found["descriptors"] if "canary" in name or name.startswith("/root")]
    if how == "backend" and found["elsewhere"] and has_landlock():
        wrong.append("wrote where an installer has no business")
    if how == "backend" and found["shared"]:
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
    with open(KEPT, "w") as file:
        json.dump([upgrade, service(), watched(upgrade), others()], file)


def after():
    with open(KEPT) as file:
        upgrade, service_was, was, were_others = json.load(file)
    now = watched(upgrade)
    won = [f"{path} is new" for path in now if path not in was]
    won += [f"{path} is gone" for path in was if path not in now]
    if service() != service_was:
        won.append(f"the service was {service_was!r} and is {service()!r}")
    for path in was.keys() & now.keys():
        one, other = was[path], now[path]
        if stat.S_ISREG(int(one[2], 8)) and one[0][0] > 1:
            # A file of which the attacker has a name from the beginning: he may take that away.
            one, other = one[1:], other[1:]
        if one != other:
            won.append(f"{path} was {one} and is {other}")
    for number, (path, *what) in were_others.items():
        is_now = owner_of(number)
        if is_now != what:
            won.append(f"{path}, in his home and not his, was {what} and is {is_now}")
    for path in below("/home/mallory"):
        try:
            one = os.lstat(path)
        except OSError:
            continue
        if one.st_uid == 0 and one.st_mode & 0o6000:
            won.append(f"{path} is root's and set-user-id")
    won += [f"he can read the secret in {path}" for path in leaks()]
    loot = sorted(glob.glob("/home/mallory/.cache/loot/*"))
    for path in loot:
        won += of_loot(path)
    if [b"sleep", b"4711"] in commands():
        won.append("something that it started in its group still runs")
    print("--- ran " + " ".join(sorted({path.rsplit("-", 1)[1] for path in loot})))
    print("--- won " + json.dumps(won))


{"before": before, "after": after}[sys.argv[1]](*sys.argv[2:])
