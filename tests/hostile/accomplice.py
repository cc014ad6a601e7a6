"""A process of the attacker's that works beside venvguard, for a minute at most. `moves` and `fills` wait until a build of
theirs is at work (see `backend.py`); `takes` starts immediately.

    accomplice.py moves WHAT PATTERN    moves WHAT into the directory that matches the pattern
    accomplice.py fills PATTERN NAME... makes sparse files of 16 GiB in the directory that matches the pattern
    accomplice.py takes PATTERN...      reads the secrets in directories that match the patterns, and plants a file there"""

import glob
import os
import sys
import time

WORK, GO = "/home/mallory/src/at-work", "/home/mallory/go"
END = time.monotonic() + 60


def found(patterns):
    return [path for pattern in patterns for path in glob.glob(pattern)]


def wait_for(patterns):
    while time.monotonic() < END:
        paths = found(patterns)
        if paths:
            return paths[0]
        time.sleep(0.001)
    sys.exit("nothing was found")


def moves(what, pattern):
    wait_for([WORK])
    os.rename(what, os.path.join(wait_for([pattern]), os.path.basename(what)))


def fills(pattern, *names):
    wait_for([WORK])
    directory = wait_for([pattern])
    for name in names:
        with open(os.path.join(directory, name), "wb") as file:
            file.truncate(16 << 30)


def takes(*patterns):
    while time.monotonic() < END:
        for directory in found(patterns):
            try:
                with open(f"{directory}/secret", "rb") as file, open("/home/mallory/taken", "wb") as taken:
                    taken.write(file.read())
            except OSError:
                pass
            try:
                open(f"{directory}/evil", "x").close()
            except OSError:
                pass
        time.sleep(0.0005)


{"moves": moves, "fills": fills, "takes": takes}[sys.argv[1]](*sys.argv[2:])
open(GO, "x").close()
