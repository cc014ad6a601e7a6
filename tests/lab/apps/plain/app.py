"""A WSGI app that needs nothing but its server."""

import os

import probe

# The imports at startup decide how a stale interpreter fails.
for name in os.environ.get("NEEDS", "").split():
    __import__(name)


def application(environ, start_response):
    status, text = probe.answer(environ["PATH_INFO"])
    start_response("%d Lab" % status, [("Content-Type", "text/plain")])
    return [text.encode()]
