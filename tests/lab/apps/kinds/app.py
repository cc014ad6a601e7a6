"""A service of any kind: records each of its starts, and works until it is stopped. NAME is its name."""

import os
import socket
import sys
import time


def record():
    with open("/srv/starts", "a") as starts:
        starts.write("%s %d %s\n" % (os.environ["NAME"], os.getpid(), sys.version.split()[0]))


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok\n"]


if sys.argv[1:] == ["forks"] and os.fork():
    sys.exit()
record()
if __name__ == "__main__" and sys.argv[1:] != ["ends"]:
    if "LISTEN_FDS" in os.environ:
        listener = socket.socket(fileno=3)
        while True:
            listener.accept()[0].close()
    time.sleep(9000)
