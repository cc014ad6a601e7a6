"""An application that a new Python breaks. BREAKS says how: "import" fails, "dies" ends its workers as they begin,
"deaf" listens nowhere, and "no" does not break it. It works on the minor version WORKS_ON."""

import os
import signal
import socket
import sys
import time

import packaging  # Missing where the packages of the venv are for another Python.

breaks = "%d.%d" % sys.version_info[:2] != os.environ["WORKS_ON"] and os.environ["BREAKS"]
if breaks == "import":
    raise ImportError("this Python is too new")
if breaks == "dies":
    os.kill(os.getpid(), signal.SIGKILL)


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok\n"]


if __name__ == "__main__":
    if breaks == "deaf":
        time.sleep(9000)
    if os.path.exists(sys.argv[1]):
        os.unlink(sys.argv[1])
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen()
    while True:
        connection = listener.accept()[0]
        request, part = b"", b" "
        while part and b"\r\n\r\n" not in request:
            part = connection.recv(4096)
            request += part
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nok\n")
        connection.close()
