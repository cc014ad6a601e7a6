"""Runs a command and measures what venvguard itself, as root, needs for it: `meter.py COMMAND...`.

The last line is `--- meter peak=KIBIBYTES read=BYTES said=BYTES`: the peak memory of the largest root process of
venvguard, how much such processes read, and how much the command prints, of which only the beginning is passed on. The
reads and the memory of ordinary users' processes do not count."""

import os
import select
import signal
import sys

PAUSE = 0.05
SHOWN = 1 << 18

peaks, reads = {}, {}
said = 0


def look():
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            program = os.path.basename(os.readlink(f"/proc/{process}/exe"))
            with open(f"/proc/{process}/status") as file:
                status = dict(line.rstrip("\n").split(":\t", 1) for line in file)
            if not program.startswith("venvguard") or status["Uid"].split()[0] != "0":
                continue
            peak = int(status["VmHWM"].split()[0])
            peaks[process] = max(peak, peaks.get(process, 0))
            # By thread: the count of a whole process includes the reads of its children, whatever their user.
            for thread in os.listdir(f"/proc/{process}/task"):
                with open(f"/proc/{process}/task/{thread}/io") as file:
                    reads[process, thread] = int(file.readline().split()[1])
        except (OSError, KeyError):
            continue  # The process has just ended.


def tell(*_):
    text = f"\n--- meter peak={max(peaks.values(), default=0)} read={sum(reads.values())} said={said}\n"
    os.write(1, text.encode())
    if _:
        os._exit(143)


def take(output):
    global said
    piece = os.read(output, 1 << 16)
    if said < SHOWN:
        os.write(1, piece[: SHOWN - said])
    said += len(piece)
    return bool(piece)


output, into = os.pipe()
child = os.fork()
if child == 0:
    os.dup2(into, 1)
    os.dup2(into, 2)
    os.close(into)
    os.close(output)
    os.execvp(sys.argv[1], sys.argv[1:])
os.close(into)
signal.signal(signal.SIGTERM, tell)
status = None
while status is None:
    look()
    while select.select([output], [], [], PAUSE)[0] and take(output):
        look()
    ended, found = os.waitpid(child, os.WNOHANG)
    if ended:
        status = found
# Processes that are left behind may hold the other end open.
while select.select([output], [], [], 0)[0] and take(output):
    pass
tell()
code = os.waitstatus_to_exitcode(status)
sys.exit(128 - code if code < 0 else code)
