# Copyright the venvguard maintainers
# SPDX-License-Identifier: Apache-2.0
"""Lets plain pytest import the collection from a checkout, and runs modules on a program that stands in for venvguard."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest
from ansible.module_utils import basic

COLLECTION = Path(__file__).parents[2]

try:
    import ansible_collections.venvguard.venvguard  # noqa: F401, pylint: disable=unused-import
except ImportError:
    for name in ("ansible_collections", "ansible_collections.venvguard", "ansible_collections.venvguard.venvguard"):
        package = types.ModuleType(name)
        package.__path__ = [str(COLLECTION)] if name.count(".") == 2 else []
        sys.modules[name] = package


class Ended(Exception):
    """A module ended, with this answer."""

    def __init__(self, answer):
        super().__init__(answer)
        self.answer = answer


class Machine:
    """A program that answers each command as a test says, and notes how it was called."""

    def __init__(self, directory, monkeypatch):
        self.directory = directory
        self.monkeypatch = monkeypatch
        self.program = directory / "venvguard"
        self.program.write_text(
            '#!/bin/sh\ncd "$(dirname "$0")" || exit 99\nprintf "%s\\n" "$*" >>calls\n'
            'case "$*" in\n*--dry-run*) answer=$1-dry-run ;;\n*) answer=$1 ;;\nesac\n'
            'cat "$answer.err" >&2\ncat "$answer.out"\nexit "$(cat "$answer.status")"\n'
        )
        self.program.chmod(0o755)

    def answers(self, command, answer=None, status=0, stderr=""):
        """Lets a command print an object, or text."""
        text = answer if isinstance(answer, str) else json.dumps(dict(answer or {}, schema_version=1))
        (self.directory / (command + ".out")).write_text(text)
        (self.directory / (command + ".err")).write_text(stderr)
        (self.directory / (command + ".status")).write_text(str(status))

    def calls(self):
        """The commands that were run, as lines."""
        path = self.directory / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def run(self, module, check=False, **options):
        """Runs a module, and returns its answer."""
        arguments = dict(options, executable=str(self.program), _ansible_check_mode=check)
        text = json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode()
        self.monkeypatch.setattr(basic, "_ANSIBLE_ARGS", text)
        self.monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy", raising=False)

        def ended(ansible, failed=False, **answer):
            raise Ended(dict(answer, failed=failed))

        self.monkeypatch.setattr(basic.AnsibleModule, "exit_json", ended)
        self.monkeypatch.setattr(
            basic.AnsibleModule, "fail_json", lambda ansible, msg, **answer: ended(ansible, True, msg=msg, **answer)
        )
        with pytest.raises(Ended) as caught:
            module.main()
        return caught.value.answer


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return Machine(tmp_path, monkeypatch)


@pytest.fixture
def collection():
    return COLLECTION
