"""User files of every kind. `make VENV OWNER` puts them into a venv, `list VENV OWNER` prints all their attributes.

Both run as root. A path that begins with `site/` lies in site-packages, of whichever Python. A venv of root's also holds
files that belong to www-data, and files that not even their owner may read; in an ordinary user's venv, they own all.
"""

import errno
import glob
import grp
import hashlib
import os
import pwd
import socket
import stat
import struct
import sys

APP, GROUP = pwd.getpwnam(sys.argv[3])[2:4]
IS_ROOTS = APP == 0
WWW, WEBS = pwd.getpwnam("www-data").pw_uid, grp.getgrnam("www-data").gr_gid
WEB = WWW if IS_ROOTS else APP
# The least rights of an owner to a file, and to a directory.
READ, ENTER = (0, 0) if IS_ROOTS else (0o400, 0o500)

# Path, mode, owner, group.
DIRS = [
    ("etc", 0o750, APP, GROUP),
    ("etc/empty", 0o700, APP, GROUP),
    ("static", 0o755, APP, GROUP),
    ("static/set-gid", 0o2775, APP, WEBS),
    ("static/sticky", 0o1777, APP, GROUP),
    ("static/read-only", 0o555, APP, GROUP),
    ("static/closed", 0o000, APP, GROUP),
    ("site/hand_made", 0o755, APP, GROUP),
    ("site/tight_data", 0o711, APP, GROUP),
    ("share/jupyter", 0o755, APP, GROUP),
    ("share/jupyter/kernels", 0o755, APP, GROUP),
    ("share/jupyter/kernels/app", 0o755, APP, GROUP),
    ("var", 0o755, APP, GROUP),
    ("var/empty", 0o2750, WEB, WEBS),
    ("var/run", 0o755, WEB, WEBS),
    ("var/web", 0o700, WEB, WEBS),
    ("var/web/deep", 0o755, WEB, GROUP),
    ("var/listed", 0o770, APP, GROUP),
    (b"names", 0o755, APP, GROUP),
    (b"names/fol\xffder", 0o755, APP, GROUP),
]
FILES = [
    (".env", 0o600, APP, GROUP),
    (".theirs", 0o600, WEB, GROUP),
    (".theirs-for-app", 0o640, WEB, GROUP),
    ("bin/postactivate", 0o755, APP, GROUP),
    ("bin/predeactivate", 0o755, APP, WEBS),
    ("bin/set-user", 0o4755, APP, GROUP),
    ("etc/closed", 0o000, APP, GROUP),
    ("etc/write-only", 0o200, APP, GROUP),
    ("etc/read-only", 0o444, APP, GROUP),
    ("etc/anybodys", 0o666, APP, GROUP),
    ("static/set-gid/file", 0o664, APP, WEBS),
    ("static/sticky/file", 0o644, APP, GROUP),
    ("static/sticky/webs", 0o644, WEB, WEBS),
    ("static/read-only/file", 0o444, APP, GROUP),
    ("static/closed/file", 0o644, APP, GROUP),
    *((f"static/asset-{number:02}", 0o644, APP, GROUP) for number in range(20)),
    ("site/sitecustomize.py", 0o644, APP, GROUP),
    ("site/hand_made/data.bin", 0o644, APP, GROUP),
    ("site/tight.local", 0o600, APP, GROUP),
    ("site/tight_data/logo.svg", 0o644, APP, GROUP),
    ("share/jupyter/kernels/app/kernel.json", 0o644, APP, GROUP),
    ("var/web/upload", 0o600, WEB, WEBS),
    ("var/web/deep/app's", 0o644, APP, GROUP),
    ("var/web/deep/hidden", 0o600, APP, GROUP),
    ("var/listed/file", 0o660, APP, GROUP),
    ("names/two words 'quoted' \"twice\" $(not run)", 0o644, APP, GROUP),
    ("names/-rf", 0o644, APP, GROUP),
    ("names/line\nfeed", 0o644, APP, GROUP),
    ("names/\x1b[2J", 0o644, APP, GROUP),
    (b"names/\xfe\xff", 0o644, APP, GROUP),
    (b"names/fol\xffder/\xc3\xa4", 0o644, APP, GROUP),
    ("names/" + "n" * 255, 0o644, APP, GROUP),
]
TEXTS = {
    "pip.conf": b"[global]\nno-index = true\nfind-links = /wheels\n",
    "site/local.pth": b"/srv/own/library\n",
}
# Target, name, owner.
LINKS = [
    ("/etc/hostname", "absolute", APP),
    ("../.env", "etc/relative", APP),
    ("nowhere", "dangling", APP),
    ("/var/lib", "static/to-a-directory", APP),
    ("../../..", "site/up", APP),
    ("deep", "var/web/webs", WEB),
    ("/etc/shadow", "shadow", APP),
]
# Additional names of files.
NAMES = [
    ("static/asset-00", "static/asset-again"),
    ("static/asset-00", "etc/asset"),
    ("var/web/upload", "var/web/deep/upload"),
]
# An access list: its owner, app and www-data, its group, the mask, and others.


def access(*entries):
    """An access list: who may do what."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


ACL = access(
    (1, 7, 2**32 - 1), (2, 6, WWW), (4, 4, 2**32 - 1), (8, 4, WEBS), (16, 6, 2**32 - 1), (32, 0, 2**32 - 1),
)
# The venv's own access list: www-data may enter it, too.
OPEN = access((1, 7, 2**32 - 1), (2, 5, WWW), (4, 5, 2**32 - 1), (16, 5, 2**32 - 1), (32, 5, 2**32 - 1))
ATTRIBUTES = [
    ("etc/anybodys", "user.comment", b"\0any\xffbytes"),
    ("etc/read-only", "user.comment", b"read-only"),
    ("static", "user.comment", b"a directory's"),
    ("var/web/upload", "user.comment", b"www-data's"),
    ("var/listed/file", "system.posix_acl_access", ACL),
    ("var/listed", "system.posix_acl_access", ACL),
    ("var/listed", "system.posix_acl_default", ACL),
]


def at(path):
    path = os.fsencode(path)
    if path.startswith(b"site/"):
        # The one of the Python that the venv is for.
        (site,) = (one for one in glob.glob(b"lib/python3.*/site-packages") if os.listdir(one))
        path = path.replace(b"site", site, 1)
    return path


def all_paths():
    told = [one[0] for one in DIRS + FILES] + list(TEXTS) + [one[1] for one in LINKS + NAMES]
    return sorted([*map(os.fsencode, told), b"etc/sparse"])


def make():
    os.mkdir("share")
    os.chown("share", APP, GROUP)
    for path, *_ in DIRS:
        os.mkdir(at(path))
    for path, mode, owner, group in FILES:
        with open(at(path), "wb") as file:
            file.write(b"# " + repr(path).encode() + b"\n")
        os.chown(at(path), owner, group)
        os.chmod(at(path), mode | READ)
    for path, text in TEXTS.items():
        with open(at(path), "wb") as file:
            file.write(text)
        os.chown(at(path), APP, GROUP)
    with open(at("etc/sparse"), "wb") as file:
        file.truncate(1 << 33)
        file.seek(1 << 32)
        file.write(b"a little in the middle")
    os.chown(at("etc/sparse"), APP, GROUP)
    for target, path, owner in LINKS:
        os.symlink(target, at(path))
        os.chown(at(path), owner, GROUP if owner == APP else owner, follow_symlinks=False)
    for path, name in NAMES:
        os.link(at(path), at(name))
    os.mkfifo(at("var/run/fifo"))
    socket.socket(socket.AF_UNIX).bind(at("var/run/socket"))
    for path, mode, owner, group in DIRS:
        os.chown(at(path), owner, group)
        os.chmod(at(path), mode | ENTER)
    for path, name, value in ATTRIBUTES:
        os.setxattr(at(path), name, value)
    # The deepest first: a change inside a directory changes its time.
    for number, path in enumerate(reversed(all_paths())):
        time = 1_000_000_000_123_456_789 + number * 1_111_111_111
        os.utime(at(path), ns=(time, time), follow_symlinks=False)


def content(path, status):
    if stat.S_ISLNK(status.st_mode):
        return repr(os.readlink(path))
    if stat.S_ISDIR(status.st_mode):
        # Leave out sockets and FIFOs: their service makes them again.
        inside = (os.path.join(path, name) for name in os.listdir(path))
        is_kept = lambda one: not (stat.S_ISFIFO(one) or stat.S_ISSOCK(one))
        return repr(sorted(os.path.basename(one) for one in inside if is_kept(os.lstat(one).st_mode)))
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        end = 0
        while True:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    break
                raise
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            file.seek(start)
            digest.update(b"%d %d " % (start, end) + file.read(end - start))
    return digest.hexdigest()


def tell():
    names = {}
    for path in all_paths():
        names.setdefault(os.lstat(at(path)).st_ino, []).append(path)
    for path in all_paths():
        real = at(path)
        status = os.lstat(real)
        attributes = {
            name: os.getxattr(real, name, follow_symlinks=False).hex()
            for name in sorted(os.listxattr(real, follow_symlinks=False))
        }
        size = None if stat.S_ISDIR(status.st_mode) else status.st_size
        print(
            repr(path), stat.filemode(status.st_mode), status.st_uid, status.st_gid, size, status.st_mtime_ns,
            content(real, status), attributes, names[status.st_ino] if len(names[status.st_ino]) > 1 else "",
        )


if __name__ == "__main__":
    os.chdir(sys.argv[2])
    {
        "make": make,
        "list": tell,
        "open": lambda: os.setxattr(".", "system.posix_acl_access", OPEN),
        "is-open": lambda: print(os.getxattr(".", "system.posix_acl_access") == OPEN),
    }[sys.argv[1]]()
