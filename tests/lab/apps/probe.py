"""The pages of every app of the lab, whatever its framework: `answer(path)` returns a status and a text."""

import importlib
import json
import os
import sys

# Long-running processes have these in memory; their later imports read the current files.
import email.errors
import typing


def answer(path):
    """Answers one request; the answer to a failure is the error, as a user would see it in a log."""
    parts = path.strip("/").split("/")
    try:
        if parts == ["ok"]:
            return 200, "ok\n"
        if parts == ["python"]:
            return 200, json.dumps(python()) + "\n"
        if parts == ["mail"]:
            return 200, mail()
        if parts == ["library"]:
            return 200, library()
        if parts[0] == "import" and len(parts) == 2:
            importlib.import_module(parts[1])
            return 200, "imported " + parts[1] + "\n"
    except Exception as error:
        return 500, "%s: %s\n" % (type(error).__name__, error)
    return 404, "no such page\n"


def python():
    """The interpreter that answers."""
    return {
        "version": sys.version.split()[0],
        "executable": sys.executable,
        "prefix": sys.prefix,
        "pid": os.getpid(),
    }


def mail():
    """A mail as text; its generator is imported only now."""
    from email.message import EmailMessage

    message = EmailMessage()
    message["Subject"] = "hello"
    message.set_content("from the lab")
    return message.as_string()


# Modules that open a browser, print poems, or start a window when they are imported.
UNWELCOME = ("antigravity", "idlelib", "this", "tkinter", "turtle", "turtledemo")


def library():
    """Imports the pure Python modules of the standard library and names those that fail."""
    directory = os.path.dirname(os.__file__)
    failed = []
    for file in sorted(os.listdir(directory)):
        name = file[: -len(".py")]
        if not file.endswith(".py") or name.startswith("_") or name in UNWELCOME:
            continue
        try:
            importlib.import_module(name)
        except ImportError as error:
            failed.append("%s: %s: %s" % (name, type(error).__name__, error))
    if failed:
        raise ImportError("; ".join(failed))
    return "the whole library\n"
