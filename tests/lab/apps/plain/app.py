"""A WSGI app that needs nothing but its server."""

import os

import probe

# What an app imports when it starts decides how a stale interpreter shows.
for name in os.environ.get("NEEDS", "").split():
    __import__(name)


def application(environ, start_response):
    status, text = probe.answer(environ["PATH_INFO"])
    start_response("%d Lab" % status, [("Content-Type", "text/plain")])
    return [text.encode()]
