# Copyright the venvguard maintainers
# SPDX-License-Identifier: Apache-2.0
"""The one way in which the modules run venvguard."""

from __future__ import annotations

import json
import os

DONE = 0
FAILED = 1
USAGE = 2
ATTENTION = 3
BLOCKED = 10

# The newest schema_version of venvguard's JSON that this collection knows.
SCHEMA = 1

# How much of venvguard's messages a failure quotes.
MESSAGES_LIMIT = 4096

PATHS = ["/usr/sbin", "/usr/bin"]


class VenvguardError(Exception):
    """venvguard did not answer; says why, for people."""


def arguments(**own):
    """The argument spec of a module: its own options, and those that all modules have."""
    return dict(own, executable=dict(type="str", default="venvguard"))


def last_messages(stderr):
    """The end of what venvguard wrote to standard error, without a line that is cut."""
    text = stderr.strip()
    if len(text) <= MESSAGES_LIMIT:
        return text
    return text[-MESSAGES_LIMIT:].partition("\n")[2]


def why(exit_status, stderr, command):
    """What an exit status that was not expected means."""
    messages = last_messages(stderr)
    name = "`venvguard %s`" % command
    if exit_status == FAILED:
        text = "%s failed" % name
    elif exit_status == USAGE:
        text = "%s does not accept these arguments; venvguard on the host may be older than this collection" % name
    elif exit_status == ATTENTION:
        text = "%s found something that needs attention" % name
    elif exit_status == BLOCKED:
        text = "%s blocks the transaction" % name
    elif exit_status < 0:
        text = "%s was ended by signal %d" % (name, -exit_status)
    else:
        text = "%s ended with exit status %d, which this collection does not know" % (name, exit_status)
    return "%s: %s" % (text, messages) if messages else text


def parsed(stdout, command):
    """The object that a command printed."""
    try:
        answer = json.loads(stdout)
        schema = answer["schema_version"]
    except (ValueError, KeyError, TypeError):
        raise VenvguardError("`venvguard %s` did not print the JSON that it should: %r" % (command, stdout[:200]))
    if not isinstance(schema, int) or schema > SCHEMA:
        raise VenvguardError(
            "venvguard on the host prints schema_version %r, and this collection knows those up to %d; "
            "install a newer collection" % (schema, SCHEMA)
        )
    return answer


class Venvguard:
    """venvguard on the host."""

    def __init__(self, module):
        self.module = module
        self.program = self._found(module.params["executable"])
        self.messages = []

    def _found(self, name):
        if os.path.sep in name:
            found = name
        else:
            found = self.module.get_bin_path(name, opt_dirs=PATHS)
        if not found or not os.path.exists(found):
            self.module.fail_json(msg="venvguard is not installed on the host: there is no program %s" % name)
        return found

    def run(self, command, *words, expect=(DONE,)):
        """Runs a command. Returns the exit status, one of those that are expected, and standard output."""
        environment = dict(LC_ALL="C.UTF-8", NO_COLOR="1")
        status, stdout, stderr = self.module.run_command(
            [self.program, command] + list(words), environ_update=environment
        )
        self.messages += last_messages(stderr).splitlines()
        if status not in expect:
            self._fail(why(status, stderr, command), exit_status=status)
        return status, stdout

    def ask(self, command, *words, expect=(DONE,)):
        """Runs a command that prints JSON. Returns the exit status and the object."""
        status, stdout = self.run(command, "--json", *words, expect=expect)
        try:
            return status, parsed(stdout, command)
        except VenvguardError as error:
            self._fail(str(error), exit_status=status)

    def _fail(self, text, exit_status):
        self.module.fail_json(msg=text, exit_status=exit_status, messages=self.messages)
