"""The attacker's code, wherever it gets to run: it tries everything, and records how far it came."""

import glob
import json
import os
import resource
import subprocess


def attempt(action):
    try:
        action()
        return True
    except OSError:
        return False


def read(path):
    with open(path, "rb") as file:
        file.read(1)


def write(path):
    with open(path, "x") as file:
        file.write("planted")


def of_root(path):
    try:
        return os.stat(path).st_uid == 0
    except OSError:
        return False


def target(descriptor):
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


def report(how):
    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file)
    secrets = ["/root/canary", "/home/bob/canary", "/home/bob/place/venv/.env", "/etc/canary", "/etc/shadow"]
    memories = [f"{process}/mem" for process in glob.glob("/proc/[0-9]*") if of_root(process)]
    directories = ["/etc", "/root", "/home/bob", "/home/bob/place/venv", "/usr/local/bin", "/var/lib/venvguard", "/srv"]
    # Within the attacker's own reach, but an installer has no business there.
    elsewhere = "/home/mallory/elsewhere"
    found = {
        "how": how,
        "ids": status["Uid"].split() + status["Gid"].split() + status["Groups"].split(),
        "gains nothing": status["NoNewPrivs"] == "1",
        # A terminal belongs to a session: a process that shares root's can type into it. Zero is one of another container's.
        "session of its own": os.getsid(0) != 0 and not of_root(f"/proc/{os.getsid(0)}"),
        "gained": subprocess.run(["/usr/local/bin/who", "-u"], capture_output=True, text=True).stdout.strip(),
        "no core files": resource.getrlimit(resource.RLIMIT_CORE) == (0, 0),
        "environment": [f"{name}={value}" for name, value in os.environ.items()],
        "descriptors": [target(number) for number in os.listdir("/proc/self/fd") if int(number) > 2],
        "read": [path for path in secrets + memories if attempt(lambda path=path: read(path))],
        "wrote": [path for path in directories if attempt(lambda path=path: write(f"{path}/planted"))],
        "elsewhere": attempt(lambda: write(elsewhere)),
        "shared": [path for path in ("/tmp/everybodys", "/var/tmp/everybodys") if attempt(lambda path=path: read(path))],
    }
    # Leave one process behind, and one in a session of its own. Both hold the output open, except an installer's, which
    # would wait for them until its time limit.
    output = subprocess.DEVNULL if how == "backend" else None
    subprocess.Popen(["sleep", "4711"], stdout=output, stderr=output)
    subprocess.Popen(["sleep", "4712"], stdout=output, stderr=output, start_new_session=True)
    # An installer's /tmp is private and vanishes with it, but everybody who runs the attacker's code can write to this
    # cache.
    with open(f"/home/mallory/.cache/loot/{os.getpid()}-{how}", "w") as file:
        json.dump(found, file)
