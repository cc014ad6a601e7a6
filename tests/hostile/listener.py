"""A server that listens in the place of supervisord: `listener.py SOCKET lies|hangs|floods`."""

import os
import socket
import sys
import threading

path, how = sys.argv[1:]
RECORD = (
    "<?xml version='1.0'?><methodResponse><params><param><value><array><data><value><struct>"
    "<member><name>name</name><value><string>web\x1b[2J</string></value></member>"
    "<member><name>group</name><value><string>forged\nvenvguard: error</string></value></member>"
    "<member><name>pid</name><value><int>1</int></value></member>"
    "<member><name>statename</name><value><string>RUNNING</string></value></member>"
    "<member><name>command</name><value><string>/home/mallory/place/venv/bin/python</string></value></member>"
    "</struct></value></data></array></value></param></params></methodResponse>"
).encode()


def answer(connection):
    try:
        connection.recv(65536)
        if how == "lies":
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(RECORD) + RECORD)
            connection.close()
        while how == "floods":
            connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 4096)
    except OSError:
        pass


if os.path.exists(path):
    os.unlink(path)
server = socket.socket(socket.AF_UNIX)
server.bind(path)
os.chmod(path, 0o777)
server.listen(16)
if os.fork():
    sys.exit()
held = []
while True:
    held.append(server.accept()[0])
    threading.Thread(target=answer, args=[held[-1]], daemon=True).start()
